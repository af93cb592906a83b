/* Q5_1: 32 values in 24 bytes: scale, offset (float16), 32 codes of 5 bits as in Q5_0. */
#include "kernels/weights/block.h"

enum { Q5_1_VALUES = 32, Q5_1_BYTES = 24 };

BLOCK_INLINE void q5_1_block(const uint8_t *b, float *y) {
    const float d = block_half(b), offset = block_half(b + 2);
    const uint8_t *codes = b + 8;
    uint32_t fifth;
    memcpy(&fifth, b + 4, 4);
#pragma omp simd
    for (int i = 0; i < 16; i++)
        y[i] = d * (float)(int)((codes[i] & 15u) | (fifth >> i & 1) << 4) + offset;
#pragma omp simd
    for (int i = 0; i < 16; i++)
        y[i + 16] = d * (float)(int)(codes[i] >> 4 | (fifth >> (i + 16) & 1) << 4) + offset;
}
