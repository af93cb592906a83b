/* The damage of filters and policies by class of token, where the probe's tokens have classes. */
#include <stdlib.h>

#include "analyze/link/token_classes.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"

enum { MOST = 6 };

static bool has_classes(const struct fkv_probe *p) {
    bool classes = true;
    for (int64_t w = 0; w < p->window_count; w++) classes = classes && p->windows[w].token_class;
    return classes;
}

static bool is_shown(const struct fkv_probe_change *c) {
    bool policy = c->kind == FKV_PROBE_FREQKV || c->kind == FKV_PROBE_LOCAL;
    return fkv_probe_is_filter(c) || (policy && fkv_probe_is_whole(c) && !fkv_probe_is_part(c));
}

/* scratch [2, units] */
static void fill(struct fkv_charts *c, const struct fkv_damage *d, double *scratch) {
    struct fkv_chart *chart = fkv_probe_panel(c, FKV_DAMAGE_NLL, NULL);
    for (int32_t i = 0; i < d->probe->change_count && chart->series < MOST; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (!is_shown(change)) continue;
        const int series = chart->series;
        char name[FKV_PROBE_NAME];
        fkv_probe_name_alone(change, name);
        for (int k = 0; k < FKV_CLASSES; k++) {
            int64_t tokens;
            struct fkv_interval y = fkv_damage_of_class(d, i, k, NULL, &tokens, scratch);
            if (!tokens) continue;
            int position = fkv_chart_name(chart, fkv_class_names[k]);
            fkv_chart_add(chart, name, fkv_color_cycle(series), FKV_LOOK_POINTS, position,
                          fkv_plot_milli(y, 1));
        }
    }
}

int fkv_plot_probe_classes(const struct fkv_damage *d, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    static const char text[] =
        "Rare: fewer than 1 in 10,000 of its text. Copied: it and the token before it stood side "
        "by side earlier in the text.";
    const struct fkv_charts_page page = {.name = "classes",
                                         .title = "Damage by class of token",
                                         .width = 6.4,
                                         .height = 4.4,
                                         .columns = 1};
    struct fkv_charts c = {0};
    if (!has_classes(d->probe)) return FKV_OK;
    int status = FKV_OK;
    double *scratch = malloc(2 * (size_t)d->units.count * sizeof *scratch);
    if (scratch)
        fill(&c, d, scratch);
    else
        status = fkv_fail(err, "out of memory for %lld units", (long long)d->units.count);
    free(scratch);
    return fkv_probe_finish(&c, status, d, text, page, to, err);
}
