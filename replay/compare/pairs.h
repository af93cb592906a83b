/* Two runs of one corpus and plan, token by token. */
#ifndef FKV_REPLAY_COMPARE_PAIRS_H
#define FKV_REPLAY_COMPARE_PAIRS_H

#include "replay/perplexity/recorded.h"
#include "replay/perplexity/targets.h"

/* nll of b less nll of a, mean over scored tokens, in nats. */
struct fkv_pair {
    int64_t tokens;
    double delta_nll, se; /* se NaN: none */
    struct fkv_interval interval;
};
/* a, b: columns [fkv_recorded_length]. */
int fkv_pair_compare(const struct fkv_corpus *corpus, const struct fkv_plan *plan, const float *a,
                     const float *b, struct fkv_pair *pair, struct fkv_error *err);

/* *nll (malloc'd) <- the column of a run file that is known to be of this corpus and plan, and how
 * long a token took; NaN where the file does not say. */
int fkv_pair_read(const char *path, const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                  float **nll, double *ms_per_token, struct fkv_error *err);

#endif
