/* The damage of FreqKV whole, and of local windows, over the ratio. */
#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

int fkv_plot_probe_policies(const struct fkv_damage *d, struct fkv_plot_target *to,
                            struct fkv_error *err) {
    const struct fkv_charts_page page = {
        .name = "policies",
        .title = "Damage of one compression, and of keeping the latest tokens instead",
        .height = 3.2,
        .columns = 2};
    struct fkv_charts c = {0};
    for (int m = 0; m < FKV_DAMAGES; m++) {
        struct fkv_chart *chart = fkv_probe_panel(&c, m, "retaining ratio \u03b3");
        chart->apart = true;
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            bool local = change->kind == FKV_PROBE_LOCAL;
            if (!fkv_probe_is_whole(change) || fkv_probe_is_part(change) ||
                !(local || change->kind == FKV_PROBE_FREQKV))
                continue;
            fkv_chart_add(chart, fkv_probe_kind_names[change->kind], fkv_color_cycle(local),
                          FKV_LOOK_JOINED, change->gamma, fkv_plot_milli(d->row[i].mean[m], 1));
        }
    }
    return fkv_probe_finish(&c, FKV_OK, d, "", page, to, err);
}
