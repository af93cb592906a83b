/* How good a basis the DCT is: reconstruction errors of a basis fitted to the data, and of
 * truncation along the other axis, at equal cost. */
#ifndef FKV_ANALYZE_MEASURE_BOUNDS_H
#define FKV_ANALYZE_MEASURE_BOUNDS_H

#include "analyze/measure/spectrum.h"
#include "capture/store/capture_reader.h"

/* FKV_OK where the capture holds stored states and two segments or more; else a message. */
int fkv_bounds_check(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                     struct fkv_error *err);

/* Bytes of memory that the bounds take at their peak. */
int64_t fkv_bounds_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan);

/* Fills klt_error and svd_error of curves that are there already, over their gammas. The capture
 * has passed the check; m->progress counts heads times layers. */
int fkv_bounds_measure(struct fkv_measurement *m, struct fkv_error_curves *e,
                       struct fkv_error *err);

/* FOLDER/error_bounds.csv: state, layer, head, gamma, retained, then the relative error without DC
 * of each: dct, klt, svd, and svd_rank. */
int fkv_bounds_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count,
                   int32_t head_dim, struct fkv_error *err);

/* The rank r that costs no more than L coefficients per channel: the means [d], and r (n + d)
 * numbers. */
int32_t fkv_bounds_rank(int32_t retained, int32_t n, int32_t head_dim);

/* DCT, KLT and SVD over gamma, mean and range over layers and heads: FOLDER/error_bounds_STATE.
 * (plots/bounds.c) */
int fkv_plot_bounds(const struct fkv_error_curves *e, const char *folder,
                    const struct fkv_provenance *p, struct fkv_error *err);

#endif
