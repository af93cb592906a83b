/* Owns the group /link of results.h5 (results.h): the tables of `link` as arrays, at full
 * precision. */
#include <string.h>

#include "analyze/link/link.h"
#include "analyze/tables/results.h"

enum { DATASETS = 13 };

struct arrays {
    struct fkv_results_dataset dataset[DATASETS];
    int count;
    struct fkv_memory memory;
};

static void add(struct arrays *a, const char *name, enum fkv_h5_type type, int64_t rows,
                int64_t columns, const void *data) {
    a->dataset[a->count++] =
        (struct fkv_results_dataset){name, type, columns > 1 ? 2 : 1, {rows, columns}, data};
}

/* A dataset [rows, columns] of double, for the caller to fill; NULL without memory. */
static void *new_numbers(struct arrays *a, const char *name, int64_t rows, int64_t columns) {
    double *data = fkv_memory_take(&a->memory, (size_t)(rows * columns), sizeof *data);
    add(a, name, FKV_H5_F64, rows, columns, data);
    return data;
}

static void *new_integers(struct arrays *a, const char *name, int64_t rows, int64_t columns) {
    int32_t *data = fkv_memory_take(&a->memory, (size_t)(rows * columns), sizeof *data);
    add(a, name, FKV_H5_I32, rows, columns, data);
    return data;
}

static void put_sweep(struct arrays *a, const struct fkv_link_sweep *s) {
    add(a, "sweep_gamma", FKV_H5_F64, s->points, 1, s->gamma);
    add(a, "sweep_retained", FKV_H5_F64, FKV_RETAINED, s->points, s->retained);
    for (int o = 0; o < FKV_OUTCOMES; o++) {
        double *to = new_numbers(a, o ? "sweep_delta_nll" : "sweep_mean_nll", s->points, 1);
        for (int32_t p = 0; to && p < s->points; p++) to[p] = s->outcome[o][p].estimate;
    }
}

static void put_heads(struct arrays *a, const struct fkv_link *l) {
    const struct fkv_link_heads *h = &l->heads;
    int32_t(*place)[4] = new_integers(a, "head_place", h->count, 4);
    double(*predictor)[FKV_PREDICTORS] = new_numbers(a, "head_predictor", h->count, FKV_PREDICTORS);
    struct fkv_interval *delta = new_numbers(a, "head_delta_nll", h->count, 3),
                        *kl = new_numbers(a, "head_kl", h->count, 3);
    for (int32_t g = 0; !a->memory.failed && g < h->groups; g++)
        for (int32_t i = h->group[g].first; i < h->group[g].first + h->group[g].count; i++) {
            const struct fkv_link_head *head = &h->head[i];
            const struct fkv_damage_row *row = &l->damage[head->probe].row[head->change];
            const int32_t own[] = {head->layer, head->head, h->group[g].states, g};
            memcpy(place[i], own, sizeof own);
            memcpy(predictor[i], head->predictor, sizeof *predictor);
            delta[i] = row->mean[FKV_DAMAGE_NLL];
            kl[i] = row->mean[FKV_DAMAGE_KL];
        }
}

static void put_links(struct arrays *a, const struct fkv_link_heads *h) {
    enum { EACH = FKV_DAMAGES * FKV_DEPTHS * FKV_PREDICTORS }; /* of a group */
    const int32_t links = h->groups * EACH;
    int32_t(*place)[5] = new_integers(a, "link_place", links, 5);
    struct fkv_interval *spearman = new_numbers(a, "link_spearman", links, 3),
                        *pearson = new_numbers(a, "link_pearson", links, 3),
                        *partial = new_numbers(a, "link_partial", links, 3);
    for (int32_t i = 0; !a->memory.failed && i < links; i++) {
        const int32_t g = i / EACH, measure = i / (FKV_DEPTHS * FKV_PREDICTORS) % FKV_DAMAGES,
                      depth = i / FKV_PREDICTORS % FKV_DEPTHS, predictor = i % FKV_PREDICTORS;
        const struct fkv_correlation *c = &h->group[g].correlation[measure][depth][predictor];
        const int32_t own[] = {g, measure, depth, predictor, c->place};
        memcpy(place[i], own, sizeof own);
        spearman[i] = c->spearman, pearson[i] = c->pearson, partial[i] = c->partial;
    }
}

int fkv_link_results(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    struct arrays a = {0};
    add(&a, "segment_length", FKV_H5_I32, 2, 1, l->segment_length);
    if (l->has_sweep) put_sweep(&a, &l->sweep);
    if (l->has_heads && l->heads.count) put_heads(&a, l);
    if (l->has_heads && l->heads.groups) put_links(&a, &l->heads);
    const struct fkv_findings findings = {
        .provenance = l->provenance, .cut = &l->cut, .datasets = a.count, .dataset = a.dataset};
    int status = a.memory.failed ? fkv_fail(err, "out of memory for the results of link")
                                 : fkv_results_write(folder, &findings, err);
    fkv_memory_free(&a.memory);
    return status;
}
