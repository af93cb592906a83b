"""Intervals and verdicts.

95% bootstrap intervals of a mean over tokens, by the rule of the tools: over documents where there
are 20 or more, else over documents and, within each that is drawn, over its blocks of 256 tokens.
"""

import numpy as np
from freqkv_reading import read_run

RESAMPLES = 5000
BLOCK = 256
ENOUGH = 20  # units from which on an interval rests on documents alone


def interval(documents):
    """(mean, low, high) of the values of all documents, each value of the same weight.

    documents: list of arrays, the values of one document each
    """
    documents = [np.asarray(d, float) for d in documents if len(d)]
    if not documents:
        return (np.nan,) * 3
    blocks = max(1, max(len(d) for d in documents) // BLOCK)
    parts = [np.array_split(d, min(blocks, len(d))) for d in documents]
    sums, counts = (np.zeros((len(parts), blocks)) for _ in range(2))
    for i, part in enumerate(parts):
        sums[i, : len(part)] = [p.sum() for p in part]
        counts[i, : len(part)] = [len(p) for p in part]
    rng = np.random.default_rng(0)
    pick = rng.integers(len(parts), size=(RESAMPLES, len(parts)))
    if len(parts) >= ENOUGH:
        means = sums.sum(1)[pick].sum(1) / counts.sum(1)[pick].sum(1)
    else:
        inner = rng.integers(blocks, size=(RESAMPLES, len(parts), blocks))
        chosen = (pick[:, :, None], inner)
        means = sums[chosen].sum((1, 2)) / np.maximum(1, counts[chosen].sum((1, 2)))
    mean = sums.sum() / counts.sum()
    return (float(mean), *map(float, np.quantile(means, (0.025, 0.975))))


def mean_interval(values):
    """(mean, low, high) of one value per document."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return (np.nan,) * 3
    pick = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    return (float(values.mean()), *map(float, np.quantile(values[pick].mean(1), (0.025, 0.975))))


def verdict(found, better="better", worse="worse"):
    """The word for a difference of losses: clear of zero, or undecided."""
    return worse if found[1] > 0 else better if found[2] < 0 else "undecided"


def compared(a, b, more, less, alike):
    """The word for an effect beside another, by their intervals."""
    return more if a[1] > b[2] else less if a[2] < b[1] else alike


class Run:
    """A run file by document: names, and columns as lists of arrays of the scored tokens."""

    def __init__(self, path):
        attributes, columns = read_run(path)
        self.names = attributes["documents"]
        cuts = np.searchsorted(columns["document"], range(1, len(self.names)))
        self.columns = {n: np.split(x.astype(float), cuts) for n, x in columns.items()}

    def __getitem__(self, name):
        return self.columns[name]

    def __contains__(self, name):
        return name in self.columns


def less(a, b, column="nll", names=None):
    """(mean, low, high) of run a less run b, over the documents of `names` (default: all)."""
    names = set(a.names) | set(b.names) if names is None else names
    if not set(a.names) & set(b.names) >= set(names):
        raise ValueError("runs of different texts")
    at = [(i, b.names.index(n)) for i, n in enumerate(a.names) if n in names]
    return interval([a[column][i] - b[column][j] for i, j in at])
