/* Runs less the first of them: over all tokens, by position, by class and by document. */
#include <stdio.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"

enum { MOST_RUNS = 8, MOST_DOCUMENTS = 24 };

static const char *const titles[FKV_GROUPINGS] = {"all tokens", "by position in the text",
                                                  "by class of token", "by document"};

/* One grouping as a panel, a series per run. Names run down the panel; positions run across it. */
static void fill(struct fkv_charts *charts, const struct fkv_comparison *c, enum fkv_grouping by) {
    const bool positions = by == FKV_BY_POSITION;
    struct fkv_chart *chart =
        fkv_charts_panel(charts, titles[by], positions ? "token" : "nats per token",
                         positions ? "nats per token" : NULL);
    chart->across = !positions, chart->level = 0;
    for (int32_t b = 1; b < c->count && b <= MOST_RUNS; b++)
        for (int32_t g = 0; g < c->groups; g++) {
            const struct fkv_token_group *group = &c->group[g];
            /* The first pairs are those of the first run. */
            const struct fkv_difference *d = &fkv_comparison_at(c, b - 1, g)[FKV_DIFFERENCE_NLL];
            const char *name = by == FKV_ALL_TOKENS ? c->label[b] : group->name;
            if (group->by != by || !d->tokens) continue;
            double x =
                positions ? (double)(group->first + group->end) / 2 : fkv_chart_name(chart, name);
            struct fkv_chart_series *series =
                fkv_chart_add(chart, c->label[b], fkv_color_cycle(b - 1),
                              positions ? FKV_LOOK_LINE : FKV_LOOK_POINTS, x, d->mean);
            if (series) series->unnamed = true; /* the first panel has names and colours */
        }
}

int fkv_plot_comparison(const struct fkv_comparison *c, struct fkv_plot_target *to,
                        struct fkv_error *err) {
    struct fkv_charts charts = {0};
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS], title[FKV_RUN_LABEL + 32];
    int32_t groups[FKV_GROUPINGS] = {0};
    for (int32_t g = 0; g < c->groups; g++) groups[c->group[g].by]++;
    for (int by = 0; by < FKV_GROUPINGS; by++)
        if (groups[by] &&
            (by != FKV_BY_DOCUMENT || (groups[by] > 1 && groups[by] <= MOST_DOCUMENTS)))
            fill(&charts, c, (enum fkv_grouping)by);
    snprintf(title, sizeof title, "Loss less that of: %s", c->label[0]);
    snprintf(note, sizeof note, "Paired per token. Whiskers and shading: 95%%, bootstrap %s.%s",
             fkv_se_unit_words(c->group->units.kind, c->group->units.documents,
                               "blocks of 256 scored tokens", words),
             c->count > MOST_RUNS + 1 ? " The table beside the figure has all runs." : "");
    const struct fkv_charts_page page = {
        .name = "compare", .title = title, .note = note, .width = 9, .columns = 2, .no_csv = true};
    return fkv_charts_finish(&charts, FKV_OK, &page, to, err);
}
