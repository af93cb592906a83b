/* Runs along a sweep, over the retaining ratio: perplexity, delta nll and KL; and perplexity with
 * what it took. Times are of one run each and have no interval; they are drawn where a run with a
 * ratio says its time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

enum { PANELS = 3 }; /* of each figure */

/* ---- both ---- */

/* The colour's number of run i: labels are numbered as they come, and the first run with run i's
 * label decides. */
static int color_of(const struct fkv_run *runs, int32_t count, int32_t i) {
    char label[FKV_RUN_LABEL], other[FKV_RUN_LABEL], earlier[FKV_RUN_LABEL];
    int color = 0;
    fkv_run_label(runs, count, i, label);
    for (int32_t k = 0; k < count; k++) {
        bool seen = false;
        fkv_run_label(runs, count, k, other);
        if (!strcmp(label, other)) return color;
        for (int32_t m = 0; m < k; m++) {
            fkv_run_label(runs, count, m, earlier);
            seen = seen || !strcmp(earlier, other);
        }
        color += !seen;
    }
    return color;
}

/* The 95% interval of a mean with its standard error. */
static struct fkv_interval around(double mean, double se) {
    return (struct fkv_interval){mean, mean - 1.96 * se, mean + 1.96 * se};
}

static struct fkv_chart *add_panel(struct fkv_charts *c, const char *title, const char *unit) {
    return fkv_charts_panel(c, title, "retaining ratio \u03b3", unit);
}

/* A run without a ratio is one value along the whole axis. */
static void add_run(struct fkv_chart *chart, const struct fkv_run *runs, int32_t count, int32_t i,
                    struct fkv_interval y) {
    char label[FKV_RUN_LABEL];
    fkv_run_label(runs, count, i, label);
    struct fkv_chart_series *series =
        fkv_chart_add(chart, label, fkv_color_cycle(color_of(runs, count, i)), FKV_LOOK_JOINED,
                      fkv_run_gamma(&runs[i]), y);
    if (series) series->policy = runs[i].policy;
}

/* ---- perplexity ---- */

/* Mean KL over scored tokens; its interval is formed over all of them at once. */
static struct fkv_interval mean_kl(const struct fkv_run *run) {
    struct fkv_interval y = {run->mean_kl, NAN, NAN};
    struct fkv_units units;
    if (run->joined || !isfinite(run->mean_kl) || fkv_run_units(run, &units, NULL)) return y;
    double *sums = calloc(2 * (size_t)units.count + 1, sizeof *sums), *counts = sums + units.count;
    for (int32_t d = 0; sums && d < run->column_sets; d++) {
        const struct fkv_run_columns *t = &run->columns[d];
        for (int64_t i = 0, seen = 0; t->kl && i < t->count; i++) {
            int64_t block = seen / FKV_BOOTSTRAP_BLOCK;
            if (!isfinite(t->nll[i])) continue;
            seen++;
            if (!isfinite(t->kl[i])) continue;
            int64_t unit = fkv_unit_at(&units, d, block);
            sums[unit] += t->kl[i], counts[unit] += 1;
        }
    }
    if (sums) y = fkv_ratio_interval(&units, sums, counts, NULL);
    free(sums);
    fkv_units_free(&units);
    return y;
}

static struct fkv_interval loss_of(const struct fkv_run *run, int which) {
    if (which == 1) return around(run->delta_nll, run->delta_nll_se);
    if (which == 2) return mean_kl(run);
    /* How far texts differ in perplexity hides how far runs do: the paired panels have intervals.
     */
    return (struct fkv_interval){exp(run->mean_nll), NAN, NAN};
}

/* Of full attention, where it is a valid baseline of all runs and the same one. */
static double full_perplexity(const struct fkv_run *runs, int32_t count) {
    double nll = runs[0].mean_nll - runs[0].delta_nll;
    for (int32_t i = 0; i < count; i++)
        if (runs[i].baseline_invalid[0] ||
            !(fabs(runs[i].mean_nll - runs[i].delta_nll - nll) < 1e-6))
            return NAN;
    return exp(nll);
}

/* Returns the panel, NULL where it is empty. */
static struct fkv_chart *fill_losses(struct fkv_charts *c, int which, const struct fkv_run *runs,
                                     int32_t count, struct fkv_plot_target *to) {
    static const char *const titles[PANELS] = {"perplexity", "\u0394 nll to full attention",
                                               "KL to full attention"};
    static const char *const units[PANELS] = {"perplexity", "nats per token", "nats per token"};
    char figure[FKV_PLOT_NAME];
    struct fkv_chart *chart = NULL;
    bool any_ratio = false;
    snprintf(figure, sizeof figure, "perplexity: %s", titles[which]);
    for (int32_t i = 0; i < count; i++)
        any_ratio = any_ratio || (isfinite(fkv_run_gamma(&runs[i])) &&
                                  isfinite(loss_of(&runs[i], which).estimate));
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_interval y = loss_of(&runs[i], which);
        const bool finite = isfinite(y.estimate);
        if (!finite || !any_ratio) {
            fkv_plot_leave_out(to, runs[i].path, figure,
                               finite ? "no run has a retaining ratio, which is the axis"
                                      : "the run has no baseline");
            continue;
        }
        if (!chart) chart = add_panel(c, titles[which], units[which]);
        add_run(chart, runs, count, i, y);
    }
    return chart;
}

int fkv_plot_runs_perplexity(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                             struct fkv_error *err) {
    struct fkv_charts c = {0};
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    double full = full_perplexity(runs, count);
    bool flat = false;
    for (int32_t i = 0; i < count; i++) flat = flat || !isfinite(fkv_run_gamma(&runs[i]));
    if (runs[0].joined)
        snprintf(words, sizeof words,
                 "by the run's own standard errors (windows of joined texts; KL: none)");
    else
        fkv_plot_run_units(&runs[0], words);
    snprintf(note, sizeof note,
             "Whiskers and shading: 95%%, of the paired mean over all scored tokens, %s.%s%s",
             words, isfinite(full) ? " Grey: full attention." : "",
             flat ? " Dashed: policies without a ratio." : "");
    for (int which = 0; which < PANELS; which++) {
        struct fkv_chart *chart = fill_losses(&c, which, runs, count, to);
        if (!chart) continue;
        chart->level = which ? 0 : full;
        chart->apart = true;
    }
    for (int32_t i = 0; i < count; i++)
        if (runs[i].baseline_invalid[0]) {
            snprintf(note + strlen(note), sizeof note - strlen(note),
                     " The baseline is no reference: %.300s.", runs[i].baseline_invalid);
            break;
        }
    const struct fkv_charts_page page = {
        .name = "perplexity",
        .title = "Perplexity, and the distance to full attention, over the retaining ratio",
        .note = note,
        .width = c.panels < 2 ? 4.6 : 7.2,
        .height = 3.1,
        .columns = 3};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}

/* ---- time ---- */

static struct fkv_interval cost_of(const struct fkv_run *run, int which) {
    if (which == 1) return (struct fkv_interval){run->ms_per_token, NAN, NAN};
    if (which == 2) return (struct fkv_interval){100 * run->compression_share, NAN, NAN};
    const struct fkv_interval nll = around(run->mean_nll, run->mean_nll_se);
    return (struct fkv_interval){exp(nll.estimate), exp(nll.low), exp(nll.high)};
}

int fkv_plot_runs_time(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                       struct fkv_error *err) {
    static const char *const titles[PANELS] = {"perplexity", "time per token", "compressions"};
    static const char *const units[PANELS] = {"perplexity", "ms", "share of the time (%)"};
    struct fkv_charts c = {0};
    char note[FKV_PLOT_NOTE];
    bool any = false, flat = false;
    for (int32_t i = 0; i < count; i++) {
        const bool ratio = isfinite(fkv_run_gamma(&runs[i]));
        any = any || (isfinite(runs[i].ms_per_token) && ratio);
        flat = flat || (isfinite(runs[i].ms_per_token) && !ratio);
    }
    if (!any) return FKV_OK; /* files of before there were times, or no ratio */
    for (int which = 0; which < PANELS; which++) {
        struct fkv_chart *chart = add_panel(&c, titles[which], units[which]);
        chart->apart = !which;
        for (int32_t i = 0; i < count; i++)
            if (isfinite(runs[i].ms_per_token))
                add_run(chart, runs, count, i, cost_of(&runs[i], which));
    }
    snprintf(
        note, sizeof note,
        "Whiskers: 95%%, of the mean over all scored tokens. Time: wall time of the policy\u2019s "
        "feeds over their tokens, one run each.%s",
        flat ? " Dashed: policies without a ratio." : "");
    const struct fkv_charts_page page = {.name = "time",
                                         .title = "Perplexity and time over the retaining ratio",
                                         .note = note,
                                         .height = 3.1,
                                         .columns = PANELS};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}
