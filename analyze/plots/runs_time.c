/* Runs along a sweep: perplexity, and what it took, over the retaining ratio. Times are of one run
 * each and have no interval. Drawn where a run with a ratio says its time. */
#include <math.h>
#include <stdio.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/runs.h"
#include "analyze/plots/words.h"

enum { PANELS = 3 };
static const char *const titles[PANELS] = {"perplexity", "time per token", "compressions"};
static const char *const units[PANELS] = {"perplexity", "ms", "share of the time (%)"};

static struct fkv_interval quantity(const struct fkv_run *run, int which) {
    if (which == 1) return (struct fkv_interval){run->ms_per_token, NAN, NAN};
    if (which == 2) return (struct fkv_interval){100 * run->compression_share, NAN, NAN};
    const struct fkv_interval nll = fkv_plot_around(run->mean_nll, run->mean_nll_se);
    return (struct fkv_interval){exp(nll.estimate), exp(nll.low), exp(nll.high)};
}

/* Whether a run has a time and a place on the axis. */
static bool has_time(const struct fkv_run *run) { return isfinite(run->ms_per_token); }

int fkv_plot_runs_time(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                       struct fkv_error *err) {
    struct fkv_charts c = {0};
    char note[FKV_PLOT_NOTE], label[FKV_RUN_LABEL];
    bool any = false, flat = false;
    for (int32_t i = 0; i < count; i++) {
        const bool ratio = isfinite(fkv_run_gamma(&runs[i]));
        any = any || (has_time(&runs[i]) && ratio);
        flat = flat || (has_time(&runs[i]) && !ratio);
    }
    if (!any) return FKV_OK; /* files of before there were times, or no ratio */
    for (int which = 0; which < PANELS; which++) {
        struct fkv_chart *chart =
            fkv_charts_panel(&c, titles[which], "retaining ratio \u03b3", units[which]);
        for (int32_t i = 0; i < count; i++) {
            if (!has_time(&runs[i])) continue;
            fkv_run_label(runs, count, i, label);
            struct fkv_chart_series *series =
                fkv_chart_add(chart, label, fkv_color_cycle(fkv_plot_run_color(runs, count, i)),
                              FKV_LOOK_JOINED, fkv_run_gamma(&runs[i]), quantity(&runs[i], which));
            if (series) series->policy = runs[i].policy;
        }
        chart->apart = !which;
    }
    snprintf(
        note, sizeof note,
        "Whiskers: 95%%, of the mean over all scored tokens. Time: wall time of the policy\u2019s "
        "feeds over their tokens, one run each.%s",
        flat ? " Dashed: policies without a ratio." : "");
    const struct fkv_charts_page page = {.name = "time",
                                         .title = "Perplexity and time over the retaining ratio",
                                         .note = note,
                                         .width = 7.2,
                                         .height = 3.1,
                                         .columns = PANELS};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}
