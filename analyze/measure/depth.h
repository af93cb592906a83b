/* How a spectrum changes with depth: shares of energy per layer, and their course over layers. */
#ifndef FKV_ANALYZE_MEASURE_DEPTH_H
#define FKV_ANALYZE_MEASURE_DEPTH_H

#include <stdint.h>

#include "kernels/base/error.h"

/* The shares looked at: of the lowest eighth, quarter and half of the coefficients. */
enum { FKV_LOW_EIGHTH, FKV_LOW_QUARTER, FKV_LOW_HALF, FKV_LOW_SHARES };
extern const double fkv_low_gamma[FKV_LOW_SHARES];

struct fkv_energy_shares {
    double dc;                  /* of all energy */
    double low[FKV_LOW_SHARES]; /* of the energy without DC */
};
/* Of spectra power [heads, n], pooled over heads: their powers are added. NULL: all NaN. scratch
 * [n]. */
struct fkv_energy_shares fkv_energy_shares_of(const double *power, int32_t heads, int32_t n,
                                              double *scratch);

/* The course of one number over layers, which are counted from 0 here. */
struct fkv_course {
    int32_t least;   /* the layer with the least */
    int32_t largest; /* the one with the largest */
    int32_t step;    /* the layer before the largest change from one layer to the next */
    double spearman; /* rank correlation with the layer; NaN where nothing varies */
};
enum { FKV_COURSE_LAYERS = 4 }; /* fewer have no course */
/* share [layers], layers >= FKV_COURSE_LAYERS, all finite. */
int fkv_course_of(const double *share, int32_t layers, struct fkv_course *out,
                  struct fkv_error *err);

/* "from 44.0% in layer 0 to 80.3% in layer 20; the largest step, +11.9 points, is from layer 11 to
 * 12; rank correlation with depth 0.85"; of a range below 2 points only its ends. index [layers]:
 * the model's numbers of the layers. Returns `text`. */
enum { FKV_COURSE_WORDS = 240 };
const char *fkv_course_words(const struct fkv_course *depth, const double *share,
                             const int32_t *index, char text[FKV_COURSE_WORDS]);

#endif
