/* Matrix products of many rows by a library, each on the thread that asks for it: oneDNN
 * (gemm_onednn.c), without it OpenBLAS (gemm_openblas.c), in a plain build none (gemm_plain.c). */
#ifndef FKV_KERNELS_CPU_GEMM_H
#define FKV_KERNELS_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

struct fkv_gemm; /* what a backend holds of the library; made and closed with it */

/* in (m, k) and w (n, k) of one dtype, float32 or bfloat16 -> out (m, n) float32 = in w^T; rows
 * stand one after the other */
struct fkv_gemm_shape {
    enum fkv_dtype dtype;
    int32_t m, n, k;
};
/* A product made ready for its shape; owned by the fkv_gemm. */
struct fkv_gemm_product;

/* The library's name and version, once it was opened; NULL: there is none, and nothing below is
 * called. */
const char *fkv_gemm_name(void);
/* What the user should know of how the library will run here, or NULL. Static text. */
const char *fkv_gemm_note(void);
/* Whether the library has products of bfloat16. */
bool fkv_gemm_has_bf16(void);
/* *out, for so many threads; the caller closes it. */
int fkv_gemm_open(int threads, struct fkv_gemm **out, struct fkv_error *err);
/* NULL is fine */
void fkv_gemm_close(struct fkv_gemm *g);
/* The product of a shape: made at the first call, kept after that. At least the last
 * FKV_GEMM_KEPT different shapes stay valid. Not within a parallel region. */
enum { FKV_GEMM_KEPT = 64 };
int fkv_gemm_prepare(struct fkv_gemm *g, const struct fkv_gemm_shape *shape,
                     const struct fkv_gemm_product **out, struct fkv_error *err);
/* Bytes of scratch that a multiplication takes. */
size_t fkv_gemm_scratch(const struct fkv_gemm_product *p);
/* Multiplies on the calling thread, whose OpenMP number of threads is 1 and whose index among the
 * backend's is `thread`. Threads may use one product at a time. `scratch`: 64-byte aligned. Returns
 * whether it worked: it fails where there is no memory. */
bool fkv_gemm_multiply(const struct fkv_gemm_product *p, int thread, const void *in, const void *w,
                       float *out, void *scratch);

#endif
