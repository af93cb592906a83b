/* Owns the rounding of matrices while a model is loaded. Products in bfloat16 round weights of
 * another dtype each time they read them, which in decoding takes longer than the product. Rounded
 * beforehand they are the same bits, and half of float32 to read. Block formats stay: they take a
 * quarter to a half of what they would in bfloat16.
 *
 * The copies are refused more than half of the memory that is there, so that a session that had
 * room without them keeps it; then weights are rounded at every product. */
#include "engine/checkpoint/rounding.h"

#include <stdlib.h>

#include "kernels/base/host.h"

static bool is_rounded(const struct fkv_weight *w) {
    return w->format == FKV_WEIGHT_F32 || w->format == FKV_WEIGHT_F16;
}

static size_t count_of(const struct fkv_weight *w) { return (size_t)w->rows * (size_t)w->cols; }

/* n values of a dtype at `from` -> the whole buffer. */
static int round_values(const struct fkv_model *m, const char *from, enum fkv_dtype dtype, size_t n,
                        int threads, struct fkv_buffer *to, struct fkv_error *err) {
    enum { SOME = 4096 };
    const int64_t pieces = (int64_t)((n + SOME - 1) / SOME);
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (int64_t i = 0; i < pieces; i++) {
        const size_t at = (size_t)i * SOME, count = n - at < SOME ? n - at : SOME;
        float values[SOME];
        uint16_t rounded[SOME];
        struct fkv_error unused;
        fkv_to_f32(from + at * fkv_dtype_bytes(dtype), dtype, count, values);
        fkv_from_f32(values, FKV_BF16, count, rounded);
        failed |= m->ops->write(m->backend, to, at * sizeof *rounded, rounded,
                                count * sizeof *rounded, &unused);
    }
    return failed ? fkv_fail(err, "weights in bfloat16: cannot be written") : FKV_OK;
}

/* Puts the rounded buffer in the place of the weight's own, or beside that of the embedding. */
static void replace(struct fkv_model *m, struct fkv_weight *w, struct fkv_buffer *rounded) {
    int32_t i = 0;
    while (i < m->buffer_count && (m->buffers[i] != w->data || w->data == m->embedding.data)) i++;
    if (i < m->buffer_count) {
        if (m->copies[i]) m->merged_bytes -= (int64_t)fkv_weight_bytes(w->format, count_of(w));
        m->weight_bytes -= (int64_t)fkv_weight_bytes(w->format, count_of(w));
        m->ops->buffer_release(m->backend, m->buffers[i]);
        free(m->copies[i]);
    } else {
        m->buffer_count++;
    }
    m->weight_bytes += (int64_t)fkv_weight_bytes(FKV_WEIGHT_BF16, count_of(w));
    m->buffers[i] = w->data = rounded;
    m->copies[i] = NULL;
    w->format = FKV_WEIGHT_BF16;
}

static int round_weight(struct fkv_model *m, struct fkv_weight *w, int threads,
                        struct fkv_error *err) {
    struct fkv_buffer *rounded;
    const size_t n = count_of(w), bytes = fkv_weight_bytes(FKV_WEIGHT_BF16, n);
    if (m->ops->buffer_create(m->backend, bytes, &rounded, err))
        return fkv_error_prefix(err, "weights in bfloat16");
    const char *from = (const char *)m->ops->address(w->data) + w->offset;
    const int status = round_values(m, from, fkv_weight_dtype(w), n, threads, rounded, err);
    if (status)
        m->ops->buffer_release(m->backend, rounded);
    else
        replace(m, w, rounded);
    return status;
}

enum { MATRICES = 7 };

/* The matrices of a layer. */
static void list(struct fkv_layer_weights *l, struct fkv_weight *to[MATRICES]) {
    struct fkv_weight *all[MATRICES] = {&l->qkv.wq,   &l->qkv.wk, &l->qkv.wv, &l->output.w,
                                        &l->mlp.gate, &l->mlp.up, &l->down.w};
    for (int i = 0; i < MATRICES; i++) to[i] = all[i];
}

static int64_t bytes_of(const struct fkv_weight *w) {
    return is_rounded(w) ? (int64_t)fkv_weight_bytes(FKV_WEIGHT_BF16, count_of(w)) : 0;
}

int fkv_model_round(struct fkv_model *m, int threads, struct fkv_error *err) {
    struct fkv_weight *matrices[MATRICES];
    m->rounded_bytes = bytes_of(&m->logits.w);
    for (int32_t l = 0; l < m->config.layers; l++) {
        list(&m->layers[l], matrices);
        for (int i = 0; i < MATRICES; i++) m->rounded_bytes += bytes_of(matrices[i]);
    }
    const int64_t available = fkv_host_memory_available();
    m->rounded = available < 0 || m->rounded_bytes <= available / 2;
    if (!m->rounded) return FKV_OK;
    for (int32_t l = 0; l < m->config.layers; l++) {
        list(&m->layers[l], matrices);
        for (int i = 0; i < MATRICES; i++)
            if (is_rounded(matrices[i]) && round_weight(m, matrices[i], threads, err))
                return FKV_FAILED;
    }
    return is_rounded(&m->logits.w) ? round_weight(m, &m->logits.w, threads, err) : FKV_OK;
}
