/* Reading a capture: a folder, its capture.h5, or a single .h5 with the same groups (a user's own
 * file). */
#ifndef FKV_CAPTURE_STORE_CAPTURE_READER_H
#define FKV_CAPTURE_STORE_CAPTURE_READER_H

#include "capture/store/capture.h"

struct fkv_capture; /* an opened capture */

/* `path`: any of the three. The caller closes it. */
int fkv_capture_open(const char *path, struct fkv_capture **out, struct fkv_error *err);
/* The same of a folder that may lack recordings its capture.h5 names: of a run that goes on there.
 */
int fkv_capture_open_partial(const char *path, struct fkv_capture **out, struct fkv_error *err);
/* NULL is fine. */
void fkv_capture_close(struct fkv_capture *c);
/* The root attributes; borrowed. */
const struct fkv_capture_info *fkv_capture_info(const struct fkv_capture *c);
/* Recordings. */
int32_t fkv_capture_count(const struct fkv_capture *c);
/* Recording `index`; borrowed. */
const struct fkv_recording *fkv_capture_recording(const struct fkv_capture *c, int32_t index);
/* Heads on axis 1 of a state. */
int32_t fkv_capture_heads(const struct fkv_capture *c, enum fkv_state state);
/* As it was opened; borrowed. */
const char *fkv_capture_path(const struct fkv_capture *c);
/* Bytes of its recordings' files. */
int64_t fkv_capture_file_bytes(const struct fkv_capture *c);
/* SHA-256 over what decides the contents (model, options, layers, heads, texts, offsets): the
 * capture's identity in provenance. A user's own file without text hashes counts with its size and
 * time of change. */
const char *fkv_capture_sha256(const struct fkv_capture *c);
/* tokens [n_tokens], the caller's; *found false when the file has none. */
int fkv_capture_read_tokens(struct fkv_capture *c, int32_t index, int32_t *tokens, bool *found,
                            struct fkv_error *err);
/* classes [n_tokens], the caller's; *found false when the file has none. */
int fkv_capture_read_token_class(struct fkv_capture *c, int32_t index, uint8_t *classes,
                                 bool *found, struct fkv_error *err);
/* x [heads, rows, head_dim] float32 <- tokens [t, t+rows) of heads [head, head+heads) of one layer
 * (axis 0). Not finite: an error that names layer, head and token. */
int fkv_capture_read_state(struct fkv_capture *c, int32_t index, enum fkv_state state,
                           int32_t layer, int32_t head, int32_t heads, int64_t t, int64_t rows,
                           float *x, struct fkv_error *err);
/* The same as it is stored: x [heads, rows, head_dim] in the dataset's own format, *dtype, of at
 * most 4 bytes a number. */
int fkv_capture_read_stored(struct fkv_capture *c, int32_t index, enum fkv_state state,
                            int32_t layer, int32_t head, int32_t heads, int64_t t, int64_t rows,
                            void *x, enum fkv_dtype *dtype, struct fkv_error *err);
/* The file that holds /output_gram, or NULL. */
const char *fkv_capture_output_gram(const struct fkv_capture *c);
/* gram [heads, head_dim, head_dim] of one layer (axis 0), which must exist. Not finite, or a
 * negative square of a length: an error that names layer and head. */
int fkv_capture_read_output_gram(struct fkv_capture *c, int32_t layer, float *gram,
                                 struct fkv_error *err);
/* Allocates `sums`; the caller frees them (fkv_spectra_sums_free). */
int fkv_capture_read_sums(struct fkv_capture *c, int32_t index, enum fkv_state state,
                          struct fkv_spectra_sums *sums, struct fkv_error *err);

#endif
