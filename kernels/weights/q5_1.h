/* Q5_1: 32 values in 24 bytes: scale, offset (float16), 32 codes of 5 bits as in Q5_0. */
#include "kernels/weights/block.h"

enum { Q5_1_VALUES = 32, Q5_1_BYTES = 24 };

BLOCK_INLINE void q5_1_block(const uint8_t *b, struct block_to *to) {
    const float d = block_half(b), offset = -block_half(b + 2);
    const block_bytes codes = block_load(b + 8);
    uint32_t fifth;
    memcpy(&fifth, b + 4, 4);
    block_put(to, 0, 0, block_bits(codes, 0, 4) | block_fifth(fifth), d, offset);
    block_put(to, 1, 1, block_bits(codes, 4, 4) | block_fifth(fifth >> 16), d, offset);
}
