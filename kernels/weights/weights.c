/* The table of weight formats, the choice of an instruction set, and the expansions that every
 * processor has. See weights.h. */
#include "kernels/weights/weights.h"

#include "kernels/isa.h"

#define EXPAND_TABLE fkv_expand_plain
#define BLOCK_DOT_TABLE fkv_block_dot_plain
#include "kernels/weights/expand_loops.h"

static const struct {
    const char *name;
    size_t values, bytes; /* of a block */
} formats[FKV_WEIGHT_FORMATS] = {
    [FKV_WEIGHT_F32] = {"F32", 1, 4},
    [FKV_WEIGHT_F16] = {"F16", 1, 2},
    [FKV_WEIGHT_BF16] = {"BF16", 1, 2},
    [FKV_WEIGHT_Q8_0] = {"Q8_0", Q8_0_VALUES, Q8_0_BYTES},
    [FKV_WEIGHT_Q4_0] = {"Q4_0", Q4_0_VALUES, Q4_0_BYTES},
    [FKV_WEIGHT_Q4_1] = {"Q4_1", Q4_1_VALUES, Q4_1_BYTES},
    [FKV_WEIGHT_Q5_0] = {"Q5_0", Q5_0_VALUES, Q5_0_BYTES},
    [FKV_WEIGHT_Q5_1] = {"Q5_1", Q5_1_VALUES, Q5_1_BYTES},
    [FKV_WEIGHT_Q2_K] = {"Q2_K", Q2_K_VALUES, Q2_K_BYTES},
    [FKV_WEIGHT_Q3_K] = {"Q3_K", Q3_K_VALUES, Q3_K_BYTES},
    [FKV_WEIGHT_Q4_K] = {"Q4_K", Q4_K_VALUES, Q4_K_BYTES},
    [FKV_WEIGHT_Q5_K] = {"Q5_K", Q5_K_VALUES, Q5_K_BYTES},
    [FKV_WEIGHT_Q6_K] = {"Q6_K", Q6_K_VALUES, Q6_K_BYTES},
};

size_t fkv_weight_block(enum fkv_weight_format format) { return formats[format].values; }

size_t fkv_weight_bytes(enum fkv_weight_format format, size_t n) {
    return n / formats[format].values * formats[format].bytes;
}

const char *fkv_weight_name(enum fkv_weight_format format) { return formats[format].name; }

/* The functions of the widest instruction set there is. */
static const struct {
    fkv_expand_table *expand;
    fkv_block_dot_table *dot;
} sets[] = {
#if defined(__x86_64__)
    [FKV_ISA_AVX2] = {&fkv_expand_avx2, &fkv_block_dot_avx2},
    [FKV_ISA_AVX512] = {&fkv_expand_avx512, &fkv_block_dot_avx512},
#endif
    [FKV_ISA_PLAIN] = {&fkv_expand_plain, &fkv_block_dot_plain}};

static enum fkv_isa choose(void) { return fkv_isa() < FKV_ISA_AVX512 ? fkv_isa() : FKV_ISA_AVX512; }

void fkv_weight_expand(enum fkv_weight_format format, const void *from, size_t n, float *to) {
    if (fkv_weight_is_dtype(format))
        fkv_to_f32(from, (enum fkv_dtype)format, n, to);
    else
        (*sets[choose()].expand)[format](from, n / formats[format].values, to);
}

float fkv_weight_dot(enum fkv_weight_format format, const void *from, size_t n, const float *x) {
    return (*sets[choose()].dot)[format](from, n / formats[format].values, x);
}
