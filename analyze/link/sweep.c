/* Owns the join of a sweep's runs with retained energy (link.h). */
#include <math.h>
#include <stdlib.h>

#include "analyze/link/link.h"

/* ---- sums per unit of the bootstrap ---- */

struct sums {
    struct fkv_units units;
    double *counts;            /* [units] */
    double *sum[FKV_OUTCOMES]; /* [points, units] */
    struct fkv_memory memory;
};

/* One run: sum [units] of each outcome; counts [units] of the first run. */
static void add_up(const struct fkv_run *run, const struct fkv_units *units,
                   double *sum[FKV_OUTCOMES], double *counts) {
    for (int32_t d = 0; d < run->column_sets; d++) {
        const struct fkv_run_columns *c = &run->columns[d];
        int64_t seen = 0;
        for (int64_t t = 0; t < c->count; t++) {
            if (!isfinite(c->nll[t])) continue;
            int64_t at = fkv_unit_at(units, d, seen++ / FKV_BOOTSTRAP_BLOCK);
            if (counts) counts[at] += 1;
            sum[FKV_OUTCOME_NLL][at] += c->nll[t];
            if (c->baseline_nll)
                sum[FKV_OUTCOME_DELTA][at] += (double)c->nll[t] - c->baseline_nll[t];
        }
    }
}

/* Scored in the same places? Else the units of the first run are not those of this one. */
static int check_scored(const struct fkv_run *first, const struct fkv_run *run,
                        struct fkv_error *err) {
    for (int32_t d = 0; d < first->column_sets; d++) {
        int64_t a = fkv_run_scored(&first->columns[d]), b = fkv_run_scored(&run->columns[d]);
        if (a != b)
            return fkv_fail(err,
                            "%s and %s: expected the same tokens to be scored, found %lld and %lld "
                            "of document %d",
                            first->path, run->path, (long long)a, (long long)b, d);
    }
    return FKV_OK;
}

/* Says in the sweep, too, which outcomes all of its runs have. */
static int sums_make(struct fkv_link_sweep *sweep, struct sums *s, struct fkv_error *err) {
    if (fkv_run_units(sweep->run[0], &s->units, err)) return FKV_FAILED;
    size_t units = (size_t)s->units.count, points = (size_t)sweep->points;
    if (!units) return fkv_fail(err, "%s: expected scored tokens, found none", sweep->run[0]->path);
    s->counts = fkv_memory_take(&s->memory, units, sizeof(double));
    for (int o = 0; o < FKV_OUTCOMES; o++)
        s->sum[o] = fkv_memory_take(&s->memory, points * units, sizeof(double));
    if (s->memory.failed) return fkv_fail(err, "out of memory for %zu runs", points);
    sweep->has_outcome[FKV_OUTCOME_NLL] = sweep->has_outcome[FKV_OUTCOME_DELTA] = true;
    for (size_t p = 0; p < points; p++) {
        const struct fkv_run *run = sweep->run[p];
        double *sum[FKV_OUTCOMES] = {s->sum[0] + p * units, s->sum[1] + p * units};
        if (check_scored(sweep->run[0], run, err)) return FKV_FAILED;
        add_up(run, &s->units, sum, p ? NULL : s->counts);
        for (int32_t d = 0; d < run->column_sets; d++)
            if (!run->columns[d].baseline_nll) sweep->has_outcome[FKV_OUTCOME_DELTA] = false;
    }
    sweep->se_unit = s->units.kind, sweep->documents = s->units.documents;
    return FKV_OK;
}

/* ---- retained energy ---- */

static double share(const double *power, int32_t n, int32_t kept, bool no_dc) {
    double low = 0, all = 0;
    for (int32_t t = no_dc; t < n; t++) {
        all += power[t];
        if (t < kept) low += power[t];
    }
    return low / all;
}

static void add_point(const struct fkv_predictor_spectra *s, struct fkv_link_sweep *out,
                      int32_t p) {
    const struct fkv_run *run = out->run[p];
    double rows = (double)s->layers * s->heads;
    out->gamma[p] = fkv_run_gamma(run);
    for (int32_t l = 0; l < s->layers; l++)
        for (int32_t h = 0; h < s->heads; h++) {
            int32_t kept =
                run->retained[(int64_t)s->layer_index[l] * run->kv_heads + s->head_index[h]];
            size_t row = ((size_t)l * (size_t)s->heads + (size_t)h) * (size_t)s->n;
            for (int r = 0; r < FKV_RETAINED; r++)
                out->retained[r * out->points + p] +=
                    share(s->power[r % 2].power + row, s->n, kept, r >= 2) / rows;
        }
}

/* ---- all of it ---- */

static double mean_ratio(const struct fkv_run *run) {
    double sum = 0;
    for (int32_t i = 0; i < run->layers * run->kv_heads; i++) sum += run->retained[i];
    return sum;
}

static int by_ratio(const void *a, const void *b) {
    double x = mean_ratio(*(const struct fkv_run *const *)a),
           y = mean_ratio(*(const struct fkv_run *const *)b);
    return x < y ? -1 : x > y;
}

static int make(const struct fkv_run *runs, const struct fkv_predictor_spectra *spectra,
                struct sums *sums, struct fkv_link_sweep *out, struct fkv_error *err) {
    const size_t points = (size_t)out->points;
    out->run = fkv_memory_take(&out->memory, points, sizeof *out->run);
    out->gamma = fkv_memory_take(&out->memory, points, sizeof(double));
    out->retained = fkv_memory_take(&out->memory, FKV_RETAINED * points, sizeof(double));
    for (int o = 0; o < FKV_OUTCOMES; o++)
        out->outcome[o] = fkv_memory_take(&out->memory, points, sizeof **out->outcome);
    if (out->memory.failed) return fkv_fail(err, "out of memory for %d runs", out->points);
    for (int32_t p = 0; p < out->points; p++) out->run[p] = &runs[p];
    qsort(out->run, points, sizeof *out->run, by_ratio);
    for (int32_t p = 0; p < out->points; p++) add_point(spectra, out, p);
    if (sums_make(out, sums, err)) return FKV_FAILED;
    for (int o = 0; o < FKV_OUTCOMES; o++) {
        const struct fkv_correlation_task task = {.points = out->points,
                                                  .predictors = FKV_RETAINED,
                                                  .falling = true,
                                                  .x = out->retained,
                                                  .units = &sums->units,
                                                  .sums = sums->sum[o],
                                                  .counts = sums->counts};
        for (int32_t p = 0; p < out->points; p++)
            out->outcome[o][p] =
                out->has_outcome[o]
                    ? fkv_ratio_interval(&sums->units, task.sums + p * sums->units.count,
                                         sums->counts, NULL)
                    : (struct fkv_interval){NAN, NAN, NAN};
        if (out->has_outcome[o] && fkv_correlate(&task, out->correlation[o], err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_link_sweep_make(const struct fkv_run *runs, int32_t count,
                        const struct fkv_predictor_spectra *spectra, struct fkv_link_sweep *out,
                        struct fkv_error *err) {
    struct sums sums = {0};
    *out = (struct fkv_link_sweep){.points = count, .n = spectra->n};
    int status = make(runs, spectra, &sums, out, err);
    fkv_units_free(&sums.units);
    fkv_memory_free(&sums.memory);
    if (status) fkv_link_sweep_free(out);
    return status;
}

void fkv_link_sweep_free(struct fkv_link_sweep *s) {
    fkv_memory_free(&s->memory);
    *s = (struct fkv_link_sweep){0};
}
