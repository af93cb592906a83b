/* See blas.h. OpenBLAS chooses its kernels from a table of processors, and for one that is newer
 * than itself it takes those of a Pentium 4 (Prescott): a fifth of the speed. */
#include "kernels/blas.h"

#ifndef FKV_PLAIN
#include <dlfcn.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/host.h"
#include "kernels/isa.h"

/* Bytes of address space. A buffer: BUFFER_SIZE of OpenBLAS 0.3 on x86-64 and ARM. The library:
 * itself and the Fortran run time, rounded up. */
static const size_t BUFFER = (size_t)128 << 20, LIBRARY = (size_t)64 << 20;

struct fkv_blas fkv_blas;

static void *library; /* stays loaded */
static const char *(*core_name)(void);
static void *(*take_buffer)(int); /* NULL: this build does not export it */
static void (*return_buffer)(void *);
static int users, held; /* threads that opened it; buffers that OpenBLAS has */

static int try_memory(size_t bytes, struct fkv_error *err) {
    if (fkv_host_can_map(bytes)) return FKV_OK;
    char wanted[16], left[16];
    fkv_format_bytes(wanted, (int64_t)bytes);
    fkv_format_bytes(left, fkv_host_memory_available());
    return fkv_fail(err,
                    "not enough memory: OpenBLAS takes %s of address space, available %s: a higher "
                    "limit (`ulimit -v`; of a batch system h_vmem, vmem or mem), or fewer threads "
                    "(OMP_NUM_THREADS)",
                    wanted, left);
}

static int load(struct fkv_error *err) {
    void *opened = dlopen(FKV_OPENBLAS, RTLD_NOW | RTLD_LOCAL);
    if (!opened) return fkv_fail(err, "OpenBLAS: cannot be loaded: %s", dlerror());
    const struct {
        void *to; /* a pointer to a function */
        const char *name;
        bool required;
    } symbols[] = {
        {&fkv_blas.sgemm, "sgemm_", true},           {&fkv_blas.dgemm, "dgemm_", true},
        {&fkv_blas.dsyrk, "dsyrk_", true},           {&fkv_blas.dsyevd, "dsyevd_", true},
        {&core_name, "openblas_get_corename", true}, {&take_buffer, "blas_memory_alloc", false},
        {&return_buffer, "blas_memory_free", false},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *found = dlsym(opened, symbols[i].name);
        if (!found && symbols[i].required) {
            dlclose(opened);
            return fkv_fail(err, "%s: %s: expected in it, found nothing", FKV_OPENBLAS,
                            symbols[i].name);
        }
        memcpy(symbols[i].to, &found, sizeof found);
    }
    library = opened;
    return FKV_OK;
}

/* Has OpenBLAS make its buffers now: what it got it keeps. */
static int hold(int count, struct fkv_error *err) {
    void **buffers = calloc((size_t)count, sizeof *buffers);
    if (!buffers) return fkv_fail(err, "out of memory");
    for (int i = 0; i < count && take_buffer; i++) buffers[i] = take_buffer(0);
    for (int i = 0; i < count && return_buffer; i++) return_buffer(buffers[i]);
    free(buffers);
    held = count;
    return FKV_OK;
}

int fkv_blas_open(int threads, struct fkv_error *err) {
    const int wanted = users + threads;
    if (wanted > held) {
        const size_t more = (size_t)(wanted - held) * BUFFER;
        /* While it is loaded it takes a buffer for each thread of its own. */
        const size_t own = library ? 0 : (size_t)omp_get_max_threads() * BUFFER + LIBRARY;
        if (try_memory(more + own, err)) return FKV_FAILED;
        if (!library && load(err)) return FKV_FAILED;
        if (hold(wanted, err)) return FKV_FAILED;
    }
    users = wanted;
    return FKV_OK;
}

void fkv_blas_close(int threads) { users -= threads; }

const char *fkv_blas_name(void) {
    static char name[64];
    snprintf(name, sizeof name, "OpenBLAS (%s)", core_name());
    return name;
}

/* The instruction set of a core's kernels. A core that is not named here is of another kind of
 * processor, or older than AVX2. */
static enum fkv_isa isa_of(const char *core) {
    static const struct {
        const char *name;
        enum fkv_isa isa;
    } cores[] = {{"Haswell", FKV_ISA_AVX2},      {"Zen", FKV_ISA_AVX2},
                 {"Excavator", FKV_ISA_AVX2},    {"SkylakeX", FKV_ISA_AVX512},
                 {"Cooperlake", FKV_ISA_AVX512}, {"SapphireRapids", FKV_ISA_AVX512}};
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++)
        if (!strcasecmp(core, cores[i].name)) return cores[i].isa;
    return FKV_ISA_PLAIN;
}

const char *fkv_blas_note(void) {
    static char note[192];
    const enum fkv_isa most = fkv_isa() < FKV_ISA_AVX512 ? fkv_isa() : FKV_ISA_AVX512;
    if (isa_of(core_name()) >= most) return NULL;
    snprintf(note, sizeof note,
             "OpenBLAS runs its %s kernels on a processor with %s: for full speed set "
             "OPENBLAS_CORETYPE=%s",
             core_name(), fkv_isa_name(most), most == FKV_ISA_AVX512 ? "SkylakeX" : "Haswell");
    return note;
}
#else
typedef int fkv_blas_is_not_built;
#endif
