/* A sweep of runs: the energy that they retain against their loss, a panel per state; runs are
 * coloured by their ratio. */
#include <stdio.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

int fkv_plot_link_retained(const struct fkv_link *l, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    static const char *const titles[FKV_RETAINED] = {"keys", "values", "keys, without DC",
                                                     "values, without DC"};
    const struct fkv_link_sweep *s = &l->sweep;
    int outcome = s->has_outcome[FKV_OUTCOME_DELTA] ? FKV_OUTCOME_DELTA : FKV_OUTCOME_NLL;
    struct fkv_charts c = {0};
    if (!l->has_sweep) return FKV_OK;
    for (int r = 0; r < FKV_RETAINED; r++) {
        char title[160];
        struct fkv_interval rho = s->correlation[outcome][r].spearman;
        fkv_plot_name_rho(title, titles[r], rho);
        struct fkv_chart *chart =
            fkv_charts_panel(&c, title, "retained energy (fraction)",
                             outcome == FKV_OUTCOME_DELTA ? "\u0394 nll (nats per token)"
                                                          : "mean nll (nats per token)");
        if (outcome == FKV_OUTCOME_DELTA) chart->level = 0;
        for (int32_t p = 0; p < s->points; p++) {
            char label[160];
            double t = s->points > 1 ? (double)p / (s->points - 1) : 0.3;
            snprintf(label, sizeof label, "\u03b3 = %.2g", s->gamma[p]);
            fkv_chart_add(chart, label, fkv_color_map(FKV_MAP_TOP * t), FKV_LOOK_POINTS,
                          s->retained[r * s->points + p], s->outcome[outcome][p]);
        }
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    snprintf(note, sizeof note,
             "Segments of %d tokens; energy: mean over heads at each head's own L. Whiskers: 95%%, "
             "bootstrap %s. \u03c1: Spearman over the runs, 95%% by bootstrap over them.",
             s->n,
             fkv_se_unit_words(s->se_unit, s->documents, "blocks of 256 scored tokens", words));
    const struct fkv_charts_page page = {.name = "link_retained",
                                         .title = "Retained energy against loss, along a sweep",
                                         .note = note,
                                         .height = 6,
                                         .columns = 2};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}
