/* Likelihoods and divergences from logits, in double.
 *
 *   nll = log sum_v exp(z_v) - z_target                       KL(P || Q) = sum_v p_v (log p_v - log q_v)
 *       = largest + log Z - z_target                                     = (1/Z_p) sum_v e^(a_v - A) (a_v - b_v) - (A + log Z_p) + (B + log Z_q)
 *
 * with the largest logit taken out of every exponential (A, B those of the two rows), so that nothing overflows. */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* NaN where a logit is NaN or none is finite: such a row has no distribution. Else its largest logit. */
static float check_row(const float *z, int32_t vocab, int32_t *at) {
    float top = -INFINITY;
    bool finite = false, nan = false;
    *at = 0;
    for (int32_t v = 0; v < vocab; v++) {
        if (z[v] > top) top = z[v], *at = v;
        finite |= isfinite(z[v]) != 0;
        nan |= isnan(z[v]) != 0;
    }
    return nan || !finite ? NAN : top;
}

int fkv_cpu_score(struct fkv_backend *b, const struct fkv_buffer *logits, const int32_t *targets, int32_t rows,
                  int32_t vocab, double *nll, int32_t *top1, struct fkv_error *err) {
    for (int32_t r = 0; r < rows; r++)
        if (targets[r] < 0 || targets[r] >= vocab)
            return fkv_fail(err, "target %d: expected an id in [0, %d), found %d", r, vocab, targets[r]);
#pragma omp parallel for schedule(static) num_threads(b->threads)
    for (int32_t r = 0; r < rows; r++) {
        const float *z = fkv_cpu_floats(logits) + (size_t)r * (size_t)vocab;
        int32_t at;
        float top = check_row(z, vocab, &at);
        nll[r] = isnan(top) ? NAN : top + log(b->simd->sum_exp(z, vocab, top)) - z[targets[r]];
        if (top1) top1[r] = at;
    }
    return FKV_OK;
}

int fkv_cpu_divergence(struct fkv_backend *b, const struct fkv_buffer *p, const struct fkv_buffer *q, int32_t rows,
                       int32_t vocab, double *kl, struct fkv_error *err) {
    (void)err;
#pragma omp parallel for schedule(static) num_threads(b->threads)
    for (int32_t r = 0; r < rows; r++) {
        const float *z = fkv_cpu_floats(p) + (size_t)r * (size_t)vocab;
        const float *y = fkv_cpu_floats(q) + (size_t)r * (size_t)vocab;
        int32_t at;
        double zt = check_row(z, vocab, &at), yt = check_row(y, vocab, &at);
        if (isnan(zt) || isnan(yt)) {
            kl[r] = NAN;
            continue;
        }
        double zsum = 0, gap = 0;
        for (int32_t v = 0; v < vocab; v++) {
            double e = exp(z[v] - zt);
            zsum += e;
            if (e > 0) gap += e * ((double)z[v] - y[v]);
        }
        kl[r] = gap / zsum - (zt + log(zsum)) + (yt + log(b->simd->sum_exp(y, vocab, yt)));
    }
    return FKV_OK;
}
