/* p-values and what many of them together are worth: for every room that tests something. */
#ifndef FKV_KERNELS_STATISTICS_SIGNIFICANCE_H
#define FKV_KERNELS_STATISTICS_SIGNIFICANCE_H

#include <stdint.h>

/* Two-sided p of Student's t with so many degrees of freedom; NaN for none. */
double fkv_student_p(double t, double freedom);

/* Two-sided p of Student's t for the mean of x [n] being 0; NaN for n < 2 or where nothing varies.
 */
double fkv_t_test(const double *x, int64_t n);
/* One-sided p of the same: of a mean as large as this or larger. A mean well below 0 has a p near
 * 1. */
double fkv_t_test_above(const double *x, int64_t n);

/* Benjamini and Hochberg (1995): q [n] <- p [n], the smallest false discovery rate at which each
 * would be called. NaN stays NaN and does not count. order [n] is scratch. */
void fkv_benjamini_hochberg(const double *p, int32_t n, double *q, int32_t *order);

#endif
