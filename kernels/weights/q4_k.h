/* Q4_K: 256 values in 144 bytes: scale of the scales, scale of the offsets (float16), 12 bytes of
 * scale and offset codes (scales_k.h), the codes of 4 bits. 64 values take 32 bytes: byte i holds
 * codes i (low) and i + 32 (high). */
#include "kernels/weights/scales_k.h"

enum { Q4_K_VALUES = 256, Q4_K_BYTES = 144 };

BLOCK_INLINE void q4_k_block(const uint8_t *b, float *y) {
    const float d = block_half(b), d_offset = block_half(b + 2);
    for (int g = 0; g < 8; g++, y += 32) {
        const uint8_t *codes = b + 16 + g / 2 * 32;
        const int shift = g % 2 * 4;
        const float scale = d * (float)k_scale(b + 4, g),
                    offset = d_offset * (float)k_offset(b + 4, g);
#pragma omp simd
        for (int i = 0; i < 32; i++) y[i] = scale * (float)(codes[i] >> shift & 15) - offset;
    }
}
