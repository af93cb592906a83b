/* Figures of a probe: each draws the changes it is about, if the file has some. All damages stand
 * in milli-nats, since most are that small. */
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
static const char *const state_words[4] = {"nothing", "keys", "values", "keys and values"};
static const char *const damage_words[FKV_DAMAGES] = {"\u0394 nll", "KL"};

static struct fkv_interval milli(struct fkv_interval x, double by) {
    return (struct fkv_interval){1e3 * x.estimate / by, 1e3 * x.low / by, 1e3 * x.high / by};
}

static bool whole_cache(const struct fkv_probe_change *c) { return c->layer < 0 && c->kv_head < 0; }

/* "filter 0:0.5, key" without its state. */
static void without_state(const char *label, char out[FKV_PROBE_LABEL]) {
    static const char *const endings[] = {", key", ", value", ", both"};
    snprintf(out, FKV_PROBE_LABEL, "%s", label);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t length = strlen(out), end = strlen(endings[i]);
        if (length > end && !strcmp(out + length - end, endings[i])) out[length - end] = 0;
    }
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

/* Of such filters the file keeps the hull alone: they have no place on an axis of bands. */
static bool several_bands(const char *label) {
    const char *comma = strchr(label, ',');
    return comma && comma[1] != ' ';
}

static bool belongs(const struct fkv_probe_change *c, enum kind kind) {
    bool part = !strncmp(c->label, "decompose", 9),
         band = c->complement && !several_bands(c->label);
    if (!whole_cache(c)) return false;
    switch (kind) {
    case BANDS: return c->kind == FKV_PROBE_FILTER && band;
    case FILTERS: return c->kind == FKV_PROBE_FILTER && !band && !part;
    case DECOMPOSITION: return part;
    default: return c->kind == FKV_PROBE_NOISE;
    }
}

/* "0:0.25,0.75:1" as "0–0.25, 0.75–1" at a readable precision; false where it is no list of bands.
 * What stands behind a third colon is noise's energy, put in brackets. */
static bool name_bands(const char *list, char out[FKV_PROBE_LABEL]) {
    size_t used = 0;
    for (;;) {
        double low, high, energy;
        int end = 0, more = 0;
        if (sscanf(list, "%lf:%lf%n", &low, &high, &end) != 2 || used + 60 > FKV_PROBE_LABEL)
            return false;
        used += (size_t)snprintf(out + used, FKV_PROBE_LABEL - used, "%s%.3g\u2013%.3g",
                                 used ? ", " : "", low, high);
        list += end;
        if (sscanf(list, ":%lf%n", &energy, &more) == 1)
            used += (size_t)snprintf(out + used, FKV_PROBE_LABEL - used, " (%.3g)", energy);
        list += more;
        if (*list != ',') return !*list;
        list++;
    }
}

/* The name of a change on its axis: what stands behind the first word, bands in a readable form. */
static void name_change(const struct fkv_probe_change *c, enum kind kind,
                        char out[FKV_PROBE_LABEL]) {
    char text[FKV_PROBE_LABEL];
    without_state(c->label, text);
    const char *space = strchr(text, ' '),
               *rest = space && !(kind == FILTERS && c->complement) ? space + 1 : text;
    const char *parts = kind == DECOMPOSITION ? strstr(text, ": ") : NULL;
    if (parts) rest = parts + 2;
    if (kind == DECOMPOSITION || !name_bands(rest, out)) snprintf(out, FKV_PROBE_LABEL, "%s", rest);
}

/* DC's damage is hundreds of times that of any band and has no place on their axis: then the note
 * says it. */
static bool is_dc(const struct fkv_probe_change *c) { return !strncmp(c->label, "without DC", 10); }

/* Bands of one width stand evenly on a linear axis, octaves on a logarithmic one. */
static double middle_of(const struct fkv_probe_change *c, bool logarithmic) {
    return logarithmic ? sqrt(c->low * c->high) : (c->low + c->high) / 2;
}

static bool bands_widen(const struct fkv_damage *d) {
    double least = INFINITY, most = 0;
    for (int32_t i = 0; i < d->probe->change_count; i++) {
        const struct fkv_probe_change *c = &d->probe->changes[i];
        if (!belongs(c, BANDS) || is_dc(c) || !(c->low > 0)) continue;
        least = fmin(least, c->high - c->low), most = fmax(most, c->high - c->low);
    }
    return most > 3 * least;
}

/* Of a part of FreqKV; truncation at full length is a filter and has its ratio in its label alone.
 */
static double gamma_of(const struct fkv_probe_change *c) {
    double gamma = NAN;
    return sscanf(c->label, "decompose %lf", &gamma) == 1 ? gamma : c->gamma;
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
        if (!belongs(change, kind) || (kind == BANDS && is_dc(change))) continue;
        char name[FKV_PROBE_LABEL], series[64];
        int state = change->states & 3;
        name_change(change, kind, name);
        int place = kind == BANDS ? 0 : fkv_charts_name(c, panel, name);
        if (place < 0) continue;
        snprintf(series, sizeof series, "%s", state_words[state]);
        if (kind == DECOMPOSITION)
            snprintf(series, sizeof series, "\u03b3 = %.3g", gamma_of(change));
        if (kind == BANDS) { /* a second division into bands starts anew at the left */
            sets[state] += change->low < last[state];
            last[state] = change->low;
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
    for (int32_t i = 0; kind == BANDS && i < d->probe->change_count; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        if (!belongs(change, kind) || !is_dc(change) || end > text + 300) continue;
        char nats[FKV_PLOT_NUMBER];
        end += sprintf(end, "%s %s %s nats", end == text ? "Not shown: taking out DC costs" : ",",
                       state_words[change->states & 3],
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
            if (!whole_cache(change) || !(local || change->kind == FKV_PROBE_FREQKV) ||
                !strncmp(change->label, "decompose", 9))
                continue;
            fkv_charts_add(&c, panel, local ? "local" : "freqkv", fkv_color_cycle(local),
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
                shown == FKV_COLORS || is_dc(change) || strstr(change->label, ": nothing");
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
    double *room = malloc(2 * (size_t)d->units.count * sizeof *room);
    for (int64_t w = 0; w < d->probe->window_count; w++)
        classes = classes && d->probe->windows[w].token_class;
    int status = room ? fkv_charts_open(&c, err)
                      : fkv_fail(err, "out of memory for %lld units", (long long)d->units.count);
    if (status || !classes) {
        free(room);
        if (!status) fkv_charts_close(&c);
        return status;
    }
    int panel = fkv_charts_panel(&c, "\u0394 nll", unit, NULL);
    c.chart[panel].across = true, c.chart[panel].level = 0;
    for (int32_t i = 0; i < d->probe->change_count && c.chart[panel].series < MOST; i++) {
        const struct fkv_probe_change *change = &d->probe->changes[i];
        bool policy = change->kind == FKV_PROBE_FREQKV || change->kind == FKV_PROBE_LOCAL ||
                      belongs(change, FILTERS);
        if (!whole_cache(change) || !policy || !strncmp(change->label, "decompose", 9)) continue;
        int series = c.chart[panel].series;
        for (int k = 0; k < FKV_CLASSES; k++) {
            int64_t tokens;
            struct fkv_interval y = fkv_damage_of_class(d, i, k, NULL, &tokens, room);
            if (!tokens) continue;
            int place = fkv_charts_name(&c, panel, fkv_class_names[k]);
            fkv_charts_add(&c, panel, change->label, fkv_color_cycle(series), FKV_LOOK_POINTS,
                           place, milli(y, 1));
        }
    }
    free(room);
    return finish(&c, d, &picture, at, FKV_OK, err);
}

/* ---- heads ---- */

enum { MAPS = 6 };

/* The changes of single heads, by label: first of each -> first [MAPS]; how many. All share a
 * scale, on which DC would leave the others no colour. */
static int find_maps(const struct fkv_probe *p, bool with_dc, int32_t first[MAPS]) {
    int maps = 0;
    for (int32_t i = 0; i < p->change_count && maps < MAPS; i++) {
        bool known = p->changes[i].kv_head < 0 || (!with_dc && is_dc(&p->changes[i]));
        for (int m = 0; m < maps && !known; m++)
            known = !strcmp(p->changes[first[m]].label, p->changes[i].label);
        if (!known) first[maps++] = i;
    }
    return maps;
}

/* One map: values [layers, heads], and dots where the correction for multiplicity lets a difference
 * stand: x, y [count]. */
static int gather_map(const struct fkv_damage *d, int32_t first, int measure, double *values,
                      double *x, double *y) {
    const struct fkv_probe *p = d->probe;
    int count = 0;
    for (int32_t i = 0; i < p->layers * p->kv_heads; i++) values[i] = NAN;
    for (int32_t i = 0; i < p->change_count; i++) {
        const struct fkv_probe_change *c = &p->changes[i];
        if (c->kv_head < 0 || strcmp(c->label, p->changes[first].label)) continue;
        values[c->layer * p->kv_heads + c->kv_head] = 1e3 * d->row[i].mean[measure].estimate;
        if (d->row[i].q[measure] < 0.05) x[count] = c->kv_head + 0.38, y[count++] = c->layer - 0.32;
    }
    return count;
}

/* "without 0.0019685:0.25, key" at a readable precision. */
static void name_map(const char *label, char out[FKV_PROBE_LABEL]) {
    double low, high;
    int end = 0;
    if (sscanf(label, "without %lf:%lf%n", &low, &high, &end) == 2 &&
        !strncmp(label + end, ", ", 2))
        snprintf(out, FKV_PROBE_LABEL, "without %.3g\u2013%.3g%.60s", low, high, label + end);
    else
        snprintf(out, FKV_PROBE_LABEL, "%s", label);
}

static int draw_maps(struct fkv_figure *f, const struct fkv_damage *d, int maps,
                     const int32_t *first, int measure, double *room, struct fkv_error *err) {
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
    double low = INFINITY, high = -INFINITY, *x = room + cells, *y = x + cells;
    int *names = malloc((size_t)(p->layers + p->kv_heads) * sizeof *names);
    if (!names) return fkv_fail(err, "out of memory for %zu heads", cells);
    for (int i = 0; i < p->layers + p->kv_heads; i++) names[i] = i;
    for (int m = 0; m < maps; m++) {
        gather_map(d, first[m], measure, room, x, y);
        for (size_t i = 0; i < cells; i++)
            if (isfinite(room[i])) low = fmin(low, room[i]), high = fmax(high, room[i]);
    }
    bool is_signed = measure == FKV_DAMAGE_NLL;
    if (!(high >= low)) low = high = 0; /* no number at all */
    if (is_signed) high = fmax(fabs(low), fabs(high)), low = -high;
    if (!(high > low)) high += 1, low -= is_signed;
    const struct fkv_color_bar bar = {
        .label = unit, .low = low, .high = high, .top = 1, .is_signed = is_signed};
    int status = FKV_OK;
    for (int m = 0; !status && m < maps; m++) {
        int dots = gather_map(d, first[m], measure, room, x, y);
        char title[FKV_PROBE_LABEL];
        name_map(p->changes[first[m]].label, title);
        status = fkv_figure_axes(f, m, title, &across, &down, NULL, 1, err);
        if (!status)
            status = fkv_figure_heatmap(f, m, p->layers, p->kv_heads, room, names, names, low, high,
                                        err);
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
    double *room = malloc(3 * cells * sizeof *room);
    if (!room) return fkv_fail(err, "out of memory for %zu heads", cells);
    int status = FKV_OK, rows = (maps + columns - 1) / columns;
    double width = fmin(7.2, fmax(4, 1.4 + columns * fmax(1.8, 0.3 * d->probe->kv_heads)));
    double height = fmin(10, 1.6 + rows * fmax(1.5, 0.5 + 0.18 * d->probe->layers));
    for (int m = 0; !status && m < FKV_DAMAGES; m++) {
        struct fkv_figure *f;
        char title[120], note[FKV_PLOT_NOTE], stem[300];
        snprintf(title, sizeof title, "%s of changing one head", damage_words[m]);
        snprintf(stem, sizeof stem, "%.270s_heads_%s", at->stem, fkv_damage_names[m]);
        describe(d, m == FKV_DAMAGE_NLL ? nll_test : d->floor ? kl_test : kl_untested, note);
        status = fkv_figure_create(width, height, rows, columns, title, &f, err);
        if (status) break;
        status = draw_maps(f, d, maps, first, m, room, err);
        if (status)
            fkv_figure_destroy(f);
        else
            status = fkv_charts_finish(f, note, at->folder, stem, at->provenance, err);
        at->figures += !status;
    }
    free(room);
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
