#!/usr/bin/env python3
"""notebooks/freqkv.py: captures it writes are what the tools read, and what it cannot know it
refuses.

    check_freqkv_module.py --bin build/bin [--model data/litbank-1m] [--text data/the_tide_mill.txt]

Caches of transformers are played by classes with their attributes, of version 4 and 5: no package
is needed beyond numpy and h5py. Prints a line per subject and exits 1 if anything differs.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from types import SimpleNamespace

import h5py
import numpy as np
from checks import check, verdict
from numpy_model import read_safetensors

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "notebooks")
)
import freqkv  # noqa: E402


def refused(label, words, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except ValueError as e:
        check(label, words in str(e), f'says "{e}", expected "{words}" in it')
    else:
        check(label, False, "is accepted")


class Version4:
    """DynamicCache of transformers 4"""

    def __init__(self, pairs, seen):
        self.key_cache, self.value_cache = [k for k, _ in pairs], [v for _, v in pairs]
        self.get_seq_length = lambda: seen


class Version5:
    """of transformers 5, and late 4"""

    def __init__(self, pairs, seen):
        self.layers = [SimpleNamespace(keys=k, values=v) for k, v in pairs]
        self.get_seq_length = lambda: seen


class Output:
    """What a model of transformers 5.24 and later returns. Reading the old name warns there, here
    it fails.
    """

    def __init__(self, cache):
        self.cache = cache

    @property
    def past_key_values(self):
        raise FutureWarning("past_key_values is deprecated: use cache")


def rotate(keys, frequency):
    """Complex numbers of channel i and i + head_dim/2, turned by position times frequency."""
    half = keys.shape[-1] // 2
    turned = (keys[..., :half] + 1j * keys[..., half:]) * np.exp(
        1j * np.arange(keys.shape[-2])[:, None] * frequency
    )
    return np.concatenate([turned.real, turned.imag], -1)


def check_frequencies():
    plain = 1e4 ** (-np.arange(16) / 16)
    check("rope: default", np.allclose(freqkv.inverse_frequencies({"rope_theta": 1e4}, 32), plain))
    check(
        "rope: rope_parameters of an object",
        np.allclose(
            freqkv.inverse_frequencies(
                SimpleNamespace(
                    rope_parameters={"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0}
                ),
                32,
            ),
            plain / 4,
        ),
    )
    rope = {
        "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    wanted = []
    for f in plain:  # as Llama 3's reference code puts it, by wavelength
        wavelength = 2 * np.pi / f
        smooth = (256 / wavelength - 1) / 3
        wanted.append(
            f
            if wavelength < 64
            else f / 8
            if wavelength > 256
            else (1 - smooth) * f / 8 + smooth * f
        )
    check(
        "rope: llama3",
        np.allclose(
            freqkv.inverse_frequencies({"rope_theta": 1e4, "rope_scaling": rope}, 32), wanted
        ),
    )
    inner = rope.pop("original_max_position_embeddings")
    outer = {"rope_theta": 1e4, "rope_scaling": rope, "original_max_position_embeddings": inner}
    check(
        "rope: llama3 with the original context beside it",
        np.allclose(freqkv.inverse_frequencies(outer, 32), wanted),
    )
    refused(
        "rope: yarn is refused",
        "yarn",
        freqkv.inverse_frequencies,
        {"rope_scaling": {"rope_type": "yarn"}},
        32,
    )
    refused(
        "rope: a partly rotated head is refused",
        "partial_rotary_factor",
        freqkv.inverse_frequencies,
        {"partial_rotary_factor": 0.5},
        32,
    )


def of_layers(label, config, wanted, layers):
    found = freqkv.layer_frequencies(config, layers, 32)
    check(label, found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-12))


def check_layers():
    """Rotations that differ by layer, nested configs, and what is refused."""
    plain, fast, none = 1e6 ** (-np.arange(16) / 16), 1e4 ** (-np.arange(16) / 16), np.zeros(16)
    full, slow = "full_attention", "sliding_attention"
    nested = {
        "rope_parameters": {
            full: {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            slow: {"rope_type": "default", "rope_theta": 1e4},
        },
        "layer_types": [slow, slow, full, slow],
        "model_type": "gemma3_text",
        "max_position_embeddings": 77,
    }
    wanted = np.stack([fast, fast, plain / 8, fast])
    of_layers("layers: by type", nested, wanted, 4)
    of_layers("layers: in text_config", {"model_type": "gemma3", "text_config": nested}, wanted, 4)
    of_layers(
        "layers: in a text_config of objects",
        SimpleNamespace(text_config=SimpleNamespace(**nested)),
        wanted,
        4,
    )
    alike = SimpleNamespace(**nested, rope_scaling=nested["rope_parameters"])
    of_layers("layers: the same under both names", alike, wanted, 4)
    of_layers(
        "layers: rope_local_base_freq",
        {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4},
        np.stack([fast] * 5 + [plain] + [fast]),
        7,
    )
    of_layers(
        "layers: without a rotation",
        {"model_type": "smollm3", "rope_theta": 1e6, "no_rope_layers": [1, 0, 1]},
        np.stack([plain, none, plain]),
        3,
    )
    of_layers(
        "layers: every fourth without one",
        {"model_type": "smollm3", "rope_theta": 1e6},
        np.stack([plain, plain, plain, none]),
        4,
    )
    of_layers(
        "layers: defaults of Gemma 3",
        {"model_type": "gemma3_text"},
        np.stack([fast] * 5 + [plain] + [fast]),
        7,
    )
    of_layers(
        "layers: rope_scaling on top of rope_parameters",
        {**nested, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        np.stack([fast, fast, plain / 2, fast]),
        4,
    )
    refused(
        "layers: rope_parameters of no layer type are refused in Gemma 3",
        "expected those of full_attention",
        freqkv.layer_frequencies,
        {"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 1e6}},
        7,
        32,
    )
    of_layers(
        "layers: defaults of SmolLM3",
        {"model_type": "smollm3", "no_rope_layers": [1, 0]},
        np.stack([2e6 ** (-np.arange(16) / 16), none]),
        2,
    )
    of_layers("layers: defaults of LLaMA", {"model_type": "llama"}, fast, 2)
    refused(
        "rope: neither rope_theta nor model_type",
        "rope_theta: expected it",
        freqkv.layer_frequencies,
        {"max_position_embeddings": 64},
        2,
        32,
    )
    of_layers("layers: all alike", {"model_type": "llama", "rope_theta": 1e6}, plain, 4)
    for kind in ("dynamic", "yarn", "longrope", "mrope"):
        refused(
            f"rope: {kind} is refused with what to give",
            "inv_freq= [rotary_dim/2], or [layers, rotary_dim/2]",
            freqkv.layer_frequencies,
            {"rope_scaling": {"rope_type": kind}},
            2,
            32,
        )
    for model_type in ("gptj", "cohere", "glm", "gpt_neox", "chatglm", "deepseek_v3"):
        refused(
            f"rope: {model_type} is refused",
            f"found {model_type}; give inv_freq=",
            freqkv.layer_frequencies,
            {"model_type": model_type},
            2,
            32,
        )
    refused(
        "rope: a layer type without a rotation of its own",
        "expected those of sliding_attention",
        freqkv.layer_frequencies,
        {"rope_parameters": {full: {"rope_type": "default"}}, "layer_types": [full, slow]},
        2,
        32,
    )


def check_scores(work, random):
    """Scale, cap and windows of scores come from the config, and only where there are any."""
    layers, length, head_dim = 4, 12, 16
    pairs = list(zip(*random.standard_normal((2, layers, 1, length, head_dim))))
    gemma = {"model_type": "gemma2", "query_pre_attn_scalar": 64, "sliding_window": 9}
    sliding = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3}
    full, slow = "full_attention", "sliding_attention"
    for label, config, wanted in (
        ("llama", {"model_type": "llama", "sliding_window": 9}, (None, None, None)),
        ("gemma2", gemma, (0.125, 50, [9, 0, 9, 0])),
        ("gemma2 uncapped", gemma | {"attn_logit_softcapping": None}, (0.125, None, [9, 0, 9, 0])),
        (
            "gemma3",
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            (0.0625, None, [4096] * 4),
        ),
        ("mistral", {"model_type": "mistral"}, (None, None, [4096] * 4)),
        ("mistral of one kind", {"model_type": "mistral", "sliding_window": None}, (None,) * 3),
        ("mistral of an object", SimpleNamespace(model_type="mistral"), (None,) * 3),
        ("qwen2", {"model_type": "qwen2", "sliding_window": 5}, (None,) * 3),
        ("qwen3", {"model_type": "qwen3"} | sliding, (None, None, [0, 0, 0, 5])),
        (
            "qwen3 by type",
            {"model_type": "qwen3", "layer_types": [slow, full, slow, full]} | sliding,
            (None, None, [5, 0, 5, 0]),
        ),
        ("smollm3", {"model_type": "smollm3"} | sliding, (None, None, [0, 0, 0, 5])),
        ("phi3", {"model_type": "phi3", "sliding_window": 7}, (None, None, [7] * 4)),
        ("granite", {"model_type": "granite", "attention_multiplier": 0.5}, (0.5, None, None)),
    ):
        path = os.path.join(work, "scores.h5")
        freqkv.write_capture(path, pairs, rotated=True, config=config)
        attributes, _ = freqkv.load_capture(path)
        found = [
            attributes.get(name)
            for name in ("attention_scale", "attention_softcap", "layer_window")
        ]
        found = [x.tolist() if isinstance(x, np.ndarray) else x for x in found]
        check(f"scores of {label}", tuple(found) == wanted, f"{found}")
    refused(
        "attention in chunks",
        "found chunked_attention",
        freqkv.write_capture,
        os.path.join(work, "scores.h5"),
        pairs,
        rotated=True,
        config={"model_type": "mistral", "layer_types": ["chunked_attention"] * layers},
    )


def check_phi3(work):
    """Phi-3's fused projection, a head that turns in part, and longrope, against the keys that
    transformers has before and after RoPE (tests/golden/make_golden.py).
    """
    golden = pathlib.Path(__file__).resolve().parents[1] / "golden"
    path = os.path.join(work, "phi3.h5")
    for name in ("phi3", "phi3-partial"):
        config = json.loads((golden / name / "config.json").read_text())
        found = read_safetensors(golden / name / "expected" / "model.safetensors")
        layers = range(config["num_hidden_layers"])
        rotated, key, value = (
            [found[f"{state}.{i}"].transpose(1, 0, 2) for i in layers]
            for state in ("key_rotated", "key", "value")
        )
        freqkv.write_capture(path, zip(rotated, value), rotated=True, config=config, dtype="f32")
        off = np.abs(freqkv.load_capture(path)[1][0]["key"] - key).max()
        check(f"{name}: the rotation is undone", off < 1e-5, f"differs by {off}")


def check_longrope(work, random):
    """Both lists of divisors, with the factor that the config says or leaves out."""
    length, head_dim, theta = 30, 16, 1e4
    key, value = random.standard_normal((2, 2, 1, length, head_dim))
    short, long = random.uniform(1, 2, 6), random.uniform(2, 9, 6)
    lists = {"short_factor": short.tolist(), "long_factor": long.tolist()}
    sizes = {"max_position_embeddings": 320, "partial_rotary_factor": 0.75}
    plain = theta ** (-np.arange(6) / 6)
    path = os.path.join(work, "longrope.h5")
    for original, divisors in ((40, short), (30, short), (29, long)):
        inside = {"original_max_position_embeddings": original}
        silent = np.sqrt(1 + np.log(320 / original) / np.log(original))
        for label, config, factor in (
            (4, {"rope_scaling": {"type": "longrope"} | lists} | inside, silent),
            ("by its old name", {"rope_scaling": {"type": "su"} | lists} | inside, silent),
            (5, {"rope_parameters": {"rope_type": "longrope"} | lists | inside}, silent),
            (
                "said",
                {"rope_parameters": {"rope_type": "longrope", "attention_factor": 1.5} | lists}
                | inside,
                1.5,
            ),
        ):
            rotated = key.copy()
            rotated[..., :12] = factor * rotate(key[..., :12], plain / divisors)
            config = {"model_type": "phi3", "rope_theta": theta} | sizes | config
            freqkv.write_capture(
                path, list(zip(rotated, value)), rotated=True, config=config, dtype="f32"
            )
            attributes, recordings = freqkv.load_capture(path)
            off = np.abs(recordings[0]["key"] - key).max()
            good = off < 1e-6 and abs(attributes["attention_factor"] - factor) < 1e-12
            check(f"longrope {label} from {original}", good, f"differs by {off}")


def check_own_frequencies(work, random):
    """inv_freq of a part of a head, per layer, with a factor on cos and sin."""
    layers, heads, length, head_dim, turned = 3, 2, 30, 16, 12
    key, value = random.standard_normal((2, layers, heads, length, head_dim))
    inv_freq = random.uniform(0, 1, (layers, turned // 2))
    inv_freq[1] = 0
    factors = np.array([1.25, 1, 1.25])
    rotated = key.copy()
    for layer in range(layers):
        part = key[layer, ..., :turned]
        rotated[layer, ..., :turned] = factors[layer] * rotate(part, inv_freq[layer])
    path = os.path.join(work, "own.h5")
    freqkv.write_capture(
        path,
        list(zip(rotated, value)),
        rotated=True,
        inv_freq=inv_freq,
        attention_factor=factors,
        dtype="f32",
    )
    attributes, recordings = freqkv.load_capture(path)
    check("own inv_freq: undone", np.abs(recordings[0]["key"] - key).max() < 1e-6)
    rows = np.zeros((layers, head_dim // 2))
    rows[:, : turned // 2] = inv_freq
    check(
        "own inv_freq: stored per layer",
        np.array_equal(attributes["inv_freq"], rows)
        and attributes["rotary_dim"] == turned
        and np.array_equal(attributes["attention_factor"], factors),
    )
    freqkv.run("analyze", "spectrum", path, "--length", 16, "--out", path + "-findings")
    for words, given in (
        ("expected [k] or [3, k]", np.ones((2, 8))),
        ("k at most 8", np.ones(9)),
        ("finite", np.full(8, np.nan)),
    ):
        refused(
            f"own inv_freq: {words}",
            words,
            freqkv.write_capture,
            path,
            list(zip(rotated, value)),
            rotated=True,
            inv_freq=given,
        )


def check_writing(work, random):
    layers, batch, heads, length, head_dim = 3, 2, 2, 40, 16
    key, value = random.standard_normal((2, layers, batch, heads, length, head_dim))
    config = {"rope_theta": 500.0, "max_position_embeddings": 64}
    frequency = 500.0 ** (-np.arange(8) / 8)
    pairs = list(zip(rotate(key, frequency), value))
    path = os.path.join(work, "mine.h5")
    for cache in (Version4(pairs, length), Version5(pairs, length)):
        name = type(cache).__name__
        freqkv.write_capture(
            path,
            cache,
            config=config,
            dtype="f32",
            tokens=random.integers(100, size=(batch, length)),
        )
        attributes, recordings = freqkv.load_capture(path)
        furthest = max(np.abs(r["key"] - key[:, b]).max() for b, r in enumerate(recordings))
        check(
            f"{name}: the rotation is undone",
            len(recordings) == batch and furthest < 1e-6,
            f"differs by {furthest}",
        )
        check(
            f"{name}: values stay",
            all(
                np.array_equal(r["value", 1], value[1, b].astype(np.float32))
                for b, r in enumerate(recordings)
            ),
        )
        freqkv.write_capture(path, cache)
        check(
            f"{name}: without a config keys are key_rotated",
            freqkv.load_capture(path)[1][0].states == ["value", "key_rotated"],
        )
    check_outputs(path, pairs, length)
    padded = [tuple(np.pad(x, ((0, 0), (0, 0), (0, 9), (0, 0))) for x in pair) for pair in pairs]
    freqkv.write_capture(path, Version5(padded, length))
    check(
        "a static cache is cut to what it has seen",
        freqkv.load_capture(path)[1][0]["value"].shape[2] == length,
    )
    refused(
        "a cache that dropped tokens",
        "dropped",
        freqkv.write_capture,
        path,
        Version5(pairs, length + 1),
    )
    refused(
        "arrays that do not say whether they are rotated",
        "rotated",
        freqkv.write_capture,
        path,
        pairs,
    )
    refused(
        "layers of different shape",
        "layer 1: keys",
        freqkv.write_capture,
        path,
        [pairs[0], (pairs[1][0][:, :1], pairs[1][1])],
        rotated=False,
    )
    refused(
        "tokens of another length",
        "tokens",
        freqkv.write_capture,
        path,
        pairs,
        rotated=False,
        tokens=np.zeros((batch, length + 1)),
    )
    loud = [(1e6 * pairs[0][0], pairs[0][1])]
    refused("what float16 cannot hold", "f16", freqkv.write_capture, path, loud, rotated=False)
    freqkv.write_capture(path, loud, rotated=False, dtype="f32")
    refused(
        "another model in the same file",
        "n_layers",
        freqkv.write_capture,
        path,
        pairs,
        rotated=False,
        append=True,
    )
    with h5py.File(path, "w") as f:
        f["documents/0/key"] = (value[:, 0].astype(np.float32).view(np.uint32) >> 16).astype(
            np.uint16
        )
    check(
        "bf16 is read",
        np.allclose(freqkv.load_capture(path)[1][0]["key"], value[:, 0], rtol=2**-7, atol=1e-38),
    )


def check_outputs(path, pairs, length):
    """What a model returned is taken for its cache."""
    freqkv.write_capture(path, Version5(pairs, length))
    wanted = freqkv.load_capture(path)[1][0]["key_rotated"]
    old = SimpleNamespace(past_key_values=Version4(pairs, length))
    for name, output in (("cache", Output(Version5(pairs, length))), ("past_key_values", old)):
        freqkv.write_capture(path, output)
        found = freqkv.load_capture(path)[1][0]["key_rotated"]
        check(f"a model's output with {name}", np.array_equal(found, wanted))
    unused = Version5([(None, None)], 0)
    refused("a cache without tokens", "no token", freqkv.write_capture, path, unused)


class Model:
    """of transformers: parameters by name, in the order of its layers"""

    def __init__(self, weights):
        self.weights = weights

    def named_parameters(self):
        yield "model.embed_tokens.weight", np.zeros((5, 5))
        for layer, w in enumerate(self.weights):
            yield f"model.layers.{layer}.self_attn.o_proj.weight", w


def check_projection(work, random):
    """What a head's columns of o_proj make of the length of a vector is what /output_gram says."""
    layers, kv_heads, heads, length, head_dim, hidden = 2, 2, 6, 30, 4, 11
    pairs = list(random.standard_normal((layers, 2, kv_heads, length, head_dim)))
    weights = list(random.standard_normal((layers, hidden, heads * head_dim)))
    d = random.standard_normal((heads, head_dim))
    path = os.path.join(work, "projection.h5")
    for kind, given in (("arrays", weights), ("a model", Model(weights))):
        freqkv.write_capture(path, pairs, rotated=False, output_projection=given)
        with h5py.File(path) as f:
            gram, all_heads = f["output_gram"][:], f.attrs["n_heads"]
        found = np.einsum("hc,lhcd,hd->lh", d, gram, d)
        wanted = [
            [np.sum((w[:, h * head_dim : (h + 1) * head_dim] @ d[h]) ** 2) for h in range(heads)]
            for w in weights
        ]
        check(
            f"output projection of {kind}",
            gram.dtype == np.float32
            and all_heads == heads
            and np.allclose(found, wanted, rtol=1e-5),
        )
    freqkv.write_capture(path, pairs, rotated=False, append=True)  # it is there already
    freqkv.write_capture(path, pairs, rotated=False, append=True, output_projection=weights)
    freqkv.run("analyze", "spectrum", path, "--length", 16, "--out", path + "-findings")
    for words, given in (
        ("expected that of the recordings before", [2 * w for w in weights]),
        ("expected 2, one per layer, found 1", weights[:1]),
        ("layer 1: expected [hidden, heads * 4]", [weights[0], weights[1][:, 1:]]),
        ("expected finite", [weights[0], weights[1] * np.nan]),
        ("as many heads", [weights[0], weights[1][:, : kv_heads * head_dim]]),
    ):
        refused(
            f"output projection: {words}",
            words,
            freqkv.write_capture,
            path,
            pairs,
            rotated=False,
            append=True,
            output_projection=given,
        )


def check_tools(work, args):
    """A capture read, written again and analyzed gives the same spectra; a run's rows give its
    mean.
    """
    ours, copy = os.path.join(work, "ours"), os.path.join(work, "copy.h5")
    freqkv.run(
        "capture", "--model", args.model, "--text", args.text, "--dtype", "f32", "--out", ours
    )
    attributes, recordings = freqkv.load_capture(ours)
    for i, r in enumerate(recordings):
        freqkv.write_capture(
            copy,
            list(zip(r["key"], r["value"])),
            rotated=False,
            trained_context=attributes["trained_context"],
            dtype="f32",
            append=i > 0,
        )
    results = []
    for path in (ours, copy):
        freqkv.run("analyze", "spectrum", path, "--null", "none", "--out", path + "-findings")
        results.append(freqkv.load_results(path + "-findings")["spectrum"])
    # documents weigh alike: ours are parts of one text, the copy's are texts of their own, of one
    # segment each
    check(
        "spectra of a written capture",
        all(
            np.allclose(results[0][s]["power"], results[1][s]["power"], rtol=1e-6)
            for s in ("key", "value")
        ),
    )
    run = os.path.join(work, "run.h5")
    for protocol in ("whole", "stride:512"):
        found = freqkv.run(
            "replay",
            "ppl",
            "--model",
            args.model,
            "--text",
            args.text,
            "--tokens",
            1024,
            "--protocol",
            protocol,
            "--policy",
            "freqkv",
            "--window",
            256,
            "--baseline",
            "full",
            "--out",
            run,
        )
        rows = freqkv.load_run(run)
        means = [float(np.mean(np.asarray(rows[c], float))) for c in ("nll", "delta_nll", "kl")]
        wanted = [found["mean_nll"], found["baseline"]["delta_nll"], found["baseline"]["kl"]]
        check(
            f"rows of a run, {protocol}",
            len(rows["nll"]) == found["tokens_scored"] and np.allclose(means, wanted, rtol=1e-5),
            f"{means}, expected {wanted}",
        )
        os.remove(run)
    probe = os.path.join(work, "probe.h5")
    found = freqkv.run(
        "replay",
        "probe",
        "--model",
        args.model,
        "--text",
        args.text,
        "--prefix",
        256,
        "--score",
        64,
        "--freqkv",
        0.5,
        "--bands",
        2,
        "--out",
        probe,
    )
    read = freqkv.load_probe(probe)
    check(
        "damage of a probe",
        list(read.changes["label"]) == [c["label"] for c in found["changes"]]
        and np.allclose(
            read.damage.mean((0, 2)), [c["delta_nll"] for c in found["changes"]], atol=1e-9
        ),
    )


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--bin", required=True)
    p.add_argument("--model", default="data/litbank-1m")
    p.add_argument("--text", default="data/the_tide_mill.txt")
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    args = p.parse_args()
    print("seed", args.seed)
    os.environ["FREQKV_BIN"] = args.bin
    check_frequencies()
    check_layers()
    with tempfile.TemporaryDirectory() as work:
        check_writing(work, np.random.default_rng(args.seed))
        check_scores(work, np.random.default_rng(args.seed))
        check_phi3(work)
        check_longrope(work, np.random.default_rng(args.seed))
        check_own_frequencies(work, np.random.default_rng(args.seed))
        check_projection(work, np.random.default_rng(args.seed))
        check_tools(work, args)
    sys.exit(verdict("module"))


if __name__ == "__main__":
    main()
