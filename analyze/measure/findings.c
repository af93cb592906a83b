/* Owns the memory of findings. */
#include "analyze/measure/findings.h"

#include <stdlib.h>
#include <string.h>

void fkv_spectrum_free(struct fkv_spectrum *s) {
    free(s->layer_index);
    free(s->head_index);
    free(s->power);
    free(s->power_se);
    free(s->null);
    free(s->normalised);
    free(s->rounding_floor);
    free(s->band_edge);
    free(s->band_se);
    memset(s, 0, sizeof *s);
}

void fkv_error_curves_free(struct fkv_error_curves *e) {
    free(e->layer_index);
    free(e->head_index);
    free(e->gamma);
    for (int i = 0; e->curve && i < 2 * fkv_measure_count; i++) free(e->curve[i]);
    free(e->curve);
    free(e->floor);
    memset(e, 0, sizeof *e);
}
