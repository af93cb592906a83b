/* A score of freqkv-replay needle over lengths (across) and depths (down), means over repeats, one
 * panel per policy: a table may hold the rows of several. Prompts that are not there yet leave a
 * grey cell. Refused: a length that is no whole number, a depth outside of 0 to 1, more than 8
 * policies or 64 lengths or depths. */
#include "analyze/plots/needle.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/figures.h"

enum { PANELS = 8, MOST = 64, LABEL = 96 };

bool fkv_needle_table(const struct fkv_table *t) {
    return fkv_table_column(t, "task") >= 0 && fkv_table_column(t, "policy") >= 0 &&
           fkv_table_column(t, "length") >= 0 && fkv_table_column(t, "depth") >= 0 &&
           fkv_table_column(t, "repeat") >= 0;
}

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
    double *sum, *count; /* [panels, depths, lengths]; owned */
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

static const char *cell_of(const struct fkv_table *t, int64_t row, const char *column) {
    const int c = fkv_table_column(t, column);
    return c < 0 ? "" : fkv_table_text(t, row, c);
}

static void name_policy(const struct fkv_table *t, int64_t row, char label[LABEL]) {
    const char *window = cell_of(t, row, "window"), *gamma = cell_of(t, row, "gamma");
    snprintf(label, LABEL, "%.32s%s%.16s%s%.16s", cell_of(t, row, "policy"),
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
    const int length_column = fkv_table_column(t, "length"),
              depth_column = fkv_table_column(t, "depth");
    for (int64_t r = 0; r < t->rows; r++) {
        const double length = fkv_table_number(t, r, length_column),
                     depth = fkv_table_number(t, r, depth_column);
        char label[LABEL];
        if (!(length >= 1 && length <= INT_MAX && length == floor(length)))
            return fkv_fail(err, "%s: row %lld: length: expected a whole number, found \"%.40s\"",
                            path, (long long)r + 1, fkv_table_text(t, r, length_column));
        if (!(depth >= 0 && depth <= 1))
            return fkv_fail(err, "%s: row %lld: depth: expected 0 to 1, found \"%.40s\"", path,
                            (long long)r + 1, fkv_table_text(t, r, depth_column));
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

static int add_scores(const struct fkv_table *t, int column, struct grid *g,
                      struct fkv_error *err) {
    const size_t cells = (size_t)(g->panels * g->lengths * g->depths);
    g->sum = calloc(cells, sizeof *g->sum);
    g->count = calloc(cells, sizeof *g->count);
    if (!g->sum || !g->count) return fkv_fail(err, "figure: out of memory");
    for (int64_t r = 0; r < t->rows; r++) {
        const double value = fkv_table_number(t, r, column);
        char label[LABEL];
        name_policy(t, r, label);
        const int p = add_panel(g, label),
                  l = add_number(g->length, &g->lengths,
                                 fkv_table_number(t, r, fkv_table_column(t, "length"))),
                  d = add_number(g->depth, &g->depths,
                                 fkv_table_number(t, r, fkv_table_column(t, "depth")));
        if (!isfinite(value)) continue;
        g->sum[(p * g->depths + d) * g->lengths + l] += value;
        g->count[(p * g->depths + d) * g->lengths + l]++;
    }
    for (size_t i = 0; i < cells; i++) g->sum[i] = g->count[i] ? g->sum[i] / g->count[i] : NAN;
    return FKV_OK;
}

static int draw(const struct grid *g, const struct score *score, struct fkv_plot_target *to,
                struct fkv_error *err) {
    const int cells = g->lengths * g->depths,
              columns = g->panels < 3   ? g->panels
                        : g->panels % 3 ? 2
                                        : 3,
              rows = (g->panels + columns - 1) / columns;
    double low = score->share ? 0 : INFINITY, high = score->share ? 1 : -INFINITY;
    int length_names[MOST], depth_names[MOST];
    for (int i = 0; i < g->panels * cells && !score->share; i++)
        if (isfinite(g->sum[i])) low = fmin(low, g->sum[i]), high = fmax(high, g->sum[i]);
    if (low > high) low = 0, high = 1;
    if (high - low < 1e-6) low -= 0.005, high += 0.005; /* all alike: a bar needs two ends */
    for (int i = 0; i < g->lengths; i++) length_names[i] = (int)g->length[i];
    for (int i = 0; i < g->depths; i++) depth_names[i] = (int)lround(100 * g->depth[i]);

    const double width = fmin(7.2, fmax(3.6, 1.5 + columns * fmax(1.9, 0.4 * g->lengths + 0.4))),
                 height = fmin(9, 1.1 + rows * fmax(1.3, 0.6 + 0.2 * g->depths));
    const struct fkv_axis x = {.label = "length (tokens)", .low = FKV_FIT, .high = FKV_FIT},
                          y = {.label = "depth (%)", .low = FKV_FIT, .high = FKV_FIT};
    const struct fkv_color_bar bar = {.label = score->label, .low = low, .high = high, .top = 1};
    struct fkv_figure *f = NULL;
    char name[FKV_PLOT_NAME];
    int status = fkv_figure_create(width, height, rows, columns, score->title, &f, err);
    if (!status && g->panels > 1) fkv_figure_share_axes(f);
    for (int p = 0; p < g->panels && !status; p++) {
        status = fkv_figure_axes(f, p, g->panel[p], &x, &y, NULL, 1, err);
        if (!status)
            status = fkv_figure_heatmap(f, p, g->depths, g->lengths, g->sum + p * cells,
                                        depth_names, length_names, low, high, err);
    }
    if (!status) status = fkv_figure_color_bar(f, &bar, err);
    snprintf(name, sizeof name, "%.280s_%s", to->stem, score->name);
    return fkv_plot_finish(f, status, score->note, name, to, err);
}

/* Draws the score of a table that has it. */
static int plot_score(const char *path, const struct score *score, struct fkv_plot_target *to,
                      struct fkv_error *err) {
    struct fkv_table t;
    struct grid g = {0};
    if (fkv_table_read(path, &t, err)) return FKV_FAILED;
    const int column = fkv_table_column(&t, score->column);
    int status = FKV_OK;
    if (fkv_needle_table(&t) && column >= 0 && t.rows > 0) {
        status = add_axes(&t, path, &g, err);
        if (!status) status = add_scores(&t, column, &g, err);
        if (!status) status = draw(&g, score, to, err);
    }
    free(g.sum);
    free(g.count);
    fkv_table_free(&t);
    return status;
}

int fkv_plot_needle_exact(const char *path, struct fkv_plot_target *to, struct fkv_error *err) {
    static const struct score score = {.column = "exact",
                                       .name = "exact",
                                       .title = "Needle: answers that are exact",
                                       .label = "share of prompts",
                                       .note = "Greedy decoding gives the answer\u2019s tokens. "
                                               "Depth 0: at the start of the text.",
                                       .share = true};
    return plot_score(path, &score, to, err);
}

int fkv_plot_needle_logprob(const char *path, struct fkv_plot_target *to, struct fkv_error *err) {
    static const struct score score = {.column = "logprob_per_token",
                                       .name = "logprob",
                                       .title = "Needle: log-probability of the answer",
                                       .label = "nats per token",
                                       .note = "Mean over the answer\u2019s tokens and over "
                                               "prompts. Depth 0: at the start of the text."};
    return plot_score(path, &score, to, err);
}

int fkv_plot_needle_recall(const char *path, struct fkv_plot_target *to, struct fkv_error *err) {
    static const struct score score = {.column = "gain",
                                       .name = "recall",
                                       .title = "Recall: loss of a passage, first less second time",
                                       .label = "nats per token",
                                       .note = "Above 0: the passage is cheaper when it returns at "
                                               "the end. Depth 0: it stood at the start."};
    return plot_score(path, &score, to, err);
}
