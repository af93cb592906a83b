"""Spectra and errors of a capture with numpy, scipy.fft and h5py, layer by layer.

    analyze.py spectrum|error|read CAPTURE.h5 THREADS LENGTH OUT.h5
    analyze.py compare OUT.h5 RESULTS.h5    the largest relative deviation of what both hold

`spectrum` computes what `freqkv-analyze spectrum` does: power, its mean after dividing by each
channel's variance, the null of 8 permutations per segment, and bootstrap standard errors. `error`
computes the measures of ratios 0.1 to 0.9; `read` only reads the states. Prints JSON; imports are
not timed. Each segment is transposed once, so that the transforms run over contiguous tokens:
twice as fast as scipy's strided transform.
"""

import sys
import time

import h5py
import numpy as np
import scipy.fft
from common import emit

SINKS, DRAWS, RESAMPLES, BANDS = 4, 8, 1000, 8
STATES = ("key", "value")


def squared_dct(x, workers):
    y = scipy.fft.dct(x, axis=-1, norm="ortho", workers=workers)
    y *= y
    return y


def segments(document, state, layer, n):
    """[heads, head_dim, n] float32, contiguous tokens."""
    x = document[state][layer]
    x = np.ascontiguousarray(x.astype(np.float32).transpose(0, 2, 1))
    if not np.isfinite(x).all():
        raise SystemExit("not finite")
    for start in range(SINKS, x.shape[-1] - n + 1, n):
        yield x[..., start : start + n]


def bootstrap(rows, rng):
    """rows [segments, heads, n] -> the standard error of their mean."""
    count = len(rows)
    weights = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    means = weights @ rows.reshape(count, -1)
    return means.std(axis=0, ddof=1).reshape(rows.shape[1:])


def spectrum(documents, state, layer, n, workers, rng):
    power, scaled, null = [], [], []
    for document in documents.values():
        for x in segments(document, state, layer, n):
            y = squared_dct(x, workers)
            power.append(y.mean(axis=1))
            scaled.append((y / x.var(axis=-1, keepdims=True)).mean(axis=(0, 1)))
            for _ in range(DRAWS):
                null.append(squared_dct(x[..., rng.permutation(n)], workers).mean(axis=1))
    return {
        "power": np.mean(power, axis=0),
        "power_normalised": np.mean(scaled, axis=0),
        "power_null": np.mean(null, axis=0),
        "power_se": bootstrap(np.array(power), rng),
    }


def error(documents, state, layer, n, workers, _rng):
    power = [
        squared_dct(x, workers).mean(axis=1)
        for document in documents.values()
        for x in segments(document, state, layer, n)
    ]
    sums = np.cumsum(np.mean(power, axis=0), axis=-1)
    kept = sums[:, [int(g * n / 10 + 1e-9) - 1 for g in range(1, 10)]]
    share = kept / sums[:, -1:]
    return {
        "retained_energy": share,
        "relative_error": np.sqrt(1 - share),
        "cosine": np.sqrt(share),
        "snr_db": -10 * np.log10(1 - share),
    }


def read(documents, state, layer, *_):
    for document in documents.values():
        document[state][layer]
    return {}


def run(job, capture, threads, length, out):
    work = {"spectrum": spectrum, "error": error, "read": read}[job]
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    with h5py.File(capture) as f, h5py.File(out, "w") as results:
        documents = f["documents"]
        layers = next(iter(documents.values()))["key"].shape[0]
        for state in STATES:
            rows = [
                work(documents, state, i, int(length), int(threads), rng) for i in range(layers)
            ]
            for name in rows[0]:
                results[f"{job}/{state}/{name}"] = np.array([row[name] for row in rows])
    emit(seconds=time.perf_counter() - started)


def compare(theirs, ours):
    """Spectra are compared as sums over bands: a float32 transform of a mean leaves rounding in
    every coefficient."""
    worst = 0.0
    with h5py.File(theirs) as x, h5py.File(ours) as y:
        for job, names in (
            ("spectrum", ("power", "power_normalised")),
            ("error", ("retained_energy", "relative_error")),
        ):
            for path in (f"{job}/{s}/{n}" for s in STATES for n in names if job in x):
                p, q = x[path][()], y[path][()]
                if job == "spectrum":
                    p, q = (
                        np.stack([b.sum(-1) for b in np.array_split(v[..., 1:], BANDS, -1)])
                        for v in (p, q)
                    )
                worst = max(worst, float(np.abs(p / q - 1).max()))
    emit(deviation=worst)


if __name__ == "__main__":
    job, *rest = sys.argv[1:]
    compare(*rest) if job == "compare" else run(job, *rest)
