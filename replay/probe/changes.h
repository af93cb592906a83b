/* The changes of a probe: from what the user asked for to the list of what is done to the cache,
 * one after the other. */
#ifndef FKV_REPLAY_PROBE_CHANGES_H
#define FKV_REPLAY_PROBE_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "capture/store/probe.h"

enum { FKV_PROBE_BANDS = 16, FKV_PROBE_REQUESTS = 256 };

/* Coefficients ceil(low n) <= t < ceil(high n). */
struct fkv_band {
    double low, high;
};

/* One option of the command line. */
struct fkv_probe_request {
    enum fkv_probe_request_kind {
        FKV_ASK_FILTER,
        FKV_ASK_NOISE,
        FKV_ASK_FREQKV,
        FKV_ASK_LOCAL,
        FKV_ASK_DECOMPOSE,
        FKV_ASK_BANDS,
        FKV_ASK_OCTAVES,
    } kind;
    struct fkv_band bands[FKV_PROBE_BANDS];
    int band_count;
    double epsilon, gamma;
    int32_t parts; /* of bands and octaves */
};

/* What the user asked for; zero is nothing. */
struct fkv_probe_wishes {
    struct fkv_probe_request requests[FKV_PROBE_REQUESTS];
    int request_count;
    bool complement;          /* filters take out what they name */
    bool per_layer, per_head; /* each change once more on each alone */
    int states[3];            /* bits, in order */
    int state_count;
};

/* Adds the requests in `text`, which followed `option` on the command line: "0:0.25,0.5:1"
 * (filter), "a:b:eps" (noise), "0.25,0.5" (freqkv, local, decompose), "8" (bands, octaves). */
int fkv_probe_ask(struct fkv_probe_wishes *wishes, enum fkv_probe_request_kind kind,
                  const char *option, const char *text, struct fkv_error *err);
/* "key", "value", "both" or a list of them. */
int fkv_probe_parse_states(struct fkv_probe_wishes *wishes, const char *text,
                           struct fkv_error *err);

/* A change as it is carried out. */
struct fkv_edit {
    struct fkv_probe_change row;
    struct fkv_band bands[FKV_PROBE_BANDS];
    int band_count;
    int32_t family; /* changes of one family differ in layer and head only */
};

/* The list (malloc'd, the caller frees), the empty change first, for n changed slots. Refused: what
 * leaves no slot or no coefficient to work on. */
int fkv_probe_list(const struct fkv_probe_wishes *wishes, int32_t layers, int32_t kv_heads,
                   int32_t n, struct fkv_edit **edits, int32_t *count, struct fkv_error *err);

/* Is coefficient t of n in one of the edit's bands? */
bool fkv_edit_has(const struct fkv_edit *edit, int32_t t, int32_t n);

#endif
