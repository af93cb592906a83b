/* Q8_0: 32 values in 34 bytes: scale (float16), 32 codes of 8 bits, signed. */
#include "kernels/weights/block.h"

enum { Q8_0_VALUES = 32, Q8_0_BYTES = 34 };

BLOCK_INLINE void q8_0_block(const uint8_t *b, float *y) {
    const float d = block_half(b);
    const int8_t *codes = (const int8_t *)b + 2;
#pragma omp simd
    for (int i = 0; i < 32; i++) y[i] = d * (float)codes[i];
}
