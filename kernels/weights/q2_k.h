/* Q2_K: 256 values in 84 bytes: for each run of 16 values a byte (scale code low, offset code
 * high), the codes of 2 bits, scale of the scales, scale of the offsets (float16). 128 values take
 * 32 bytes of codes: byte i holds, from its lowest bits, codes i, i + 32, i + 64, i + 96. */
#include "kernels/weights/block.h"

enum { Q2_K_VALUES = 256, Q2_K_BYTES = 84 };

BLOCK_INLINE void q2_k_block(const uint8_t *b, struct block_to *to) {
    float scale[16], offset[16];
    const block_bytes both = block_load(b);
    block_scales(scale, block_bits(both, 0, 4), block_half(b + 80));
    block_scales(offset, block_bits(both, 4, 4), block_half(b + 82));
    for (int i = 0; i < 4; i++) {
        const block_bytes codes = block_load(b + 16 + 16 * i);
        const int g = i / 2 * 8 + i % 2;
        block_put(to, 0, g, block_bits(codes, 0, 2), scale[g], offset[g]);
        block_put(to, 1, g + 2, block_bits(codes, 2, 2), scale[g + 2], offset[g + 2]);
        block_put(to, 2, g + 4, block_bits(codes, 4, 2), scale[g + 4], offset[g + 4]);
        block_put(to, 3, g + 6, block_bits(codes, 6, 2), scale[g + 6], offset[g + 6]);
    }
}
