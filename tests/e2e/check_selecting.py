#!/usr/bin/env python3
"""The selecting policies of `freqkv-replay ppl` against a plain, slow implementation in numpy, on
random models of many shapes.

    check_selecting.py --bin BIN [--rounds N] [--seed N]

Kept slots are compared per layer, head and document, losses per token: another choice of slots
changes all losses after it. The model is numpy_model.py's; here a head holds a list of token
indices, queries come one at a time, and at the end of a block the list is cut. Where float32 and
float64 may rightly choose differently (two scores at the edge of the choice closer than 1e-5), a
round is drawn again. Prints one line per check and exits 1 if any differs.
"""

import json
import os
import subprocess
import sys

import numpy as np
from checks import Rounds
from numpy_model import Model, forward, rotate

VOCABULARY = 512
TIE = 1e-5  # relative difference of scores below which the order is float32's to choose


# ---- a random model ----


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        raw = x.astype("<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(x.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)


def write_model(folder, random, layers=None, head_dim=None):
    """A LLaMA with weights so large that attention is far from even."""
    layers, kv_heads, group = (
        layers or random.integers(1, 4),
        random.integers(1, 4),
        random.integers(1, 4),
    )
    d, dim, hidden, vocab = head_dim or 2 * random.integers(2, 9), 24, 40, VOCABULARY
    heads = kv_heads * group
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "vocab_size": vocab,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = {k: int(v) if isinstance(v, np.integer) else v for k, v in config.items()}
    shapes = {"model.embed_tokens.weight": (vocab, dim), "lm_head.weight": (vocab, dim)}
    for i in range(layers):
        base = f"model.layers.{i}."
        shapes |= {
            base + "self_attn.q_proj.weight": (heads * d, dim),
            base + "self_attn.k_proj.weight": (kv_heads * d, dim),
            base + "self_attn.v_proj.weight": (kv_heads * d, dim),
            base + "self_attn.o_proj.weight": (dim, heads * d),
            base + "mlp.gate_proj.weight": (hidden, dim),
            base + "mlp.up_proj.weight": (hidden, dim),
            base + "mlp.down_proj.weight": (dim, hidden),
        }
    tensors = {
        name: random.normal(0, 1.3 * shape[1] ** -0.5, shape) for name, shape in shapes.items()
    }
    for i in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = np.ones(dim)
    tensors["model.norm.weight"] = np.ones(dim)
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump({}, f)  # numpy_model.Model looks for a BOS
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    model = Model(folder)
    os.remove(os.path.join(folder, "tokenizer.json"))
    return model


def draw_tokens(random, count):
    """All different: two of one token would have keys of one length in the first layer."""
    return random.permutation(np.arange(3, VOCABULARY))[:count].tolist()


# ---- the policies ----


class Selecting:
    """kind: snapkv, pyramidkv, h2o, keydiff or knorm. kept[layer, head]: slots that stayed after
    each selection; margin: the least relative difference of scores at the edge of a choice.
    """

    def __init__(self, kind, layers, block, budget, observe=32, pool="avg", kernel=5, heavy=0):
        self.kind, self.layers, self.block, self.budget = kind, layers, block, budget
        self.observe, self.pool, self.kernel, self.heavy = observe, pool, kernel, heavy
        self.beta = 20
        self.kept, self.margin = {}, np.inf

    def arguments(self):
        found = ["--policy", self.kind, "--budget", str(self.budget)]
        if self.kind in ("snapkv", "pyramidkv"):
            found += ["--observe", str(self.observe), "--pool", self.pool]
            found += ["--kernel", str(self.kernel)]
        if self.kind == "pyramidkv":
            found += ["--beta", str(self.beta)]
        if self.kind == "h2o" and self.heavy:
            found += ["--heavy", str(self.heavy)]
        return found

    def recent(self):
        if self.kind == "h2o":
            return self.budget - (self.heavy or self.budget // 2)
        return self.observe if self.kind in ("snapkv", "pyramidkv") else 0

    def layer_budget(self, layer, tokens):
        """PyramidKV's, from the paper's code."""
        w, b = self.observe, self.budget - self.observe
        if self.kind != "pyramidkv" or tokens < 2 * b:
            return self.budget
        least, most = b // self.beta, 2 * b - b // self.beta
        if most >= tokens - w:
            most = tokens - w
            least = 2 * b - most
        steps = max(self.layers - 1, 1)
        return most - layer * ((most - least) // steps) + w

    def scores(self, keys, paid):
        if self.kind == "knorm":
            return -np.linalg.norm(keys, axis=1)
        if self.kind == "keydiff":
            unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
            mean = unit.mean(0)
            return -unit @ mean / np.linalg.norm(mean)
        return paid

    def pooled(self, scores):
        if self.kind not in ("snapkv", "pyramidkv"):
            return scores
        reach, found = self.kernel // 2, []
        for i in range(len(scores)):
            near = scores[max(i - reach, 0) : i + reach + 1]
            found.append(near.max() if self.pool == "max" else near.sum() / self.kernel)
        return np.array(found)

    def select(self, scores, budget):
        """Indices into the slots of those that stay."""
        recent = self.recent()
        others, kept = len(scores) - recent, budget - recent
        pooled = self.pooled(scores[:others])
        order = sorted(range(others), key=lambda i: (-pooled[i], i))
        if 0 < kept < others:
            inside, outside = pooled[order[kept - 1]], pooled[order[kept]]
            # Neighbours of one maximum have one score: the slot decides, here as there.
            if inside > outside or self.pool != "max" or self.kind not in ("snapkv", "pyramidkv"):
                self.margin = min(self.margin, (inside - outside) / abs(inside))
        return sorted(order[:kept]) + list(range(others, len(scores)))

    def attend_head(self, layer, head, q, k, v, theta):
        tokens, d = k.shape
        turned = rotate(k, np.arange(tokens), theta)
        query = rotate(q, np.arange(tokens), theta) / np.sqrt(d)
        slots, paid, out, actions, seen = [], np.zeros(0), np.empty_like(q), 0, 0
        for t in range(tokens):
            if t and t % self.block == 0:
                budget = self.layer_budget(layer, t)
                if len(slots) > budget:
                    chosen = self.select(self.scores(turned[slots], paid), budget)
                    slots, paid = [slots[i] for i in chosen], paid[chosen]
                    self.kept.setdefault((layer, head), []).append(len(slots))
                    actions += 1
                if self.kind != "h2o":
                    paid[:] = 0
            slots.append(t)
            paid = np.append(paid, 0)
            score = query[t] @ turned[slots].T
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[t] = weight @ v[slots]
            end = (t // self.block + 1) * self.block
            if self.kind == "h2o" or t >= end - self.observe:
                paid += weight.mean(0)
            seen += len(slots)
        return out, actions, seen


# ---- checks ----


def draw(random, model, kind):
    block = int(random.integers(8, 70))
    observe = int(random.integers(1, 12))
    budget = observe + int(random.integers(1, 50))
    policy = Selecting(
        kind,
        model.layers,
        block,
        budget,
        observe,
        ("avg", "max")[random.integers(2)],
        2 * int(random.integers(0, 5)) + 1,
        int(random.integers(0, budget)),
    )
    policy.beta = int(random.choice([1, 3, 20, 60]))
    return policy


def run(tool, folder, documents, arguments, out=None):
    texts = []
    for i, ids in enumerate(documents):
        path = os.path.join(folder, f"ids{i}.npy")
        np.save(path, np.array(ids, np.uint16))
        texts += ["--token-ids", path]
    command = [tool, "ppl", "--model", os.path.join(folder, "model"), *texts, *arguments]
    command += ["--json", "--quiet", "--backend", "cpu", "--threads", "1"]
    command += ["--out", out] if out else []
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return None, result.stderr.strip()
    return json.loads(result.stdout), None


def read_run(path):
    try:
        import h5py
    except ImportError:
        return None
    with h5py.File(path) as f:
        nll = [f[f"documents/{i:06d}/nll"][:] for i in range(len(f["documents"]))]
        rows = {name: f[f"evictions/{name}"][:] for name in ("window", "layer", "head", "slots")}
        return nll, rows, f["slots_kept"][:], int(f.attrs["sees_queries"])


def kept_counts(rows, layers, heads, documents):
    """[document][(layer, head)] -> slots after each selection"""
    counts = [{} for _ in range(documents)]
    for window, layer, head, slots in list(zip(*(rows[k] for k in rows)))[::2]:  # key, then value
        counts[window].setdefault((layer, head), []).append(slots)
    return counts


def check_round(tool, folder, random, kind):
    model = write_model(os.path.join(folder, "model"), random)
    sizes = random.integers(90, 240, 3)
    documents = [draw_tokens(random, n) for n in sizes]
    policy = draw(random, model, kind)
    want_nll, kept, actions, seen = [], [], 0, 0
    for ids in documents:
        policy.kept = {}
        p, a, s = forward(model, np.array(ids), policy)
        want_nll.append(-p[np.arange(len(ids) - 1), ids[1:]])
        kept.append(policy.kept)
        actions, seen = actions + a, seen + s
    label = f"{' '.join(policy.arguments()[1:])} blocks:{policy.block}"
    if policy.margin < TIE:
        return label, None
    out = os.path.join(folder, "run.h5")
    batch = ["--batch", str(random.integers(1, 4)), "--protocol", f"blocks:{policy.block}"]
    found, failed = run(tool, folder, documents, policy.arguments() + batch, out)
    if failed:
        return label, [failed]
    heads, problems = model.layers * model.kv_heads, []

    def expect(what, have, want, tolerance=0):
        if not np.all(np.abs(np.asarray(have) - want) <= tolerance):
            problems.append(f"{what} {have}, expected {want}")

    expect("mean_nll", found["mean_nll"], np.concatenate(want_nll).mean(), 1e-4)
    expect("evictions", found["evictions"], actions / heads / 3, 1e-9)
    expect("cache_slots_mean", found["cache_slots_mean"], seen / heads / sum(sizes), 1e-6)
    counts = [n for document in kept for head in document.values() for n in head]
    if counts:
        expect("budget_mean", found["budget_mean"], np.mean(counts), 1e-9)
    file = read_run(out)
    if file:
        nll, rows, mean, sees = file
        for have, want in zip(nll, want_nll):
            expect("largest error of a token's nll", np.abs(have[1:] - want).max(), 0, 1e-3)
        if kept_counts(rows, model.layers, model.kv_heads, 3) != kept:
            problems.append("kept slots per document, layer and head differ")
        for (layer, head), n in kept[0].items():
            expect(
                f"slots_kept[{layer}, {head}]",
                mean[layer, head],
                np.mean(sum((d[layer, head] for d in kept if (layer, head) in d), [])),
                1e-9,
            )
        expect("sees_queries", sees, kind in ("snapkv", "pyramidkv", "h2o"))
    os.remove(out)
    return label, problems


def check_full_budget(tool, folder, random, kind):
    """A budget of the length and more is full attention, and the report says so."""
    model = os.path.join(folder, "model")
    write_model(model, random)
    documents = [draw_tokens(random, n) for n in (100, 60)]
    tail = ["--protocol", "blocks:30"]
    a, failed = run(tool, folder, documents, ["--policy", kind, "--budget", "100", *tail])
    b, also = run(tool, folder, documents, ["--policy", "full", *tail])
    if failed or also:
        return [failed or also]
    command = [tool, "ppl", "--model", model, "--token-ids", os.path.join(folder, "ids0.npy")]
    command += ["--policy", kind, "--budget", "100", *tail]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    if "did nothing" not in text:
        return [f"expected that the policy did nothing, found {text}"]
    return [] if a["mean_nll"] == b["mean_nll"] else [f"{a['mean_nll']} is not {b['mean_nll']}"]


def check_future(tool, folder, random, kind):
    """What follows a token does not change its loss."""
    write_model(os.path.join(folder, "model"), random)
    ids = draw_tokens(random, 200)
    other = ids[:140] + draw_tokens(random, 60)
    found = []
    for document in (ids, other):
        out = os.path.join(folder, "run.h5")
        arguments = ["--policy", kind, "--budget", "40", "--protocol", "blocks:50"]
        _, failed = run(tool, folder, [document], arguments, out)
        if failed:
            return [failed]
        file = read_run(out)
        os.remove(out)
        if not file:
            return []
        found.append(file[0][0][1:140])
    return [] if np.array_equal(*found) else ["the future changes the past"]


def main():
    rounds = Rounds(__doc__, 4, "of every policy")
    for kind in ("snapkv", "pyramidkv", "h2o", "keydiff", "knorm"):
        for check in (check_full_budget, check_future):
            rounds.run(check, kind)
        for _ in rounds.rounds:
            rounds.run(check_round, kind)
    return rounds.verdict()


if __name__ == "__main__":
    sys.exit(main())
