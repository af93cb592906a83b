/* Perplexity: runs the passes of a plan through a session, a baseline in lockstep, and adds up what the scored tokens say. */
#ifndef FKV_REPLAY_PERPLEXITY_H
#define FKV_REPLAY_PERPLEXITY_H

#include "engine/session.h"
#include "replay/protocol.h"
#include "replay/statistics.h"

/* One compression of one head: energies of kernels.h, struct fkv_energy. */
struct fkv_compression {
    int64_t pass, token; /* token: place in the pass of the one that triggered it */
    int32_t layer, kv_head;
    struct fkv_energy energy;
};

/* What a run keeps per scored token, for the run file. A joined protocol (stride) has a row per window, columns [passes, longest]; every other
 * protocol scores a token at most once, columns [corpus tokens]. NaN where nothing was scored. */
struct fkv_recorded {
    int64_t count; /* elements per column */
    float *nll;    /* nats */
    float *round, *slots_used,
        *since; /* compressions before it, slots it could attend to, tokens since the last; means over heads */
    float *baseline_nll, *kl, *agree; /* NULL without a baseline */
    struct fkv_compression *compressions;
    int64_t compression_count, compression_room;
};
/* Bytes of the columns of such a run; compressions come on top. */
int64_t fkv_recorded_bytes(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline);
int fkv_recorded_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan, bool baseline,
                      struct fkv_recorded *recorded, struct fkv_error *err);
void fkv_recorded_free(struct fkv_recorded *recorded); /* harmless on a zeroed struct */

struct fkv_perplexity {
    struct fkv_sums total;
    struct fkv_sums *documents;               /* [corpus documents] */
    double nll_se, delta_nll_se;              /* of the means; NaN when there are too few units */
    double compressions;                      /* mean per head per pass */
    struct fkv_session_statistics statistics; /* of the policy's session in this run */
};

/* `baseline` and `recorded` may be NULL. With `recorded`, the session must have been opened with measure_energy. */
int fkv_perplexity_run(const struct fkv_corpus *corpus, const struct fkv_plan *plan, struct fkv_session *session,
                       struct fkv_session *baseline, struct fkv_recorded *recorded, bool quiet,
                       struct fkv_perplexity *result, struct fkv_error *err);
void fkv_perplexity_free(struct fkv_perplexity *result); /* harmless on a zeroed struct */

#endif
