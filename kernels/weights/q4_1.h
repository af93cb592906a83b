/* Q4_1: 32 values in 20 bytes: scale, offset (float16), 32 codes of 4 bits as in Q4_0. */
#include "kernels/weights/block.h"

enum { Q4_1_VALUES = 32, Q4_1_BYTES = 20 };

BLOCK_INLINE void q4_1_block(const uint8_t *b, float *y) {
    const float d = block_half(b), offset = block_half(b + 2);
    const uint8_t *codes = b + 4;
#pragma omp simd
    for (int i = 0; i < 16; i++) y[i] = d * (float)(codes[i] & 15) + offset;
#pragma omp simd
    for (int i = 0; i < 16; i++) y[i + 16] = d * (float)(codes[i] >> 4) + offset;
}
