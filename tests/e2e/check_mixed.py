#!/usr/bin/env python3
"""The policy `mixed` of `freqkv-replay ppl` against a plain, slow implementation in numpy, on
random models of many shapes; and what runs state of their memory, under all policies.

    check_mixed.py --bin BIN [--rounds N] [--seed N]

Losses are compared per token, kept slots per document, layer and head. A table that gives every
head one policy and one ratio gives that policy's losses, bit by bit. Prints one line per check and
exits 1 if any differs.
"""

import json
import os
import sys

import h5py
import numpy as np
from check_selecting import draw_tokens, run, write_model
from checks import Rounds
from numpy_model import Policy, attend_head, forward

POLICIES = ("freqkv", "local", "streaming")


class Mixed:
    """policy and gamma [layer][kv_head]. ends, rounds [layer, head] of the last text."""

    def __init__(self, policy, gamma, window, sinks, mass_bias):
        self.window, self.sinks, self.mass_bias = window, sinks, mass_bias
        self.policy, self.gamma = policy, gamma
        self.ends, self.rounds = {}, {}

    def head(self, layer, head):
        kind = self.policy[layer][head]
        bias = self.mass_bias and kind == "freqkv"
        return Policy(kind, self.window, self.sinks, self.gamma[layer][head], mass_bias=bias)

    def retained(self, layer, head):
        n = self.window - self.sinks
        gamma = self.gamma[layer][head]
        return n - 1 if gamma is None else int(np.round(gamma * 64)) * n // 64

    def attend_head(self, layer, head, q, k, v, theta):
        policy, retained = self.head(layer, head), self.retained(layer, head)
        out, actions, seen = attend_head(q, k, v, policy, retained, theta)
        self.rounds[layer, head] = actions
        beyond = len(k) - self.window - (actions - 1) * (self.window - self.sinks - retained)
        self.ends[layer, head] = self.sinks + retained + beyond if actions else len(k)
        return out, actions, seen

    def write(self, path):
        table = {"format": "freqkv-policies", "policy": self.policy, "gamma": self.gamma}
        with open(path, "w") as f:
            json.dump(table, f)


def draw(random, model):
    window, sinks = int(random.integers(20, 60)), int(random.integers(0, 6))
    shape = (model.layers, model.kv_heads)
    policy = random.choice(POLICIES, shape).tolist()
    gamma = (random.integers(8, 60, shape) / 64).tolist()
    for kinds, ratios in zip(policy, gamma):
        for head, kind in enumerate(kinds):
            if kind == "streaming":
                ratios[head] = None
    return Mixed(policy, gamma, window, sinks, bool(random.integers(2)))


def read_run(path, documents):
    with h5py.File(path) as f:
        found = {name: f[name][()] for name in f if isinstance(f[name], h5py.Dataset)}
        found |= {key: value for key, value in f.attrs.items()}
        found["nll"] = [f[f"documents/{i:06d}/nll"][1:] for i in range(documents)]
        found["names"] = f["head_policy"].attrs["policies"] if "head_policy" in f else ""
        for group in ("compressions", "evictions"):
            if group in f:
                names = ("window", "layer", "head", "slots")
                found[group + " rows"] = [f[group][name][::2] for name in names]
    return found


def kept_rows(policies, kind, documents):
    """What /compressions or /evictions hold: (document, layer, head, slots), sorted."""
    rows = []
    for i, policy in enumerate(policies[:documents]):
        for (layer, head), rounds in policy.rounds.items():
            if policy.policy[layer][head] == kind:
                slots = policy.sinks + policy.retained(layer, head)
                rows += [(i, layer, head, slots)] * rounds
    return sorted(rows)


def check_round(tool, folder, random):
    """A random mixture equals its definition, in several documents side by side."""
    model = write_model(os.path.join(folder, "model"), random)
    sizes, table = random.integers(70, 200, 3), os.path.join(folder, "policies.json")
    documents = [draw_tokens(random, n) for n in sizes]
    mixed = draw(random, model)
    mixed.write(table)
    policies, nll, slots = [], [], 0
    for ids in documents:
        one = Mixed(mixed.policy, mixed.gamma, mixed.window, mixed.sinks, mixed.mass_bias)
        p, _, seen = forward(model, np.array(ids), one)
        nll.append(-p[np.arange(len(ids) - 1), ids[1:]])
        policies.append(one)
        slots += seen
    out = os.path.join(folder, "run.h5")
    arguments = ["--policy", "mixed", "--table", table, "--sinks", str(mixed.sinks)]
    arguments += [("--budget", "--window")[random.integers(2)], str(mixed.window)]
    arguments += ["--batch", str(random.integers(1, 4)), "--protocol", "whole"]
    arguments += ["--mass-bias"] if mixed.mass_bias else []
    found, failed = run(tool, folder, documents, arguments, out)
    if failed:
        return [failed]
    file, problems = read_run(out, 3), []
    heads = model.layers * model.kv_heads

    def expect(what, have, want, tolerance=0):
        if not np.all(np.abs(np.asarray(have) - want) <= tolerance):
            problems.append(f"{what} {have}, expected {want}")

    for have, want in zip(file["nll"], nll):
        expect("largest error of a token's nll", np.abs(have - want).max(), 0, 1e-3)
    expect("mean_nll", found["mean_nll"], np.concatenate(nll).mean(), 1e-4)
    expect("cache_slots_mean", found["cache_slots_mean"], slots / heads / sum(sizes), 1e-6)
    actions = dict.fromkeys(POLICIES, 0)
    for one in policies:
        for (layer, head), rounds in one.rounds.items():
            actions[one.policy[layer][head]] += rounds / heads / 3
    expect("compressions", found["compressions"], actions["freqkv"], 1e-9)
    expect("evictions", found["evictions"], actions["local"] + actions["streaming"], 1e-9)
    for group, kind in (("compressions", "freqkv"), ("evictions", "local")):
        rows = sorted(tuple(int(x) for x in row) for row in zip(*file[group + " rows"]))
        if rows != kept_rows(policies, kind, 3):
            problems.append(f"/{group}: {rows}, expected {kept_rows(policies, kind, 3)}")
    names = file["names"].split(",")
    if [[names[i] for i in row] for row in file["head_policy"]] != mixed.policy:
        problems.append(f"/head_policy {file['head_policy']} of {names}")
    for layer, head in np.ndindex(model.layers, model.kv_heads):
        at = f"[{layer}, {head}]"
        expect("retained" + at, file["retained"][layer, head], mixed.retained(layer, head))
        end = np.mean([one.ends[layer, head] for one in policies])
        expect("slots_end" + at, file["slots_end"][layer, head], end, 1e-9)
        expect("slots_end in JSON" + at, found["slots_end"][layer][head], end, 1e-9)
        expect("slots_most" + at, file["slots_most"][layer, head], mixed.window)
    expect("cache_bytes_peak", found["cache_bytes_peak"], heads * mixed.window * model.head_dim * 8)
    expect("sees_queries", int(found["sees_queries"]), 0)
    if not file["table"].startswith("policies.json@"):
        problems.append(f"table is {file['table']}")
    os.remove(out)
    return problems


def check_alike(tool, folder, random):
    """One policy and one ratio for all heads give that policy's losses, bit by bit."""
    write_model(os.path.join(folder, "model"), random)
    documents = [draw_tokens(random, n) for n in (150, 80)]
    table, out = (os.path.join(folder, name) for name in ("policies.json", "run.h5"))
    tail, problems = ["--window", "40", "--protocol", "whole", "--batch", "2"], []
    for kind in POLICIES:
        with open(table, "w") as f:
            json.dump({"policy": kind, "gamma": 0.4375}, f)
        own = [] if kind == "streaming" else ["--gamma", "0.4375"]
        runs = []
        for arguments in (["mixed", "--table", table], [kind, *own]):
            _, failed = run(tool, folder, documents, ["--policy", *arguments, *tail], out)
            if failed:
                return [failed]
            runs.append(read_run(out, 2))
            os.remove(out)
        same = ("compressions", "evictions", "cache_bytes_peak", "cache_slots_mean", "mean_nll")
        same += ("slots_end", "slots_most")
        if not all(np.array_equal(runs[0][name], runs[1][name]) for name in same):
            problems.append(f"{kind}: {[(r[n] for n in same) for r in runs]}")
        if not all(np.array_equal(*nll) for nll in zip(runs[0]["nll"], runs[1]["nll"])):
            problems.append(f"{kind}: losses differ")
    return problems


def check_memory(tool, folder, random):
    """What a head holds at most. Under a window N slots, whatever the text's length, and no more
    than half as much again allocated; under a selecting policy what it keeps and one prefill block,
    which is the whole prefill where that is one block.
    """
    model = write_model(os.path.join(folder, "model"), random)
    slot, problems = model.layers * model.kv_heads * model.head_dim * 8, []
    n, block = 48, 64
    for size in (60, 150, 400):
        document = [draw_tokens(random, size)]
        for kind in ("freqkv", "linear", "local", "streaming"):
            arguments = ["--policy", kind, "--budget", str(n), "--protocol", "whole"]
            found, failed = run(tool, folder, document, arguments)
            if failed:
                return [failed]
            most = found["cache_bytes_peak"] / slot
            allocated = found["cache_bytes_allocated"] / slot
            storage = n + n // 2 if kind == "streaming" else n
            if (most, allocated) != (min(n, size), storage):
                problems.append(f"{kind}, {size} tokens: {most} slots of {allocated}")
        for kind in ("snapkv", "h2o", "knorm"):
            for b in (block, size):
                arguments = ["--policy", kind, "--budget", str(n), "--protocol", f"blocks:{b}"]
                found, failed = run(tool, folder, document, arguments)
                if failed:
                    return [failed]
                most = found["cache_bytes_peak"] / slot
                want, rest = min(b, size), size - b
                while rest > 0:  # the block that follows comes on top of what stays
                    want, rest = max(want, n + min(b, rest)), rest - b
                if most != want or found["cache_bytes_allocated"] / slot != min(n + b, size):
                    problems.append(f"{kind}, blocks:{b}, {size} tokens: {most} slots, not {want}")
    return problems


def main():
    rounds = Rounds(__doc__, 4)
    for check in (check_alike, check_memory):
        rounds.run(check)
    for _ in rounds.rounds:
        rounds.run(check_round)
    return rounds.verdict()


if __name__ == "__main__":
    sys.exit(main())
