/* Classes of tokens: what low frequencies leave of their keys and values, and the damage of changes
 * to them. */
#include <stdio.h>
#include <stdlib.h>

#include "analyze/link/token_classes.h"
#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

enum { LEAST_TOKENS = 20 }; /* a class of fewer is left out of the picture; the table has it */

static void add_residuals(struct fkv_charts *c, const struct fkv_link *l, bool no_dc) {
    struct fkv_chart *chart = fkv_charts_panel(
        c, no_dc ? "residual (without DC)" : "residual",
        no_dc ? "share of the segment's mean energy" : "share of the token's energy", NULL);
    chart->across = true;
    for (int s = 0; s < 2; s++) {
        const struct fkv_residuals *r = &l->residuals[s];
        for (int k = 0; k < FKV_CLASSES; k++) {
            if (r->tokens[k] < LEAST_TOKENS) continue;
            int position = fkv_chart_name(chart, fkv_class_names[k]);
            fkv_chart_add(chart, fkv_plot_states_words[1 + s], fkv_color_cycle(s), FKV_LOOK_POINTS,
                          position, r->residual[no_dc][k]);
        }
    }
}

/* Filters and compressions of the whole cache, at most four of them. scratch [2, units] */
static void add_damages(struct fkv_charts *c, const struct fkv_link *l, const struct fkv_damage *d,
                        double *scratch) {
    enum { MOST = 4 };
    const struct fkv_probe *p = d->probe;
    struct fkv_chart *chart = NULL;
    int shown = 0;
    for (int64_t w = 0; w < p->window_count; w++)
        if (!p->windows[w].token_class) return;
    for (int32_t i = 0; i < p->change_count && shown < MOST; i++) {
        const struct fkv_probe_change *change = &p->changes[i];
        bool filter = change->kind == FKV_PROBE_FILTER && !change->complement,
             freqkv = change->kind == FKV_PROBE_FREQKV;
        if (change->layer >= 0 || !(filter || freqkv) ||
            change->option == FKV_PROBE_OPTION_DECOMPOSE)
            continue;
        if (!chart) {
            chart = fkv_charts_panel(c, fkv_plot_damage_words[FKV_DAMAGE_NLL], fkv_plot_milli_nats,
                                     NULL);
            chart->across = true, chart->level = 0;
        }
        for (int k = 0; k < FKV_CLASSES; k++) {
            int64_t tokens;
            struct fkv_interval y = fkv_damage_of_class(d, i, k, NULL, &tokens, scratch);
            if (l->residuals[0].tokens[k] < LEAST_TOKENS) continue;
            fkv_chart_add(chart, change->label, fkv_color_cycle(2 + shown), FKV_LOOK_POINTS,
                          fkv_chart_name(chart, fkv_class_names[k]), fkv_plot_milli(y, 1));
        }
        shown++;
    }
}

int fkv_plot_link_residuals(const struct fkv_link *l, struct fkv_plot_target *to,
                            struct fkv_error *err) {
    struct fkv_charts c = {0};
    if (!l->has_residuals) return FKV_OK;
    int status = FKV_OK;
    add_residuals(&c, l, false);
    add_residuals(&c, l, true);
    for (int32_t p = 0; !status && p < l->probes && c.panels == 2; p++) {
        long long units = (long long)l->damage[p].units.count;
        double *scratch = malloc(2 * (size_t)units * sizeof *scratch);
        status = scratch ? FKV_OK : fkv_fail(err, "out of memory for %lld units", units);
        if (scratch) add_damages(&c, l, &l->damage[p], scratch);
        free(scratch);
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    const struct fkv_residuals *r = &l->residuals[0];
    snprintf(note, sizeof note,
             "\u2016x \u2212 x_{L}\u2016^{2} per token, mean over layers and heads; L = %d of n = "
             "%d coefficients. Whiskers: 95%%, bootstrap %s.%s",
             r->retained, r->n, fkv_se_unit_words(r->se_unit, r->documents, "segments", words),
             r->by_ids ? " The capture holds no classes: those that ids alone decide." : "");
    const struct fkv_charts_page page = {.name = "link_residuals",
                                         .title = "Who is high-frequency",
                                         .note = note,
                                         .width = c.panels > 2 ? 9.6 : 7.2,
                                         .height = 3.6,
                                         .columns = c.panels};
    return fkv_charts_finish(&c, status, &page, to, err);
}
