/* What the lowest coefficients keep and lose, beside white noise and beside other bases.
 *
 * Beside white noise: upper row with DC, lower row without: DC carries most of a key's energy, and
 * a figure with it alone shows little but that. Layers are lines; the spread over heads is a band
 * per layer where few layers leave room for that, and one band over all layers and heads where not.
 *
 * Beside other bases at equal cost: the errors, and the errors in units of the DCT's, where the
 * difference between curves that lie together can be seen. */
#include "analyze/measure/bounds.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/layer_color.h"
#include "analyze/plots/words.h"

#include <stdio.h>

static const struct fkv_color spread_color = {0.45, 0.45, 0.45, 0.18},
                              floor_color = {0.45, 0.45, 0.45, 1}, white_color = {0, 0, 0, 1};
static const char ratio_label[] = "retaining ratio \u03b3";

struct curves { /* [gammas] each, for one layer or all */
    double *mean, *low, *high;
};

/* False without memory. */
static bool make_curves(struct fkv_figure *f, const struct fkv_error_curves *e, struct curves *c) {
    double *rows = fkv_figure_numbers(f, 3 * (size_t)e->gammas);
    if (rows) *c = (struct curves){rows, rows + e->gammas, rows + 2 * e->gammas};
    return rows;
}

/* Mean, least and largest of values / unit over the heads of layers [first, last); unit NULL: of
 * values. NaN is left out. */
static void spread(const struct fkv_error_curves *e, const double *values, const double *unit,
                   int first, int last, struct curves *c) {
    for (int g = 0; g < e->gammas; g++) {
        double sum = 0, low = INFINITY, high = -INFINITY;
        int count = 0;
        for (int i = first * e->heads; i < last * e->heads; i++) {
            const size_t at = (size_t)i * (size_t)e->gammas + (size_t)g;
            const double v = values[at] / (unit ? unit[at] : 1);
            if (!isfinite(v)) continue;
            sum += v, count++;
            low = fmin(low, v), high = fmax(high, v);
        }
        c->mean[g] = count ? sum / count : NAN;
        c->low[g] = count ? low : NAN, c->high[g] = count ? high : NAN;
    }
}

/* ---- beside white noise ---- */

static void add_layers(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                       const double *values, struct curves *c) {
    bool few = e->layers <= FKV_PLOT_FEW;
    if (!few) {
        spread(e, values, NULL, 0, e->layers, c);
        fkv_figure_band(f, panel, "range over all layers and heads", spread_color, e->gammas,
                        e->gamma, c->low, c->high);
    }
    for (int i = 0; i < e->layers; i++) {
        const int l = fkv_plot_drawn(e->layers, i);
        char label[32];
        snprintf(label, sizeof label, "layer %d", e->layer_index[l]);
        struct fkv_line line = fkv_plot_layer_line(e->layers, e->layer_index, l);
        line.label = e->layers == 1 ? label : NULL;
        line.markers = e->gammas <= 20 && few;
        spread(e, values, NULL, l, l + 1, c);
        fkv_figure_line(f, panel, &line, e->gammas, e->gamma, c->mean);
        struct fkv_color shade = line.color;
        shade.a = 0.15;
        if (few && e->heads > 1)
            fkv_figure_band(f, panel, NULL, shade, e->gammas, e->gamma, c->low, c->high);
    }
}

static void add_floor(struct fkv_figure *f, int panel, const struct fkv_error_curves *e) {
    double floor = 0;
    for (int i = 0; e->floor && i < e->layers * e->heads; i++) floor = fmax(floor, e->floor[i]);
    if (!(floor > 0) || e->gammas < 2) return;
    const double x[2] = {e->gamma[0], e->gamma[e->gammas - 1]}, y[2] = {floor, floor};
    char label[64], number[FKV_PLOT_NUMBER];
    snprintf(label, sizeof label, "storage rounding alone: at most %s",
             fkv_plot_number(number, floor, 1));
    const struct fkv_line line = {
        .label = label, .color = floor_color, .width = 0.9, .dashed = true};
    fkv_figure_line(f, panel, &line, 2, x, y);
}

/* What the same ratio does to white noise: chance. scratch [gammas] */
static void add_white(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                      double (*white)(double gamma), double *scratch) {
    const struct fkv_line line = {
        .label = "white noise", .color = white_color, .width = 1.1, .dashed = true};
    for (int g = 0; g < e->gammas; g++) scratch[g] = white(e->gamma[g]);
    fkv_figure_line(f, panel, &line, e->gammas, e->gamma, scratch);
}

/* Panels in a row: the measures that are drawn. */
static int columns(void) {
    int most = 1;
    for (int m = 0; m < fkv_measure_count; m++)
        if (fkv_measures[m].panel > most) most = fkv_measures[m].panel;
    return most;
}

static void add_panels(struct fkv_figure *f, const struct fkv_error_curves *e, struct curves *c) {
    for (int i = 0; i < 2 * fkv_measure_count; i++) {
        const int no_dc = i / fkv_measure_count;
        const struct fkv_measure *m = &fkv_measures[i % fkv_measure_count];
        const int panel = no_dc * columns() + m->panel - 1;
        const struct fkv_axis x = {.label = no_dc ? ratio_label : NULL}, y = {.label = m->axis};
        char title[96];
        const double *curve = fkv_error_curve(e, i % fkv_measure_count, no_dc);
        if (!m->panel || !curve) continue;
        snprintf(title, sizeof title, "%s, %s DC", m->title, no_dc ? "without" : "with");
        fkv_figure_axes(f, panel, title, &x, &y);
        add_layers(f, panel, e, curve, c);
        if (no_dc && m->white) add_white(f, panel, e, m->white, c->mean);
        if (m->rounding) add_floor(f, panel, e);
    }
}

int fkv_plot_error(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                   struct fkv_error *err) {
    struct fkv_figure *f;
    struct curves c;
    char title[128];
    snprintf(title, sizeof title,
             "What the L = \u230a\u03b3n\u230b lowest DCT coefficients of %s keep and lose",
             fkv_plot_state_words[e->state]);
    if (fkv_figure_create(3.3 * columns(), 5.2, 2, columns(), title, &f, err)) return FKV_FAILED;
    fkv_figure_note(
        f, "n\u00a0=\u00a0%d tokens.%s%s%s", e->n, e->heads > 1 ? " Lines: mean over heads." : "",
        e->layers > FKV_PLOT_FEW ? " Strong: eight layers, evenly spaced." : "",
        e->layers <= FKV_PLOT_FEW && e->heads > 1 ? " Shading: least to largest over heads." : "");
    if (make_curves(f, e, &c)) add_panels(f, e, &c);
    fkv_plot_add_color_bar(f, "layer", e->layers, e->layer_index);
    return fkv_plot_finish(f, to, err, "error_%s", fkv_state_names[e->state]);
}

/* ---- beside other bases ---- */

/* A line per basis over `unit`. */
static void add_bases(struct fkv_figure *f, int panel, const struct fkv_error_curves *e,
                      const double *unit, struct curves *c) {
    for (int i = 0; i < FKV_BASES; i++) {
        struct fkv_color shade = fkv_color_cycle(i);
        const struct fkv_line line = {
            .label = fkv_bases[i].words, .color = shade, .width = 1.2, .markers = e->gammas <= 20};
        shade.a = 0.15;
        spread(e, fkv_error_curve(e, fkv_bases[i].measure, true), unit, 0, e->layers, c);
        if (e->layers * e->heads > 1)
            fkv_figure_band(f, panel, NULL, shade, e->gammas, e->gamma, c->low, c->high);
        fkv_figure_line(f, panel, &line, e->gammas, e->gamma, c->mean);
    }
}

int fkv_plot_bounds(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                    struct fkv_error *err) {
    const struct fkv_axis x = {.label = ratio_label},
                          y = {.label = "\u2016x \u2212 x_{L}\u2016 / \u2016x\u2016, without DC",
                               .high = FKV_FIT},
                          ratio = {.label = "error / error of the DCT"};
    struct fkv_figure *f;
    struct curves c;
    char title[128];
    if (!fkv_error_curve(e, FKV_KLT_ERROR, true)) return FKV_OK;
    snprintf(title, sizeof title, "How good a basis the DCT is for %s",
             fkv_plot_state_words[e->state]);
    if (fkv_figure_create(7.0, 3.6, 1, 2, title, &f, err)) return FKV_FAILED;
    fkv_figure_note(f,
                    "n\u00a0=\u00a0%d tokens. All keep the means, which count as one coefficient. "
                    "KLT: eigenvectors of the Toeplitz autocovariance of %s. SVD: each segment's "
                    "own, r\u00a0(n\u00a0+\u00a0head_dim) numbers. Lines: mean over layers and "
                    "heads; shading: least to largest.",
                    e->n, e->fitted_to);
    fkv_figure_axes(f, 0, NULL, &x, &y);
    fkv_figure_axes(f, 1, NULL, &x, &ratio);
    if (make_curves(f, e, &c)) {
        add_bases(f, 0, e, NULL, &c);
        add_bases(f, 1, e, fkv_error_curve(e, FKV_RELATIVE_ERROR, true), &c);
    }
    return fkv_plot_finish(f, to, err, "error_bounds_%s", fkv_state_names[e->state]);
}
