/* Spectra over depth: shares of energy per layer, with the heads as points; and power over null of
 * every layer and frequency as a map. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analyze/measure/averages.h"
#include "analyze/measure/depth.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/words.h"

/* What the figure of shares shows, in the order of its colours. */
enum share { LOW_HALF, LOW_QUARTER, DC, SHOWN };
static const char *const share_labels[SHOWN] = {"lowest half, without DC",
                                                "lowest quarter, without DC", "DC"};

static double share_of(const struct fkv_energy_shares *s, enum share which) {
    return which == DC ? s->dc : s->low[which == LOW_HALF ? FKV_LOW_HALF : FKV_LOW_QUARTER];
}

/* Spectra of a layer's heads from `head` on. */
static const double *spectra_at(const struct fkv_spectrum *s, const double *spectra, int32_t layer,
                                int32_t head) {
    return spectra + ((size_t)layer * (size_t)s->heads + (size_t)head) * (size_t)s->n;
}

/* scratch: [n + 2 layers heads] */
static void add_share(struct fkv_figure *f, const struct fkv_spectrum *s, enum share which,
                      double *scratch) {
    struct fkv_color color = fkv_color_cycle((int)which);
    struct fkv_line line = {
        .label = share_labels[which], .color = color, .width = 1.4, .markers = s->layers <= 40};
    double *x = scratch + s->n, *y = x + (size_t)s->layers * (size_t)s->heads;
    for (int32_t l = 0; l < s->layers; l++) {
        const struct fkv_energy_shares shares =
            fkv_energy_shares_of(spectra_at(s, s->power, l, 0), s->heads, s->n, scratch);
        x[l] = s->layer_index[l], y[l] = share_of(&shares, which);
    }
    fkv_figure_line(f, 0, &line, s->layers, x, y);
    if (s->null && which != DC) {
        for (int32_t l = 0; l < s->layers; l++) {
            const struct fkv_energy_shares shares =
                fkv_energy_shares_of(spectra_at(s, s->null, l, 0), s->heads, s->n, scratch);
            y[l] = share_of(&shares, which);
        }
        const struct fkv_line null = {.color = color, .width = 0.9, .dashed = true};
        fkv_figure_line(f, 0, &null, s->layers, x, y);
    }
    if (s->heads == 1) return;
    for (int32_t l = 0; l < s->layers; l++)
        for (int32_t h = 0; h < s->heads; h++) {
            const struct fkv_energy_shares shares =
                fkv_energy_shares_of(spectra_at(s, s->power, l, h), 1, s->n, scratch);
            x[l * s->heads + h] = s->layer_index[l];
            y[l * s->heads + h] = share_of(&shares, which);
        }
    color.a = 0.35;
    const struct fkv_line heads = {.color = color, .markers = true, .scattered = true};
    fkv_figure_line(f, 0, &heads, s->layers * s->heads, x, y);
}

int fkv_plot_spectrum_depth(const struct fkv_spectrum *s, struct fkv_plot_target *to,
                            struct fkv_error *err) {
    struct fkv_figure *f;
    char title[160];
    if (s->layers < FKV_COURSE_LAYERS) return FKV_OK;
    snprintf(title, sizeof title, "Where the energy of %s lies, over depth",
             fkv_plot_state_words[s->state]);
    if (fkv_figure_create(5.6, 3.6, 1, 1, title, &f, err)) return FKV_FAILED;
    fkv_figure_note(f, "n\u00a0=\u00a0%d tokens. Lines: pooled over heads%s.%s DC: of all energy.",
                    s->n, s->heads > 1 ? "; points: one head each" : "",
                    s->null ? " Dashed: the same with the tokens permuted." : "");
    const struct fkv_axis x = {.label = "layer", .integers = true},
                          y = {.label = "share of the energy", .high = 1};
    double *scratch =
        fkv_figure_numbers(f, (size_t)s->n + 2 * (size_t)s->layers * (size_t)s->heads);
    fkv_figure_axes(f, 0, NULL, &x, &y);
    for (int which = 0; scratch && which < SHOWN; which++)
        add_share(f, s, (enum share)which, scratch);
    return fkv_plot_finish(f, to, err, "spectrum_depth_%s", fkv_state_names[s->state]);
}

/* values [layers, bands] <- log2 of power over null, mean over heads and the band; the largest
 * magnitude. */
static double fill_map(const struct fkv_spectrum *s, double *values) {
    double most = 0;
    for (int32_t l = 0; l < s->layers; l++)
        for (int32_t b = 0; b < s->bands; b++) {
            double power = 0, null = 0;
            for (int32_t h = 0; h < s->heads; h++)
                for (int32_t t = s->band_edge[b]; t < s->band_edge[b + 1]; t++) {
                    power += spectra_at(s, s->power, l, h)[t];
                    null += spectra_at(s, s->null, l, h)[t];
                }
            double *value = &values[l * s->bands + b];
            *value = log2(power / null);
            if (isfinite(*value)) most = fmax(most, fabs(*value));
        }
    return most;
}

int fkv_plot_spectrum_map(const struct fkv_spectrum *s, struct fkv_plot_target *to,
                          struct fkv_error *err) {
    struct fkv_figure *f;
    char title[160];
    if (!s->null || s->layers < FKV_COURSE_LAYERS || s->bands < 2) return FKV_OK;
    snprintf(title, sizeof title, "Power over chance of %s, by layer and frequency",
             fkv_plot_state_words[s->state]);
    const double height = fmin(9, fmax(2.8, 1.3 + 0.12 * s->layers));
    if (fkv_figure_create(6.4, height, 1, 1, title, &f, err)) return FKV_FAILED;
    fkv_figure_note(f,
                    "n\u00a0=\u00a0%d tokens. log_{2} of power over the power with the tokens "
                    "permuted, pooled over heads and over the coefficients of a band; a band is "
                    "named by its first. Without DC.",
                    s->n);
    double *values = fkv_figure_numbers(f, (size_t)s->layers * (size_t)s->bands);
    const double most = values ? fmax(fill_map(s, values), 0.1) : 1;
    const struct fkv_axis x = {.label = "DCT coefficient t"}, y = {.label = "layer"};
    const struct fkv_color_bar bar = {.label = "log_{2}(power / permuted)",
                                      .low = -most,
                                      .high = most,
                                      .top = 1,
                                      .is_signed = true};
    fkv_figure_axes(f, 0, NULL, &x, &y);
    fkv_figure_heatmap(f, 0, s->layers, s->bands, values, s->layer_index, s->band_edge);
    fkv_figure_color_bar(f, &bar);
    return fkv_plot_finish(f, to, err, "spectrum_map_%s", fkv_state_names[s->state]);
}
