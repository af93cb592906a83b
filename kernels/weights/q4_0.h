/* Q4_0: 32 values in 18 bytes: scale (float16), 32 codes of 4 bits around 8. Byte i holds codes i
 * (low) and i + 16 (high). */
#include "kernels/weights/block.h"

enum { Q4_0_VALUES = 32, Q4_0_BYTES = 18 };

BLOCK_INLINE void q4_0_block(const uint8_t *b, float *y) {
    const float d = block_half(b);
    const uint8_t *codes = b + 2;
#pragma omp simd
    for (int i = 0; i < 16; i++) y[i] = d * (float)((codes[i] & 15) - 8);
#pragma omp simd
    for (int i = 0; i < 16; i++) y[i + 16] = d * (float)((codes[i] >> 4) - 8);
}
