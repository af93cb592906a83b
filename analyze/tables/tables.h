/* Findings for pandas and spreadsheets: one CSV per command, a header line, then a row per item;
 * numbers that do not exist are empty. */
#ifndef FKV_ANALYZE_TABLES_TABLES_H
#define FKV_ANALYZE_TABLES_TABLES_H

#include "analyze/measure/findings.h"

/* FOLDER/spectrum.csv: per state, layer, head: a row for DC (t_low 0, t_high 1), then 64 log-spaced
 * bands t_low <= t < t_high (fewer when n is below 65): state, layer, head, t_low, t_high,
 * cycles_per_token (the band's centre), power (mean over the band), power_se, power_null, excess,
 * energy_share (of the whole), energy_share_no_dc. */
int fkv_spectrum_csv(const char *folder, const struct fkv_spectrum *spectra, int32_t count,
                     struct fkv_error *err);

/* FOLDER/error.csv: a row per state, layer, head, gamma: retained (coefficients kept), then every
 * measure of the spectrum, with DC and then without. */
int fkv_error_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                  struct fkv_error *err);

/* FOLDER/error_bounds.csv: a row per state, layer, head, gamma: retained, then the relative error
 * without DC of each basis (dct, klt, svd), and svd_rank. */
int fkv_bounds_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                   int32_t head_dim, struct fkv_error *err);

#endif
