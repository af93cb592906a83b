#!/usr/bin/env python3
"""Small GGUF files for fuzz_gguf: a llama with block formats, a qwen2, a file of odd metadata.

usage: make_gguf_seeds.py OUT          needs numpy and gguf
"""

import os
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quantize

DIM, HIDDEN, HEADS, VOCAB = 32, 32, 2, 4


def model(path, architecture, kind, biases, tied):
    random = np.random.default_rng(1)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_context_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list(["a", "b", "c", "d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name, *shape):
        x = random.normal(size=shape).astype(np.float32)
        if len(shape) == 2:
            writer.add_tensor(name, quantize(x, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, x)

    add("token_embd.weight", VOCAB, DIM)
    for name, shape in dict(
        attn_norm=(DIM,),
        attn_q=(DIM, DIM),
        attn_k=(16, DIM),
        attn_v=(16, DIM),
        attn_output=(DIM, DIM),
        ffn_norm=(DIM,),
        ffn_gate=(HIDDEN, DIM),
        ffn_up=(HIDDEN, DIM),
        ffn_down=(DIM, HIDDEN),
    ).items():
        add(f"blk.0.{name}.weight", *shape)
    if biases:
        for name, n in dict(attn_q=DIM, attn_k=16, attn_v=16).items():
            add(f"blk.0.{name}.bias", n)
    add("output_norm.weight", DIM)
    if not tied:
        add("output.weight", VOCAB, DIM)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


out = sys.argv[1]
os.makedirs(out, exist_ok=True)
model(f"{out}/llama_q8_0", "llama", Type.Q8_0, False, True)
model(f"{out}/llama_q4_0", "llama", Type.Q4_0, False, False)
model(f"{out}/qwen2_q5_1", "qwen2", Type.Q5_1, True, True)
