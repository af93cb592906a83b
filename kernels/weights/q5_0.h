/* Q5_0: 32 values in 22 bytes: scale (float16), the fifth bits of 32 codes, their lower 4 bits as
 * in Q4_0; codes are around 16. */
#include "kernels/weights/block.h"

enum { Q5_0_VALUES = 32, Q5_0_BYTES = 22 };

BLOCK_INLINE void q5_0_block(const uint8_t *b, struct block_to *to) {
    const float d = block_half(b);
    const block_bytes codes = block_load(b + 6);
    uint32_t fifth;
    memcpy(&fifth, b + 2, 4);
    block_put(to, 0, 0, (block_bits(codes, 0, 4) | block_fifth(fifth)) - 16, d, 0);
    block_put(to, 1, 1, (block_bits(codes, 4, 4) | block_fifth(fifth >> 16)) - 16, d, 0);
}
