/* Ratios as a map over layers and heads, and how they spread. The colours of the map run from 0 to
 * 1, so that two tables can be laid side by side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/figures.h"

enum { BINS = 16 };

static void describe(const struct fkv_ratio_table *t, char note[FKV_PLOT_NOTE]) {
    const struct fkv_ratio_choice *c = &t->choice;
    int used = 0;
    if (c->by_budget)
        used = snprintf(note, FKV_PLOT_NOTE,
                        "Mean ratio at most %.4g, least sum of losses (objective: %s).", c->target,
                        fkv_objective_names[c->objective]);
    else
        used = snprintf(note, FKV_PLOT_NOTE,
                        "Every head keeps %.4g of the energy of its keys and of its values.",
                        c->target);
    bool energy = !c->by_budget || c->objective != FKV_OBJECTIVE_ATTENTION;
    snprintf(note + used, FKV_PLOT_NOTE - (size_t)used,
             " n\u00a0=\u00a0%d tokens%s. Chosen: mean %.4g, standard deviation %.3g.", t->n,
             !energy ? ""
             : c->dc ? ", with the mean over tokens"
                     : ", without the mean over tokens",
             t->mean, t->deviation);
}

/* Heads at the largest ratio that the choice allows; *largest: that ratio. */
static int32_t at_ceiling(const struct fkv_ratio_table *t, double *largest) {
    int32_t low, high, count = 0;
    if (fkv_ratio_limits(&t->choice, t->n, &low, &high, NULL)) return 0;
    *largest = (double)high / FKV_RATIO_STEPS;
    for (int32_t i = 0; i < t->layers * t->heads; i++) count += t->parts[i] == high;
    return count;
}

/* How many heads stand at the ceiling, and why. */
static void describe_ceiling(const struct fkv_ratio_table *t, char note[FKV_PLOT_NOTE]) {
    double largest;
    const int32_t count = at_ceiling(t, &largest);
    const size_t used = strlen(note);
    if (!count) return;
    snprintf(note + used, FKV_PLOT_NOTE - used,
             " Dots: %d of %d heads at the largest ratio allowed, %.3g, ", count,
             t->layers * t->heads, largest);
    if (t->choice.by_budget)
        strncat(note, "which would take more if they could.", FKV_PLOT_NOTE - strlen(note) - 1);
    else
        snprintf(note + strlen(note), FKV_PLOT_NOTE - strlen(note),
                 "%d of which keep less than was asked for.", t->unreached);
}

/* Marks their cells. */
static int dot_ceiling(struct fkv_figure *f, const struct fkv_ratio_table *t,
                       struct fkv_error *err) {
    double largest;
    const int32_t cells = t->layers * t->heads;
    const struct fkv_line dot = {
        .color = {0, 0, 0, 1}, .markers = true, .ringed = true, .scattered = true};
    double *x = malloc(2 * (size_t)cells * sizeof *x), *y = x + cells;
    int n = 0;
    if (!x) return fkv_fail(err, "figure: out of memory");
    for (int32_t i = 0; at_ceiling(t, &largest) && i < cells; i++) {
        if (t->gamma[i] != largest) continue;
        x[n] = i % t->heads + 0.36, y[n++] = i / t->heads;
    }
    int rc = n ? fkv_figure_line(f, 0, &dot, n, x, y, err) : FKV_OK;
    free(x);
    return rc;
}

static int draw_map(struct fkv_figure *f, const struct fkv_ratio_table *t, struct fkv_error *err) {
    const struct fkv_axis x = {"KV head", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_axis y = {"layer", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_color_bar bar = {
        .label = "retaining ratio \u03b3", .low = 0, .high = 1, .top = 1};
    if (fkv_figure_axes(f, 0, NULL, &x, &y, NULL, 1, err) ||
        fkv_figure_heatmap(f, 0, t->layers, t->heads, t->gamma, t->layer_index, t->head_index, 0, 1,
                           err) ||
        dot_ceiling(f, t, err))
        return FKV_FAILED;
    return fkv_figure_color_bar(f, &bar, err);
}

/* Bars as one outline that steps: bin b holds b/16 < gamma <= (b+1)/16. */
static int draw_histogram(struct fkv_figure *f, const struct fkv_ratio_table *t,
                          struct fkv_error *err) {
    double x[2 * BINS], low[2 * BINS] = {0}, high[2 * BINS] = {0}, most = 1;
    for (int32_t i = 0; i < t->layers * t->heads; i++) {
        int32_t bin = (t->parts[i] - 1) * BINS / FKV_RATIO_STEPS;
        high[2 * bin]++;
        most = fmax(most, high[2 * bin]);
    }
    for (int b = 0; b < BINS; b++) {
        x[2 * b] = (double)b / BINS, x[2 * b + 1] = (b + 1.0) / BINS;
        high[2 * b + 1] = high[2 * b];
    }
    const struct fkv_axis across = {"retaining ratio \u03b3", 0, 1, .logarithmic = false};
    const struct fkv_axis up = {"KV heads", 0, 1.15 * most, .integers = true};
    const double mean[2] = {t->mean, t->mean}, height[2] = {0, 1.15 * most};
    const struct fkv_line line = {
        .label = "mean", .color = fkv_color_cycle(1), .width = 1.2, .dashed = true};
    if (fkv_figure_axes(f, 0, NULL, &across, &up, NULL, 1, err) ||
        fkv_figure_band(f, 0, NULL, fkv_color_cycle(0), 2 * BINS, x, low, high, err))
        return FKV_FAILED;
    return fkv_figure_line(f, 0, &line, 2, mean, height, err);
}

int fkv_plot_gamma_heatmap(const struct fkv_ratio_table *t, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    const double width = fmin(7.2, fmax(4.3, 1.5 + 0.33 * t->heads)),
                 height = fmin(9, fmax(2.8, 1.3 + 0.17 * t->layers));
    char note[FKV_PLOT_NOTE];
    struct fkv_figure *f;
    describe(t, note);
    describe_ceiling(t, note);
    if (fkv_figure_create(width, height, 1, 1, "Retaining ratio of every layer and KV head", &f,
                          err))
        return FKV_FAILED;
    return fkv_plot_finish(f, draw_map(f, t, err), note, "gamma_heatmap", to, err);
}

int fkv_plot_gamma_histogram(const struct fkv_ratio_table *t, struct fkv_plot_target *to,
                             struct fkv_error *err) {
    char note[FKV_PLOT_NOTE];
    struct fkv_figure *f;
    describe(t, note);
    if (fkv_figure_create(4.6, 3.2, 1, 1, "How the retaining ratios spread over heads", &f, err))
        return FKV_FAILED;
    return fkv_plot_finish(f, draw_histogram(f, t, err), note, "gamma_histogram", to, err);
}
