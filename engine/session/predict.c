/* What the last feed predicts: logits and scores of its rows, a bounded number of rows at a time,
 * because a vocabulary is wide. */
#include <stdlib.h>

#include "engine/session/kept_logits.h"
#include "engine/session/session_internal.h"

static int check_rows(const struct fkv_session *s, int32_t row, int32_t rows,
                      struct fkv_error *err) {
    if (row >= 0 && rows >= 0 && row + rows <= s->last_rows) return FKV_OK;
    return fkv_fail(err, "logits: expected rows within the %d of the last feed, found %d to %d",
                    s->last_rows, row, row + rows);
}

/* Logits of rows [row, row+rows), at most logit_rows, into s->logits; kept until another range or
 * feed. */
static int compute_logits(struct fkv_session *s, int32_t row, int32_t rows, struct fkv_error *err) {
    if (s->logits_count == rows && s->logits_row == row) return FKV_OK;
    s->logits_count = 0;
    if (s->ops->norm_logits(s->backend, &s->model->logits, s->x, row, rows, s->logits, err))
        return FKV_FAILED;
    s->logits_row = row;
    s->logits_count = rows;
    return FKV_OK;
}

int32_t fkv_session_logit_rows(const struct fkv_session *s) { return s->logit_rows; }

int fkv_session_logits(struct fkv_session *s, int32_t row, int32_t rows, float *logits,
                       struct fkv_error *err) {
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    size_t width = (size_t)s->model->config.vocab;
    for (int32_t at = 0; at < rows; at += s->logit_rows) {
        int32_t count = rows - at < s->logit_rows ? rows - at : s->logit_rows;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->read(s->backend, s->logits, 0, logits + (size_t)at * width,
                         sizeof(float) * width * (size_t)count, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_session_score(struct fkv_session *s, struct fkv_session *reference, int32_t row,
                      int32_t rows, const int32_t *targets, double *nll, int32_t *top1, double *kl,
                      struct fkv_error *err) {
    if (check_rows(s, row, rows, err) || (kl && check_rows(reference, row, rows, err)))
        return FKV_FAILED;
    int32_t vocab = s->model->config.vocab, step = s->logit_rows;
    if (kl && reference->logit_rows < step) step = reference->logit_rows;
    for (int32_t i = 0; i < rows; i++)
        if (targets[i] < 0 || targets[i] >= vocab)
            return fkv_fail(err, "score: row %d: expected a target below %d, found %d", row + i,
                            vocab, targets[i]);
    for (int32_t at = 0; at < rows; at += step) {
        int32_t count = rows - at < step ? rows - at : step;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->score(s->backend, s->logits, targets + at, count, vocab, nll + at,
                          top1 ? top1 + at : NULL, err))
            return FKV_FAILED;
        if (kl && (compute_logits(reference, row + at, count, err) ||
                   s->ops->divergence(s->backend, reference->logits, s->logits, count, vocab,
                                      kl + at, err)))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- keeping ---- */

struct fkv_kept_logits {
    struct fkv_session *session;
    struct fkv_buffer *logits; /* [rows, vocab] */
    struct fkv_buffer *some;   /* [logit_rows, vocab]: `divergence` takes whole buffers */
    int32_t rows;
};

static size_t logit_bytes(const struct fkv_session *s) {
    return sizeof(float) * (size_t)s->model->config.vocab;
}

int fkv_kept_logits_open(struct fkv_session *s, int32_t rows, struct fkv_kept_logits **out,
                         struct fkv_error *err) {
    struct fkv_kept_logits *kept = *out = calloc(1, sizeof *kept);
    if (!kept) return fkv_fail(err, "logits: out of memory");
    *kept = (struct fkv_kept_logits){.session = s, .rows = rows};
    if (!s->ops->buffer_create(s->backend, (size_t)rows * logit_bytes(s), &kept->logits, err) &&
        !s->ops->buffer_create(s->backend, (size_t)s->logit_rows * logit_bytes(s), &kept->some,
                               err))
        return FKV_OK;
    fkv_kept_logits_free(kept);
    *out = NULL;
    return fkv_error_prefix(err, "logits to keep");
}

static int check_kept(const struct fkv_kept_logits *kept, const struct fkv_session *s, int32_t at,
                      int32_t rows, struct fkv_error *err) {
    if (kept->session != s) return fkv_fail(err, "logits: these were kept of another session");
    if (at >= 0 && at + rows <= kept->rows) return FKV_OK;
    return fkv_fail(err, "logits: expected rows within the %d that are kept, found %d to %d",
                    kept->rows, at, at + rows);
}

int fkv_session_keep_logits(struct fkv_session *s, int32_t row, int32_t rows,
                            struct fkv_kept_logits *kept, int32_t at, struct fkv_error *err) {
    if (check_rows(s, row, rows, err) || check_kept(kept, s, at, rows, err)) return FKV_FAILED;
    for (int32_t i = 0; i < rows; i += s->logit_rows) {
        int32_t count = rows - i < s->logit_rows ? rows - i : s->logit_rows;
        if (compute_logits(s, row + i, count, err) ||
            s->ops->copy(s->backend, kept->logits, (size_t)(at + i) * logit_bytes(s), s->logits, 0,
                         (size_t)count * logit_bytes(s), err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_session_divergence(struct fkv_session *s, int32_t row, int32_t rows,
                           const struct fkv_kept_logits *kept, int32_t at, double *kl,
                           struct fkv_error *err) {
    if (check_rows(s, row, rows, err) || check_kept(kept, s, at, rows, err)) return FKV_FAILED;
    for (int32_t i = 0; i < rows; i += s->logit_rows) {
        int32_t count = rows - i < s->logit_rows ? rows - i : s->logit_rows;
        if (compute_logits(s, row + i, count, err) ||
            s->ops->copy(s->backend, kept->some, 0, kept->logits, (size_t)(at + i) * logit_bytes(s),
                         (size_t)count * logit_bytes(s), err) ||
            s->ops->divergence(s->backend, kept->some, s->logits, count, s->model->config.vocab,
                               kl + i, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

void fkv_kept_logits_free(struct fkv_kept_logits *kept) {
    if (!kept) return;
    kept->session->ops->buffer_release(kept->session->backend, kept->logits);
    kept->session->ops->buffer_release(kept->session->backend, kept->some);
    free(kept);
}
