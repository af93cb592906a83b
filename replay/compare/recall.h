/* Recall under several policies: the same passages of the texts return, and what that saves under
 * each is compared with full attention, prompt by prompt. */
#ifndef FKV_REPLAY_COMPARE_RECALL_H
#define FKV_REPLAY_COMPARE_RECALL_H

#include "replay/tasks/needle_grid.h"

struct fkv_recall {
    const struct fkv_replay *replay; /* its options name the texts */
    int64_t repeats;                 /* prompts; 0: nothing is asked */
    int32_t passage;                 /* tokens that return */
    int64_t seed;                    /* of where the text starts */
    int32_t block;                   /* of the prefill */
    double length;                   /* tokens of a prompt */

    /* filled in by fkv_recall_open; owned */
    struct fkv_corpus corpus;
    struct fkv_haystack haystack;
    struct fkv_needle_task task;
};
/* Reads the texts without BOS and builds every prompt once. The caller closes it, after failures
 * too. */
int fkv_recall_open(struct fkv_recall *r, struct fkv_error *err);
void fkv_recall_close(struct fkv_recall *r); /* harmless on a zeroed struct */

/* change [repeats] <- loss of the passage where it returns less where it stood first, nats per
 * token. PATH holds a row per prompt (needle_rows.h) and goes on where it stopped. */
int fkv_recall_run(const struct fkv_recall *r, const struct fkv_policy_options *policy,
                   const char *path, double *change, struct fkv_error *err);

/* Mean over prompts; the standard error is a bootstrap over them, NaN with one. */
struct fkv_recall_mean {
    double mean, se;
};
int fkv_recall_mean(const double *change, int64_t repeats, struct fkv_recall_mean *out,
                    struct fkv_error *err);

#endif
