/* PROBE.h5: what changes of the cache did to the tokens after them. One file for a whole
 * experiment; a part of an unfinished one is the same with fewer windows.
 *
 *   /                 attrs: format "freqkv-probe", format_version 2, version (of the software),
 *                     model_name, model_sha256, n_layers, n_kv_heads, head_dim, trained_context,
 *                     prefix P, score M, sinks S, seed, states (as asked for), config_sha256,
 *                     tokenizer_sha256,
 *                     backend, compute, cache_dtype, command, noise_floor_nll and noise_floor_kl
 *                     (mean absolute difference and KL of the untouched run repeated with another
 *                     block size); kernels (instruction set and library of the products);
 *                     adapter and adapter_sha256 (of LoRA; "": none)
 *   /changes/         one row per change:
 *       kind          int32: what is done, see enum fkv_probe_kind
 *       option        int32: the option that asked for it, see enum fkv_probe_option
 *       family        int32: changes of one family differ in layer and kv_head only. The first
 *                     change has 0, each other the number of the one before it or the next one.
 *       layer, kv_head  int32; -1: all
 *       states        int32; bit 0 keys, bit 1 values
 *       complement    int32; 1: the bands are what was taken out
 *       band_count    int32; 1 to 16 of a filter or noise, else 0
 *       bands         float64 [changes, 16, 2]: low and high of each band; NaN from band_count on
 *       epsilon       float64: energy of the noise; NaN of other kinds
 *       gamma         float64: the ratio of FreqKV, its parts and local; else NaN
 *       truncation, squeezed, fewer  int32: which of FreqKV's three parts are on; -1 where the
 *                     change has none
 *       label         uint8 [changes, 96]: for people; says nothing that the other fields do not
 *   /documents/NNNNNN one group per window of prefix and scored tokens. attrs: name and text_sha256
 *                     of the text, document (windows of one text share it), offset (of the window's
 *                     first token in the text)
 *       tokens        int32 [P+M+1]; token_class uint8 [P+M+1] where the tokenizer is known
 *       untouched_nll, repeat_nll, repeat_kl   float32 [M]; element i is about token P + 1 + i.
 *                                              repeat_*: the untouched run repeated in blocks of
 *                                              another size, the noise floor per token; NaN (or
 *                                              repeat_kl absent) in a file of another tool, where
 *                                              KL then has no p values
 *       nll, kl       float32 [changes, M]
 *       lost_energy   float64 [changes, 2] (keys, values): what the change took out or put in, over
 *                     the energy without DC of the heads that it touched
 *
 * Files of format_version 1 kept the bands of a change in its label alone and are refused. */
#ifndef FKV_STORE_PROBE_H
#define FKV_STORE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/path.h"

/* What a change does to the cache. */
enum fkv_probe_kind {
    FKV_PROBE_NONE,   /* nothing: the empty change, the first of every probe */
    FKV_PROBE_FILTER, /* keeps coefficients, or takes them out */
    FKV_PROBE_NOISE,  /* adds noise to coefficients */
    FKV_PROBE_FREQKV, /* FreqKV, or those of its parts that are on */
    FKV_PROBE_LOCAL,  /* keeps the latest slots */
    FKV_PROBE_KINDS
};
/* "none", "filter", "noise", "freqkv", "local" */
extern const char *const fkv_probe_kind_names[FKV_PROBE_KINDS];

/* The option of freqkv-replay probe that asked for a change: one option may ask for changes of
 * several kinds (--decompose), several for changes of one kind (--filter, --bands). */
enum fkv_probe_option {
    FKV_PROBE_OPTION_NONE, /* of the empty change */
    FKV_PROBE_OPTION_FILTER,
    FKV_PROBE_OPTION_NOISE,
    FKV_PROBE_OPTION_FREQKV,
    FKV_PROBE_OPTION_LOCAL,
    FKV_PROBE_OPTION_DECOMPOSE,
    FKV_PROBE_OPTION_BANDS,
    FKV_PROBE_OPTION_OCTAVES,
    FKV_PROBE_OPTIONS
};
/* "none", "filter", "noise", "freqkv", "local", "decompose", "bands", "octaves" */
extern const char *const fkv_probe_option_names[FKV_PROBE_OPTIONS];

/* Bits of a change's states. */
enum { FKV_PROBE_KEY = 1, FKV_PROBE_VALUE = 2, FKV_PROBE_BOTH = 3 };
/* By these bits: "none", "key", "value", "both" */
extern const char *const fkv_probe_states_names[FKV_PROBE_BOTH + 1];

/* FKV_PROBE_LABEL: bytes of a label. FKV_PROBE_BANDS: the most bands of one change. */
enum { FKV_PROBE_LABEL = 96, FKV_PROBE_BANDS = 16 };

/* Shares of the n = P - S coefficients: those from fkv_band_edge(low, n) to before
 * fkv_band_edge(high, n) (kernels/base/ratio.h). */
struct fkv_probe_band {
    double low, high;
};

/* A row of /changes; the fields are described above. */
struct fkv_probe_change {
    int32_t kind;
    int32_t option;
    int32_t family;
    int32_t layer;
    int32_t kv_head;
    int32_t states;
    int32_t complement;
    int32_t band_count;
    struct fkv_probe_band bands[FKV_PROBE_BANDS]; /* [band_count] */
    double epsilon;
    double gamma;
    int32_t truncation;
    int32_t squeezed;
    int32_t fewer;
    char label[FKV_PROBE_LABEL];
};

/* A window's group in /documents; the arrays are described above. */
struct fkv_probe_window {
    char name[FKV_DOCUMENT_NAME]; /* of the document */
    fkv_sha256_hex text_sha256;
    int32_t document;
    int64_t offset;
    int32_t *tokens;      /* [P+M+1]; owned */
    uint8_t *token_class; /* [P+M+1] or NULL; owned */
    float *untouched_nll; /* [M]; owned, one allocation with the four below */
    float *repeat_nll;    /* [M] */
    float *repeat_kl;     /* [M] */
    float *nll;           /* [changes, M] */
    float *kl;            /* [changes, M] */
    double *lost_energy;  /* [changes, 2]; owned */
};

struct fkv_probe {
    char model_name[256];
    char states[64];
    char backend[32];
    char compute[16];
    char kernels[96]; /* "avx512, oneDNN 2.6.3"; "" when unknown; not compared */
    char cache_dtype[16];
    char *command; /* owned */
    fkv_sha256_hex model_sha256;
    fkv_sha256_hex config_sha256;
    char adapter[256];             /* a LoRA adapter's name; "" where there was none */
    fkv_sha256_hex adapter_sha256; /* of its files, which model_sha256 counts, too */
    fkv_sha256_hex tokenizer_sha256;
    int32_t layers;
    int32_t kv_heads;
    int32_t head_dim;
    int32_t trained_context;
    int32_t prefix;
    int32_t score;
    int32_t sinks;
    int64_t seed;
    double noise_floor_nll;
    double noise_floor_kl;
    struct fkv_probe_change *changes; /* [change_count]; owned */
    int32_t change_count;
    struct fkv_probe_window *windows; /* [window_count]; owned, with what is in them */
    int64_t window_count;
};

/* Arrays of `window` for p's P, M and changes; floats are NaN, the rest 0. token_class stays NULL.
 */
int fkv_probe_window_create(const struct fkv_probe *p, struct fkv_probe_window *window,
                            struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_probe_window_free(struct fkv_probe_window *window);
/* Harmless on a zeroed struct and a second time. */
void fkv_probe_free(struct fkv_probe *p);

/* Writes the windows `windows` [count] of experiment p; `path` must not exist. */
int fkv_probe_write(const char *path, const struct fkv_probe *p,
                    const struct fkv_probe_window *windows, int64_t count, struct fkv_error *err);
/* Reads a whole file; the caller frees p. Anything but what is described above is refused; the
 * message names the field. */
int fkv_probe_read(const char *path, struct fkv_probe *p, struct fkv_error *err);

/* Is there a noise floor to compare KL with, token by token: repeat_kl finite in every window? */
bool fkv_probe_has_floor(const struct fkv_probe *p);
/* Were both made by the same experiment (model, sizes, seed, structure of the changes)? If not, the
 * message names what differs. */
int fkv_probe_check_same(const struct fkv_probe *expected, const struct fkv_probe *found,
                         const char *where, struct fkv_error *err);

/* A change of `kind` to all layers and heads, of no option, family, state, band, number or part. */
struct fkv_probe_change fkv_probe_change_of(enum fkv_probe_kind kind);
/* Is coefficient t of n in one of the change's bands? */
bool fkv_probe_change_has(const struct fkv_probe_change *change, int32_t t, int32_t n);
/* Does the change take out DC alone, as --bands and --octaves do first? */
bool fkv_probe_takes_dc(const struct fkv_probe_change *change);
/* The parts of FreqKV that are on in a change of --decompose: "truncation + fewer", "nothing";
 * "truncation" as a filter of n slots, "truncation, L slots" at L slots. Returns `text`. */
enum { FKV_PROBE_PARTS = 48 };
const char *fkv_probe_parts(const struct fkv_probe_change *change, char text[FKV_PROBE_PARTS]);

#endif
