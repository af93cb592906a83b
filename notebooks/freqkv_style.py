"""The look of figures: the colours of freqkv-analyze, and what its figures share. For freqkv.py."""

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


def log_bands(power, count=40):
    """(frequency, mean power) of coefficients 1 .. n-1 in log-spaced bands: cycles per token at the
    bands' geometric middle. power [..., n]
    """
    n = power.shape[-1]
    edges = np.unique(np.round(np.geomspace(1, n, count + 1)).astype(int))
    means = np.stack([power[..., a:b].mean(-1) for a, b in zip(edges, edges[1:])], -1)
    return np.sqrt(edges[:-1] * (edges[1:] - 1.0)) / (2 * n), means


def use_style():
    """The look of figures (the colours of freqkv-analyze; files that hold nothing but the picture)
    and of tables (in one piece).
    """
    import matplotlib
    from cycler import cycler

    try:
        import pandas

        pandas.options.display.width = 160
    except ImportError:
        pass
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", pil_kwargs={"optimize": True}, metadata={"Software": None})
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLORS),
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
    )
