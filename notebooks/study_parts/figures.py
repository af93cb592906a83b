"""Pictures of the report: PNG, one per question, in the style of freqkv.use_style().

matplotlib is imported when the first one is drawn; without it the report leaves pictures out.
"""

import freqkv
import numpy as np

from .intervals import mean_interval

INCHES = (8, 3.2)


def panels(count):
    import matplotlib

    matplotlib.use("Agg")
    freqkv.use_style()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=INCHES)
    return figure, np.atleast_1d(axes)


def save(figure, path):
    from matplotlib import pyplot

    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def bars(axis, at, found, label=None, across=False, **style):
    """Means with their intervals; across: they run along x. found: [(mean, low, high)]"""
    mean, low, high = np.array(found, float).T
    x, y = (mean, at) if across else (at, mean)
    error = {"xerr" if across else "yerr": (mean - low, high - mean)}
    style = {"fmt": "o-", "markersize": 3, "capsize": 0, **style}
    axis.errorbar(x, y, **error, label=label, **style)


def legend_above(axis, columns):
    """Where it hides nothing."""
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def by_size(axis, name, values):
    """An axis of thousandths: linear; to 10 only, and from there logarithmic, where some of the
    values are far larger than most.
    """
    if max(values) > max(100, 8 * np.median(values)):
        getattr(axis, f"set_{name}scale")("symlog", linthresh=10)
        getattr(axis, name + "axis").set_major_formatter("{x:g}")


def thousandths(found):
    return [tuple(1000 * v for v in x) for x in found]


def depth(path, found, heads):
    """found: {label: {measure: [documents, layers]}}; heads: {label: {measure: [layers, heads]}}"""
    figure, axes = panels(2)
    for color, (label, by) in zip(freqkv.COLORS, found.items()):
        for axis, measure in zip(axes, ("dc_share", "low_half")):
            layers = range(by[measure].shape[1])
            bars(axis, layers, [mean_interval(x) for x in by[measure].T], label, color=color)
            points = heads[label][measure]
            axis.plot(layers, points, ".", color=color, alpha=0.35, markersize=3)
    null = np.mean([by["null_low_half"].mean(0) for by in found.values()], 0)
    axes[1].plot(null, ":", color="0.4")
    axes[0].set(xlabel="layer", ylabel="share of DC in all energy", ylim=(0, 1))
    axes[1].set(xlabel="layer", ylabel="lower half without DC")
    legend_above(axes[0], 3)
    save(figure, path)


def rivals(path, rows):
    """rows: as in rivals.all_rows()"""
    if not rows:
        return False
    figure, (left, right) = panels(2)
    half = [r for r in rows.values() if r["gamma"] in ("0.5", None)]
    half.sort(key=lambda r: -r["damage"][0])
    for y, r in enumerate(half):
        color = freqkv.COLORS[0] if r["policy"] == "freqkv" else "0.45"
        bars(left, [y], thousandths([r["damage"]]), across=True, fmt="o", color=color)
    left.set_yticks(range(len(half)), [r["label"] for r in half])
    left.axvline(0, color="0.7", linewidth=0.6)
    by_size(left, "x", [1000 * r["damage"][2] for r in half])
    left.set(xlabel="above full attention, nats / 1000")
    for i, label in enumerate(("freqkv", "local", "linear-meanpool", "snapkv", "keydiff")):
        found = sorted(
            (float(r["gamma"]), r["damage"])
            for r in rows.values()
            if r["label"] == label and r["gamma"]
        )
        if found:
            bars(
                right,
                [g + 0.008 * (i - 2) for g, _ in found],
                thousandths(d for _, d in found),
                label,
            )
    right.set(xlabel="gamma", ylabel="above full attention, nats / 1000")
    by_size(right, "y", [1000 * r["damage"][2] for r in rows.values()])
    right.set_xticks([0.25, 0.5, 0.75])
    legend_above(right, 3)
    save(figure, path)


def parts(path, numbers):
    """numbers: those that parts.report() kept"""
    if "parts" not in numbers:
        return False
    figure, (left, middle, right) = panels(3)
    found = [(n, by["0.5"]) for n, by in numbers["parts"].items() if "0.5" in by and n != "nothing"]
    effects = thousandths(effect for _, effect in found)
    bars(left, range(len(found)), effects, across=True, fmt="o", color=freqkv.COLORS[0])
    left.set_yticks(range(len(found)), [n.replace(" + ", "+\n", 1) for n, _ in found], fontsize=6)
    left.invert_yaxis()
    left.axvline(0, color="0.7", linewidth=0.6)
    left.set(xlabel="damage, gamma 0.5, nats / 1000")
    for state in ("key", "value"):
        bands = numbers.get(f"bands_{state}")
        if bands:
            found = [x["out"] for band, x in bands.items() if band != "DC" and x["out"]]
            bars(middle, np.arange(1, len(found) + 1), thousandths(found), state + "s")
        if f"layers_{state}" in numbers:
            found = thousandths(numbers[f"layers_{state}"])
            bars(right, range(len(found)), found, state + "s")
    middle.set(xlabel="eighth of the coefficients", ylabel="KL per unit of energy, / 1000")
    right.set(xlabel="layer", ylabel="KL without its upper half, / 1000")
    for axis in (middle, right):
        if axis.lines:
            legend_above(axis, 2)
    save(figure, path)


def rounds(path, numbers):
    """numbers: those that rounds.report() kept"""
    if "rounds" not in numbers:
        return False
    figure, (left, right) = panels(2)
    for name in ("freqkv", "local"):
        found = numbers["rounds"]
        bars(left, list(found), thousandths(x[name] for x in found.values()), name)
        found = numbers.get("distance")
        if found:
            bars(right, list(found), [x[name] for x in found.values()], name)
    left.set(xlabel="rounds of compression so far", ylabel="damage, nats / 1000")
    left.set_xticks(list(numbers["rounds"]))
    right.set(xlabel="tokens back", ylabel="recall above full attention, nats")
    if "horizon" in numbers:
        right.axvline(numbers["horizon"]["0.5"], color="0.4", linestyle=":")
    legend_above(left, 2)
    save(figure, path)


def search(path, rows, chosen):
    """rows: {try: as in search.measured()}; on the half for choosing"""
    figure, (axis,) = panels(1)
    found = {n: [r["choose"][m] for m in ("perplexity", "recall")] for n, r in rows.items()}
    found = {n: both for n, both in found.items() if all(x["freqkv"] for x in both)}
    for name, both in found.items():
        (x, xl, xh), (y, yl, yh) = thousandths(b["freqkv"] for b in both)
        filled = name in chosen
        color = freqkv.COLORS[1 if filled else 0]
        error = {"xerr": [[x - xl], [xh - x]], "yerr": [[y - yl], [yh - y]]}
        style = {"fmt": "o", "markersize": 4, "elinewidth": 0.6 if filled else 0.3}
        axis.errorbar(
            x, y, **error, **style, color=color, markerfacecolor=color if filled else "white"
        )
    reference = next((both for n, both in found.items() if rows[n]["mean"]), None)
    if reference:
        x, y = (1000 * (b["freqkv"][0] - b["local"][0]) for b in reference)
        axis.axhline(y, color="0.4", linewidth=0.6, linestyle=":")
        axis.axvline(x, color="0.4", linewidth=0.6, linestyle=":")
    axis.axhline(0, color="0.7", linewidth=0.6)
    axis.axvline(0, color="0.7", linewidth=0.6)
    axis.set_xscale("symlog", linthresh=100, linscale=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="loss less freqkv's, nats / 1000", ylabel="recall: loss less freqkv's, / 1000")
    save(figure, path)
    return bool(found)
