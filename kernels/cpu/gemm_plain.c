/* No library: every product goes through the dot kernels. */
#ifdef FKV_PLAIN
#include "kernels/cpu/gemm.h"

const char *fkv_gemm_name(void) { return NULL; }

const char *fkv_gemm_note(void) { return NULL; }

bool fkv_gemm_has_bf16(void) { return false; }

int fkv_gemm_open(int threads, struct fkv_gemm **out, struct fkv_error *err) {
    (void)threads, (void)err;
    *out = NULL;
    return FKV_OK;
}

void fkv_gemm_close(struct fkv_gemm *g) { (void)g; }

int fkv_gemm_prepare(struct fkv_gemm *g, const struct fkv_gemm_shape *shape,
                     const struct fkv_gemm_product **out, struct fkv_error *err) {
    (void)g, (void)out;
    return fkv_fail(err, "a product of %d rows, but there is no library for it", shape->m);
}

size_t fkv_gemm_scratch(const struct fkv_gemm_product *p) {
    (void)p;
    return 0;
}

bool fkv_gemm_multiply(const struct fkv_gemm_product *p, int thread, const void *in, const void *w,
                       float *out, void *scratch) {
    (void)p, (void)thread, (void)in, (void)w, (void)out, (void)scratch;
    return false;
}

#else
typedef int fkv_gemm_plain_is_not_built;
#endif
