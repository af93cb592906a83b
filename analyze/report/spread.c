/* Owns median, mean and range of numbers. */
#include "analyze/report/spread.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int fkv_spread_of(const double *x, int64_t count, struct fkv_spread *out, struct fkv_error *err) {
    double *sorted = malloc(((size_t)count + 1) * sizeof *sorted), sum = 0;
    int64_t n = 0;
    if (!sorted) return fkv_fail(err, "out of memory for %lld numbers", (long long)count);
    *out = (struct fkv_spread){NAN, NAN, NAN, NAN, 0};
    for (int64_t i = 0; i < count; i++)
        if (isfinite(x[i])) sorted[n++] = x[i], sum += x[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    if (n)
        *out = (struct fkv_spread){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sum / (double)n,
                                   sorted[0], sorted[n - 1], (int)n};
    free(sorted);
    return FKV_OK;
}
