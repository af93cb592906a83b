/* Q8_0: 32 values in 34 bytes: scale (float16), 32 codes of 8 bits, signed. */
#include "kernels/weights/block.h"

enum { Q8_0_VALUES = 32, Q8_0_BYTES = 34 };

BLOCK_INLINE void q8_0_block(const uint8_t *b, struct block_to *to) {
    const float d = block_half(b);
    block_put(to, 0, 0, block_load(b + 2), d, 0);
    block_put(to, 1, 1, block_load(b + 18), d, 0);
}
