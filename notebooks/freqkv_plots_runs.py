"""Figures of what freqkv-replay wrote: runs, comparisons, needles. For freqkv.py.

Each function takes a frame of freqkv_frames.py and returns (figure, axes). They need pandas and
matplotlib. Intervals are 95%, of the bootstrap of the tools.
"""

import numpy as np
from freqkv_bootstrap import bootstrap
from freqkv_style import (
    NULL_LINE,
    LayerLines,
    finish,
    grid_of,
    heat_map,
    heat_size,
    in_style,
    line_of,
    panels,
    ticks_at,
    whiskers,
)

MEASURE_WORDS = {"nll": "Loss", "kl": "KL", "agree": "Agreement"}
UNITS = {"nll": "nats per token", "kl": "nats per token", "agree": "share of tokens"}
LEAST_TOKENS = 20  # the mean of fewer says nothing
BY_WORDS = {
    "all": "all tokens",
    "position": "by position in the text",
    "class": "by class of token",
    "document": "by document",
}


@in_style
def plot_perplexity(runs):
    """Perplexity, and delta nll and KL to full attention, over the ratio, a line per policy with
    its options and window; a policy without a ratio is a level line. `runs`: run_frame().
    """
    fig, axes = panels(1, 3, (8.6, 3.4))
    measures = {"perplexity": "perplexity", "delta_nll": "Δ nll (nats per token)"}
    for ax, (measure, label) in zip(axes[0], (measures | {"kl": "KL (nats per token)"}).items()):
        for i, (name, rows) in enumerate(runs.groupby("label", sort=False)):
            rows = rows[rows[measure].notna()].sort_values("gamma")
            aside = 0.003 * (i - runs["label"].nunique() / 2)
            rows = rows.assign(gamma=rows["gamma"] + aside)
            plot_over_ratio(ax, rows, measure, name, line_of(i))
        if measure != "perplexity":
            ax.axhline(0, **NULL_LINE)
        ax.set(xlabel="retaining ratio γ", ylabel=label)
        ticks_at(ax, runs["gamma"].dropna())
    return finish(
        fig,
        axes,
        "Perplexity, and the distance to full attention, over the retaining ratio",
        "Whiskers and shading: 95% of the mean, paired with full attention token by token.",
        3,
    )


def plot_over_ratio(ax, rows, measure, name, look):
    """One policy's runs: a level line where it has no ratio."""
    level = rows["gamma"].isna()
    interval = rows.reindex(columns=[measure, measure + "_low", measure + "_high"])
    interval.columns = ["estimate", "low", "high"]
    for row in interval[level].itertuples():
        ax.axhline(row.estimate, linewidth=1, label=name, **look)
        if np.isfinite(row.low):
            ax.axhspan(row.low, row.high, color=look["color"], alpha=0.1, linewidth=0)
    if not level.all():
        whiskers(ax, rows["gamma"][~level], interval[~level], look, name, joined=True)


@in_style
def plot_distance(tokens):
    """KL and delta nll over the tokens since the last compression (or eviction) and over their
    number, a line per run: means over tokens that one preceded. `tokens`: token_frame().
    """
    runs = [(run, distances(rows)) for run, rows in tokens.groupby("run", sort=False)]
    # a policy that acts at every token has no course
    runs = [(run, found) for run, found in runs if any(len(x) > 1 for x in found.values())]
    if not runs:
        raise ValueError("expected runs with a baseline and with compressions, found none")
    fig, axes = panels(2, 2, (7.6, 5.2), sharex="col")
    for i, (run, found) in enumerate(runs):
        look = line_of(i)
        shade = {"color": look["color"], "alpha": 0.12, "linewidth": 0}
        for ax, ((measure, _), means) in zip(axes.flat, found.items()):
            ax.plot(means["at"], means["estimate"], label=run, **look)
            low = means["low"]
            if measure == "kl":  # on a logarithmic axis, which has no zero
                low = low.clip(lower=means["estimate"] / 10)
            ax.fill_between(means["at"], low, means["high"], **shade)
    for row, label in zip(axes, ("KL (nats per token)", "Δ nll (nats per token)")):
        row[0].set_ylabel(label)
    axes[0, 0].set_xscale("log")
    for kl, difference in axes.T:
        if any((line.get_ydata() > 0).any() for line in kl.lines):
            kl.set_yscale("log")
        difference.axhline(0, **NULL_LINE)
    axes[1, 0].set_xlabel("tokens since the last compression or eviction")
    axes[1, 1].set_xlabel("compressions or evictions so far")
    axes[1, 1].xaxis.get_major_locator().set_params(integer=True)
    return finish(
        fig,
        axes,
        "Difference to full attention, after a compression and over compressions",
        "Shading: 95%. Rounds that the text cuts short are left out.",
        3,
    )


def distances(rows):
    """(measure, axis) -> means of one run's tokens, panel by panel: those after a compression."""
    rows = rows.assign(delta_nll=rows["nll"].astype(float) - rows["baseline_nll"])
    after = (rows["round"] >= 1) & (rows["since"] >= 1)
    # edges 1, 1.5, 2, 3, 4, 6, ...: the first tokens after a compression are told apart
    mantissa, exponent = np.frexp(rows["since"])
    bins = {"since": 2 * exponent + (mantissa >= 0.75), "round": rows["round"]}
    return {
        (measure, at): binned(rows, measure, bins[at].where(after), rows[at], at == "round")
        for measure in ("kl", "delta_nll")
        for at in bins
    }


def binned(rows, measure, bins, at, by_round):
    """Of each bin with enough tokens: at (its mean position), estimate, low, high, as arrays."""
    import pandas

    overlap = "window" in rows
    documents = None if overlap else rows["document"].to_numpy()
    values, found = rows[measure].to_numpy(float), []
    bins, at = bins.to_numpy(), at.to_numpy(float)
    names, counts = np.unique(bins[np.isfinite(bins) & np.isfinite(values)], return_counts=True)
    least = max(LEAST_TOKENS, counts.max(initial=0) / 4 if by_round else 0)
    for name in names[counts >= least]:
        interval = bootstrap(np.where(bins == name, values, np.nan), documents, overlap)
        found.append({"at": at[bins == name].mean()} | interval._asdict())
    return pandas.DataFrame(found, columns=["at", "estimate", "low", "high"]).astype(float)


@in_style
def plot_rounds(rounds, run=None):
    """The share of energy that each compression keeps, over rounds, a line per layer (means over
    heads; shading: least to largest head). `rounds`: round_frame(); `run`: default the first.
    """
    run = rounds["run"].iloc[0] if run is None else run
    rows = rounds[rounds["run"] == run]
    lines = LayerLines(set(rows["layer"]))
    fig, axes = panels(1, 2, (7.6, 3.4))
    for ax, state in zip(axes[0], ("key", "value")):
        for layer, x in rows[rows["state"] == state].groupby("layer"):
            y = x.groupby("round")["share"].agg(["mean", "min", "max"])
            look = lines.look(layer)
            ax.plot(y.index, y["mean"], **look)
            shade = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
            if layer in lines.strong:
                ax.fill_between(y.index, y["min"], y["max"], **shade)
        ax.set(title=state + "s", xlabel="round", ylabel="share of energy kept")
        ax.xaxis.get_major_locator().set_params(integer=True)
    lines.bar(fig, axes)
    note = "DC included, summed over texts. Lines: means over heads; shading: least to largest."
    return finish(fig, axes, f"Energy that each compression keeps ({run})", note)


@in_style
def plot_comparison(comparisons, measure="nll"):
    """Runs less the first of them, a panel per grouping of tokens. `comparisons`:
    comparison_frame(); at most eight runs and 24 documents.
    """
    rows = comparisons.rename(columns={"difference": "estimate"})
    rows = rows[(rows["run_a"] == rows["run_a"].iloc[0]) & (rows["measure"] == measure)]
    rows = rows[rows["estimate"].notna() & rows["label_b"].isin(rows["label_b"].unique()[:8])]
    groups = rows.groupby("by")["group"].nunique()
    shown = [by for by in BY_WORDS if 0 < groups.get(by, 0) <= 24]
    count, columns = grid_of(len(shown), 2)
    fig, axes = panels(count, columns, (9, 1 + 2.6 * count), shown=len(shown))
    for ax, by in zip(axes.flat, shown):
        ax.set_title(BY_WORDS[by])
        draw = compare_positions if by == "position" else compare_groups
        draw(ax, rows[rows["by"] == by])
    title = f"{MEASURE_WORDS[measure]} less that of: {rows['label_a'].iloc[0]}"
    return finish(fig, axes, title, "Paired, token by token. Whiskers and shading: 95%.", 2)


def compare_groups(ax, rows):
    """Groups down the panel, a point with whiskers per run, the runs beside each other."""
    names, runs = list(rows["group"].unique()), list(rows["label_b"].unique())
    for i, (run, x) in enumerate(rows.groupby("label_b", sort=False)):
        aside = 0.6 * ((i + 0.5) / len(runs) - 0.5)
        at = x["group"].map(names.index) + aside
        whiskers(ax, at, x, line_of(i), run, across=True)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.axvline(0, **NULL_LINE)
    ax.set_xlabel(UNITS[rows["measure"].iloc[0]])
    if names == ["all"]:
        ax.set_yticks([])


def compare_positions(ax, rows):
    """Positions across the panel, a line per run."""
    for i, (run, x) in enumerate(rows.groupby("label_b", sort=False)):
        middle = x["group"].str.split("-").map(lambda ends: (int(ends[0]) + int(ends[1]) + 1) / 2)
        ax.plot(middle, x["estimate"], **line_of(i))
        shade = {"color": line_of(i)["color"], "alpha": 0.15, "linewidth": 0}
        ax.fill_between(middle, x["low"], x["high"], **shade)
    ax.axhline(0, **NULL_LINE)
    ax.set(xlabel="token", ylabel=UNITS[rows["measure"].iloc[0]])


@in_style
def plot_needle(needles, score=None):
    """A score over length (across) and depth (down), means over repeats, a panel per policy; a cell
    without prompts stays empty. `needles`: needle_frame(); `score`: a column, default "exact" or,
    of a recall task, "gain".
    """
    score = score or ("exact" if "exact" in needles else "gain")
    words = {"exact": "share of prompts", "gain": "nats per token"}
    words |= {"logprob_per_token": "nats per token"}
    names = [n for n in ("policy", "window", "gamma") if n in needles]
    groups = list(needles.groupby(names, sort=False, dropna=False))
    low, high = (0, 1) if score == "exact" else (needles[score].min(), needles[score].max())
    lengths, depths = (sorted(set(needles[n])) for n in ("length", "depth"))
    count, columns = grid_of(len(groups), 3)
    width, height = heat_size(count * len(depths), len(lengths), columns)
    size = (max(4, width), height + 0.5 * count)
    fig, axes = panels(count, columns, size, False, len(groups), sharex=True, sharey=True)
    for ax, (name, rows) in zip(axes.flat, groups):
        table = rows.pivot_table(index="depth", columns="length", values=score)
        table = table.reindex(index=depths, columns=lengths)
        table.index = [f"{100 * depth:g}" for depth in table.index]
        image = heat_map(ax, table, low, max(high, low + 1e-6))
        known = [f"{n} {x:g}" for n, x in zip(names[1:], name[1:]) if np.isfinite(x)]
        known = [x.replace("gamma", "γ =") for x in known]
        ax.set_title(", ".join([name[0], *known]))
    for ax in axes[:, 0]:
        ax.set_ylabel("depth (%)")
    for ax in axes[-1]:
        ax.set_xlabel("length (tokens)")
    fig.colorbar(image, ax=axes, label=words.get(score, score), aspect=25)
    return finish(
        fig,
        axes,
        f"{needles['task'].iloc[0].capitalize()}: {score.replace('_', ' ')}",
        "Means over prompts. Depth 0: at the start of the text.",
    )
