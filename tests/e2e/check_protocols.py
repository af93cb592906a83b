#!/usr/bin/env python3
"""Every protocol, policy and interval of `freqkv-replay ppl` against a second implementation in
numpy.

    check_protocols.py TOOL MODEL TEXT

Nothing here comes from the C code: the model and the policies are numpy_model.py's, the bootstrap
is definitions.py's, and protocols are written from their definitions. Only the tokens come from the
tool itself (`freqkv-replay tokens`): its tokenizer has its own vectors. Prints one line per check
and exits 1 if any differs.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from definitions import bootstrap_se, unit_of_error
from numpy_model import Model, Policy, forward

FORWARDS = {}


def run(model, tokens, policy):
    key = (tuple(tokens), policy.key())
    if key not in FORWARDS:
        FORWARDS[key] = forward(model, np.asarray(tokens), policy)
    return FORWARDS[key]


# ---- protocols ----
# A protocol gives passes: (tokens fed, [(row, target, document)]): what `row` says about `target`
# is scored.


def whole(model, documents, limit, _):
    for d, ids in enumerate(documents):
        ids = ids[:limit]
        yield ids, [(t - 1, ids[t], d) for t in range(1, len(ids))]


def stride(model, documents, limit, step):
    stream = [(token, d) for d, ids in enumerate(documents) for token in strip_bos(model, ids)]
    length, start = limit or model.context, 0
    while start + length <= len(stream):
        window = stream[start : start + length]
        yield [token for token, _ in window], [(t - 1, *window[t]) for t in range(1, length)]
        start += step


def chunks(model, documents, limit, size):
    for d, ids in enumerate(documents):
        ids = ids[:limit]
        for k in range(len(ids) // size):
            fed = list(ids[k * size : (k + 1) * size])
            if model.adds_bos:
                fed[0] = model.bos
            yield fed, [(t - 1, fed[t], d) for t in range(size // 2 + 1, size)]


def rolling(model, documents, limit, _):
    """As lm-eval's get_rolling_token_windows with one token of context."""
    for d, ids in enumerate(documents):
        ids = strip_bos(model, ids[:limit])
        prefix = model.bos if model.bos is not None else model.eos
        first = min(model.context, len(ids))
        yield [prefix] + ids[: first - 1], [(t, ids[t], d) for t in range(first)]
        done = first
        while done < len(ids):
            new = min(len(ids) - done, model.context)
            end = done + new
            fed = ids[end - model.context - 1 : end - 1]
            yield fed, [(len(fed) - new + j, ids[done + j], d) for j in range(new)]
            done = end


PROTOCOLS = {
    "whole": whole,
    "stride": stride,
    "chunks": chunks,
    "rolling": rolling,
    "blocks": whole,
}


def strip_bos(model, ids):
    return ids[1:] if model.adds_bos else ids


def expected(model, documents, protocol, policy, limit=None, score_from=0):
    """What `ppl --baseline full --json` must print, without times."""
    name, _, parameter = protocol.partition(":")
    parameter = int(parameter) if parameter else None
    full = Policy("full")
    scored = [[] for _ in documents]  # per document: (nll, baseline nll, kl, agrees)
    fed_rows, slots, actions, passes, longest = 0, 0, 0, 0, 0
    for fed, targets in PROTOCOLS[name](model, documents, limit, parameter):
        p, a, s = run(model, fed, policy)
        q = run(model, fed, full)[0]
        fed_rows, slots, actions, passes, longest = (
            fed_rows + len(fed),
            slots + s,
            actions + a,
            passes + 1,
            max(longest, len(fed)),
        )
        for row, target, d in targets:
            if row + 1 >= score_from:
                kl = np.sum(np.exp(q[row]) * (q[row] - p[row]))
                scored[d].append(
                    (-p[row, target], -q[row, target], kl, p[row].argmax() == q[row].argmax())
                )
    tables = [np.array(s, float).reshape(-1, 4) for s in scored]
    everything = np.concatenate(tables)
    # 256 scored tokens in a row are a block of their document. Windows that overlap share tokens.
    window = limit or model.context
    overlap = (
        name == "stride"
        and len(everything)
        and parameter < window - max(1, score_from)
        and passes > 1
    )
    blocks = [[t[i : i + 256] for i in range(0, len(t), 256)] for t in tables if len(t)]
    counts = [[len(u) for u in t] for t in blocks]
    heads = model.layers * model.kv_heads
    mean, base = everything[:, 0].mean(), everything[:, 1].mean()
    se = bootstrap_se([[u[:, 0].sum() for u in t] for t in blocks], counts, overlap)
    if name == "stride":
        sizes = [len(strip_bos(model, ids)) for ids in documents]
    else:
        sizes = [len(ids) for ids in documents]
    if name != "stride" and limit:
        sizes = [min(limit, n) for n in sizes]
    peak = longest if policy.kind == "full" else min(longest, policy.window)
    windowed = policy.kind != "full"
    # Only linear maps are compressions; local evicts on its schedule, streaming at every token
    # beyond the window.
    own = (
        {"recent": policy.recent, "rescale": policy.rescale, "mass_bias": policy.mass_bias}
        if policy.kind == "freqkv"
        else {}
    )
    return {
        **own,
        "policy": policy.kind,
        "window": policy.window if windowed else None,
        "sinks": policy.sinks if windowed else None,
        "gamma": mean_gamma(model, policy),
        "protocol": protocol,
        "documents": len(documents),
        "tokens": sum(sizes),
        "tokens_scored": len(everything),
        "mean_nll": mean,
        "perplexity": np.exp(mean),
        "perplexity_se": None if se is None else np.exp(mean) * se,
        "compressions": actions / heads / passes if policy.kind == "freqkv" else 0.0,
        "evictions": actions / heads / passes if policy.kind in ("local", "streaming") else 0.0,
        "cache_bytes_peak": peak * heads * model.head_dim * 2 * 4,
        "cache_slots_mean": slots / heads / fed_rows,
        "se_unit": unit_of_error([len(t) for t in blocks], overlap),
        "per_document": [
            {
                "tokens": n,
                "mean_nll": t[:, 0].mean() if len(t) else None,
                "perplexity": np.exp(t[:, 0].mean()) if len(t) else None,
            }
            for n, t in zip(sizes, tables)
        ],
        "baseline": {
            "policy": "full",
            "valid": bool(
                longest <= model.context and (not windowed or policy.window < model.context)
            ),
            "mean_nll": base,
            "perplexity": np.exp(base),
            "delta_nll": mean - base,
            "delta_nll_se": bootstrap_se(
                [[(u[:, 0] - u[:, 1]).sum() for u in t] for t in blocks], counts, overlap
            ),
            "kl": everything[:, 2].mean(),
            "kl_se": bootstrap_se([[u[:, 2].sum() for u in t] for t in blocks], counts, overlap),
            "top1_agreement": everything[:, 3].mean(),
            "missing": None,
        },
    }


def mean_gamma(model, policy):
    if policy.kind not in ("freqkv", "local"):
        return None
    return float(np.mean(policy.gamma)) if isinstance(policy.gamma, list) else policy.gamma


# ---- checks ----

# (absolute, relative) beyond which a float differs. Differences of two float32 runs are known to
# about 1e-5 nats; a near-tie may fall the other way, so agreement is allowed two tokens (see
# same()).
TOLERANCE = {
    "mean_nll": (0, 1e-4),
    "perplexity": (0, 1e-3),
    "perplexity_se": (0, 2e-3),
    "delta_nll": (1e-4, 1e-4),
    "delta_nll_se": (1e-5, 5e-3),
    "kl": (1e-6, 2e-3),
    "kl_se": (1e-6, 5e-3),
    "gamma": (0, 1e-12),
    "compressions": (0, 1e-12),
    "evictions": (0, 1e-12),
    "cache_slots_mean": (0, 1e-9),
}


def differences(found, want, scored, path=""):
    for key, value in want.items():
        where, other = path + key, found.get(key, "missing")
        if isinstance(value, dict):
            yield from differences(other, value, scored, where + ".")
        elif isinstance(value, list):
            if len(other) != len(value):
                yield f"{where} has {len(other)} rows, expected {len(value)}"
            else:
                for i, (f, w) in enumerate(zip(other, value)):
                    yield from differences(f, w, scored, f"{where}[{i}].")
        elif not same(key, other, value, scored):
            yield f"{where} {other}, expected {value}"


def same(key, found, want, scored):
    if want is None or isinstance(want, (str, bool, int)):
        return found == want and type(found) is type(want)
    if not isinstance(found, (int, float)):
        return False
    absolute, relative = (2.5 / scored, 0) if key == "top1_agreement" else TOLERANCE[key]
    return abs(found - want) <= absolute + relative * abs(want)


def policy_arguments(policy, folder, model):
    if policy.kind == "full":
        return ["--policy", "full"]
    arguments = [
        "--policy",
        policy.kind,
        "--window",
        str(policy.window),
        "--sinks",
        str(policy.sinks),
    ]
    gamma = policy.gamma
    if policy.kind in ("freqkv", "local"):
        if not isinstance(gamma, list):
            arguments += ["--gamma", str(gamma)]
        elif not isinstance(gamma[0], list):
            arguments += ["--gamma", ",".join(map(str, gamma))]
        else:
            path = os.path.join(folder, "gamma.json")
            retained = [
                [policy.retained(i, j) for j in range(model.kv_heads)] for i in range(model.layers)
            ]
            with open(path, "w") as f:
                json.dump(
                    {
                        "format": "freqkv-gamma",
                        "format_version": 1,
                        "n_layers": model.layers,
                        "n_kv_heads": model.kv_heads,
                        "window": policy.window,
                        "sinks": policy.sinks,
                        "gamma": gamma,
                        "retained": retained,
                    },
                    f,
                )
            arguments += ["--gamma", "@" + path]
    if policy.recent:
        arguments += ["--recent", str(policy.recent)]
    if not policy.rescale:
        arguments += ["--rescale", "off"]
    if policy.mass_bias:
        arguments += ["--mass-bias"]
    return arguments


def settings(model):
    """(which documents, protocol, policy, tokens, score_from)"""
    c = model.context
    n = (
        c // 4 + 4
    )  # 64 divides n - sinks, so that a table's rounding leaves these ratios as they are
    freqkv, local, streaming, full = (
        Policy("freqkv", n),
        Policy("local", n),
        Policy("streaming", n),
        Policy("full"),
    )
    layers, heads = model.layers, model.kv_heads
    per_layer = [(16 + 4 * i) / 64 for i in range(layers)]
    per_head = [[(12 + 5 * i + 3 * j) / 64 for j in range(heads)] for i in range(layers)]
    yield "three", "whole", full, None, 0
    for gamma in (0.25, 0.5, 0.75, 0.37):
        yield "one", "whole", Policy("freqkv", n, gamma=gamma), c, 0
    for policy in (
        local,
        streaming,
        Policy("local", n, sinks=0, gamma=0.8),
        Policy("freqkv", n, sinks=0),
        Policy("freqkv", n, sinks=11, gamma=0.6),
    ):
        yield "one", "whole", policy, c - 7, 0
    yield "one", "whole", Policy("freqkv", n, recent=c // 16), c, 0
    yield "one", "whole", Policy("freqkv", n, rescale=False), c, 0
    for gamma in (0.25, 0.37, per_head):
        yield (
            "one",
            "whole",
            Policy("freqkv", n, gamma=gamma, recent=5 if gamma == 0.37 else 0, mass_bias=True),
            c,
            0,
        )
    yield "one", "whole", Policy("freqkv", n, gamma=per_layer), c, 0
    yield "one", "whole", Policy("freqkv", n, gamma=per_head), c, 0
    yield "one", "whole", Policy("freqkv", c), c, 0  # nothing to compress: exactly full
    yield "one", "whole", freqkv, c + c // 3, 0  # past the trained context
    yield "three", "whole", freqkv, c, n + 1
    yield "many", "whole", Policy("freqkv", 40, gamma=0.5), None, 0
    for policy in (full, freqkv, local):
        yield "three", f"stride:{c // 4 + 3}", policy, c // 2, 0
    yield "many", f"stride:{c // 8}", Policy("freqkv", 40), c // 4, 0
    yield "one", f"stride:{c // 4}", Policy("freqkv", 60), c // 4, 0
    yield "one", f"stride:{c // 4}", freqkv, None, 0
    for policy in (full, freqkv, streaming):
        yield "three", f"chunks:{c // 2 + 1}", policy, None, 0
    yield "one", "chunks:200", Policy("freqkv", 50), None, 120
    for policy in (full, freqkv, local):
        yield "three", "rolling", policy, None, 0
    yield "one", "rolling", freqkv, c + 40, 0
    yield "three", "blocks:100", freqkv, None, 0
    yield "one", "blocks:1000", local, c, 0


def main():
    if len(sys.argv) != 4:
        print(__doc__)
        return 2
    tool, folder, text = sys.argv[1:]
    model = Model(folder)
    with open(text, encoding="utf-8") as f:
        content = f.read()
    failures = 0
    with tempfile.TemporaryDirectory() as work:
        corpora = write_corpora(work, content, model.context)
        ids = {}
        for name, paths in corpora.items():
            lines = subprocess.run(
                [tool, "tokens", "--model", folder, *texts(paths)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            ids[name] = [list(map(int, line.split())) for line in lines.splitlines()]
        for i, (corpus, protocol, policy, limit, score_from) in enumerate(settings(model)):
            want = expected(model, ids[corpus], protocol, policy, limit, score_from)
            arguments = policy_arguments(policy, work, model)
            command = [tool, "ppl", "--model", folder, *texts(corpora[corpus]), *arguments]
            command += [
                "--protocol",
                protocol,
                "--baseline",
                "full",
                "--json",
                "--quiet",
                "--backend",
                "cpu",
                "--threads",
                "1",
            ]
            batch = (1, 2, 3, 16)[i % 4]  # changes nothing
            command += ["--batch", str(batch)]
            command += ["--tokens", str(limit)] if limit else []
            command += ["--score-from", str(score_from)] if score_from else []
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                problems = [f"exit status {result.returncode}: {result.stderr.strip()}"]
            else:
                problems = list(differences(json.loads(result.stdout), want, want["tokens_scored"]))
            label = " ".join(
                [
                    f"{corpus:5s} {protocol:12s}",
                    *arguments[1:],
                    f"tokens {limit} score-from {score_from} batch {batch}",
                ]
            )
            print(
                "ok  " if not problems else "FAIL",
                label.replace(work, ""),
                f"nll {want['mean_nll']:.6f}",
                flush=True,
            )
            for problem in problems:
                print("     ", problem)
            failures += bool(problems)
    print(f"{failures} of the checks failed" if failures else "all checks passed")
    return 1 if failures else 0


def texts(paths):
    return [part for path in paths for part in ("--text", path)]


def write_corpora(work, content, context):
    """One document, three of different lengths, and many short ones (enough for the bootstrap over
    documents).
    """
    corpora = {
        "one": [6 * context],
        "three": [context * 4, context * 3, context * 2 + 100],
        "many": [160 + 17 * i for i in range(24)],
    }
    paths = {}
    for name, sizes in corpora.items():
        paths[name], start = [], 0
        for i, size in enumerate(sizes):
            if start + size > len(content):
                start = 0
            path = os.path.join(work, f"{name}{i:02d}.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.write(content[start : start + size])
            paths[name].append(path)
            start += size
    return paths


if __name__ == "__main__":
    sys.exit(main())
