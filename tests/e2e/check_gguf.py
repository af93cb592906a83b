#!/usr/bin/env python3
"""GGUF against the `gguf` package: the same losses from a GGUF file and from a folder of the
weights that the package dequantises, for a small llama in every weight format, a qwen2 and a qwen3
of mixed formats and, with --model FILE, for a real one.

usage: check_gguf.py --bin BIN [--model FILE] [--keep DIR]     skips without numpy, gguf and h5py
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter, dequantize
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

DIM, HEADS, KV_HEADS, VOCAB, TOKENS = 256, 4, 2, 96, 64
# The size of scales that makes values about 0.05, and where a block has them.
FORMATS = {
    "F32": (0, []),
    "F16": (0, []),
    "BF16": (0, []),
    "Q8_0": (4e-4, [0]),
    "Q4_0": (6e-3, [0]),
    "Q4_1": (3e-3, [0, 2]),
    "Q5_0": (3e-3, [0]),
    "Q5_1": (2e-3, [0, 2]),
    "Q2_K": (1e-3, [80, 82]),
    "Q3_K": (4e-4, [108]),
    "Q4_K": (1e-4, [0, 2]),
    "Q5_K": (5e-5, [0, 2]),
    "Q6_K": (2e-5, [208]),
}
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def random_matrix(random, rows, cols, name):
    """A matrix as the format stores it."""
    kind = GGMLQuantizationType[name]
    values, size = GGML_QUANT_SIZES[kind]
    if values == 1:
        x = random.normal(0, 0.05, (rows, cols)).astype(np.float32)
        if name == "BF16":
            return (x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return x.astype(np.float16) if name == "F16" else x
    scale, places = FORMATS[name]
    blocks = random.integers(0, 256, (rows * cols // values, size), dtype=np.uint8)
    for at in places:
        numbers = random.normal(0, scale, len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = numbers.reshape(-1, 1).view(np.uint8)
    return blocks.reshape(rows, -1)


def write_gguf(path, formats, architecture="llama", head_dim=64):
    """A model of two layers, whose matrices have the formats in turn."""
    random = np.random.default_rng(3)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(DIM)
    writer.add_context_length(128)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture != "llama" else "gpt-2")
    writer.add_token_list([chr(0x100 + i) for i in range(VOCAB)])
    writer.add_token_merges([])
    q, kv = HEADS * head_dim, KV_HEADS * head_dim
    rows = dict(
        attn_q=q, attn_k=kv, attn_v=kv, attn_output=DIM, ffn_gate=DIM, ffn_up=DIM, ffn_down=DIM
    )
    vectors = dict(attn_norm=DIM, ffn_norm=DIM)
    if architecture == "qwen3":
        vectors |= dict(attn_q_norm=head_dim, attn_k_norm=head_dim)
    biases = dict(attn_q=q, attn_k=kv, attn_v=kv) if architecture == "qwen2" else {}
    count = 0

    def add(name, n, columns):
        nonlocal count
        kind = formats[count % len(formats)]
        matrix = random_matrix(random, n, columns, kind)
        writer.add_tensor(name, matrix, raw_dtype=GGMLQuantizationType[kind])
        count += 1

    add("token_embd.weight", VOCAB, DIM)
    for layer in range(2):
        for name, n in rows.items():
            add(f"blk.{layer}.{name}.weight", n, q if name == "attn_output" else DIM)
        for name, n in vectors.items():
            x = random.normal(1, 0.1, n).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", x)
        for name, n in biases.items():
            x = random.normal(0, 0.5, n).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.bias", x)
    writer.add_tensor("output_norm.weight", random.normal(1, 0.1, DIM).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def unpaired(w, heads):
    """Rows 2i + j of a head -> i + j * head_dim/2."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def write_folder(path, out):
    """The same model as a folder of float32."""
    reader = GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()

    def value(key, default=None):
        field = reader.fields.get(f"{architecture}.{key}")
        return field.contents() if field else default

    heads, kv_heads = value("attention.head_count"), value("attention.head_count_kv")
    tensors = {}
    for t in reader.tensors:
        w = np.ascontiguousarray(dequantize(t.data, t.tensor_type), np.float32)
        if t.name in OUTER:
            tensors[OUTER[t.name]] = w
            continue
        _, layer, name, kind = t.name.split(".")
        if architecture == "llama" and name in ("attn_q", "attn_k"):
            w = unpaired(w, heads if name == "attn_q" else kv_heads)
        tensors[f"model.layers.{layer}.{NAMES[name]}.{kind}"] = np.ascontiguousarray(w)
    header, at = {}, 0
    for name, w in tensors.items():
        header[name] = dict(dtype="F32", shape=list(w.shape), data_offsets=[at, at + w.nbytes])
        at += w.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(out)
    with open(f"{out}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for w in tensors.values():
            f.write(w.tobytes())
    vocab, dim = tensors["model.embed_tokens.weight"].shape
    config = dict(
        model_type=architecture,
        hidden_size=dim,
        head_dim=value("attention.key_length", dim // heads),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base", 10000.0),
        tie_word_embeddings="lm_head.weight" not in tensors,
    )
    with open(f"{out}/config.json", "w") as f:
        json.dump(config, f)
    return vocab


def losses(replay, model, ids, out):
    options = ["--policy", "full", "--protocol", "whole", "--backend", "cpu", "--out", out]
    command = [replay, "ppl", "--quiet", "--model", model, "--token-ids", ids, *options]
    subprocess.run(command, check=True, capture_output=True)
    with h5py.File(out) as f:
        return f["documents/000000/nll"][1:]


def check(replay, path, label, folder):
    vocab = write_folder(path, f"{folder}/{label}")
    ids = f"{folder}/{label}.npy"
    np.save(ids, np.random.default_rng(4).integers(0, vocab, TOKENS).astype("<u2"))
    a = losses(replay, path, ids, f"{folder}/{label}.gguf.h5")
    b = losses(replay, f"{folder}/{label}", ids, f"{folder}/{label}.folder.h5")
    nll, perplexity = np.abs(a - b).max() / np.abs(b).max(), abs(np.exp(a.mean() - b.mean()) - 1)
    good = np.isfinite(a).all() and nll < 1e-4 and perplexity < 1e-5
    verdict = "ok" if good else "FAILED"
    print(f"{verdict:7} {label:5} losses within {nll:.1e}, perplexity within {perplexity:.1e}")
    return bool(good)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", help="a GGUF file of a llama")
    parser.add_argument("--keep", help="leaves the files there")
    options = parser.parse_args()
    replay = os.path.join(options.bin, "freqkv-replay")
    mixed = ["Q5_K", "Q6_K", "Q3_K", "Q2_K", "Q8_0", "Q4_K", "Q5_1"]
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or made
        models = {name: ([name], "llama", 64) for name in FORMATS}
        models["qwen2"] = (mixed, "qwen2", 64)
        models["qwen3"] = (mixed[::-1], "qwen3", 128)
        good = 0
        for name, model in models.items():
            write_gguf(f"{folder}/{name}.gguf", *model)
            good += check(replay, f"{folder}/{name}.gguf", name, folder)
        if options.model:
            good += check(replay, options.model, "model", folder)
    total = len(models) + bool(options.model)
    print(f"gguf: {good} of {total} models equal to the folder of their dequantised weights")
    return good != total


if __name__ == "__main__":
    sys.exit(int(main()))
