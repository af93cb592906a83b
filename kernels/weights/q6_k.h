/* Q6_K: 256 values in 210 bytes: the lower 4 bits of the codes, their upper 2, 16 scale codes of 8
 * bits (signed) for 16 values each, scale of the scales (float16). Codes are around 32. 128 values
 * take 64 bytes of lower bits (byte i: value i low, i + 64 high) and 32 of upper bits (byte i, from
 * its lowest bits: values i, i + 32, i + 64, i + 96). */
#include "kernels/weights/block.h"

enum { Q6_K_VALUES = 256, Q6_K_BYTES = 210 };

/* Two bits of every byte, from bit n on, as the upper ones of a code. */
BLOCK_INLINE block_bytes q6_k_upper(block_bytes v, int n) {
    return block_raise(block_bits(v, n, 2), 4);
}

BLOCK_INLINE void q6_k_block(const uint8_t *b, struct block_to *to) {
    float scale[16];
    block_scales(scale, block_load(b + 192), block_half(b + 208));
    for (int i = 0; i < 4; i++) {
        const uint8_t *lower = b + i / 2 * 64 + i % 2 * 16;
        const block_bytes first = block_load(lower), second = block_load(lower + 32),
                          upper = block_load(b + 128 + 16 * i),
                          codes[4] = {block_bits(first, 0, 4) | q6_k_upper(upper, 0),
                                      block_bits(second, 0, 4) | q6_k_upper(upper, 2),
                                      block_bits(first, 4, 4) | q6_k_upper(upper, 4),
                                      block_bits(second, 4, 4) | q6_k_upper(upper, 6)};
        const int g = i / 2 * 8 + i % 2;
        block_put(to, 0, g, codes[0] - 32, scale[g], 0);
        block_put(to, 1, g + 2, codes[1] - 32, scale[g + 2], 0);
        block_put(to, 2, g + 4, codes[2] - 32, scale[g + 4], 0);
        block_put(to, 3, g + 6, codes[3] - 32, scale[g + 6], 0);
    }
}
