/* The relative error of every layer and head as a map, at the ratio nearest to 0.5. Colours run
 * from 0 to 1, so that maps of keys and values can be laid side by side. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

int fkv_plot_error_heatmap(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                           struct fkv_error *err) {
    int g = 0;
    for (int i = 1; i < e->gammas; i++)
        if (fabs(e->gamma[i] - 0.5) < fabs(e->gamma[g] - 0.5)) g = i;
    int cells = e->layers * e->heads;
    double *values = malloc((size_t)cells * sizeof *values);
    if (!values) return fkv_fail(err, "figure: out of memory");
    for (int i = 0; i < cells; i++)
        values[i] =
            fkv_error_curve(e, FKV_RELATIVE_ERROR, true)[(size_t)i * (size_t)e->gammas + (size_t)g];
    const double white = fkv_measures[FKV_RELATIVE_ERROR].white(e->gamma[g]);

    char title[160], note[FKV_PLOT_NOTE], name[64];
    snprintf(title, sizeof title, "Relative error of %s at \u03b3 = %.4g, without DC",
             fkv_plot_state_words[e->state], e->gamma[g]);
    snprintf(
        note, sizeof note,
        "n\u00a0=\u00a0%d tokens, \u230a\u03b3n\u230b lowest DCT coefficients kept. Stroke on the "
        "bar: white noise, %.3f.",
        e->n, white);
    const struct fkv_axis x = {fkv_plot_head_word(e->state), FKV_FIT, FKV_FIT,
                               .logarithmic = false};
    const struct fkv_axis y = {"layer", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_color_bar bar = {
        .label = "relative error", .low = 0, .high = 1, .top = 1, .marked = true, .mark = white};
    struct fkv_figure *f = NULL;
    double width = fmin(7.2, fmax(4.3, 1.5 + 0.33 * e->heads)),
           height = fmin(9, fmax(2.6, 1.1 + 0.17 * e->layers));
    int rc = fkv_figure_create(width, height, 1, 1, title, &f, err);
    if (!rc) rc = fkv_figure_axes(f, 0, NULL, &x, &y, NULL, 1, err);
    if (!rc)
        rc = fkv_figure_heatmap(f, 0, e->layers, e->heads, values, e->layer_index, e->head_index, 0,
                                1, err);
    if (!rc) rc = fkv_figure_color_bar(f, &bar, err);
    free(values);
    snprintf(name, sizeof name, "error_heatmap_%s", fkv_state_names[e->state]);
    return fkv_plot_finish(f, rc, note, name, to, err);
}
