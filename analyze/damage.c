/* Owns the statistics of probes (damage.h). Sums per unit of the bootstrap are formed once; everything else is resampling of those. */
#include "analyze/damage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/statistics.h"
#include "analyze/token_classes.h"
#include "kernels/base/significance.h"

enum { BLOCK = 256 };

const char *const fkv_damage_names[FKV_DAMAGES] = {"delta_nll", "kl"};

/* ---- units ---- */

static int make_units(const struct fkv_probe *p, struct fkv_units *u, struct fkv_error *err) {
    int32_t blocks = (p->score + BLOCK - 1) / BLOCK, documents = 0;
    *u = (struct fkv_units){.per_window = blocks};
    u->of = malloc(((size_t)p->window_count * (size_t)blocks + 1) * sizeof *u->of);
    int32_t *number = malloc(((size_t)p->window_count + 1) * sizeof *number);
    if (!u->of || !number) {
        free(number);
        return fkv_fail(err, "out of memory for %lld windows", (long long)p->window_count);
    }
    for (int64_t w = 0; w < p->window_count; w++) {
        int64_t same = 0;
        while (p->windows[same].document != p->windows[w].document) same++;
        number[w] = same < w ? number[same] : documents++;
    }
    u->documents = documents >= FKV_DOCUMENTS_FOR_SE;
    u->count = u->documents ? documents : (int32_t)p->window_count * blocks;
    for (int64_t w = 0; w < p->window_count; w++)
        for (int32_t b = 0; b < blocks; b++) u->of[w * blocks + b] = u->documents ? number[w] : (int32_t)w * blocks + b;
    free(number);
    return FKV_OK;
}

static int32_t unit_of(const struct fkv_units *u, int64_t window, int32_t i) {
    return u->of[window * u->per_window + i / BLOCK];
}

/* ---- damage ---- */

static void add_up(struct fkv_damage *d) {
    const struct fkv_probe *p = d->probe;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        for (int32_t i = 0; i < p->score; i++) d->counts[unit_of(&d->units, w, i)] += 1;
        for (int64_t c = 0; c < p->change_count; c++) {
            double *nll = d->sums[FKV_DAMAGE_NLL] + c * d->units.count;
            double *kl = d->sums[FKV_DAMAGE_KL] + c * d->units.count;
            for (int32_t i = 0; i < p->score; i++) {
                int64_t at = c * p->score + i;
                int32_t unit = unit_of(&d->units, w, i);
                nll[unit] += (double)window->nll[at] - window->untouched_nll[i];
                kl[unit] += window->kl[at];
            }
            for (int s = 0; s < 2; s++) d->row[c].lost[s] += window->lost_energy[2 * c + s] / (double)p->window_count;
        }
    }
}

static int check_numbers(const struct fkv_damage *d, struct fkv_error *err) {
    for (int measure = 0; measure < FKV_DAMAGES; measure++)
        for (int64_t i = 0; i < (int64_t)d->probe->change_count * d->units.count; i++)
            if (!isfinite(d->sums[measure][i]))
                return fkv_fail(err, "change %lld (\"%s\"): expected finite numbers for %s, found NaN or infinity",
                                (long long)(i / d->units.count), d->probe->changes[i / d->units.count].label,
                                fkv_damage_names[measure]);
    return FKV_OK;
}

/* 0: all heads at once, 1: a layer, 2: a head */
static int scope_of(const struct fkv_probe_change *c) { return c->kv_head >= 0 ? 2 : c->layer >= 0; }

/* Corrects the layers, or the heads, of the change that `first` names: rows of one label, which stand side by side. */
static int32_t correct(struct fkv_damage *d, int measure, int32_t first, double *p, double *q, int32_t *order) {
    const struct fkv_probe_change *change = d->probe->changes;
    int32_t end = first;
    while (end < d->probe->change_count && !strcmp(change[end].label, change[first].label)) end++;
    for (int scope = 1; scope <= 2; scope++) {
        for (int32_t c = first; c < end; c++) p[c - first] = scope_of(&change[c]) == scope ? d->row[c].p[measure] : NAN;
        fkv_benjamini_hochberg(p, end - first, q, order);
        for (int32_t c = first; c < end; c++)
            if (scope_of(&change[c]) == scope) d->row[c].q[measure] = q[c - first];
    }
    return end;
}

static void test_rows(struct fkv_damage *d, double *room, int32_t *order) {
    int32_t changes = d->probe->change_count;
    for (int m = 0; m < FKV_DAMAGES; m++) {
        for (int32_t c = 0; c < changes; c++) {
            const double *sums = d->sums[m] + (int64_t)c * d->units.count;
            struct fkv_damage_row *row = &d->row[c];
            row->mean[m] = fkv_ratio_interval(d->units.count, sums, d->counts, &row->se[m]);
            for (int32_t u = 0; u < d->units.count; u++) room[u] = sums[u] / d->counts[u];
            row->p[m] = fkv_t_test(room, d->units.count), row->q[m] = NAN;
        }
        for (int32_t c = 0; c < changes;) c = correct(d, m, c, room, room + changes, order);
    }
}

int fkv_damage_make(const struct fkv_probe *probe, struct fkv_damage *out, struct fkv_error *err) {
    *out = (struct fkv_damage){.probe = probe};
    if (probe->window_count < 1 || probe->change_count < 1)
        return fkv_fail(err, "expected a probe of one change and one window or more, found %d and %lld",
                        probe->change_count, (long long)probe->window_count);
    if (make_units(probe, &out->units, err)) {
        fkv_damage_free(out);
        return FKV_FAILED;
    }
    size_t changes = (size_t)probe->change_count, units = (size_t)out->units.count;
    out->counts = calloc(units, sizeof(double));
    out->row = calloc(changes, sizeof *out->row);
    for (int m = 0; m < FKV_DAMAGES; m++) out->sums[m] = calloc(changes * units, sizeof(double));
    double *room = malloc((2 * changes + units) * sizeof *room);
    int32_t *order = malloc(changes * sizeof *order);
    int status = out->counts && out->row && out->sums[0] && out->sums[1] && room && order
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %zu changes", changes);
    if (!status) add_up(out);
    if (!status) status = check_numbers(out, err);
    if (!status) test_rows(out, room, order);
    free(room);
    free(order);
    if (status) fkv_damage_free(out);
    return status;
}

void fkv_damage_free(struct fkv_damage *d) {
    free(d->units.of);
    free(d->counts);
    for (int m = 0; m < FKV_DAMAGES; m++) free(d->sums[m]);
    free(d->row);
    memset(d, 0, sizeof *d);
}

struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c, double *se, int64_t *tokens,
                                        double *room) {
    const struct fkv_probe *p = d->probe;
    double *sums = room, *counts = room + d->units.count;
    memset(room, 0, 2 * (size_t)d->units.count * sizeof *room);
    *tokens = 0;
    for (int64_t w = 0; w < p->window_count; w++) {
        const struct fkv_probe_window *window = &p->windows[w];
        const float *nll = window->nll + (int64_t)change * p->score;
        for (int32_t i = 0; i < p->score; i++) { /* element i is about token P + 1 + i */
            if (c && !(window->token_class && fkv_class_has(window->token_class[p->prefix + 1 + i], c))) continue;
            int32_t unit = unit_of(&d->units, w, i);
            sums[unit] += (double)nll[i] - window->untouched_nll[i];
            counts[unit] += 1;
            ++*tokens;
        }
    }
    return fkv_ratio_interval(d->units.count, sums, counts, se);
}
