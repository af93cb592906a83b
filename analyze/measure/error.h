/* What a retaining ratio throws away (definitions.md, "Retained energy" and after). */
#ifndef FKV_ANALYZE_MEASURE_ERROR_H
#define FKV_ANALYZE_MEASURE_ERROR_H

#include <stdbool.h>

#include "analyze/measure/findings.h"
#include "kernels/base/ratio.h"

/* Sum of power [n] over t < retained by the sum over all t; no_dc: t = 0 in neither. NaN when there
 * is no energy. */
double fkv_retained_energy(const double *power, int32_t n, int32_t retained, bool no_dc);

/* Refuses, naming it, a gamma outside (0, 1] and one that keeps no coefficient of n. */
int fkv_gammas_check(const double *gamma, int32_t count, int32_t n, struct fkv_error *err);

/* Curves over gamma [count], all passed by fkv_gammas_check, from a spectrum -> *out
 * (fkv_error_curves_free). */
int fkv_error_curves_make(const struct fkv_spectrum *s, const double *gamma, int32_t count,
                          struct fkv_error_curves *out, struct fkv_error *err);

#endif
