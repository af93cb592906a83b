/* What might tell, from a capture alone, how much a head's lost coefficients matter: everything is
 * a spectrum over t, so that any band can be summed from it. */
#ifndef FKV_ANALYZE_LINK_PREDICTORS_H
#define FKV_ANALYZE_LINK_PREDICTORS_H

#include <stdbool.h>

#include "analyze/measure/spectrum.h"

enum fkv_predictor {
    FKV_PREDICTOR_ENERGY,       /* share of the lost coefficients in the head's energy */
    FKV_PREDICTOR_ENERGY_NO_DC, /* the same with the mean over tokens in neither */
    FKV_PREDICTOR_ABSOLUTE,     /* lost energy per element of the head */
    FKV_PREDICTOR_VISIBLE,      /* what queries see of it (keys), or what the output projection lets
                                   through (values) */
    FKV_PREDICTOR_ATTENTION, /* attention-output error with keys and values low-passed together */
    FKV_PREDICTOR_PROJECTED, /* the same after the output projection */
    FKV_PREDICTORS
};
extern const char *const fkv_predictor_names[FKV_PREDICTORS]; /* as in CSV and JSON */
extern const char *const fkv_predictor_words[FKV_PREDICTORS]; /* for people */

enum { FKV_NO_QUERIES, FKV_NO_PROJECTION, FKV_NO_ATTENTION, FKV_PREDICTOR_GAPS };

struct fkv_predictor_spectra {
    int32_t layers, heads, n;
    int32_t *layer_index, *head_index; /* [layers], [heads]: those of the keys */
    struct fkv_spectrum power[2];      /* keys and values */
    double *visible[2];                /* [layers, heads, n] of keys and of values, or NULL */
    double *attention[2];              /* [layers, heads, 65] plain and projected, or NULL */
    struct fkv_memory memory;
    char gap[FKV_PREDICTOR_GAPS]
            [512]; /* what the capture lacks and which predictors that costs; "": nothing */
};

/* From the segments of m->plan. */
int fkv_predictor_spectra_measure(struct fkv_measurement *m, bool heads,
                                  struct fkv_predictor_spectra *out, struct fkv_error *err);
void fkv_predictor_spectra_free(
    struct fkv_predictor_spectra *s); /* harmless on a zeroed struct and a second time */

/* Which of n coefficients stay. */
struct fkv_kept {
    int32_t low, high; /* low <= t < high */
    bool complement;   /* of those: they go, and the rest stays */
};
/* The predictor's value for a head (places in layer_index and head_index) of which keys (bit 0),
 * values (bit 1) or both lose what is not kept. Both: the mean over the states of what is a share;
 * absolute, the sum; visible has no common unit and is NaN. NaN too where the spectra lack it;
 * attention where what stays is not the lowest coefficients. */
double fkv_predictor_value(const struct fkv_predictor_spectra *s, enum fkv_predictor predictor,
                           int32_t layer, int32_t head, int32_t states, struct fkv_kept kept);

#endif
