/* What scored tokens add up to. How far to trust their means: kernels/statistics/bootstrap.h. */
#ifndef FKV_REPLAY_STATISTICS_H
#define FKV_REPLAY_STATISTICS_H

#include <stdint.h>

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

#endif
