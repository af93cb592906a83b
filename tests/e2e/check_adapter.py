#!/usr/bin/env python3
"""LoRA adapters of PEFT, `--adapter`: the same losses as a folder of weights merged by NumPy, as
PEFT itself where it is installed, and on a GGUF base where `gguf` is; files say which adapter they
were made with and are not joined across it; what does not fit is refused.

    check_adapter.py --bin BIN        skips without numpy and h5py
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
BASE = GOLDEN / "llama-mha"
PREFIX = "base_model.model."
failures = 0


def that(label, good, detail=""):
    global failures
    failures += not good
    print(f"{'ok' if good else 'FAILED':7} {label}{'' if good else f': {detail}'}")


def read_tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[slice(*info["data_offsets"])], "<f4").reshape(info["shape"])
        for name, info in header.items()
    }


def write_tensors(path, tensors):
    header, at = {}, 0
    for name, w in tensors.items():
        header[name] = dict(dtype="F32", shape=list(w.shape), data_offsets=[at, at + w.nbytes])
        at += w.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for w in tensors.values():
            f.write(np.ascontiguousarray(w, "<f4").tobytes())


def write_model(folder, tensors, **fields):
    folder.mkdir(parents=True)
    config = json.loads((BASE / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def write_adapter(folder, tensors, **fields):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = dict(peft_type="LORA", r=3, lora_alpha=6, target_modules=["q_proj"]) | fields
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_tensors(folder / "adapter_model.safetensors", tensors)
    return folder


def run(tool, *arguments):
    command = [os.path.join(options.bin, tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def losses(model, ids, adapter=None, out=None):
    """nll of all tokens but the first; what is printed to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        out = out or os.path.join(folder, "run.h5")
        with_adapter = ["--adapter", adapter] if adapter else []
        fixed = ["--policy", "full", "--protocol", "whole", "--backend", "cpu", "--out", out]
        ran = run(
            "freqkv-replay", "ppl", "--model", model, "--token-ids", ids, *with_adapter, *fixed
        )
        if ran.returncode:
            return None, ran.stderr
        with h5py.File(out) as f:
            return f["documents/000000/nll"][1:], ran.stderr


def same(label, a, b, most=3e-5):
    if a[0] is None or b[0] is None:
        return that(label, False, a[1] + b[1])
    worst = np.abs(a[0] - b[0]).max()
    that(f"{label} ({worst:.1e})", worst < most, worst)


class Made:
    """A base, an adapter of every matrix, and both merged."""

    def __init__(self, random):
        self.base = read_tensors(BASE / "model.safetensors")
        self.factors, self.merged = {}, dict(self.base)
        for name, w in self.base.items():
            if w.ndim != 2 or not name.endswith("_proj.weight"):
                continue
            b, a = (random.normal(0, 0.2, s).astype("f4") for s in [(len(w), 3), (3, w.shape[1])])
            module = name.removesuffix(".weight")
            self.factors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
            self.merged[name] = w + np.float32(2) * (b @ a)

    def named(self, rename):
        return {rename(name): w for name, w in self.factors.items()}


def check_names(folder, made, ids):
    """Every spelling of the same adapter is that adapter."""
    want = losses(write_model(folder / "merged", made.merged), ids)
    spellings = {
        "PEFT": lambda n: PREFIX + n,
        "no prefix": lambda n: n,
        "a bare model": lambda n: PREFIX + n.removeprefix("model."),
        "the adapter's name": lambda n: PREFIX + n.replace(".weight", ".default.weight"),
    }
    for label, rename in spellings.items():
        for fields in (dict(target_modules="all-linear"), dict(target_modules=None)):
            adapter = write_adapter(folder / "a", made.named(rename), **fields)
            what = "all-linear" if fields["target_modules"] else "no targets"
            same(f"named by {label}, {what}", losses(BASE, ids, adapter), want)
    plain = losses(BASE, ids)
    that("it changes losses", np.abs(plain[0] - want[0]).max() > 0.1)
    return write_adapter(
        folder / "lora", made.named(spellings["PEFT"]), target_modules="all-linear"
    )


def check_fused(folder, made, ids):
    """qkv_proj and gate_up_proj: the rows of several roles, of a base that has them apart or
    fused."""
    random = np.random.default_rng(5)
    fused = {
        "self_attn.qkv_proj": [f"self_attn.{x}_proj" for x in "qkv"],
        "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
    }
    merged, joined, factors = dict(made.base), dict(made.base), {}
    for layer in range(2):
        for name, parts in fused.items():
            parts = [f"model.layers.{layer}.{part}.weight" for part in parts]
            whole = np.concatenate([made.base[part] for part in parts])
            a = random.normal(0, 0.2, (3, whole.shape[1])).astype("f4")
            b = random.normal(0, 0.2, (len(whole), 3)).astype("f4")
            cuts = np.cumsum([len(made.base[part]) for part in parts])[:-1]
            merged |= dict(zip(parts, np.split(whole + 2 * (b @ a), cuts)))
            for part in parts:
                del joined[part]
            joined[f"model.layers.{layer}.{name}.weight"] = whole
            module = f"{PREFIX}model.layers.{layer}.{name}"
            factors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    adapter = write_adapter(folder / "f", factors, target_modules=["qkv_proj", "gate_up_proj"])
    want = losses(write_model(folder / "unfused", merged), ids)
    same("fused factors, base apart", losses(BASE, ids, adapter), want)
    same("fused factors and base", losses(write_model(folder / "j", joined), ids, adapter), want)


def check_whole(folder, made, ids):
    """LongLoRA: embedding and norms beside the adapter, the embedding with one row more."""
    random = np.random.default_rng(6)
    names = [n for n in made.base if "norm" in n] + ["model.embed_tokens.weight"]
    tuned = {
        n: made.base[n] + random.normal(0, 0.1, made.base[n].shape).astype("f4") for n in names
    }
    want = losses(write_model(folder / "tuned", made.merged | tuned), ids)
    embedding = tuned["model.embed_tokens.weight"]
    tuned["model.embed_tokens.weight"] = np.concatenate([embedding, embedding[:1]])
    adapter = write_adapter(
        folder / "w", made.named(lambda n: PREFIX + n), target_modules="all-linear"
    )
    write_tensors(adapter / "trainable_params.safetensors", tuned)
    found = losses(BASE, ids, adapter)
    same("LongLoRA's trainable_params", found, want)
    that("its row more is noted", "1 row" in found[1], found[1])
    head = made.base["lm_head.weight"]
    tuned["lm_head.weight"] = np.concatenate([head, head[:1]])
    write_tensors(adapter / "trainable_params.safetensors", tuned)
    grown = write_model(folder / "grown", made.merged | tuned, vocab_size=len(head) + 1)
    same("a vocabulary that grew", losses(BASE, ids, adapter), losses(grown, ids))


def check_family_norms(folder, ids):
    """Norms that an adapter brings are named and stored as the base's family does it: in Gemma 2
    post_attention_layernorm follows attention, and weights are less one."""
    base = GOLDEN / "gemma2"
    random, merged = np.random.default_rng(7), read_tensors(base / "model.safetensors")
    saved = ["post_attention_layernorm", "pre_feedforward_layernorm", "input_layernorm"]
    names = [n for n in merged if n.split(".")[-2] in saved]
    tuned = {n: random.normal(0, 0.3, merged[n].shape).astype("f4") for n in names}
    folder.joinpath("gemma2").mkdir()
    shutil.copy(base / "config.json", folder / "gemma2")
    write_tensors(folder / "gemma2" / "model.safetensors", merged | tuned)
    tensors = {PREFIX + n: w for n, w in tuned.items()}
    tensors |= {  # a factor of zeros, because an adapter without factors is none
        f"{PREFIX}model.layers.0.self_attn.q_proj.lora_{x}.weight": np.zeros(shape, "f4")
        for x, shape in factor_shapes(merged["model.layers.0.self_attn.q_proj.weight"]).items()
    }
    fields = dict(modules_to_save=saved, target_modules=["q_proj"], layers_to_transform=[0])
    adapter = write_adapter(folder / "n", tensors, **fields)
    found, want = losses(base, ids, adapter), losses(folder / "gemma2", ids)
    same("norms of a Gemma 2", found, want)
    that("which change losses", np.abs(want[0] - losses(base, ids)[0]).max() > 0.1)


def factor_shapes(w):
    return {"A": (3, w.shape[1]), "B": (len(w), 3)}


def check_gguf(folder, made, ids, adapter):
    """On a GGUF base, whose queries and keys are stored in pairs."""
    try:
        from gguf import GGMLQuantizationType as Type
        from gguf import GGUFWriter, dequantize, quantize
    except ImportError as error:
        return print(f"no GGUF base: {error}")
    config = json.loads((BASE / "config.json").read_text())
    heads = config["num_attention_heads"]
    path = folder / "base.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    outer = dict(embed_tokens="token_embd", norm="output_norm", lm_head="output")
    inner = dict(
        input_layernorm="attn_norm",
        post_attention_layernorm="ffn_norm",
        q_proj="attn_q",
        k_proj="attn_k",
        v_proj="attn_v",
        o_proj="attn_output",
        gate_proj="ffn_gate",
        up_proj="ffn_up",
        down_proj="ffn_down",
    )
    merged = {}
    for name, w in made.base.items():
        parts = name.split(".")
        delta = made.merged[name] - w
        quantised = w.ndim == 2 and w.shape[1] % 32 == 0
        if parts[-2] in ("q_proj", "k_proj"):
            paired = w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        else:
            paired = w
        stored = quantize(paired, Type.Q8_0) if quantised else paired
        back = dequantize(stored, Type.Q8_0) if quantised else paired
        if parts[-2] in ("q_proj", "k_proj"):
            back = back.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        merged[name] = back + delta
        short = f"blk.{parts[2]}.{inner[parts[-2]]}" if "layers" in parts else outer[parts[-2]]
        writer.add_tensor(short + ".weight", stored, raw_dtype=Type.Q8_0 if quantised else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    want = losses(write_model(folder / "dequantised", merged), ids)
    same("on a GGUF base of Q8_0", losses(path, ids, adapter), want)


def check_peft(folder, ids):
    sys.path.insert(0, str(GOLDEN))
    try:
        import torch
        from make_adapters import CASES, make
    except ImportError as error:
        return print(f"no PEFT: {error}")
    for name in CASES:
        base, tuned, tokens = make(name, folder / name)
        with torch.no_grad():
            logits = tuned(tokens[None]).logits[0].double()
        nll = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none").numpy()
        np.save(ids, tokens.numpy().astype("<u2"))
        same(f"PEFT: {name}", losses(GOLDEN / base, ids, folder / name), (nll, ""))


def check_files(folder, ids, adapter):
    """What is made with an adapter says so, and is not taken for what is made without."""
    out = folder / "run.h5"
    losses(BASE, ids, adapter, out)
    with h5py.File(out) as f:
        run_attributes = dict(f.attrs)
    that("a run names its adapter", run_attributes["adapter"] == "lora", run_attributes["adapter"])
    that("and its sha256", len(run_attributes["adapter_sha256"]) == 64)
    that("and both in the model's name", run_attributes["model_name"] == "llama-mha+lora")
    capture = folder / "capture"
    made = ["freqkv-capture", "--quiet", "--model", BASE, "--token-ids", ids, "--out", capture]
    run(*made, "--adapter", adapter)
    with h5py.File(capture / "capture.h5") as f:
        attributes = dict(f.attrs)
    agree = [
        attributes[k] == run_attributes[k] for k in ("model_sha256", "adapter_sha256", "adapter")
    ]
    that("a capture says the same", all(agree), agree)
    again = run(*made, "--resume")
    that("it is not resumed without", "adapter_sha256" in again.stderr, again.stderr)
    sweep = ["--policy", "freqkv", "--window", "16", "--sweep", "gamma=0.5:0.5:0.5"]
    common = ["freqkv-replay", "ppl", "--quiet", "--model", BASE, "--token-ids", ids, *sweep]
    common += ["--protocol", "whole", "--out", folder / "sweep"]
    first, second = run(*common, "--adapter", adapter), run(*common)
    that("a sweep is made with it", first.returncode == 0, first.stderr)
    that("and not continued without", "model_sha256" in second.stderr, second.stderr)
    probe = ["--prefix", "16", "--score", "4", "--bands", "2", "--out", folder / "probe.h5"]
    ran = run("freqkv-replay", "probe", "--quiet", "--model", BASE, "--token-ids", ids, *probe)
    that("a probe is made", ran.returncode == 0, ran.stderr)
    linked = run("freqkv-analyze", "link", "--capture", capture, "--probes", folder / "probe.h5")
    linked = run(
        "freqkv-analyze",
        *("link", "--capture", capture, "--probes", folder / "probe.h5", "--out", folder / "link"),
    )
    that("and not linked across it", "expected one model" in linked.stderr, linked.stderr)


def check_refusals(folder, made, ids):
    rename = made.named(lambda n: PREFIX + n)
    one = f"{PREFIX}model.layers.0.self_attn.q_proj."
    two = {k: v for k, v in rename.items() if "q_proj" in k}

    def refused(label, words, tensors=two, **fields):
        adapter = write_adapter(folder / "r", tensors, **fields)
        found = losses(BASE, ids, adapter)
        good = found[0] is None and all(word in found[1] for word in words)
        that(f"refused: {label}", good, found[1])

    for kind in ("IA3", "LOHA", "PREFIX_TUNING", "ADALORA"):
        refused(kind, ["peft_type", kind, "merge_and_unload"], peft_type=kind)
    refused("no type", ["peft_type", "found nothing"], peft_type=None)
    for field in ("use_dora", "use_qalora", "layer_replication", "trainable_token_indices"):
        refused(field, [field], **{field: [1]})
    refused(
        "PiSSA",
        ["pissa", "path_initial_model_for_weight_conversion"],
        init_lora_weights="pissa_niter_4",
    )
    refused("a rank other than the config's", ["lora_A", "expected [4, 32], found [3, 32]"], r=4)
    refused(
        "shape",
        ["[32, 3]", "[31, 3]"],
        two | {one + "lora_B.weight": two[one + "lora_B.weight"][:31]},
    )
    refused(
        "A without B",
        ["both factors"],
        {k: v for k, v in two.items() if k != one + "lora_B.weight"},
    )
    refused(
        "no module of the base",
        ["score.weight", "left out"],
        two | {"score.weight": np.zeros((2, 32), "f4")},
    )
    refused(
        "no such layer",
        ["layers.7"],
        {k.replace("layers.1", "layers.7"): v for k, v in two.items()},
    )
    refused("not targeted", ["q_proj", "target_modules"], target_modules=["v_proj"])
    refused(
        "targeted and missing", ["v_proj", "found nothing"], target_modules=["q_proj", "v_proj"]
    )
    refused("saved and missing", ["model.norm", "modules_to_save"], modules_to_save=["norm"])
    refused(
        "a bias that the base has not",
        ["q_proj.bias"],
        two | {one + "bias": np.zeros(32, "f4")},
        bias="all",
    )
    refused("a bad pattern", ["rank_pattern", "(q"], rank_pattern={"(q": 2})
    refused(
        "a pattern without end",
        ["target_modules", "limit"],
        target_modules="(m|mo|[a-z._0-9]+)*q_pro[a-i]",
    )
    nan = two[one + "lora_A.weight"].copy()
    nan[1, 2] = np.nan
    refused("NaN", [one + "lora_A.weight", "NaN at [1, 2]"], two | {one + "lora_A.weight": nan})
    refused("no tensors", ["expected tensors"], {})
    both = two | {k.replace(".weight", ".other.weight"): v for k, v in two.items()}
    refused("two adapters in a file", ["one adapter", ".other"], both)


parser = argparse.ArgumentParser()
parser.add_argument("--bin", required=True)
options = parser.parse_args()
with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    ids = folder / "ids.npy"
    np.save(ids, np.random.default_rng(1).integers(0, 96, 48).astype("<u2"))
    made = Made(np.random.default_rng(2))
    adapter = check_names(folder, made, ids)
    check_fused(folder, made, ids)
    check_whole(folder, made, ids)
    check_family_norms(folder, ids)
    check_gguf(folder, made, ids, adapter)
    check_files(folder, ids, adapter)
    check_refusals(folder, made, ids)
    check_peft(folder, ids)
print(f"adapters: {failures} failures")
sys.exit(failures > 0)
