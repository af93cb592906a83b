/* Q3_K: 256 values in 110 bytes: the third bits of all codes (bit j of byte i: value i + 32 j), the
 * lower 2 bits as in Q2_K, 16 scale codes of 6 bits around 32 for 16 values each, scale of the
 * scales (float16). Codes are around 4. Of scale code k the lower 4 bits are half of byte k % 8
 * (the high half from k = 8 on), the upper 2 stand in byte 8 + k % 4 at bit k / 4 * 2. */
#include "kernels/weights/block.h"

enum { Q3_K_VALUES = 256, Q3_K_BYTES = 110 };

/* Two bits of every byte of `low` from bit 2 n on, and bit n of `third`, around 4. */
BLOCK_INLINE block_bytes q3_k_codes(block_bytes low, block_bytes third, int n) {
    return (block_bits(low, 2 * n, 2) | block_raise(block_bits(third, n, 1), 2)) - 4;
}

BLOCK_INLINE void q3_k_block(const uint8_t *b, struct block_to *to) {
    float scale[16];
    uint32_t low[2], high;
    memcpy(low, b + 96, sizeof low), memcpy(&high, b + 104, sizeof high);
    const block_quads lower = {low[0], low[1], low[0] >> 4, low[1] >> 4},
                      upper = {high, high >> 2, high >> 4, high >> 6};
    block_scales(scale,
                 (block_bits((block_bytes)lower, 0, 4) |
                  block_raise(block_bits((block_bytes)upper, 0, 2), 4)) -
                     32,
                 block_half(b + 108));
    for (int i = 0; i < 4; i++) {
        const block_bytes codes = block_load(b + 32 + 16 * i),
                          third = block_shift(block_load(b + i % 2 * 16), i / 2 * 4);
        const int g = i / 2 * 8 + i % 2;
        block_put(to, 0, g, q3_k_codes(codes, third, 0), scale[g], 0);
        block_put(to, 1, g + 2, q3_k_codes(codes, third, 1), scale[g + 2], 0);
        block_put(to, 2, g + 4, q3_k_codes(codes, third, 2), scale[g + 4], 0);
        block_put(to, 3, g + 6, q3_k_codes(codes, third, 3), scale[g + 6], 0);
    }
}
