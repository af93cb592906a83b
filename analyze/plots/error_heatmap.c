/* The relative error of every layer and head as a map, at the ratio nearest to 0.5. Colours run
 * from 0 to 1, so that maps of keys and values can be laid side by side. */
#include <math.h>
#include <stdio.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

int fkv_plot_error_heatmap(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    int g = 0;
    for (int i = 1; i < e->gammas; i++)
        if (fabs(e->gamma[i] - 0.5) < fabs(e->gamma[g] - 0.5)) g = i;
    const double white = fkv_measures[FKV_RELATIVE_ERROR].white(e->gamma[g]);
    const double width = fmin(7.2, fmax(4.3, 1.5 + 0.33 * e->heads)),
                 height = fmin(9, fmax(2.6, 1.1 + 0.17 * e->layers));
    const struct fkv_axis x = {.label = fkv_plot_head_word(e->state)}, y = {.label = "layer"};
    const struct fkv_color_bar bar = {
        .label = "relative error", .high = 1, .top = 1, .marked = true, .mark = white};
    struct fkv_figure *f;
    char title[160];
    snprintf(title, sizeof title, "Relative error of %s at \u03b3 = %.4g, without DC",
             fkv_plot_state_words[e->state], e->gamma[g]);
    if (fkv_figure_create(width, height, 1, 1, title, &f, err)) return FKV_FAILED;
    fkv_figure_note(f,
                    "n\u00a0=\u00a0%d tokens, \u230a\u03b3n\u230b lowest DCT coefficients kept. "
                    "Stroke on the bar: white noise, %.3f.",
                    e->n, white);
    const int cells = e->layers * e->heads;
    double *values = fkv_figure_numbers(f, (size_t)cells);
    for (int i = 0; values && i < cells; i++)
        values[i] =
            fkv_error_curve(e, FKV_RELATIVE_ERROR, true)[(size_t)i * (size_t)e->gammas + (size_t)g];
    fkv_figure_axes(f, 0, NULL, &x, &y);
    fkv_figure_color_bar(f, &bar);
    fkv_figure_heatmap(f, 0, e->layers, e->heads, values, e->layer_index, e->head_index);
    return fkv_plot_finish(f, to, err, "error_heatmap_%s", fkv_state_names[e->state]);
}
