#!/usr/bin/env python3
"""The policy `linear` of `freqkv-replay ppl` against a second implementation in numpy: every named
operator, files of one matrix, of two and of one per head, and one fitted to a capture.

    check_linear.py --bin build/bin [--all] [--model DIR] [--text FILE]

With --all every operator, else three, and fewer refusals.

Operators are written from their definitions (replay's man page), the model and the schedule are
numpy_model.py's. Also: `dct` equals freqkv; what must hold of the operators themselves (gains,
orthogonal rows, a constant stays); refusals; the attributes of run files and what resuming refuses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from checks import check, verdict
from numpy_model import Model, Policy, dct_matrix, forward

WINDOW, SINKS, TOKENS = 70, 4, 230
N = WINDOW - SINKS


# ---- operators, [L, n] ----


def gain(retained, n):
    return np.sqrt(retained / n)


def dct_band(n, retained, first=0):
    low = dct_matrix(n)[first : first + retained]
    return gain(retained, n) * dct_matrix(retained).T @ low


def meanpool(n, retained):
    """By integrals of a piecewise constant function between the edges of the stretches."""
    edges = np.arange(retained + 1) * n / retained
    below = np.stack([np.interp(edges, np.arange(n + 1), c) for c in integrals(n)], axis=1)
    return np.diff(below, axis=0) * retained / n


def integrals(n):
    """Row i: the integral of slot i's indicator up to each edge 0 .. n."""
    return np.hstack([np.zeros((n, 1)), np.triu(np.ones((n, n)))])


def decimate(n, retained):
    m = np.zeros((retained, n))
    for j in range(retained):
        m[j, int(np.floor((2 * j + 1) * n / (2 * retained)))] = 1
    return m


def haar(n, retained):
    stretches = [range(n)]
    while len(stretches) < retained:
        splittable = [k for k, s in enumerate(stretches) if len(s) > 1]
        chosen = set(splittable[max(0, len(splittable) - (retained - len(stretches))) :])
        finer = []
        for k, s in enumerate(stretches):
            half = (len(s) + 1) // 2
            finer += [s[:half], s[half:]] if k in chosen else [s]
        stretches = finer
    return np.array([[(i in s) / len(s) for i in range(n)] for s in stretches])


def splitmix64(seed, count):
    """Its first `count` numbers."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * steps
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random(n, retained, seed=0):
    """The same numbers, then QR instead of Gram and Schmidt, a matrix instead of reflections."""
    draws = splitmix64(seed, 2 * n * (retained - 1))
    uniform = (draws >> np.uint64(11)).astype(float) * 2.0**-53
    u, v = uniform[0::2], uniform[1::2]
    normal = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
    rows = np.vstack([np.ones(n), normal.reshape(retained - 1, n)])
    q, r = np.linalg.qr(rows.T)
    q = q * np.sign(np.diag(r))
    h = np.eye(retained)[0] - np.ones(retained) / np.sqrt(retained)
    reflect = np.eye(retained) - 2 * np.outer(h, h) / max(h @ h, 1e-300)
    return gain(retained, n) * reflect @ q.T


def klt(covariance, n, retained):
    """The constant and the leading eigenvectors among sequences of sum 0, turned to be as near to
    FreqKV's operator as they can be."""
    r = covariance[np.abs(np.subtract.outer(np.arange(n), np.arange(n)))]
    p = np.eye(n) - 1 / n
    vectors = np.linalg.eigh(p @ r @ p)[1][:, ::-1][:, : retained - 1]
    basis = np.hstack([np.full((n, 1), 1 / np.sqrt(n)), vectors])
    u, _, v = np.linalg.svd(dct_matrix(retained).T @ dct_matrix(n)[:retained] @ basis)
    return gain(retained, n) * u @ v @ basis.T


def covariance_of(capture, state):
    """The mean over the recordings that are as long as the longest."""
    folder = os.path.join(capture, "documents")
    recordings = []
    for name in sorted(os.listdir(folder)):
        with h5py.File(os.path.join(folder, name)) as f:
            recordings.append(f["document"][state][()].astype(float))
    longest = max(x.shape[2] for x in recordings)
    return np.mean([autocovariance(x) for x in recordings if x.shape[2] == longest], axis=0)


def autocovariance(states):
    """[layers, heads, tokens, d] -> r by lag, each head's by its own energy."""
    x = states - states.mean(axis=2, keepdims=True)
    t = x.shape[2]
    energy = np.sum(x * x, axis=(2, 3))
    r = [np.sum(x[:, :, : t - k] * x[:, :, k:], axis=(2, 3)) / energy for k in range(t)]
    return np.array([one.mean() for one in r])


NAMED = {
    "dct": dct_band,
    "dct-band:3": lambda n, retained: dct_band(n, retained, 3),
    "meanpool": meanpool,
    "decimate": decimate,
    "random": random,
    "random:7": lambda n, retained: random(n, retained, 7),
    "haar": haar,
}


class Linear(Policy):
    """matrices(layer, head) -> [2, L, n], of keys and of values."""

    def __init__(self, matrices, gamma):
        super().__init__("linear", WINDOW, SINKS, gamma)
        self.matrices = matrices

    def operators(self, layer, head):
        return self.matrices(layer, head)


# ---- checks ----


def check_definitions(everything):
    """Of the definitions themselves, at many sizes."""
    for n in (7, 16, 33, 66) if everything else (16, 33):
        for retained in sorted({1, 2, 3, n // 2, n - 2, n - 1}):
            for name, make in NAMED.items():
                if name == "dct-band:3" and 3 + retained > n:
                    continue
                m = make(n, retained)
                ones = m @ np.ones(n)
                want = 0 if name == "dct-band:3" else 1
                size = f"{retained} x {n}"
                check(f"{name} {size}: a constant", np.allclose(ones, want, atol=1e-10), ones)
                product = m @ m.T * n / retained
                if name.startswith(("dct", "random")):
                    check(f"{name} {size}: orthogonal rows", np.allclose(product, np.eye(retained)))
                else:
                    full = np.linalg.matrix_rank(m) == retained
                    check(f"{name} {size}: the full rank", full)
            markov = klt(0.9999999 ** np.arange(n), n, retained)
            near = np.abs(markov - dct_band(n, retained)).max()
            check(f"klt of a Markov process, {retained} of {n}: the DCT", near < 1e-3, near)
    # Keeping all but one slot keeps most of what there is: at most one slot differs from a copy.
    for n in (9, 20, 65):
        copies = sum(np.sum(row > 0) == 1 for row in haar(n, n - 1))
        check(f"haar of {n - 1} of {n}: copies but for one", copies == n - 2, copies)
        kept = {int(np.argmax(row)) for row in decimate(n, n - 1)}
        check(f"decimate to {n - 1} of {n}: all but one", len(kept) == n - 1, kept)


def run(args, *more, fails=False):
    command = [os.path.join(args.bin, "freqkv-replay"), "ppl", "--model", args.model]
    command += ["--text", args.text, "--tokens", str(TOKENS), "--window", str(WINDOW)]
    command += ["--sinks", str(SINKS), "--json", "--quiet", "--backend", "cpu", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if fails:
        return done.stderr
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def compare(args, model, ids, operator, matrices, gamma=0.5):
    found = run(args, "--policy", "linear", "--operator", operator, "--gamma", str(gamma))
    logits = forward(model, ids, Linear(matrices, gamma))[0]
    want = -np.mean([logits[t - 1, ids[t]] for t in range(1, len(ids))])
    off = abs(found["mean_nll"] - want) / want
    check(f"{operator} gamma {gamma}", off < 1e-4, f"nll {want:.6f}, off {off:.1e}")
    return found


def check_named(args, model, ids):
    for name in NAMED if args.all else ("meanpool", "random:7", "haar"):
        make = NAMED[name]
        for gamma in (0.5, 0.37) if args.all else (0.37,):
            m = make(N, int(gamma * N + 1e-9))
            compare(args, model, ids, name, lambda layer, head, m=m: (m, m), gamma)
    linear = run(args, "--policy", "linear", "--gamma", "0.4")
    freqkv = run(args, "--policy", "freqkv", "--gamma", "0.4")
    same = abs(linear["mean_nll"] - freqkv["mean_nll"]) < 1e-6 * freqkv["mean_nll"]
    check("dct, the default, equals freqkv", same and linear["operator"] == "dct", linear)
    check("as often", linear["compressions"] == freqkv["compressions"] > 0, linear)


def check_files(args, model, ids, folder):
    rng = np.random.default_rng()
    retained, shape = N // 2, (model.layers, model.kv_heads)
    some = rng.normal(size=(2, *shape, retained, N)) / np.sqrt(N) + 1 / N
    cases = {
        "one.h5": {"operator": some[0, 0, 0]},
        "heads.h5": {"operator": some[0]},
        "states.h5": {"key": some[0, 0, 0], "value": some[1, 0, 0]},
        "all.h5": {"key": some[0], "value": some[1]},
    }
    for name, datasets in cases.items():
        if not args.all and name in ("heads.h5", "states.h5"):
            continue
        path = os.path.join(folder, name)
        with h5py.File(path, "w") as f:
            for dataset, values in datasets.items():
                f[dataset] = values

        def matrices(layer, head, d=datasets):
            pair = (d.get("operator", d.get("key")), d.get("operator", d.get("value")))
            return [m if m.ndim == 2 else m[layer, head] for m in pair]

        compare(args, model, ids, path, matrices)
    check_refusals(args, folder, some)
    check_run_files(args, folder)


def check_refusals(args, folder, some):
    bad = os.path.join(folder, "bad.h5")
    spoiled = some[0, 0, 0].copy()
    spoiled[2, 5] = np.nan
    wrong = {
        f"operator: expected L x n = {N // 2} x {N}": {"operator": some[0, 0, 0][1:]},
        "found nan in row 2": {"operator": spoiled},
        "expected [L, n] or [layers, kv_heads, L, n], found 3": {"operator": some[0, 0]},
        "expected one matrix, or one per head": {"operator": some[0][:, :1]},
        "expected the shape of key": {"key": some[0], "value": some[1, 0, 0]},
        "expected a dataset operator, or key and value, found key": {"key": some[0]},
    }
    for message, datasets in list(wrong.items())[: len(wrong) if args.all else 2]:
        with h5py.File(bad, "w") as f:
            for name, values in datasets.items():
                f[name] = values
        said = run(args, "--policy", "linear", "--operator", bad, fails=True)
        check(f"refused: {message}", message in said and "bad.h5" in said, said)
    named = {
        "fourier": 'found "fourier"',
        "dct-band": 'found "dct-band"',
        "dct-band:x": "--operator",
        f"dct-band:{N}": f"at most n - L = {N - N // 2}",
        "/nowhere/op.h5": "/nowhere/op.h5",
        "klt:/nowhere": "/nowhere",
    }
    for operator, message in list(named.items())[: len(named) if args.all else 2]:
        said = run(args, "--policy", "linear", "--operator", operator, fails=True)
        check(f"refused: --operator {operator}", message in said, said)
    said = run(args, "--policy", "freqkv", "--operator", "haar", fails=True)
    check("refused by another policy", "does not take it" in said, said)


def check_run_files(args, folder):
    path, runs = os.path.join(folder, "one.h5"), os.path.join(folder, "runs")
    sweep = ["--policy", "linear", "--sweep", "gamma=0.5", "--out", runs, "--operator"]
    run(args, *sweep, path)
    with h5py.File(os.path.join(runs, os.listdir(runs)[0])) as f:
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout[:64]
        hashed = f.attrs["operator_sha256"]
        check("a run file says the hash", hashed in (digest, digest.encode()), hashed)
        text = f.attrs["operator"]
        text = text.decode() if isinstance(text, bytes) else text
        check("and the operator", text == f"one.h5@{digest[:16]}", text)
    run(args, *sweep, path)
    with h5py.File(path, "r+") as f:
        f["operator"][0, 0] += 0.5
    said = run(args, *sweep, path, fails=True)
    check("a sweep does not go on with another file", "policy_options" in said, said)


def check_klt(args, model, ids, folder):
    capture = os.path.join(folder, "capture")
    text = os.path.join(folder, "other.txt")
    with open(args.text, encoding="utf-8") as f, open(text, "w", encoding="utf-8") as to:
        to.write(f.read()[4000:6000])
    command = [os.path.join(args.bin, "freqkv-capture"), "--quiet", "--model", args.model]
    command += ["--text", text, "--max-tokens", "150", "--dtype", "f32", "--out", capture]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    r = [covariance_of(capture, state) for state in ("key", "value")]
    pair = [klt(one, N, N // 2) for one in r]
    found = compare(args, model, ids, f"klt:{capture}", lambda layer, head: pair)
    check("it says which", found["operator"].startswith("klt:capture@"), found["operator"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--model", default="data/litbank-1m")
    parser.add_argument("--text", default="data/the_tide_mill.txt")
    args = parser.parse_args()
    model = Model(args.model)
    check_definitions(args.all)
    tool = [os.path.join(args.bin, "freqkv-replay"), "tokens", "--model", args.model]
    ids = subprocess.run([*tool, "--text", args.text], check=True, capture_output=True, text=True)
    ids = list(map(int, ids.stdout.split()))[:TOKENS]
    check_named(args, model, ids)
    with tempfile.TemporaryDirectory() as folder:
        check_files(args, model, ids, folder)
        if args.all:
            check_klt(args, model, ids, folder)
    return verdict("linear")


if __name__ == "__main__":
    sys.exit(main())
