/* Likelihoods and divergences from logits, in double.
 *
 *   nll = log sum_v exp(z_v) - z_target = A + log Z - z_target,   A the largest logit, Z = sum_v
 *           e^(z_v - A)
 *   KL(P || Q) = sum_v p_v (log p_v - log q_v) = (1/Z_p) sum_v e^(z_v - A) (z_v - y_v) - (A + log
 *   Z_p) + (B + log Z_q)
 *
 * so that nothing overflows and each row is read once for its largest logit and once for its sums.
 * Both Z of a divergence come from one loop: in another order of summation a distribution would be
 * 1e-15 from itself. A NaN reaches the result through the sums; +inf does too, as inf - inf. Only a
 * row of nothing but -inf (and NaN) has to be seen beforehand. */
#include <math.h>

#include "kernels/cpu/cpu.h"

static const float *row_of(const struct fkv_buffer *logits, int32_t row, int32_t vocab) {
    return fkv_cpu_floats(logits) + (size_t)row * (size_t)vocab;
}

static int32_t first_equal(const float *z, int32_t vocab, float top) {
    for (int32_t v = 0; v < vocab; v++)
        if (z[v] == top) return v;
    return 0; /* a row of NaN */
}

int fkv_cpu_score(struct fkv_backend *b, const struct fkv_buffer *logits, const int32_t *targets,
                  int32_t rows, int32_t vocab, double *nll, int32_t *top1, struct fkv_error *err) {
    for (int32_t r = 0; r < rows; r++)
        if (targets[r] < 0 || targets[r] >= vocab)
            return fkv_fail(err, "target %d: expected an id in [0, %d), found %d", r, vocab,
                            targets[r]);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(fkv_cpu_threads(b, 16 * (int64_t)rows * vocab))
    for (int32_t r = 0; r < rows; r++) {
        const float *z = row_of(logits, r, vocab);
        double top = b->simd->largest(z, vocab);
        nll[r] =
            top == -INFINITY ? NAN : top + log(b->simd->sum_exp(z, vocab, top)) - z[targets[r]];
        if (top1) top1[r] = first_equal(z, vocab, (float)top);
    }
    return FKV_OK;
}

int fkv_cpu_divergence(struct fkv_backend *b, const struct fkv_buffer *p,
                       const struct fkv_buffer *q, int32_t rows, int32_t vocab, double *kl,
                       struct fkv_error *err) {
    (void)err;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(fkv_cpu_threads(b, 16 * (int64_t)rows * vocab))
    for (int32_t r = 0; r < rows; r++) {
        const float *z = row_of(p, r, vocab), *y = row_of(q, r, vocab);
        double zt = b->simd->largest(z, vocab), yt = b->simd->largest(y, vocab), gap, back;
        double zs = b->simd->sum_gap(z, y, vocab, zt, &gap),
               ys = b->simd->sum_gap(y, z, vocab, yt, &back);
        kl[r] =
            zt == -INFINITY || yt == -INFINITY ? NAN : gap / zs - (zt + log(zs)) + (yt + log(ys));
    }
    return FKV_OK;
}
