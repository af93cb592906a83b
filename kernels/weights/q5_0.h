/* Q5_0: 32 values in 22 bytes: scale (float16), the fifth bits of 32 codes, their lower 4 bits as
 * in Q4_0; codes are around 16. */
#include "kernels/weights/block.h"

enum { Q5_0_VALUES = 32, Q5_0_BYTES = 22 };

BLOCK_INLINE void q5_0_block(const uint8_t *b, float *y) {
    const float d = block_half(b);
    const uint8_t *codes = b + 6;
    uint32_t fifth;
    memcpy(&fifth, b + 2, 4);
#pragma omp simd
    for (int i = 0; i < 16; i++)
        y[i] = d * (float)((int)((codes[i] & 15u) | (fifth >> i & 1) << 4) - 16);
#pragma omp simd
    for (int i = 0; i < 16; i++)
        y[i + 16] = d * (float)((int)(codes[i] >> 4 | (fifth >> (i + 16) & 1) << 4) - 16);
}
