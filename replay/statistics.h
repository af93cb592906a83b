/* Means over scored tokens and how far to trust them. */
#ifndef FKV_REPLAY_STATISTICS_H
#define FKV_REPLAY_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

enum { FKV_BOOTSTRAP_RESAMPLES = 1000, FKV_BOOTSTRAP_BLOCK = 256, FKV_BOOTSTRAP_DOCUMENTS = 20 };

/* What some scored tokens add up to; means are these over `count`. */
struct fkv_sums {
    int64_t count;
    double nll;
    double baseline_nll, kl; /* of the baseline; 0 without one */
    int64_t agree;           /* tokens where policy and baseline have the same argmax */
};
void fkv_sums_add(struct fkv_sums *to, const struct fkv_sums *from);
double fkv_mean(double sum, int64_t count); /* NaN when nothing was counted */

enum fkv_quantity { FKV_MEAN_NLL, FKV_DELTA_NLL };

/* Standard error of the pooled mean over `units` (documents or blocks of tokens, each with a count above 0), by bootstrap:
 * 1,000 times, as many units as there are are drawn with replacement (random.h, seed 0) and the mean is formed anew as sum over count;
 * the standard deviation (n - 1) of those means. NaN for fewer than two units. The same draws serve every quantity, so a difference is paired. */
double fkv_bootstrap_se(const struct fkv_sums *units, int64_t count, enum fkv_quantity quantity);

#endif
