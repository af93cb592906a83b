#!/usr/bin/env python3
"""Every protocol, policy and interval of `freqkv-replay ppl` against a second implementation in
numpy.

    check_protocols.py TOOL MODEL TEXT

Nothing here comes from the C code. The model is a float64 LLaMA written from its equations; the
cache schedule is written from the method's definition (compress when the cache is full and another
token arrives, rotate at the slot index); protocols and bootstrap are written from theirs. Only the
tokens come from the tool itself (`freqkv-replay tokens`): its tokenizer has its own vectors. Prints
one line per check and exits 1 if any differs.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

# ---- model ----


def read_safetensors(path):
    """name -> float64 array; F32, F16 and BF16."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        raw = data[slice(*entry["data_offsets"])]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            c = json.load(f)
        self.weights = read_safetensors(os.path.join(folder, "model.safetensors"))
        self.layers, self.heads, self.kv_heads = (
            c["num_hidden_layers"],
            c["num_attention_heads"],
            c["num_key_value_heads"],
        )
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.context, self.eps, self.theta = (
            c["max_position_embeddings"],
            c["rms_norm_eps"],
            c["rope_theta"],
        )
        self.bos, self.eos = c["bos_token_id"], c["eos_token_id"]
        self.tied = c["tie_word_embeddings"]
        with open(os.path.join(folder, "tokenizer.json")) as f:
            single = (json.load(f).get("post_processor") or {}).get("single", [])
        self.adds_bos = bool(single) and "SpecialToken" in single[0]

    def weight(self, layer, name):
        return self.weights[f"model.layers.{layer}.{name}.weight"]


def rmsnorm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, positions, theta):
    """x [rows, ..., d] turned by RoPE to positions [rows]; channel i pairs with i + d/2."""
    d = x.shape[-1]
    angle = np.asarray(positions, float)[:, None] * theta ** (-np.arange(0, d, 2) / d)
    cos, sin = (f(angle).reshape(len(x), *[1] * (x.ndim - 2), d // 2) for f in (np.cos, np.sin))
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


# ---- policy ----


@functools.cache
def dct_matrix(n):
    """Orthonormal DCT-II, rows = coefficients."""
    k, t = np.arange(n)[:, None], np.arange(n)[None, :]
    m = np.cos(np.pi * k * (2 * t + 1) / (2 * n)) * np.sqrt(2 / n)
    m[0] /= np.sqrt(2)
    return m


class Policy:
    """kind: full, freqkv, local or streaming. gamma: one number, one per layer, or
    [layer][kv_head].
    """

    def __init__(
        self, kind, window=None, sinks=4, gamma=0.5, recent=0, rescale=True, mass_bias=False
    ):
        self.kind, self.window, self.sinks, self.gamma, self.recent, self.rescale = (
            kind,
            window,
            sinks,
            gamma,
            recent,
            rescale,
        )
        self.mass_bias = mass_bias

    def key(self):
        return json.dumps(vars(self))

    def retained(self, layer, head):
        g = self.gamma
        if isinstance(g, list):
            g = g[layer]
        if isinstance(g, list):
            g = g[head]
        return int(np.floor(g * (self.window - self.sinks - self.recent) + 1e-9))

    def act(self, states, retained):
        """states [N, d], un-rotated -> what the head keeps"""
        if self.kind == "streaming":
            return np.concatenate([states[: self.sinks], states[self.sinks + 1 :]])
        tail = len(states) - self.recent
        sinks, middle, recent = states[: self.sinks], states[self.sinks : tail], states[tail:]
        n = len(middle)
        if self.kind == "local":
            kept = middle[n - retained :]
        else:
            kept = (
                dct_matrix(retained).T
                @ (dct_matrix(n)[:retained] @ middle)
                * (np.sqrt(retained / n) if self.rescale else 1)
            )
        return np.concatenate([sinks, kept, recent])

    def move_masses(self, masses, retained):
        """How many tokens each slot stands for [N] -> after an action: slot j takes the stretch [j
        n/L, (j+1) n/L) of the old ones
        """
        middle = masses[self.sinks : len(masses) - self.recent]
        edges = np.arange(retained + 1) * len(middle) / retained
        below = np.interp(
            edges, np.arange(len(middle) + 1), np.concatenate([[0], np.cumsum(middle)])
        )
        return np.concatenate(
            [masses[: self.sinks], np.diff(below), masses[len(masses) - self.recent :]]
        )


def attend_head(q, k, v, policy, retained, theta):
    """q [T, group, d], k and v [T, d] of one KV head, un-rotated -> out [T, group, d], actions,
    slots seen summed over queries
    """
    keys, values = np.zeros((0, k.shape[1])), np.zeros((0, k.shape[1]))
    out, actions, seen, t, masses = np.empty_like(q), 0, 0, 0, np.zeros(0)
    while t < len(k):
        added = len(k) - t
        if policy.kind != "full":
            if len(keys) == policy.window:
                keys, values = policy.act(keys, retained), policy.act(values, retained)
                masses = (
                    policy.move_masses(masses, retained) if policy.mass_bias else np.ones(len(keys))
                )
                actions += 1
            added = min(added, policy.window - len(keys))
        before = len(keys)
        keys, values = (
            np.concatenate([keys, k[t : t + added]]),
            np.concatenate([values, v[t : t + added]]),
        )
        masses = np.concatenate([masses, np.ones(added)])
        slots = np.arange(len(keys))
        turned = rotate(keys, slots, theta)
        query = rotate(q[t : t + added], slots[before:], theta) / np.sqrt(k.shape[1])
        score = query @ turned.T  # [added, group, slots]
        score += np.log(masses)
        np.copyto(score, -np.inf, where=slots > slots[before:, None, None])
        score -= score.max(-1, keepdims=True)
        weight = np.exp(score, out=score)
        out[t : t + added] = weight @ values / weight.sum(-1, keepdims=True)
        seen += int(np.sum(slots[before:] + 1))
        t += added
    return out, actions, seen


def forward(model, tokens, policy):
    """tokens [T] from an empty cache -> log-probabilities [T, vocab], actions and slots seen summed
    over heads
    """
    w, rows = model.weights, len(tokens)
    x = w["model.embed_tokens.weight"][tokens]
    group, actions, seen = model.heads // model.kv_heads, 0, 0
    for layer in range(model.layers):
        n = rmsnorm(x, model.weight(layer, "input_layernorm"), model.eps)
        q = (n @ model.weight(layer, "self_attn.q_proj").T).reshape(
            rows, model.kv_heads, group, model.head_dim
        )
        k = (n @ model.weight(layer, "self_attn.k_proj").T).reshape(
            rows, model.kv_heads, model.head_dim
        )
        v = (n @ model.weight(layer, "self_attn.v_proj").T).reshape(
            rows, model.kv_heads, model.head_dim
        )
        out = np.empty_like(q)
        for head in range(model.kv_heads):
            retained = policy.retained(layer, head) if policy.kind in ("freqkv", "local") else None
            out[:, head], a, s = attend_head(
                q[:, head], k[:, head], v[:, head], policy, retained, model.theta
            )
            actions, seen = actions + a, seen + s
        x = x + out.reshape(rows, -1) @ model.weight(layer, "self_attn.o_proj").T
        n = rmsnorm(x, model.weight(layer, "post_attention_layernorm"), model.eps)
        gate, up = (
            n @ model.weight(layer, "mlp.gate_proj").T,
            n @ model.weight(layer, "mlp.up_proj").T,
        )
        x = x + (gate / (1 + np.exp(-gate)) * up) @ model.weight(layer, "mlp.down_proj").T
    head = w["model.embed_tokens.weight" if model.tied else "lm_head.weight"]
    logits = rmsnorm(x, w["model.norm.weight"], model.eps) @ head.T
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits, actions, seen


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


# ---- statistics ----


def random_bits(count):
    """splitmix64 from seed 0: the high 32 bits of its first `count` numbers."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(32)).astype(object)


def bootstrap_draws(blocks, resamples=1000):
    """blocks: how many each document has -> (units, draws): how many units there are, and the units
    of each resample. An index below n is bits * n >> 32. 20 documents or more: documents are the
    units, as many are drawn. Fewer: as many documents, and as many of a drawn one's blocks as it
    has; a single document is not drawn.
    """
    if len(blocks) >= 20:
        blocks = [len(blocks)]
    first = np.concatenate([[0], np.cumsum(blocks)]).astype(int)
    bits = iter(random_bits(resamples * len(blocks) * (max(blocks) + 1)))
    draws = []
    for _ in range(resamples):
        drawn = []
        for _ in blocks:
            d = next(bits) * len(blocks) >> 32 if len(blocks) > 1 else 0
            drawn += [first[d] + (next(bits) * blocks[d] >> 32) for _ in range(blocks[d])]
        draws.append(np.array(drawn))
    return first[-1], draws


def bootstrap_means(sums, counts):
    """sums, counts: per document, per block -> the ratio of their sums in each resample."""
    units, draws = bootstrap_draws([len(s) for s in sums])
    if len(sums) >= 20:
        sums, counts = [[sum(s)] for s in sums], [[sum(c)] for c in counts]
    sums, counts = np.concatenate(sums), np.concatenate(counts)
    assert len(sums) == units
    return np.array([sums[i].sum() / counts[i].sum() for i in draws])


def bootstrap_se(sums, counts, overlap=False):
    """Standard deviation over resamples (n - 1). Windows that overlap: documents only, however few.
    None where there is but one unit.
    """
    if overlap or len(sums) >= 20:
        sums, counts = [[sum(s) for s in sums]], [[sum(c) for c in counts]]
    if sum(map(len, sums)) < 2:
        return None
    return float(np.std(bootstrap_means(sums, counts), ddof=1))


def unit_of_error(blocks, overlap=False):
    """blocks: how many each document has -> what `se_unit` says."""
    if len(blocks) >= 20 or overlap:
        return "documents" if len(blocks) > 1 else None
    if sum(blocks) < 2:
        return None
    return "documents and blocks" if len(blocks) > 1 else "blocks of one document"


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
            "top1_agreement": everything[:, 3].mean(),
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
