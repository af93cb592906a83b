/* Every block format's expansion for one instruction set: included by weights.c, weights_avx2.c
 * and weights_avx512.c, which first include weights.h and define EXPAND_TABLE, the name of the
 * table. */
#include "kernels/weights/q2_k.h"
#include "kernels/weights/q3_k.h"
#include "kernels/weights/q4_0.h"
#include "kernels/weights/q4_1.h"
#include "kernels/weights/q4_k.h"
#include "kernels/weights/q5_0.h"
#include "kernels/weights/q5_1.h"
#include "kernels/weights/q5_k.h"
#include "kernels/weights/q6_k.h"
#include "kernels/weights/q8_0.h"

#define EXPAND(x, X)                                                                               \
    static void expand_##x(const void *blocks, size_t count, float *values) {                      \
        const uint8_t *b = blocks;                                                                 \
        for (size_t i = 0; i < count; i++) x##_block(b + i * X##_BYTES, values + i * X##_VALUES);  \
    }
FKV_BLOCK_FORMATS(EXPAND)

#define EXPANSION(x, X) [FKV_WEIGHT_##X] = expand_##x,
fkv_expand_table EXPAND_TABLE = {FKV_BLOCK_FORMATS(EXPANSION)};
