/* The targets of a plan in their order: which document and which block of the bootstrap each
 * belongs to, what they add up to, and the standard errors that follow. */
#ifndef FKV_REPLAY_PERPLEXITY_TARGETS_H
#define FKV_REPLAY_PERPLEXITY_TARGETS_H

#include "kernels/statistics/bootstrap.h"
#include "replay/perplexity/protocol.h"

/* What some scored tokens add up to; means are these over `count`. */
struct fkv_sums {
    int64_t count;
    double nll;
    double baseline_nll; /* of the baseline; 0 without one */
    double kl;           /* to it; NaN where it is not known */
    double agree;        /* tokens where policy and baseline have the same argmax; NaN likewise */
};
void fkv_sums_add(struct fkv_sums *to, const struct fkv_sums *from);
double fkv_mean(double sum, int64_t count); /* NaN when nothing was counted */

struct fkv_targets {
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    struct fkv_sums *documents; /* [documents of the corpus] what they add up to; borrowed */
    struct fkv_sums *blocks; /* [block_count] of 256 targets within a document; NULL where windows
                                overlap */
    int64_t *first_block;    /* [documents] */
    int64_t block_count;
    int64_t *scored_before; /* [passes] targets of the first target's document that earlier passes
                               score */
};

/* Numbers the targets. `documents` [documents of the corpus]: zeroed sums, borrowed. The caller
 * closes it. */
int fkv_targets_open(const struct fkv_corpus *corpus, const struct fkv_plan *plan,
                     struct fkv_sums *documents, struct fkv_targets *targets,
                     struct fkv_error *err);
void fkv_targets_close(struct fkv_targets *targets); /* harmless on a zeroed struct */

/* The document of a stream token at or after document d's first. */
int64_t fkv_document_of(const struct fkv_corpus *corpus, int64_t d, int64_t token);

/* Adds target `scored` (from 0) of document d. */
void fkv_targets_add(struct fkv_targets *targets, int64_t d, int64_t scored,
                     const struct fkv_sums *target);

/* How far to trust the means; NaN: no standard error. */
struct fkv_target_errors {
    double nll_se, kl_se, delta_nll_se;
    struct fkv_interval delta_nll; /* of nll less the baseline's */
};
int fkv_targets_errors(const struct fkv_targets *targets, struct fkv_target_errors *errors,
                       struct fkv_error *err);

/* What standard errors of such a plan rest on, by bootstrap.h: documents and blocks of 256 scored
 * tokens in their order. */
enum fkv_se_unit fkv_perplexity_se_unit(const struct fkv_corpus *corpus,
                                        const struct fkv_plan *plan);
/* Documents of which the plan scores something. */
int64_t fkv_perplexity_documents(const struct fkv_corpus *corpus, const struct fkv_plan *plan);

#endif
