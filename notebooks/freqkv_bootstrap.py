"""How far to trust a mean over tokens: the bootstrap of the tools (kernels/statistics/bootstrap.h
says why it is drawn so), draw for draw. For freqkv.py.

What is drawn, with replacement: documents where there are 20 or more; documents and then blocks of
256 tokens within them where there are 2 to 19; blocks where there is one document. Where windows
share tokens there are no blocks. A statistic is a ratio of sums, so that long units count more.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from freqkv_reading import read_run

BLOCK = 256  # tokens in a row
MANY_DOCUMENTS = 20
RESAMPLES = 1000
UNITS = ("none", "documents", "documents and blocks", "blocks of one document")
RUN_COLUMNS = {"agree": "top1_agree"}  # measure -> column of a run's file, where they differ


class Interval(NamedTuple):
    """A mean, its standard error and its 95% interval; NaN where they do not exist. `units` were
    drawn from, of the kind `over`: fewer than 20 of them say little about other texts.
    """

    estimate: float
    se: float
    low: float
    high: float
    units: int
    over: str


def draws(seed, count):
    """uint64 [count]: the high halves of what splitmix64 gives after a seed"""
    step, first, second = (
        np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    z = np.uint64(seed) + step * np.arange(1, count + 1, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * first
    z = (z ^ (z >> np.uint64(27))) * second
    return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


def below(high, n):
    """Integers in [0, n) <- draws"""
    return (high * np.asarray(n, np.uint64) >> np.uint64(32)).astype(np.int64)


def two_stage(sizes, resamples, seed):
    """(resample, unit) of every draw: documents, then as many units as each has. sizes [documents]:
    its units.
    """
    high = draws(seed, resamples * len(sizes) * (1 + max(sizes)))
    at, starts, documents = 0, [], []
    for _ in range(resamples * len(sizes)):
        document = int(high[at]) * len(sizes) >> 32
        starts.append(at + 1)
        documents.append(document)
        at += 1 + sizes[document]
    drawn = np.array(sizes)[documents]
    nth = np.arange(drawn.sum()) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    within = below(high[np.repeat(starts, drawn) + nth], np.repeat(drawn, drawn))
    first = np.cumsum(sizes) - sizes
    resample = np.repeat(np.arange(resamples), len(sizes))
    return np.repeat(resample, drawn), np.repeat(first[documents], drawn) + within


@lru_cache(maxsize=16)
def times_drawn(sizes, resamples, seed):
    """float64 [resamples, units]: how often each resample draws each unit. sizes: the units of each
    document of the two-stage draw, or one number.
    """
    units = sum(sizes)
    if len(sizes) > 1:
        resample, unit = two_stage(sizes, resamples, seed)
    else:
        unit = below(draws(seed, resamples * units), units)
        resample = np.repeat(np.arange(resamples), units)
    times = np.bincount(resample * units + unit, minlength=resamples * units)
    return times.reshape(resamples, units).astype(np.float64)


def block_interval(sums, counts, documents, overlap=False, resamples=RESAMPLES, seed=0):
    """The Interval of sum(sums) / sum(counts). sums, counts, documents [blocks]: of each block what
    is added up, its tokens, and the document that it is of.
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    _, first, document, sizes = np.unique(
        documents, return_index=True, return_inverse=True, return_counts=True
    )
    document = np.argsort(np.argsort(first))[document]  # in the order of the rows
    sizes = sizes[np.argsort(first)]
    rows = np.argsort(document, kind="stable")
    kind = kind_of(len(sizes), len(sums), overlap)
    if kind == 1:
        sums, counts = (np.bincount(document[rows], x[rows]) for x in (sums, counts))
    else:
        sums, counts = sums[rows], counts[rows]
    estimate = float(sums.sum() / counts.sum()) if counts.sum() > 0 else np.nan
    none = Interval(estimate, np.nan, np.nan, np.nan, len(sums) if kind else 0, UNITS[kind])
    if not kind or not np.isfinite(estimate):
        return none
    times = times_drawn(tuple(sizes.tolist()) if kind == 2 else (len(sums),), resamples, seed)
    tokens = times @ counts
    means = (times @ sums)[tokens > 0] / tokens[tokens > 0]
    if 2 * len(means) <= resamples:
        return none
    low, high = np.percentile(means, [2.5, 97.5])
    return none._replace(se=float(means.std(ddof=1)), low=float(low), high=float(high))


def kind_of(documents, blocks, overlap):
    """The index into UNITS of what is drawn."""
    if documents >= MANY_DOCUMENTS or (overlap and documents > 1):
        return 1
    if overlap or blocks < 2:
        return 0
    return 2 if documents > 1 else 3


def bootstrap(values, documents=None, overlap=False, resamples=RESAMPLES, seed=0):
    """The Interval of the mean of values [tokens]. Give all tokens that were scored, in order, NaN
    for those that do not count: they keep the blocks where they are.

    documents  [tokens] the document of each; default: all of one
    overlap    whether documents are windows that share tokens
    """
    values = np.asarray(values, np.float64)
    documents = np.zeros(len(values), int) if documents is None else np.asarray(documents)
    starts = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]]) if len(values) else []
    lengths = np.diff(np.r_[starts, len(values)]).astype(int)
    nth = np.arange(len(values)) - np.repeat(starts, lengths)
    new = np.flatnonzero(nth % BLOCK == 0)
    block = np.repeat(np.arange(len(new)), np.diff(np.r_[new, len(values)]).astype(int))
    there = np.isfinite(values)
    sums = np.bincount(block[there], values[there], len(new))
    counts = np.bincount(block[there], minlength=len(new))
    return block_interval(sums, counts, documents[new], overlap, resamples, seed)


def paired_bootstrap(a, b, measure="nll", where=None, resamples=RESAMPLES, seed=0):
    """The Interval of the mean difference of run b less run a, token by token, as freqkv-analyze
    compare has it.

    a, b       files of runs, or rows of one run each of token_frame(), all of its tokens
    measure    "nll" (nats), "kl" (nats, each to its own baseline), or "agree" (share of tokens
               where policy and baseline have one argmax)
    where      [tokens] which tokens count; default: all
    Runs that scored other tokens are refused.
    """
    first, second = tokens_of(a), tokens_of(b)
    refuse_other_tokens(first, second)
    for rows, run in ((first, a), (second, b)):
        if measure not in rows:
            name = run if isinstance(run, str) else "the rows"
            raise ValueError(f"{name}: {measure}: expected a column of it, found none")
    difference = second[measure].astype(np.float64) - first[measure]
    if where is not None:
        difference = np.where(np.asarray(where, bool), difference, np.nan)
    overlap = "window" in first
    documents = np.zeros(len(difference)) if overlap else first["document"]
    return bootstrap(difference, documents, overlap, resamples, seed)


def tokens_of(run):
    """Columns of a run by their names in token_frame(): window or document, position, token (its
    id), and measures.
    """
    if hasattr(run, "columns"):
        return {name: run[name].to_numpy() for name in run.columns}
    if isinstance(run, dict):
        return run
    columns = dict(read_run(run)[1])
    columns["position"], columns["token"] = columns["token"], columns.pop("id")
    return columns | {name: columns[c] for name, c in RUN_COLUMNS.items() if c in columns}


def refuse_other_tokens(a, b):
    for name in ("window" if "window" in a else "document", "position", "token"):
        if name not in b or not np.array_equal(a[name], b[name]):
            raise ValueError(
                f"expected runs that scored the same tokens, found {len(a['nll'])} and"
                f" {len(b['nll'])}, which differ in {name}"
            )
