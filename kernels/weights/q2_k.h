/* Q2_K: 256 values in 84 bytes: for each run of 16 values a byte (scale code low, offset code
 * high), the codes of 2 bits, scale of the scales, scale of the offsets (float16). 128 values take
 * 32 bytes of codes: byte i holds, from its lowest bits, codes i, i + 32, i + 64, i + 96. */
#include "kernels/weights/block.h"

enum { Q2_K_VALUES = 256, Q2_K_BYTES = 84 };

BLOCK_INLINE void q2_k_block(const uint8_t *b, float *y) {
    const float d = block_half(b + 80), d_offset = block_half(b + 82);
    for (int g = 0; g < 16; g++, y += 16) {
        const uint8_t *codes = b + 16 + g / 8 * 32 + g % 2 * 16;
        const int shift = g % 8 / 2 * 2;
        const float scale = d * (float)(b[g] & 15), offset = d_offset * (float)(b[g] >> 4);
#pragma omp simd
        for (int i = 0; i < 16; i++) y[i] = scale * (float)(codes[i] >> shift & 3) - offset;
    }
}
