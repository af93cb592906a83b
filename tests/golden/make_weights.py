#!/usr/bin/env python3
"""Blocks of every ggml format and the values that the `gguf` package gives them: weights.bin.

usage: make_weights.py OUT          needs numpy and gguf

For each format: its name in 8 bytes, the number of blocks as uint32, the blocks, their values as
float32. Codes are random bytes; scales are float16 of either sign, one of them the smallest
subnormal and one the largest number.
"""

import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, dequantize
from gguf import GGMLQuantizationType as Type

SCALES = {  # offsets of the float16 numbers in a block
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
BLOCKS = 4

random = np.random.default_rng(12)
with open(sys.argv[1], "wb") as out:
    for name, scales in SCALES.items():
        values, size = GGML_QUANT_SIZES[Type[name]]
        blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        for at in scales:
            numbers = random.normal(0, 0.01, BLOCKS).astype("<f2")
            numbers[:2] = 2.0**-24, 65504
            blocks[:, at : at + 2] = numbers.reshape(-1, 1).view(np.uint8)
        expanded = dequantize(blocks.reshape(1, -1), Type[name]).astype("<f4")
        assert expanded.size == BLOCKS * values and np.isfinite(expanded).all()
        out.write(
            name.ljust(8, "\0").encode()
            + np.uint32(BLOCKS).tobytes()
            + blocks.tobytes()
            + expanded.tobytes()
        )
