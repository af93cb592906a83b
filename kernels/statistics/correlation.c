/* Owns correlations and their bootstrap (correlation.h). */
#include "kernels/statistics/correlation.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    double *x, *y, *z;                /* [points] a resample */
    double *rank_x, *rank_y, *rank_z; /* [points] */
    int32_t *order, *drawn;           /* [points] each */
    double *times;                    /* [units] of a resample of units */
    double *replicate;                /* [resamples, predictors, MEASURES] */
    double *sorted, *difference;      /* [resamples] */
};

static void scratch_free(struct scratch *r) {
    free(r->x);
    free(r->order);
    free(r->times);
    free(r->replicate);
}

static int scratch_make(const struct fkv_correlation_task *t, struct scratch *r,
                        struct fkv_error *err) {
    size_t n = (size_t)t->points, resamples = FKV_BOOTSTRAP_RESAMPLES;
    *r = (struct scratch){.x = malloc((6 * n + 2 * resamples) * sizeof(double)),
                          .order = malloc((2 * n + 1) * sizeof(int32_t)),
                          .times = malloc((size_t)t->units->count * sizeof(double))};
    r->replicate = malloc(resamples * (size_t)t->predictors * MEASURES * sizeof(double));
    if (!r->x || !r->order || !r->times || !r->replicate) {
        scratch_free(r);
        return fkv_fail(err, "out of memory for correlations of %d points", t->points);
    }
    r->y = r->x + n, r->z = r->y + n, r->rank_x = r->z + n, r->rank_y = r->rank_x + n,
    r->rank_z = r->rank_y + n;
    r->sorted = r->rank_z + n, r->difference = r->sorted + resamples;
    r->drawn = r->order + n;
    return FKV_OK;
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

static void resample_points(const struct fkv_correlation_task *t, struct scratch *r,
                            const double *y) {
    struct fkv_random random = {0};
    for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
        for (int32_t i = 0; i < t->points; i++) {
            r->drawn[i] = (int32_t)fkv_random_below(&random, (uint64_t)t->points);
            r->y[i] = y[r->drawn[i]];
        }
        measure(t, r, r->drawn, r->replicate + (size_t)s * (size_t)t->predictors * MEASURES);
    }
}

static void resample_units(const struct fkv_correlation_task *t, struct scratch *r,
                           const int32_t *all) {
    struct fkv_random random = {0};
    for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
        fkv_resample(t->units, &random, r->times);
        mean_over_units(t, r->times, r->y);
        measure(t, r, all, r->replicate + (size_t)s * (size_t)t->predictors * MEASURES);
    }
}

static struct fkv_interval interval_of(const struct fkv_correlation_task *t, struct scratch *r,
                                       int32_t predictor, int measure, double estimate) {
    return fkv_percentile_interval(estimate, FKV_BOOTSTRAP_RESAMPLES,
                                   r->replicate + predictor * MEASURES + measure,
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
    if (scratch_make(t, &r, err)) return FKV_FAILED;
    double *y = malloc(((size_t)t->points + (size_t)t->predictors * MEASURES) * sizeof *y);
    int32_t *all = malloc(((size_t)t->points + 1) * sizeof *all);
    int status =
        y && all ? FKV_OK : fkv_fail(err, "out of memory for correlations of %d points", t->points);
    const bool over_texts = t->units->kind != FKV_SE_NONE;
    memset(out, 0, (size_t)t->predictors * sizeof *out);
    if (!status) {
        double *found = y + t->points;
        for (int32_t i = 0; i < t->points; i++) all[i] = i;
        mean_over_units(t, NULL, y);
        memcpy(r.y, y, (size_t)t->points * sizeof *y);
        measure(t, &r, all, found);
        resample_points(t, &r, y);
        for (int32_t p = 0; p < t->predictors; p++) {
            out[p].spearman = interval_of(t, &r, p, SPEARMAN, found[p * MEASURES + SPEARMAN]);
            out[p].pearson = interval_of(t, &r, p, PEARSON, found[p * MEASURES + PEARSON]);
            out[p].partial = interval_of(t, &r, p, PARTIAL, found[p * MEASURES + PARTIAL]);
        }
        rank_predictors(t, &r, out);
        if (over_texts) resample_units(t, &r, all);
        for (int32_t p = 0; p < t->predictors; p++) {
            double spearman = over_texts ? found[p * MEASURES + SPEARMAN] : NAN;
            double pearson = over_texts ? found[p * MEASURES + PEARSON] : NAN;
            out[p].spearman_units = interval_of(t, &r, p, SPEARMAN, spearman);
            out[p].pearson_units = interval_of(t, &r, p, PEARSON, pearson);
        }
    }
    free(y);
    free(all);
    scratch_free(&r);
    return status;
}
