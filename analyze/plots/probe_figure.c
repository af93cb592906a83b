/* Owns what the figures of a probe share (probe_figure.h). */
#include "analyze/plots/probe_figure.h"

#include <stdio.h>

#include "analyze/plots/words.h"

bool fkv_probe_is_whole(const struct fkv_probe_change *c) { return c->layer < 0 && c->kv_head < 0; }

bool fkv_probe_is_part(const struct fkv_probe_change *c) {
    return c->option == FKV_PROBE_OPTION_DECOMPOSE;
}

static bool is_filter(const struct fkv_probe_change *c, bool one_band_out) {
    return fkv_probe_is_whole(c) && c->kind == FKV_PROBE_FILTER && !fkv_probe_is_part(c) &&
           (c->complement && c->band_count == 1) == one_band_out;
}

bool fkv_probe_is_band(const struct fkv_probe_change *c) { return is_filter(c, true); }

bool fkv_probe_is_filter(const struct fkv_probe_change *c) { return is_filter(c, false); }

/* "lowest eighth", "0.25–0.5"; a band that begins right above DC: "lowest eighth, DC apart". */
static void name_band(const struct fkv_probe_band *b, char out[FKV_PROBE_NAME]) {
    static const struct {
        double low;
        double high;
        const char *words;
    } known[] = {{0, 0.125, "lowest eighth"},  {0, 0.25, "lowest quarter"},
                 {0, 0.5, "lowest half"},      {0.5, 1, "highest half"},
                 {0.75, 1, "highest quarter"}, {0.875, 1, "highest eighth"}};
    const double right_above_dc = 0.01;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const bool apart = known[i].low == 0 && b->low > 0 && b->low < right_above_dc;
        if (b->high != known[i].high || (b->low != known[i].low && !apart)) continue;
        snprintf(out, FKV_PROBE_NAME, "%s%s", known[i].words, apart ? ", DC apart" : "");
        return;
    }
    snprintf(out, FKV_PROBE_NAME, "%.3g\u2013%.3g", b->low, b->high);
}

static void name_bands(const struct fkv_probe_change *c, char out[FKV_PROBE_NAME]) {
    size_t used = 0;
    *out = 0;
    for (int32_t i = 0; i < c->band_count && used < FKV_PROBE_NAME; i++) {
        char band[FKV_PROBE_NAME];
        name_band(&c->bands[i], band);
        used += (size_t)snprintf(out + used, FKV_PROBE_NAME - used, "%s%s", i ? ", " : "", band);
    }
}

/* "truncation alone, same slots", "truncation, squeezed positions, fewer slots". */
static void name_parts(const struct fkv_probe_change *c, char out[FKV_PROBE_NAME]) {
    static const char *const words[] = {"truncation", "squeezed positions", "fewer slots"};
    const int32_t on[] = {c->truncation, c->squeezed, c->fewer};
    int used = 0;
    for (int i = 0; i < 3; i++)
        if (on[i] > 0)
            used += snprintf(out + used, FKV_PROBE_NAME - (size_t)used, "%s%s", used ? ", " : "",
                             words[i]);
    if (!used) snprintf(out, FKV_PROBE_NAME, "nothing");
    if (on[0] > 0 && on[1] <= 0 && on[2] <= 0)
        snprintf(out, FKV_PROBE_NAME, "truncation alone, %s slots",
                 c->kind == FKV_PROBE_FREQKV ? "L" : "same");
}

static void name_change(const struct fkv_probe_change *c, char out[FKV_PROBE_NAME]) {
    char bands[FKV_PROBE_NAME];
    name_bands(c, bands);
    if (fkv_probe_is_part(c))
        name_parts(c, out);
    else if (c->kind == FKV_PROBE_NOISE)
        snprintf(out, FKV_PROBE_NAME, "%.280s (%.3g)", bands, c->epsilon);
    else if (fkv_probe_takes_dc(c))
        snprintf(out, FKV_PROBE_NAME, "without DC");
    else
        snprintf(out, FKV_PROBE_NAME, "%s%.300s", c->complement ? "without " : "", bands);
}

void fkv_probe_name_alone(const struct fkv_probe_change *c, char out[FKV_PROBE_NAME]) {
    char name[FKV_PROBE_NAME];
    if (c->kind != FKV_PROBE_FILTER && c->kind != FKV_PROBE_NOISE) {
        snprintf(out, FKV_PROBE_NAME, "%s", c->label);
        return;
    }
    name_change(c, name);
    snprintf(out, FKV_PROBE_NAME, "%.280s: %s", name, fkv_plot_states_words[c->states]);
}

struct fkv_chart *fkv_probe_panel(struct fkv_charts *c, int measure, const char *x_label) {
    const char *damage = fkv_plot_damage_words[measure];
    struct fkv_chart *chart = x_label ? fkv_charts_panel(c, damage, x_label, fkv_plot_milli_nats)
                                      : fkv_charts_panel(c, damage, fkv_plot_milli_nats, NULL);
    chart->across = !x_label, chart->level = 0;
    return chart;
}

void fkv_probe_add_named(struct fkv_chart *c, const struct fkv_probe_change *change,
                         const char *series, struct fkv_color color, struct fkv_interval y) {
    char name[FKV_PROBE_NAME];
    name_change(change, name);
    int position = fkv_chart_name(c, name);
    if (position >= 0) fkv_chart_add(c, series, color, FKV_LOOK_POINTS, position, y);
}

void fkv_probe_describe(const struct fkv_damage *d, const char *text, char note[FKV_PLOT_NOTE]) {
    const struct fkv_probe *p = d->probe;
    char nll[FKV_PLOT_NUMBER], kl[FKV_PLOT_NUMBER], windows[48], words[FKV_SE_WORDS],
        intervals[FKV_SE_WORDS + 32];
    snprintf(windows, sizeof windows, p->window_count == 1 ? "one window" : "each of %lld windows",
             (long long)p->window_count);
    fkv_se_unit_words(d->units.kind, d->units.documents, "blocks of 256 scored tokens", words);
    snprintf(intervals, sizeof intervals,
             d->units.kind == FKV_SE_NONE ? "one block of tokens gives no intervals"
                                          : "95%% intervals %s",
             words);
    snprintf(
        note, FKV_PLOT_NOTE,
        "%s Prefix %d (%d sinks), %d tokens scored in %s; %s. Noise floor: |\u0394 nll| %s, KL %s.",
        text, p->prefix, p->sinks, p->score, windows, intervals,
        fkv_plot_number(nll, p->noise_floor_nll, 2), fkv_plot_number(kl, p->noise_floor_kl, 2));
}

int fkv_probe_finish(struct fkv_charts *c, int status, const struct fkv_damage *d, const char *text,
                     struct fkv_charts_page page, struct fkv_plot_target *to,
                     struct fkv_error *err) {
    char note[FKV_PLOT_NOTE];
    int series = 0;
    for (int i = 0; i < c->panels; i++) series += c->chart[i].series;
    fkv_probe_describe(d, text, note);
    page.note = note;
    if (series) return fkv_charts_finish(c, status, &page, to, err);
    fkv_charts_close(c);
    return status;
}
