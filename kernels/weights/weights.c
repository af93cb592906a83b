/* The table of weight formats, the choice of an instruction set, and the expansions that every
 * processor has. See weights.h. */
#include "kernels/weights/weights.h"

#define EXPAND_TABLE fkv_expand_plain
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

static fkv_expand_table *choose(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &fkv_expand_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &fkv_expand_avx2;
#endif
    return &fkv_expand_plain;
}

void fkv_weight_expand(enum fkv_weight_format format, const void *from, size_t n, float *to) {
    if (fkv_weight_is_dtype(format))
        fkv_to_f32(from, (enum fkv_dtype)format, n, to);
    else
        (*choose())[format](from, n / formats[format].values, to);
}
