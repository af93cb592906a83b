/* Q5_K: 256 values in 176 bytes: as Q4_K, with the fifth bits of all codes before the lower 4 (bit
 * j of byte i: value i + 32 j). */
#include "kernels/weights/scales_k.h"

enum { Q5_K_VALUES = 256, Q5_K_BYTES = 176 };

BLOCK_INLINE void q5_k_block(const uint8_t *b, float *y) {
    const float d = block_half(b), d_offset = block_half(b + 2);
    const uint8_t *fifth = b + 16;
    for (int g = 0; g < 8; g++, y += 32) {
        const uint8_t *codes = b + 48 + g / 2 * 32;
        const int shift = g % 2 * 4;
        const float scale = d * (float)k_scale(b + 4, g),
                    offset = d_offset * (float)k_offset(b + 4, g);
#pragma omp simd
        for (int i = 0; i < 32; i++)
            y[i] = scale * (float)((codes[i] >> shift & 15) | (fifth[i] >> g & 1) << 4) - offset;
    }
}
