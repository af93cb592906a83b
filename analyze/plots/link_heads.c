/* Changes of single heads: what predictors say of each head against its damage, a figure per group
 * of changes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

/* scratch [2, n], order [n]. The line of ranks: from the predictor's order statistic to the
 * damage's, where rank rho of one is expected at the other. */
static void add_rank_line(struct fkv_chart *chart, int32_t n, const double *x, const double *y,
                          double rho, double *scratch, int32_t *order) {
    double *sorted_y = scratch, *rank = scratch + n;
    fkv_ranks(n, y, rank, order);
    for (int32_t i = 0; i < n; i++) sorted_y[i] = y[order[i]];
    fkv_ranks(n, x, rank, order);
    for (int32_t i = 0; i < n; i++) {
        double at = (n - 1) / 2.0 + rho * (i - (n - 1) / 2.0);
        int below = (int)fmax(0, floor(at)), above = below + 1 < n ? below + 1 : below;
        double value = sorted_y[below] + (at - below) * (sorted_y[above] - sorted_y[below]);
        fkv_chart_add(chart, "fitted ranks", (struct fkv_color){0.35, 0.35, 0.35, 1}, FKV_LOOK_LINE,
                      x[order[i]], (struct fkv_interval){value, NAN, NAN});
    }
}

static int add_group(struct fkv_charts *c, const struct fkv_link *l, const struct fkv_link_group *g,
                     int measure, int predictor, struct fkv_error *err) {
    const struct fkv_damage *d = &l->damage[g->probe];
    const struct fkv_correlation *found = &g->correlation[measure][FKV_DEPTH_ALL][predictor];
    char title[160];
    double *scratch = malloc(4 * (size_t)g->count * sizeof *scratch);
    int32_t *order = malloc((size_t)g->count * sizeof *order);
    if (!scratch || !order) {
        free(scratch), free(order);
        return fkv_fail(err, "out of memory for %d heads", g->count);
    }
    fkv_plot_name_rho(title, fkv_plot_damage_words[measure], found->spearman);
    struct fkv_chart *chart =
        fkv_charts_panel(c, title, fkv_predictor_words[predictor], fkv_plot_milli_nats);
    if (measure == FKV_DAMAGE_NLL) chart->level = 0;
    chart->logarithmic_y = measure == FKV_DAMAGE_KL;
    double *x = scratch + 2 * g->count, *y = x + g->count;
    for (int32_t i = 0; i < g->count; i++) {
        const struct fkv_link_head *h = &l->heads.head[g->first + i];
        struct fkv_interval damage = fkv_plot_milli(d->row[h->change].mean[measure], 1);
        int third = fkv_depth_of(h->layer, d->probe->layers) - FKV_DEPTH_EARLY;
        char label[40];
        snprintf(label, sizeof label, "%s third of the layers",
                 fkv_depth_names[FKV_DEPTH_EARLY + third]);
        x[i] = h->predictor[predictor], y[i] = damage.estimate;
        fkv_chart_add(chart, label, fkv_color_map(0.1 + 0.38 * third), FKV_LOOK_POINTS, x[i],
                      damage);
    }
    if (isfinite(found->spearman.estimate))
        add_rank_line(chart, g->count, x, y, found->spearman.estimate, scratch, order);
    free(scratch), free(order);
    return FKV_OK;
}

/* One figure per group: every predictor that exists against KL (first row) and delta nll. */
static int plot_group(const struct fkv_link *l, int32_t i, struct fkv_plot_target *to,
                      struct fkv_error *err) {
    const struct fkv_link_group *g = &l->heads.group[i];
    const struct fkv_units *units = &l->damage[g->probe].units;
    struct fkv_charts c = {0};
    char name[64], title[160], note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    int status = FKV_OK, columns = 0;
    for (int measure = FKV_DAMAGES - 1; !status && measure >= 0; measure--)
        for (int p = 0; !status && p < FKV_PREDICTORS; p++) {
            if (p == FKV_PREDICTOR_ENERGY || !isfinite(l->heads.head[g->first].predictor[p]))
                continue;
            columns += measure == FKV_DAMAGE_KL;
            status = add_group(&c, l, g, measure, p, err);
        }
    snprintf(name, sizeof name, "link_heads_%d", i + 1);
    snprintf(title, sizeof title, "Energy against damage, head by head: %s", g->label);
    snprintf(note, sizeof note,
             "A point is a KV head, changed alone. Whiskers: 95%%, bootstrap %s. \u03c1: Spearman "
             "over heads, 95%% by bootstrap over them. Line: the fit of ranks, at the values "
             "that have them.%s",
             fkv_se_unit_words(units->kind, units->documents, "blocks of 256 scored tokens", words),
             g->states == 1   ? " Visible: to queries before RoPE."
             : g->states == 2 ? " Visible: after the output projection."
                              : "");
    const struct fkv_charts_page page = {.name = name,
                                         .title = title,
                                         .note = note,
                                         .width = 2.4 * columns + 0.6,
                                         .height = 5.4,
                                         .columns = columns};
    return fkv_charts_finish(&c, status, &page, to, err);
}

int fkv_plot_link_heads(const struct fkv_link *l, struct fkv_plot_target *to,
                        struct fkv_error *err) {
    for (int32_t i = 0; l->has_heads && i < l->heads.groups; i++)
        if (plot_group(l, i, to, err)) return FKV_FAILED;
    return FKV_OK;
}
