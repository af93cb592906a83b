/* Reading what a user typed: numbers, ranges and lists, whole strings only ("12x" is refused).
 * Messages name the option. */
#ifndef FKV_BASE_PARSE_H
#define FKV_BASE_PARSE_H

#include <stdint.h>

#include "kernels/base/error.h"

/* A whole decimal integer in [low, high]. `what` names the option in messages, e.g. "--window". */
int fkv_parse_int(const char *text, const char *what, int64_t low, int64_t high, int64_t *value,
                  struct fkv_error *err);

/* A finite decimal number in [low, high]. */
int fkv_parse_double(const char *text, const char *what, double low, double high, double *value,
                     struct fkv_error *err);

/* "a:b:c" (from a to b in steps of c, both ends included), "a,b,c" or "a": the values in *values
 * (malloc'd, the caller frees), their number in *count (1 to 10000). A range is computed in
 * integers over the step: 0.1:0.9:0.1 has exactly nine, and value i is the double nearest to a +
 * i*c as decimals, so the third is 0.3 and not 0.30000000000000004. */
int fkv_parse_range(const char *text, const char *what, double **values, int *count,
                    struct fkv_error *err);

/* "0-3,7" -> {0,1,2,3,7}: indices in [0, limit), ascending, no repeats. *values malloc'd, the
 * caller frees. */
int fkv_parse_indices(const char *text, const char *what, int limit, int **values, int *count,
                      struct fkv_error *err);

#endif
