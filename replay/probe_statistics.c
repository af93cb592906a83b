/* Intervals by bootstrap over units, p values by Student's t over the same units. The bootstrap has 1,000 resamples, too few to tell p = 1e-3 from 1e-6, and a table of a
 * thousand heads needs such differences once it is corrected for their number: hence a test of its own for p.
 *
 * p of t with f degrees of freedom is I_x(f/2, 1/2), x = f / (f + t^2), the regularised incomplete beta function, by its continued fraction
 * (DLMF 8.17.22) from the front by Lentz's method as modified by Thompson and Barnett. */
#include "replay/probe_statistics.h"

#include <math.h>
#include <stdlib.h>

#include "replay/random.h"
#include "replay/statistics.h"

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Percentile of sorted x [n], linear between order statistics. */
static double percentile(const double *x, int64_t n, double fraction) {
    double at = fraction * (double)(n - 1);
    int64_t below = (int64_t)at;
    return below + 1 < n ? x[below] + (at - (double)below) * (x[below + 1] - x[below]) : x[n - 1];
}

void fkv_bootstrap_interval(const double *sums, const int64_t *counts, int64_t units, double *low, double *high) {
    double means[FKV_BOOTSTRAP_RESAMPLES];
    struct fkv_random random = {0};
    *low = *high = NAN;
    if (units < 2) return;
    for (int r = 0; r < FKV_BOOTSTRAP_RESAMPLES; r++) {
        double sum = 0;
        int64_t count = 0;
        for (int64_t i = 0; i < units; i++) {
            uint64_t unit = fkv_random_below(&random, (uint64_t)units);
            sum += sums[unit];
            count += counts[unit];
        }
        means[r] = sum / (double)count;
    }
    qsort(means, FKV_BOOTSTRAP_RESAMPLES, sizeof *means, ascending);
    *low = percentile(means, FKV_BOOTSTRAP_RESAMPLES, 0.025);
    *high = percentile(means, FKV_BOOTSTRAP_RESAMPLES, 0.975);
}
