/* The steps of a layer around its matrix products: embedding, RMSNorm and what follows it. A norm
 * that is absent leaves its input as it is.
 *
 *   rmsnorm(x)_i = x_i / sqrt(mean(x^2) + eps) * norm_i
 *
 * The mean of squares is summed in double: a hidden state has a few channels a thousand times
 * larger than the rest, and this sum costs little next to a product. */
#include "kernels/cpu/cpu.h"

/* Scratch for a block of rows of this width was reserved. */
static int check_block(const struct fkv_backend *b, int32_t rows, int32_t width, int32_t reserved,
                       struct fkv_error *err) {
    if (rows <= b->limits.rows && width <= reserved) return FKV_OK;
    return fkv_fail(err, "a block of %d rows of %d, but %d of %d were reserved", rows, width,
                    b->limits.rows, reserved);
}

/* A norm's weight as float32 at `to`. */
static const float *expand(const struct fkv_weight *w, float *to) {
    fkv_weight_expand(w->format, fkv_cpu_weight(w), (size_t)w->cols, to);
    return to;
}

/* The rows of x as products take them: as they are where the norm is absent. */
static struct fkv_cpu_input input(struct fkv_backend *b, const float *x,
                                  const struct fkv_weight *norm, float eps) {
    return (struct fkv_cpu_input){x, norm->data ? expand(norm, b->norm) : NULL, eps};
}

/* Every run of as many channels of x [rows, width] as the norm has, in place; nothing where the
 * norm is absent. */
static void normalise_heads(struct fkv_backend *b, float *x, const struct fkv_weight *norm,
                            float eps, int32_t rows, int32_t width) {
    if (!norm->data) return;
    const float *factors = expand(norm, b->norm);
    int32_t n = norm->cols;
#pragma omp parallel for schedule(guided) num_threads(fkv_cpu_threads(b, 8 * (int64_t)rows * width))
    for (int32_t i = 0; i < rows * (width / n); i++) {
        float *head = x + (size_t)i * (size_t)n;
        b->simd->normalise(head, factors, n, eps, head);
    }
}

int fkv_cpu_embed(struct fkv_backend *b, const struct fkv_weight *table, float multiplier,
                  const int32_t *tokens, int32_t rows, struct fkv_buffer *x,
                  struct fkv_error *err) {
    (void)b;
    size_t dim = (size_t)table->cols, bytes = fkv_weight_bytes(table->format, dim);
    for (int32_t r = 0; r < rows; r++) {
        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return fkv_fail(err, "token %d of the block: expected an id in [0, %d), found %d", r,
                            table->rows, tokens[r]);
        const char *from = (const char *)fkv_cpu_weight(table) + (size_t)tokens[r] * bytes;
        float *to = fkv_cpu_floats(x) + (size_t)r * dim;
        fkv_weight_expand(table->format, from, dim, to);
        for (size_t i = 0; multiplier != 1 && i < dim; i++) to[i] *= multiplier;
    }
    return FKV_OK;
}

int fkv_cpu_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                     const struct fkv_qkv_weights *w, const struct fkv_buffer *x, int32_t rows,
                     struct fkv_buffer *q, struct fkv_buffer *k, struct fkv_buffer *v,
                     struct fkv_error *err) {
    (void)shape; /* the weights say all */
    if (check_block(b, rows, w->wq.cols, b->limits.dim, err)) return FKV_FAILED;
    const struct fkv_cpu_input in = input(b, fkv_cpu_floats(x), &w->norm, w->eps);
    const struct fkv_cpu_product products[] = {
        {.w = &w->wq, .bias = &w->bq, .out = fkv_cpu_floats(q)},
        {.w = &w->wk, .bias = &w->bk, .out = fkv_cpu_floats(k)},
        {.w = &w->wv, .bias = &w->bv, .out = fkv_cpu_floats(v)}};
    if (fkv_cpu_multiply(b, products, 3, &in, rows, err)) return FKV_FAILED;
    normalise_heads(b, fkv_cpu_floats(q), &w->q_norm, w->eps, rows, w->wq.rows);
    normalise_heads(b, fkv_cpu_floats(k), &w->k_norm, w->eps, rows, w->wk.rows);
    return FKV_OK;
}

/* x [rows, n] += multiplier * y, where y is normalised before. */
static void add_rows(struct fkv_backend *b, const struct fkv_residual_weights *w, float *y,
                     int32_t rows, float *x) {
    const float *factors = w->norm.data ? expand(&w->norm, b->norm) : NULL;
    const int32_t n = w->w.rows;
#pragma omp parallel for schedule(guided) num_threads(fkv_cpu_threads(b, 10 * (int64_t)rows * n))
    for (int32_t r = 0; r < rows; r++) {
        float *from = y + (size_t)r * (size_t)n, *to = x + (size_t)r * (size_t)n;
        if (factors) b->simd->normalise(from, factors, n, w->eps, from);
        for (int32_t i = 0; i < n; i++) to[i] += w->multiplier * from[i];
    }
}

int fkv_cpu_project_residual(struct fkv_backend *b, const struct fkv_residual_weights *w,
                             const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                             struct fkv_error *err) {
    const bool directly = !w->norm.data && w->multiplier == 1;
    if (check_block(b, rows, w->w.cols, fkv_cpu_widest(&b->limits), err) ||
        (!directly && check_block(b, rows, w->w.rows, b->limits.dim, err)))
        return FKV_FAILED;
    const struct fkv_cpu_product product = {
        .w = &w->w, .out = directly ? fkv_cpu_floats(x) : b->normed, .add = directly};
    const struct fkv_cpu_input given = {.x = fkv_cpu_floats(in)};
    if (fkv_cpu_multiply(b, &product, 1, &given, rows, err)) return FKV_FAILED;
    if (!directly) add_rows(b, w, b->normed, rows, fkv_cpu_floats(x));
    return FKV_OK;
}

int fkv_cpu_norm_gate_up(struct fkv_backend *b, const struct fkv_gate_up_weights *w,
                         const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                         struct fkv_error *err) {
    if (check_block(b, rows, w->gate.cols, b->limits.dim, err)) return FKV_FAILED;
    if (check_block(b, rows, w->gate.rows, b->limits.hidden, err)) return FKV_FAILED;
    const struct fkv_cpu_input in = input(b, fkv_cpu_floats(x), &w->norm, w->eps);
    const struct fkv_cpu_product product = {.w = &w->up,
                                            .out = fkv_cpu_floats(out),
                                            .gate = &w->gate,
                                            .activate = w->activation == FKV_SILU ? b->simd->swish
                                                                                  : b->simd->gelu};
    return fkv_cpu_multiply(b, &product, 1, &in, rows, err);
}

/* x [rows, n] = cap(multiplier * x), in place */
static void cap_rows(struct fkv_backend *b, float multiplier, float softcap, int32_t rows,
                     int32_t n, float *x) {
#pragma omp parallel for schedule(guided) num_threads(fkv_cpu_threads(b, 16 * (int64_t)rows * n))
    for (int32_t r = 0; r < rows; r++) {
        float *row = x + (size_t)r * (size_t)n;
        for (int32_t i = 0; i < n; i++) row[i] *= multiplier;
        if (softcap > 0) b->simd->cap(row, (size_t)n, softcap);
    }
}

int fkv_cpu_norm_logits(struct fkv_backend *b, const struct fkv_logits_weights *w,
                        const struct fkv_buffer *x, int32_t row, int32_t rows,
                        struct fkv_buffer *logits, struct fkv_error *err) {
    const int32_t dim = w->w.cols;
    if (check_block(b, rows, dim, b->limits.dim, err)) return FKV_FAILED;
    const struct fkv_cpu_input in =
        input(b, fkv_cpu_floats(x) + (size_t)row * (size_t)dim, &w->norm, w->eps);
    const struct fkv_cpu_product product = {.w = &w->w, .out = fkv_cpu_floats(logits)};
    if (fkv_cpu_multiply(b, &product, 1, &in, rows, err)) return FKV_FAILED;
    if (w->multiplier != 1 || w->softcap > 0)
        cap_rows(b, w->multiplier, w->softcap, rows, w->w.rows, fkv_cpu_floats(logits));
    return FKV_OK;
}
