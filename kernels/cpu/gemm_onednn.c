/* Products by oneDNN, through the C interface of its versions 2 and 3, which differ in how
 * descriptors are made.
 *
 * The library is 32 MB, and brings others with it: loaded at the start of a program, it took half
 * of the start. So it is loaded when a backend opens, by dlopen; the calls go through a table.
 *
 * A primitive is code that oneDNN generates for one shape, in half a millisecond, so the last ones
 * stay in a table. oneDNN keeps a thousand more behind it. Memory objects hold the addresses of a
 * multiplication: each thread has its own.
 *
 * Everything is described as rows one after the other, since oneDNN 2.6 has its fast kernels
 * ("brg") for a contiguous output only, and for others takes its older ones. One core of an EPYC
 * 9004 (Zen 4, AVX-512 BF16), 512 rows, weights 64 x 4096, GFLOP/s: float32 110, into a strided
 * output 83, OpenBLAS 83; bfloat16 212. Weights that oneDNN had packed beforehand: 114 and 231, for
 * a second copy of them. */
#ifdef FKV_ONEDNN
#include <dlfcn.h>
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/host.h"
#include "kernels/cpu/gemm.h"
#include "kernels/isa.h"

/* ---- the library ---- */

#if DNNL_VERSION_MAJOR >= 3
#define LIBRARY "libdnnl.so.3"
#define VERSIONED(X)                                                                               \
    X(matmul_primitive_desc_create) X(memory_desc_create_with_strides) X(memory_desc_destroy)
#else
#define LIBRARY "libdnnl.so.2"
#define VERSIONED(X) X(matmul_desc_init) X(memory_desc_init_by_strides) X(primitive_desc_create)
#endif
/* Of those that are called here, the names without "dnnl_". */
#define FUNCTIONS(X)                                                                               \
    X(version)                                                                                     \
    X(set_max_cpu_isa)                                                                             \
    X(engine_create)                                                                               \
    X(engine_destroy)                                                                              \
    X(stream_create)                                                                               \
    X(stream_destroy)                                                                              \
    X(memory_create)                                                                               \
    X(memory_destroy)                                                                              \
    X(memory_set_data_handle)                                                                      \
    X(memory_desc_get_size)                                                                        \
    X(primitive_attr_create)                                                                       \
    X(primitive_attr_destroy)                                                                      \
    X(primitive_attr_set_scratchpad_mode)                                                          \
    X(primitive_create)                                                                            \
    X(primitive_destroy)                                                                           \
    X(primitive_execute)                                                                           \
    X(primitive_desc_destroy)                                                                      \
    X(primitive_desc_query_md)                                                                     \
    VERSIONED(X)

#define POINTER_TO(name) __typeof__(dnnl_##name) *name;
static struct { FUNCTIONS(POINTER_TO) } dnnl;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char load_error[256]; /* "": it is loaded */

/* By its name, or else from where the build found it. */
static void load(void) {
#define ENTRY(name) {"dnnl_" #name, &dnnl.name},
    const struct {
        const char *name;
        void *pointer;
    } wanted[] = {FUNCTIONS(ENTRY)};
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen(FKV_ONEDNN, RTLD_NOW | RTLD_LOCAL);
    if (!library) snprintf(load_error, sizeof load_error, "%s", dlerror());
    for (size_t i = 0; library && i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        if (!found) snprintf(load_error, sizeof load_error, "it has no %s", wanted[i].name);
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
}

/* ---- life ---- */

enum argument { IN, WEIGHT, OUT, SCRATCH, ARGUMENTS };

struct fkv_gemm_product {
    struct fkv_gemm *owner;
    struct fkv_gemm_shape shape;
    dnnl_primitive_t primitive;
    dnnl_memory_t (*memory)[ARGUMENTS]; /* [threads] */
    size_t scratch;                     /* bytes */
    uint64_t used;                      /* when it was prepared last */
};

struct fkv_gemm {
    int threads;
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [threads] */
    uint64_t now;           /* calls of prepare */
    struct fkv_gemm_product products[FKV_GEMM_KEPT];
};

const char *fkv_gemm_name(void) {
    static char name[32];
    const dnnl_version_t *v = dnnl.version();
    snprintf(name, sizeof name, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return name;
}

const char *fkv_gemm_note(void) { return NULL; }

bool fkv_gemm_has_bf16(void) { return true; }

/* What FKV_MAX_ISA names holds for oneDNN too. It takes this once, before its first primitive; a
 * later call changes nothing. */
static void cap_isa(void) {
    static const dnnl_cpu_isa_t most[FKV_ISAS] = {[FKV_ISA_PLAIN] = dnnl_cpu_isa_sse41,
                                                  [FKV_ISA_AVX2] = dnnl_cpu_isa_avx2,
                                                  [FKV_ISA_AVX512] = dnnl_cpu_isa_avx512_core_vnni,
                                                  [FKV_ISA_AVX512_BF16] =
                                                      dnnl_cpu_isa_avx512_core_bf16};
    if (getenv("FKV_MAX_ISA") && fkv_isa() < FKV_ISA_AMX) dnnl.set_max_cpu_isa(most[fkv_isa()]);
}

int fkv_gemm_open(int threads, struct fkv_gemm **out, struct fkv_error *err) {
    pthread_once(&once, load);
    if (load_error[0])
        return fkv_fail(err, "%s (oneDNN) cannot be loaded: %s", LIBRARY, load_error);
    cap_isa();
    struct fkv_gemm *g = calloc(1, sizeof *g);
    if (!g) return fkv_fail(err, "out of memory");
    g->threads = threads;
    g->streams = calloc((size_t)threads, sizeof *g->streams);
    bool made = g->streams && dnnl.engine_create(&g->engine, dnnl_cpu, 0) == dnnl_success;
    for (int t = 0; made && t < threads; t++)
        made = dnnl.stream_create(&g->streams[t], g->engine, dnnl_stream_default_flags) ==
               dnnl_success;
    if (!made) {
        fkv_gemm_close(g);
        return fkv_fail(err, "oneDNN cannot be started: out of memory");
    }
    *out = g;
    return FKV_OK;
}

/* Leaves the entry empty. */
static void release(struct fkv_gemm_product *p) {
    for (int t = 0; p->memory && t < p->owner->threads; t++)
        for (int a = 0; a < ARGUMENTS; a++) dnnl.memory_destroy(p->memory[t][a]);
    free(p->memory);
    dnnl.primitive_destroy(p->primitive);
    memset(p, 0, sizeof *p);
}

void fkv_gemm_close(struct fkv_gemm *g) {
    if (!g) return;
    for (int i = 0; i < FKV_GEMM_KEPT; i++) release(&g->products[i]);
    for (int t = 0; g->streams && t < g->threads; t++) dnnl.stream_destroy(g->streams[t]);
    free(g->streams);
    dnnl.engine_destroy(g->engine);
    free(g);
}

/* ---- what differs between versions 2 and 3 ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t description;
#define POINTER(d) (d)

static bool describe(description *d, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                     const dnnl_dims_t strides) {
    return dnnl.memory_desc_create_with_strides(d, rank, dims, type, strides) == dnnl_success;
}

static void forget(description *d) { dnnl.memory_desc_destroy(*d); }

static bool describe_product(const struct fkv_gemm *g, description d[ARGUMENTS],
                             dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out) {
    return dnnl.matmul_primitive_desc_create(out, g->engine, d[IN], d[WEIGHT], NULL, d[OUT],
                                             attributes) == dnnl_success;
}
#else
typedef dnnl_memory_desc_t description;
#define POINTER(d) (&(d))

static bool describe(description *d, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                     const dnnl_dims_t strides) {
    return dnnl.memory_desc_init_by_strides(d, rank, dims, type, strides) == dnnl_success;
}

static void forget(description *d) { (void)d; }

static bool describe_product(const struct fkv_gemm *g, description d[ARGUMENTS],
                             dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out) {
    dnnl_matmul_desc_t operation;
    return dnnl.matmul_desc_init(&operation, &d[IN], &d[WEIGHT], NULL, &d[OUT]) == dnnl_success &&
           dnnl.primitive_desc_create(out, &operation, attributes, g->engine, NULL) == dnnl_success;
}
#endif

/* ---- making a product ---- */

/* The primitive, its bytes of scratch, and every thread's memory objects. The weight (n, k) is a
 * (k, n) matrix stored by columns. */
static bool make_primitive(struct fkv_gemm_product *p, description d[ARGUMENTS],
                           dnnl_primitive_attr_t attributes) {
    const struct fkv_gemm *g = p->owner;
    dnnl_primitive_desc_t found;
    if (!describe_product(g, d, attributes, &found)) return false;
    p->scratch =
        dnnl.memory_desc_get_size(dnnl.primitive_desc_query_md(found, dnnl_query_scratchpad_md, 0));
    bool made = dnnl.primitive_create(&p->primitive, found) == dnnl_success;
    dnnl.primitive_desc_destroy(found);
    const dnnl_dims_t bytes = {p->scratch ? (dnnl_dim_t)p->scratch : 1}, one = {1};
    made = made && describe(&d[SCRATCH], 1, bytes, dnnl_u8, one);
    p->memory = calloc((size_t)g->threads, sizeof *p->memory);
    made = made && p->memory;
    for (int t = 0; made && t < g->threads; t++)
        for (int a = 0; made && a < ARGUMENTS; a++)
            made = dnnl.memory_create(&p->memory[t][a], POINTER(d[a]), g->engine,
                                      DNNL_MEMORY_NONE) == dnnl_success;
    return made;
}

static bool make(struct fkv_gemm_product *p) {
    const dnnl_dim_t m = p->shape.m, n = p->shape.n, k = p->shape.k;
    const dnnl_data_type_t type = p->shape.dtype == FKV_BF16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t in = {m, k}, weight = {k, n}, out = {m, n}, by_in = {k, 1},
                      by_weight = {1, k}, by_out = {n, 1};
    description d[ARGUMENTS] = {0};
    dnnl_primitive_attr_t attributes;
    if (dnnl.primitive_attr_create(&attributes)) return false;
    const bool made =
        dnnl.primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) ==
            dnnl_success &&
        describe(&d[IN], 2, in, type, by_in) && describe(&d[WEIGHT], 2, weight, type, by_weight) &&
        describe(&d[OUT], 2, out, dnnl_f32, by_out) && make_primitive(p, d, attributes);
    for (int a = 0; a < ARGUMENTS; a++) forget(&d[a]);
    dnnl.primitive_attr_destroy(attributes);
    return made;
}

/* Bytes that oneDNN may take while it makes a primitive, and crashes without: measured 4 MiB with
 * 2.6.3, of which it keeps a part. */
static const size_t MAKING = (size_t)16 << 20;

int fkv_gemm_prepare(struct fkv_gemm *g, const struct fkv_gemm_shape *shape,
                     const struct fkv_gemm_product **out, struct fkv_error *err) {
    struct fkv_gemm_product *oldest = g->products;
    for (int i = 0; i < FKV_GEMM_KEPT; i++) {
        struct fkv_gemm_product *p = &g->products[i];
        if (p->primitive && p->shape.dtype == shape->dtype && p->shape.m == shape->m &&
            p->shape.n == shape->n && p->shape.k == shape->k) {
            p->used = ++g->now;
            *out = p;
            return FKV_OK;
        }
        if (p->used < oldest->used) oldest = p;
    }
    if (!fkv_host_can_map(MAKING))
        return fkv_fail(err, "out of memory: oneDNN takes up to %zu MiB to make a product",
                        MAKING >> 20);
    release(oldest);
    *oldest = (struct fkv_gemm_product){.owner = g, .shape = *shape, .used = ++g->now};
    /* oneDNN plans for the OpenMP threads of the caller, here for one; the number ends with the
     * region. */
    bool made;
#pragma omp parallel num_threads(1)
    {
        omp_set_num_threads(1);
        made = make(oldest);
    }
    if (!made) {
        release(oldest);
        return fkv_fail(err, "oneDNN has no product of %d x %d with %d x %d, or there is no memory",
                        shape->m, shape->k, shape->n, shape->k);
    }
    *out = oldest;
    return FKV_OK;
}

/* ---- multiplying ---- */

size_t fkv_gemm_scratch(const struct fkv_gemm_product *p) { return p->scratch; }

/* oneDNN takes no const addresses; it writes `out` and `scratch` only. */
bool fkv_gemm_multiply(const struct fkv_gemm_product *p, int thread, const void *in, const void *w,
                       float *out, void *scratch) {
    static const int names[ARGUMENTS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST,
                                         DNNL_ARG_SCRATCHPAD};
    void *const addresses[ARGUMENTS] = {(void *)(uintptr_t)in, (void *)(uintptr_t)w, out, scratch};
    dnnl_exec_arg_t arguments[ARGUMENTS];
    for (int a = 0; a < ARGUMENTS; a++) {
        arguments[a] = (dnnl_exec_arg_t){names[a], p->memory[thread][a]};
        if (dnnl.memory_set_data_handle(p->memory[thread][a], addresses[a])) return false;
    }
    return dnnl.primitive_execute(p->primitive, p->owner->streams[thread], ARGUMENTS, arguments) ==
           dnnl_success;
}

#else
typedef int fkv_gemm_onednn_is_not_built;
#endif
