/* PROBE.h5: what changes of the cache did to the tokens after them. One file for a whole
 * experiment; a part of an unfinished one is the same with fewer windows.
 *
 *   /                 attrs: format "freqkv-probe", format_version 1, version (of the software),
 *                     model_name, model_sha256, n_layers, n_kv_heads, head_dim, trained_context,
 *                     prefix P, score M, sinks S, seed, states (as asked for), config_sha256,
 *                     tokenizer_sha256,
 *                     backend, compute, cache_dtype, command, noise_floor_nll and noise_floor_kl
 *                     (mean absolute difference and KL of the untouched run repeated with another
 *                     block size)
 *   /changes/         one row per change: kind, layer and kv_head (-1: all), states (bit 0 keys,
 *                     bit 1 values), low, high, complement (1: the band is what was taken out),
 *                     epsilon, gamma (NaN where there is none), truncation, squeezed, fewer (of
 *                     FreqKV's three parts, which are on; -1 where the change has none), label
 *                     [changes, 96]. Where a filter has several bands, low and high span them all,
 *                     and the label names them.
 *   /documents/NNNNNN one group per window of prefix and scored tokens. attrs: name, text_sha256 of
 *   the text; document (windows of one text share it), offset (of
 *                     the window's first token in the text)
 *       tokens        int32 [P+M+1]; token_class uint8 [P+M+1] where the tokenizer is known
 *       untouched_nll, repeat_nll, repeat_kl   float32 [M]; element i is about token P + 1 + i.
 *                                              repeat_*: the untouched run repeated in blocks of
 *                                              another size, the noise floor per token; NaN (or
 *                                              repeat_kl absent) in a file of another tool, where
 *                                              KL then has no p values
 *       nll, kl       float32 [changes, M]
 *       lost_energy   float64 [changes, 2] (keys, values): what the change took out or put in, over
 *                     the energy without DC of the heads that it touched */
#ifndef FKV_STORE_PROBE_H
#define FKV_STORE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/path.h"

enum {
    FKV_PROBE_NONE,
    FKV_PROBE_FILTER,
    FKV_PROBE_NOISE,
    FKV_PROBE_FREQKV,
    FKV_PROBE_LOCAL,
    FKV_PROBE_KINDS
};
enum { FKV_PROBE_KEY = 1, FKV_PROBE_VALUE = 2, FKV_PROBE_LABEL = 96 };

struct fkv_probe_change {
    int32_t kind, layer, kv_head, states, complement;
    double low, high, epsilon, gamma;
    int32_t truncation, squeezed, fewer;
    char label[FKV_PROBE_LABEL];
};

struct fkv_probe_window {
    char name[FKV_DOCUMENT_NAME]; /* of the document */
    fkv_sha256_hex text_sha256;
    int32_t document;
    int64_t offset;
    int32_t *tokens;                               /* [P+M+1] */
    uint8_t *token_class;                          /* [P+M+1] or NULL */
    float *untouched_nll, *repeat_nll, *repeat_kl; /* [M] */
    float *nll, *kl;                               /* [changes, M] */
    double *lost_energy;                           /* [changes, 2] */
};

struct fkv_probe {
    char model_name[256], states[64], backend[32], compute[16], cache_dtype[16];
    char *command; /* owned */
    fkv_sha256_hex model_sha256, config_sha256, tokenizer_sha256;
    int32_t layers, kv_heads, head_dim, trained_context, prefix, score, sinks;
    int64_t seed;
    double noise_floor_nll, noise_floor_kl;
    struct fkv_probe_change *changes; /* [change_count]; owned */
    int32_t change_count;
    struct fkv_probe_window *windows; /* [window_count]; owned, with what is in them */
    int64_t window_count;
};

/* Arrays of `window` for p's P, M and changes, NaN where they are floats. */
int fkv_probe_window_create(const struct fkv_probe *p, struct fkv_probe_window *window,
                            struct fkv_error *err);
void fkv_probe_window_free(struct fkv_probe_window *window); /* harmless on a zeroed struct */
void fkv_probe_free(struct fkv_probe *p);                    /* harmless on a zeroed struct */

/* Writes the windows `windows` [count] of experiment p; `path` must not exist. */
int fkv_probe_write(const char *path, const struct fkv_probe *p,
                    const struct fkv_probe_window *windows, int64_t count, struct fkv_error *err);
/* Reads a whole file; the caller frees p. Anything but what is described above is refused, by name.
 */
int fkv_probe_read(const char *path, struct fkv_probe *p, struct fkv_error *err);
/* Is there a noise floor to compare KL with, token by token: repeat_kl finite in every window? */
bool fkv_probe_has_floor(const struct fkv_probe *p);
/* Were both made by the same experiment (model, sizes, seed, changes)? If not, the message names
 * what differs. */
int fkv_probe_check_same(const struct fkv_probe *expected, const struct fkv_probe *found,
                         const char *where, struct fkv_error *err);

#endif
