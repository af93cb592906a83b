"""Matrices for the policy linear that no name of it makes: what FreqKV might be replaced by.

Each is M [L, n]: n slots, the oldest first, become L at every compression, C = n - L of them new.
"""

import os

import h5py
import numpy as np


def truncation(count, kept):
    """[kept, count]: FreqKV's own matrix; constants stay."""

    def basis(n):
        k, t = np.arange(n)[:, None], np.arange(n)[None]
        rows = np.sqrt(2 / n) * np.cos(np.pi * k * (t + 0.5) / n)
        rows[0] /= np.sqrt(2)
        return rows

    return np.sqrt(kept / count) * basis(kept).T @ basis(count)[:kept]


def stretches(edges):
    """[len(edges) - 1, n]: means of n slots over stretches of them; slots on an edge are shared."""
    t = np.arange(round(edges[-1]))
    shared = np.minimum(t + 1, edges[1:, None]) - np.maximum(t, edges[:-1, None])
    weights = np.clip(shared, 0, None)
    return weights / weights.sum(1, keepdims=True)


def pooling(count, kept):
    """[kept, count]: means over stretches of equal length."""
    return stretches(np.linspace(0, count, kept + 1))


def once(n, kept, share, recent, squeeze):
    """Every token is compressed once: the latest `recent` slots stay, the C before them become
    share C, and as many of the oldest go. After some rounds all but the recent have been through
    one compression.
    """
    entering = n - kept
    made = max(1, round(share * entering))
    old = kept - recent - made  # slots of before that stay
    if old < 0:
        raise ValueError("there is no slot left for what was compressed before")
    m = np.zeros((kept, n))
    first = n - recent - entering
    m[np.arange(old), np.arange(first - old, first)] = 1
    m[old : old + made, first : first + entering] = squeeze(entering, made)
    m[np.arange(kept - recent, kept), np.arange(n - recent, n)] = 1
    return m


def mean_apart(n, kept):
    """The latest kept - 1 slots stay, and one slot has the mean of those before them."""
    m = np.zeros((kept, n))
    m[0, : n - kept + 1] = 1 / (n - kept + 1)
    m[np.arange(1, kept), np.arange(n - kept + 1, n)] = 1
    return m


def levels(n, kept, recent):
    """Slots grow with age: the latest `recent` stay, older stretches become their mean. The latest
    stretch is one slot wide, and each is wider than the next by the same factor.
    """
    count, total = kept - recent, n - recent
    low, high = 1.0, 2.0
    for _ in range(60):
        factor = (low + high) / 2
        short = np.power(factor, np.arange(count)).sum() < total
        low, high = (factor, high) if short else (low, factor)
    widths = np.power(low, np.arange(count))[::-1]
    edges = np.concatenate([[0], np.cumsum(widths * (total / widths.sum()))])
    m = np.zeros((kept, n))
    m[:count, :total] = stretches(edges)
    m[np.arange(kept - recent, kept), np.arange(n - recent, n)] = 1
    return m


def thin(n, kept, recent):
    """Slots stay whole, and fewer with age. Before the latest `recent`, T slots become C = kept -
    recent: of stretch j, counted from the latest, the slot x + (T - C)(x/C)^2 back, x = j + 1/2.
    Stretches grow linearly with age, from one slot on.
    """
    count, total = kept - recent, n - recent
    x = 2 * np.arange(count)[::-1] + 1
    back = (2 * count**2 * x + (total - count) * x**2) // (4 * count**2)
    m = np.zeros((kept, n))
    m[np.arange(kept), np.concatenate([total - 1 - back, np.arange(total, n)])] = 1
    return m


def all_of(n, kept):
    """{name: {dataset: matrix}} of every operator that is tried."""
    found = {}
    ways = [(share, recent, truncation) for share in (2, 4, 8) for recent in (0, kept // 4)]
    for share, recent, squeeze in (*ways, (4, kept // 4, pooling), (4, kept // 2, truncation)):
        part = {2: "half", 4: "quarter", 8: "eighth"}[share]
        name = f"once-{part}-{squeeze.__name__}-recent{recent}"
        found[name] = {"operator": once(n, kept, 1 / share, recent, squeeze)}
    found["mean-apart"] = {"operator": mean_apart(n, kept)}
    for recent in (kept // 4, kept // 2):
        found[f"levels-recent{recent}"] = {"operator": levels(n, kept, recent)}
    for recent in (0, kept // 4, kept // 2, 3 * kept // 4):
        found[f"thin-recent{recent}"] = {"operator": thin(n, kept, recent)}
    low, latest = truncation(n, kept), np.eye(kept, n, n - kept)
    found["keys-low-values-latest"] = {"key": low, "value": latest}
    found["keys-latest-values-low"] = {"key": latest, "value": low}
    return found


def write(folder, n, kept):
    """Writes OUT/NAME.h5 for every operator that is not there."""
    os.makedirs(folder, exist_ok=True)
    for name, matrices in all_of(n, kept).items():
        path = os.path.join(folder, name + ".h5")
        if not os.path.exists(path):
            save(path, matrices)


def save(path, matrices):
    """A file that --operator takes: {dataset: matrix}."""
    with h5py.File(path + ".new", "w") as f:
        for dataset, matrix in matrices.items():
            f[dataset] = matrix
    os.replace(path + ".new", path)
