/* Owns shares of energy per layer and their course over layers (depth.h). */
#include "analyze/measure/depth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/measure/error.h"
#include "kernels/statistics/correlation.h"

#define MINUS "\u2212"
#define FLAT 0.02 /* a range of shares that is said to be none */

const double fkv_low_gamma[FKV_LOW_SHARES] = {0.125, 0.25, 0.5};

struct fkv_energy_shares fkv_energy_shares_of(const double *power, int32_t heads, int32_t n,
                                              double *scratch) {
    struct fkv_energy_shares out = {NAN, {NAN, NAN, NAN}};
    if (!power) return out;
    for (int32_t t = 0; t < n; t++) {
        scratch[t] = 0;
        for (int32_t h = 0; h < heads; h++) scratch[t] += power[(size_t)h * (size_t)n + (size_t)t];
    }
    out.dc = fkv_retained_energy(scratch, n, 1, false);
    for (int i = 0; i < FKV_LOW_SHARES; i++) {
        int32_t retained = fkv_retained(fkv_low_gamma[i], n);
        out.low[i] = fkv_retained_energy(scratch, n, retained ? retained : 1, true);
    }
    return out;
}

int fkv_course_of(const double *share, int32_t layers, struct fkv_course *out,
                  struct fkv_error *err) {
    double *ranks = malloc(2 * (size_t)layers * sizeof *ranks), *layer = ranks + layers;
    int32_t *order = malloc((size_t)layers * sizeof *order);
    *out = (struct fkv_course){0};
    int status = ranks && order ? FKV_OK : fkv_fail(err, "out of memory for %d layers", layers);
    for (int32_t i = 0; !status && i < layers; i++) {
        if (share[i] < share[out->least]) out->least = i;
        if (share[i] > share[out->largest]) out->largest = i;
        layer[i] = i;
        if (i + 1 < layers &&
            fabs(share[i + 1] - share[i]) > fabs(share[out->step + 1] - share[out->step]))
            out->step = i;
    }
    if (!status) {
        fkv_ranks(layers, share, ranks, order);
        out->spearman = fkv_pearson(layers, ranks, layer);
    }
    free(ranks);
    free(order);
    return status;
}

const char *fkv_course_words(const struct fkv_course *d, const double *share, const int32_t *index,
                             char text[FKV_COURSE_WORDS]) {
    const int32_t first = d->least < d->largest ? d->least : d->largest,
                  last = d->least < d->largest ? d->largest : d->least;
    const double step = share[d->step + 1] - share[d->step],
                 range = share[d->largest] - share[d->least];
    if (range < FLAT) {
        snprintf(text, FKV_COURSE_WORDS,
                 "from %.1f%% to %.1f%% over all layers: no course to speak of",
                 100 * share[d->least], 100 * share[d->largest]);
        return text;
    }
    int used =
        snprintf(text, FKV_COURSE_WORDS,
                 "from %.1f%% in layer %d to %.1f%% in layer %d; the largest step, %s%.1f "
                 "points, is from layer %d to %d",
                 100 * share[first], index[first], 100 * share[last], index[last],
                 step < 0 ? MINUS : "+", 100 * fabs(step), index[d->step], index[d->step + 1]);
    if (isfinite(d->spearman))
        snprintf(text + used, FKV_COURSE_WORDS - (size_t)used,
                 "; rank correlation with depth %s%.2f", d->spearman < 0 ? MINUS : "",
                 fabs(d->spearman));
    return text;
}
