"""A float64 LLaMA with every policy's cache, in numpy: the second implementation that the checks
of numbers share. Nothing here comes from the C code: the model is written from its equations, the
cache schedule from the method's definition (compress when the cache is full and another token
arrives, rotate at the slot index).
"""

import functools
import json
import os

import numpy as np

# ---- model ----


def read_safetensors(path):
    """name -> float64 array; F32, F16, BF16 and I32."""
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
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "I32": "<i4"}[entry["dtype"]])
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
    """kind: full, freqkv, linear, local or streaming. gamma: one number, one per layer, or
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

    def operators(self, layer, head):
        """What stands in the place of the DCT, [L, n] for keys and for values; None: the DCT."""
        return None, None

    def act(self, states, retained, operator=None):
        """states [N, d], un-rotated -> what the head keeps"""
        if self.kind == "streaming":
            return np.concatenate([states[: self.sinks], states[self.sinks + 1 :]])
        tail = len(states) - self.recent
        sinks, middle, recent = states[: self.sinks], states[self.sinks : tail], states[tail:]
        n = len(middle)
        if self.kind == "local":
            kept = middle[n - retained :]
        elif operator is not None:
            kept = operator @ middle
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


def attend_head(q, k, v, policy, retained, theta, operators=(None, None)):
    """q [T, group, d], k and v [T, d] of one KV head, un-rotated -> out [T, group, d], actions,
    slots seen summed over queries
    """
    keys, values = np.zeros((0, k.shape[1])), np.zeros((0, k.shape[1]))
    out, actions, seen, t, masses = np.empty_like(q), 0, 0, 0, np.zeros(0)
    while t < len(k):
        added = len(k) - t
        if policy.kind != "full":
            if len(keys) == policy.window:
                keys, values = (
                    policy.act(states, retained, operator)
                    for states, operator in zip((keys, values), operators)
                )
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
        flat = query.reshape(-1, k.shape[1])  # one product instead of one per row
        score = (flat @ turned.T).reshape(added, -1, len(keys))
        score += np.log(masses)
        np.copyto(score, -np.inf, where=slots > slots[before:, None, None])
        score -= score.max(-1, keepdims=True)
        weight = np.exp(score, out=score)
        mixed = weight.reshape(-1, len(keys)) @ values
        out[t : t + added] = mixed.reshape(query.shape) / weight.sum(-1, keepdims=True)
        seen += int(np.sum(slots[before:] + 1))
        t += added
    return out, actions, seen


def decode(model, tokens, attend):
    """tokens [T] through the model -> log-probabilities [T, vocab]. attend(layer, q [T, kv_heads,
    group, d], k and v [T, kv_heads, d]), all un-rotated, gives what queries read, shaped as q.
    """
    w, rows, group = model.weights, len(tokens), model.heads // model.kv_heads
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(model.layers):
        n = rmsnorm(x, model.weight(layer, "input_layernorm"), model.eps)
        q, k, v = (
            (n @ model.weight(layer, f"self_attn.{p}_proj").T).reshape(rows, -1, model.head_dim)
            for p in "qkv"
        )
        out = attend(layer, q.reshape(rows, model.kv_heads, group, -1), k, v)
        x = x + out.reshape(rows, -1) @ model.weight(layer, "self_attn.o_proj").T
        n = rmsnorm(x, model.weight(layer, "post_attention_layernorm"), model.eps)
        gate, up = (n @ model.weight(layer, f"mlp.{p}_proj").T for p in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ model.weight(layer, "mlp.down_proj").T
    head = w["model.embed_tokens.weight" if model.tied else "lm_head.weight"]
    logits = rmsnorm(x, w["model.norm.weight"], model.eps) @ head.T
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits


def forward(model, tokens, policy):
    """tokens [T] from an empty cache -> log-probabilities [T, vocab], actions and slots seen summed
    over heads. A policy with an `attend_head` of its own (check_selecting.py) attends by it.
    """
    actions, seen = 0, 0

    def attend(layer, q, k, v):
        nonlocal actions, seen
        out = np.empty_like(q)
        for head in range(model.kv_heads):
            states = q[:, head], k[:, head], v[:, head]
            if hasattr(policy, "attend_head"):
                out[:, head], a, s = policy.attend_head(layer, head, *states, model.theta)
            else:
                by_ratio = policy.kind in ("freqkv", "linear", "local")
                retained = policy.retained(layer, head) if by_ratio else None
                operators = policy.operators(layer, head)
                out[:, head], a, s = attend_head(*states, policy, retained, model.theta, operators)
            actions, seen = actions + a, seen + s
        return out

    return decode(model, tokens, attend), actions, seen
