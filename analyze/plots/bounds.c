/* The DCT beside other bases at equal cost: the errors, and the errors in units of the DCT's, where
 * the difference between curves that lie together can be seen. */
#include <stdio.h>
#include <stdlib.h>

#include "analyze/measure/bounds.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

/* Mean, least and largest of values / unit over layers and heads: three rows [gammas]. unit NULL:
 * of values. */
static void spread(const struct fkv_error_curves *e, const double *values, const double *unit,
                   double *rows) {
    double *mean = rows, *low = rows + e->gammas, *high = low + e->gammas;
    for (int g = 0; g < e->gammas; g++) {
        int count = 0;
        mean[g] = 0, low[g] = INFINITY, high[g] = -INFINITY;
        for (int i = g; i < e->layers * e->heads * e->gammas; i += e->gammas) {
            double v = values[i] / (unit ? unit[i] : 1);
            if (!isfinite(v)) continue;
            mean[g] += v, count++;
            low[g] = fmin(low[g], v), high[g] = fmax(high[g], v);
        }
        mean[g] = count ? mean[g] / count : NAN;
        if (!count) low[g] = high[g] = NAN;
    }
}

static int draw(struct fkv_figure *f, int panel, const struct fkv_error_curves *e, bool relative,
                double *rows, struct fkv_error *err) {
    const double *unit = relative ? fkv_error_curve(e, FKV_RELATIVE_ERROR, true) : NULL;
    for (int i = 0; i < FKV_BASES; i++) {
        struct fkv_color shade = fkv_color_cycle(i);
        const struct fkv_line line = {
            .label = fkv_bases[i].words, .color = shade, .width = 1.2, .markers = e->gammas <= 20};
        shade.a = 0.15;
        spread(e, fkv_error_curve(e, fkv_bases[i].measure, true), unit, rows);
        if (e->layers * e->heads > 1 &&
            fkv_figure_band(f, panel, NULL, shade, e->gammas, e->gamma, rows + e->gammas,
                            rows + 2 * e->gammas, err))
            return FKV_FAILED;
        if (fkv_figure_line(f, panel, &line, e->gammas, e->gamma, rows, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int fill(struct fkv_figure *f, const struct fkv_error_curves *e, double *rows,
                struct fkv_error *err) {
    const struct fkv_axis x = {"retaining ratio \u03b3", FKV_FIT, FKV_FIT, .logarithmic = false};
    const struct fkv_axis y = {"\u2016x \u2212 x_{L}\u2016 / \u2016x\u2016, without DC", 0, FKV_FIT,
                               .logarithmic = false};
    const struct fkv_axis ratio = {"error / error of the DCT", FKV_FIT, FKV_FIT,
                                   .logarithmic = false};
    if (fkv_figure_axes(f, 0, NULL, &x, &y, NULL, 1, err) || draw(f, 0, e, false, rows, err) ||
        fkv_figure_axes(f, 1, NULL, &x, &ratio, NULL, 1, err))
        return FKV_FAILED;
    return draw(f, 1, e, true, rows, err);
}

int fkv_plot_bounds(const struct fkv_error_curves *e, struct fkv_plot_target *to,
                    struct fkv_error *err) {
    if (!fkv_error_curve(e, FKV_KLT_ERROR, true)) return FKV_OK;
    struct fkv_figure *f;
    char title[128], note[FKV_PLOT_NOTE], name[64];
    snprintf(title, sizeof title, "How good a basis the DCT is for %s",
             fkv_plot_state_words[e->state]);
    snprintf(note, sizeof note,
             "n\u00a0=\u00a0%d tokens. All keep the means, which count as one coefficient. KLT: "
             "eigenvectors of the Toeplitz autocovariance of %s. SVD: each segment's own, "
             "r\u00a0(n\u00a0+\u00a0head_dim) numbers. "
             "Lines: mean over layers and heads; shading: least to largest.",
             e->n, e->fitted_to);
    if (fkv_figure_create(7.0, 3.6, 1, 2, title, &f, err)) return FKV_FAILED;
    double *rows = malloc(3 * (size_t)e->gammas * sizeof *rows);
    int rc = rows ? fill(f, e, rows, err) : fkv_fail(err, "figure: out of memory");
    free(rows);
    snprintf(name, sizeof name, "error_bounds_%s", fkv_state_names[e->state]);
    return fkv_plot_finish(f, rc, note, name, to, err);
}
