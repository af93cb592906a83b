/* Perplexity: runs the passes of a plan through a session, several side by side, a baseline in
 * lockstep, and adds up what the scored tokens say. */
#ifndef FKV_REPLAY_PERPLEXITY_PERPLEXITY_H
#define FKV_REPLAY_PERPLEXITY_PERPLEXITY_H

#include "replay/perplexity/baseline_run.h"
#include "replay/perplexity/recorded.h"
#include "replay/perplexity/targets.h"

struct fkv_perplexity {
    struct fkv_sums total;
    struct fkv_sums *documents;     /* [corpus documents] */
    double compressions, evictions; /* mean per head per pass */
    /* Slots of each head, [layers, kv_heads] each; owned. */
    double *slots_end;   /* held at the end of a pass, mean over passes */
    double *slots_kept;  /* in use after an action that counts, mean over them; NaN without any */
    int32_t *slots_most; /* held at most */
    int64_t cache_bytes_allocated;            /* for one sequence */
    struct fkv_target_errors errors;          /* of the means (fkv_perplexity_se_unit) */
    struct fkv_session_statistics statistics; /* of the policy's session in this run */
    double seconds;             /* wall time of its feeds, to their end on a device too */
    double seconds_compressing; /* of those; 0 where the policy does not compress (an eviction is no
                                   compression) */
};

/* How many passes run side by side when `batch` are asked for. */
int32_t fkv_perplexity_lanes(const struct fkv_plan *plan, int32_t batch);
/* What sessions of such a run are opened with; block (fkv_engine_block, shared out among the
 * lanes), cache_dtype and measure_energy are the caller's. */
struct fkv_session_options fkv_perplexity_session(const struct fkv_plan *plan, int32_t lanes);

/* Seconds that a run takes by plan->cost: what its progress is counted in. */
double fkv_perplexity_seconds(const struct fkv_plan *plan, const struct fkv_policy_setup *setup,
                              bool baseline);

/* Full attention, that differences are taken to: computed beside the policy or taken from a run;
 * both NULL: there is no baseline. */
struct fkv_baseline {
    struct fkv_session *session;
    const struct fkv_baseline_run *run;
};
/* Bytes that comparing with the final hidden states of a run takes where the backend computes. */
int64_t fkv_perplexity_kept_bytes(const struct fkv_config *config,
                                  const struct fkv_session_options *options);

/* `recorded` may be NULL. Both sessions opened with fkv_perplexity_session(plan, lanes); with
 * `recorded`, measure_energy on top. */
int fkv_perplexity_run(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                       struct fkv_session *session, const struct fkv_baseline *baseline,
                       int32_t lanes, struct fkv_recorded *recorded, bool quiet,
                       struct fkv_perplexity *result, struct fkv_error *err);
void fkv_perplexity_free(struct fkv_perplexity *result); /* harmless on a zeroed struct */

#endif
