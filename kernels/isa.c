/* See isa.h. The processor is asked by CPUID, which takes tens of microseconds in a virtual
 * machine, so once. AMX also takes the system's permission, which a process asks for once; its
 * threads inherit it. */
#include "kernels/isa.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[FKV_ISAS] = {"plain", "avx2", "avx512", "avx512_bf16", "amx"};

const char *fkv_isa_name(enum fkv_isa isa) { return names[isa]; }

#if defined(__x86_64__)
static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
}

/* AMX-TILE and AMX-BF16, and 8 KiB of tile state per thread from Linux (arch_prctl
 * ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). */
static bool has_amx(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1 && d >> 22 & 1 &&
           syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#endif

static enum fkv_isa processor(void) {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return FKV_ISA_PLAIN;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return FKV_ISA_AVX2;
    if (!has_avx512_bf16()) return FKV_ISA_AVX512;
    return has_amx() ? FKV_ISA_AMX : FKV_ISA_AVX512_BF16;
#else
    return FKV_ISA_PLAIN;
#endif
}

/* The set that FKV_MAX_ISA names; FKV_ISAS where it is unset or names none. */
static int cap(void) {
    const char *chosen = getenv("FKV_MAX_ISA");
    int i = 0;
    while (i < FKV_ISAS && (!chosen || strcmp(chosen, names[i]) != 0)) i++;
    return i;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum fkv_isa used;

static void choose(void) {
    const enum fkv_isa best = processor();
    const int most = cap();
    used = most < (int)best ? (enum fkv_isa)most : best;
}

enum fkv_isa fkv_isa(void) {
    pthread_once(&once, choose);
    return used;
}

/* Those processors have AVX512-FP16 as well, also where the system hides their AMX. */
bool fkv_isa_slow_bf16(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __builtin_cpu_is("intel") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 23 & 1;
#else
    return false;
#endif
}

int fkv_isa_check(struct fkv_error *err) {
    const char *chosen = getenv("FKV_MAX_ISA");
    if (!chosen || cap() < FKV_ISAS) return FKV_OK;
    return fkv_fail(
        err, "FKV_MAX_ISA: expected plain, avx2, avx512, avx512_bf16 or amx, found \"%s\"", chosen);
}
