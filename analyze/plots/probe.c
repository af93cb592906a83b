/* Figures of a probe: each draws the changes it is about, if the file has some. All damages are in
 * milli-nats, since most are that small. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/tables/csv.h"
#include "analyze/plots/charts.h"
#include "analyze/plots/files.h"
#include "analyze/plots/parts.h"
#include "analyze/link/token_classes.h"

static const char unit[] = "10^{\u22123} nats per token";
/* By a change's states. */
static const char *const state_words[FKV_PROBE_BOTH + 1] = {"nothing", "keys", "values",
                                                            "keys and values"};
static const char *const damage_words[FKV_DAMAGES] = {"\u0394 nll", "KL"};

static struct fkv_interval milli(struct fkv_interval x, double by) {
    return (struct fkv_interval){1e3 * x.estimate / by, 1e3 * x.low / by, 1e3 * x.high / by};
}

static bool whole_cache(const struct fkv_probe_change *c) { return c->layer < 0 && c->kv_head < 0; }

static bool is_part(const struct fkv_probe_change *c) {
    return c->option == FKV_PROBE_OPTION_DECOMPOSE;
}

/* The check of --decompose: all parts are off. */
static bool no_part(const struct fkv_probe_change *c) {
    return is_part(c) && !c->truncation && !c->squeezed && !c->fewer;
}

static void describe(const struct fkv_damage *d, const char *text, char note[FKV_PLOT_NOTE]) {
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

struct picture {
    const char *suffix, *title, *text;
    double width, height;
    int columns;
};

/* Writes what was filled in, if anything was, and closes it. */
static int finish(struct fkv_charts *c, const struct fkv_damage *d, const struct picture *picture,
                  struct fkv_plot_place *at, int status, struct fkv_error *err) {
    char stem[300], note[FKV_PLOT_NOTE];
    int points = 0;
    for (int i = 0; i < c->panels; i++) points += c->chart[i].series;
    snprintf(stem, sizeof stem, "%.280s_%s", at->stem, picture->suffix);
    describe(d, picture->text, note);
    const struct fkv_charts_page page = {
        at->folder,       stem, picture->title, note, picture->width, picture->height,
        picture->columns, NULL};
    if (!status && points) status = fkv_charts_write(c, &page, at->provenance, err);
    at->figures += !status && points;
    fkv_charts_close(c);
    return status;
}

/* ---- charts of changes to the whole cache ---- */

enum kind { BANDS, FILTERS, DECOMPOSITION, NOISE, KINDS };

/* One band that was taken out has a place on an axis of bands; other filters are rows. */
static bool belongs(const struct fkv_probe_change *c, enum kind kind) {
    const bool filter = c->kind == FKV_PROBE_FILTER && !is_part(c),
               one_band_out = c->complement && c->band_count == 1;
    if (!whole_cache(c)) return false;
    switch (kind) {
    case BANDS: return filter && one_band_out;
    case FILTERS: return filter && !one_band_out;
    case DECOMPOSITION: return is_part(c);
    default: return c->kind == FKV_PROBE_NOISE;
    }
}

/* A name of 16 bands at a readable precision. */
enum { CHANGE_NAME = 320 };

/* "0–0.25, 0.75–1" */
static void name_bands(const struct fkv_probe_change *c, char out[CHANGE_NAME]) {
    size_t used = 0;
    *out = 0;
    for (int32_t i = 0; i < c->band_count; i++)
        used += (size_t)snprintf(out + used, CHANGE_NAME - used, "%s%.3g\u2013%.3g", i ? ", " : "",
                                 c->bands[i].low, c->bands[i].high);
}

/* The name of a change on its axis: its bands, with the energy of noise in brackets, or its parts.
 */
static void name_change(const struct fkv_probe_change *c, char out[CHANGE_NAME]) {
    char bands[CHANGE_NAME], parts[FKV_PROBE_PARTS];
    name_bands(c, bands);
    if (is_part(c))
        snprintf(out, CHANGE_NAME, "%s", fkv_probe_parts(c, parts));
    else if (c->kind == FKV_PROBE_NOISE)
        snprintf(out, CHANGE_NAME, "%.280s (%.3g)", bands, c->epsilon);
    else
        snprintf(out, CHANGE_NAME, "%s%.300s", c->complement ? "without " : "", bands);
}

/* The place of a band on its axis: bands of one width are even on a linear one, octaves on a
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
        if (!belongs(c, BANDS) || fkv_probe_takes_dc(c) || !(c->bands[0].low > 0)) continue;
        least = fmin(least, width), most = fmax(most, width);
    }
    return most > 3 * least;
}

static void fill(struct fkv_charts *c, const struct fkv_damage *d, enum kind kind, int measure,
                 const char *title, const char *label) {
    bool across = kind == DECOMPOSITION || kind == FILTERS;
    int panel = fkv_charts_panel(c, title, across ? unit : label, across ? NULL : unit);
    c->chart[panel].across = across;
    c->chart[panel].level = 0;
    double last[4] = {0};
    int sets[4] = {0};
    c->chart[panel].apart = kind == BANDS;
    c->chart[panel].logarithmic_x = kind == BANDS && bands_widen(d);
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (!belongs(change, kind) || (kind == BANDS && fkv_probe_takes_dc(change))) continue;
        char name[CHANGE_NAME], series[64];
        const int state = change->states;
        name_change(change, name);
        int place = kind == BANDS ? 0 : fkv_charts_name(c, panel, name);
        if (place < 0) continue;
        snprintf(series, sizeof series, "%s", state_words[state]);
        if (kind == DECOMPOSITION) snprintf(series, sizeof series, "\u03b3 = %.3g", change->gamma);
        if (kind == BANDS) { /* a second division into bands starts anew at the left */
            sets[state] += change->bands[0].low < last[state];
            last[state] = change->bands[0].low;
            if (sets[state])
                snprintf(series, sizeof series, "%s, division %d", state_words[state],
                         sets[state] + 1);
        }
        fkv_charts_add(c, panel, series,
                       fkv_color_cycle(kind == DECOMPOSITION ? c->chart[panel].series
                                                             : state - 1 + 3 * sets[state]),
                       kind == BANDS ? FKV_LOOK_JOINED : FKV_LOOK_POINTS,
                       kind == BANDS ? middle_of(change, c->chart[panel].logarithmic_x) : place,
                       milli(d->row[i].mean[measure], kind == NOISE ? change->epsilon : 1));
    }
}

static int plot_kind(const struct fkv_damage *d, enum kind kind, struct fkv_plot_place *at,
                     struct fkv_error *err) {
    static const struct picture pictures[KINDS] = {
        {"bands", "Damage of taking out one band", NULL, 7.2, 3.4, 2},
        {"filters", "Damage of keeping some bands only",
         "Rows: the bands that are kept, as fractions of the n coefficients.", 7.2, 0, 2},
        {"decomposition", "FreqKV's damage in parts",
         "truncation: coefficients beyond L are lost; squeezed: slot indices as positions; fewer: "
         "L slots in the softmax instead of n.",
         7.2, 0, 2},
        {"noise", "Damage of noise, per unit of energy",
         "Damage over the noise's energy, which is in units of the head's energy without DC.", 7.2,
         3.4, 2}};
    static const char *const labels[KINDS] = {"middle of the band (fraction of the coefficients)",
                                              "", "", "band (energy of the noise)"};
    struct fkv_charts c;
    char text[400] = "", *end = text;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int m = 0; m < FKV_DAMAGES; m++) fill(&c, d, kind, m, damage_words[m], labels[kind]);
    /* DC costs hundreds of times what a band does and has no place on their axis. */
    for (int32_t i = 0; kind == BANDS && i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (!belongs(change, kind) || !fkv_probe_takes_dc(change) || end > text + 300) continue;
        char nats[FKV_PLOT_NUMBER];
        end += sprintf(end, "%s %s %s nats", end == text ? "Not shown: taking out DC costs" : ",",
                       state_words[change->states],
                       fkv_plot_number(nats, d->row[i].mean[FKV_DAMAGE_NLL].estimate, 3));
    }
    if (end > text) memcpy(end, ".", 2);
    struct picture picture = pictures[kind];
    if (!picture.text) picture.text = text;
    return finish(&c, d, &picture, at, FKV_OK, err);
}

/* FreqKV whole and local windows over the ratio. */
static int plot_policies(const struct fkv_damage *d, struct fkv_plot_place *at,
                         struct fkv_error *err) {
    static const struct picture picture = {
        "policies", "Damage of one compression, and of keeping the latest tokens instead",
        "",         7.2,
        3.2,        2};
    struct fkv_charts c;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int m = 0; m < FKV_DAMAGES; m++) {
        int panel = fkv_charts_panel(&c, damage_words[m], "retaining ratio \u03b3", unit);
        c.chart[panel].level = 0, c.chart[panel].apart = true;
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            bool local = change->kind == FKV_PROBE_LOCAL;
            if (!whole_cache(change) || is_part(change) ||
                !(local || change->kind == FKV_PROBE_FREQKV))
                continue;
            fkv_charts_add(&c, panel, fkv_probe_kind_names[change->kind], fkv_color_cycle(local),
                           FKV_LOOK_JOINED, change->gamma, milli(d->row[i].mean[m], 1));
        }
    }
    return finish(&c, d, &picture, at, FKV_OK, err);
}

/* As many changes as can be told apart; DC would hide the rest. */
static int plot_layers(const struct fkv_damage *d, struct fkv_plot_place *at,
                       struct fkv_error *err) {
    struct picture picture = {
        "layers", "Damage of the same change to one layer at a time", "", 7.2, 3.8, 2};
    struct fkv_charts c;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int m = 0; m < FKV_DAMAGES; m++) {
        int panel = fkv_charts_panel(&c, damage_words[m], "layer", unit), shown = 0;
        struct fkv_chart *chart = &c.chart[panel];
        chart->level = 0, chart->integers = chart->apart = true;
        for (int32_t i = 0; i < d->probe->change_count; i++) {
            const struct fkv_probe_change *change = &d->probe->changes[i];
            int series = chart->series;
            if (change->layer < 0 || change->kv_head >= 0) continue;
            fkv_charts_add(&c, panel, change->label, fkv_color_cycle(shown), FKV_LOOK_JOINED,
                           change->layer, milli(d->row[i].mean[m], 1));
            if (chart->series == series) continue;
            chart->one[series].hidden =
                shown == FKV_COLORS || fkv_probe_takes_dc(change) || no_part(change);
            shown += !chart->one[series].hidden;
            if (chart->one[series].hidden)
                picture.text = "The table beside the figure has more changes.";
        }
    }
    return finish(&c, d, &picture, at, FKV_OK, err);
}

/* ---- classes of tokens ---- */

static int plot_classes(const struct fkv_damage *d, struct fkv_plot_place *at,
                        struct fkv_error *err) {
    enum { MOST = 6 };
    static const struct picture picture = {
        "classes",
        "Damage by class of token",
        "Rare: fewer than 1 in 10,000 of its text. Copied: it and the token before it stood side "
        "by side earlier in the text.",
        6.4,
        4.4,
        1};
    struct fkv_charts c;
    bool classes = true;
    double *scratch = malloc(2 * (size_t)d->units.count * sizeof *scratch);
    for (int64_t w = 0; w < d->probe->window_count; w++)
        classes = classes && d->probe->windows[w].token_class;
    int status = scratch ? fkv_charts_open(&c, err)
                         : fkv_fail(err, "out of memory for %lld units", (long long)d->units.count);
    if (status || !classes) {
        free(scratch);
        if (!status) fkv_charts_close(&c);
        return status;
    }
    int panel = fkv_charts_panel(&c, "\u0394 nll", unit, NULL);
    c.chart[panel].across = true, c.chart[panel].level = 0;
    for (int32_t i = 0; i < d->probe->change_count && c.chart[panel].series < MOST; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        bool policy = change->kind == FKV_PROBE_FREQKV || change->kind == FKV_PROBE_LOCAL ||
                      belongs(change, FILTERS);
        if (!whole_cache(change) || !policy || is_part(change)) continue;
        int series = c.chart[panel].series;
        for (int k = 0; k < FKV_CLASSES; k++) {
            int64_t tokens;
            struct fkv_interval y = fkv_damage_of_class(d, i, k, NULL, &tokens, scratch);
            if (!tokens) continue;
            int place = fkv_charts_name(&c, panel, fkv_class_names[k]);
            fkv_charts_add(&c, panel, change->label, fkv_color_cycle(series), FKV_LOOK_POINTS,
                           place, milli(y, 1));
        }
    }
    free(scratch);
    return finish(&c, d, &picture, at, FKV_OK, err);
}

/* ---- heads ---- */

enum { MAPS = 6 };

/* first [MAPS]: the first change of a single head of each family; returns how many. All share a
 * scale, on which DC would leave the others no colour. */
static int find_maps(const struct fkv_probe *p, bool with_dc, int32_t first[MAPS]) {
    int maps = 0;
    for (int32_t i = 0; i < p->change_count && maps < MAPS; i++) {
        const struct fkv_probe_change *c = &p->changes[i];
        if (c->kv_head < 0 || (!with_dc && fkv_probe_takes_dc(c))) continue;
        if (!maps || p->changes[first[maps - 1]].family != c->family) first[maps++] = i;
    }
    return maps;
}

/* One map: values [layers, heads], and dots x, y [count] where q < 0.05; returns count. */
static int fill_map(const struct fkv_damage *d, int32_t first, int measure, double *values,
                    double *x, double *y) {
    const struct fkv_probe *p = d->probe;
    int count = 0;
    for (int32_t i = 0; i < p->layers * p->kv_heads; i++) values[i] = NAN;
    for (int32_t i = 0; i < p->change_count; i++) {
        const struct fkv_probe_change *c = &p->changes[i];
        if (c->kv_head < 0 || c->family != p->changes[first].family) continue;
        values[c->layer * p->kv_heads + c->kv_head] = 1e3 * d->row[i].mean[measure].estimate;
        if (d->row[i].q[measure] < 0.05) x[count] = c->kv_head + 0.38, y[count++] = c->layer - 0.32;
    }
    return count;
}

/* Its label; of one band taken out, at a readable precision: "without 0.002-0.25, key". */
static void name_map(const struct fkv_probe_change *c, char out[CHANGE_NAME]) {
    char name[CHANGE_NAME];
    name_change(c, name);
    if (c->kind == FKV_PROBE_FILTER && c->complement && c->band_count == 1 &&
        !fkv_probe_takes_dc(c))
        snprintf(out, CHANGE_NAME, "%.300s, %s", name, fkv_probe_states_names[c->states]);
    else
        snprintf(out, CHANGE_NAME, "%s", c->label);
}

static int draw_maps(struct fkv_figure *f, const struct fkv_damage *d, int maps,
                     const int32_t *first, int measure, double *scratch, struct fkv_error *err) {
    const struct fkv_probe *p = d->probe;
    const struct fkv_axis across = {.label = "KV head", .low = FKV_FIT, .high = FKV_FIT};
    const struct fkv_axis down = {.label = "layer", .low = FKV_FIT, .high = FKV_FIT};
    const struct fkv_line dot = {.label = "q < 0.05 (Benjamini\u2013Hochberg)",
                                 .color = {0, 0, 0, 1},
                                 .width = 0.9,
                                 .markers = true,
                                 .ringed = true,
                                 .scattered = true};
    size_t cells = (size_t)p->layers * (size_t)p->kv_heads;
    double low = INFINITY, high = -INFINITY, *x = scratch + cells, *y = x + cells;
    int *names = malloc((size_t)(p->layers + p->kv_heads) * sizeof *names);
    if (!names) return fkv_fail(err, "out of memory for %zu heads", cells);
    for (int i = 0; i < p->layers + p->kv_heads; i++) names[i] = i;
    for (int m = 0; m < maps; m++) {
        fill_map(d, first[m], measure, scratch, x, y);
        for (size_t i = 0; i < cells; i++)
            if (isfinite(scratch[i])) low = fmin(low, scratch[i]), high = fmax(high, scratch[i]);
    }
    bool is_signed = measure == FKV_DAMAGE_NLL;
    if (!(high >= low)) low = high = 0; /* no number at all */
    if (is_signed) high = fmax(fabs(low), fabs(high)), low = -high;
    if (!(high > low)) high += 1, low -= is_signed;
    const struct fkv_color_bar bar = {
        .label = unit, .low = low, .high = high, .top = 1, .is_signed = is_signed};
    int status = FKV_OK;
    for (int m = 0; !status && m < maps; m++) {
        int dots = fill_map(d, first[m], measure, scratch, x, y);
        char title[CHANGE_NAME];
        name_map(&p->changes[first[m]], title);
        status = fkv_figure_axes(f, m, title, &across, &down, NULL, 1, err);
        if (!status)
            status = fkv_figure_heatmap(f, m, p->layers, p->kv_heads, scratch, names, names, low,
                                        high, err);
        if (!status && dots) status = fkv_figure_line(f, m, &dot, dots, x, y, err);
    }
    free(names);
    return status ? status : fkv_figure_color_bar(f, &bar, err);
}

static int write_heads_csv(const struct fkv_damage *d, struct fkv_plot_place *at,
                           struct fkv_error *err) {
    struct fkv_atomic_file f;
    char name[320];
    snprintf(name, sizeof name, "%.280s_heads.csv", at->stem);
    if (fkv_csv_open(&f, at->folder, name,
                     "change,layer,head,delta_nll,delta_nll_low,delta_nll_high,delta_nll_p,delta_"
                     "nll_q,kl,kl_low,kl_high,kl_p,kl_q",
                     err))
        return FKV_FAILED;
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *c = &d->probe->changes[i];
        if (c->kv_head < 0) continue;
        fkv_csv_first(f.stream, c->label);
        fprintf(f.stream, ",%d,%d", c->layer, c->kv_head);
        for (int m = 0; m < FKV_DAMAGES; m++) {
            fkv_csv_interval(f.stream, d->row[i].mean[m]);
            fkv_csv_number(f.stream, d->row[i].p[m]);
            fkv_csv_number(f.stream, d->row[i].q[m]);
        }
        fputc('\n', f.stream);
    }
    return fkv_atomic_commit(&f, err);
}

/* What dots of a map say, for the note. A file without a repeated run has nothing to compare KL
 * with. */
static const char nll_test[] = "q: corrected among the heads of one change.";
static const char kl_test[] =
    "q: KL above that of the untouched run repeated in another block size, paired per token; "
    "corrected among the heads of one change.";
static const char kl_untested[] = "No dots: the file holds no KL of the untouched run repeated, "
                                  "per token, and a mean KL is never below zero.";

static int plot_heads(const struct fkv_damage *d, struct fkv_plot_place *at,
                      struct fkv_error *err) {
    int32_t first[MAPS];
    int maps = find_maps(d->probe, false, first);
    if (!maps) maps = find_maps(d->probe, true, first);
    int columns = maps < 3 ? maps : maps == 4 ? 2 : 3;
    if (!maps) return FKV_OK;
    size_t cells = (size_t)d->probe->layers * (size_t)d->probe->kv_heads;
    double *scratch = malloc(3 * cells * sizeof *scratch);
    if (!scratch) return fkv_fail(err, "out of memory for %zu heads", cells);
    int status = FKV_OK, rows = (maps + columns - 1) / columns;
    double width = fmin(7.2, fmax(4, 1.4 + columns * fmax(1.8, 0.3 * d->probe->kv_heads)));
    double height = fmin(10, 1.6 + rows * fmax(1.5, 0.5 + 0.18 * d->probe->layers));
    for (int m = 0; !status && m < FKV_DAMAGES; m++) {
        struct fkv_figure *f;
        char title[120], note[FKV_PLOT_NOTE], stem[300];
        snprintf(title, sizeof title, "%s of changing one head", damage_words[m]);
        snprintf(stem, sizeof stem, "%.270s_heads_%s", at->stem, fkv_damage_names[m]);
        describe(d, m == FKV_DAMAGE_NLL ? nll_test : d->excess ? kl_test : kl_untested, note);
        status = fkv_figure_create(width, height, rows, columns, title, &f, err);
        if (status) break;
        status = draw_maps(f, d, maps, first, m, scratch, err);
        if (status)
            fkv_figure_destroy(f);
        else
            status = fkv_charts_finish(f, note, at->folder, stem, at->provenance, err);
        at->figures += !status;
    }
    free(scratch);
    return status ? status : write_heads_csv(d, at, err);
}

int fkv_plot_probe(const struct fkv_damage *d, struct fkv_plot_place *at, struct fkv_error *err) {
    for (int kind = 0; kind < KINDS; kind++)
        if (plot_kind(d, (enum kind)kind, at, err)) return FKV_FAILED;
    return plot_policies(d, at, err) || plot_layers(d, at, err) || plot_classes(d, at, err) ||
                   plot_heads(d, at, err)
               ? FKV_FAILED
               : FKV_OK;
}
