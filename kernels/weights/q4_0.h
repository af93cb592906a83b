/* Q4_0: 32 values in 18 bytes: scale (float16), 32 codes of 4 bits around 8. Byte i holds codes i
 * (low) and i + 16 (high). */
#include "kernels/weights/block.h"

enum { Q4_0_VALUES = 32, Q4_0_BYTES = 18 };

BLOCK_INLINE void q4_0_block(const uint8_t *b, struct block_to *to) {
    const float d = block_half(b);
    const block_bytes codes = block_load(b + 2);
    block_put(to, 0, 0, block_bits(codes, 0, 4) - 8, d, 0);
    block_put(to, 1, 1, block_bits(codes, 4, 4) - 8, d, 0);
}
