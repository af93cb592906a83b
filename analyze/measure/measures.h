/* What keeping the L lowest of n DCT coefficients does to one head, as one table (definitions.md,
 * "Retained energy" and after). A measure is a function and a row: results.h5, error.csv, the JSON
 * of `error` and its figure iterate the rows. */
#ifndef FKV_ANALYZE_MEASURE_MEASURES_H
#define FKV_ANALYZE_MEASURE_MEASURES_H

#include <stdbool.h>
#include <stdint.h>

/* The power of one head, cut at L. */
struct fkv_cut_power {
    double kept, lost; /* sums of power over t < L, and over t >= L */
};
/* Of power [n] at L = retained; no_dc: coefficient 0 is in neither sum. */
struct fkv_cut_power fkv_cut_power(const double *power, int32_t n, int32_t retained, bool no_dc);

struct fkv_measure {
    const char *name[2]; /* dataset, CSV column and JSON key, with DC and without; NULL: not
                            measured so */
    const char *title;   /* above its panels */
    const char *axis;    /* label of its axis, with the unit */
    int panel;           /* column of panels in the figure error_STATE, from 1; 0: not drawn */
    bool rounding; /* the panel shows what storage rounding alone makes: it is a relative error */
    int json;      /* position among the JSON keys of a layer, from 1; 0: not in JSON */
    double (*white)(double gamma); /* of white noise without DC, at L = gamma n; NULL: not drawn */
    double (*value)(const struct fkv_cut_power *p); /* NULL: measured from the states, and in
                                                       error_bounds.csv instead (bounds.h) */
};
extern const struct fkv_measure fkv_measures[];
extern const int fkv_measure_count;

/* Rows that other files ask for by name. */
enum {
    FKV_RETAINED_ENERGY,
    FKV_RELATIVE_ERROR,
    FKV_SNR_DB,
    FKV_COSINE,
    FKV_KLT_ERROR,
    FKV_SVD_ERROR
};

#endif
