/* Ratios as a map over layers and heads, and how they spread. The colours of the map run from 0 to
 * 1, so that two tables can be laid side by side. */
#include "analyze/plots/figures.h"

enum { BINS = 16 };

static void note_choice(struct fkv_figure *f, const struct fkv_ratio_table *t) {
    const struct fkv_ratio_choice *c = &t->choice;
    if (c->by_budget)
        fkv_figure_note(f, "Mean ratio at most %.4g, least sum of losses (objective: %s).",
                        c->target, fkv_objective_names[c->objective]);
    else
        fkv_figure_note(f, "Every head keeps %.4g of the energy of its keys and of its values.",
                        c->target);
    bool energy = !c->by_budget || c->objective != FKV_OBJECTIVE_ATTENTION;
    fkv_figure_note(f, " n\u00a0=\u00a0%d tokens%s. Chosen: mean %.4g, standard deviation %.3g.",
                    t->n,
                    !energy ? ""
                    : c->dc ? ", with the mean over tokens"
                            : ", without the mean over tokens",
                    t->mean, t->deviation);
}

/* Marks the cells of heads at the largest ratio that the choice allows, and says how many there
 * are, and why. */
static void add_ceiling(struct fkv_figure *f, const struct fkv_ratio_table *t) {
    const struct fkv_line dot = {
        .color = {0, 0, 0, 1}, .markers = true, .ringed = true, .scattered = true};
    const int32_t cells = t->layers * t->heads;
    int32_t low, high, count = 0;
    if (fkv_ratio_limits(&t->choice, t->n, &low, &high, NULL)) return;
    for (int32_t i = 0; i < cells; i++) {
        const double x = i % t->heads + 0.36, y = i / t->heads;
        if (t->parts[i] != high) continue;
        fkv_figure_line(f, 0, &dot, 1, &x, &y);
        count++;
    }
    if (!count) return;
    fkv_figure_note(f, " Dots: %d of %d heads at the largest ratio allowed, %.3g, ", count, cells,
                    (double)high / FKV_RATIO_STEPS);
    if (t->choice.by_budget)
        fkv_figure_note(f, "which would take more if they could.");
    else
        fkv_figure_note(f, "%d of which keep less than was asked for.", t->unreached);
}

/* Bars as one outline that steps: bin b holds b/16 < gamma <= (b+1)/16. */
static void add_histogram(struct fkv_figure *f, const struct fkv_ratio_table *t) {
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
    const struct fkv_axis across = {.label = "retaining ratio \u03b3", .high = 1};
    const struct fkv_axis up = {"KV heads", 0, 1.15 * most, .integers = true};
    const double mean[2] = {t->mean, t->mean}, height[2] = {0, 1.15 * most};
    const struct fkv_line line = {
        .label = "mean", .color = fkv_color_cycle(1), .width = 1.2, .dashed = true};
    fkv_figure_axes(f, 0, NULL, &across, &up);
    fkv_figure_band(f, 0, NULL, fkv_color_cycle(0), 2 * BINS, x, low, high);
    fkv_figure_line(f, 0, &line, 2, mean, height);
}

int fkv_plot_gamma_heatmap(const struct fkv_ratio_table *t, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    const double width = fmin(7.2, fmax(4.3, 1.5 + 0.33 * t->heads)),
                 height = fmin(9, fmax(2.8, 1.3 + 0.17 * t->layers));
    const struct fkv_axis x = {.label = "KV head"}, y = {.label = "layer"};
    const struct fkv_color_bar bar = {.label = "retaining ratio \u03b3", .high = 1, .top = 1};
    struct fkv_figure *f;
    if (fkv_figure_create(width, height, 1, 1, "Retaining ratio of every layer and KV head", &f,
                          err))
        return FKV_FAILED;
    note_choice(f, t);
    fkv_figure_axes(f, 0, NULL, &x, &y);
    fkv_figure_color_bar(f, &bar);
    fkv_figure_heatmap(f, 0, t->layers, t->heads, t->gamma, t->layer_index, t->head_index);
    add_ceiling(f, t);
    return fkv_plot_finish(f, to, err, "gamma_heatmap");
}

int fkv_plot_gamma_histogram(const struct fkv_ratio_table *t, struct fkv_plot_target *to,
                             struct fkv_error *err) {
    struct fkv_figure *f;
    if (fkv_figure_create(4.6, 3.2, 1, 1, "How the retaining ratios spread over heads", &f, err))
        return FKV_FAILED;
    note_choice(f, t);
    add_histogram(f, t);
    return fkv_plot_finish(f, to, err, "gamma_histogram");
}
