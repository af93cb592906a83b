/* The estimators of the analyzer, on plain arrays: document-weighted means, their standard errors,
 * permutations for the null, and bands.
 *
 * Mean. Segments within a document, then documents, equal weight: mean = sum_s a_s p_s with a_s = 1
 * / (documents * segments of its document).
 *
 * Standard error (kernels/statistics/bootstrap.h; a block is a segment).
 *  - 20 documents or more: documents are the independent units; sqrt(sum_d (m_d - mean)^2 / (D (D -
 *  1))), m_d the mean of document d.
 *  - 2 to 19: a resample draws documents with replacement, then as many segments as the drawn
 *    document has from its segments.
 *  - one: its segments are drawn with replacement, which speaks for that document only. A
 *    single segment has no standard error: NaN.
 * Each segment keeps the weight that it has in the mean, weights scaled to sum 1. Beyond 1,000
 * segments neighbours of a document are joined, so that there are about 1,000 blocks, each
 * document having one at least.
 *
 * The bootstrap replicate is linear in the blocks, w_r . Z, so the variance over the resamples is
 * exactly Z' C Z with C the sample covariance [B, B] of the weight vectors. C depends on the plan
 * alone and is formed once for all layers, heads and coefficients; resampling each column anew
 * costs 1000/B times as much. */
#ifndef FKV_ANALYZE_MEASURE_AVERAGES_H
#define FKV_ANALYZE_MEASURE_AVERAGES_H

#include <stdint.h>

#include "analyze/measure/segments.h"
#include "kernels/base/memory.h"
#include "kernels/statistics/bootstrap.h"

enum { FKV_BOOTSTRAP_BLOCKS = 1000, FKV_BANDS = 64 };

/* How standard errors are formed under one plan; immutable. */
struct fkv_error_model {
    enum fkv_se_unit unit;
    int32_t blocks;       /* 0: over documents */
    int32_t *block;       /* [segments] the block of each */
    double *block_weight; /* [blocks] sum of a_s over the block */
    double *covariance;   /* [blocks, blocks] of the resamples' weights */
    struct fkv_memory memory;
};
int fkv_error_model_make(const struct fkv_segment_plan *plan, struct fkv_error_model *model,
                         struct fkv_error *err);
void fkv_error_model_free(
    struct fkv_error_model *model); /* harmless on a zeroed struct and a second time */

/* A running mean of vectors of `columns` numbers, and what its standard error needs. */
struct fkv_average {
    const struct fkv_error_model *model;
    int64_t columns;
    int32_t documents, document, finished; /* document: being added; finished: how many are done */
    double *mean;                          /* [columns] */
    double *document_mean, *running_mean;  /* [columns], or NULL */
    double *squares;   /* [columns] sum of squared deviations of document means, or NULL */
    double *block_sum; /* [blocks, columns] sum of a_s p_s, or NULL */
    struct fkv_memory memory;
};
/* model NULL: the mean alone. */
int fkv_average_begin(struct fkv_average *a, int64_t columns, int32_t documents,
                      const struct fkv_error_model *model, struct fkv_error *err);
/* Adds p [columns] with weight `share` within `document` (shares of a document sum to 1, documents
 * come one after another); `segment` counts over the plan. */
void fkv_average_add(struct fkv_average *a, int32_t document, double share, int64_t segment,
                     const double *p);
/* se [columns]; needs a model. All has been added; called once. Shared out as tasks to the threads
 * of the parallel region that it is called in, if any. */
void fkv_average_error(struct fkv_average *a, double *se);
void fkv_average_free(struct fkv_average *a); /* harmless on a zeroed struct and a second time */

/* A uniformly random permutation of 0 .. n-1 (Fisher-Yates over splitmix64) that depends on `key`
 * alone. */
void fkv_permutation(uint64_t key, int32_t n, int32_t *order /* [n] */);
/* Key of draw `draw` for the segment of this recording that starts at token `start` of it: the same
 * whatever the order of recordings and the threads. */
uint64_t fkv_permutation_key(const struct fkv_recording *recording, int64_t start, int32_t draw);

/* Up to 64 log-spaced bands over 1 <= t < n; each holds a coefficient, so small n has fewer.
 * Returns their number; edge[0] = 1, edge[bands] = n. */
int32_t fkv_band_edges(int32_t n, int32_t edge[FKV_BANDS + 1]);
/* power [rows, n] -> mean [rows, bands] over each band */
void fkv_band_means(const double *power, int64_t rows, int32_t n, int32_t bands,
                    const int32_t *edge, double *mean);

#endif
