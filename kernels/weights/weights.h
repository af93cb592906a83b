/* Weight formats: how a checkpoint stores its matrices. The first three are the dtypes of states;
 * the others are the block formats of ggml (llama.cpp), in which a block of 32 or 256 neighbours
 * of a row shares its scales. A block never crosses the end of a row, so rows can be taken,
 * skipped and reordered as bytes. Data may start at any byte address. */
#ifndef FKV_KERNELS_WEIGHTS_WEIGHTS_H
#define FKV_KERNELS_WEIGHTS_WEIGHTS_H

#include <stdbool.h>

#include "kernels/dtype.h"

/* The block formats, a row each: ROW(x, X) is x.h, FKV_WEIGHT_X, and "X" as ggml writes it. */
#define FKV_BLOCK_FORMATS(ROW)                                                                     \
    ROW(q8_0, Q8_0)                                                                                \
    ROW(q4_0, Q4_0)                                                                                \
    ROW(q4_1, Q4_1)                                                                                \
    ROW(q5_0, Q5_0)                                                                                \
    ROW(q5_1, Q5_1)                                                                                \
    ROW(q2_k, Q2_K)                                                                                \
    ROW(q3_k, Q3_K)                                                                                \
    ROW(q4_k, Q4_K)                                                                                \
    ROW(q5_k, Q5_K)                                                                                \
    ROW(q6_k, Q6_K)

enum fkv_weight_format {
    FKV_WEIGHT_F32 = FKV_F32,
    FKV_WEIGHT_F16 = FKV_F16,
    FKV_WEIGHT_BF16 = FKV_BF16,
#define FKV_BLOCK_FORMAT(x, X) FKV_WEIGHT_##X,
    FKV_BLOCK_FORMATS(FKV_BLOCK_FORMAT) /* FKV_WEIGHT_Q8_0, ... */
    FKV_WEIGHT_FORMATS
};

enum { FKV_WEIGHT_MOST_BLOCK = 256 }; /* values of the largest block */

/* blocks [count] -> values [count, block values] */
typedef void fkv_expand_function(const void *blocks, size_t count, float *values);

/* Values of a block. */
size_t fkv_weight_block(enum fkv_weight_format format);
/* Bytes of n values, n a multiple of the block. */
size_t fkv_weight_bytes(enum fkv_weight_format format, size_t n);
/* "F32", "Q4_K", ... as ggml and safetensors write it */
const char *fkv_weight_name(enum fkv_weight_format format);
/* One of the three dtypes: a block is one value. */
static inline bool fkv_weight_is_dtype(enum fkv_weight_format format) {
    return format <= FKV_WEIGHT_BF16;
}

/* n values, a multiple of the block, -> float32. Exact: every value is what ggml's definition
 * gives in float32. Vectorised where the processor can. */
void fkv_weight_expand(enum fkv_weight_format format, const void *from, size_t n, float *to);

/* Blocks [count] times x [count, block values], summed: with the values of their expansion. */
typedef float fkv_block_dot_function(const void *blocks, size_t count, const float *x);
/* n values of a block format, a multiple of the block, times x [n], summed. */
float fkv_weight_dot(enum fkv_weight_format format, const void *from, size_t n, const float *x);

/* The expansions, and the dot products, of an instruction set by format, of the block formats
 * alone: NULL for dtypes. */
typedef fkv_expand_function *const fkv_expand_table[FKV_WEIGHT_FORMATS];
extern fkv_expand_table fkv_expand_plain, fkv_expand_avx2, fkv_expand_avx512;
typedef fkv_block_dot_function *const fkv_block_dot_table[FKV_WEIGHT_FORMATS];
extern fkv_block_dot_table fkv_block_dot_plain, fkv_block_dot_avx2, fkv_block_dot_avx512;

#endif
