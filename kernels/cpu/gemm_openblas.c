/* Products by OpenBLAS, float32 only: where oneDNN is missing. Inside a parallel region it works on
 * the calling thread; outside it takes as many as OpenMP would give the caller. */
#if !defined(FKV_ONEDNN) && !defined(FKV_PLAIN)
#include <stdlib.h>

#include "kernels/blas.h"
#include "kernels/cpu/gemm.h"

struct fkv_gemm_product {
    struct fkv_gemm_shape shape;
};

struct fkv_gemm {
    struct fkv_gemm_product products[FKV_GEMM_KEPT]; /* a ring */
    unsigned next;
    int threads;
};

const char *fkv_gemm_name(void) { return fkv_blas_name(); }

const char *fkv_gemm_note(void) { return fkv_blas_note(); }

bool fkv_gemm_has_bf16(void) { return false; }

int fkv_gemm_open(int threads, struct fkv_gemm **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_gemm *g = calloc(1, sizeof *g);
    if (!g) return fkv_fail(err, "out of memory");
    g->threads = threads;
    if (fkv_blas_open(threads, err)) {
        free(g);
        return FKV_FAILED;
    }
    *out = g;
    return FKV_OK;
}

void fkv_gemm_close(struct fkv_gemm *g) {
    if (!g) return;
    fkv_blas_close(g->threads);
    free(g);
}

int fkv_gemm_prepare(struct fkv_gemm *g, const struct fkv_gemm_shape *shape,
                     const struct fkv_gemm_product **out, struct fkv_error *err) {
    (void)err;
    struct fkv_gemm_product *p = &g->products[g->next++ % FKV_GEMM_KEPT];
    p->shape = *shape;
    *out = p;
    return FKV_OK;
}

size_t fkv_gemm_scratch(const struct fkv_gemm_product *p) {
    (void)p;
    return 0;
}

bool fkv_gemm_multiply(const struct fkv_gemm_product *p, int thread, const void *in, const void *w,
                       float *out, void *scratch) {
    (void)thread, (void)scratch;
    const struct fkv_gemm_shape *s = &p->shape;
    const float one = 1, zero = 0;
    /* By columns: out' (n, m) = w (n, k) in' (k, m) */
    fkv_blas.sgemm("T", "N", &s->n, &s->m, &s->k, &one, w, &s->k, in, &s->k, &zero, out, &s->n);
    return true;
}

#else
typedef int fkv_gemm_openblas_is_not_built;
#endif
