/* The damage of taking out one band of frequencies, over the bands. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

/* The position of a band on its axis: bands of one width are even on a linear one, octaves on a
 * logarithmic one. */
static double middle_of(const struct fkv_probe_change *c, bool logarithmic) {
    const struct fkv_probe_band band = c->bands[0];
    return logarithmic ? sqrt(band.low * band.high) : (band.low + band.high) / 2;
}

static bool bands_widen(const struct fkv_damage *d) {
    double least = INFINITY, most = 0;
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *c = &d->probe->changes[i];
        const double width = c->bands[0].high - c->bands[0].low;
        if (!fkv_probe_is_band(c) || fkv_probe_takes_dc(c) || !(c->bands[0].low > 0)) continue;
        least = fmin(least, width), most = fmax(most, width);
    }
    return most > 3 * least;
}

static void fill(struct fkv_charts *c, const struct fkv_damage *d, int measure) {
    struct fkv_chart *chart =
        fkv_probe_panel(c, measure, "middle of the band (fraction of the coefficients)");
    double last[FKV_PROBE_BOTH + 1] = {0};
    int divisions[FKV_PROBE_BOTH + 1] = {0};
    chart->apart = true, chart->logarithmic_x = bands_widen(d);
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        const int states = change->states;
        char series[64];
        if (!fkv_probe_is_band(change) || fkv_probe_takes_dc(change)) continue;
        /* a second division into bands starts anew at the left */
        divisions[states] += change->bands[0].low < last[states];
        last[states] = change->bands[0].low;
        int used = snprintf(series, sizeof series, "%s", fkv_plot_states_words[states]);
        if (divisions[states])
            snprintf(series + used, sizeof series - (size_t)used, ", division %d",
                     divisions[states] + 1);
        fkv_chart_add(chart, series, fkv_color_cycle(states - 1 + 3 * divisions[states]),
                      FKV_LOOK_JOINED, middle_of(change, chart->logarithmic_x),
                      fkv_plot_milli(d->row[i].mean[measure], 1));
    }
}

/* "Not shown: taking out DC costs keys 0.1 nats.": it costs hundreds of times what a band does and
 * has no position on their axis. */
static void name_dc(const struct fkv_damage *d, char text[400]) {
    char *end = text;
    *text = 0;
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (!fkv_probe_is_band(change) || !fkv_probe_takes_dc(change) || end > text + 300) continue;
        char nats[FKV_PLOT_NUMBER];
        end += sprintf(end, "%s %s %s nats", end == text ? "Not shown: taking out DC costs" : ",",
                       fkv_plot_states_words[change->states],
                       fkv_plot_number(nats, d->row[i].mean[FKV_DAMAGE_NLL].estimate, 3));
    }
    if (end > text) memcpy(end, ".", 2);
}

int fkv_plot_probe_bands(const struct fkv_damage *d, struct fkv_plot_target *to,
                         struct fkv_error *err) {
    const struct fkv_charts_page page = {
        .name = "bands", .title = "Damage of taking out one band", .height = 3.4, .columns = 2};
    struct fkv_charts c = {0};
    char text[400];
    for (int m = 0; m < FKV_DAMAGES; m++) fill(&c, d, m);
    name_dc(d, text);
    return fkv_probe_finish(&c, FKV_OK, d, text, page, to, err);
}
