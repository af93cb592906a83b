/* The damage of the same change to one layer at a time, over the layers. */
#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

/* The check of --decompose: all parts are off. */
static bool no_part(const struct fkv_probe_change *c) {
    return fkv_probe_is_part(c) && !c->truncation && !c->squeezed && !c->fewer;
}

/* Shows as many changes as can be told apart; DC would hide the rest. Whether the table has more.
 */
static bool fill(struct fkv_charts *c, const struct fkv_damage *d, int measure) {
    struct fkv_chart *chart = fkv_probe_panel(c, measure, "layer");
    int shown = 0;
    bool more = false;
    chart->integers = chart->apart = true;
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (change->layer < 0 || change->kv_head >= 0) continue;
        char name[FKV_PROBE_NAME];
        fkv_probe_name_alone(change, name);
        struct fkv_chart_series *series =
            fkv_chart_add(chart, name, fkv_color_cycle(shown), FKV_LOOK_JOINED, change->layer,
                          fkv_plot_milli(d->row[i].mean[measure], 1));
        if (!series || series->count > 1) continue;
        series->hidden = shown == FKV_COLORS || fkv_probe_takes_dc(change) || no_part(change);
        shown += !series->hidden;
        more = more || series->hidden;
    }
    return more;
}

int fkv_plot_probe_layers(const struct fkv_damage *d, struct fkv_plot_target *to,
                          struct fkv_error *err) {
    const struct fkv_charts_page page = {.name = "layers",
                                         .title =
                                             "Damage of the same change to one layer at a time",
                                         .height = 3.8,
                                         .columns = 2};
    struct fkv_charts c = {0};
    bool more = false;
    for (int m = 0; m < FKV_DAMAGES; m++) more = fill(&c, d, m) || more;
    return fkv_probe_finish(
        &c, FKV_OK, d, more ? "The table beside the figure has more changes." : "", page, to, err);
}
