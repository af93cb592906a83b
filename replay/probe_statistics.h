/* How far to trust the mean effect of a change, and of many. */
#ifndef FKV_REPLAY_PROBE_STATISTICS_H
#define FKV_REPLAY_PROBE_STATISTICS_H

#include <stdint.h>

/* 95% interval of sum(sums) / sum(counts) over `units`: 2.5th and 97.5th percentile (linear between order statistics) of 1,000 resamples of units, drawn
 * as statistics.h says, seed 0. NaN for fewer than two units. */
void fkv_bootstrap_interval(const double *sums, const int64_t *counts, int64_t units, double *low, double *high);

#endif
