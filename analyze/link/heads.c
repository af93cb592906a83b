/* Owns the join of per-head damage with predictors (link.h). A filter of one band of one head is a
 * point; noise is none (its energy is chosen, not lost), FreqKV's squeezing and local windows
 * change more than energy, and predictors are of one band. */
#include <stdlib.h>
#include <string.h>

#include "analyze/link/link.h"
#include "kernels/base/ratio.h"

static bool is_point(const struct fkv_probe_change *c) {
    return c->kind == FKV_PROBE_FILTER && c->layer >= 0 && c->kv_head >= 0 && c->band_count == 1;
}

static int32_t index_of(int32_t number, const int32_t *index, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        if (index[i] == number) return i;
    return -1;
}

static int add_head(struct fkv_link_heads *h, const struct fkv_probe *probe, int32_t p,
                    int32_t change, const struct fkv_predictor_spectra *s, struct fkv_error *err) {
    const struct fkv_probe_change *c = &probe->changes[change];
    int32_t layer = index_of(c->layer, s->layer_index, s->layers),
            head = index_of(c->kv_head, s->head_index, s->heads);
    if (layer < 0 || head < 0)
        return fkv_fail(
            err, "change %d (\"%s\") is of layer %d, KV head %d, which the capture does not hold",
            change, c->label, c->layer, c->kv_head);
    const struct fkv_kept kept = {fkv_band_edge(c->bands[0].low, s->n),
                                  fkv_band_edge(c->bands[0].high, s->n), c->complement != 0};
    struct fkv_link_head *to = &h->head[h->count++];
    *to =
        (struct fkv_link_head){.probe = p, .change = change, .layer = c->layer, .head = c->kv_head};
    for (int predictor = 0; predictor < FKV_PREDICTORS; predictor++)
        to->predictor[predictor] =
            fkv_predictor_value(s, (enum fkv_predictor)predictor, layer, head, c->states, kept);
    return FKV_OK;
}

/* One depth of a group: its points correlated. */
static int correlate(const struct fkv_link_heads *h, struct fkv_link_group *g,
                     const struct fkv_damage *d, enum fkv_depth depth, double *scratch,
                     struct fkv_error *err) {
    int64_t units = d->units.count;
    int32_t points = 0;
    double *x = scratch, *z = x + (int64_t)FKV_PREDICTORS * g->count, *sums = z + g->count;
    int32_t chosen = 0;
    for (int32_t i = 0; i < g->count; i++)
        points += depth == FKV_DEPTH_ALL ||
                  fkv_depth_of(h->head[g->first + i].layer, d->probe->layers) == depth;
    g->points[depth] = points;
    for (int measure = 0; measure < FKV_DAMAGES; measure++, chosen = 0) {
        for (int32_t i = 0; i < g->count; i++) {
            const struct fkv_link_head *head = &h->head[g->first + i];
            if (depth != FKV_DEPTH_ALL && fkv_depth_of(head->layer, d->probe->layers) != depth)
                continue;
            for (int p = 0; p < FKV_PREDICTORS; p++) x[p * points + chosen] = head->predictor[p];
            z[chosen] = head->layer;
            memcpy(sums + (int64_t)chosen++ * units,
                   d->sums[measure] + (int64_t)head->change * units, (size_t)units * sizeof *sums);
        }
        const struct fkv_correlation_task task = {.points = points,
                                                  .predictors = FKV_PREDICTORS,
                                                  .x = x,
                                                  .z = z,
                                                  .units = &d->units,
                                                  .sums = sums,
                                                  .counts = d->counts};
        if (fkv_correlate(&task, g->correlation[measure][depth], err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int correlate_all(struct fkv_link_heads *h, const struct fkv_damage *damage,
                         struct fkv_error *err) {
    int status = FKV_OK;
    for (int32_t i = 0; !status && i < h->groups; i++) {
        struct fkv_link_group *g = &h->group[i];
        const struct fkv_damage *d = &damage[g->probe];
        double *scratch = malloc((size_t)g->count * (FKV_PREDICTORS + 1 + (size_t)d->units.count) *
                                 sizeof *scratch);
        if (!scratch) return fkv_fail(err, "out of memory for %d heads", g->count);
        for (int depth = 0; !status && depth < FKV_DEPTHS; depth++)
            status = correlate(h, g, d, (enum fkv_depth)depth, scratch, err);
        free(scratch);
    }
    return status;
}

/* Heads of the family of change `first`, as one group. */
static int add_group(struct fkv_link_heads *h, const struct fkv_probe *probe, int32_t p,
                     int32_t first, const struct fkv_predictor_spectra *s, struct fkv_error *err) {
    const struct fkv_probe_change *c = &probe->changes[first];
    struct fkv_link_group *g = &h->group[h->groups++];
    *g = (struct fkv_link_group){.states = c->states, .probe = p, .first = h->count};
    memcpy(g->label, c->label, sizeof g->label);
    for (int32_t i = first; i < probe->change_count; i++)
        if (is_point(&probe->changes[i]) && probe->changes[i].family == c->family &&
            add_head(h, probe, p, i, s, err))
            return FKV_FAILED;
    g->count = h->count - g->first;
    return FKV_OK;
}

int fkv_link_heads_make(const struct fkv_damage *damage, int32_t probes,
                        const struct fkv_predictor_spectra *spectra, struct fkv_link_heads *out,
                        struct fkv_error *err) {
    size_t changes = 0;
    *out = (struct fkv_link_heads){0};
    for (int32_t p = 0; p < probes; p++) changes += (size_t)damage[p].probe->change_count;
    out->head = fkv_memory_take(&out->memory, changes, sizeof *out->head);
    out->group = fkv_memory_take(&out->memory, changes, sizeof *out->group);
    int status =
        out->memory.failed ? fkv_fail(err, "out of memory for %zu changes", changes) : FKV_OK;
    for (int32_t p = 0; !status && p < probes; p++) {
        const struct fkv_probe *probe = damage[p].probe;
        int32_t family = -1; /* of the last group */
        for (int32_t c = 0; !status && c < probe->change_count; c++) {
            if (!is_point(&probe->changes[c]) || probe->changes[c].family == family) continue;
            family = probe->changes[c].family;
            status = add_group(out, probe, p, c, spectra, err);
        }
    }
    if (!status) status = correlate_all(out, damage, err);
    if (status) fkv_link_heads_free(out);
    return status;
}

void fkv_link_heads_free(struct fkv_link_heads *h) {
    fkv_memory_free(&h->memory);
    *h = (struct fkv_link_heads){0};
}
