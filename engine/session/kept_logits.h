/* Logits of one timeline, kept on the backend to compare other timelines of the same tokens in the
 * same session with. What is kept is the final hidden states that they follow from: dim numbers a
 * row in place of vocab, for a product more in every comparison. */
#ifndef FKV_ENGINE_SESSION_KEPT_LOGITS_H
#define FKV_ENGINE_SESSION_KEPT_LOGITS_H

#include "engine/session/session.h"

struct fkv_kept_logits;

/* Bytes that `rows` of them take in the backend's memory. */
int64_t fkv_kept_logits_bytes(const struct fkv_config *config,
                              const struct fkv_session_options *options, int32_t rows);
/* For `rows` rows; the caller frees it before the session closes. */
int fkv_kept_logits_open(struct fkv_session *s, int32_t rows, struct fkv_kept_logits **out,
                         struct fkv_error *err);
/* Rows [row, row+rows) of the last feed -> kept rows from `at` on. */
int fkv_session_keep_logits(struct fkv_session *s, int32_t row, int32_t rows,
                            struct fkv_kept_logits *kept, int32_t at, struct fkv_error *err);
/* The same of final hidden states [rows, dim] that fkv_session_final_states read, of any session
 * over the same model. */
int fkv_kept_logits_write(struct fkv_kept_logits *kept, int32_t at, int32_t rows,
                          const float *states, struct fkv_error *err);
/* Rows [row, row+rows) of the last feed: scores of theirs and of kept rows from `at` on, as
 * fkv_session_score fills them, and kl[i] = KL(kept row at + i || row + i). kept_scores may be
 * NULL. */
int fkv_session_compare_kept(struct fkv_session *s, int32_t row, int32_t rows,
                             const int32_t *targets, const struct fkv_kept_logits *kept, int32_t at,
                             const struct fkv_row_scores *scores,
                             const struct fkv_row_scores *kept_scores, double *kl,
                             struct fkv_error *err);
/* NULL is fine. */
void fkv_kept_logits_free(struct fkv_kept_logits *kept);

#endif
