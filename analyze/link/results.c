/* Owns the group /link of results.h5 (results.h): the tables of `link` as arrays, at full
 * precision. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/link/link.h"
#include "analyze/tables/results.h"

enum { DATASETS = 13 };

/* Everything in two blocks of memory. */
struct arrays {
    double *numbers, *next_number;
    int32_t *integers, *next_integer;
    struct fkv_results_dataset dataset[DATASETS];
    int count;
};

static double *add_numbers(struct arrays *a, const char *name, int64_t rows, int64_t columns) {
    double *at = a->next_number;
    a->dataset[a->count++] =
        (struct fkv_results_dataset){name, FKV_H5_F64, columns > 1 ? 2 : 1, {rows, columns}, at};
    a->next_number += rows * columns;
    return at;
}

static int32_t *add_integers(struct arrays *a, const char *name, int64_t rows, int64_t columns) {
    int32_t *at = a->next_integer;
    a->dataset[a->count++] =
        (struct fkv_results_dataset){name, FKV_H5_I32, columns > 1 ? 2 : 1, {rows, columns}, at};
    a->next_integer += rows * columns;
    return at;
}

static double *put_interval(double *to, struct fkv_interval x) {
    *to++ = x.estimate, *to++ = x.low, *to++ = x.high;
    return to;
}

static void put_sweep(struct arrays *a, const struct fkv_link_sweep *s) {
    memcpy(add_numbers(a, "sweep_gamma", s->points, 1), s->gamma,
           (size_t)s->points * sizeof(double));
    double *retained = add_numbers(a, "sweep_retained", FKV_RETAINED, s->points);
    memcpy(retained, s->retained, FKV_RETAINED * (size_t)s->points * sizeof(double));
    for (int o = 0; o < FKV_OUTCOMES; o++) {
        double *to = add_numbers(a, o ? "sweep_delta_nll" : "sweep_mean_nll", s->points, 1);
        for (int32_t p = 0; p < s->points; p++) to[p] = s->outcome[o][p].estimate;
    }
}

static void put_heads(struct arrays *a, const struct fkv_link *l) {
    const struct fkv_link_heads *h = &l->heads;
    int32_t *row_key = add_integers(a, "head_place", h->count, 4);
    double *predictor = add_numbers(a, "head_predictor", h->count, FKV_PREDICTORS);
    double *delta = add_numbers(a, "head_delta_nll", h->count, 3),
           *kl = add_numbers(a, "head_kl", h->count, 3);
    for (int32_t g = 0; g < h->groups; g++)
        for (int32_t i = h->group[g].first; i < h->group[g].first + h->group[g].count; i++) {
            const struct fkv_link_head *head = &h->head[i];
            const struct fkv_damage_row *row = &l->damage[head->probe].row[head->change];
            *row_key++ = head->layer, *row_key++ = head->head, *row_key++ = h->group[g].states,
            *row_key++ = g;
            for (int p = 0; p < FKV_PREDICTORS; p++) *predictor++ = head->predictor[p];
            delta = put_interval(delta, row->mean[FKV_DAMAGE_NLL]);
            kl = put_interval(kl, row->mean[FKV_DAMAGE_KL]);
        }
}

static void put_links(struct arrays *a, const struct fkv_link_heads *h, int64_t links) {
    int32_t *row_key = add_integers(a, "link_place", links, 5);
    double *spearman = add_numbers(a, "link_spearman", links, 3),
           *pearson = add_numbers(a, "link_pearson", links, 3);
    double *partial = add_numbers(a, "link_partial", links, 3);
    for (int32_t g = 0; g < h->groups; g++)
        for (int at = 0; at < FKV_DAMAGES * FKV_DEPTHS * FKV_PREDICTORS; at++) {
            int measure = at / (FKV_DEPTHS * FKV_PREDICTORS),
                depth = at / FKV_PREDICTORS % FKV_DEPTHS;
            int predictor = at % FKV_PREDICTORS;
            const struct fkv_correlation *c = &h->group[g].correlation[measure][depth][predictor];
            *row_key++ = g, *row_key++ = measure, *row_key++ = depth, *row_key++ = predictor,
            *row_key++ = c->place;
            spearman = put_interval(spearman, c->spearman);
            pearson = put_interval(pearson, c->pearson);
            partial = put_interval(partial, c->partial);
        }
}

int fkv_link_results(const char *folder, const struct fkv_link *l, struct fkv_error *err) {
    int64_t points = l->has_sweep ? l->sweep.points : 0, heads = l->has_heads ? l->heads.count : 0;
    int64_t links =
        (l->has_heads ? l->heads.groups : 0) * FKV_DAMAGES * FKV_DEPTHS * FKV_PREDICTORS;
    struct arrays a = {.numbers = malloc((size_t)(points * (FKV_RETAINED + 3) +
                                                  heads * (FKV_PREDICTORS + 6) + links * 9 + 1) *
                                         sizeof(double)),
                       .integers = malloc((size_t)(heads * 4 + links * 5 + 2) * sizeof(int32_t))};
    a.next_number = a.numbers, a.next_integer = a.integers;
    int status =
        a.numbers && a.integers ? FKV_OK : fkv_fail(err, "out of memory for the results of link");
    if (!status) {
        memcpy(add_integers(&a, "segment_length", 2, 1), l->segment_length,
               sizeof l->segment_length);
        if (points) put_sweep(&a, &l->sweep);
        if (heads) put_heads(&a, l);
        if (links) put_links(&a, &l->heads, links);
        const struct fkv_results_link file = {l->provenance, &l->cut, a.count, a.dataset};
        status = fkv_results_write_link(folder, &file, err);
    }
    free(a.numbers);
    free(a.integers);
    return status;
}
