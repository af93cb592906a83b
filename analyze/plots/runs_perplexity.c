/* Runs along a sweep: perplexity, delta nll and KL over the retaining ratio. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/runs.h"
#include "analyze/plots/words.h"

struct fkv_interval fkv_plot_around(double mean, double se) {
    return (struct fkv_interval){mean, mean - 1.96 * se, mean + 1.96 * se};
}

int fkv_plot_run_color(const struct fkv_run *runs, int32_t count, int32_t i) {
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

static struct fkv_interval quantity(const struct fkv_run *run, int which) {
    if (which == 1) return fkv_plot_around(run->delta_nll, run->delta_nll_se);
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

static const char *const sweep_titles[] = {"perplexity", "\u0394 nll to full attention",
                                           "KL to full attention"};

/* Fills a panel; a run without a ratio is one value along the whole axis. Returns the panel,
 * NULL where it is empty. */
static struct fkv_chart *fill_sweep(struct fkv_charts *c, int which, const struct fkv_run *runs,
                                    int32_t count, struct fkv_plot_target *to) {
    static const char *const units[] = {"perplexity", "nats per token", "nats per token"};
    char label[FKV_RUN_LABEL], figure[FKV_RUN_LABEL];
    struct fkv_chart *chart = NULL;
    bool any_ratio = false;
    snprintf(figure, sizeof figure, "%s_perplexity: %s", to->stem, sweep_titles[which]);
    for (int32_t i = 0; i < count; i++)
        any_ratio = any_ratio || (isfinite(fkv_run_gamma(&runs[i])) &&
                                  isfinite(quantity(&runs[i], which).estimate));
    for (int32_t i = 0; i < count; i++) {
        struct fkv_interval y = quantity(&runs[i], which);
        if (!isfinite(y.estimate)) {
            fkv_plot_leave_out(to, runs[i].path, figure, "the run has no baseline");
            continue;
        }
        if (!any_ratio) {
            fkv_plot_leave_out(to, runs[i].path, figure,
                               "no run has a retaining ratio, which is the axis");
            continue;
        }
        if (!chart)
            chart =
                fkv_charts_panel(c, sweep_titles[which], "retaining ratio \u03b3", units[which]);
        fkv_run_label(runs, count, i, label);
        struct fkv_chart_series *series =
            fkv_chart_add(chart, label, fkv_color_cycle(fkv_plot_run_color(runs, count, i)),
                          FKV_LOOK_JOINED, fkv_run_gamma(&runs[i]), y);
        if (series) series->policy = runs[i].policy;
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
    for (int which = 0; which < 3; which++) {
        struct fkv_chart *chart = fill_sweep(&c, which, runs, count, to);
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
