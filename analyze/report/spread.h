/* Median, mean and range of numbers, for sentences and tables. */
#ifndef FKV_ANALYZE_REPORT_SPREAD_H
#define FKV_ANALYZE_REPORT_SPREAD_H

#include <stdint.h>

#include "kernels/base/error.h"

struct fkv_spread {
    double median;
    double mean;
    double least;
    double largest;
    int count; /* of finite numbers; with 0 the others are NaN */
};
/* x [count]; what is not finite is left out. */
int fkv_spread_of(const double *x, int64_t count, struct fkv_spread *out, struct fkv_error *err);

#endif
