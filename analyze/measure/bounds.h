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

/* Adds klt_error and svd_error to curves, over their gammas. The capture has passed the check;
 * m->progress counts heads times layers. */
int fkv_bounds_measure(struct fkv_measurement *m, struct fkv_error_curves *e,
                       struct fkv_error *err);

/* The bases that are compared, by relative error without DC. */
enum { FKV_BASES = 3 };
struct fkv_basis {
    int measure;              /* row of fkv_measures */
    const char *name, *label; /* "dct", "DCT"; in CSV and for people */
    const char *words;        /* for the legend: what stays of it */
};
extern const struct fkv_basis fkv_bases[FKV_BASES];

/* The rank r that costs no more than L coefficients per channel: the means [d], and r (n + d)
 * numbers. */
int32_t fkv_bounds_rank(int32_t retained, int32_t n, int32_t head_dim);

#endif
