/* The damage of noise in a band, per unit of its energy. */
#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

int fkv_plot_probe_noise(const struct fkv_damage *d, struct fkv_plot_target *to,
                         struct fkv_error *err) {
    const struct fkv_charts_page page = {.name = "noise",
                                         .title = "Damage of noise, per unit of energy",
                                         .height = 3.4,
                                         .columns = 2};
    struct fkv_charts c = {0};
    for (int m = 0; m < FKV_DAMAGES; m++) {
        struct fkv_chart *chart = fkv_probe_panel(&c, m, "band (energy of the noise)");
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            if (!(fkv_probe_is_whole(change) && change->kind == FKV_PROBE_NOISE)) continue;
            fkv_probe_add_named(chart, change, fkv_plot_states_words[change->states],
                                fkv_color_cycle(change->states - 1),
                                fkv_plot_milli(d->row[i].mean[m], change->epsilon));
        }
    }
    return fkv_probe_finish(
        &c, FKV_OK, d,
        "Damage over the noise's energy, which is in units of the head's energy without DC.", page,
        to, err);
}
