/* The causal experiment of definitions.md, "Probe": a prefix is read once, its cache changed in
 * many ways, one at a time, and the tokens after it scored each time. */
#ifndef FKV_REPLAY_PROBE_PROBE_H
#define FKV_REPLAY_PROBE_PROBE_H

#include "capture/store/probe.h"
#include "engine/session/session.h"
#include "replay/corpus.h"
#include "replay/probe/changes.h"

/* Where the windows of P + M + 1 tokens begin. */
struct fkv_probe_place {
    int32_t document; /* in the corpus */
    int64_t offset;   /* in the document */
};

/* Up to `blocks` windows of each document that is long enough, one after the other from its start
 * (malloc'd, the caller frees). A corpus that gives none is refused, with its longest document's
 * name. */
int fkv_probe_places(const struct fkv_corpus *corpus, int32_t prefix, int32_t score, int32_t blocks,
                     struct fkv_probe_place **places, int64_t *count, struct fkv_error *err);

struct fkv_prober {
    const struct fkv_corpus *corpus;
    const struct fkv_edit *edits;         /* [probe->change_count], rows as in probe->changes */
    const struct fkv_probe_place *places; /* [place_count] */
    int64_t place_count;
    int32_t bos; /* over the first token of windows that do not start a document; -1: none */
    const uint8_t *token_class; /* of the corpus' tokens; NULL: unknown */
    struct fkv_session
        *session; /* of policy full, with biases, for P + M tokens; its block is fed at once */
    const char
        *parts; /* folder for finished windows, taken up again where it is there; NULL: none */
    bool quiet;
    struct fkv_cost cost; /* of tokens and slots, where it was measured; else 0 */
};

/* Tokens that one window takes, and the seconds that those take by `cost`. */
int64_t fkv_probe_fed(const struct fkv_probe *probe);
double fkv_probe_seconds(const struct fkv_probe *probe, const struct fkv_cost *cost);

/* Fills probe->windows (the rest of `probe` stands) and the noise floor. */
int fkv_probe_run(const struct fkv_prober *prober, struct fkv_probe *probe, struct fkv_error *err);

#endif
