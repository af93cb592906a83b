/* Every block format's expansion for one instruction set: included by weights.c, weights_avx2.c
 * and weights_avx512.c, which first include weights.h and define EXPAND_TABLE, the table to define.
 */
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
        for (size_t i = 0; i < count; i++, b += FORMAT##_BYTES, to.x += FORMAT##_VALUES)           \
            format##_block(b, &to);                                                                \
        return block_total(&to);                                                                   \
    }
EXPAND(q8_0, Q8_0)
EXPAND(q4_0, Q4_0)
EXPAND(q4_1, Q4_1)
EXPAND(q5_0, Q5_0)
EXPAND(q5_1, Q5_1)
EXPAND(q2_k, Q2_K)
EXPAND(q3_k, Q3_K)
EXPAND(q4_k, Q4_K)
EXPAND(q5_k, Q5_K)
EXPAND(q6_k, Q6_K)

fkv_expand_table EXPAND_TABLE = {
    [FKV_WEIGHT_Q8_0] = expand_q8_0, [FKV_WEIGHT_Q4_0] = expand_q4_0,
    [FKV_WEIGHT_Q4_1] = expand_q4_1, [FKV_WEIGHT_Q5_0] = expand_q5_0,
    [FKV_WEIGHT_Q5_1] = expand_q5_1, [FKV_WEIGHT_Q2_K] = expand_q2_k,
    [FKV_WEIGHT_Q3_K] = expand_q3_k, [FKV_WEIGHT_Q4_K] = expand_q4_k,
    [FKV_WEIGHT_Q5_K] = expand_q5_k, [FKV_WEIGHT_Q6_K] = expand_q6_k,
};

fkv_block_dot_table BLOCK_DOT_TABLE = {
    [FKV_WEIGHT_Q8_0] = dot_q8_0, [FKV_WEIGHT_Q4_0] = dot_q4_0, [FKV_WEIGHT_Q4_1] = dot_q4_1,
    [FKV_WEIGHT_Q5_0] = dot_q5_0, [FKV_WEIGHT_Q5_1] = dot_q5_1, [FKV_WEIGHT_Q2_K] = dot_q2_k,
    [FKV_WEIGHT_Q3_K] = dot_q3_k, [FKV_WEIGHT_Q4_K] = dot_q4_k, [FKV_WEIGHT_Q5_K] = dot_q5_k,
    [FKV_WEIGHT_Q6_K] = dot_q6_k,
};
