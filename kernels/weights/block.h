/* What the block formats share: numbers inside a block, and the loop over blocks. Each format is a
 * file with one function, a block -> its values; weights.c, weights_avx2.c and weights_avx512.c
 * compile them for their instruction set (expand_loops.h). A loop of 16 is marked for vectors:
 * compilers unroll it first else, and find no vectors in what is left.
 *
 * The layouts are those of ggml. Scales are float16; a value is scale * code or scale * code +
 * offset, where the codes have at most 6 bits and the scales' own codes at most 8. So every
 * product is exact in float32 and a sum is rounded once: multiplying and adding in one step gives
 * the same bits. */
#ifndef FKV_KERNELS_WEIGHTS_BLOCK_H
#define FKV_KERNELS_WEIGHTS_BLOCK_H

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "kernels/dtype.h"

#define BLOCK_INLINE static inline __attribute__((always_inline))

/* The float16 at p. */
BLOCK_INLINE float block_half(const uint8_t *p) {
    const uint16_t bits = (uint16_t)(p[0] | p[1] << 8);
#if defined(__F16C__)
    return _cvtsh_ss(bits);
#else
    return fkv_f16_to_f32(bits);
#endif
}

#endif
