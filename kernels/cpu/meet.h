/* The end of a long region. A thread that sleeps there is woken late, 30 to 90 microseconds, and a
 * virtual machine may take its processor away meanwhile: so threads wait for each other awake, but
 * not for long, as on a busy machine the last may have lost its own. Prefill in blocks of 512
 * tokens (SmolLM2-135M in bfloat16, two cores of a Xeon, Emerald Rapids) takes 0.98 of its time,
 * 0.95 when the host is slow; beside a second prefill or a busy loop as long as before. */
#ifndef FKV_KERNELS_CPU_MEET_H
#define FKV_KERNELS_CPU_MEET_H

#include "kernels/base/progress.h"
#include "kernels/cpu/cpu.h"

/* A region of so many multiplications is long: on one core 0.5 to 2 ms in float32, 0.15 on AMX. */
enum { FKV_CPU_LONG = 1 << 26 };

/* The last call of every thread of a region of so many multiplications. `arrived` starts at 0 and
 * is shared by the region's threads. Returns at once where a processor is lent: who has it is
 * waited for asleep. */
static inline void fkv_cpu_meet(const struct fkv_backend *b, atomic_int *arrived,
                                int64_t operations) {
    static const double LONGEST = 2e-4; /* seconds */
    const int last = omp_get_num_threads();
    atomic_fetch_add(arrived, 1);
    if (!b->awake || operations < FKV_CPU_LONG || fkv_host_lent()) return;
    const double end = fkv_seconds() + LONGEST;
    while (atomic_load(arrived) < last && fkv_seconds() < end) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

#endif
