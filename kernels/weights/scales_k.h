/* The 12 bytes of Q4_K and Q5_K that hold 8 scale codes and 8 offset codes of 6 bits, one of each
 * for 32 values. The first four of both are the lower 6 bits of bytes 0-3 and 4-7; of the others
 * the lower 4 bits are the halves of bytes 8-11, the upper 2 the top bits of bytes 0-3 and 4-7. */
#ifndef FKV_KERNELS_WEIGHTS_SCALES_K_H
#define FKV_KERNELS_WEIGHTS_SCALES_K_H

#include "kernels/weights/block.h"

/* The scales of a block to scale [8], its offsets to the 8 after them. */
BLOCK_INLINE void k_scales(const uint8_t *b, float scale[16]) {
    uint32_t s[3];
    memcpy(s, b + 4, sizeof s);
    const uint32_t low = 0x0f0f0f0f, top = 0x30303030, six = 0x3f3f3f3f;
    const block_quads codes = {s[0] & six, (s[2] & low) | (s[0] >> 2 & top), s[1] & six,
                               (s[2] >> 4 & low) | (s[1] >> 2 & top)};
    float offset[16];
    block_scales(scale, (block_bytes)codes, block_half(b));
    block_scales(offset, (block_bytes)codes, block_half(b + 2));
    memcpy(scale + 8, offset + 8, 8 * sizeof *scale);
}

#endif
