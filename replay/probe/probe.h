/* The causal experiment of definitions.md, "Probe": a prefix is read once, its cache changed in
 * many ways, one at a time, and the tokens after it scored each time. */
#ifndef FKV_REPLAY_PROBE_PROBE_H
#define FKV_REPLAY_PROBE_PROBE_H

#include "capture/store/probe.h"
#include "engine/session/session.h"
#include "replay/corpus.h"

/* Where a window of P + M + 1 tokens begins. */
struct fkv_probe_start {
    int32_t document; /* in the corpus */
    int64_t offset;   /* in the document */
};

/* starts [count] (malloc'd, the caller frees): up to `blocks` windows of each document that is long
 * enough, one after the other from its first token. A corpus that gives none is refused, with its
 * longest document's name. */
int fkv_probe_find_windows(const struct fkv_corpus *corpus, int32_t prefix, int32_t score,
                           int32_t blocks, struct fkv_probe_start **starts, int64_t *count,
                           struct fkv_error *err);

/* What a probe runs on; all borrowed. */
struct fkv_prober {
    const struct fkv_corpus *corpus;
    const struct fkv_probe_start *starts; /* [window_count] */
    int64_t window_count;
    int32_t bos; /* over the first token of windows that do not start a document; -1: none */
    const uint8_t *token_class;  /* of the corpus' tokens; NULL: unknown */
    struct fkv_session *session; /* of policy full, with biases, for P + M tokens; feeds its block
                                    at once */
    const char
        *parts; /* folder of finished windows; those found there are not run again. NULL: none
                 */
    bool quiet;
    struct fkv_cost cost; /* of tokens and slots, where it was measured; else 0 */
};

/* Tokens that one window feeds. */
int64_t fkv_probe_fed(const struct fkv_probe *probe);
/* Seconds that one window takes by `cost`. */
double fkv_probe_seconds(const struct fkv_probe *probe, const struct fkv_cost *cost);

/* Makes the changes of `probe` on each window; fills probe->windows and the noise floor. */
int fkv_probe_run(const struct fkv_prober *prober, struct fkv_probe *probe, struct fkv_error *err);

#endif
