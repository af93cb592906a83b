"""Figures of probes: what changes of the cache cost. For freqkv.py.

Each function takes the probe_frame() of one probe and returns (figure, axes). They need pandas and
matplotlib. Damage is in thousandths of a nat per token, paired with the untouched run; intervals
are 95%, of the bootstrap of the tools.
"""

import numpy as np
from freqkv_frames import damage_frame
from freqkv_style import (
    NULL_LINE,
    finish,
    grid_of,
    heat_map,
    heat_size,
    in_style,
    line_of,
    panels,
    signed_map,
    ticks_at,
    whiskers,
)

MEASURES = {"damage": "Δ nll", "kl": "KL"}
MILLI_NATS = "10$^{-3}$ nats per token"
NOTE = "Whiskers: 95%, paired with the untouched run."
KNOWN_BANDS = {
    (0, 0.125): "lowest eighth",
    (0, 0.25): "lowest quarter",
    (0, 0.5): "lowest half",
    (0.5, 1): "highest half",
    (0.75, 1): "highest quarter",
    (0.875, 1): "highest eighth",
}
PARTS = {"truncation": "truncation", "squeezed": "squeezed positions", "fewer": "fewer slots"}


def chosen(probes, which, expected):
    """damage_frame() of the rows that a figure shows, in thousandths."""
    rows = probes[which]
    if probes["run"].nunique() > 1:
        raise ValueError(f"expected rows of one probe, found {list(probes['run'].unique())}")
    if not len(rows):
        raise ValueError(f"expected a probe with {expected}, found no such change")
    rows = damage_frame(rows)
    for name in MEASURES:
        for end in ("", "_low", "_high"):
            rows[name + end] *= 1000
    return rows


def of_all_heads(probes):
    return (probes["layer"] < 0) & (probes["head"] < 0)


def takes_dc(rows):
    return rows["option"].isin(["bands", "octaves"]) & (rows["low"] == 0)


def interval_of(rows, measure):
    """estimate, low and high of a measure, as whiskers() has them."""
    ends = ((measure, "estimate"), (measure + "_low", "low"), (measure + "_high", "high"))
    return rows[[name for name, _ in ends]].set_axis([name for _, name in ends], axis=1)


def band_words(row):
    """ "lowest eighth, without DC", or the band's ends"""
    low = 0 if row.low < 0.01 else row.low
    name = KNOWN_BANDS.get((low, row.high), f"{row.low:.3g} to {row.high:.3g}")
    return name + (", without DC" if 0 < row.low < 0.01 else "")


def part_words(row):
    """ "truncation alone, same slots", "truncation, squeezed positions, fewer slots" """
    on = [words for name, words in PARTS.items() if getattr(row, name) > 0]
    if on == ["truncation"]:
        return "truncation alone, " + ("L slots" if row.kind == "freqkv" else "same slots")
    return ", ".join(on) or "nothing"


def middle_of(rows, octaves):
    """The middle of each band: of octaves on a logarithmic axis."""
    return np.sqrt(rows["low"] * rows["high"]) if octaves else (rows["low"] + rows["high"]) / 2


def over(groups, middle, across):
    """(figure, axes): a panel per measure, and in it of each group (name, rows) a line with
    whiskers at middle(rows, number of the group).
    """
    fig, axes = panels(1, 2, (7.6, 3.4))
    for ax, (measure, words) in zip(axes[0], MEASURES.items()):
        for i, (name, x) in enumerate(groups):
            whiskers(ax, middle(x, i), interval_of(x, measure), line_of(i), name, joined=True)
        ax.axhline(0, **NULL_LINE)
        ax.set(title=words, xlabel=across, ylabel=MILLI_NATS)
    return fig, axes


@in_style
def plot_bands(probes):
    """The damage of taking out one band of frequencies, over the bands' middles, for keys, values
    and both. Taking out DC, which costs far more, is in the note.
    """
    which = of_all_heads(probes) & (probes["kind"] == "filter") & (probes["complement"] == 1)
    which &= (probes["bands"] == 1) & (probes["option"] != "decompose")
    rows = chosen(probes, which, "bands taken out (--bands, --octaves)")
    dc, rows = rows[takes_dc(rows)], rows[~takes_dc(rows)]
    width = rows["high"] - rows["low"]
    octaves = width.max() > 3 * width.min() and (rows["low"] > 0).all()

    def middle(x, i):
        at = middle_of(x, octaves)
        return at * 1.02 ** (i - 1) if octaves else at + 0.006 * (i - 1)

    across = "middle of the band (share of the coefficients)"
    fig, axes = over(rows.groupby("states", sort=False), middle, across)
    for ax in axes[0]:
        ax.set_xscale("log" if octaves else "linear")
        ticks_at(ax, middle_of(rows, octaves))
    costs = ", ".join(f"{row.states} {row.damage / 1000:.3g} nats" for row in dc.itertuples())
    note = f"{NOTE} Not shown: DC costs {costs}." if costs else NOTE
    return finish(fig, axes, "Damage of taking out one band", note, 3)


@in_style
def plot_decomposition(probes):
    """FreqKV's damage in parts: truncation (coefficients beyond L are lost), squeezed positions
    (slot indices), fewer slots (L in the softmax instead of n), a row per combination.
    """
    which = of_all_heads(probes) & (probes["option"] == "decompose")
    rows = chosen(probes, which | (which & (probes["kind"] == "none")), "--decompose")
    rows = rows.assign(part=[part_words(row) for row in rows.itertuples()])
    ratios = rows["gamma"].ffill().bfill()
    names = list(rows["part"].unique())
    fig, axes = panels(1, 2, (7.6, 1.6 + 0.28 * len(names)), sharey=True)
    for ax, (measure, words) in zip(axes[0], MEASURES.items()):
        for i, (gamma, x) in enumerate(rows.groupby(ratios)):
            at = x["part"].map(names.index) + 0.2 * i
            whiskers(ax, at, interval_of(x, measure), line_of(i), f"γ = {gamma:g}", across=True)
        ax.axvline(0, **NULL_LINE)
        ax.set(title=words, xlabel=MILLI_NATS)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    note = " Squeezed positions: slot indices; fewer slots: L in the softmax instead of n."
    return finish(fig, axes, "FreqKV's damage in parts", NOTE + note, 4)


@in_style
def plot_policies(probes):
    """The damage of one compression, and of keeping the latest tokens instead, over the ratio."""
    which = of_all_heads(probes) & (probes["option"] != "decompose")
    which &= probes["kind"].isin(["freqkv", "local"])
    rows = chosen(probes, which, "--freqkv or --local")
    kinds = rows.sort_values("gamma").groupby("kind")
    fig, axes = over(kinds, lambda x, i: x["gamma"] + 0.004 * (i - 0.5), "retaining ratio γ")
    for ax in axes[0]:
        ticks_at(ax, rows["gamma"])
    return finish(
        fig, axes, "Damage of one compression, and of keeping the latest tokens instead", NOTE, 4
    )


@in_style
def plot_probe_heads(probes, measure="kl"):
    """The damage of the same change to one head at a time, layer (down) by head (across), a panel
    per change; `measure`: "kl" or "damage".
    """
    rows = chosen(probes, (probes["layer"] >= 0) & (probes["head"] >= 0), "--per-head")
    rows = rows.assign(name=[change_words(row) for row in rows.itertuples()])
    groups = list(rows.groupby("name", sort=False))[:8]
    count, columns = grid_of(len(groups), 4)
    layers, heads = rows["layer"].nunique(), rows["head"].nunique()
    width, height = heat_size(count * layers, heads, columns)
    size = (max(4, width), height + 0.5 * count)
    fig, axes = panels(count, columns, size, False, len(groups))
    signed, most = measure == "damage", rows[measure].abs().max()
    cmap = signed_map() if signed else "viridis"
    for ax, (name, x) in zip(axes.flat, groups):
        table = x.pivot(index="layer", columns="head", values=measure)
        image = heat_map(ax, table, -most if signed else 0, most, "{:.2g}", cmap=cmap)
        ax.set(title=name, xlabel="KV head", ylabel="layer")
    fig.colorbar(image, ax=axes, label=f"{MEASURES[measure]} ({MILLI_NATS})", aspect=25)
    return finish(fig, axes, "Damage of the same change to one head at a time")


def change_words(row):
    """What a change does and to which states: "without lowest half: keys" """
    if row.option == "decompose":
        what = part_words(row)
    elif row.kind in ("filter", "noise"):
        without = "without DC" if row.complement and row.high == 0 else band_words(row)
        what = f"noise in {without}" if row.kind == "noise" else without
        what = f"without {what}" if row.complement and row.kind == "filter" else what
    else:
        what = f"{row.kind}, γ = {row.gamma:g}"
    return f"{what}: {row.states}"
