/* The expansions of weight formats compiled for AVX2 with F16C. See expand_loops.h. */
#if defined(__x86_64__)

#include "kernels/weights/weights.h"

#define EXPAND_TABLE fkv_expand_avx2
#define BLOCK_DOT_TABLE fkv_block_dot_avx2
#include "kernels/weights/expand_loops.h"

#else
typedef int fkv_weights_avx2_is_for_x86;
#endif
