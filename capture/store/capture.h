/* Captures: what a recording is on disk. A capture is a folder: documents/NNNNNN.h5 hold one recording each, capture.h5 is the face that links to them.
 * Every file appears whole or not at all (temporary name, fsync, rename), carries the root attributes, and is readable with plain h5py.
 *
 *   /document            attrs: name, text_sha256, n_tokens, offset
 *       tokens           int32   [T]
 *       nll              float32 [T]     NaN at 0; optional
 *       token_class      uint8   [T]     bits, engine/text/token_class.h; optional: where there was a tokenizer
 *       key, value, key_rotated   float32 | float16 | uint16 (attribute dtype "bf16")  [layers, kv_heads, T, head_dim]
 *       query            likewise        [layers, heads, T, head_dim]
 *       spectra/STATE/   (--spectra-only, instead of the states) attrs: segment_length, skip_sinks, segments
 *           power_sum, power_sum_of_squares   float64 [layers, heads, n]     over segments, of the segment's power (kernels.h, power)
 *           normalised_sum                    float64 [layers, heads, n]     likewise, channel-normalised
 *           channel_mean_sum                  float64 [layers, heads, head_dim]  over segments, of the segment's mean
 *           energy_sum                        float64 [layers, heads]        over segments, of the sum of squares of all elements
 *
 * output_gram.h5, beside documents/ and linked from the face as /output_gram: what the output projection W_O does to the length of a head's output, per captured layer and per query
 * head of the captured KV heads (all that share one: the heads of axis 1 of `query`)
 *
 *   /output_gram         float32 [layers, heads, head_dim, head_dim]     W' W, W the head's columns of W_O, so that ||W d||^2 = d' (W' W) d
 *
 * W itself would be hidden/head_dim times as large, and lengths are all that is asked of it. Optional: written once, before the first recording, where values are stored; sums of spectra
 * (--spectra-only) have no use for it, nor has a capture without values. A user's own single .h5 may hold /output_gram likewise (float64 will do).
 *
 * The store knows no engine, and it is the only place that includes hdf5.h. HDF5 is not thread-safe here: call from one thread. */
#ifndef FKV_STORE_CAPTURE_H
#define FKV_STORE_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/path.h"
#include "kernels/dtype.h"

enum { FKV_CAPTURE_FORMAT_VERSION = 1 };

enum fkv_state { FKV_STATE_KEY, FKV_STATE_VALUE, FKV_STATE_KEY_ROTATED, FKV_STATE_QUERY, FKV_STATES };
extern const char *const fkv_state_names[FKV_STATES]; /* "key", "value", "key_rotated", "query" */

/* The root attributes: the same in the face and in every document file. Pointers are owned by the struct (fkv_capture_info_free). */
struct fkv_capture_info {
    char *model_name;
    char *rope_scaling;     /* JSON */
    char *backend, *compute; /* where and how products were computed: "cpu", "f32" */
    char *options;          /* the command's settings that decide the contents, as JSON */
    fkv_sha256_hex model_sha256, tokenizer_sha256;   /* "" when unknown */
    int32_t n_layers, n_heads, n_kv_heads, head_dim; /* of the model */
    int32_t layer_count, *layer_index;               /* captured layers, ascending: axis 0 of the states */
    int32_t head_count, *head_index;                 /* captured KV heads, ascending: axis 1 of key and value */
    double rope_theta, *inv_freq;                    /* [head_dim/2]; NULL when unknown */
    double attention_scale;
    int32_t trained_context;
    bool adds_bos;
    enum fkv_dtype dtype;
    bool spectra_only;
    uint32_t states; /* bit i: state i is there */
};
void fkv_capture_info_free(struct fkv_capture_info *info);
/* FKV_OK when two captures can be one (same model, tokenizer, layers, heads, states, dtype, backend, compute, options); else a message naming the first difference, expected and found. */
int fkv_capture_info_compare(const struct fkv_capture_info *expected, const struct fkv_capture_info *found,
                             const char *where, struct fkv_error *err);

struct fkv_recording {
    char name[FKV_DOCUMENT_NAME];
    fkv_sha256_hex text_sha256;
    int64_t n_tokens, offset; /* offset: first token's index in its document */
    bool beyond_trained_context;
};

/* Sums over the segments of one recording, one state. Arrays are row-major, owned. */
struct fkv_spectra_sums {
    int32_t layers, heads, n, head_dim, skip_sinks;
    int64_t segments;
    double *power_sum, *power_sum_of_squares, *normalised_sum; /* [layers, heads, n] */
    double *channel_mean_sum;                                  /* [layers, heads, head_dim] */
    double *energy_sum;                                        /* [layers, heads] */
};
int fkv_spectra_sums_allocate(struct fkv_spectra_sums *sums, int32_t layers, int32_t heads, int32_t n, int32_t head_dim,
                              struct fkv_error *err);
void fkv_spectra_sums_free(struct fkv_spectra_sums *sums);

/* ---- writing ---- */
struct fkv_capture_writer; /* one folder being written */

/* Creates FOLDER (and parents), or with `resume` goes on in one made with the same info. A folder that holds anything else is refused. Removes temporaries of a killed run.
 * `info` must outlive the writer. */
int fkv_capture_create(const char *folder, const struct fkv_capture_info *info, bool resume,
                       struct fkv_capture_writer **out, struct fkv_error *err);
/* Is recording `index` (0, 1, ...) already there, whole? */
bool fkv_capture_has(const struct fkv_capture_writer *w, int64_t index);
/* One more than the largest index that was there at the start. Recordings that were open side by side leave gaps below it when a run is killed. */
int64_t fkv_capture_end(const struct fkv_capture_writer *w);
/* Another writer into the same folder, for a recording that is open at the same time; abandoned before the first one. */
int fkv_capture_beside(const struct fkv_capture_writer *first, struct fkv_capture_writer **out, struct fkv_error *err);
/* FKV_OK when recording `index` is of this text, offset and length; else a message (a resumed run over other texts). */
int fkv_capture_check(const struct fkv_capture_writer *w, int64_t index, const struct fkv_recording *recording,
                      struct fkv_error *err);
/* Starts recording `index`: its T is known from the start. */
int fkv_capture_begin(struct fkv_capture_writer *w, int64_t index, const struct fkv_recording *recording,
                      const int32_t *tokens, struct fkv_error *err);
/* Tokens [t, t+rows) of one captured layer (its index on axis 0) of one state: x [rows, heads of that state on axis 1, head_dim], contiguous, in the capture's dtype. In any order; every
 * element once. A number that is not finite is an error that names layer, head and token, and where the dtype can have made it so, advises --dtype f32|bf16. */
int fkv_capture_write_rows(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer, int64_t t, int32_t rows,
                           const void *x, struct fkv_error *err);
int fkv_capture_write_nll(struct fkv_capture_writer *w, const float *nll, struct fkv_error *err); /* [T] */
int fkv_capture_write_token_class(struct fkv_capture_writer *w, const uint8_t *classes,
                                  struct fkv_error *err); /* [T] */
int fkv_capture_write_sums(struct fkv_capture_writer *w, enum fkv_state state, const struct fkv_spectra_sums *sums,
                           struct fkv_error *err);
int fkv_capture_commit(struct fkv_capture_writer *w, struct fkv_error *err); /* the recording has its name now */
int fkv_capture_finish(struct fkv_capture_writer *w,
                       struct fkv_error *err); /* (re)writes the face over all recordings */
void fkv_capture_abandon(
    struct fkv_capture_writer *w); /* closes; an uncommitted recording leaves nothing. NULL is fine */
/* output_gram.h5: bytes of its array, 0 where a capture of this kind has no use for it; whether it is there (then it is of this model: fkv_capture_create has looked); and writing it.
 * gram [layers, heads, head_dim, head_dim] */
int64_t fkv_capture_output_gram_bytes(const struct fkv_capture_info *info);
bool fkv_capture_has_output_gram(const struct fkv_capture_writer *w);
int fkv_capture_write_output_gram(struct fkv_capture_writer *w, const float *gram, struct fkv_error *err);
/* Bytes on disk of a recording of T tokens (states as `info` says). */
int64_t fkv_capture_bytes(const struct fkv_capture_info *info, int64_t n_tokens, int32_t segment_length);
/* Bytes of memory that writing states of T tokens takes at most, with rows that come `rows` at a time. */
int64_t fkv_capture_staging(const struct fkv_capture_info *info, int64_t n_tokens, int32_t rows);

/* ---- reading ---- */
struct fkv_capture; /* one opened folder, face, or single .h5 with the same groups (a user's own file) */

int fkv_capture_open(const char *path, struct fkv_capture **out, struct fkv_error *err);
void fkv_capture_close(struct fkv_capture *c); /* NULL is fine */
const struct fkv_capture_info *fkv_capture_info(const struct fkv_capture *c);
int32_t fkv_capture_count(const struct fkv_capture *c); /* recordings */
const struct fkv_recording *fkv_capture_recording(const struct fkv_capture *c, int32_t index);
int32_t fkv_capture_heads(const struct fkv_capture *c, enum fkv_state state); /* on axis 1 */
const char *fkv_capture_path(const struct fkv_capture *c);
int64_t fkv_capture_file_bytes(const struct fkv_capture *c); /* of its recordings' files */
/* SHA-256 over what decides the contents (model, options, layers, heads, texts, offsets): the capture's identity in provenance. A user's own file
 * without text hashes counts with its size and time of change. */
const char *fkv_capture_sha256(const struct fkv_capture *c);
/* tokens, nll, token classes [n_tokens] into the caller's memory; *found false when the file has none. */
int fkv_capture_read_tokens(struct fkv_capture *c, int32_t index, int32_t *tokens, bool *found, struct fkv_error *err);
int fkv_capture_read_nll(struct fkv_capture *c, int32_t index, float *nll, bool *found, struct fkv_error *err);
int fkv_capture_read_token_class(struct fkv_capture *c, int32_t index, uint8_t *classes, bool *found,
                                 struct fkv_error *err);
/* x [heads, rows, head_dim] float32 <- tokens [t, t+rows) of heads [head, head+heads) of one layer (axis 0). Not finite: an error that names the place. */
int fkv_capture_read_state(struct fkv_capture *c, int32_t index, enum fkv_state state, int32_t layer, int32_t head,
                           int32_t heads, int64_t t, int64_t rows, float *x, struct fkv_error *err);
/* The file that holds /output_gram, or NULL. */
const char *fkv_capture_output_gram(const struct fkv_capture *c);
/* gram [heads, head_dim, head_dim] of one layer (axis 0), which must be there. Not finite, or a negative square of a length: an error that names the place. */
int fkv_capture_read_output_gram(struct fkv_capture *c, int32_t layer, float *gram, struct fkv_error *err);
/* Allocates `sums`; the caller frees them (fkv_spectra_sums_free). */
int fkv_capture_read_sums(struct fkv_capture *c, int32_t index, enum fkv_state state, struct fkv_spectra_sums *sums,
                          struct fkv_error *err);

/* Merges captures with equal info (shards, machines) into a new folder: recordings are copied whole, in the order given, renumbered; a text and offset that occurs twice is refused. The
 * first output_gram.h5 is copied, too; one that differs from it is refused. */
int fkv_capture_merge(const char *const *paths, int count, const char *folder, struct fkv_error *err);

#endif
