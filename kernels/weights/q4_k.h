/* Q4_K: 256 values in 144 bytes: scale of the scales, scale of the offsets (float16), 12 bytes of
 * scale and offset codes (scales_k.h), the codes of 4 bits. 64 values take 32 bytes: byte i holds
 * codes i (low) and i + 32 (high). */
#include "kernels/weights/scales_k.h"

enum { Q4_K_VALUES = 256, Q4_K_BYTES = 144 };

BLOCK_INLINE void q4_k_block(const uint8_t *b, struct block_to *to) {
    float scale[16];
    k_scales(b, scale);
    for (int g = 0; g < 8; g += 2) {
        const block_bytes first = block_load(b + 16 + 16 * g), second = block_load(b + 32 + 16 * g);
        block_put(to, 0, 2 * g, block_bits(first, 0, 4), scale[g], scale[g + 8]);
        block_put(to, 1, 2 * g + 1, block_bits(second, 0, 4), scale[g], scale[g + 8]);
        block_put(to, 2, 2 * g + 2, block_bits(first, 4, 4), scale[g + 1], scale[g + 9]);
        block_put(to, 3, 2 * g + 3, block_bits(second, 4, 4), scale[g + 1], scale[g + 9]);
    }
}
