/* What the last feed predicts: logits and scores of its rows, a bounded number of rows at a time, because a vocabulary is wide. */
#include <stdlib.h>

#include "engine/session_internal.h"

static int check_rows(const struct fkv_session *s, int32_t row, int32_t rows, struct fkv_error *err) {
    if (row >= 0 && rows >= 0 && row + rows <= s->last_rows) return FKV_OK;
    return fkv_fail(err, "logits: expected rows within the %d of the last feed, found %d to %d", s->last_rows, row,
                    row + rows);
}

/* Logits of rows [row, row+rows), at most logit_rows, into s->logits; kept until another range or feed. */
static int compute_logits(struct fkv_session *s, int32_t row, int32_t rows, struct fkv_error *err) {
    if (s->logits_count == rows && s->logits_row == row) return FKV_OK;
    const struct fkv_model *m = s->model;
    s->logits_count = 0;
    if (s->ops->norm_logits(s->backend, &m->final_norm, m->config.rms_eps, &m->head, s->x, row, rows, s->logits, err))
        return FKV_FAILED;
    s->logits_row = row;
    s->logits_count = rows;
    return FKV_OK;
}

int32_t fkv_session_logit_rows(const struct fkv_session *s) { return s->logit_rows; }

int fkv_session_logits(struct fkv_session *s, int32_t row, int32_t rows, float *logits, struct fkv_error *err) {
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    size_t width = (size_t)s->model->config.vocab;
    for (int32_t at = 0; at < rows; at += s->logit_rows) {
        int32_t count = rows - at < s->logit_rows ? rows - at : s->logit_rows;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->read(s->backend, s->logits, 0, logits + (size_t)at * width, sizeof(float) * width * (size_t)count,
                         err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_session_score(struct fkv_session *s, struct fkv_session *reference, int32_t row, int32_t rows,
                      const int32_t *targets, double *nll, int32_t *top1, double *kl, struct fkv_error *err) {
    if (check_rows(s, row, rows, err) || (kl && check_rows(reference, row, rows, err))) return FKV_FAILED;
    int32_t vocab = s->model->config.vocab, step = s->logit_rows;
    if (kl && reference->logit_rows < step) step = reference->logit_rows;
    for (int32_t i = 0; i < rows; i++)
        if (targets[i] < 0 || targets[i] >= vocab)
            return fkv_fail(err, "score: row %d: expected a target below %d, found %d", row + i, vocab, targets[i]);
    for (int32_t at = 0; at < rows; at += step) {
        int32_t count = rows - at < step ? rows - at : step;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->score(s->backend, s->logits, targets + at, count, vocab, nll + at, top1 ? top1 + at : NULL, err))
            return FKV_FAILED;
        if (kl && (compute_logits(reference, row + at, count, err) ||
                   s->ops->divergence(s->backend, reference->logits, s->logits, count, vocab, kl + at, err)))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- keeping ---- */

struct fkv_kept_logits {
    struct fkv_session *session;
    struct fkv_buffer *logits; /* [rows, vocab] */
    int32_t rows;
};

int fkv_session_keep_logits(struct fkv_session *s, int32_t row, int32_t rows, struct fkv_kept_logits **out,
                            struct fkv_error *err) {
    *out = NULL;
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    if (rows > s->logit_rows) return fkv_fail(err, "logits: at most %d rows are kept at once", s->logit_rows);
    struct fkv_kept_logits *kept = calloc(1, sizeof *kept);
    if (!kept) return fkv_fail(err, "logits: out of memory");
    *kept = (struct fkv_kept_logits){.session = s, .rows = rows};
    size_t bytes = sizeof(float) * (size_t)rows * (size_t)s->model->config.vocab;
    if (s->ops->buffer_create(s->backend, bytes, &kept->logits, err) || compute_logits(s, row, rows, err) ||
        s->ops->copy(s->backend, kept->logits, 0, s->logits, 0, bytes, err)) {
        fkv_kept_logits_free(kept);
        return FKV_FAILED;
    }
    *out = kept;
    return FKV_OK;
}

int fkv_session_score_against(struct fkv_session *s, const struct fkv_kept_logits *kept, int32_t row,
                              const int32_t *targets, double *nll, double *kl, struct fkv_error *err) {
    if (kept->session->model != s->model) return fkv_fail(err, "score: the logits were kept of another model");
    if (fkv_session_score(s, NULL, row, kept->rows, targets, nll, NULL, NULL, err) ||
        compute_logits(s, row, kept->rows, err))
        return FKV_FAILED;
    return s->ops->divergence(s->backend, kept->logits, s->logits, kept->rows, s->model->config.vocab, kl, err);
}

void fkv_kept_logits_free(struct fkv_kept_logits *kept) {
    if (!kept) return;
    kept->session->ops->buffer_release(kept->session->backend, kept->logits);
    free(kept);
}
