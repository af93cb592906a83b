/* Runs along a text: nll, and delta nll to the baseline, over the position in the document, or in
 * the window of joined texts. Bins of equal width; a bin of fewer than 20 tokens is left out. Drawn
 * where a run has a baseline: nll by itself follows the text and not the policy. */
#include <math.h>
#include <stdio.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/run_cells.h"
#include "analyze/plots/words.h"

enum { BINS = 16, LEAST_TOKENS = 20 };

/* Tokens of the longest text or window of all runs. */
static int64_t longest_of(const struct fkv_run *runs, int32_t count) {
    int64_t longest = 1;
    for (int32_t i = 0; i < count; i++)
        for (int32_t d = 0; d < runs[i].column_sets; d++) {
            const int64_t tokens =
                runs[i].window_tokens ? runs[i].window_tokens : runs[i].columns[d].count;
            if (tokens > longest) longest = tokens;
        }
    return longest;
}

static void fill_cells(const struct fkv_run *run, bool delta, double width,
                       struct fkv_run_cells *c) {
    for (int32_t d = 0; d < run->column_sets; d++) {
        const struct fkv_run_columns *t = &run->columns[d];
        for (int64_t i = 0, seen = 0; i < t->count; i++) {
            if (!isfinite(t->nll[i])) continue;
            const int64_t block = seen++ / FKV_BOOTSTRAP_BLOCK,
                          position = run->window_tokens ? i % run->window_tokens : i;
            const double value = delta ? (double)t->nll[i] - t->baseline_nll[i] : t->nll[i];
            if (isfinite(value))
                fkv_run_cells_add(c, d, block, (int)((double)position / width), value,
                                  (double)position);
        }
    }
}

static int add_run(struct fkv_chart *chart, const struct fkv_run *run,
                   const struct fkv_chart_series *style, bool delta, double width,
                   struct fkv_error *err) {
    struct fkv_run_cells c;
    int status = fkv_run_cells_open(&c, BINS, run, err);
    if (!status) {
        fill_cells(run, delta, width, &c);
        fkv_run_cells_draw(&c, LEAST_TOKENS, chart, style);
    }
    fkv_run_cells_close(&c);
    return status;
}

static bool has_baseline(const struct fkv_run *run) {
    for (int32_t d = 0; d < run->column_sets; d++)
        if (!run->columns[d].baseline_nll) return false;
    return true;
}

static int fill_panel(struct fkv_charts *c, const struct fkv_run *runs, int32_t count, bool delta,
                      struct fkv_plot_target *to, struct fkv_error *err) {
    const double width = (double)longest_of(runs, count) / BINS;
    char label[FKV_PLOT_RUN_NAME];
    struct fkv_chart *chart = NULL;
    int status = FKV_OK;
    for (int32_t i = 0; i < count && !status; i++) {
        if (delta && !has_baseline(&runs[i])) {
            fkv_plot_leave_out(to, runs[i].path, "position", "the run has no baseline");
            continue;
        }
        if (!chart) {
            chart = fkv_charts_panel(c, delta ? "\u0394 nll to full attention" : "nll",
                                     runs[0].joined ? "position in the window (tokens)"
                                                    : "position in the text (tokens)",
                                     "nats per token");
            if (delta) chart->level = 0;
        }
        /* Bands of many runs hide each other. */
        const struct fkv_chart_series style = {.label = label,
                                               .color = fkv_color_cycle(i),
                                               .dashed = i >= FKV_COLORS,
                                               .bare = count > 3};
        fkv_plot_run_name(runs, count, i, label);
        status = add_run(chart, &runs[i], &style, delta, width, err);
    }
    return status;
}

int fkv_plot_runs_position(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    struct fkv_charts c = {0};
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    bool any = false;
    for (int32_t i = 0; i < count; i++) any = any || has_baseline(&runs[i]);
    int status = any ? fill_panel(&c, runs, count, false, to, err) : FKV_OK;
    if (!status) status = fill_panel(&c, runs, count, true, to, err);
    if (runs[0].joined)
        snprintf(note, sizeof note,
                 "Means over scored tokens. No intervals: windows of joined texts overlap.");
    else
        snprintf(note, sizeof note, "Means over scored tokens. %s: 95%%, bootstrap %s.",
                 count > 3 ? "Intervals in the table beside the figure" : "Shading",
                 fkv_plot_run_units(&runs[0], words));
    const struct fkv_charts_page page = {.name = "position",
                                         .title = "Loss along the text",
                                         .note = note,
                                         .width = 7.2,
                                         .height = 3.4,
                                         .columns = 2};
    return fkv_charts_finish(&c, status, &page, to, err);
}
