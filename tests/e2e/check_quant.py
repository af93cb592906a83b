#!/usr/bin/env python3
"""`freqkv-replay ppl --cache-quant` against a plain, slow implementation in numpy, on random
models: alone, and under freqkv, local and snapkv.

    check_quant.py --bin BIN [--rounds N] [--seed N]

Next to a boundary between two codes float32 and float64 may rightly choose differently. With one
layer, where keys and values come from the tokens alone, a round is drawn again until nothing is
that near; losses then agree to 1e-4. With more layers one code that differs changes those that
follow: there the difference must be small against the damage that the grid does. Prints one line
per check and exits 1 if any differs.
"""

import os
import sys

import numpy as np
from check_selecting import Selecting, draw_tokens, run, write_model
from checks import Rounds
from numpy_model import Policy, dct_matrix, forward, rotate

GROUP = 32
TIE = 1e-6  # distance to a boundary, of a group's largest value, that float32 may not see
ALLOWED = 0.25  # of the damage, with several layers


# ---- the grids ----


def row_bytes(quant, d):
    groups = [min(GROUP, d - i) for i in range(0, d, GROUP)]
    return sum(2 + (n if quant == "q8" else n // 2) for n in groups)


class Grid:
    """Rounds rows to Q8_0 or Q4_0; margin: how near to a boundary anything came."""

    def __init__(self, quant):
        self.quant, self.margin = quant, np.inf

    def near(self, distance):
        self.margin = min(self.margin, np.min(distance, initial=np.inf))

    def scale(self, step):
        """step in float16"""
        scale = np.float16(step)
        for side in (-np.inf, np.inf):
            edge = (np.float64(scale) + np.float64(np.nextafter(scale, np.float16(side)))) / 2
            self.near(abs((step - edge) / step))
        return np.float64(scale)

    def group(self, x):
        largest = x[np.argmax(np.abs(x))]
        if self.quant == "q8":
            step = abs(largest) / 127
            ratio = np.abs(x) / step
            code = np.floor(ratio + 0.5) * np.sign(x)
            self.near(np.abs(ratio % 1 - 0.5) / 127)
        else:
            step = largest / -8
            ratio = x / step + 8.5
            code = np.minimum(np.floor(ratio), 15) - 8
            self.near(np.minimum(ratio % 1, 1 - ratio % 1) / 8)
            others = x[np.sign(x) != np.sign(largest)]
            self.near(1 - np.abs(others) / abs(largest))
        return self.scale(step) * code

    def __call__(self, x):
        """x [rows, d]"""
        out = np.empty_like(x)
        for row, to in zip(x, out):
            for i in range(0, len(row), GROUP):
                to[i : i + GROUP] = self.group(row[i : i + GROUP])
        return out


# ---- the policies ----


class Rounded:
    """full, freqkv or local over a cache that is rounded; keys in the cache are rotated."""

    def __init__(self, kind, quant, before, window, gamma):
        self.policy = Policy(kind, window, sinks=3, gamma=gamma)
        self.kind, self.quant, self.before, self.grid = kind, quant, before, Grid(quant)
        self.window = window

    def arguments(self):
        found = ["--policy", self.kind]
        if self.kind != "full":
            found += [
                "--window",
                str(self.window),
                "--sinks",
                "3",
                "--gamma",
                str(self.policy.gamma),
            ]
        return found

    def rotated(self, keys, positions, theta):
        """Keys as the cache gets them; they come un-rotated."""
        if self.before:
            return rotate(self.grid(keys), positions, theta)
        return self.grid(rotate(keys, positions, theta))

    def act(self, keys, values, retained, theta):
        sinks, n = 3, len(keys) - 3
        if self.kind == "local":
            moved = rotate(keys[len(keys) - retained :], np.full(retained, retained - n), theta)
            key = moved if self.before else self.grid(moved)
            value = values[len(values) - retained :]
        else:
            m = dct_matrix(retained).T @ dct_matrix(n)[:retained] * np.sqrt(retained / n)
            plain = rotate(keys[sinks:], -np.arange(sinks, len(keys)), theta)
            key = self.rotated(m @ plain, np.arange(sinks, sinks + retained), theta)
            value = self.grid(m @ values[sinks:])
        return np.concatenate([keys[:sinks], key]), np.concatenate([values[:sinks], value])

    def attend_head(self, layer, head, q, k, v, theta):
        d = k.shape[1]
        keys, values, out, actions, seen = (
            np.zeros((0, d)),
            np.zeros((0, d)),
            np.empty_like(q),
            0,
            0,
        )
        for t in range(len(k)):
            if self.kind != "full" and len(keys) == self.window:
                retained = self.policy.retained(layer, head)
                keys, values = self.act(keys, values, retained, theta)
                actions += 1
            at = [len(keys)]
            keys = np.concatenate([keys, self.rotated(k[t : t + 1], at, theta)])
            values = np.concatenate([values, self.grid(v[t : t + 1])])
            score = rotate(q[t : t + 1], at, theta)[0] / np.sqrt(d) @ keys.T
            weight = np.exp(score - score.max(-1, keepdims=True))
            out[t] = weight / weight.sum(-1, keepdims=True) @ values
            seen += len(keys)
        return out, actions, seen


class RoundedSelecting(Selecting):
    """snapkv: positions are token indices, and nothing that stays is computed again."""

    def __init__(self, quant, before, layers, budget):
        super().__init__("snapkv", layers, block=20, budget=budget, observe=4)
        self.quant, self.before, self.grid = quant, before, Grid(quant)

    def attend_head(self, layer, head, q, k, v, theta):
        at = np.arange(len(k))
        if self.before:
            k = self.grid(k)
        else:
            k = rotate(self.grid(rotate(k, at, theta)), -at, theta)
        return super().attend_head(layer, head, q, k, self.grid(v), theta)


def draw(random, kind, layers):
    quant, before = ("q8", "q4")[random.integers(2)], bool(random.integers(2))
    if kind == "snapkv":
        return RoundedSelecting(quant, before, layers, int(random.integers(6, 30)))
    window, gamma = int(random.integers(12, 40)), float(random.choice([0.25, 0.5, 0.75]))
    return Rounded(kind, quant, before, window, gamma)


# ---- checks ----


def losses(model, ids, policy):
    p, _, _ = forward(model, np.array(ids), policy)
    return -p[np.arange(len(ids) - 1), ids[1:]]


def check_round(tool, folder, random, kind, layers):
    """label, problems; None where a round has to be drawn again"""
    model = write_model(
        os.path.join(folder, "model"), random, layers, int(random.choice([4, 8, 10, 32, 40]))
    )
    ids = draw_tokens(random, int(random.integers(40, 60)))
    policy = draw(random, kind, model.layers)
    want = losses(model, ids, policy)
    label = f"{' '.join(policy.arguments()[1:])}, {policy.quant}, {model.layers} layers of "
    label += f"{model.kv_heads} heads of {model.head_dim}, keys "
    label += "before RoPE" if policy.before else "after RoPE"
    if layers == 1 and min(policy.grid.margin, getattr(policy, "margin", np.inf)) < TIE:
        return label, None
    arguments = [*policy.arguments(), "--cache-quant", policy.quant]
    arguments += ["--cache-quant-keys", "before" if policy.before else "after"]
    arguments += ["--protocol", "blocks:20"]
    out = os.path.join(folder, "run.h5")
    found, failed = run(tool, folder, [ids], arguments, out)
    if failed:
        return label, [failed]
    problems = []
    if (found["cache_quant"], found["cache_quant_keys"]) != (policy.quant, arguments[-3]):
        problems.append(f"JSON says {found['cache_quant']}, {found['cache_quant_keys']}")
    if kind == "full":
        bytes_ = 2 * len(ids) * layers * model.kv_heads * row_bytes(policy.quant, model.head_dim)
        if found["cache_bytes_peak"] != bytes_:
            problems.append(f"cache_bytes_peak {found['cache_bytes_peak']}, expected {bytes_}")
    problems += compare(model, ids, policy, want, found["mean_nll"], out)
    return label, problems


def compare(model, ids, policy, want, mean_nll, out):
    import h5py

    with h5py.File(out) as f:
        have = f["documents/000000/nll"][1:]
        if f.attrs["cache_quant"] != policy.quant:
            return [f"the run file says {f.attrs['cache_quant']}"]
    if model.layers == 1:
        off = abs(mean_nll - want.mean())
        worst = np.abs(have - want).max()
        good = off <= 1e-4 and worst <= 1e-3
        return [] if good else [f"mean_nll differs by {off:.2g}, a token's by {worst:.2g}"]
    exact = Rounded(policy.kind, policy.quant, policy.before, policy.window, policy.policy.gamma)
    exact.grid = lambda x: x
    damage = np.sqrt(np.mean((want - losses(model, ids, exact)) ** 2))
    off = np.sqrt(np.mean((have - want) ** 2))
    if off <= ALLOWED * damage:
        return []
    return [f"losses differ by {off:.2g}, the grid's damage is {damage:.2g}"]


def main():
    rounds = Rounds(__doc__, 1, "of every policy")
    kinds = ("full", "freqkv", "local", "snapkv")
    for kind, layers in [(k, 1) for k in kinds] + [(k, 2) for k in kinds if k != "snapkv"]:
        for _ in rounds.rounds:
            rounds.run(check_round, kind, layers)
    return rounds.verdict()


if __name__ == "__main__":
    sys.exit(main())
