/* Owns the curves of the measures over gamma. Power is the mean over segments and documents
 * (documents weighing equally, segments equally within): pooling documents by their mean sums keeps
 * equal weights and makes the curves exact functions of the spectrum beside them. L = n is allowed
 * (error 0): it throws nothing away, but it is a fair end of a curve. */
#include "analyze/measure/error.h"

#include <math.h>
#include <string.h>

double fkv_retained_energy(const double *power, int32_t n, int32_t retained, bool no_dc) {
    const struct fkv_cut_power p = fkv_cut_power(power, n, retained, no_dc);
    return fkv_measures[FKV_RETAINED_ENERGY].value(&p);
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

void fkv_error_curves_free(struct fkv_error_curves *e) {
    fkv_memory_free(&e->memory);
    *e = (struct fkv_error_curves){0};
}

static int allocate(struct fkv_error_curves *e, struct fkv_error *err) {
    size_t heads = (size_t)e->layers * (size_t)e->heads, count = heads * (size_t)e->gammas;
    e->layer_index = fkv_memory_take(&e->memory, (size_t)e->layers, sizeof(int32_t));
    e->head_index = fkv_memory_take(&e->memory, (size_t)e->heads, sizeof(int32_t));
    e->gamma = fkv_memory_take(&e->memory, (size_t)e->gammas, sizeof(double));
    e->floor = fkv_memory_take(&e->memory, heads, sizeof(double));
    e->curve = fkv_memory_take(&e->memory, 2 * (size_t)fkv_measure_count, sizeof *e->curve);
    for (int i = 0; e->curve && i < 2 * fkv_measure_count; i++)
        if (fkv_measures[i / 2].value)
            e->curve[i] = fkv_memory_take(&e->memory, count, sizeof(double));
    if (!e->memory.failed) return FKV_OK;
    fkv_error_curves_free(e);
    return fkv_fail(err, "out of memory for error curves");
}

/* Every measure of the head `row` at one gamma. */
static void fill_point(struct fkv_error_curves *e, const double *power, int32_t row, int32_t g) {
    const size_t at = (size_t)row * (size_t)e->gammas + (size_t)g;
    for (int no_dc = 0; no_dc < 2; no_dc++) {
        const struct fkv_cut_power p =
            fkv_cut_power(power, e->n, fkv_retained(e->gamma[g], e->n), no_dc);
        for (int m = 0; m < fkv_measure_count; m++)
            if (fkv_measures[m].value) fkv_error_curve(e, m, no_dc)[at] = fkv_measures[m].value(&p);
    }
}

int fkv_error_curves_make(const struct fkv_spectrum *s, const double *gamma, int32_t count,
                          struct fkv_error_curves *out, struct fkv_error *err) {
    *out = (struct fkv_error_curves){
        .state = s->state, .layers = s->layers, .heads = s->heads, .n = s->n, .gammas = count};
    if (allocate(out, err)) return FKV_FAILED;
    memcpy(out->layer_index, s->layer_index, (size_t)s->layers * sizeof(int32_t));
    memcpy(out->head_index, s->head_index, (size_t)s->heads * sizeof(int32_t));
    memcpy(out->gamma, gamma, (size_t)count * sizeof(double));
#pragma omp parallel for
    for (int32_t row = 0; row < s->layers * s->heads; row++) {
        const double *power = s->power + (size_t)row * (size_t)s->n;
        double total = fkv_cut_power(power, s->n, 0, false).lost;
        out->floor[row] = total > 0 ? sqrt(s->rounding_floor[row] * s->n / total) : NAN;
        for (int32_t g = 0; g < count; g++) fill_point(out, power, row, g);
    }
    return FKV_OK;
}
