/* Student's t by the incomplete beta function, and false discovery rates; see significance.h. */
#include "kernels/statistics/significance.h"

#include <math.h>
#include <stdlib.h>

/* The continued fraction of the incomplete beta function I_x(a, b) (Abramowitz and Stegun 26.5.8,
 * by Lentz's method); converges fast for x < (a + 1) / (a + b + 2). */
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

double fkv_student_p(double t, double freedom) {
    if (!(freedom > 0) || isnan(t)) return NAN;
    return isinf(t) ? 0 : incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5);
}

/* Student's t of the mean of x [n]; NaN for n < 2 or where nothing varies. */
static double t_of(const double *x, int64_t n) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    if (n < 2 || !(squares > 0)) return NAN;
    return mean / sqrt(squares / ((double)n - 1) / (double)n);
}

double fkv_t_test(const double *x, int64_t n) { return fkv_student_p(t_of(x, n), (double)n - 1); }

double fkv_t_test_above(const double *x, int64_t n) {
    double t = t_of(x, n), both = fkv_student_p(t, (double)n - 1);
    return t > 0 ? both / 2 : 1 - both / 2;
}

static int by_value(const void *a, const void *b, void *values) {
    const int32_t *x = a, *y = b;
    const double *v = values;
    return v[*x] != v[*y] ? (v[*x] > v[*y]) - (v[*x] < v[*y]) : (*x > *y) - (*x < *y);
}

void fkv_benjamini_hochberg(const double *p, int32_t n, double *q, int32_t *order) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        q[i] = NAN;
        if (!isnan(p[i])) order[count++] = i;
    }
    qsort_r(order, (size_t)count, sizeof *order, by_value, (void *)p);
    double least = 1;
    for (int32_t i = count - 1; i >= 0; i--) {
        least = fmin(least, p[order[i]] * count / (i + 1));
        q[order[i]] = least;
    }
}
