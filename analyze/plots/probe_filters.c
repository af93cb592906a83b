/* The damage of keeping some bands only: a row per filter. */
#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

int fkv_plot_probe_filters(const struct fkv_damage *d, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    const struct fkv_charts_page page = {
        .name = "filters", .title = "Damage of keeping some bands only", .columns = 2};
    struct fkv_charts c = {0};
    for (int m = 0; m < FKV_DAMAGES; m++) {
        struct fkv_chart *chart = fkv_probe_panel(&c, m, NULL);
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            if (!fkv_probe_is_filter(change)) continue;
            fkv_probe_add_named(chart, change, fkv_plot_states_words[change->states],
                                fkv_color_cycle(change->states - 1),
                                fkv_plot_milli(d->row[i].mean[m], 1));
        }
    }
    return fkv_probe_finish(&c, FKV_OK, d,
                            "Rows: the bands that are kept, as fractions of the n coefficients.",
                            page, to, err);
}
