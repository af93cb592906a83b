/* The 12 bytes of Q4_K and Q5_K that hold 8 scale codes and 8 offset codes of 6 bits, one of each
 * for 32 values. The first four of both are the lower 6 bits of bytes 0-3 and 4-7; of the others
 * the lower 4 bits are the halves of bytes 8-11, the upper 2 the top bits of bytes 0-3 and 4-7. */
#ifndef FKV_KERNELS_WEIGHTS_SCALES_K_H
#define FKV_KERNELS_WEIGHTS_SCALES_K_H

#include "kernels/weights/block.h"

BLOCK_INLINE int k_scale(const uint8_t *s, int i) {
    return i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
}

BLOCK_INLINE int k_offset(const uint8_t *s, int i) {
    return i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
}

#endif
