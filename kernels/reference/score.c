/* What a panel of logits says of its rows, as equations (kernels/likelihood.h). */
#include "kernels/reference/reference.h"

static struct fkv_likelihood likelihood(const float *x, int32_t first, int32_t width,
                                        int32_t target) {
    struct fkv_likelihood l = fkv_likelihood_none();
    l.top1 = first;
    for (int32_t i = 0; i < width; i++) {
        if (x[i] > l.largest) l.largest = x[i], l.top1 = first + i;
        if (target == first + i) l.target = x[i];
    }
    for (int32_t i = 0; i < width; i++)
        l.sum += l.largest == -INFINITY ? exp(x[i]) : exp(x[i] - l.largest);
    return l;
}

int fkv_reference_score(struct fkv_backend *b, const struct fkv_buffer *logits, int32_t first,
                        int32_t width, const int32_t *targets, int32_t rows,
                        struct fkv_likelihood *out, struct fkv_error *err) {
    (void)b, (void)err;
    for (int32_t r = 0; r < rows; r++)
        out[r] = likelihood((const float *)logits->data + (size_t)r * (size_t)width, first, width,
                            targets[r]);
    return FKV_OK;
}

int fkv_reference_compare(struct fkv_backend *b, const struct fkv_buffer *p,
                          const struct fkv_buffer *q, int32_t first, int32_t width,
                          const int32_t *targets, int32_t rows, struct fkv_likelihood *p_out,
                          struct fkv_likelihood *q_out, double *gap, struct fkv_error *err) {
    (void)b, (void)err;
    for (int32_t r = 0; r < rows; r++) {
        const float *x = (const float *)p->data + (size_t)r * (size_t)width;
        const float *y = (const float *)q->data + (size_t)r * (size_t)width;
        p_out[r] = likelihood(x, first, width, targets[r]);
        q_out[r] = likelihood(y, first, width, targets[r]);
        gap[r] = 0;
        for (int32_t i = 0; i < width; i++) {
            const double weight = x[i] == -INFINITY ? 0 : exp(x[i] - p_out[r].largest);
            if (weight != 0) gap[r] += weight * ((double)x[i] - y[i]);
        }
    }
    return FKV_OK;
}
