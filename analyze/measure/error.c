/* Owns reconstruction errors. Nothing is reconstructed: x_L, a segment rebuilt from its L lowest
 * DCT coefficients at full length, differs from x by the coefficients from L on, and the transform
 * is orthonormal, so with P the mean power over segments (documents weighing equally, segments
 * equally within)
 *
 *     retained energy  R = sum_{t<L} P / sum_t P                   ||x_L||^2 / ||x||^2, sums pooled
 *             before the division
 *     relative error   E = sqrt(sum_{t>=L} P / sum_t P)            ||x - x_L|| / ||x||, so E^2 = 1
 *             - R (Parseval)
 *     SNR              -20 log10 E dB                              infinite where nothing is thrown
 *             away
 *     cosine           <x, x_L> / (||x|| ||x_L||) = sqrt(R)        because <x, x_L> = ||x_L||^2
 *
 * Pooling documents by their mean sums keeps equal weights and makes the curves exact functions of
 * the spectrum beside them. E comes from the tail's own sum: 1 - R would lose its digits where the
 * error is small. L = n is allowed here (error 0): it throws nothing away, but it is a fair end of
 * a curve. */
#include "analyze/measure/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double sum_of(const double *power, int32_t from, int32_t until) {
    double sum = 0;
    for (int32_t t = from; t < until; t++) sum += power[t];
    return sum;
}

double fkv_retained_energy(const double *power, int32_t n, int32_t retained, bool no_dc) {
    double kept = sum_of(power, no_dc, retained), lost = sum_of(power, retained, n);
    return kept / (kept + lost);
}

int fkv_gammas_check(const double *gamma, int32_t count, int32_t n, struct fkv_error *err) {
    for (int32_t g = 0; g < count; g++) {
        if (!(gamma[g] > 0 && gamma[g] <= 1))
            return fkv_fail_option(err, "--gamma: expected ratios above 0 and at most 1, found %g",
                                   gamma[g]);
        if (fkv_retained(gamma[g], n) < 1)
            return fkv_fail_option(
                err,
                "--gamma %g keeps no coefficient of a segment of %d tokens: expected %g or more",
                gamma[g], n, 1.0 / n);
    }
    return FKV_OK;
}

static int allocate(struct fkv_error_curves *e, struct fkv_error *err) {
    size_t heads = (size_t)e->layers * (size_t)e->heads, count = heads * (size_t)e->gammas;
    e->layer_index = malloc((size_t)e->layers * sizeof(int32_t));
    e->head_index = malloc((size_t)e->heads * sizeof(int32_t));
    e->gamma = malloc((size_t)e->gammas * sizeof(double));
    e->floor = malloc(heads * sizeof(double));
    bool whole = e->layer_index && e->head_index && e->gamma && e->floor;
    for (int dc = 0; dc < 2; dc++) {
        e->retained_energy[dc] = malloc(count * sizeof(double));
        e->relative_error[dc] = malloc(count * sizeof(double));
        e->snr_db[dc] = malloc(count * sizeof(double));
        e->cosine[dc] = malloc(count * sizeof(double));
        whole = whole && e->retained_energy[dc] && e->relative_error[dc] && e->snr_db[dc] &&
                e->cosine[dc];
    }
    if (whole) return FKV_OK;
    fkv_error_curves_free(e);
    return fkv_fail(err, "out of memory for error curves");
}

int fkv_error_curves_make(const struct fkv_spectrum *s, const double *gamma, int32_t count,
                          struct fkv_error_curves *out, struct fkv_error *err) {
    *out = (struct fkv_error_curves){
        .state = s->state, .layers = s->layers, .heads = s->heads, .n = s->n, .gammas = count};
    if (allocate(out, err)) return FKV_FAILED;
    memcpy(out->layer_index, s->layer_index, (size_t)s->layers * sizeof(int32_t));
    memcpy(out->head_index, s->head_index, (size_t)s->heads * sizeof(int32_t));
    memcpy(out->gamma, gamma, (size_t)count * sizeof(double));
    for (int32_t row = 0; row < s->layers * s->heads; row++) {
        const double *power = s->power + (size_t)row * (size_t)s->n;
        double total = sum_of(power, 0, s->n);
        out->floor[row] = total > 0 ? sqrt(s->rounding_floor[row] * s->n / total) : NAN;
        for (int32_t g = 0; g < count; g++) {
            int32_t retained = fkv_retained(gamma[g], s->n);
            size_t at = (size_t)row * (size_t)count + (size_t)g;
            for (int no_dc = 0; no_dc < 2; no_dc++) {
                double kept = sum_of(power, no_dc, retained), lost = sum_of(power, retained, s->n);
                double share = kept / (kept + lost), error = sqrt(lost / (kept + lost));
                out->retained_energy[no_dc][at] = share;
                out->relative_error[no_dc][at] = error;
                out->snr_db[no_dc][at] = -20 * log10(error);
                out->cosine[no_dc][at] = sqrt(share);
            }
        }
    }
    return FKV_OK;
}
