"""A LLaMA checkpoint as one GGUF file, for llama.cpp. Needs numpy, gguf and safetensors.

    gguf_file.py FOLDER OUT.gguf [--dtype f32|f16]

FOLDER holds config.json and safetensors in float32 or bfloat16. The file has no vocabulary: the
benchmarks feed ids. Matrices are stored in the type asked for, norms in float32.
"""

import argparse
import json
import pathlib

import numpy as np
from gguf import GGUFWriter
from smollm2 import PER_LAYER, WHOLE

GGUF_NAMES = {theirs: ours for ours, theirs in WHOLE.items()}
GGUF_PARTS = {theirs: ours for ours, theirs in PER_LAYER.items()}
STORED = {"f32": (np.float32, 0), "f16": (np.float16, 1)}  # type, GGUF's name of it for a file


def gguf_name(name):
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_PARTS[part]}.{kind}"


def join_pairs(w, heads):
    """Rows of a rotary pair, half a head apart in Hugging Face, become neighbours."""
    halves = w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1])
    return halves.swapaxes(1, 2).reshape(w.shape)


def read_tensors(path):
    """Name and float32 array, one after another."""
    data = np.memmap(path, np.uint8, "r")
    size = int(data[:8].view("<u8")[0])
    for name, t in json.loads(bytes(data[8 : 8 + size])).items():
        if name == "__metadata__":
            continue
        start, end = t["data_offsets"]
        raw = data[8 + size + start : 8 + size + end]
        if t["dtype"] == "BF16":
            w = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            w = raw.view("<f4")
        yield name, w.reshape(t["shape"])


def main():
    parser = argparse.ArgumentParser(description="a LLaMA checkpoint as GGUF")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--dtype", choices=STORED, default="f16", help="default f16")
    a = parser.parse_args()
    c = json.loads((a.folder / "config.json").read_text())
    dtype, file_type = STORED[a.dtype]
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    w = GGUFWriter(a.out, "llama")
    w.add_file_type(file_type)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("none")
    for path in sorted(a.folder.glob("*.safetensors")):
        for name, x in read_tensors(path):
            if name.endswith("q_proj.weight"):
                x = join_pairs(x, heads)
            elif name.endswith("k_proj.weight"):
                x = join_pairs(x, kv_heads)
            w.add_tensor(gguf_name(name), np.ascontiguousarray(x, dtype if x.ndim > 1 else "f4"))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(a.out)


if __name__ == "__main__":
    main()
