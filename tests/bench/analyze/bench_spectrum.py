"""`freqkv-analyze spectrum` or `error` against the same work in numpy, scipy.fft.dct and h5py, on
the same cores, in one run.

    bench_spectrum.py build/bin/freqkv-analyze [--command spectrum --layers 4 --heads 8
                      --head-dim 128 --tokens 4096 --dtype f16]

Both read the same synthetic capture and compute, for keys and values: power spectra, their
channel-normalised mean per layer, the permutation null (8 draws per segment) and, from two segments
on, standard errors by 1,000 bootstrap resamples; both write HDF5. Ours also writes CSV and eight
figures and prints a table. `error` needs the power alone. The rival's imports are not counted, our
start is. Runs alternate, with one that only reads the states by h5py; medians are printed. The
first, untimed, run of each checks that power and its normalised mean agree.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

import h5py
import numpy as np
import scipy.fft

SINKS, DRAWS = 4, 8


def make_capture(path, a):
    """Keys with a mean, a slow drift and noise per channel, values nearly white: what real states
    look like from afar.
    """
    rng = np.random.default_rng(1)
    shape = (a.layers, a.heads, a.tokens, a.head_dim)
    stored = {"f16": np.float16, "f32": np.float32}[a.dtype]
    with h5py.File(path, "w") as f:
        f.attrs.update(
            n_layers=a.layers,
            n_kv_heads=a.heads,
            n_heads=a.heads,
            head_dim=a.head_dim,
            trained_context=a.length + SINKS,
            model_name="synthetic",
        )
        for d in range(a.documents):
            g = f.create_group(f"documents/{d:06d}")
            g.attrs.update(name=f"doc{d}", n_tokens=a.tokens, offset=0)
            for state, mean in (("key", 4.0), ("value", 0.1)):
                x = g.create_dataset(
                    state,
                    shape,
                    stored,
                    chunks=(1, 1, min(1024, a.tokens), a.head_dim),
                    fletcher32=True,
                )
                for layer in range(a.layers):
                    white = rng.standard_normal(shape[1:], np.float32)
                    drift = np.cumsum(rng.standard_normal(shape[1:], np.float32) * 0.02, axis=1)
                    x[layer] = (
                        mean * rng.standard_normal((a.heads, 1, a.head_dim), np.float32)
                        + white
                        + drift
                    )


def block_bootstrap(segments, rng):
    weights = rng.multinomial(len(segments), np.full(len(segments), 1 / len(segments)), 1000) / len(
        segments
    )
    return (
        (weights @ segments.reshape(len(segments), -1))
        .std(axis=0, ddof=1)
        .reshape(segments.shape[1:])
    )


def rival(path, out, a):
    rng = np.random.default_rng(0)
    with h5py.File(path, "r") as f, h5py.File(out, "w") as results:
        documents = f["documents"]
        n, layers = a.length, a.layers
        for state in ("key", "value"):
            power, null = np.zeros((2, layers, a.heads, n))
            error, normalised = np.full((layers, a.heads, n), np.nan), np.zeros((layers, n))
            for layer in range(layers):
                segments, scaled, draws = [], [], []
                for name in documents:
                    x = documents[name][state][layer].astype(np.float32)
                    if not np.isfinite(x).all():
                        raise ValueError("not finite")
                    for start in range(SINKS, a.tokens - n + 1, n):
                        segment = x[:, start : start + n]
                        y = scipy.fft.dct(segment, axis=1, norm="ortho", workers=a.threads)
                        y *= y
                        segments.append(y.mean(axis=2))
                        if a.command == "error":
                            continue
                        scaled.append((y / segment.var(axis=1, keepdims=True)).mean(axis=(0, 2)))
                        for _ in range(DRAWS):
                            y = scipy.fft.dct(
                                segment[:, rng.permutation(n)],
                                axis=1,
                                norm="ortho",
                                workers=a.threads,
                            )
                            y *= y
                            draws.append(y.mean(axis=2))
                power[layer] = np.mean(segments, axis=0)
                if a.command == "error":
                    continue
                null[layer] = np.mean(draws, axis=0)
                normalised[layer] = np.mean(scaled, axis=0)
                if len(segments) > 1:
                    error[layer] = block_bootstrap(np.array(segments), rng)
            if a.command == "error":
                kept = np.cumsum(power, axis=-1)[..., np.arange(n // 10, n, n // 10) - 1]
                results[f"error/{state}/retained_energy"] = kept / power.sum(-1, keepdims=True)
                results[f"spectrum/{state}/power"] = power
                continue
            for name, data in (
                ("power", power),
                ("power_null", null),
                ("power_se", error),
                ("power_normalised", normalised),
            ):
                results[f"spectrum/{state}/{name}"] = data


def ours(path, out, a):
    subprocess.run(
        [a.tool, a.command, path, "--out", out, "--quiet", "--threads", str(a.threads)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def read(path, a):
    with h5py.File(path, "r") as f:
        for document in f["documents"].values():
            for state in ("key", "value"):
                for layer in range(a.layers):
                    document[state][layer]


def timed(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def compare(theirs, mine, names):
    with h5py.File(theirs) as x, h5py.File(mine) as y:
        for state in ("key", "value"):
            for name in names:
                p, q = x[f"spectrum/{state}/{name}"][()], y[f"spectrum/{state}/{name}"][()]
                # The rival's float32 transform smears rounding of the mean over the spectrum, so
                # agreement is asked of sums over eight bands.
                p, q = (np.array_split(v[..., 1:], 8, axis=-1) for v in (p, q))
                worst = max(np.abs(u.sum(-1) / v.sum(-1) - 1).max() for u, v in zip(p, q))
                if not worst < 1e-3:
                    raise SystemExit(f"{state} {name} differ by {worst:.2g}")


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("tool")
    for name, default in (
        ("layers", 4),
        ("heads", 8),
        ("head-dim", 128),
        ("tokens", 4096),
        ("length", 0),
        ("documents", 1),
        ("threads", os.cpu_count()),
        ("runs", 5),
    ):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--command", choices=("spectrum", "error"), default="spectrum")
    p.add_argument("--dtype", choices=("f16", "f32"), default="f16")
    a = p.parse_args()
    a.length = a.length or a.tokens - SINKS
    with tempfile.TemporaryDirectory() as folder:
        capture, theirs, mine = (
            os.path.join(folder, x) for x in ("capture.h5", "rival.h5", "ours")
        )
        make_capture(capture, a)
        rival(capture, theirs, a)
        ours(capture, mine, a)
        if a.command == "spectrum":
            compare(theirs, os.path.join(mine, "results.h5"), ("power", "power_normalised"))
        times = [
            (
                timed(rival, capture, theirs, a),
                timed(ours, capture, mine, a),
                timed(read, capture, a),
            )
            for _ in range(a.runs)
        ]
    r, o, h = (statistics.median(t) for t in zip(*times))
    print(
        f"{a.layers} layers x {a.heads} heads x {a.head_dim} channels, key and value, {a.documents}"
        f" x {a.tokens} tokens, segments of {a.length}, {a.dtype}, {a.threads} threads"
    )
    print(
        f"numpy + scipy.fft.dct + h5py {r:.3f} s, freqkv-analyze {a.command} {o:.3f} s, ratio"
        f" {r / o:.2f}; h5py only reading {h:.3f} s"
    )


if __name__ == "__main__":
    main()
