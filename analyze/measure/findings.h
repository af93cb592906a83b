/* What the analyzer finds, as plain data: filled by spectrum.c and error.c, written by results.c
 * and tables.c, drawn by analyze/plots. */
#ifndef FKV_ANALYZE_MEASURE_FINDINGS_H
#define FKV_ANALYZE_MEASURE_FINDINGS_H

#include <stdint.h>

#include "analyze/measure/measures.h"
#include "capture/store/capture.h"
#include "kernels/base/memory.h"
#include "kernels/statistics/bootstrap.h"

/* Power of one state. definitions.md, "Power": orthonormal DCT-II along the n tokens of a segment,
 * squared, mean over channels; then mean over segments within a document, then over documents. */
struct fkv_spectrum {
    enum fkv_state state;
    int32_t layers, heads, n, skip_sinks;
    int32_t *layer_index; /* [layers] of the model */
    int32_t *head_index;  /* [heads] */
    int32_t documents;
    int64_t segments, tokens_left_out;
    const char
        *se_kind; /* how power_se is formed: "documents", "bootstrap" or "segments" (of sums) */
    enum fkv_se_unit se_unit; /* what it rests on; a block is a segment */
    const char *null_kind;    /* "permute", "expected" (captures of sums) or "none" */
    double *power, *power_se; /* [layers, heads, n]; se NaN where it cannot be estimated */
    double *null;             /* [layers, heads, n], or NULL when not asked for */
    double *normalised;     /* [layers, n]: mean over heads, each channel divided by its variance */
    double *rounding_floor; /* [layers, heads]: mean energy per element that storage rounding adds,
                               ulp^2/12, NaN when unknown */
    int32_t bands, *band_edge; /* band b holds band_edge[b] <= t < band_edge[b+1], from 1 (DC is in
                                  none) to n */
    double *band_se;           /* [layers, heads, bands]: standard error of the band's mean power */
    struct fkv_memory memory;
};
void fkv_spectrum_free(struct fkv_spectrum *s); /* harmless on a zeroed struct and a second time */

/* Reconstruction from the L = floor(gamma n) lowest coefficients, by every measure. */
struct fkv_error_curves {
    enum fkv_state state;
    int32_t layers, heads, n, gammas;
    int32_t *layer_index, *head_index;
    double *gamma;  /* [gammas] */
    double **curve; /* [measures, 2] a curve [layers, heads, gammas] with DC and one without, NULL
                       where it was not measured */
    double *floor;  /* [layers, heads]: relative error that storage rounding alone makes */
    const char *fitted_to; /* what the KLT was fitted to: "other documents", ... */
    struct fkv_memory memory;
};
/* The curve of a row of fkv_measures. */
static inline double *fkv_error_curve(const struct fkv_error_curves *e, int measure, bool no_dc) {
    return e->curve[2 * measure + no_dc];
}
void fkv_error_curves_free(
    struct fkv_error_curves *e); /* harmless on a zeroed struct and a second time */

/* Where a figure came from: written into every file. */
struct fkv_provenance {
    const char *version, *capture_sha256, *command, *model;
};

#endif
