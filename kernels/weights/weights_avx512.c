/* The expansions of weight formats compiled for AVX-512. See expand_loops.h. */
#if defined(__x86_64__)

#include "kernels/weights/weights.h"

#define EXPAND_TABLE fkv_expand_avx512
#define BLOCK_DOT_TABLE fkv_block_dot_avx512
#include "kernels/weights/expand_loops.h"

#else
typedef int fkv_weights_avx512_is_for_x86;
#endif
