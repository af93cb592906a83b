/* Writing a capture, a recording at a time. */
#ifndef FKV_CAPTURE_STORE_CAPTURE_WRITER_H
#define FKV_CAPTURE_STORE_CAPTURE_WRITER_H

#include "capture/store/capture.h"

struct fkv_capture_writer; /* one folder being written */

/* Creates FOLDER (and parents), or with `resume` goes on in one made with the same info. A folder
 * that holds anything else is refused. Removes temporaries of a killed run. `info` must outlive the
 * writer. */
int fkv_capture_create(const char *folder, const struct fkv_capture_info *info, bool resume,
                       struct fkv_capture_writer **out, struct fkv_error *err);
/* Does recording `index` (0, 1, ...) exist, whole? */
bool fkv_capture_has(const struct fkv_capture_writer *w, int64_t index);
/* One more than the largest index that existed at the start. Recordings that were open side by side
 * leave gaps below it when the process is killed. */
int64_t fkv_capture_end(const struct fkv_capture_writer *w);
/* Another writer into the same folder, for a recording that is open at the same time; abandoned
 * before the first one. */
int fkv_capture_share(const struct fkv_capture_writer *first, struct fkv_capture_writer **out,
                      struct fkv_error *err);
/* FKV_OK when recording `index` is of this text, offset and length; else a message: --resume was
 * given other texts. */
int fkv_capture_check(const struct fkv_capture_writer *w, int64_t index,
                      const struct fkv_recording *recording, struct fkv_error *err);
/* Starts recording `index`: its T is known from the start. */
int fkv_capture_begin(struct fkv_capture_writer *w, int64_t index,
                      const struct fkv_recording *recording, const int32_t *tokens,
                      struct fkv_error *err);
/* Tokens [t, t+rows) of one captured layer (its index on axis 0) of one state: x [rows, heads of
 * that state on axis 1, head_dim], contiguous, in the capture's dtype. In any order; every element
 * once. A number that is not finite is an error that names layer, head and token, and where the
 * dtype can have made it so, advises --dtype f32|bf16. */
int fkv_capture_write_rows(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                           int64_t t, int32_t rows, const void *x, struct fkv_error *err);
/* nll [T], NaN at 0 */
int fkv_capture_write_nll(struct fkv_capture_writer *w, const float *nll, struct fkv_error *err);
/* classes [T], bits of engine/text/token_class.h */
int fkv_capture_write_token_class(struct fkv_capture_writer *w, const uint8_t *classes,
                                  struct fkv_error *err);
/* The sums of one state, in a capture of spectra only. */
int fkv_capture_write_sums(struct fkv_capture_writer *w, enum fkv_state state,
                           const struct fkv_spectra_sums *sums, struct fkv_error *err);
/* Syncs the recording and gives it its name. */
int fkv_capture_commit(struct fkv_capture_writer *w, struct fkv_error *err);
/* Writes capture.h5, with a link to every recording. */
int fkv_capture_finish(struct fkv_capture_writer *w, struct fkv_error *err);
/* Closes w; an uncommitted recording leaves nothing. NULL is fine. */
void fkv_capture_abandon(struct fkv_capture_writer *w);
/* Bytes of the array in output_gram.h5; 0 where a capture of this kind has no use for it. */
int64_t fkv_capture_output_gram_bytes(const struct fkv_capture_info *info);
/* Does output_gram.h5 exist? Then it is of this model: fkv_capture_create has checked it. */
bool fkv_capture_has_output_gram(const struct fkv_capture_writer *w);
/* Writes output_gram.h5. gram [layers, heads, head_dim, head_dim] */
int fkv_capture_write_output_gram(struct fkv_capture_writer *w, const float *gram,
                                  struct fkv_error *err);
/* Bytes on disk of a recording of T tokens (states as `info` says). */
int64_t fkv_capture_bytes(const struct fkv_capture_info *info, int64_t n_tokens,
                          int32_t segment_length);
/* Bytes of memory that writing states of T tokens takes at most, with rows that come `rows` at a
 * time. */
int64_t fkv_capture_staging(const struct fkv_capture_info *info, int64_t n_tokens, int32_t rows);

#endif
