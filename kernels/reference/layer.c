/* The steps of a layer, as equations. */
#include <math.h>

#include "kernels/reference/reference.h"

static const char *weight_data(const struct fkv_weight *w) { return w->data->data + w->offset; }

/* Element i of a vector. */
static double vector_at(const struct fkv_weight *w, int32_t i) {
    return fkv_reference_load(weight_data(w), fkv_weight_dtype(w), (size_t)i);
}

/* Values [at, at + n) of row `row`; `at` starts a block. */
static void matrix_values(const struct fkv_weight *w, int32_t row, int32_t at, int32_t n,
                          float *values) {
    const size_t first = (size_t)row * (size_t)w->cols + (size_t)at;
    fkv_weight_expand(w->format, weight_data(w) + fkv_weight_bytes(w->format, first), (size_t)n,
                      values);
}

/* x [n] -> x / sqrt(mean(x^2) + eps) * norm, in place; nothing where the norm is absent. */
static void rms_norm(double *x, int32_t n, const struct fkv_weight *norm, double eps) {
    double squares = 0;
    if (!norm->data) return;
    for (int32_t i = 0; i < n; i++) squares += x[i] * x[i];
    double scale = 1 / sqrt(squares / n + eps);
    for (int32_t i = 0; i < n; i++) x[i] *= scale * vector_at(norm, i);
}

/* Row r of x [.., n] -> out [n], normalised. */
static void load_normed(const struct fkv_buffer *x, size_t r, int32_t n,
                        const struct fkv_weight *norm, double eps, double *out) {
    const float *row = (const float *)x->data + r * (size_t)n;
    for (int32_t i = 0; i < n; i++) out[i] = row[i];
    rms_norm(out, n, norm, eps);
}

/* cap 0: none */
static double capped(double x, double cap) { return cap > 0 ? cap * tanh(x / cap) : x; }

/* Row `o` of W (out, in) times x [in] */
static double dot_row(const struct fkv_weight *w, int32_t o, const double *x) {
    enum { SOME = FKV_WEIGHT_MOST_BLOCK };
    float values[SOME];
    double sum = 0;
    for (int32_t at = 0; at < w->cols; at += SOME) {
        const int32_t n = w->cols - at < SOME ? w->cols - at : SOME;
        matrix_values(w, o, at, n, values);
        for (int32_t i = 0; i < n; i++) sum += (double)values[i] * x[at + i];
    }
    return sum;
}

int fkv_reference_embed(struct fkv_backend *b, const struct fkv_weight *table, float multiplier,
                        const int32_t *tokens, int32_t rows, struct fkv_buffer *x,
                        struct fkv_error *err) {
    (void)b;
    float *out = (float *)x->data;
    size_t dim = (size_t)table->cols;
    for (int32_t r = 0; r < rows; r++) {
        if (tokens[r] < 0 || tokens[r] >= table->rows)
            return fkv_fail(err, "token %d of the block: expected an id in [0, %d), found %d", r,
                            table->rows, tokens[r]);
        matrix_values(table, tokens[r], 0, table->cols, out + (size_t)r * dim);
        for (size_t i = 0; i < dim; i++) out[(size_t)r * dim + i] *= multiplier;
    }
    return FKV_OK;
}

/* y = W x + b; then, where `norm` is present, each run of as many channels as it has is
 * RMS-normalised. y [w->rows] is scratch. */
static void project_heads(const struct fkv_weight *w, const struct fkv_weight *bias,
                          const struct fkv_weight *norm, double eps, const double *x, double *y,
                          float *out) {
    for (int32_t o = 0; o < w->rows; o++) {
        y[o] = dot_row(w, o, x);
        if (bias->data) y[o] += vector_at(bias, o);
    }
    for (int32_t at = 0; norm->data && at < w->rows; at += norm->cols)
        rms_norm(y + at, norm->cols, norm, eps);
    for (int32_t o = 0; o < w->rows; o++) out[o] = (float)y[o];
}

int fkv_reference_norm_qkv(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                           const struct fkv_qkv_weights *w, const struct fkv_buffer *x,
                           int32_t rows, struct fkv_buffer *q, struct fkv_buffer *k,
                           struct fkv_buffer *v, struct fkv_error *err) {
    static const struct fkv_weight none = {0};
    double *n =
        fkv_reference_scratch(b, (size_t)shape->dim + (size_t)w->wq.rows + (size_t)w->wk.rows, err);
    if (!n) return FKV_FAILED;
    double *y = n + shape->dim;
    for (size_t r = 0; r < (size_t)rows; r++) {
        load_normed(x, r, shape->dim, &w->norm, w->eps, n);
        project_heads(&w->wq, &w->bq, &w->q_norm, w->eps, n, y,
                      (float *)q->data + r * (size_t)w->wq.rows);
        project_heads(&w->wk, &w->bk, &w->k_norm, w->eps, n, y,
                      (float *)k->data + r * (size_t)w->wk.rows);
        project_heads(&w->wv, &w->bv, &none, w->eps, n, y,
                      (float *)v->data + r * (size_t)w->wv.rows);
    }
    return FKV_OK;
}

void fkv_reference_turn(const struct fkv_attention_shape *shape, double position, double *x) {
    int32_t half = shape->rotary / 2;
    for (int32_t i = 0; i < half; i++) {
        double angle = position * shape->inv_freq[i], c = cos(angle), s = sin(angle), a = x[i],
               b = x[i + half];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

int fkv_reference_append(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const struct fkv_buffer *k, const struct fkv_buffer *v,
                         const struct fkv_cache *cache, const struct fkv_append_item *items,
                         int32_t count, struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim;
    double *key = fkv_reference_scratch(b, 2 * d, err);
    const enum fkv_quant before = cache->quant_before ? cache->quant : FKV_NO_QUANT,
                         after = cache->quant_before ? FKV_NO_QUANT : cache->quant;
    if (!key) return FKV_FAILED;
    double *value = key + d;
    for (const struct fkv_append_item *item = items; item < items + count; item++)
        for (int32_t r = 0; r < item->rows; r++) {
            size_t from =
                ((size_t)(item->row + r) * (size_t)shape->kv_heads + (size_t)item->kv_head) * d;
            size_t to = fkv_reference_slot(shape, cache, item->cache_head, item->slot + r);
            for (size_t i = 0; i < d; i++) {
                key[i] = ((const float *)k->data)[from + i];
                value[i] = ((const float *)v->data)[from + i];
            }
            fkv_reference_round(before, d, key);
            fkv_reference_turn(shape, item->position + r, key);
            fkv_reference_round(after, d, key);
            fkv_reference_round(cache->quant, d, value);
            for (size_t i = 0; i < d; i++) {
                fkv_reference_store(cache->key->data + cache->offset, cache->dtype, to + i, key[i]);
                fkv_reference_store(cache->value->data + cache->offset, cache->dtype, to + i,
                                    value[i]);
            }
        }
    return FKV_OK;
}

int fkv_reference_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const struct fkv_buffer *x, int32_t row, int32_t rows, int32_t heads,
                         double position, struct fkv_buffer *out, struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim;
    double *turned = fkv_reference_scratch(b, d, err);
    if (!turned) return FKV_FAILED;
    for (size_t r = 0; r < (size_t)rows; r++)
        for (size_t h = 0; h < (size_t)heads; h++) {
            size_t at = (((size_t)row + r) * (size_t)heads + h) * d;
            for (size_t i = 0; i < d; i++) turned[i] = ((const float *)x->data)[at + i];
            fkv_reference_turn(shape, position + (double)r, turned);
            for (int32_t i = 0; i < shape->rotary; i++) turned[i] *= (double)shape->gain;
            for (size_t i = 0; i < d; i++) ((float *)out->data)[at + i] = (float)turned[i];
        }
    return FKV_OK;
}

static bool sees(const struct fkv_span *s, int32_t i, int32_t slot) {
    return slot >= s->from + i && slot < s->until + i;
}

/* One query [head_dim] of row i over its spans -> weight [slots seen] = softmax(cap(scale q.k) +
 * bias), by span and slot. `turned` [head_dim] is scratch. */
static int query_weights(const struct fkv_attention_shape *shape, const float *q, int32_t i,
                         const struct fkv_cache *cache, int32_t cache_head,
                         const struct fkv_span *spans, int32_t count, double *turned,
                         double *weight, struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim, seen = 0;
    double largest = -INFINITY, total = 0;
    const char *keys = cache->key->data + cache->offset;
    const char *bias = cache->bias ? cache->bias->data + cache->bias_offset : NULL;
    for (const struct fkv_span *s = spans; s < spans + count; s++) {
        for (size_t c = 0; c < d; c++) turned[c] = q[c];
        fkv_reference_turn(shape, s->fixed ? s->position : s->position + i, turned);
        for (int32_t c = 0; c < shape->rotary; c++)
            turned[c] *= (double)shape->gain * (double)shape->gain;
        for (int32_t slot = s->first; slot < s->end; slot++) {
            if (!sees(s, i, slot)) continue;
            size_t at = fkv_reference_slot(shape, cache, cache_head, slot);
            double dot = 0;
            for (size_t c = 0; c < d; c++)
                dot += turned[c] * fkv_reference_load(keys, cache->dtype, at + c);
            weight[seen] = capped(shape->scale * dot, (double)shape->softcap);
            if (bias) weight[seen] += fkv_reference_load(bias, FKV_F32, at / d);
            largest = fmax(largest, weight[seen++]);
        }
    }
    if (!seen) return fkv_fail(err, "attention: row %d of an item sees no slot", i);
    for (size_t s = 0; s < seen; s++) total += weight[s] = exp(weight[s] - largest);
    for (size_t s = 0; s < seen; s++) weight[s] /= total;
    return FKV_OK;
}

/* One query of row i: out [head_dim] = sum_s p_s v_s. `scratch` holds the turned query [head_dim],
 * the sum [head_dim] and a weight per visible slot. */
static int attend_query(const struct fkv_attention_shape *shape, const float *q, int32_t i,
                        const struct fkv_cache *cache, int32_t cache_head,
                        const struct fkv_span *spans, int32_t count, double *scratch, float *out,
                        struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim;
    double *sum = scratch + d, *weight = scratch + 2 * d;
    const char *values = cache->value->data + cache->offset;
    if (query_weights(shape, q, i, cache, cache_head, spans, count, scratch, weight, err))
        return FKV_FAILED;
    for (size_t c = 0; c < d; c++) sum[c] = 0;
    for (const struct fkv_span *s = spans; s < spans + count; s++)
        for (int32_t slot = s->first; slot < s->end; slot++) {
            if (!sees(s, i, slot)) continue;
            size_t at = fkv_reference_slot(shape, cache, cache_head, slot);
            for (size_t c = 0; c < d; c++)
                sum[c] += *weight * fkv_reference_load(values, cache->dtype, at + c);
            weight++;
        }
    for (size_t c = 0; c < d; c++) out[c] = (float)sum[c];
    return FKV_OK;
}

int fkv_reference_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                         const struct fkv_buffer *q, const struct fkv_cache *cache,
                         const struct fkv_span *spans, const struct fkv_attend_item *items,
                         int32_t count, struct fkv_buffer *out, struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim;
    double *scratch = fkv_reference_scratch(b, 2 * d + (size_t)cache->capacity, err);
    if (!scratch) return FKV_FAILED;
    for (const struct fkv_attend_item *item = items; item < items + count; item++)
        for (int32_t i = 0; i < item->rows; i++)
            for (int32_t h = item->head; h < item->head + item->heads; h++) {
                size_t at = ((size_t)(item->row + i) * (size_t)shape->heads + (size_t)h) * d;
                if (attend_query(shape, (const float *)q->data + at, i, cache, item->cache_head,
                                 spans + item->span, item->spans, scratch, (float *)out->data + at,
                                 err))
                    return FKV_FAILED;
            }
    return FKV_OK;
}

/* paid [capacity] += the weights of row i of an item, averaged over its heads; one softmax per
 * head. `scratch` as in attend_query. */
static int add_paid(const struct fkv_attention_shape *shape, const float *q,
                    const struct fkv_attend_item *item, int32_t i, const struct fkv_cache *cache,
                    const struct fkv_span *spans, double *scratch, double *paid,
                    struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim;
    for (int32_t h = item->head; h < item->head + item->heads; h++) {
        size_t at = ((size_t)(item->row + i) * (size_t)shape->heads + (size_t)h) * d;
        const double *weight = scratch + d;
        if (query_weights(shape, q + at, i, cache, item->cache_head, spans + item->span,
                          item->spans, scratch, scratch + d, err))
            return FKV_FAILED;
        for (const struct fkv_span *s = spans + item->span; s < spans + item->span + item->spans;
             s++)
            for (int32_t slot = s->first; slot < s->end; slot++)
                if (sees(s, i, slot)) paid[slot] += *weight++ / item->heads;
    }
    return FKV_OK;
}

int fkv_reference_attention_paid(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                                 const struct fkv_buffer *q, const struct fkv_cache *cache,
                                 const struct fkv_span *spans, const struct fkv_attend_item *items,
                                 int32_t count, struct fkv_buffer *paid, size_t paid_offset,
                                 struct fkv_error *err) {
    size_t d = (size_t)shape->head_dim, capacity = (size_t)cache->capacity;
    double *sum = fkv_reference_scratch(b, d + 2 * capacity, err);
    if (!sum) return FKV_FAILED;
    for (const struct fkv_attend_item *item = items; item < items + count; item++) {
        float *to = (float *)(paid->data + paid_offset) + (size_t)item->cache_head * capacity;
        for (size_t s = 0; s < capacity; s++) sum[s] = 0;
        for (int32_t i = 0; i < item->rows; i++)
            if (add_paid(shape, (const float *)q->data, item, i, cache, spans, sum + capacity, sum,
                         err))
                return FKV_FAILED;
        for (size_t s = 0; s < capacity; s++) to[s] = (float)(to[s] + sum[s]);
    }
    return FKV_OK;
}

int fkv_reference_project_residual(struct fkv_backend *b, const struct fkv_residual_weights *w,
                                   const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                                   struct fkv_error *err) {
    static const struct fkv_weight none = {0};
    const int32_t cols = w->w.cols, dim = w->w.rows;
    double *row = fkv_reference_scratch(b, (size_t)cols + (size_t)dim, err);
    if (!row) return FKV_FAILED;
    double *y = row + cols;
    for (size_t r = 0; r < (size_t)rows; r++) {
        float *out = (float *)x->data + r * (size_t)dim;
        load_normed(in, r, cols, &none, 0, row);
        for (int32_t o = 0; o < dim; o++) y[o] = dot_row(&w->w, o, row);
        rms_norm(y, dim, &w->norm, w->eps);
        for (int32_t o = 0; o < dim; o++) out[o] = (float)(out[o] + (double)w->multiplier * y[o]);
    }
    return FKV_OK;
}

static double activate(enum fkv_activation activation, double z) {
    if (activation == FKV_SILU) return z / (1 + exp(-z));
    return z * (1 + tanh(sqrt(2 / acos(-1)) * (z + 0.044715 * z * z * z))) / 2;
}

int fkv_reference_norm_gate_up(struct fkv_backend *b, const struct fkv_gate_up_weights *w,
                               const struct fkv_buffer *x, int32_t rows, struct fkv_buffer *out,
                               struct fkv_error *err) {
    const int32_t dim = w->gate.cols, hidden = w->gate.rows;
    double *n = fkv_reference_scratch(b, (size_t)dim, err);
    if (!n) return FKV_FAILED;
    for (size_t r = 0; r < (size_t)rows; r++) {
        float *to = (float *)out->data + r * (size_t)hidden;
        load_normed(x, r, dim, &w->norm, w->eps, n);
        for (int32_t o = 0; o < hidden; o++)
            to[o] =
                (float)(activate(w->activation, dot_row(&w->gate, o, n)) * dot_row(&w->up, o, n));
    }
    return FKV_OK;
}

int fkv_reference_norm_logits(struct fkv_backend *b, const struct fkv_logits_weights *w,
                              const struct fkv_buffer *x, int32_t row, int32_t rows,
                              struct fkv_buffer *logits, struct fkv_error *err) {
    const int32_t dim = w->w.cols, vocab = w->w.rows;
    double *n = fkv_reference_scratch(b, (size_t)dim, err);
    if (!n) return FKV_FAILED;
    for (size_t r = 0; r < (size_t)rows; r++) {
        float *to = (float *)logits->data + r * (size_t)vocab;
        load_normed(x, (size_t)row + r, dim, &w->norm, w->eps, n);
        for (int32_t o = 0; o < vocab; o++)
            to[o] = (float)capped((double)w->multiplier * dot_row(&w->w, o, n), (double)w->softcap);
    }
    return FKV_OK;
}
