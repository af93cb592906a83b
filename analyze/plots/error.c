/* What the lowest coefficients keep and lose, beside white noise. Upper row with DC, lower row
 * without: DC carries most of a key's energy, and a figure with it alone shows little but that.
 * Layers are lines; the spread over heads is a band per layer where few layers leave room for that,
 * and one band over all layers and heads where not. */
#include "analyze/plots/figures.h"
#include "analyze/plots/layer_color.h"
#include "analyze/plots/words.h"

#include <stdio.h>
#include <stdlib.h>

static const struct fkv_color spread_color = {0.45, 0.45, 0.45, 0.18},
                              floor_color = {0.45, 0.45, 0.45, 1}, white_color = {0, 0, 0, 1};

struct curves { /* [gammas] each, for one layer or all */
    double *mean, *low, *high;
};

/* Mean, least and largest over the heads of layers [first, last). NaN is left out. */
static void spread(const struct fkv_error_curves *e, const double *values, int first, int last,
                   struct curves *c) {
    for (int g = 0; g < e->gammas; g++) {
        double sum = 0, low = INFINITY, high = -INFINITY;
        int count = 0;
        for (int i = first * e->heads; i < last * e->heads; i++) {
            double v = values[(size_t)i * (size_t)e->gammas + (size_t)g];
            if (!isfinite(v)) continue;
            sum += v, count++;
            low = fmin(low, v), high = fmax(high, v);
        }
        c->mean[g] = count ? sum / count : NAN;
        c->low[g] = count ? low : NAN, c->high[g] = count ? high : NAN;
    }
}

static int add_layers(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                      const double *values, struct curves *c, struct fkv_error *err) {
    bool few = e->layers <= FKV_PLOT_FEW;
    if (!few) {
        spread(e, values, 0, e->layers, c);
        if (fkv_figure_band(f, panel, "range over all layers and heads", spread_color, e->gammas,
                            e->gamma, c->low, c->high, err))
            return FKV_FAILED;
    }
    for (int i = 0; i < e->layers; i++) {
        const int l = fkv_plot_drawn(e->layers, i);
        char label[32];
        snprintf(label, sizeof label, "layer %d", e->layer_index[l]);
        struct fkv_line line = fkv_plot_layer_line(e->layers, e->layer_index, l);
        line.label = e->layers == 1 ? label : NULL;
        line.markers = e->gammas <= 20 && few;
        spread(e, values, l, l + 1, c);
        if (fkv_figure_line(f, panel, &line, e->gammas, e->gamma, c->mean, err)) return FKV_FAILED;
        struct fkv_color shade = line.color;
        shade.a = 0.15;
        if (few && e->heads > 1 &&
            fkv_figure_band(f, panel, NULL, shade, e->gammas, e->gamma, c->low, c->high, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int add_floor(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                     struct fkv_error *err) {
    double floor = 0;
    for (int i = 0; e->floor && i < e->layers * e->heads; i++) floor = fmax(floor, e->floor[i]);
    if (!(floor > 0) || e->gammas < 2) return FKV_OK;
    const double x[2] = {e->gamma[0], e->gamma[e->gammas - 1]}, y[2] = {floor, floor};
    char label[64], number[FKV_PLOT_NUMBER];
    snprintf(label, sizeof label, "storage rounding alone: at most %s",
             fkv_plot_number(number, floor, 1));
    const struct fkv_line line = {
        .label = label, .color = floor_color, .width = 0.9, .dashed = true};
    return fkv_figure_line(f, panel, &line, 2, x, y, err);
}

/* What the same ratio does to white noise: chance. */
static int add_white(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                     double (*white)(double gamma), double *scratch, struct fkv_error *err) {
    const struct fkv_line line = {
        .label = "white noise", .color = white_color, .width = 1.1, .dashed = true};
    for (int g = 0; g < e->gammas; g++) scratch[g] = white(e->gamma[g]);
    return fkv_figure_line(f, panel, &line, e->gammas, e->gamma, scratch, err);
}

/* Panels in a row: the measures that are drawn. */
static int columns(void) {
    int most = 1;
    for (int m = 0; m < fkv_measure_count; m++)
        if (fkv_measures[m].panel > most) most = fkv_measures[m].panel;
    return most;
}

static int fill_error(struct fkv_figure *f, const struct fkv_error_curves *e, struct curves *c,
                      struct fkv_error *err) {
    for (int i = 0; i < 2 * fkv_measure_count; i++) {
        const int no_dc = i / fkv_measure_count;
        const struct fkv_measure *m = &fkv_measures[i % fkv_measure_count];
        const int panel = no_dc * columns() + m->panel - 1;
        const struct fkv_axis x = {no_dc ? "retaining ratio \u03b3" : NULL, FKV_FIT, FKV_FIT,
                                   .logarithmic = false};
        const struct fkv_axis y = {m->axis, FKV_FIT, FKV_FIT, .logarithmic = false};
        char title[96];
        const double *curve = fkv_error_curve(e, i % fkv_measure_count, no_dc);
        if (!m->panel || !curve) continue;
        snprintf(title, sizeof title, "%s, %s DC", m->title, no_dc ? "without" : "with");
        if (fkv_figure_axes(f, panel, title, &x, &y, NULL, 1, err) ||
            add_layers(f, panel, e, curve, c, err) ||
            (no_dc && m->white && add_white(f, panel, e, m->white, c->mean, err)) ||
            (m->rounding && add_floor(f, panel, e, err)))
            return FKV_FAILED;
    }
    return fkv_plot_add_color_bar(f, "layer", e->layers, e->layer_index, err);
}

int fkv_plot_error(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                   struct fkv_error *err) {
    struct fkv_figure *f;
    char title[128], note[FKV_PLOT_NOTE], name[64];
    snprintf(title, sizeof title,
             "What the L = \u230a\u03b3n\u230b lowest DCT coefficients of %s keep and lose",
             fkv_plot_state_words[e->state]);
    snprintf(note, sizeof note, "n\u00a0=\u00a0%d tokens.%s%s%s", e->n,
             e->heads > 1 ? " Lines: mean over heads." : "",
             e->layers > FKV_PLOT_FEW ? " Strong: eight layers, evenly spaced." : "",
             e->layers <= FKV_PLOT_FEW && e->heads > 1 ? " Shading: least to largest over heads."
                                                       : "");
    if (fkv_figure_create(3.3 * columns(), 5.2, 2, columns(), title, &f, err)) return FKV_FAILED;
    double *rows = malloc(3 * (size_t)e->gammas * sizeof *rows);
    struct curves c = {rows, rows + e->gammas, rows + 2 * e->gammas};
    int rc = rows ? fill_error(f, e, &c, err) : fkv_fail(err, "figure: out of memory");
    free(rows);
    snprintf(name, sizeof name, "error_%s", fkv_state_names[e->state]);
    return fkv_plot_finish(f, rc, note, name, to, err);
}
