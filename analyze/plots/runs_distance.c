/* Runs along a text: delta nll and KL over the tokens since the last compression, and over the
 * rounds of compression. A token that no compression preceded is exactly full attention; it is in
 * no panel. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/run_cells.h"
#include "analyze/plots/words.h"

enum { BINS = 24, MOST_ROUNDS = 64 };

/* Edges 1, 1.5, 2, 3, 4, 6, ...: the first tokens after a compression are told apart, the many
 * later ones are not. */
static int bin_of(double since) {
    int octave = (int)floor(log2(since));
    return 2 * octave + (since >= 1.5 * ldexp(1, octave));
}

/* kl: else delta nll; by_round: else by distance */
static void fill_cells(const struct fkv_run *run, bool kl, bool by_round, struct fkv_run_cells *c) {
    for (int32_t d = 0; d < run->column_sets; d++) {
        const struct fkv_run_columns *t = &run->columns[d];
        for (int64_t i = 0, seen = 0; i < t->count; i++) {
            int64_t block = seen / FKV_BOOTSTRAP_BLOCK;
            seen += isfinite(t->nll[i]);
            double value = kl ? t->kl[i] : (double)t->nll[i] - t->baseline_nll[i];
            if (!isfinite(t->nll[i]) || !isfinite(value) || !(t->round[i] >= 1) ||
                !(t->since[i] >= 1))
                continue;
            int bin = by_round ? (int)floor(t->round[i] + 0.5) : bin_of(t->since[i]);
            fkv_run_cells_add(c, d, block, bin, value, by_round ? bin : t->since[i]);
        }
    }
}

/* The mean of fewer tokens says nothing. A round that the text cuts short holds only tokens right
 * after a compression, which are hit hardest, and would look worse than all before it. */
static const double least_tokens = 20, round_share = 4;

static int add_run(struct fkv_chart *chart, const struct fkv_run *run,
                   const struct fkv_chart_series *style, bool kl, bool by_round,
                   struct fkv_error *err) {
    struct fkv_run_cells c;
    int status = fkv_run_cells_open(&c, by_round ? MOST_ROUNDS : 2 * BINS, run, err);
    if (!status) {
        double most = 0;
        fill_cells(run, kl, by_round, &c);
        for (int b = 0; by_round && b < c.bins; b++) most = fmax(most, fkv_run_cells_tokens(&c, b));
        fkv_run_cells_draw(&c, fmax(least_tokens, most / round_share), chart, style);
    }
    fkv_run_cells_close(&c);
    return status;
}

static bool has_differences(const struct fkv_run *run) {
    for (int32_t d = 0; d < run->column_sets; d++)
        if (!run->columns[d].baseline_nll || !run->columns[d].kl || !run->columns[d].round ||
            !run->columns[d].since)
            return false;
    return run->actions.count > 0;
}

/* Runs of the first run's policy and options take the map of ordered colours; others, its rivals,
 * one of their own each, dashed. */
static struct fkv_color color_at(const struct fkv_run *runs, int32_t count, int32_t i,
                                 bool *rival) {
    int before = 0, alike = 0, lead = 0;
    while (!has_differences(&runs[lead])) lead++;
    *rival = strcmp(runs[i].policy_label, runs[lead].policy_label);
    for (int32_t k = 0; k < count; k++) {
        if (!has_differences(&runs[k]) ||
            !strcmp(runs[k].policy_label, runs[lead].policy_label) == *rival)
            continue;
        before += k < i, alike++;
    }
    return *rival ? fkv_color_cycle(1 + before)
                  : fkv_color_map(alike > 1 ? FKV_MAP_TOP * before / (alike - 1) : 0.3);
}

/* Axis labels: so far, since the last. */
static const char *const *words_for(const struct fkv_run *runs, int32_t count) {
    static const char *const words[3][2] = {
        {"compressions so far", "tokens since the last compression"},
        {"evictions so far", "tokens since the last eviction"},
        {"compressions or evictions so far", "tokens since the last of them"}};
    bool compress = false, evict = false;
    for (int32_t i = 0; i < count; i++) {
        if (!has_differences(&runs[i])) continue;
        evict = evict || runs[i].actions.evictions;
        compress = compress || !runs[i].actions.evictions;
    }
    return words[compress && evict ? 2 : evict];
}

int fkv_plot_runs_distance(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    struct fkv_charts c = {0};
    char label[FKV_PLOT_RUN_NAME];
    int status = FKV_OK, shown = 0;
    for (int32_t i = 0; i < count; i++) {
        shown += has_differences(&runs[i]);
        if (!has_differences(&runs[i]))
            fkv_plot_leave_out(to, runs[i].path, "distance",
                               runs[i].actions.count
                                   ? "the run has no baseline"
                                   : "the run has no compressions and no evictions on a schedule");
    }
    const char *const *actions_word = words_for(runs, count);
    for (int which = 0; !status && shown && which < 4; which++) {
        bool kl = which < 2, by_round = which % 2;
        struct fkv_chart *chart =
            fkv_charts_panel(&c, kl ? "KL" : "\u0394 nll",
                             by_round ? actions_word[0] : actions_word[1], "nats per token");
        chart->logarithmic_x = !by_round, chart->logarithmic_y = kl;
        chart->level = kl ? NAN : 0;
        chart->integers = by_round;
        for (int32_t i = 0; !status && i < count; i++) {
            if (!has_differences(&runs[i])) continue;
            bool rival;
            const struct fkv_color color = color_at(runs, count, i, &rival);
            /* Bands of many runs hide each other; the CSV has them. */
            const struct fkv_chart_series style = {
                .label = label, .color = color, .dashed = rival, .bare = shown > 3};
            fkv_plot_run_name(runs, count, i, label);
            status = add_run(chart, &runs[i], &style, kl, by_round, err);
        }
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS], intervals[FKV_SE_WORDS + 80];
    if (runs[0].joined)
        snprintf(intervals, sizeof intervals, "No intervals: windows of joined texts overlap");
    else
        snprintf(intervals, sizeof intervals, "%s: 95%%, bootstrap %s",
                 shown > 3 ? "Intervals in the table beside the figure" : "Shading",
                 fkv_plot_run_units(&runs[0], words));
    snprintf(note, sizeof note,
             "Means over scored tokens after the first compression; rounds that the text cuts "
             "short are left out. %s.",
             intervals);
    const struct fkv_charts_page page = {
        .name = "distance",
        .title = "Difference to full attention, after a compression and over compressions",
        .note = note,
        .height = 5.6,
        .columns = 2};
    return fkv_charts_finish(&c, status, &page, to, err);
}
