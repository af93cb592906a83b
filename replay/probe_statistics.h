/* How far to trust the mean effect of a change, and of many. */
#ifndef FKV_REPLAY_PROBE_STATISTICS_H
#define FKV_REPLAY_PROBE_STATISTICS_H

#include <stdint.h>

/* 95% interval of sum(sums) / sum(counts) over `units`: 2.5th and 97.5th percentile (linear between order statistics) of 1,000 resamples of units, drawn
 * as statistics.h says, seed 0. NaN for fewer than two units. */
void fkv_bootstrap_interval(const double *sums, const int64_t *counts, int64_t units, double *low, double *high);

/* Two-sided p of Student's t for the mean of x [n] being 0; NaN for n < 2 or where nothing varies. */
double fkv_t_test(const double *x, int64_t n);

/* Benjamini and Hochberg (1995): p [n] -> q [n], the smallest false discovery rate at which each would be called. NaN stays NaN and does not count. */
void fkv_benjamini_hochberg(const double *p, int64_t n, double *q);

#endif
