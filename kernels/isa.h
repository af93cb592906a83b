/* The instruction sets that kernels are written for, and the one that this process uses. */
#ifndef FKV_KERNELS_ISA_H
#define FKV_KERNELS_ISA_H

#include <stdbool.h>

#include "kernels/base/error.h"

/* Each holds the ones before it. Names: plain, avx2, avx512, avx512_bf16, amx. */
enum fkv_isa {
    FKV_ISA_PLAIN,       /* what every processor has */
    FKV_ISA_AVX2,        /* with FMA and F16C */
    FKV_ISA_AVX512,      /* F, BW, VL and DQ */
    FKV_ISA_AVX512_BF16, /* products of bfloat16 pairs */
    FKV_ISA_AMX          /* tiles of bfloat16 */
};
enum { FKV_ISAS = FKV_ISA_AMX + 1 };

/* The widest set that this processor and its system have, at most the one that the environment
 * variable FKV_MAX_ISA names when this is first called. A variable that names none counts as
 * unset: see fkv_isa_check. */
enum fkv_isa fkv_isa(void);
const char *fkv_isa_name(enum fkv_isa isa);
/* Where fkv_isa() is FKV_ISA_AVX512_BF16: whether the same products take longer in bfloat16 than in
 * float32, which they do on Intel's processors since those have AMX for them. One core of an
 * Emerald Rapids starts a vdpbf16ps of 32 products every second cycle, and two FMAs of 16 in each.
 */
bool fkv_isa_slow_bf16(void);
/* Fails where FKV_MAX_ISA names no instruction set. */
int fkv_isa_check(struct fkv_error *err);

#endif
