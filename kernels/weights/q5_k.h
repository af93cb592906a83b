/* Q5_K: 256 values in 176 bytes: as Q4_K, with the fifth bits of all codes before the lower 4 (bit
 * j of byte i: value i + 32 j). */
#include "kernels/weights/scales_k.h"

enum { Q5_K_VALUES = 256, Q5_K_BYTES = 176 };

/* Bit n of every byte, as the fifth of a code. */
BLOCK_INLINE block_bytes q5_k_fifth(block_bytes v, int n) {
    return block_raise(block_bits(v, n, 1), 4);
}

BLOCK_INLINE void q5_k_block(const uint8_t *b, struct block_to *to) {
    float scale[16];
    k_scales(b, scale);
    for (int g = 0; g < 8; g += 2) {
        const block_bytes first = block_load(b + 48 + 16 * g), second = block_load(b + 64 + 16 * g),
                          top = block_shift(block_load(b + 16), g),
                          next = block_shift(block_load(b + 32), g),
                          codes[4] = {block_bits(first, 0, 4) | q5_k_fifth(top, 0),
                                      block_bits(second, 0, 4) | q5_k_fifth(next, 0),
                                      block_bits(first, 4, 4) | q5_k_fifth(top, 1),
                                      block_bits(second, 4, 4) | q5_k_fifth(next, 1)};
        block_put(to, 0, 2 * g, codes[0], scale[g], scale[g + 8]);
        block_put(to, 1, 2 * g + 1, codes[1], scale[g], scale[g + 8]);
        block_put(to, 2, 2 * g + 2, codes[2], scale[g + 1], scale[g + 9]);
        block_put(to, 3, 2 * g + 3, codes[3], scale[g + 1], scale[g + 9]);
    }
}
