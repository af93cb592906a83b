/* A budget of coefficients shared out among heads so that the loss is least. */
#ifndef FKV_ANALYZE_MEASURE_BUDGET_H
#define FKV_ANALYZE_MEASURE_BUDGET_H

#include <stdint.h>

#include "kernels/base/error.h"

/* loss [heads, steps + 1]: what a head loses when it keeps k of `steps` parts, k = 0 .. steps; any
 * finite numbers, in no particular shape. parts [heads] <- the k of every head, low <= k <= high,
 * sum at most `total`, with the least sum of losses. Exact: a dynamic programme over heads and
 * parts spent, O(heads * total * (high - low)) time and heads * total bytes; equal losses go to
 * fewer parts. Refused: a total that heads * low exceeds, and 1 <= low <= high <= steps
 * <= 255 not kept. */
int fkv_budget_share(const double *loss, int32_t heads, int32_t steps, int32_t low, int32_t high,
                     int64_t total, int32_t *parts, struct fkv_error *err);

#endif
