/* Q3_K: 256 values in 110 bytes: the third bits of all codes (bit j of byte i: value i + 32 j), the
 * lower 2 bits as in Q2_K, 16 scale codes of 6 bits around 32 for 16 values each, scale of the
 * scales (float16). Codes are around 4. Of scale code k the lower 4 bits are half of byte k % 8
 * (the high half from k = 8 on), the upper 2 stand in byte 8 + k % 4 at bit k / 4 * 2. */
#include "kernels/weights/block.h"

enum { Q3_K_VALUES = 256, Q3_K_BYTES = 110 };

BLOCK_INLINE void q3_k_block(const uint8_t *b, float *y) {
    const uint8_t *third = b, *scales = b + 96;
    const float d = block_half(b + 108);
    for (int g = 0; g < 16; g++, y += 16) {
        const uint8_t *codes = b + 32 + g / 8 * 32 + g % 2 * 16, *top = third + g % 2 * 16;
        const int shift = g % 8 / 2 * 2, low = scales[g % 8] >> (g / 8 * 4) & 15,
                  high = scales[8 + g % 4] >> (g / 4 * 2) & 3;
        const float scale = d * (float)((low | high << 4) - 32);
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = scale * (float)((codes[i] >> shift & 3) + (top[i] >> (g / 2) & 1) * 4 - 4);
    }
}
