/* Power spectra: squares of the DCT along tokens, averaged over the channels of a head (kernels.h, power).
 *
 * The analyzer calls this outside any decode loop with a length of its own, so plan and scratch are made here, for the
 * length seen last. A unit of work is one head; its transform is summed up in scratch and never written out
 * (kernels/dct.h, fkv_dct_add_power). */
#include "kernels/cpu/cpu.h"
#include "kernels/dct.h"

static int prepare(struct fkv_backend *b, int32_t n, struct fkv_error *err) {
    if (b->power_n != n) {
        struct fkv_dct *plan;
        if (fkv_dct_create(n, &plan, err)) return FKV_FAILED;
        fkv_dct_destroy(b->power_plan);
        b->power_plan = plan;
        b->power_n = n;
    }
    return fkv_cpu_grow_work(b, fkv_dct_scratch(b->power_plan), err);
}

int fkv_cpu_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride, int32_t n,
                  int32_t heads, int32_t head_dim, double *power, double *normalised, struct fkv_error *err) {
    if (prepare(b, n, err)) return FKV_FAILED;
    const float *rows = (const float *)(const void *)(x->data + offset);
#pragma omp parallel for schedule(dynamic) num_threads(fkv_cpu_threads(b, 32 * (int64_t)n * heads * head_dim))
    for (int32_t h = 0; h < heads; h++) {
        double *to = power + (size_t)h * (size_t)n, *scaled = normalised ? normalised + (size_t)h * (size_t)n : NULL;
        for (int32_t t = 0; t < n; t++) to[t] = 0;
        for (int32_t t = 0; scaled && t < n; t++) scaled[t] = 0;
        fkv_dct_add_power(b->power_plan, rows + (size_t)h * (size_t)head_dim, stride, head_dim, to, scaled,
                          fkv_cpu_work(b));
        for (int32_t t = 0; t < n; t++) to[t] /= head_dim;
        for (int32_t t = 0; scaled && t < n; t++) scaled[t] /= head_dim;
    }
    return FKV_OK;
}
