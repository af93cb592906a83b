"""Figures of what freqkv-analyze found: spectra, errors, ratio tables. For freqkv.py.

Each function takes a frame of freqkv_frames.py and returns (figure, axes). They need pandas and
matplotlib. fig.savefig("name.svg") keeps one.
"""

import numpy as np
from freqkv_style import (
    COLORS,
    NULL_LINE,
    STATE_WORDS,
    LayerLines,
    evenly,
    finish,
    grid_of,
    heat_map,
    heat_size,
    in_style,
    panels,
    signed_map,
)

FREQUENCY = "frequency (cycles per token)"
MOST_PANELS = 36  # of figures with a panel per layer; of more layers 24 are shown


def of_state(table, state):
    rows = table[table["state"] == state]
    if not len(rows):
        raise ValueError(f"state: expected one of {sorted(set(table['state']))}, found {state}")
    return rows


def has_null(rows):
    return "null" in rows and rows["null"].notna().any()


def over_null(rows):
    """The rows without DC, of spectra that have a null."""
    if not has_null(rows):
        raise ValueError("expected spectra with their null (spectrum --null permute), found none")
    return rows[rows["t_low"] > 0]


@in_style
def plot_spectrum(spectra, state="key"):
    """Power over frequency, and power over that of permuted tokens, a line per layer, pooled over
    heads. At most eight layers are drawn strongly. DC stands left of the axis break. `spectra`:
    spectrum_frame().
    """
    rows = of_state(spectra, state)
    lines, null = LayerLines(set(rows["layer"])), has_null(rows)
    size = (6.4, 6 if null else 3.4)
    widths = {"width_ratios": (1, 14), "wspace": 0.02}
    fig, axes = panels(1 + null, 2, size, sharex="col", sharey="row", gridspec_kw=widths)
    means = rows.groupby(["layer", "t_low", "frequency"])[["power", "null"]].mean().reset_index()
    for layer, x in means.groupby("layer"):
        dc, rest = x["t_low"] == 0, x["t_low"] > 0
        for row, y in zip(axes, (x["power"], x["power"] / x["null"])):
            row[0].plot([0], y[dc], marker="_", markersize=9, **lines.look(layer))
            row[1].plot(x["frequency"][rest], y[rest], **lines.look(layer))
    axes[0, 0].set(ylabel="power per channel (DCT-II, orthonormal)", yscale="log")
    axes[-1, 0].set(xticks=[0], xlim=(-1, 1))
    axes[-1, 1].set(xscale="log", xlabel=FREQUENCY)
    if null:
        axes[1, 0].set(ylabel="power / permuted null", yscale="log")
        axes[1, 0].axhline(1, **NULL_LINE)
        axes[1, 1].axhline(1, **NULL_LINE)
    lines.bar(fig, axes)
    note = "Pooled over heads, means over log-spaced bands; at 0: DC."
    if len(lines.strong) < rows["layer"].nunique():
        note += " Strong: eight layers, evenly spaced."
    return finish(fig, axes, f"Power spectrum of {STATE_WORDS[state]}", note)


@in_style
def plot_heads(spectra, state="key"):
    """Power over that of permuted tokens per head, a panel per layer, all on one scale; shading:
    one standard error. Of more than 36 layers, 24 evenly spaced ones. `spectra`: spectrum_frame().
    """
    rows = over_null(of_state(spectra, state))
    layers = sorted(set(rows["layer"]))
    note = "Shading: one standard error."
    if len(layers) > MOST_PANELS:
        note += f" 24 of {len(layers)} layers, evenly spaced."
        layers = evenly(layers, 24)
    count, columns = grid_of(len(layers), 4 if len(layers) < 25 else 6)
    size = (max(3.2, 1.9 * columns), 1.2 + 1.15 * count)
    fig, axes = panels(count, columns, size, sharex=True, sharey=True)
    for ax, layer in zip(axes.flat, layers):
        ax.set(title=f"layer {layer}", xscale="log", yscale="log")
        ax.axhline(1, **NULL_LINE)
        for i, (head, x) in enumerate(rows[rows["layer"] == layer].groupby("head")):
            y, se = x["power"] / x["null"], x["power_se"] / x["null"]
            color = COLORS[i % len(COLORS)]
            ax.plot(x["frequency"], y, color=color, linewidth=0.9, label=f"head {head}")
            low = np.maximum(y - se, y / 10)  # a logarithmic axis has no zero
            ax.fill_between(x["frequency"], low, y + se, color=color, alpha=0.2, linewidth=0)
    for i, ax in enumerate(axes.flat):
        if i >= len(layers):
            ax.set_visible(False)
            axes.flat[i - columns].xaxis.set_tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("power / null")
    axes[-1, (columns - 1) // 2].set_xlabel(FREQUENCY)
    title = f"Power over chance of {STATE_WORDS[state]}, per head"
    return finish(fig, axes, title, note, columns=9)


@in_style
def plot_depth(shares, state="key"):
    """Shares of energy over depth: lines pooled over heads, points one head each, dashed the
    same of permuted tokens. `shares`: share_frame().
    """
    rows = of_state(shares, state).sort_values("layer")
    pooled, heads = rows[rows["head"] < 0], rows[rows["head"] >= 0]
    fig, axes = panels(1, 1, (5.6, 3.8))
    ax = axes[0, 0]
    words = {"low_half": "lowest half, without DC", "low_quarter": "lowest quarter, without DC"}
    for color, (name, label) in zip(COLORS, (words | {"dc": "DC, of all energy"}).items()):
        ax.plot(heads["layer"], heads[name], ".", color=color, markersize=3, alpha=0.35)
        ax.plot(pooled["layer"], pooled[name], "o-", color=color, markersize=3.5, label=label)
        if "null_" + name in rows:
            look = NULL_LINE | {"color": color}
            ax.plot(pooled["layer"], pooled["null_" + name], **look)
    ax.set(xlabel="layer", ylabel="share of the energy", ylim=(0, 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    note = "Lines: pooled over heads; points: one head each. Dashed: the same with tokens permuted."
    return finish(
        fig, axes, f"Where the energy of {STATE_WORDS[state]} is, over depth", note, columns=3
    )


@in_style
def plot_map(spectra, state="key"):
    """log2 of power over that of permuted tokens, layer (down) by frequency (across), pooled over
    heads, without DC. `spectra`: spectrum_frame().
    """
    rows = over_null(of_state(spectra, state))
    sums = rows.groupby(["layer", "t_low"])[["power", "null"]].sum()
    table = np.log2(sums["power"] / sums["null"]).unstack("t_low")
    n, layers = rows["t_high"].max(), np.arange(len(table) + 1) - 0.5
    edges = np.append(table.columns, n) / (2 * n)
    reach = float(np.nanmax(np.abs(table))) or 1
    fig, axes = panels(1, 1, (6.4, max(2.6, min(7, 1.6 + 0.13 * len(table)))), grid=False)
    ax = axes[0, 0]
    image = ax.pcolormesh(edges, layers, table, cmap=signed_map(), vmin=-reach, vmax=reach)
    ax.set(xscale="log", xlabel=FREQUENCY, ylabel="layer")
    step = 1 + (len(table) - 1) // 16
    ax.set_yticks(range(0, len(table), step), table.index[::step])
    ax.invert_yaxis()
    fig.colorbar(image, ax=ax, label="log$_2$(power / permuted)", aspect=30)
    return finish(
        fig,
        axes,
        f"Power over chance of {STATE_WORDS[state]}, by layer and frequency",
        "Pooled over heads and over the coefficients of a band. Without DC.",
    )


@in_style
def plot_errors(errors, state="key"):
    """What the lowest coefficients keep and lose over the ratio, a line per layer (means over
    heads), with DC above, without it below, where white noise is dashed. `errors`: error_frame().
    """
    rows = of_state(errors, state)
    lines = LayerLines(set(rows["layer"]))
    gamma = np.linspace(rows["gamma"].min(), rows["gamma"].max())
    fig, axes = panels(2, 2, (7.6, 5.6), sharex=True, sharey="col")
    words = {"retained_energy": "retained energy (share)", "relative_error": "‖x − x̂‖ / ‖x‖"}
    noise = {"retained_energy": gamma, "relative_error": np.sqrt(1 - gamma)}
    for row, with_dc in zip(axes, (True, False)):
        for ax, (measure, label) in zip(row, words.items()):
            x = rows[(rows["measure"] == measure) & (rows["with_dc"] == with_dc)]
            ends = x.groupby("gamma")["value"].agg(["min", "max"])
            shade = {"color": "#e4e4e4", "label": "range over layers and heads"}
            ax.fill_between(ends.index, ends["min"], ends["max"], **shade)
            for layer, y in x.groupby(["layer", "gamma"])["value"].mean().groupby("layer"):
                ax.plot(y.index.get_level_values("gamma"), y, **lines.look(layer))
            if not with_dc:
                ax.plot(gamma, noise[measure], "k--", linewidth=1.1, zorder=4, label="white noise")
            ax.set(ylabel=label, title="with DC" if with_dc else "without DC")
            ax.tick_params(labelleft=True)
    axes[1, 0].set_xlabel("retaining ratio γ")
    axes[1, 1].set_xlabel("retaining ratio γ")
    lines.bar(fig, axes)
    title = f"What the lowest DCT coefficients of {STATE_WORDS[state]} keep and lose"
    return finish(fig, axes, title, "Lines: means over heads.", columns=3)


@in_style
def plot_error_map(errors, state="key", gamma=0.5):
    """Relative error without DC of every layer and head at one ratio, 0 to 1 for every state; the
    stroke on the bar is white noise. `errors`: error_frame().
    """
    rows = of_state(errors, state)
    rows = rows[(rows["measure"] == "relative_error") & ~rows["with_dc"].astype(bool)]
    at = np.isclose(rows["gamma"], gamma)
    if not at.any():
        raise ValueError(f"gamma: expected one of {sorted(set(rows['gamma']))}, found {gamma}")
    table = rows[at].pivot(index="layer", columns="head", values="value")
    fig, axes = panels(1, 1, heat_size(*table.shape), grid=False)
    image = heat_map(axes[0, 0], table, 0, 1)
    axes[0, 0].set(xlabel="head", ylabel="layer")
    bar = fig.colorbar(image, ax=axes, label="‖x − x̂‖ / ‖x‖", aspect=30)
    bar.ax.axhline(np.sqrt(1 - gamma), color="black", linewidth=1.6)
    return finish(
        fig,
        axes,
        f"Relative error of {STATE_WORDS[state]}\nat γ = {gamma:g}, without DC",
        f"Stroke on the bar: white noise, {np.sqrt(1 - gamma):.3f}.",
    )


@in_style
def plot_ratios(ratios):
    """The ratio of every layer and head; a point beside those at the largest ratio, which would
    take more if they could. `ratios`: ratio_frame().
    """
    table = ratios.pivot(index="layer", columns="head", values="gamma")
    fig, axes = panels(1, 1, heat_size(*table.shape), grid=False)
    ax, most = axes[0, 0], ratios["gamma"].max()
    image = heat_map(ax, table, 0, 1)
    ax.set(xlabel="KV head", ylabel="layer")
    fig.colorbar(image, ax=ax, label="retaining ratio γ", aspect=30)
    y, x = np.nonzero(table.to_numpy() == most)
    some = 1 < len(x) < table.size
    if some:
        ax.plot(x + 0.38, y, "o", color="black", markersize=2)
    mean, spread = ratios["gamma"].mean(), ratios["gamma"].std(ddof=0)
    note = f"Mean {mean:.3f}, standard deviation {spread:.3f}."
    note += f" Points: {len(x)} of {table.size} heads at the largest, {most:.3g}." if some else ""
    return finish(fig, axes, "Retaining ratio of every layer and head", note)
