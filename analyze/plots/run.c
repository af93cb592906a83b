/* Figures of runs: along a sweep, along a text, along the rounds of compression. A token that no
 * compression preceded is exactly full attention; it is in no panel over rounds or distance. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/files.h"
#include "analyze/plots/parts.h"

enum { BINS = 24, MOST_ROUNDS = 64 };

static struct fkv_interval around(double mean, double se) {
    return (struct fkv_interval){mean, mean - 1.96 * se, mean + 1.96 * se};
}

/* ---- sums over tokens, by bin and by unit of the bootstrap ---- */

struct cells { /* [bins, units.count] */
    int bins;
    struct fkv_units units;
    double *sum, *count, *place; /* place [bins]: sum of the tokens' own */
};

static void cells_close(struct cells *c) {
    fkv_units_free(&c->units);
    free(c->sum), free(c->count), free(c->place);
}

static int cells_open(struct cells *c, int bins, const struct fkv_run *run, struct fkv_error *err) {
    *c = (struct cells){.bins = bins};
    if (fkv_run_units(run, &c->units, err)) return FKV_FAILED;
    size_t n = (size_t)bins * (size_t)c->units.count + 1;
    c->sum = calloc(n, sizeof(double)), c->count = calloc(n, sizeof(double));
    c->place = calloc((size_t)bins, sizeof(double));
    return c->sum && c->count && c->place ? FKV_OK
                                          : fkv_fail(err, "out of memory for %d bins", bins);
}

/* ---- along a sweep ---- */

/* The label of the first run with run i's label decides the colour: labels are numbered as they
 * come. */
static int color_of(const struct fkv_run *runs, int32_t count, int32_t i) {
    char label[FKV_RUN_LABEL], other[FKV_RUN_LABEL], earlier[FKV_RUN_LABEL];
    int color = 0;
    fkv_run_label(runs, count, i, label);
    for (int32_t k = 0; k < count; k++) {
        bool seen = false;
        fkv_run_label(runs, count, k, other);
        if (!strcmp(label, other)) return color;
        for (int32_t m = 0; m < k; m++) {
            fkv_run_label(runs, count, m, earlier);
            seen = seen || !strcmp(earlier, other);
        }
        color += !seen;
    }
    return color;
}

void fkv_plot_leave_out(struct fkv_plot_place *at, const char *file, const char *figure,
                        const char *reason) {
    if (!at->left_out) return;
    json_array_append_new(at->left_out, json_pack("{s:o, s:s, s:s}", "file", fkv_json_string(file),
                                                  "figure", figure, "reason", reason));
}

/* Mean KL over scored tokens; its interval is formed over all of them at once. */
static struct fkv_interval mean_kl(const struct fkv_run *run) {
    struct fkv_interval y = {run->mean_kl, NAN, NAN};
    struct cells c = {0};
    if (!run->joined && isfinite(run->mean_kl) && !cells_open(&c, 1, run, NULL)) {
        for (int32_t d = 0; d < run->column_sets; d++) {
            const struct fkv_run_columns *t = &run->columns[d];
            for (int64_t i = 0, seen = 0; t->kl && i < t->count; i++) {
                int64_t block = seen / FKV_BOOTSTRAP_BLOCK;
                if (!isfinite(t->nll[i])) continue;
                seen++;
                if (!isfinite(t->kl[i])) continue;
                int64_t at = fkv_unit_at(&c.units, d, block);
                c.sum[at] += t->kl[i], c.count[at] += 1;
            }
        }
        y = fkv_ratio_interval(&c.units, c.sum, c.count, NULL);
    }
    cells_close(&c);
    return y;
}

static struct fkv_interval quantity(const struct fkv_run *run, int which) {
    if (which == 1) return around(run->delta_nll, run->delta_nll_se);
    if (which == 2) return mean_kl(run);
    struct fkv_interval nll = around(run->mean_nll, run->mean_nll_se);
    return (struct fkv_interval){exp(nll.estimate), exp(nll.low), exp(nll.high)};
}

/* Of full attention, where it is a valid baseline of all runs and the same one. */
static double full_perplexity(const struct fkv_run *runs, int32_t count) {
    double nll = runs[0].mean_nll - runs[0].delta_nll;
    for (int32_t i = 0; i < count; i++)
        if (runs[i].baseline_invalid[0] ||
            !(fabs(runs[i].mean_nll - runs[i].delta_nll - nll) < 1e-6))
            return NAN;
    return exp(nll);
}

/* "95%, bootstrap over 3 documents and ..."; of the first run, which all share their texts
 * with. */
static const char *name_units(const struct fkv_run *run, char text[FKV_SE_WORDS]) {
    struct fkv_units units;
    text[0] = 0;
    if (fkv_run_units(run, &units, NULL)) return text;
    fkv_se_unit_words(units.kind, units.documents, "blocks of 256 scored tokens", text);
    fkv_units_free(&units);
    return text;
}

static const char *const sweep_titles[] = {"perplexity", "\u0394 nll to full attention",
                                           "KL to full attention"};

/* Fills a panel; a run without a ratio is one value along the whole axis. Returns the panel, -1
 * where it is empty. */
static int fill_sweep(struct fkv_charts *c, int which, const struct fkv_run *runs, int32_t count,
                      struct fkv_plot_place *at) {
    static const char *const units[] = {"perplexity", "nats per token", "nats per token"};
    char label[FKV_RUN_LABEL], figure[FKV_RUN_LABEL];
    int panel = -1;
    bool any_ratio = false;
    snprintf(figure, sizeof figure, "%s_perplexity: %s", at->stem, sweep_titles[which]);
    for (int32_t i = 0; i < count; i++)
        any_ratio = any_ratio || (isfinite(fkv_run_gamma(&runs[i])) &&
                                  isfinite(quantity(&runs[i], which).estimate));
    for (int32_t i = 0; i < count; i++) {
        struct fkv_interval y = quantity(&runs[i], which);
        if (!isfinite(y.estimate)) {
            fkv_plot_leave_out(at, runs[i].path, figure, "the run has no baseline");
            continue;
        }
        if (!any_ratio) {
            fkv_plot_leave_out(at, runs[i].path, figure,
                               "no run has a retaining ratio, which is the axis");
            continue;
        }
        if (panel < 0)
            panel =
                fkv_charts_panel(c, sweep_titles[which], "retaining ratio \u03b3", units[which]);
        fkv_run_label(runs, count, i, label);
        fkv_charts_add(c, panel, label, fkv_color_cycle(color_of(runs, count, i)), FKV_LOOK_JOINED,
                       fkv_run_gamma(&runs[i]), y);
    }
    return panel;
}

static int plot_sweep(const struct fkv_run *runs, int32_t count, struct fkv_plot_place *at,
                      struct fkv_error *err) {
    struct fkv_charts c;
    char stem[300], note[FKV_PLOT_NOTE], words[FKV_SE_WORDS];
    double full = full_perplexity(runs, count);
    bool flat = false;
    for (int32_t i = 0; i < count; i++) flat = flat || !isfinite(fkv_run_gamma(&runs[i]));
    if (runs[0].joined)
        snprintf(words, sizeof words,
                 "by the run's own standard errors (windows of joined texts; KL: none)");
    else
        name_units(&runs[0], words);
    snprintf(note, sizeof note, "Whiskers: 95%%, of the mean over all scored tokens, %s.%s%s",
             words, isfinite(full) ? " Grey: full attention." : "",
             flat ? " Dashed: policies without a ratio." : "");
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int which = 0; which < 3; which++) {
        int panel = fill_sweep(&c, which, runs, count, at);
        if (panel < 0) continue;
        c.chart[panel].level = which ? 0 : full;
        c.chart[panel].apart = true;
    }
    for (int32_t i = 0; i < count; i++)
        if (runs[i].baseline_invalid[0]) {
            snprintf(note + strlen(note), sizeof note - strlen(note),
                     " The baseline is no reference: %.300s.", runs[i].baseline_invalid);
            break;
        }
    snprintf(stem, sizeof stem, "%.280s_perplexity", at->stem);
    const struct fkv_charts_page page = {
        at->folder,
        stem,
        "Perplexity, and the distance to full attention, over the retaining ratio",
        note,
        c.panels < 2 ? 4.6 : 7.2,
        3.1,
        3,
        NULL};
    int status = c.panels ? fkv_charts_write(&c, &page, at->provenance, err) : FKV_OK;
    at->figures += c.panels > 0;
    fkv_charts_close(&c);
    return status;
}

/* ---- over distance and rounds ---- */

/* Edges 1, 1.5, 2, 3, 4, 6, ...: the first tokens after a compression are told apart, the many
 * later ones are not. */
static int bin_of(double since) {
    int octave = (int)floor(log2(since));
    return 2 * octave + (since >= 1.5 * ldexp(1, octave));
}

/* kl: else delta nll; by_round: else by distance */
static void fill_cells(const struct fkv_run *run, bool kl, bool by_round, struct cells *c) {
    for (int32_t d = 0; d < run->column_sets; d++) {
        const struct fkv_run_columns *t = &run->columns[d];
        for (int64_t i = 0, seen = 0; i < t->count; i++) {
            int64_t block = seen / FKV_BOOTSTRAP_BLOCK;
            seen += isfinite(t->nll[i]);
            double value = kl ? t->kl[i] : (double)t->nll[i] - t->baseline_nll[i];
            if (!isfinite(t->nll[i]) || !isfinite(value) || !(t->round[i] >= 1) ||
                !(t->since[i] >= 1))
                continue;
            int bin = by_round ? (int)floor(t->round[i] + 0.5) : bin_of(t->since[i]);
            if (bin >= c->bins) continue;
            int64_t at = bin * c->units.count + fkv_unit_at(&c->units, d, block);
            c->sum[at] += value, c->count[at] += 1;
            c->place[bin] += by_round ? bin : t->since[i];
        }
    }
}

static double tokens_in(const struct cells *c, int bin) {
    double tokens = 0;
    for (int64_t u = 0; u < c->units.count; u++) tokens += c->count[bin * c->units.count + u];
    return tokens;
}

/* The mean of fewer tokens says nothing. A round that the text cuts short holds only tokens right
 * after a compression, which are hit hardest, and would look worse than all before it. */
static const double least_tokens = 20, round_share = 4;

static int add_cells(struct fkv_charts *charts, int panel, const struct fkv_run *run,
                     const char *label, struct fkv_color color, bool kl, bool by_round,
                     struct fkv_error *err) {
    struct cells c;
    int status = cells_open(&c, by_round ? MOST_ROUNDS : 2 * BINS, run, err);
    if (!status) fill_cells(run, kl, by_round, &c);
    double least = least_tokens, most = 0;
    for (int b = 0; !status && by_round && b < c.bins; b++) most = fmax(most, tokens_in(&c, b));
    least = fmax(least, by_round ? most / round_share : 0);
    for (int b = 0; !status && b < c.bins; b++) {
        double tokens = tokens_in(&c, b);
        if (tokens < least) continue;
        struct fkv_interval y = fkv_ratio_interval(&c.units, c.sum + b * c.units.count,
                                                   c.count + b * c.units.count, NULL);
        fkv_charts_add(charts, panel, label, color, FKV_LOOK_LINE, c.place[b] / tokens, y);
    }
    cells_close(&c);
    return status;
}

static bool has_differences(const struct fkv_run *run) {
    for (int32_t d = 0; d < run->column_sets; d++)
        if (!run->columns[d].baseline_nll || !run->columns[d].kl || !run->columns[d].round ||
            !run->columns[d].since)
            return false;
    return run->actions.count > 0;
}

/* Runs of the first run's policy and options take the map of ordered colours; others, its rivals,
 * one of their own each, dashed. */
static struct fkv_color color_at(const struct fkv_run *runs, int32_t count, int32_t i,
                                 bool *rival) {
    int before = 0, alike = 0, lead = 0;
    while (!has_differences(&runs[lead])) lead++;
    *rival = strcmp(runs[i].policy_label, runs[lead].policy_label);
    for (int32_t k = 0; k < count; k++) {
        if (!has_differences(&runs[k]) ||
            !strcmp(runs[k].policy_label, runs[lead].policy_label) == *rival)
            continue;
        before += k < i, alike++;
    }
    return *rival ? fkv_color_cycle(1 + before)
                  : fkv_color_map(alike > 1 ? 0.92 * before / (alike - 1) : 0.3);
}

/* Axis labels: so far, since the last. */
static const char *const *words_for(const struct fkv_run *runs, int32_t count) {
    static const char *const words[3][2] = {
        {"compressions so far", "tokens since the last compression"},
        {"evictions so far", "tokens since the last eviction"},
        {"compressions or evictions so far", "tokens since the last of them"}};
    bool compress = false, evict = false;
    for (int32_t i = 0; i < count; i++) {
        if (!has_differences(&runs[i])) continue;
        evict = evict || runs[i].actions.evictions;
        compress = compress || !runs[i].actions.evictions;
    }
    return words[compress && evict ? 2 : evict];
}

static int plot_distance(const struct fkv_run *runs, int32_t count, struct fkv_plot_place *at,
                         struct fkv_error *err) {
    struct fkv_charts c;
    char stem[300], label[FKV_RUN_LABEL + 32], figure[300];
    int status = fkv_charts_open(&c, err), shown = 0;
    snprintf(figure, sizeof figure, "%.280s_distance", at->stem);
    for (int32_t i = 0; i < count; i++) {
        shown += has_differences(&runs[i]);
        if (!has_differences(&runs[i]))
            fkv_plot_leave_out(at, runs[i].path, figure,
                               runs[i].actions.count
                                   ? "the run has no baseline"
                                   : "the run has no compressions and no evictions on a schedule");
    }
    const char *const *actions_word = words_for(runs, count);
    for (int which = 0; !status && shown && which < 4; which++) {
        bool kl = which < 2, by_round = which % 2;
        int panel =
            fkv_charts_panel(&c, kl ? "KL" : "\u0394 nll",
                             by_round ? actions_word[0] : actions_word[1], "nats per token");
        c.chart[panel].logarithmic_x = !by_round, c.chart[panel].logarithmic_y = kl;
        c.chart[panel].level = kl ? NAN : 0;
        c.chart[panel].integers = by_round;
        for (int32_t i = 0; !status && i < count; i++) {
            if (!has_differences(&runs[i])) continue;
            bool rival;
            int32_t series = c.chart[panel].series;
            struct fkv_color color = color_at(runs, count, i, &rival);
            fkv_run_label(runs, count, i, label);
            snprintf(label + strlen(label), sizeof label - strlen(label), ", \u03b3 = %.2g",
                     fkv_run_gamma(&runs[i]));
            status = add_cells(&c, panel, &runs[i], label, color, kl, by_round, err);
            if (c.chart[panel].series == series) continue;
            c.chart[panel].one[series].dashed = rival;
            c.chart[panel].one[series].bare =
                shown > 3; /* bands of many runs hide each other; the CSV has them */
        }
    }
    char note[FKV_PLOT_NOTE], words[FKV_SE_WORDS], intervals[FKV_SE_WORDS + 80];
    if (runs[0].joined)
        snprintf(intervals, sizeof intervals, "No intervals: windows of joined texts overlap");
    else
        snprintf(intervals, sizeof intervals, "%s: 95%%, bootstrap %s",
                 shown > 3 ? "Intervals in the table beside the figure" : "Shading",
                 name_units(&runs[0], words));
    snprintf(note, sizeof note,
             "Means over scored tokens after the first compression; rounds that the text cuts "
             "short are left out. %s.",
             intervals);
    snprintf(stem, sizeof stem, "%.280s_distance", at->stem);
    const struct fkv_charts_page page = {
        at->folder, stem, "Difference to full attention, after a compression and over compressions",
        note,       7.2,  5.6,
        2,          NULL};
    if (!status && shown) status = fkv_charts_write(&c, &page, at->provenance, err);
    at->figures += shown > 0;
    fkv_charts_close(&c);
    return status;
}

int fkv_plot_runs(const struct fkv_run *runs, int32_t count, struct fkv_plot_place *at,
                  struct fkv_error *err) {
    return plot_sweep(runs, count, at, err) || plot_distance(runs, count, at, err) ? FKV_FAILED
                                                                                   : FKV_OK;
}

/* ---- iterated spectra ---- */

/* Sums of one state over compressions: before, kept [layers * heads, rounds]. */
static void add_up_rounds(const struct fkv_run *run, int state, int rounds, double *before,
                          double *kept) {
    const struct fkv_run_actions *c = &run->actions;
    for (int64_t i = 0; i < c->count; i++) {
        if (c->state[i] != state || c->round[i] > rounds) continue;
        int64_t at = ((int64_t)c->layer[i] * run->kv_heads + c->head[i]) * rounds + c->round[i] - 1;
        before[at] += c->before[i], kept[at] += c->kept[i];
    }
}

/* The mean over a layer's heads, and as its interval the least and the largest of them. */
static struct fkv_interval over_heads(const struct fkv_run *run, int32_t layer, int round,
                                      int rounds, const double *before, const double *kept) {
    struct fkv_interval y = {0, INFINITY, -INFINITY};
    for (int32_t h = 0; h < run->kv_heads; h++) {
        int64_t at = ((int64_t)layer * run->kv_heads + h) * rounds + round;
        double share = kept[at] / before[at];
        y.estimate += share / run->kv_heads;
        y.low = fmin(y.low, share), y.high = fmax(y.high, share);
    }
    return isfinite(y.estimate) ? y : (struct fkv_interval){NAN, NAN, NAN};
}

static int add_rounds(struct fkv_charts *c, const struct fkv_run *run, int rounds,
                      const int32_t *layers, struct fkv_error *err) {
    size_t n = (size_t)run->layers * (size_t)run->kv_heads * (size_t)rounds;
    double *before = malloc(2 * n * sizeof *before), *kept = before + n;
    if (!before) return fkv_fail(err, "out of memory for %d rounds", rounds);
    for (int state = 0; state < 2; state++) {
        int panel = fkv_charts_panel(c, state ? "values" : "keys",
                                     run->actions.evictions ? "eviction" : "round of compression",
                                     "share of energy kept");
        c->chart[panel].integers = true;
        memset(before, 0, 2 * n * sizeof *before);
        add_up_rounds(run, state, rounds, before, kept);
        for (int32_t l = 0; l < run->layers; l++)
            for (int r = 0; r < rounds; r++) {
                char label[32];
                snprintf(label, sizeof label, "layer %d", l);
                fkv_charts_add(c, panel, label, fkv_plot_color(run->layers, layers, l),
                               FKV_LOOK_LINE, r + 1, over_heads(run, l, r, rounds, before, kept));
            }
        for (int s = 0; s < c->chart[panel].series; s++) {
            c->chart[panel].one[s].bare = run->layers > FKV_PLOT_FEW;
            c->chart[panel].one[s].unnamed = run->layers > 1;
        }
    }
    free(before);
    return FKV_OK;
}

int fkv_plot_rounds(const struct fkv_run *run, struct fkv_plot_place *at, struct fkv_error *err) {
    int rounds = 0;
    for (int64_t i = 0; i < run->actions.count; i++)
        if (run->actions.round[i] > rounds) rounds = run->actions.round[i];
    if (!rounds) return FKV_OK;
    rounds = rounds < MOST_ROUNDS ? rounds : MOST_ROUNDS;
    struct fkv_charts c;
    int32_t *layers = malloc((size_t)run->layers * sizeof *layers);
    int status = layers ? fkv_charts_open(&c, err)
                        : fkv_fail(err, "out of memory for %d layers", run->layers);
    if (status) {
        free(layers);
        return status;
    }
    for (int32_t l = 0; l < run->layers; l++) layers[l] = l;
    status = add_rounds(&c, run, rounds, layers, err);
    char stem[300], title[400];
    const char *action = run->actions.evictions ? "eviction" : "compression";
    snprintf(stem, sizeof stem, "%.280s_rounds", at->stem);
    snprintf(title, sizeof title, "Energy that each %s keeps (%s, \u03b3 = %.3g, window %d)",
             action, run->policy_label, fkv_run_gamma(run), run->window);
    const struct fkv_color_bar bar = {.label = "layer",
                                      .low = 0,
                                      .high = run->layers - 1,
                                      .top = 0.92,
                                      .integers = true,
                                      .steps = run->layers <= FKV_PLOT_STEPS ? run->layers : 0,
                                      .names = layers};
    const struct fkv_charts_page page = {
        at->folder,
        stem,
        title,
        !run->low_pass ? "Energy kept over energy before, DC included, summed over texts; lines: "
                         "mean over heads, shading: least to largest head."
                       : "Energy kept over energy before, DC included, summed over texts; lines: "
                         "mean over heads, shading: least to "
                         "largest head. Round 1 meets a fresh cache; later rounds meet one that is "
                         "mostly compressed already.",
        7.2,
        3.4,
        2,
        run->layers > 1 ? &bar : NULL};
    if (!status) status = fkv_charts_write(&c, &page, at->provenance, err);
    at->figures++;
    fkv_charts_close(&c);
    free(layers);
    return status;
}
