#!/usr/bin/env python3
"""Small GGUF files for fuzz_gguf: a llama with block formats, a qwen2; both kinds of tokenizers.

usage: make_gguf_seeds.py OUT          needs numpy and gguf
"""

import os
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quantize

DIM, HIDDEN, HEADS = 32, 32, 2
BYTES = [f"<0x{b:02X}>" for b in (0x09, 0x0A, 0x27, 0xE4, 0xB8, 0xAD)]
PIECES = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁a", "aa", "  ", "[PAD]"]
TOKENS = ["<s>", "Ġ", "a", "b", "ab", "Ġa", "aa", "Ċ", "1", "  ", "[PAD]"]
CONTROL, USER, UNUSED, BYTE = 3, 4, 5, 6


def sentencepiece(writer):
    writer.add_tokenizer_model("llama")
    writer.add_token_list(PIECES + BYTES)
    writer.add_token_scores(
        [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -1.5, -0.5, -0.5, 0.0, 0.0] + [0.0] * len(BYTES)
    )
    writer.add_token_types(
        [2, CONTROL, CONTROL, 1, 1, 1, 1, 1, 1, USER, UNUSED] + [BYTE] * len(BYTES)
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    return len(PIECES) + len(BYTES)


def bytes_bpe(pre):
    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([CONTROL, 1, 1, 1, 1, 1, 1, 1, 1, USER, UNUSED])
        writer.add_token_merges(["a b", "Ġ a", "a a"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        writer.add_add_bos_token(True)
        return len(TOKENS)

    return write


def model(path, architecture, kind, tokenizer, biases, tied):
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
    vocab = tokenizer(writer)

    def add(name, *shape):
        x = random.normal(size=shape).astype(np.float32)
        if len(shape) == 2:
            writer.add_tensor(name, quantize(x, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, x)

    add("token_embd.weight", vocab, DIM)
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
        add("output.weight", vocab, DIM)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


out = sys.argv[1]
os.makedirs(out, exist_ok=True)
model(f"{out}/llama_q8_0", "llama", Type.Q8_0, sentencepiece, False, True)
model(f"{out}/llama_q4_0", "llama", Type.Q4_0, bytes_bpe("llama-bpe"), False, False)
model(f"{out}/qwen2_q5_1", "qwen2", Type.Q5_1, bytes_bpe("qwen2"), True, True)
