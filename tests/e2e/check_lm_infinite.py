#!/usr/bin/env python3
"""`--policy lm-infinite` against a plain, slow implementation in numpy, on random models of many
shapes: losses per token, evictions and slots that queries see, in several documents and protocols.

    check_lm_infinite.py --bin BIN [--rounds N] [--seed N]

The model is numpy_model.py's. Here nothing is stored or dropped: every query looks at all tokens
and says itself which it sees and by which rotation. Prints one line per check and exits 1 if any
differs.
"""

import json
import os
import subprocess
import sys

import numpy as np
from check_protocols import PROTOCOLS
from check_selecting import draw_tokens, write_model
from checks import Rounds
from numpy_model import Model, forward, rotate

MODEL, TEXT = "data/litbank-1m", "data/the_tide_mill.txt"
# Of a run file, per token, and how far they may be off.
COLUMNS = {"nll": 1e-3, "evictions": 0, "slots_used": 1e-4, "since_eviction": 0}


class LmInfinite:
    def __init__(self, window, first):
        self.window, self.first = window, first

    def arguments(self):
        window, first = str(self.window), str(self.first)
        return ["--policy", "lm-infinite", "--window", window, "--global", first]

    def attend_head(self, layer, head, q, k, v, theta):
        """Queries one by one: the latest W tokens by their distance, of those before them the first
        G with the query at min(W, length - 1) and the key as it is.
        """
        tokens, d = k.shape
        turned = rotate(k, np.arange(tokens), theta)
        out, seen = np.empty_like(q), 0
        for t in range(tokens):
            near = np.arange(max(t - self.window + 1, 0), t + 1)
            far = np.arange(min(self.first, near[0]))
            limit = min(self.window, t)
            score = np.concatenate(
                [
                    rotate(q[t : t + 1], [limit], theta)[0] @ k[far].T,
                    rotate(q[t : t + 1], [t], theta)[0] @ turned[near].T,
                ],
                axis=-1,
            ) / np.sqrt(d)
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[t] = weight @ v[np.concatenate([far, near])]
            seen += len(far) + len(near)
        return out, max(0, tokens - self.window - self.first), seen


# ---- the tool ----


def replay(tool, model, documents, folder, *arguments, backend="cpu"):
    """The JSON of a run and what its file holds, [document] -> column; or None and the message."""
    out, texts = os.path.join(folder, "run.h5"), []
    for i, ids in enumerate(documents):
        path = os.path.join(folder, f"ids{i}.npy")
        np.save(path, np.array(ids, np.uint16))
        texts += ["--token-ids", path]
    command = [tool, "ppl", "--model", model, *texts, "--json", "--quiet", "--backend", backend]
    command += ["--threads", "1", "--out", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip()
    columns = read_columns(out, len(documents))
    os.remove(out)
    return json.loads(done.stdout), columns


def read_columns(path, documents):
    """None without h5py."""
    try:
        import h5py
    except ImportError:
        return None
    with h5py.File(path) as f:
        groups = [f[f"documents/{i:06d}"] for i in range(documents)]
        return [{name: group[name][:] for name in COLUMNS if name in group} for group in groups]


def problems_of(pairs):
    """Of (what, found, wanted, tolerance) those that differ."""
    for what, found, want, tolerance in pairs:
        off = np.abs(np.asarray(found, float) - want)
        if not np.all(off <= tolerance):
            yield f"{what}: {found}, expected {want}"


# ---- checks ----


def shorten_context(folder, context):
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["max_position_embeddings"] = int(context)
    with open(path, "w") as f:
        json.dump(config, f)


def expected(model, documents, protocol, policy):
    """[document] -> rows of (nll, evictions, slots_used, since_eviction) in the order of targets;
    evictions of a head, slots it showed and tokens, each summed over passes; passes.
    """
    rows, sums = [[] for _ in documents], np.zeros(4)
    for fed, targets in PROTOCOLS[protocol.split(":")[0]](model, documents, None, None):
        p, actions, seen = forward(model, np.array(fed), policy)
        for row, target, d in targets:
            held, most = row + 1, policy.window + policy.first
            out = max(0, held - most)
            rows[d].append((-p[row, target], out, min(held, most), 1 if out else held))
        heads = model.layers * model.kv_heads
        sums += actions / heads, seen / heads, len(fed), 1
    return [np.array(r) for r in rows], sums


def compare(tool, model, path, documents, protocol, policy, folder, *more):
    """What differs."""
    arguments = policy.arguments() + ["--protocol", protocol, *more]
    found, columns = replay(tool, path, documents, folder, *arguments)
    if not found:
        return [columns]
    rows, (evictions, seen, tokens, passes) = expected(model, documents, protocol, policy)
    most = min(max(len(ids) for ids in documents), policy.window + policy.first)
    slot_bytes = model.layers * model.kv_heads * 2 * 4 * model.head_dim
    pairs = [
        ("mean_nll", found["mean_nll"], np.concatenate(rows)[:, 0].mean(), 1e-4),
        ("evictions", found["evictions"], evictions / passes, 1e-9),
        ("cache_slots_mean", found["cache_slots_mean"], seen / tokens, 1e-6),
    ]
    if protocol != "rolling":
        pairs.append(("cache_bytes_peak", found["cache_bytes_peak"], most * slot_bytes, 0))
    for d, (file, want) in enumerate(zip(columns or [], rows)):
        scored = np.isfinite(file["nll"])
        for i, (name, tolerance) in enumerate(COLUMNS.items()):
            error = np.abs(file[name][scored] - want[:, i]).max()
            pairs.append((f"document {d}: largest error of {name}", error, 0, tolerance))
    return list(problems_of(pairs))


def check_round(tool, folder, random, protocol):
    path = os.path.join(folder, "model")
    model = write_model(path, random)
    policy = LmInfinite(int(random.integers(1, 60)), int(random.choice([0, 1, 2, 10, 40])))
    documents = [draw_tokens(random, n) for n in random.integers(20, 200, 3)]
    if protocol == "rolling":
        model.context = int(random.integers(policy.window + 1, policy.window + 100))
        shorten_context(path, model.context)
    if protocol == "blocks":
        protocol = f"blocks:{random.integers(3, 70)}"
    label = f"{' '.join(policy.arguments()[2:])} {protocol}, {model.heads}:{model.kv_heads} heads"
    batch = "--batch", str(random.integers(1, 4))
    return label, compare(tool, model, path, documents, protocol, policy, folder, *batch)


def check_full(tool, folder, random):
    """A window of the length and more is full attention, whatever G is."""
    path = os.path.join(folder, "model")
    write_model(path, random)
    documents = [draw_tokens(random, n) for n in (100, 60)]
    full, _ = replay(tool, path, documents, folder, "--policy", "full")
    for first in (0, 10, 200):
        found, failed = replay(tool, path, documents, folder, *LmInfinite(100, first).arguments())
        if not found:
            return [failed]
        if found["mean_nll"] != full["mean_nll"]:
            return [f"--global {first}: {found['mean_nll']} is not {full['mean_nll']}"]
    return []


def check_future(tool, folder, random):
    """What follows a token does not change its loss."""
    path = os.path.join(folder, "model")
    write_model(path, random)
    ids, found = draw_tokens(random, 200), []
    for document in (ids, ids[:140] + draw_tokens(random, 60)):
        policy = LmInfinite(40, 10)
        result, columns = replay(tool, path, [document], folder, *policy.arguments())
        if not result:
            return [columns]
        if not columns:
            return []
        found.append(columns[0]["nll"][1:140])
    return [] if np.array_equal(*found) else ["the future changes the past"]


def check_generate(tool, folder, random):
    """Greedy tokens are the likeliest, or as likely within 1e-4 nats."""
    model, policy = Model(MODEL), LmInfinite(int(random.integers(8, 20)), 5)
    tail = policy.arguments() + ["--json", "--quiet", "--threads", "1", "--backend", "cpu"]
    with open(TEXT, encoding="utf-8") as f:
        prompt = f.read(int(random.integers(20, 150)))
    text = os.path.join(folder, "prompt.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write(prompt)
    command = [tool, "generate", "--model", MODEL, "--prompt", prompt, "--tokens", "40", *tail]
    done = subprocess.run(command, capture_output=True, text=True)
    ids = subprocess.run(
        [tool, "tokens", "--model", MODEL, "--text", text], capture_output=True, text=True
    )
    if done.returncode or ids.returncode:
        return [done.stderr + ids.stderr]
    made, ids = json.loads(done.stdout)["token_ids"], [int(word) for word in ids.stdout.split()]
    p = forward(model, np.array(ids + made), policy)[0][len(ids) - 1 : -1]
    short = p.max(-1) - p[np.arange(len(made)), made]
    return list(problems_of([("nats below the likeliest token", short.max(), 0, 1e-4)]))


def check_refusals(tool, folder, random):
    path = os.path.join(folder, "model")
    write_model(path, random)
    cases = {
        ("lm-infinite", "--global", "-1"): "--global: expected an integer in [0, ",
        ("lm-infinite", "--global", "ten"): '--global: expected an integer, found "ten"',
        ("lm-infinite", "--recent", "3"): "its own options are --global",
        ("streaming", "--global", "10"): "--global: policy streaming does not take it",
    }
    problems = []
    for arguments, words in cases.items():
        found, said = replay(tool, path, [[3, 4, 5]], folder, "--policy", *arguments)
        if found or words not in said:
            problems.append(f"{' '.join(arguments)}: {said}")
    return problems


def main():
    rounds = Rounds(__doc__, 1, "of every protocol")
    for check in (check_full, check_future, check_generate, check_refusals):
        rounds.run(check)
    for protocol in ("whole", "blocks", "rolling"):
        for _ in rounds.rounds:
            rounds.run(check_round, protocol)
    return rounds.verdict()


if __name__ == "__main__":
    sys.exit(main())
