/* The table of weight formats, the choice of an instruction set, and the expansions that every
 * processor has. See weights.h. */
#include "kernels/weights/weights.h"

#include "kernels/isa.h"

#define EXPAND_TABLE fkv_expand_plain
#define BLOCK_DOT_TABLE fkv_block_dot_plain
#include "kernels/weights/expand_loops.h"

#define FORMAT(x, X) [FKV_WEIGHT_##X] = {#X, X##_VALUES, X##_BYTES},
static const struct {
    const char *name;
    size_t values, bytes; /* of a block */
} formats[FKV_WEIGHT_FORMATS] = {
    [FKV_WEIGHT_F32] = {"F32", 1, 4},
    [FKV_WEIGHT_F16] = {"F16", 1, 2},
    [FKV_WEIGHT_BF16] = {"BF16", 1, 2},
    FKV_BLOCK_FORMATS(FORMAT) /* the others */
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
