/* Captures: what a recording is on disk. A capture is a folder: documents/NNNNNN.h5 hold one
 * recording each, capture.h5 links to them. Every file appears whole or not at all
 * (temporary name, fsync, rename), carries the root attributes, and is readable with plain h5py.
 *
 *   /document            attrs: name, text_sha256, n_tokens, offset
 *       tokens           int32   [T]
 *       nll              float32 [T]     NaN at 0; optional
 *       token_class      uint8   [T]     bits, engine/text/token_class.h; optional: where there was
 *                                        a tokenizer
 *       key, value, key_rotated   float32 | float16 | uint16 (attribute dtype "bf16")  [layers,
 *               kv_heads, T, head_dim]
 *       query            likewise        [layers, heads, T, head_dim]
 *       spectra/STATE/   (--spectra-only, instead of the states) attrs: segment_length, skip_sinks,
 *                        segments
 *           power_sum, power_sum_of_squares   float64 [layers, heads, n]     over segments, of the
 *                   segment's power (kernels.h, power)
 *           normalised_sum                    float64 [layers, heads, n]     likewise,
 *                   channel-normalised
 *           channel_mean_sum                  float64 [layers, heads, head_dim]  over segments, of
 *                   the segment's mean
 *           energy_sum                        float64 [layers, heads]        over segments, of the
 *                   sum of squares of all elements
 *
 * output_gram.h5, next to documents/ and linked from capture.h5 as /output_gram: what the output
 * projection W_O does to the length of a head's output, per captured layer and per query head of
 * the captured KV heads (all that share one: the heads of axis 1 of `query`)
 *
 *   /output_gram         float32 [layers, heads, head_dim, head_dim]     W' W, W the head's columns
 *           of W_O, so that ||W d||^2 = d' (W' W) d
 *
 * W itself would be hidden/head_dim times as large, and only lengths are needed.
 * Optional: written once, before the first recording, where values are stored; sums of spectra
 * (--spectra-only) have no use for it, nor has a capture without values. A user's own single .h5
 * may hold /output_gram likewise (float64 will do).
 *
 * The store knows no engine, and no other room includes hdf5.h. HDF5 is not thread-safe
 * here: call from one thread. */
#ifndef FKV_STORE_CAPTURE_H
#define FKV_STORE_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/path.h"
#include "kernels/dtype.h"

enum { FKV_CAPTURE_FORMAT_VERSION = 1 };

enum fkv_state {
    FKV_STATE_KEY,
    FKV_STATE_VALUE,
    FKV_STATE_KEY_ROTATED,
    FKV_STATE_QUERY,
    FKV_STATES
};
extern const char *const fkv_state_names[FKV_STATES]; /* "key", "value", "key_rotated", "query" */

/* The root attributes: the same in capture.h5 and in every document file. Pointers are owned by the
 * struct (fkv_capture_info_free). */
struct fkv_capture_info {
    char *model_name;
    char *rope_scaling;      /* JSON */
    char *backend, *compute; /* where and how products were computed: "cpu", "f32" */
    char *kernels;           /* with what: "avx512, oneDNN 2.6.3"; not compared */
    char *adapter;           /* a LoRA adapter's name; "" where there was none */
    char *options;           /* the command's settings that decide the contents, as JSON */
    fkv_sha256_hex model_sha256, config_sha256, tokenizer_sha256; /* "" when unknown */
    fkv_sha256_hex adapter_sha256; /* of its files, which model_sha256 counts, too; "" for none */
    int32_t n_layers, n_heads, n_kv_heads, head_dim; /* of the model */
    int32_t layer_count, *layer_index; /* captured layers, ascending: axis 0 of the states */
    int32_t head_count, *head_index;   /* captured KV heads, ascending: axis 1 of key and value */
    double rope_theta;
    double *inv_freq;         /* [head_dim/2], or [layer_count, head_dim/2]; NULL when unknown */
    bool rotation_per_layer;  /* inv_freq and attention_factor are per captured layer */
    int32_t rotary_dim;       /* channels of a head that turn, its first; 0: head_dim */
    double *attention_factor; /* [1] or [layer_count], on turned channels; NULL: 1 */
    int64_t rope_positions;   /* for which inv_freq was chosen; 0: it does not depend on them */
    double attention_scale;
    double attention_softcap; /* s -> cap tanh(s / cap) on scaled scores; 0: none */
    int32_t *layer_window;    /* [layer_count] tokens that a query of a layer sees, its own
                                 included, 0: all before it; NULL: 0 for all */
    int32_t trained_context;
    bool adds_bos;
    enum fkv_dtype dtype;
    bool spectra_only;
    uint32_t states; /* bit i: has state i */
};
void fkv_capture_info_free(struct fkv_capture_info *info);

/* How the keys and queries of a captured layer turn: channel i with i + rotary_dim/2. */
struct fkv_capture_rotation {
    const double *inv_freq; /* [head_dim/2], of which rotary_dim/2 count; NULL when unknown */
    int32_t rotary_dim;
    double attention_factor; /* on the turned channels of queries and keys alike */
};
struct fkv_capture_rotation fkv_capture_rotation(const struct fkv_capture_info *info,
                                                 int32_t layer);
/* The window of a captured layer, as layer_window has it. */
int32_t fkv_capture_window(const struct fkv_capture_info *info, int32_t layer);
/* Does it hold the state, or sums of it? */
static inline bool fkv_capture_holds(const struct fkv_capture_info *info, int state) {
    return (info->states >> state) & 1;
}
/* Heads on axis 1 of a state: the captured KV heads, or the query heads that share them. */
int32_t fkv_capture_state_heads(const struct fkv_capture_info *info, enum fkv_state state);
/* The model's number of head `head` of axis 1. */
int32_t fkv_capture_head_number(const struct fkv_capture_info *info, enum fkv_state state,
                                int32_t head);
/* FKV_OK when two captures can be one (same model, tokenizer, layers, heads, states, dtype,
 * backend, compute, options); else a message naming the first difference, expected and found. */
int fkv_capture_info_compare(const struct fkv_capture_info *expected,
                             const struct fkv_capture_info *found, const char *where,
                             struct fkv_error *err);

struct fkv_recording {
    char name[FKV_DOCUMENT_NAME];
    fkv_sha256_hex text_sha256;
    int64_t n_tokens, offset; /* offset: first token's index in its document */
    bool beyond_trained_context;
};

/* Sums over the segments of one recording, one state. Arrays are row-major, in one owned block of
 * memory that begins with the first. */
struct fkv_spectra_sums {
    int32_t layers, heads, n, head_dim, skip_sinks;
    int64_t segments;
    double *power_sum, *power_sum_of_squares, *normalised_sum; /* [layers, heads, n] */
    double *channel_mean_sum;                                  /* [layers, heads, head_dim] */
    double *energy_sum;                                        /* [layers, heads] */
};
int fkv_spectra_sums_allocate(struct fkv_spectra_sums *sums, int32_t layers, int32_t heads,
                              int32_t n, int32_t head_dim, struct fkv_error *err);
void fkv_spectra_sums_free(struct fkv_spectra_sums *sums);

#endif
