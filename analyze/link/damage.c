/* Owns the statistics of probes (damage.h). Sums per unit of the bootstrap are formed once;
 * everything else is resampling of those. */
#include "analyze/link/damage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/link/token_classes.h"
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
    d->first = malloc((size_t)windows * sizeof *d->first);
    int64_t documents = 0;
    int status = number && blocks && d->first
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %lld windows", (long long)windows);
    for (int64_t w = 0; w < windows && !status; w++) {
        int64_t same = 0;
        while (p->windows[same].document != p->windows[w].document) same++;
        number[w] = same < w ? number[same] : documents++;
        d->first[w] = blocks[number[w]]; /* for now its block within the document */
        blocks[number[w]] += per_window;
    }
    if (!status) status = fkv_units_make(blocks, documents, false, &d->units, err);
    for (int64_t w = 0; w < windows && !status; w++)
        d->first[w] = fkv_unit_at(&d->units, number[w], d->first[w]);
    free(number);
    free(blocks);
    return status;
}

static int64_t unit_of(const struct fkv_damage *d, int64_t window, int32_t i) {
    return d->first[window] + (fkv_units_are_blocks(&d->units) ? i / FKV_BOOTSTRAP_BLOCK : 0);
}

/* ---- damage ---- */

static void add_up(struct fkv_damage *d) {
    const struct fkv_probe *p = d->probe;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        for (int32_t i = 0; i < p->score; i++) {
            d->counts[unit_of(d, w, i)] += 1;
            if (d->floor) d->floor[unit_of(d, w, i)] += window->repeat_kl[i];
        }
        for (int64_t c = 0; c < p->change_count; c++) {
            double *nll = d->sums[FKV_DAMAGE_NLL] + c * d->units.count;
            double *kl = d->sums[FKV_DAMAGE_KL] + c * d->units.count;
            for (int32_t i = 0; i < p->score; i++) {
                int64_t at = c * p->score + i;
                int64_t unit = unit_of(d, w, i);
                nll[unit] += (double)window->nll[at] - window->untouched_nll[i];
                kl[unit] += window->kl[at];
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

/* Corrects the layers, or the heads, of the change that `first` names: rows of one label, which
 * stand side by side. */
static int32_t correct(struct fkv_damage *d, int measure, int32_t first, double *p, double *q,
                       int32_t *order) {
    const struct fkv_probe_change *change = d->probe->changes;
    int32_t end = first;
    while (end < d->probe->change_count && !strcmp(change[end].label, change[first].label)) end++;
    for (int scope = 1; scope <= 2; scope++) {
        for (int32_t c = first; c < end; c++)
            p[c - first] = scope_of(&change[c]) == scope ? d->row[c].p[measure] : NAN;
        fkv_benjamini_hochberg(p, end - first, q, order);
        for (int32_t c = first; c < end; c++)
            if (scope_of(&change[c]) == scope) d->row[c].q[measure] = q[c - first];
    }
    return end;
}

/* room [2 * units] */
static double p_of(const struct fkv_damage *d, int measure, const double *sums, double *room) {
    const int64_t units = d->units.count;
    double *excess = room + units;
    if (measure == FKV_DAMAGE_NLL)
        return fkv_t_test(room, fkv_independent_means(&d->units, sums, d->counts, room));
    if (!d->floor) return NAN;
    for (int64_t u = 0; u < units; u++) excess[u] = sums[u] - d->floor[u];
    return fkv_t_test_above(room, fkv_independent_means(&d->units, excess, d->counts, room));
}

static void test_rows(struct fkv_damage *d, double *room, int32_t *order) {
    int32_t changes = d->probe->change_count;
    for (int m = 0; m < FKV_DAMAGES; m++) {
        for (int32_t c = 0; c < changes; c++) {
            const double *sums = d->sums[m] + (int64_t)c * d->units.count;
            struct fkv_damage_row *row = &d->row[c];
            row->mean[m] = fkv_ratio_interval(&d->units, sums, d->counts, &row->se[m]);
            row->p[m] = p_of(d, m, sums, room), row->q[m] = NAN;
        }
        for (int32_t c = 0; c < changes;) c = correct(d, m, c, room, room + changes, order);
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
    if (has_floor) out->floor = calloc(units, sizeof(double));
    for (int m = 0; m < FKV_DAMAGES; m++) out->sums[m] = calloc(changes * units, sizeof(double));
    double *room = malloc(2 * (changes + units) * sizeof *room);
    int32_t *order = malloc(changes * sizeof *order);
    bool whole =
        out->counts && out->row && out->sums[0] && out->sums[1] && (out->floor || !has_floor);
    int status =
        whole && room && order ? FKV_OK : fkv_fail(err, "out of memory for %zu changes", changes);
    if (!status) add_up(out);
    if (!status) status = check_numbers(out, err);
    if (!status) test_rows(out, room, order);
    free(room);
    free(order);
    if (status) fkv_damage_free(out);
    return status;
}

void fkv_damage_free(struct fkv_damage *d) {
    fkv_units_free(&d->units);
    free(d->first);
    free(d->counts);
    free(d->floor);
    for (int m = 0; m < FKV_DAMAGES; m++) free(d->sums[m]);
    free(d->row);
    memset(d, 0, sizeof *d);
}

struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens, double *room) {
    const struct fkv_probe *p = d->probe;
    double *sums = room, *counts = room + d->units.count;
    memset(room, 0, 2 * (size_t)d->units.count * sizeof *room);
    *tokens = 0;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        const float *nll = window->nll + (int64_t)change * p->score;
        for (int32_t i = 0; i < p->score; i++) { /* element i is about token P + 1 + i */
            if (c &&
                !(window->token_class && fkv_class_has(window->token_class[p->prefix + 1 + i], c)))
                continue;
            int64_t unit = unit_of(d, w, i);
            sums[unit] += (double)nll[i] - window->untouched_nll[i];
            counts[unit] += 1;
            ++*tokens;
        }
    }
    return fkv_ratio_interval(&d->units, sums, counts, se);
}
