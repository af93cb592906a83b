/* One run: the share of energy that each compression keeps, over rounds, per state and layer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/layer_color.h"

enum { MOST_ROUNDS = 64 };

/* Sums of one state over compressions: before, kept [layers * heads, rounds]. */
static void add_up_rounds(const struct fkv_run *run, int state, int rounds, double *before,
                          double *kept) {
    const struct fkv_run_actions *c = &run->actions;
    for (int64_t i = 0; i < c->count; i++) {
        if (c->state[i] != state || c->round[i] > rounds) continue;
        int64_t at = ((int64_t)c->layer[i] * run->kv_heads + c->head[i]) * rounds + c->round[i] - 1;
        before[at] += c->before[i], kept[at] += c->kept[i];
    }
}

/* The mean over a layer's heads, and as its interval the least and the largest of them. */
static struct fkv_interval over_heads(const struct fkv_run *run, int32_t layer, int round,
                                      int rounds, const double *before, const double *kept) {
    struct fkv_interval y = {0, INFINITY, -INFINITY};
    for (int32_t h = 0; h < run->kv_heads; h++) {
        int64_t at = ((int64_t)layer * run->kv_heads + h) * rounds + round;
        double share = kept[at] / before[at];
        y.estimate += share / run->kv_heads;
        y.low = fmin(y.low, share), y.high = fmax(y.high, share);
    }
    return isfinite(y.estimate) ? y : (struct fkv_interval){NAN, NAN, NAN};
}

static int add_rounds(struct fkv_charts *c, const struct fkv_run *run, int rounds,
                      struct fkv_error *err) {
    size_t n = (size_t)run->layers * (size_t)run->kv_heads * (size_t)rounds;
    double *before = malloc(2 * n * sizeof *before), *kept = before + n;
    if (!before) return fkv_fail(err, "out of memory for %d rounds", rounds);
    for (int state = 0; state < 2; state++) {
        struct fkv_chart *chart = fkv_charts_panel(
            c, state ? "values" : "keys",
            run->actions.evictions ? "eviction" : "round of compression", "share of energy kept");
        chart->integers = true;
        memset(before, 0, 2 * n * sizeof *before);
        add_up_rounds(run, state, rounds, before, kept);
        for (int32_t l = 0; l < run->layers; l++)
            for (int r = 0; r < rounds; r++) {
                char label[32];
                snprintf(label, sizeof label, "layer %d", l);
                fkv_chart_add(chart, label, fkv_plot_color(run->layers, NULL, l), FKV_LOOK_LINE,
                              r + 1, over_heads(run, l, r, rounds, before, kept));
            }
        for (int s = 0; s < chart->series; s++) {
            chart->one[s].bare = run->layers > FKV_PLOT_FEW;
            chart->one[s].unnamed = run->layers > 1;
        }
    }
    free(before);
    return FKV_OK;
}

int fkv_plot_rounds(const struct fkv_run *run, struct fkv_plot_target *to, struct fkv_error *err) {
    int rounds = 0;
    for (int64_t i = 0; i < run->actions.count; i++)
        if (run->actions.round[i] > rounds) rounds = run->actions.round[i];
    if (!rounds) return FKV_OK;
    rounds = rounds < MOST_ROUNDS ? rounds : MOST_ROUNDS;
    struct fkv_charts c = {0};
    const int status = add_rounds(&c, run, rounds, err);
    char title[400], note[FKV_PLOT_NOTE];
    const char *action = run->actions.evictions ? "eviction" : "compression";
    snprintf(title, sizeof title, "Energy that each %s keeps (%s, \u03b3 = %.3g, window %d)",
             action, run->policy_label, fkv_run_gamma(run), run->window);
    const bool shaded = run->layers <= FKV_PLOT_FEW && run->kv_heads > 1;
    snprintf(note, sizeof note,
             "Energy kept over energy before, DC included, summed over texts%s%s.%s",
             run->kv_heads > 1 ? "; lines: mean over heads" : "",
             shaded ? ", shading: least to largest head" : "",
             run->low_pass ? " Round 1 meets a fresh cache; later rounds meet one that is mostly "
                             "compressed already."
                           : "");
    const struct fkv_color_bar bar = fkv_plot_color_bar("layer", run->layers, NULL);
    const struct fkv_charts_page page = {.name = "rounds",
                                         .title = title,
                                         .note = note,
                                         .height = 3.4,
                                         .columns = 2,
                                         .bar = run->layers > 1 ? &bar : NULL};
    return fkv_charts_finish(&c, status, &page, to, err);
}
