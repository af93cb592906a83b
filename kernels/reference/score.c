/* What experiments read from logits: negative log likelihood and Kullback-Leibler divergence, in
 * nats. */
#include <math.h>

#include "kernels/reference/reference.h"

/* log(sum(exp(x))) relative to the largest; NaN where an element is NaN or none is finite. */
static double log_sum_exp(const float *x, int32_t count) {
    double largest = -INFINITY, sum = 0;
    bool finite = false;
    for (int32_t i = 0; i < count; i++) {
        if (isnan(x[i])) return NAN;
        largest = fmax(largest, x[i]);
        finite |= isfinite(x[i]) != 0;
    }
    if (!finite) return NAN;
    for (int32_t i = 0; i < count; i++) sum += exp(x[i] - largest);
    return largest + log(sum);
}

int fkv_reference_score(struct fkv_backend *b, const struct fkv_buffer *logits,
                        const int32_t *targets, int32_t rows, int32_t vocab, double *nll,
                        int32_t *top1, struct fkv_error *err) {
    (void)b;
    for (int32_t r = 0; r < rows; r++) {
        if (targets[r] < 0 || targets[r] >= vocab)
            return fkv_fail(err, "target %d: expected an id in [0, %d), found %d", r, vocab,
                            targets[r]);
        const float *x = (const float *)logits->data + (size_t)r * (size_t)vocab;
        nll[r] = log_sum_exp(x, vocab) - x[targets[r]];
        int32_t best = 0;
        for (int32_t i = 1; i < vocab; i++)
            if (x[i] > x[best]) best = i;
        if (top1) top1[r] = best;
    }
    return FKV_OK;
}

/* KL(p || q) = sum_i p_i (log p_i - log q_i); a p_i of 0 adds nothing */
int fkv_reference_divergence(struct fkv_backend *b, const struct fkv_buffer *p,
                             const struct fkv_buffer *q, int32_t rows, int32_t vocab, double *kl,
                             struct fkv_error *err) {
    (void)b, (void)err;
    for (int32_t r = 0; r < rows; r++) {
        const float *x = (const float *)p->data + (size_t)r * (size_t)vocab;
        const float *y = (const float *)q->data + (size_t)r * (size_t)vocab;
        double x_total = log_sum_exp(x, vocab), y_total = log_sum_exp(y, vocab);
        kl[r] = isnan(y_total) ? NAN : 0;
        for (int32_t i = 0; i < vocab; i++) {
            double log_p = x[i] - x_total, weight = exp(log_p);
            if (weight != 0) kl[r] += weight * (log_p - (y[i] - y_total));
        }
    }
    return FKV_OK;
}
