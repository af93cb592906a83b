#!/usr/bin/env python3
"""The policy `longheads` of `freqkv-replay ppl` against a plain, slow implementation in numpy, on
random models of many shapes.

    check_longheads.py --bin BIN [--rounds N] [--seed N]

Here every query of every head takes the keys it chose, un-rotated, rotates them to 0, 1, ... and
attends; there nothing is moved. Losses are compared per token: another choice of chunks changes all
losses after it. Where float32 and float64 may rightly choose differently (two scores at the edge of
a choice closer than 1e-5), a round is drawn again. Prints one line per check and exits 1 if any
differs.
"""

import os
import sys

import h5py
import numpy as np
from check_selecting import draw_tokens, run, write_model
from checks import Rounds
from numpy_model import forward, rotate

TIE = 1e-5  # relative difference of scores below which the order is float32's to choose


# ---- the policy ----


def attend(query, keys, values, scale):
    """query [d] over keys and values [n, d], as they are"""
    score = keys @ query * scale
    weight = np.exp(score - score.max())
    return weight @ values / weight.sum()


class LongHeads:
    """margin: the least relative difference of scores at the edge of a choice."""

    def __init__(self, chunk, chunks):
        self.chunk, self.chunks, self.window = chunk, chunks, chunk * chunks
        self.margin, self.choices = np.inf, set()

    def arguments(self):
        return ["--policy", "longheads", "--window", str(self.window), "--chunk", str(self.chunk)]

    def vector(self, q, k, v, theta):
        """Of one chunk [chunk, d], for one query head: [d]"""
        scale, places = q.shape[1] ** -0.5, np.arange(self.chunk)
        keys = rotate(k, places, theta)
        mean = np.mean([attend(one, keys, v, scale) for one in rotate(q, places, theta)], axis=0)
        return attend(mean, keys, keys, scale)

    def choose(self, scores):
        """scores of all full chunks -> the chunks of a query in the one after them"""
        own, others = len(scores), self.chunks - 3
        order = sorted(range(1, own - 1), key=lambda c: (-scores[c], c))
        if others:
            edge = scores[order[others - 1]] - scores[order[others]]
            self.margin = min(self.margin, edge / np.abs(scores).max())
        chosen = sorted([0, *order[:others], own - 1, own])
        self.choices.add(tuple(own - c for c in chosen[1:-2]))
        return chosen

    def attend_head(self, layer, head, q, k, v, theta):
        tokens, group, d = q.shape
        vectors, out, seen = [[] for _ in range(group)], np.empty_like(q), 0
        for t in range(tokens):
            for g in range(group):
                kept = np.arange(t + 1)
                if t >= self.window:
                    chosen = self.choose(np.array(vectors[g]) @ q[t, g])
                    kept = kept[np.isin(kept // self.chunk, chosen)]
                places = np.arange(len(kept))
                query = rotate(q[t : t + 1, g], places[-1:], theta)[0]
                out[t, g] = attend(query, rotate(k[kept], places, theta), v[kept], d**-0.5)
            seen += len(kept)
            if (t + 1) % self.chunk == 0:
                full = slice(t + 1 - self.chunk, t + 1)
                for g in range(group):
                    vectors[g].append(self.vector(q[full, g], k[full], v[full], theta))
        return out, 0, seen


# ---- checks ----


def read_losses(path):
    """Losses per document, and the attribute sees_queries. Removes the file."""
    with h5py.File(path) as f:
        nll = [f[f"documents/{i:06d}/nll"][:] for i in range(len(f["documents"]))]
        sees = int(f.attrs["sees_queries"])
    os.remove(path)
    return nll, sees


def check_round(tool, folder, random):
    model = write_model(os.path.join(folder, "model"), random)
    policy = LongHeads(int(random.integers(1, 12)), int(random.integers(3, 8)))
    sizes = policy.window + random.integers(-policy.chunk, 70, 3)
    documents = [draw_tokens(random, n) for n in sizes]
    label = " ".join(policy.arguments()[1:])
    want_nll, seen = [], 0
    for ids in documents:
        p, _, s = forward(model, np.array(ids), policy)
        want_nll.append(-p[np.arange(len(ids) - 1), ids[1:]])
        seen += s
    if policy.margin < TIE:
        return label, None
    protocol = ("whole", f"blocks:{random.integers(1, 40)}")[random.integers(2)]
    batch = ["--protocol", protocol, "--batch", str(random.integers(1, 4))]
    out = os.path.join(folder, "run.h5")
    label += f", {protocol}, {model.layers} layers of {model.kv_heads}, {model.heads} heads, "
    label += f"{len(policy.choices)} choices"
    found, failed = run(tool, folder, documents, policy.arguments() + batch, out)
    if failed:
        return label, [failed]
    heads, problems = model.layers * model.kv_heads, []

    def expect(what, have, want, tolerance=0):
        if not np.all(np.abs(np.asarray(have) - want) <= tolerance):
            problems.append(f"{what} {have}, expected {want}")

    expect("mean_nll", found["mean_nll"], np.concatenate(want_nll).mean(), 1e-4)
    expect("evictions", found["evictions"], 0)
    expect("compressions", found["compressions"], 0)
    expect("cache_slots_mean", found["cache_slots_mean"], seen / heads / sum(sizes), 1e-6)
    every_token = 2 * 4 * heads * model.head_dim * max(sizes)
    expect("cache_bytes_peak", found["cache_bytes_peak"], every_token)
    nll, sees = read_losses(out)
    for have, want in zip(nll, want_nll):
        expect("largest error of a token's nll", np.abs(have[1:] - want).max(), 0, 1e-3)
    expect("sees_queries", sees, 1)
    return label, problems


def check_window(tool, folder, random):
    """A window of the length and more is full attention."""
    write_model(os.path.join(folder, "model"), random)
    documents = [draw_tokens(random, n) for n in (100, 60)]
    a, failed = run(tool, folder, documents, LongHeads(20, 5).arguments())
    b, also = run(tool, folder, documents, ["--policy", "full"])
    if failed or also:
        return [failed or also]
    near = abs(a["mean_nll"] - b["mean_nll"]) < 1e-6
    return [] if near else [f"{a['mean_nll']} is not {b['mean_nll']}"]


def check_future(tool, folder, random):
    """What follows a token does not change its loss."""
    write_model(os.path.join(folder, "model"), random)
    ids = draw_tokens(random, 200)
    other, found = ids[:140] + draw_tokens(random, 60), []
    for document in (ids, other):
        out = os.path.join(folder, "run.h5")
        _, failed = run(tool, folder, [document], LongHeads(8, 5).arguments(), out)
        if failed:
            return [failed]
        found.append(read_losses(out)[0][0][1:140])
    return [] if np.array_equal(*found) else ["the future changes the past"]


def check_refusals(tool, folder, random):
    write_model(os.path.join(folder, "model"), random)
    problems = []
    for options, words in (
        ("--window 64 --chunk 24", "--window: expected at least 3 chunks of 24 slots"),
        ("--window 64 --chunk 20", "--window: expected a multiple of the 20 slots of --chunk"),
        ("--chunk 0", "--chunk: expected an integer in [1, "),
        ("--window 64 --chunk 16 --budget 9", "keeps every token"),
    ):
        arguments = ["--policy", "longheads", *options.split()]
        _, failed = run(tool, folder, [draw_tokens(random, 80)], arguments)
        if not failed or words not in failed:
            problems.append(f"{options}: {failed}")
    return problems


def main():
    rounds = Rounds(__doc__, 4)
    for check in (check_window, check_future, check_refusals):
        rounds.run(check)
    for _ in rounds.rounds:
        rounds.run(check_round)
    return rounds.verdict()


if __name__ == "__main__":
    sys.exit(main())
