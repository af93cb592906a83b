/* How closely one number follows another over heads: rank and linear correlation, with bootstrap
 * intervals.
 *
 * Pearson   r = sum (x - mx)(y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2)
 * Spearman  Pearson's r of the ranks, ties sharing the mean of their ranks (Spearman 1904)
 * partial   (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)) of ranks: what is left between x
 *           and y once z is known
 *
 * Intervals are percentile intervals (2.5% to 97.5%) of 1,000 resamples with replacement (Efron
 * 1979), seed 0, formed in two ways that answer two questions:
 *  - over points: would other heads of such a model show it?
 *  - over units: y is a mean over units (documents, blocks within them, by
 *    kernels/statistics/bootstrap.h); would other texts show it? Resampling adds noise to y a
 *    second time, which pulls correlations towards 0, so that these intervals are too low rather
 * than high. The same draws serve every predictor, so differences between predictors are paired. A
 * resample without variation has no correlation and is left out. */
#ifndef FKV_KERNELS_STATISTICS_CORRELATION_H
#define FKV_KERNELS_STATISTICS_CORRELATION_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/statistics/bootstrap.h"

/* x, y [n]. NaN below three points, and where one of them does not vary. */
double fkv_pearson(int32_t n, const double *x, const double *y);
/* rank [n] from 1 <- x [n]; order [n] is scratch. */
void fkv_ranks(int32_t n, const double *x, double *rank, int32_t *order);
double fkv_partial_correlation(double xy, double xz, double yz);

struct fkv_correlation_task {
    int32_t points, predictors;
    bool falling;    /* a good predictor's correlation is -1, not 1 */
    const double *x; /* [predictors, points]; a predictor with a number that is not finite gets no
                        correlations */
    const double *z; /* [points], what the partial correlation holds fixed, or NULL */
    const struct fkv_units *units;
    const double *sums;   /* [points, units]: y = sum of its sums / sum of counts */
    const double *counts; /* [units] */
};

struct fkv_correlation {                            /* of one predictor */
    struct fkv_interval spearman, pearson, partial; /* intervals over points */
    struct fkv_interval spearman_units, pearson_units;
    struct fkv_interval behind; /* the best predictor's Spearman minus this one's (the other way
                                   round when falling), over points; 0 for the best itself */
    int32_t place; /* by Spearman, in the direction expected: one that orders points the wrong way
                      round is the worst. 1 is the best; 0 without one */
};

/* The correlations of every predictor -> out [predictors]. */
int fkv_correlate(const struct fkv_correlation_task *t, struct fkv_correlation *out,
                  struct fkv_error *err);

#endif
