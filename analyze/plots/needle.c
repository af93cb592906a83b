/* A score of freqkv-replay needle over lengths (across) and depths (down), means over repeats, one
 * panel per policy: a table may hold the rows of several. Prompts that are not there yet leave a
 * grey cell. Refused: a length that is no whole number, a depth outside of 0 to 1, more than 8
 * policies or 64 lengths or depths. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/replay_tables.h"

enum { PANELS = 8, MOST = 64, LABEL = 96 };

const char fkv_needle_columns[] = "task,policy,length,depth,repeat";

/* A score, and how it is shown. */
struct score {
    const char *column, *name; /* of the table; end of the figure's name */
    const char *title, *label, *note;
    bool share; /* from 0 to 1, whatever the data */
};

struct grid {
    char panel[PANELS][LABEL]; /* their titles */
    double length[MOST], depth[MOST];
    int panels, lengths, depths;
};

/* The index of a number, put where it belongs if it is new; -1: there are too many. */
static int add_number(double *numbers, int *count, double number) {
    int i = 0;
    while (i < *count && numbers[i] < number) i++;
    if (i < *count && numbers[i] == number) return i;
    if (*count == MOST) return -1;
    memmove(numbers + i + 1, numbers + i, (size_t)((*count)++ - i) * sizeof *numbers);
    numbers[i] = number;
    return i;
}

static void name_policy(const struct fkv_table *t, int64_t row, char label[LABEL]) {
    const char *window = fkv_table_text_of(t, row, "window"),
               *gamma = fkv_table_text_of(t, row, "gamma");
    snprintf(label, LABEL, "%.32s%s%.16s%s%.16s", fkv_table_text_of(t, row, "policy"),
             *window ? ", window " : "", window, *gamma ? ", \u03b3 = " : "", gamma);
}

/* The index of a panel; -1: there are too many. */
static int add_panel(struct grid *g, const char *label) {
    int i = 0;
    while (i < g->panels && strcmp(g->panel[i], label)) i++;
    if (i == PANELS) return -1;
    if (i == g->panels) snprintf(g->panel[g->panels++], LABEL, "%s", label);
    return i;
}

static int add_axes(const struct fkv_table *t, const char *path, struct grid *g,
                    struct fkv_error *err) {
    for (int64_t r = 0; r < t->rows; r++) {
        const double length = fkv_table_number_of(t, r, "length"),
                     depth = fkv_table_number_of(t, r, "depth");
        char label[LABEL];
        if (!(length >= 1 && length <= INT_MAX && length == floor(length)))
            return fkv_fail(err, "%s: row %lld: length: expected a whole number, found \"%.40s\"",
                            path, (long long)r + 1, fkv_table_text_of(t, r, "length"));
        if (!(depth >= 0 && depth <= 1))
            return fkv_fail(err, "%s: row %lld: depth: expected 0 to 1, found \"%.40s\"", path,
                            (long long)r + 1, fkv_table_text_of(t, r, "depth"));
        name_policy(t, r, label);
        if (add_panel(g, label) < 0 || add_number(g->length, &g->lengths, length) < 0 ||
            add_number(g->depth, &g->depths, depth) < 0)
            return fkv_fail(err,
                            "%s: expected at most %d policies, %d lengths and %d depths, found "
                            "more",
                            path, PANELS, MOST, MOST);
    }
    return FKV_OK;
}

/* mean, count [panels, depths, lengths], zeroed: the column becomes means, NaN where there are no
 * numbers. */
static void add_scores(const struct fkv_table *t, const char *column, struct grid *g, double *mean,
                       double *count) {
    for (int64_t r = 0; r < t->rows; r++) {
        const double value = fkv_table_number_of(t, r, column);
        char label[LABEL];
        name_policy(t, r, label);
        const int p = add_panel(g, label),
                  l = add_number(g->length, &g->lengths, fkv_table_number_of(t, r, "length")),
                  d = add_number(g->depth, &g->depths, fkv_table_number_of(t, r, "depth"));
        if (!isfinite(value)) continue;
        mean[(p * g->depths + d) * g->lengths + l] += value;
        count[(p * g->depths + d) * g->lengths + l]++;
    }
    for (int i = 0; i < g->panels * g->lengths * g->depths; i++)
        mean[i] = count[i] ? mean[i] / count[i] : NAN;
}

static void draw_grid(struct fkv_figure *f, const struct grid *g, const struct score *score,
                      const double *mean) {
    const int cells = g->lengths * g->depths;
    double low = score->share ? 0 : INFINITY, high = score->share ? 1 : -INFINITY;
    int length_names[MOST], depth_names[MOST];
    for (int i = 0; i < g->panels * cells && !score->share; i++)
        if (isfinite(mean[i])) low = fmin(low, mean[i]), high = fmax(high, mean[i]);
    if (low > high) low = 0, high = 1;
    if (high - low < 1e-6) low -= 0.005, high += 0.005; /* all alike: a bar needs two ends */
    for (int i = 0; i < g->lengths; i++) length_names[i] = (int)g->length[i];
    for (int i = 0; i < g->depths; i++) depth_names[i] = (int)lround(100 * g->depth[i]);
    const struct fkv_axis x = {.label = "length (tokens)"}, y = {.label = "depth (%)"};
    const struct fkv_color_bar bar = {.label = score->label, .low = low, .high = high, .top = 1};
    if (g->panels > 1) fkv_figure_share_axes(f);
    fkv_figure_color_bar(f, &bar);
    for (int p = 0; p < g->panels; p++) {
        fkv_figure_axes(f, p, g->panel[p], &x, &y);
        fkv_figure_heatmap(f, p, g->depths, g->lengths, mean + p * cells, depth_names,
                           length_names);
    }
}

/* Draws the score of a table that has it. */
static int plot_score(const struct fkv_table *t, const char *path, const struct score *score,
                      struct fkv_plot_target *to, struct fkv_error *err) {
    struct grid g = {0};
    struct fkv_figure *f;
    if (!fkv_table_has(t, fkv_needle_columns) || !fkv_table_has(t, score->column) || t->rows < 1)
        return FKV_OK;
    if (add_axes(t, path, &g, err)) return FKV_FAILED;
    const int columns = g.panels < 3   ? g.panels
                        : g.panels % 3 ? 2
                                       : 3,
              rows = (g.panels + columns - 1) / columns;
    const double width = fmin(7.2, fmax(3.6, 1.5 + columns * fmax(1.9, 0.4 * g.lengths + 0.4))),
                 height = fmin(9, 1.1 + rows * fmax(1.3, 0.6 + 0.2 * g.depths));
    if (fkv_figure_create(width, height, rows, columns, score->title, &f, err)) return FKV_FAILED;
    const size_t cells = (size_t)(g.panels * g.lengths * g.depths);
    double *mean = fkv_figure_numbers(f, 2 * cells);
    if (mean) {
        add_scores(t, score->column, &g, mean, mean + cells);
        draw_grid(f, &g, score, mean);
    }
    fkv_figure_note(f, "%s", score->note);
    return fkv_plot_finish(f, to, err, "%s", score->name);
}

int fkv_plot_needle_exact(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                          struct fkv_error *err) {
    static const struct score score = {.column = "exact",
                                       .name = "exact",
                                       .title = "Needle: answers that are exact",
                                       .label = "share of prompts",
                                       .note = "Greedy decoding gives the answer\u2019s tokens. "
                                               "Depth 0: at the start of the text.",
                                       .share = true};
    return plot_score(t, path, &score, to, err);
}

int fkv_plot_needle_logprob(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                            struct fkv_error *err) {
    static const struct score score = {.column = "logprob_per_token",
                                       .name = "logprob",
                                       .title = "Needle: log-probability of the answer",
                                       .label = "nats per token",
                                       .note = "Mean over the answer\u2019s tokens and over "
                                               "prompts. Depth 0: at the start of the text."};
    return plot_score(t, path, &score, to, err);
}

int fkv_plot_needle_recall(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    static const struct score score = {.column = "gain",
                                       .name = "recall",
                                       .title = "Recall: loss of a passage, first less second time",
                                       .label = "nats per token",
                                       .note = "Above 0: the passage is cheaper when it returns at "
                                               "the end. Depth 0: it stood at the start."};
    return plot_score(t, path, &score, to, err);
}
