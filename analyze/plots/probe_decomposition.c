/* FreqKV's damage in parts: a row per part. */
#include <stdio.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

int fkv_plot_probe_decomposition(const struct fkv_damage *d, struct fkv_plot_target *to,
                                 struct fkv_error *err) {
    const struct fkv_charts_page page = {
        .name = "decomposition", .title = "FreqKV's damage in parts", .columns = 2};
    struct fkv_charts c = {0};
    for (int m = 0; m < FKV_DAMAGES; m++) {
        struct fkv_chart *chart = fkv_probe_panel(&c, m, NULL);
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            if (!(fkv_probe_is_whole(change) && fkv_probe_is_part(change))) continue;
            char series[64];
            snprintf(series, sizeof series, "\u03b3 = %.3g", change->gamma);
            fkv_probe_add_named(chart, change, series, fkv_color_cycle(chart->series),
                                fkv_plot_milli(d->row[i].mean[m], 1));
        }
    }
    return fkv_probe_finish(
        &c, FKV_OK, d,
        "truncation: coefficients beyond L are lost; squeezed: slot indices as positions; fewer: "
        "L slots in the softmax instead of n.",
        page, to, err);
}
