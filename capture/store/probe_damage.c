/* The statistics of probes. Sums per unit of the bootstrap are formed once; everything else is
 * resampling of those. */
#include "capture/store/probe_damage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/statistics/significance.h"

const char *const fkv_damage_names[FKV_DAMAGES] = {"delta_nll", "kl"};

/* ---- units ---- */

/* Windows of one document share its number, wherever they stand in the file. */
static int make_units(struct fkv_damage *d, struct fkv_error *err) {
    const struct fkv_probe *p = d->probe;
    const int64_t windows = p->window_count,
                  per_window = (p->score + FKV_BOOTSTRAP_BLOCK - 1) / FKV_BOOTSTRAP_BLOCK;
    int64_t *number = malloc((size_t)windows * sizeof *number),
            *blocks = calloc((size_t)windows, sizeof *blocks);
    d->first_unit = malloc((size_t)windows * sizeof *d->first_unit);
    int64_t documents = 0;
    int status = number && blocks && d->first_unit
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %lld windows", (long long)windows);
    for (int64_t w = 0; w < windows && !status; w++) {
        int64_t same = 0;
        while (p->windows[same].document != p->windows[w].document) same++;
        number[w] = same < w ? number[same] : documents++;
        d->first_unit[w] = blocks[number[w]]; /* for now its block within the document */
        blocks[number[w]] += per_window;
    }
    if (!status) status = fkv_units_make(blocks, documents, false, &d->units, err);
    for (int64_t w = 0; w < windows && !status; w++)
        d->first_unit[w] = fkv_unit_at(&d->units, number[w], d->first_unit[w]);
    free(number);
    free(blocks);
    return status;
}

int64_t fkv_damage_unit(const struct fkv_damage *d, int64_t window, int32_t i) {
    return d->first_unit[window] + (fkv_units_are_blocks(&d->units) ? i / FKV_BOOTSTRAP_BLOCK : 0);
}

/* ---- damage ---- */

static void add_up(struct fkv_damage *d) {
    const struct fkv_probe *p = d->probe;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        for (int32_t i = 0; i < p->score; i++) {
            d->counts[fkv_damage_unit(d, w, i)] += 1;
            d->untouched_nll += window->untouched_nll[i] / ((double)p->window_count * p->score);
        }
        for (int64_t c = 0; c < p->change_count; c++) {
            double *nll = d->sums[FKV_DAMAGE_NLL] + c * d->units.count;
            double *kl = d->sums[FKV_DAMAGE_KL] + c * d->units.count;
            double *excess = d->excess ? d->excess + c * d->units.count : NULL;
            for (int32_t i = 0; i < p->score; i++) {
                const int64_t token = c * p->score + i, unit = fkv_damage_unit(d, w, i);
                nll[unit] += (double)window->nll[token] - window->untouched_nll[i];
                kl[unit] += window->kl[token];
                if (excess) excess[unit] += (double)window->kl[token] - window->repeat_kl[i];
            }
            for (int s = 0; s < 2; s++)
                d->row[c].lost[s] += window->lost_energy[2 * c + s] / (double)p->window_count;
        }
    }
}

static int check_numbers(const struct fkv_damage *d, struct fkv_error *err) {
    for (int measure = 0; measure < FKV_DAMAGES; measure++)
        for (int64_t i = 0; i < (int64_t)d->probe->change_count * d->units.count; i++)
            if (!isfinite(d->sums[measure][i]))
                return fkv_fail(
                    err,
                    "change %lld (\"%s\"): expected finite numbers for %s, found NaN or infinity",
                    (long long)(i / d->units.count), d->probe->changes[i / d->units.count].label,
                    fkv_damage_names[measure]);
    return FKV_OK;
}

/* 0: all heads at once, 1: a layer, 2: a head */
static int scope_of(const struct fkv_probe_change *c) {
    return c->kv_head >= 0 ? 2 : c->layer >= 0;
}

/* Fills q of a measure for the family that begins at change `first`; returns where it ends. p, q
 * and order [changes] are scratch. */
static int32_t correct(struct fkv_damage *d, int measure, int32_t first, double *p, double *q,
                       int32_t *order) {
    const struct fkv_probe_change *change = d->probe->changes;
    int32_t end = first;
    while (end < d->probe->change_count && change[end].family == change[first].family) end++;
    for (int scope = 1; scope <= 2; scope++) {
        for (int32_t c = first; c < end; c++)
            p[c - first] = scope_of(&change[c]) == scope ? d->row[c].p[measure] : NAN;
        fkv_benjamini_hochberg(p, end - first, q, order);
        for (int32_t c = first; c < end; c++)
            if (scope_of(&change[c]) == scope) d->row[c].q[measure] = q[c - first];
    }
    return end;
}

/* means [units] is scratch. */
static double p_of(const struct fkv_damage *d, int measure, int64_t change, double *means) {
    const int64_t row = change * d->units.count;
    if (measure == FKV_DAMAGE_NLL)
        return fkv_t_test(
            means, fkv_independent_means(&d->units, d->sums[measure] + row, d->counts, means));
    if (!d->excess) return NAN;
    return fkv_t_test_above(means,
                            fkv_independent_means(&d->units, d->excess + row, d->counts, means));
}

/* scratch [units or 2 * changes, the larger], order [changes] */
static void fill_rows(struct fkv_damage *d, double *scratch, int32_t *order) {
    const int32_t changes = d->probe->change_count;
    for (int m = 0; m < FKV_DAMAGES; m++) {
        for (int32_t c = 0; c < changes; c++) {
            const double *sums = d->sums[m] + (int64_t)c * d->units.count;
            struct fkv_damage_row *row = &d->row[c];
            row->mean[m] = fkv_ratio_interval(&d->units, sums, d->counts, &row->se[m]);
            row->p[m] = p_of(d, m, c, scratch);
            row->q[m] = NAN;
        }
        for (int32_t c = 0; c < changes;) c = correct(d, m, c, scratch, scratch + changes, order);
    }
}

int fkv_damage_make(const struct fkv_probe *probe, struct fkv_damage *out, struct fkv_error *err) {
    *out = (struct fkv_damage){.probe = probe};
    if (probe->window_count < 1 || probe->change_count < 1)
        return fkv_fail(err,
                        "expected a probe of one change and one window or more, found %d and %lld",
                        probe->change_count, (long long)probe->window_count);
    if (make_units(out, err)) {
        fkv_damage_free(out);
        return FKV_FAILED;
    }
    size_t changes = (size_t)probe->change_count, units = (size_t)out->units.count;
    out->counts = calloc(units, sizeof(double));
    out->row = calloc(changes, sizeof *out->row);
    const bool has_floor = fkv_probe_has_floor(probe);
    if (has_floor) out->excess = calloc(changes * units, sizeof(double));
    for (int m = 0; m < FKV_DAMAGES; m++) out->sums[m] = calloc(changes * units, sizeof(double));
    double *scratch = malloc((2 * changes + units) * sizeof *scratch);
    int32_t *order = malloc(changes * sizeof *order);
    bool whole =
        out->counts && out->row && out->sums[0] && out->sums[1] && (out->excess || !has_floor);
    int status = whole && scratch && order
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %zu changes", changes);
    if (!status) add_up(out);
    if (!status) status = check_numbers(out, err);
    if (!status) fill_rows(out, scratch, order);
    free(scratch);
    free(order);
    if (status) fkv_damage_free(out);
    return status;
}

void fkv_damage_free(struct fkv_damage *d) {
    fkv_units_free(&d->units);
    free(d->first_unit);
    free(d->counts);
    free(d->excess);
    for (int m = 0; m < FKV_DAMAGES; m++) free(d->sums[m]);
    free(d->row);
    memset(d, 0, sizeof *d);
}
