/* The changes of a probe: from what the user asked for to the list of what is done to the cache,
 * one after the other. */
#ifndef FKV_REPLAY_PROBE_CHANGES_H
#define FKV_REPLAY_PROBE_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "capture/store/probe.h"

enum { FKV_PROBE_REQUESTS = 256 };

/* One option of the command line. */
struct fkv_probe_request {
    enum fkv_probe_option option;
    struct fkv_probe_band bands[FKV_PROBE_BANDS]; /* [band_count], of filters and noise */
    int32_t band_count;
    double epsilon; /* of noise */
    double gamma;   /* of freqkv, local and decompose */
    int32_t parts;  /* of bands and octaves */
};

/* What the user asked for; zero is nothing. */
struct fkv_probe_requests {
    struct fkv_probe_request request[FKV_PROBE_REQUESTS]; /* [count], in order */
    int count;
    bool complement;   /* filters take out what they name */
    bool per_layer;    /* each change once more on each layer alone */
    bool per_head;     /* each change once more on each head alone */
    int32_t states[3]; /* [state_count] bits of what filters and noise change, in order */
    int state_count;
};

/* Adds the requests in `text`, the value of --OPTION: "0:0.25,0.5:1" (filter), "a:b:eps" (noise),
 * "0.25,0.5" (freqkv, local, decompose), "8" (bands, octaves). Refused: what is no such value, and
 * more than FKV_PROBE_REQUESTS. */
int fkv_probe_request(struct fkv_probe_requests *requests, enum fkv_probe_option option,
                      const char *text, struct fkv_error *err);
/* Sets the states to "key", "value", "both" or a list of them. */
int fkv_probe_parse_states(struct fkv_probe_requests *requests, const char *text,
                           struct fkv_error *err);

/* changes [count] (malloc'd, the caller frees): the empty one, then what the requests ask for, for
 * n changed slots. Refused: what leaves no slot or no coefficient. */
int fkv_probe_list_changes(const struct fkv_probe_requests *requests, int32_t layers,
                           int32_t kv_heads, int32_t n, struct fkv_probe_change **changes,
                           int32_t *count, struct fkv_error *err);

#endif
