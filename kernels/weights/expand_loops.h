/* Every block format's expansion for one instruction set: included by weights.c, weights_avx2.c
 * and weights_avx512.c, which first include weights.h and define EXPAND_TABLE and
 * BLOCK_DOT_TABLE, the names of the tables. */
#include "kernels/ahead.h"
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

/* The loops of a format: blocks -> values, and their product with x. */
#define EXPAND(format, FORMAT)                                                                     \
    static void expand_##format(const void *blocks, size_t count, float *values) {                 \
        const uint8_t *b = blocks;                                                                 \
        struct block_to to = {.values = values};                                                   \
        for (size_t i = 0; i < count; i++, b += FORMAT##_BYTES, to.values += FORMAT##_VALUES)      \
            format##_block(b, &to);                                                                \
    }                                                                                              \
    static float dot_##format(const void *blocks, size_t count, const float *x) {                  \
        const uint8_t *b = blocks;                                                                 \
        struct block_to to = {.x = x};                                                             \
        for (int i = 0; i < BLOCK_SUMS; i++) to.sum[i] = block_zero();                             \
        for (size_t i = 0; i < count; i++, b += FORMAT##_BYTES, to.x += FORMAT##_VALUES) {         \
            for (size_t l = 0; l < FORMAT##_BYTES; l += 64) __builtin_prefetch(b + FKV_AHEAD + l); \
            format##_block(b, &to);                                                                \
        }                                                                                          \
        return block_total(&to);                                                                   \
    }
FKV_BLOCK_FORMATS(EXPAND)

#define EXPANSION(x, X) [FKV_WEIGHT_##X] = expand_##x,
fkv_expand_table EXPAND_TABLE = {FKV_BLOCK_FORMATS(EXPANSION)};

#define DOT(x, X) [FKV_WEIGHT_##X] = dot_##x,
fkv_block_dot_table BLOCK_DOT_TABLE = {FKV_BLOCK_FORMATS(DOT)};
