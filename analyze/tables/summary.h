/* Findings on stdout: a compact table for people, or the same as one JSON object. */
#ifndef FKV_ANALYZE_TABLES_SUMMARY_H
#define FKV_ANALYZE_TABLES_SUMMARY_H

#include <stdbool.h>

#include "analyze/tables/results.h"

/* Findings of the capture of this path. */
typedef int fkv_summary(const struct fkv_findings *f, const char *capture, bool json,
                        struct fkv_error *err);

/* Per state and layer the share of DC, and the share of the lowest 1/8, 1/4 and 1/2 of the
 * coefficients in the energy without DC, for the segment and its null. The layer's power is the
 * mean over its heads. */
fkv_summary fkv_summary_spectrum;
/* Per state and layer the relative error at every gamma, mean over heads; the table shows it
 * without DC. */
fkv_summary fkv_summary_error;
/* The table of ratios, how it was chosen and what it loses (gamma_write.c). */
fkv_summary fkv_summary_gamma;

#endif
