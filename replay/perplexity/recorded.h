/* What a run keeps per scored token and per action (compression or eviction on a schedule), for the
 * run file. */
#ifndef FKV_REPLAY_PERPLEXITY_RECORDED_H
#define FKV_REPLAY_PERPLEXITY_RECORDED_H

#include "engine/session/session.h"
#include "replay/perplexity/protocol.h"

/* One action of one head: energies of kernels.h, struct fkv_energy. */
struct fkv_recorded_action {
    int64_t pass, token; /* token: position in the pass of the one that triggered it */
    int32_t layer, kv_head;
    int32_t round; /* of this head in this pass, from 1 */
    int32_t slots; /* in use afterwards */
    bool eviction; /* else a compression */
    struct fkv_energy energy;
};

/* A joined protocol (stride) has a row per window, columns [passes, longest]; every other protocol
 * scores a token at most once, columns [corpus tokens]. NaN where nothing was scored. */
struct fkv_recorded {
    int64_t count;        /* elements per column */
    float *nll;           /* nats */
    float *top1;          /* the most likely token */
    float *slots_used;    /* slots it could attend to; this and what follows: means over heads */
    float *round, *since; /* compressions before it; tokens since the last */
    float *evictions,
        *since_eviction; /* the same of evictions; NULL where the policy evicts nothing */
    float *baseline_nll, *kl, *agree; /* NULL without a baseline */
    float *final_states; /* [count, dim] final hidden states of the queries that predict the tokens;
                            NULL: not kept */
    int32_t dim;
    struct fkv_recorded_action *actions;
    int64_t action_count, action_capacity;
};

/* Elements per column. */
int64_t fkv_recorded_length(const struct fkv_corpus *corpus, const struct fkv_plan *plan);
/* The element of the token at `position` of a pass. */
int64_t fkv_recorded_index(const struct fkv_plan *plan, int64_t pass, int32_t position);

/* What a run keeps. */
struct fkv_recorded_options {
    const struct fkv_policy *policy;
    bool baseline;
    int32_t dim; /* of the final hidden states; 0: they are not kept */
};
/* Bytes of the columns of such a run; actions come on top. */
int64_t fkv_recorded_bytes(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                           const struct fkv_recorded_options *options);
int fkv_recorded_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                      const struct fkv_recorded_options *options, struct fkv_recorded *recorded,
                      struct fkv_error *err);
void fkv_recorded_free(struct fkv_recorded *recorded); /* harmless on a zeroed struct */

int fkv_recorded_add_action(struct fkv_recorded *recorded, const struct fkv_recorded_action *action,
                            struct fkv_error *err);
/* Puts actions in the order of pass, token, layer, head, which the engine's own order (by feeds and
 * rounds) is not. */
void fkv_recorded_sort(struct fkv_recorded *recorded);

#endif
