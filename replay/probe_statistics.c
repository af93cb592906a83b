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

/* The continued fraction 1 / (1 + d1 / (1 + d2 / ...)) of I_x(a, b); converges fast for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double x, double a, double b) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m < 10000; m++) {
        double terms[] = {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                          -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))};
        double step = 1;
        for (int i = 0; i < 2; i++) {
            d = 1 + terms[i] * d;
            c = 1 + terms[i] / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            step = c * d;
            value *= step;
        }
        if (fabs(step - 1) < 1e-15) break;
    }
    return value;
}

static double incomplete_beta(double x, double a, double b) {
    if (x <= 0 || x >= 1) return x >= 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(x, a, b) / a;
    return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double fkv_t_test(const double *x, int64_t n) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    if (n < 2 || !(squares > 0)) return NAN;
    double freedom = (double)n - 1, t = mean / sqrt(squares / freedom / (double)n);
    return incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5);
}

struct ranked {
    double p;
    int64_t at;
};

static int by_p(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    return x->p != y->p ? (x->p > y->p) - (x->p < y->p) : (x->at > y->at) - (x->at < y->at);
}

void fkv_benjamini_hochberg(const double *p, int64_t n, double *q) {
    struct ranked *ranked = malloc((size_t)(n ? n : 1) * sizeof *ranked);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) q[i] = NAN;
    if (!ranked) return;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(p[i])) ranked[count++] = (struct ranked){p[i], i};
    qsort(ranked, (size_t)count, sizeof *ranked, by_p);
    double least = 1;
    for (int64_t i = count - 1; i >= 0; i--) {
        least = fmin(least, ranked[i].p * (double)count / (double)(i + 1));
        q[ranked[i].at] = least;
    }
    free(ranked);
}
