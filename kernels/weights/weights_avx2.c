/* The expansions of weight formats compiled for AVX2 with F16C; on other processors than x86 as
 * they are, and never chosen. See expand_loops.h. */
#include "kernels/weights/weights.h"

#define EXPAND_TABLE fkv_expand_avx2
#define BLOCK_DOT_TABLE fkv_block_dot_avx2
#include "kernels/weights/expand_loops.h"
