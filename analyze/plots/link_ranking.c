/* The rank correlation of each predictor with damage, a panel per group of changes and damage;
 * thirds of the layers as series. */
#include <stdio.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

int fkv_plot_link_ranking(const struct fkv_link *l, struct fkv_plot_target *to,
                          struct fkv_error *err) {
    enum { MOST = 3 };
    static const char *const depth_words[FKV_DEPTHS] = {"all layers", "early third", "middle third",
                                                        "late third"};
    struct fkv_charts c = {0};
    if (!l->has_heads || !l->heads.groups) return FKV_OK;
    for (int32_t i = 0; i < l->heads.groups && i < MOST; i++)
        for (int m = FKV_DAMAGES - 1; m >= 0; m--) {
            const struct fkv_link_group *g = &l->heads.group[i];
            char title[160];
            snprintf(title, sizeof title, "%s: %s", g->label, fkv_plot_damage_words[m]);
            struct fkv_chart *chart =
                fkv_charts_panel(&c, title, "Spearman's \u03c1 over heads", NULL);
            chart->across = true, chart->level = 0;
            for (int p = 0; p < FKV_PREDICTORS; p++) {
                int position = fkv_chart_name(chart, fkv_predictor_words[p]);
                for (int depth = 0; depth < FKV_DEPTHS; depth++) {
                    struct fkv_interval rho = g->correlation[m][depth][p].spearman;
                    if (depth && l->damage[g->probe].probe->layers < 3) continue;
                    struct fkv_color color = depth ? fkv_color_map(0.1 + 0.38 * (depth - 1))
                                                   : (struct fkv_color){0.1, 0.1, 0.1, 1};
                    fkv_chart_add(chart, depth_words[depth], color, FKV_LOOK_POINTS, position, rho);
                }
            }
        }
    const struct fkv_charts_page page = {
        .name = "link_ranking",
        .title = "Which predictor ranks heads as damage does",
        .note = "Whiskers: 95%, bootstrap over heads (few of them in a third of the layers). A "
                "predictor without a point does not exist for that change or capture.",
        .columns = 2};
    return fkv_charts_finish(&c, FKV_OK, &page, to, err);
}
