/* Q6_K: 256 values in 210 bytes: the lower 4 bits of the codes, their upper 2, 16 scale codes of 8
 * bits (signed) for 16 values each, scale of the scales (float16). Codes are around 32. 128 values
 * take 64 bytes of lower bits (byte i: value i low, i + 64 high) and 32 of upper bits (byte i, from
 * its lowest bits: values i, i + 32, i + 64, i + 96). */
#include "kernels/weights/block.h"

enum { Q6_K_VALUES = 256, Q6_K_BYTES = 210 };

BLOCK_INLINE void q6_k_block(const uint8_t *b, float *y) {
    const int8_t *scales = (const int8_t *)b + 192;
    const float d = block_half(b + 208);
    for (int g = 0; g < 16; g++, y += 16) {
        const uint8_t *low = b + g / 8 * 64 + g % 4 * 16, *high = b + 128 + g / 8 * 32 + g % 2 * 16;
        const int low_shift = g % 8 / 4 * 4, high_shift = g % 8 / 2 * 2;
        const float scale = d * (float)scales[g];
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = scale *
                   (float)(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    }
}
