"""The look of figures: the colours of freqkv-analyze, and what its figures share. For freqkv.py.
matplotlib is imported by those functions that draw.
"""

import functools
import sys

import numpy as np

COLORS = [
    "#0072b2",
    "#d55e00",
    "#000000",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a4b00",
]  # as in analyze/figure/color.c
SIGNED = ["#0b4a80", "#6aa5cd", "#f2f0ec", "#e79a5b", "#8c3f05"]  # below, at and above a middle
NULL_LINE = {"color": "#737373", "linewidth": 0.9, "linestyle": (0, (4, 3))}
STRONG_LINES = 8  # the most layers that are drawn strongly
STYLE = {
    "image.cmap": "viridis",
    "figure.figsize": (8, 3.2),
    "figure.dpi": 80,
    "savefig.dpi": 80,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "figure.constrained_layout.use": True,
}
STATE_WORDS = {
    "key": "keys before RoPE",
    "value": "values",
    "key_rotated": "keys after RoPE",
    "query": "queries before RoPE",
}


def style():
    """What matplotlib's settings become: STYLE and the colours of lines."""
    from cycler import cycler

    return STYLE | {"axes.prop_cycle": cycler(color=COLORS)}


def use_style():
    """The look of figures (the colours of freqkv-analyze; files that hold nothing but the picture)
    and of tables (in one piece).
    """
    import matplotlib

    try:
        import pandas

        pandas.options.display.width = 160
    except ImportError:
        pass
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", pil_kwargs={"optimize": True}, metadata={"Software": None})
    matplotlib.rcParams.update(style())


def in_style(draw):
    """A function that draws, in this style whatever the settings are."""

    @functools.wraps(draw)
    def styled(*arguments, **options):
        import matplotlib

        with matplotlib.rc_context(style()):
            return draw(*arguments, **options)

    return styled


def log_bands(power, count=40):
    """(frequency, mean power) of coefficients 1 .. n-1 in log-spaced bands: cycles per token at the
    bands' geometric middle. power [..., n]
    """
    n = power.shape[-1]
    edges = np.unique(np.round(np.geomspace(1, n, count + 1)).astype(int))
    means = np.stack([power[..., a:b].mean(-1) for a, b in zip(edges, edges[1:])], -1)
    return np.sqrt(edges[:-1] * (edges[1:] - 1.0)) / (2 * n), means


def panels(rows, columns, size, grid=True, shown=None, **options):
    """(figure, axes [rows, columns]), size in inches; thin grid lines behind the data. `shown`: the
    panels that are used; default: all.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for ax in axes.flat[shown:] if shown else ():
        ax.set_visible(False)
    for ax in axes.flat if grid else ():
        ax.grid(color="#e8e8e8", linewidth=0.6)
        ax.set_axisbelow(True)
    return fig, axes


def finish(fig, axes, title, note="", columns=0):
    """(figure, axes) with a title above all panels; below them one legend for all, of so many
    columns (0: none), and a note, wrapped to the figure's width. The figure grows by what stands
    below the panels.
    """
    import textwrap

    fig.suptitle(title, fontsize=10)
    lines = textwrap.wrap(note, int(fig.get_figwidth() * 17))
    handles = {}
    for ax in fig.axes if columns else ():
        for handle, label in zip(*ax.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    rows = -(-len(handles) // columns) if handles else 0
    note_height = 0.06 + 0.14 * len(lines)
    below = note_height + (0.1 + 0.17 * rows if rows else 0)  # inches
    height = fig.get_figheight() + below
    fig.set_figheight(height)
    fig.text(0.01, 0.04 / height, "\n".join(lines), fontsize=7.5, color="#606060")
    if rows:
        options = {"loc": "lower center", "bbox_to_anchor": (0.5, note_height / height)}
        options |= {"borderaxespad": 0.3, "ncols": min(columns, len(handles))}
        fig.legend(handles.values(), handles.keys(), **options)
    fig.get_layout_engine().set(rect=(0, below / height, 1, 1 - below / height))
    return fig, axes


def grid_of(count, most):
    """(rows, columns) of so many panels, with at most so many columns."""
    columns = min(most, count)
    return -(-count // columns), columns


def signed_map():
    """Colours below, at and above a middle."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", SIGNED)


def evenly(values, count):
    """At most so many of the values, evenly spaced, the first and the last among them."""
    values = list(values)
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def ticks_at(ax, values):
    """Ticks where the data is, if that is few places."""
    values = sorted(set(np.round(values, 6)))
    if 0 < len(values) <= 9:
        ax.set_xticks(values, [f"{x:.3g}" for x in values])
        ax.minorticks_off()


class LayerLines:
    """The look of each layer's line: viridis from the first to the last, all but eight faint."""

    def __init__(self, layers):
        import matplotlib
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        layers = sorted(layers)
        self.strong = set(evenly(layers, STRONG_LINES))
        # yellow is too faint for a line on white
        top = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, 256))
        ends = Normalize(layers[0], max(layers[-1], layers[0] + 1))
        self.map = ScalarMappable(ends, ListedColormap(top))

    def look(self, layer):
        strong = layer in self.strong
        return {
            "color": self.map.to_rgba(layer),
            "alpha": 1 if strong else 0.2,
            "linewidth": 1.3 if strong else 0.7,
            "zorder": 3 if strong else 2,
        }

    def bar(self, fig, axes):
        """A bar of the layers' colours, where there are several."""
        from matplotlib.ticker import MaxNLocator

        if len(self.strong) < 2:
            return
        fig.colorbar(
            self.map, ax=axes, label="layer", ticks=MaxNLocator(8, integer=True), aspect=30
        )


def line_of(i):
    """The look of line i of a figure: dashed where the colours begin again."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": "-" if i < len(COLORS) else "--"}


def whiskers(ax, at, rows, look, label=None, across=False, joined=False):
    """Points with their 95% intervals: rows of a frame with estimate, low and high, `at` each a
    number on the other axis. look: of line_of(); across: the values run along x.
    """
    value, low, high = (np.asarray(rows[n], float) for n in ("estimate", "low", "high"))
    error = np.nan_to_num(np.stack([value - low, high - value]).clip(min=0))
    look = look | {"marker": "o", "markersize": 3.5, "elinewidth": 1, "label": label}
    if not joined:
        look["linestyle"] = "none"
    if across:
        ax.errorbar(value, at, xerr=error, **look)
    else:
        ax.errorbar(at, value, yerr=error, **look)


def heat_map(ax, table, low, high, numbers="{:.2f}", **options):
    """Cells of a table (rows: index, across: columns), with their numbers where there is space."""
    from matplotlib.ticker import FixedLocator

    image = ax.imshow(table, vmin=low, vmax=high, aspect="auto", **options)
    ax.spines[:].set_visible(False)
    for axis, names in ((ax.xaxis, table.columns), (ax.yaxis, table.index)):
        step = 1 + (len(names) - 1) // 32
        axis.set_major_locator(FixedLocator(range(0, len(names), step)))
        axis.set_ticklabels(list(names)[::step])
    if numbers and len(table) <= 40 and len(table.columns) <= 12:
        for (y, x), value in np.ndenumerate(table.to_numpy()):
            if np.isfinite(value):
                r, g, b, _ = image.to_rgba(value)
                color = "white" if 0.3 * r + 0.6 * g + 0.1 * b < 0.5 else "black"
                ax.text(
                    x, y, numbers.format(value), ha="center", va="center", color=color, fontsize=7
                )
    return image


def heat_size(rows, columns, panels=1):
    """Inches of figures of heat maps, side by side."""
    least = 1.8 if panels == 1 else 2.4  # a panel's title has to fit
    return min(16, 1.6 + panels * max(least, 0.55 * columns)), min(10, 1.5 + 0.2 * rows)
