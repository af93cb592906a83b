/* Full attention's run file as a baseline: what an earlier run found at every scored token. */
#ifndef FKV_REPLAY_PERPLEXITY_BASELINE_RUN_H
#define FKV_REPLAY_PERPLEXITY_BASELINE_RUN_H

#include <stdint.h>

#include "replay/perplexity/protocol.h"

/* Columns as in recorded.h, [count] each; owned. */
struct fkv_baseline_run {
    int64_t count;
    float *nll;          /* nats */
    float *top1;         /* the most likely token; NULL: the file does not say */
    float *final_states; /* [count, dim]; NULL: the file does not hold them, and KL is not known.
                            Where they are there, nll and top1 are computed from them again, to the
                            digits of a baseline that is computed beside. */
    int32_t dim;
};
void fkv_baseline_run_free(struct fkv_baseline_run *run); /* harmless on a zeroed struct */

/* What the file does not say, and how it would: for people; "" where nothing is missing. */
const char *fkv_baseline_run_missing(const struct fkv_baseline_run *run);

#endif
