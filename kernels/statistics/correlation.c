/* Owns correlations and their bootstrap (correlation.h). */
#include "kernels/statistics/correlation.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"

double fkv_pearson(int32_t n, const double *x, const double *y) {
    double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
    if (n < 3) return NAN;
    for (int32_t i = 0; i < n; i++) mx += x[i] / n, my += y[i] / n;
    for (int32_t i = 0; i < n; i++) {
        double a = x[i] - mx, b = y[i] - my;
        xx += a * a, yy += b * b, xy += a * b;
    }
    /* Sums of squares that are rounding of the mean alone are no variation. */
    double least_x = n * mx * mx * 1e-28, least_y = n * my * my * 1e-28;
    if (!(xx > least_x && yy > least_y)) return NAN;
    return fmax(-1, fmin(1, xy / sqrt(xx * yy)));
}

static int by_value(const void *a, const void *b, void *values) {
    const double *v = values, x = v[*(const int32_t *)a], y = v[*(const int32_t *)b];
    return x < y ? -1 : x > y;
}

void fkv_ranks(int32_t n, const double *x, double *rank, int32_t *order) {
    for (int32_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_value, (void *)x);
    for (int32_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && x[order[end]] == x[order[first]];) end++;
        for (int32_t i = first; i < end; i++) rank[order[i]] = (first + 1 + end) / 2.0;
    }
}

double fkv_partial_correlation(double xy, double xz, double yz) {
    double rest = (1 - xz * xz) * (1 - yz * yz);
    return rest > 1e-12 ? fmax(-1, fmin(1, (xy - xz * yz) / sqrt(rest))) : NAN;
}

/* ---- correlations of all predictors ---- */

enum { SPEARMAN, PEARSON, PARTIAL, MEASURES };

struct scratch {
    double *mean;                     /* [points] y over all units */
    int32_t *all;                     /* [points] 0, 1, 2, ... */
    double *x, *y, *z;                /* [points] a resample */
    double *rank_x, *rank_y, *rank_z; /* [points] */
    int32_t *order, *drawn;           /* [points] each */
    double *times;                    /* [units] of a resample of units */
    double *found;                    /* [predictors, MEASURES] */
    double *replicate;                /* [resamples, predictors, MEASURES] */
    double *sorted, *difference;      /* [resamples] */
    struct fkv_memory memory;
};

static int scratch_make(const struct fkv_correlation_task *t, struct scratch *r,
                        struct fkv_error *err) {
    const size_t n = (size_t)t->points, found = (size_t)t->predictors * MEASURES;
    *r = (struct scratch){0};
    double **const points[] = {&r->mean, &r->x, &r->y, &r->z, &r->rank_x, &r->rank_y, &r->rank_z};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        *points[i] = fkv_memory_take(&r->memory, n, sizeof(double));
    int32_t **const indices[] = {&r->all, &r->order, &r->drawn};
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
        *indices[i] = fkv_memory_take(&r->memory, n, sizeof(int32_t));
    r->times = fkv_memory_take(&r->memory, (size_t)t->units->count, sizeof(double));
    r->found = fkv_memory_take(&r->memory, found, sizeof(double));
    r->replicate = fkv_memory_take(&r->memory, FKV_BOOTSTRAP_RESAMPLES * found, sizeof(double));
    r->sorted = fkv_memory_take(&r->memory, FKV_BOOTSTRAP_RESAMPLES, sizeof(double));
    r->difference = fkv_memory_take(&r->memory, FKV_BOOTSTRAP_RESAMPLES, sizeof(double));
    if (!r->memory.failed) return FKV_OK;
    fkv_memory_free(&r->memory);
    return fkv_fail(err, "out of memory for correlations of %d points", t->points);
}

static bool usable(const struct fkv_correlation_task *t, int32_t predictor) {
    for (int32_t i = 0; i < t->points; i++)
        if (!isfinite(t->x[(int64_t)predictor * t->points + i])) return false;
    return true;
}

/* Points drawn[i] of the task, y as the scratch has it -> out [predictors, MEASURES]. */
static void measure(const struct fkv_correlation_task *t, struct scratch *r, const int32_t *drawn,
                    double *out) {
    int32_t n = t->points;
    fkv_ranks(n, r->y, r->rank_y, r->order);
    for (int32_t i = 0; t->z && i < n; i++) r->z[i] = t->z[drawn[i]];
    if (t->z) fkv_ranks(n, r->z, r->rank_z, r->order);
    double yz = t->z ? fkv_pearson(n, r->rank_y, r->rank_z) : NAN;
    for (int32_t p = 0; p < t->predictors; p++, out += MEASURES) {
        out[SPEARMAN] = out[PEARSON] = out[PARTIAL] = NAN;
        if (!usable(t, p)) continue;
        for (int32_t i = 0; i < n; i++) r->x[i] = t->x[(int64_t)p * n + drawn[i]];
        fkv_ranks(n, r->x, r->rank_x, r->order);
        out[SPEARMAN] = fkv_pearson(n, r->rank_x, r->rank_y);
        out[PEARSON] = fkv_pearson(n, r->x, r->y);
        if (t->z)
            out[PARTIAL] =
                fkv_partial_correlation(out[SPEARMAN], fkv_pearson(n, r->rank_x, r->rank_z), yz);
    }
}

/* y [points], each unit counted `times` [units] (NULL: once). */
static void mean_over_units(const struct fkv_correlation_task *t, const double *times, double *y) {
    const int64_t units = t->units->count;
    double count = 0;
    for (int64_t u = 0; u < units; u++) count += (times ? times[u] : 1) * t->counts[u];
    for (int32_t i = 0; i < t->points; i++) {
        const double *sums = t->sums + (int64_t)i * units;
        double sum = 0;
        for (int64_t u = 0; u < units; u++) sum += (times ? times[u] : 1) * sums[u];
        y[i] = sum / count;
    }
}

static void resample_points(const struct fkv_correlation_task *t, struct scratch *r) {
    struct fkv_random random = {0};
    for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
        for (int32_t i = 0; i < t->points; i++) {
            r->drawn[i] = (int32_t)fkv_random_below(&random, (uint64_t)t->points);
            r->y[i] = r->mean[r->drawn[i]];
        }
        measure(t, r, r->drawn, r->replicate + (size_t)s * (size_t)t->predictors * MEASURES);
    }
}

static void resample_units(const struct fkv_correlation_task *t, struct scratch *r) {
    struct fkv_random random = {0};
    for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
        fkv_resample(t->units, &random, r->times);
        mean_over_units(t, r->times, r->y);
        measure(t, r, r->all, r->replicate + (size_t)s * (size_t)t->predictors * MEASURES);
    }
}

/* What was found, with the interval of the resamples at hand. */
static struct fkv_interval interval_of(const struct fkv_correlation_task *t,
                                       const struct scratch *r, int32_t predictor, int measure) {
    const int32_t at = predictor * MEASURES + measure;
    return fkv_percentile_interval(r->found[at], FKV_BOOTSTRAP_RESAMPLES, r->replicate + at,
                                   (size_t)t->predictors * MEASURES, r->sorted);
}

static void rank_predictors(const struct fkv_correlation_task *t, struct scratch *r,
                            struct fkv_correlation *out) {
    const double sign = t->falling ? -1 : 1;
    int32_t best = -1;
    for (int32_t p = 0; p < t->predictors; p++) {
        double own = sign * out[p].spearman.estimate;
        if (!isfinite(own)) continue;
        out[p].place = 1;
        for (int32_t other = 0; other < t->predictors; other++)
            out[p].place += sign * out[other].spearman.estimate > own;
        if (best < 0 || own > sign * out[best].spearman.estimate) best = p;
    }
    for (int32_t p = 0; p < t->predictors; p++) {
        out[p].behind = (struct fkv_interval){NAN, NAN, NAN};
        if (!out[p].place) continue;
        for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
            const double *row =
                r->replicate + (size_t)s * (size_t)t->predictors * MEASURES + SPEARMAN;
            r->difference[s] = sign * (row[best * MEASURES] - row[p * MEASURES]);
        }
        double estimate = sign * (out[best].spearman.estimate - out[p].spearman.estimate);
        out[p].behind =
            fkv_percentile_interval(estimate, FKV_BOOTSTRAP_RESAMPLES, r->difference, 1, r->sorted);
    }
}

int fkv_correlate(const struct fkv_correlation_task *t, struct fkv_correlation *out,
                  struct fkv_error *err) {
    struct scratch r;
    const struct fkv_interval none = {NAN, NAN, NAN};
    const bool over_texts = t->units->kind != FKV_SE_NONE;
    if (scratch_make(t, &r, err)) return FKV_FAILED;
    memset(out, 0, (size_t)t->predictors * sizeof *out);
    for (int32_t i = 0; i < t->points; i++) r.all[i] = i;
    mean_over_units(t, NULL, r.mean);
    memcpy(r.y, r.mean, (size_t)t->points * sizeof *r.y);
    measure(t, &r, r.all, r.found);
    resample_points(t, &r);
    for (int32_t p = 0; p < t->predictors; p++) {
        out[p].spearman = interval_of(t, &r, p, SPEARMAN);
        out[p].pearson = interval_of(t, &r, p, PEARSON);
        out[p].partial = interval_of(t, &r, p, PARTIAL);
    }
    rank_predictors(t, &r, out);
    if (over_texts) resample_units(t, &r);
    for (int32_t p = 0; p < t->predictors; p++) {
        out[p].spearman_units = over_texts ? interval_of(t, &r, p, SPEARMAN) : none;
        out[p].pearson_units = over_texts ? interval_of(t, &r, p, PEARSON) : none;
    }
    fkv_memory_free(&r.memory);
    return FKV_OK;
}
