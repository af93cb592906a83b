/* Q4_1: 32 values in 20 bytes: scale, offset (float16), 32 codes of 4 bits as in Q4_0. */
#include "kernels/weights/block.h"

enum { Q4_1_VALUES = 32, Q4_1_BYTES = 20 };

BLOCK_INLINE void q4_1_block(const uint8_t *b, struct block_to *to) {
    const float d = block_half(b), offset = -block_half(b + 2);
    const block_bytes codes = block_load(b + 4);
    block_put(to, 0, 0, block_bits(codes, 0, 4), d, offset);
    block_put(to, 1, 1, block_bits(codes, 4, 4), d, offset);
}
