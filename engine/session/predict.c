/* What the last feed predicts. A vocabulary is wide, so logits are made in panels: of all rows, but
 * only as many ids at a time as fit the session's buffer, and what a panel says of the rows is
 * joined with what the ones before it said (kernels/likelihood.h). The panel is read again while it
 * is still in a cache. */
#include <stdlib.h>

#include "engine/session/kept_logits.h"
#include "engine/session/session_internal.h"

static int check_rows(const struct fkv_session *s, int32_t row, int32_t rows,
                      struct fkv_error *err) {
    if (row >= 0 && rows >= 0 && row + rows <= s->last_rows) return FKV_OK;
    return fkv_fail(err, "logits: expected rows within the %d of the last feed, found %d to %d",
                    s->last_rows, row, row + rows);
}

/* ---- logits ---- */

/* Final hidden states of rows, and a buffer for a panel of their logits. */
struct predicting {
    const struct fkv_buffer *x;
    int32_t row;
    struct fkv_buffer *logits;
};

/* Logits of the ids [first, first+width) of `rows` rows. */
static int compute_panel(struct fkv_session *s, const struct predicting *p, int32_t rows,
                         int32_t first, int32_t width, struct fkv_error *err) {
    struct fkv_logits_weights panel = s->model->logits;
    panel.w.offset += (size_t)first * fkv_weight_bytes(panel.w.format, (size_t)panel.w.cols);
    panel.w.rows = width;
    return s->ops->norm_logits(s->backend, &panel, p->x, p->row, rows, p->logits, err);
}

int fkv_session_logits(struct fkv_session *s, int32_t row, int32_t rows, float *logits,
                       struct fkv_error *err) {
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    const int32_t vocab = s->model->config.vocab;
    const int32_t most = (int32_t)(session_logits(&s->model->config, s->options.block) / vocab);
    for (int32_t at = 0, count; at < rows; at += count) {
        const struct predicting p = {s->x, row + at, s->logits};
        count = rows - at < most ? rows - at : most;
        if (compute_panel(s, &p, count, 0, vocab, err) ||
            s->ops->read(s->backend, s->logits, 0, logits + (size_t)at * (size_t)vocab,
                         sizeof(float) * (size_t)vocab * (size_t)count, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- scores ---- */

/* s->scores.q takes in what all panels say of `rows` rows q; with p (else NULL), s->scores.p and
 * s->scores.gap what they say of p. */
static int join_panels(struct fkv_session *s, const struct predicting *p,
                       const struct predicting *q, int32_t rows, const int32_t *targets,
                       struct fkv_error *err) {
    struct scores *all = &s->scores;
    const int32_t vocab = s->model->config.vocab;
    const int64_t most = session_logits(&s->model->config, s->options.block) / (rows ? rows : 1);
    const int32_t width = most < vocab ? (int32_t)(most / PANEL_STEP * PANEL_STEP) : vocab;
    for (int32_t i = 0; i < rows; i++) {
        all->p[i] = all->q[i] = fkv_likelihood_none();
        all->gap[i] = 0;
    }
    for (int32_t first = 0; rows && first < vocab; first += width) {
        const int32_t ids = vocab - first < width ? vocab - first : width;
        if (compute_panel(s, q, rows, first, ids, err) ||
            (p && compute_panel(s, p, rows, first, ids, err)) ||
            (p ? s->ops->compare(s->backend, p->logits, q->logits, first, ids, targets, rows,
                                 all->panel_p, all->panel_q, all->panel_gap, err)
               : s->ops->score(s->backend, q->logits, first, ids, targets, rows, all->panel_q,
                               err)))
            return FKV_FAILED;
        for (int32_t i = 0; i < rows; i++) {
            fkv_likelihood_join(&all->q[i], &all->panel_q[i]);
            if (!p) continue;
            fkv_gap_join(&all->gap[i], &all->p[i], all->panel_gap[i], &all->panel_p[i]);
            fkv_likelihood_join(&all->p[i], &all->panel_p[i]);
        }
    }
    return FKV_OK;
}

static void take_row_scores(const struct fkv_likelihood *found, int32_t rows,
                            const struct fkv_row_scores *to) {
    for (int32_t i = 0; i < rows && to; i++) {
        if (to->nll) to->nll[i] = fkv_likelihood_nll(&found[i]);
        if (to->top1) to->top1[i] = found[i].top1;
    }
}

static int check_targets(const struct fkv_session *s, int32_t row, int32_t rows,
                         const int32_t *targets, struct fkv_error *err) {
    const int32_t vocab = s->model->config.vocab;
    for (int32_t i = 0; i < rows; i++)
        if (targets[i] < 0 || targets[i] >= vocab)
            return fkv_fail(err, "score: row %d: expected a target below %d, found %d", row + i,
                            vocab, targets[i]);
    return FKV_OK;
}

/* Scores of `rows` rows q of the last feed; with p (else NULL) those of p too, and kl[i], the
 * divergence of row i of q from that of p. */
static int score_rows(struct fkv_session *s, const struct predicting *p, const struct predicting *q,
                      int32_t rows, const int32_t *targets, const struct fkv_row_scores *scores,
                      const struct fkv_row_scores *p_scores, double *kl, struct fkv_error *err) {
    const struct scores *found = &s->scores;
    if (check_rows(s, q->row, rows, err) || check_targets(s, q->row, rows, targets, err) ||
        join_panels(s, p, q, rows, targets, err))
        return FKV_FAILED;
    take_row_scores(found->q, rows, scores);
    take_row_scores(found->p, rows, p_scores);
    for (int32_t i = 0; i < rows && p; i++)
        kl[i] = fkv_likelihood_divergence(&found->p[i], &found->q[i], found->gap[i]);
    return FKV_OK;
}

int fkv_session_score(struct fkv_session *s, int32_t row, int32_t rows, const int32_t *targets,
                      double *nll, int32_t *top1, struct fkv_error *err) {
    const struct predicting q = {s->x, row, s->logits};
    const struct fkv_row_scores scores = {nll, top1};
    return score_rows(s, NULL, &q, rows, targets, &scores, NULL, NULL, err);
}

int fkv_session_compare(struct fkv_session *s, struct fkv_session *reference, int32_t row,
                        int32_t rows, const int32_t *targets, const struct fkv_row_scores *scores,
                        const struct fkv_row_scores *reference_scores, double *kl,
                        struct fkv_error *err) {
    const struct predicting q = {s->x, row, s->logits}, p = {reference->x, row, reference->logits};
    if (check_rows(reference, row, rows, err)) return FKV_FAILED;
    return score_rows(s, &p, &q, rows, targets, scores, reference_scores, kl, err);
}

static size_t state_bytes(const struct fkv_session *s) {
    return sizeof(float) * (size_t)s->model->config.dim;
}

int fkv_session_final_states(struct fkv_session *s, int32_t row, int32_t rows, float *states,
                             struct fkv_error *err) {
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    return s->ops->read(s->backend, s->x, (size_t)row * state_bytes(s), states,
                        (size_t)rows * state_bytes(s), err);
}

/* ---- keeping ---- */

struct fkv_kept_logits {
    struct fkv_session *session;
    struct fkv_buffer *x;      /* [rows, dim] final hidden states */
    struct fkv_buffer *logits; /* a panel */
    int32_t rows;
};

int fkv_kept_logits_open(struct fkv_session *s, int32_t rows, struct fkv_kept_logits **out,
                         struct fkv_error *err) {
    struct fkv_kept_logits *kept = *out = calloc(1, sizeof *kept);
    if (!kept) return fkv_fail(err, "logits: out of memory");
    *kept = (struct fkv_kept_logits){.session = s, .rows = rows};
    const size_t panel =
        sizeof(float) * (size_t)session_logits(&s->model->config, s->options.block);
    if (!s->ops->buffer_create(s->backend, (size_t)rows * state_bytes(s), &kept->x, err) &&
        !s->ops->buffer_create(s->backend, panel, &kept->logits, err))
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
    return s->ops->copy(s->backend, kept->x, (size_t)at * state_bytes(s), s->x,
                        (size_t)row * state_bytes(s), (size_t)rows * state_bytes(s), err);
}

int fkv_kept_logits_write(struct fkv_kept_logits *kept, int32_t at, int32_t rows,
                          const float *states, struct fkv_error *err) {
    const struct fkv_session *s = kept->session;
    if (check_kept(kept, s, at, rows, err)) return FKV_FAILED;
    return s->ops->write(s->backend, kept->x, (size_t)at * state_bytes(s), states,
                         (size_t)rows * state_bytes(s), err);
}

int fkv_session_compare_kept(struct fkv_session *s, int32_t row, int32_t rows,
                             const int32_t *targets, const struct fkv_kept_logits *kept, int32_t at,
                             const struct fkv_row_scores *scores,
                             const struct fkv_row_scores *kept_scores, double *kl,
                             struct fkv_error *err) {
    const struct predicting q = {s->x, row, s->logits}, p = {kept->x, at, kept->logits};
    if (check_kept(kept, s, at, rows, err)) return FKV_FAILED;
    return score_rows(s, &p, &q, rows, targets, scores, kept_scores, kl, err);
}

void fkv_kept_logits_free(struct fkv_kept_logits *kept) {
    if (!kept) return;
    kept->session->ops->buffer_release(kept->session->backend, kept->x);
    kept->session->ops->buffer_release(kept->session->backend, kept->logits);
    free(kept);
}
