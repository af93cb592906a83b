/* What a panel of logits says of its rows, in double (kernels/likelihood.h).
 *
 * Nothing overflows, since exponents are relative to the largest logit; a row of the panel is read
 * once for that and once for its sums. Both sums of a comparison come from one loop: in another
 * order of summation a distribution would be 1e-15 from itself. */
#include <math.h>

#include "kernels/cpu/cpu.h"

static const float *row_of(const struct fkv_buffer *logits, int32_t row, int32_t width) {
    return fkv_cpu_floats(logits) + (size_t)row * (size_t)width;
}

static int32_t first_equal(const float *z, int32_t width, float top) {
    for (int32_t v = 0; v < width; v++)
        if (z[v] == top) return v;
    return 0; /* a row of NaN */
}

/* A row of a panel, but for the sum. */
static struct fkv_likelihood look(const struct fkv_backend *b, const float *z, int32_t first,
                                  int32_t width, int32_t target) {
    const float top = b->simd->largest(z, width);
    const bool within = target >= first && target - first < width;
    return (struct fkv_likelihood){.largest = top,
                                   .target = within ? (double)z[target - first] : NAN,
                                   .top1 = first + first_equal(z, width, top)};
}

/* What is subtracted in exponents. */
static double shift_of(const struct fkv_likelihood *l) {
    return l->largest == -INFINITY ? 0 : l->largest;
}

int fkv_cpu_score(struct fkv_backend *b, const struct fkv_buffer *logits, int32_t first,
                  int32_t width, const int32_t *targets, int32_t rows, struct fkv_likelihood *out,
                  struct fkv_error *err) {
    (void)err;
#pragma omp parallel for schedule(guided)                                                          \
    num_threads(fkv_cpu_threads(b, 16 * (int64_t)rows * width))
    for (int32_t r = 0; r < rows; r++) {
        const float *z = row_of(logits, r, width);
        out[r] = look(b, z, first, width, targets[r]);
        out[r].sum = b->simd->sum_exp(z, width, shift_of(&out[r]));
    }
    return FKV_OK;
}

int fkv_cpu_compare(struct fkv_backend *b, const struct fkv_buffer *p, const struct fkv_buffer *q,
                    int32_t first, int32_t width, const int32_t *targets, int32_t rows,
                    struct fkv_likelihood *p_out, struct fkv_likelihood *q_out, double *gap,
                    struct fkv_error *err) {
    (void)err;
#pragma omp parallel for schedule(guided)                                                          \
    num_threads(fkv_cpu_threads(b, 32 * (int64_t)rows * width))
    for (int32_t r = 0; r < rows; r++) {
        const float *z = row_of(p, r, width), *y = row_of(q, r, width);
        const int32_t target = targets[r];
        double back;
        p_out[r] = look(b, z, first, width, target);
        q_out[r] = look(b, y, first, width, target);
        p_out[r].sum = b->simd->sum_gap(z, y, width, shift_of(&p_out[r]), &gap[r]);
        q_out[r].sum = b->simd->sum_gap(y, z, width, shift_of(&q_out[r]), &back);
    }
    return FKV_OK;
}
