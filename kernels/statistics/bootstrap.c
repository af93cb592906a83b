/* Owns the draws of the bootstrap and what is formed from them; see bootstrap.h. Resampled means,
 * not sums, are collected by Welford's update, so that a small spread around a large mean keeps
 * its digits. */
#include "kernels/statistics/bootstrap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fkv_se_unit fkv_se_unit_of(int64_t documents, int64_t blocks, bool overlap) {
    if (documents >= FKV_BOOTSTRAP_DOCUMENTS || (overlap && documents > 1)) return FKV_SE_DOCUMENTS;
    if (overlap || blocks < 2) return FKV_SE_NONE;
    return documents > 1 ? FKV_SE_DOCUMENTS_AND_BLOCKS : FKV_SE_BLOCKS;
}

const char *fkv_se_unit_name(enum fkv_se_unit unit) {
    static const char *const names[] = {NULL, "documents", "documents and blocks",
                                        "blocks of one document"};
    return names[unit];
}

const char *fkv_se_unit_words(enum fkv_se_unit unit, int64_t documents, const char *blocks,
                              char text[FKV_SE_WORDS]) {
    const bool few = documents < FKV_BOOTSTRAP_DOCUMENTS;
    switch (unit) {
    case FKV_SE_NONE: snprintf(text, FKV_SE_WORDS, "none: there is nothing to resample"); break;
    case FKV_SE_BLOCKS:
        snprintf(text, FKV_SE_WORDS, "over %s of one document (they speak for that document only)",
                 blocks);
        break;
    default:
        snprintf(text, FKV_SE_WORDS, "over %lld documents%s%s%s%s", (long long)documents,
                 unit == FKV_SE_DOCUMENTS ? "" : " and ", unit == FKV_SE_DOCUMENTS ? "" : blocks,
                 unit == FKV_SE_DOCUMENTS ? "" : " within them",
                 few ? " (so few documents say little about others)" : "");
    }
    return text;
}

/* ---- units ---- */

int fkv_units_make(const int64_t *blocks, int64_t documents, bool overlap, struct fkv_units *units,
                   struct fkv_error *err) {
    *units = (struct fkv_units){0};
    int64_t all = 0;
    for (int64_t d = 0; d < documents; d++) units->documents += blocks[d] > 0, all += blocks[d];
    units->kind = fkv_se_unit_of(units->documents, all, overlap);
    units->groups = units->kind == FKV_SE_DOCUMENTS_AND_BLOCKS ? units->documents : 1;
    units->first = calloc((size_t)(units->groups + 1 + documents), sizeof *units->first);
    if (!units->first)
        return fkv_fail(err, "out of memory for the units of %lld documents", (long long)documents);
    units->unit = units->first + units->groups + 1;
    int64_t group = 0;
    for (int64_t d = 0; d < documents; d++) {
        units->unit[d] = units->count;
        if (!blocks[d]) continue;
        if (units->groups > 1) units->first[group++] = units->count;
        units->count += fkv_units_are_blocks(units) ? blocks[d] : 1;
    }
    units->first[units->groups] = units->count;
    return FKV_OK;
}

void fkv_units_free(struct fkv_units *units) {
    free(units->first);
    *units = (struct fkv_units){0};
}

/* ---- draws ---- */

/* Where a resample stands: `left` units of the group that begins at `first` and has `size`. */
struct draw {
    int64_t groups, first, size, left;
};

static struct draw start_draw(const struct fkv_units *u) {
    return (struct draw){.groups = u->groups};
}

/* The next unit, or -1 at the end of the resample. A group is drawn only where there is a
 * choice. */
static int64_t next_unit(const struct fkv_units *u, struct fkv_random *random, struct draw *d) {
    if (!d->left) {
        if (!d->groups) return -1;
        d->groups--;
        int64_t group = u->groups > 1 ? (int64_t)fkv_random_below(random, (uint64_t)u->groups) : 0;
        d->first = u->first[group];
        d->size = d->left = u->first[group + 1] - u->first[group];
    }
    d->left--;
    return d->first + (int64_t)fkv_random_below(random, (uint64_t)d->size);
}

void fkv_resample(const struct fkv_units *units, struct fkv_random *random, double *times) {
    struct draw d = start_draw(units);
    memset(times, 0, (size_t)units->count * sizeof *times);
    for (int64_t i = next_unit(units, random, &d); i >= 0; i = next_unit(units, random, &d))
        times[i] += 1;
}

/* ---- intervals ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct fkv_interval fkv_percentile_interval(double estimate, int count, const double *values,
                                            size_t step, double *scratch) {
    struct fkv_interval interval = {estimate, NAN, NAN};
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (isfinite(values[(size_t)i * step])) scratch[kept++] = values[(size_t)i * step];
    if (2 * kept <= count || !isfinite(estimate)) return interval;
    qsort(scratch, (size_t)kept, sizeof *scratch, ascending);
    double at[2] = {0.025 * (kept - 1), 0.975 * (kept - 1)}, ends[2];
    for (int e = 0; e < 2; e++) {
        int below = (int)at[e], above = below + 1 < kept ? below + 1 : below;
        ends[e] = scratch[below] + (at[e] - below) * (scratch[above] - scratch[below]);
    }
    interval.low = ends[0], interval.high = ends[1];
    return interval;
}

struct fkv_interval fkv_ratio_interval(const struct fkv_units *units, const double *sums,
                                       const double *counts, double *se) {
    double replicate[FKV_BOOTSTRAP_RESAMPLES], sorted[FKV_BOOTSTRAP_RESAMPLES], sum = 0, count = 0;
    struct fkv_random random = {0};
    for (int64_t u = 0; u < units->count; u++) sum += sums[u], count += counts[u];
    struct fkv_interval interval = {count > 0 ? sum / count : NAN, NAN, NAN};
    if (se) *se = NAN;
    if (units->kind == FKV_SE_NONE || !isfinite(interval.estimate)) return interval;
    double mean = 0, squares = 0;
    int kept = 0;
    for (int s = 0; s < FKV_BOOTSTRAP_RESAMPLES; s++) {
        struct draw d = start_draw(units);
        sum = count = 0;
        for (int64_t i = next_unit(units, &random, &d); i >= 0; i = next_unit(units, &random, &d))
            sum += sums[i], count += counts[i];
        replicate[s] = count > 0 ? sum / count : NAN;
        if (!isfinite(replicate[s])) continue;
        double deviation = replicate[s] - mean;
        mean += deviation / ++kept;
        squares += deviation * (replicate[s] - mean);
    }
    interval =
        fkv_percentile_interval(interval.estimate, FKV_BOOTSTRAP_RESAMPLES, replicate, 1, sorted);
    if (se && isfinite(interval.low)) *se = sqrt(squares / (kept - 1));
    return interval;
}

int64_t fkv_independent_means(const struct fkv_units *units, const double *sums,
                              const double *counts, double *means) {
    const bool whole = units->groups > 1;
    int64_t parts = whole ? units->groups : units->count, found = 0;
    for (int64_t p = 0; p < parts; p++) {
        double sum = 0, count = 0;
        for (int64_t u = whole ? units->first[p] : p; u < (whole ? units->first[p + 1] : p + 1);
             u++)
            sum += sums[u], count += counts[u];
        if (count > 0) means[found++] = sum / count;
    }
    return found;
}
