/* Products by OpenBLAS, float32 only: where oneDNN is missing. Inside a parallel region it works on
 * the calling thread; outside it takes as many as OpenMP would give the caller. */
#if !defined(FKV_ONEDNN) && !defined(FKV_PLAIN)
#include <cblas.h>
#include <stdlib.h>

#include "kernels/blas.h"
#include "kernels/cpu/gemm.h"

struct fkv_gemm_product {
    struct fkv_gemm_shape shape;
};

struct fkv_gemm {
    struct fkv_gemm_product products[FKV_GEMM_KEPT]; /* a ring */
    unsigned next;
};

const char *fkv_gemm_name(void) { return fkv_blas_name(); }

const char *fkv_gemm_note(void) { return fkv_blas_note(); }

bool fkv_gemm_has_bf16(void) { return false; }

int fkv_gemm_open(int threads, struct fkv_gemm **out, struct fkv_error *err) {
    (void)threads;
    *out = calloc(1, sizeof **out);
    return *out ? FKV_OK : fkv_fail(err, "out of memory");
}

void fkv_gemm_close(struct fkv_gemm *g) { free(g); }

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
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->m, s->n, s->k, 1, in, s->k, w, s->k, 0,
                out, s->n);
    return true;
}

#else
typedef int fkv_gemm_openblas_is_not_built;
#endif
