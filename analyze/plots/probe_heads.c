/* The damage of changing one head at a time: a map of layers and heads per family of changes, a
 * figure per damage, and one table of both. */
#include <math.h>
#include <stdio.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/probe_figure.h"
#include "analyze/plots/words.h"
#include "analyze/tables/csv.h"

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

static void draw_maps(struct fkv_figure *f, const struct fkv_damage *d, int maps,
                      const int32_t *first, int measure) {
    const struct fkv_probe *p = d->probe;
    const struct fkv_axis across = {.label = "KV head"}, down = {.label = "layer"};
    const struct fkv_line dot = {.label = "q < 0.05 (Benjamini\u2013Hochberg)",
                                 .color = {0, 0, 0, 1},
                                 .width = 0.9,
                                 .markers = true,
                                 .ringed = true,
                                 .scattered = true};
    size_t cells = (size_t)p->layers * (size_t)p->kv_heads;
    double low = INFINITY, high = -INFINITY, *values = fkv_figure_numbers(f, 3 * cells);
    if (!values) return;
    double *x = values + cells, *y = x + cells;
    for (int m = 0; m < maps; m++) {
        fill_map(d, first[m], measure, values, x, y);
        for (size_t i = 0; i < cells; i++)
            if (isfinite(values[i])) low = fmin(low, values[i]), high = fmax(high, values[i]);
    }
    bool is_signed = measure == FKV_DAMAGE_NLL;
    if (!(high >= low)) low = high = 0; /* no number at all */
    if (is_signed) high = fmax(fabs(low), fabs(high)), low = -high;
    if (!(high > low)) high += 1, low -= is_signed;
    const struct fkv_color_bar bar = {
        .label = fkv_plot_milli_nats, .low = low, .high = high, .top = 1, .is_signed = is_signed};
    fkv_figure_color_bar(f, &bar);
    for (int m = 0; m < maps; m++) {
        int dots = fill_map(d, first[m], measure, values, x, y);
        char title[FKV_PROBE_NAME];
        fkv_probe_name_alone(&p->changes[first[m]], title);
        fkv_figure_axes(f, m, title, &across, &down);
        fkv_figure_heatmap(f, m, p->layers, p->kv_heads, values, NULL, NULL);
        if (dots) fkv_figure_line(f, m, &dot, dots, x, y);
    }
}

static int write_csv(const struct fkv_damage *d, struct fkv_plot_target *to,
                     struct fkv_error *err) {
    struct fkv_atomic_file f;
    char name[FKV_PLOT_NAME];
    if (fkv_csv_open(&f, to->folder, fkv_plot_name(to, "heads.csv", name),
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

int fkv_plot_probe_heads(const struct fkv_damage *d, struct fkv_plot_target *to,
                         struct fkv_error *err) {
    int32_t first[MAPS];
    int maps = find_maps(d->probe, false, first);
    if (!maps) maps = find_maps(d->probe, true, first);
    if (!maps) return FKV_OK;
    const int columns = maps < 3 ? maps : maps == 4 ? 2 : 3, rows = (maps + columns - 1) / columns;
    double width = fmin(7.2, fmax(4, 1.4 + columns * fmax(1.8, 0.3 * d->probe->kv_heads)));
    double height = fmin(10, 1.6 + rows * fmax(1.5, 0.5 + 0.18 * d->probe->layers));
    for (int m = 0; m < FKV_DAMAGES; m++) {
        struct fkv_figure *f;
        char title[120], note[FKV_PLOT_NOTE], name[64];
        snprintf(title, sizeof title, "%s of changing one head", fkv_plot_damage_words[m]);
        snprintf(name, sizeof name, "heads_%s", fkv_damage_names[m]);
        fkv_probe_describe(d,
                           m == FKV_DAMAGE_NLL ? nll_test
                           : d->excess         ? kl_test
                                               : kl_untested,
                           note);
        if (fkv_plot_check_ours(to, name, err) ||
            fkv_figure_create(width, height, rows, columns, title, &f, err))
            return FKV_FAILED;
        fkv_figure_note(f, "%s", note);
        draw_maps(f, d, maps, first, m);
        if (fkv_plot_finish(f, to, err, "%s", name)) return FKV_FAILED;
    }
    return write_csv(d, to, err);
}
