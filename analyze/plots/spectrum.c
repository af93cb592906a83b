/* Power over frequency, per layer and per head. Both axes are logarithmic: the states' power falls
 * like a power law over three to four decades of frequency, which is a straight line here, while on
 * a linear axis everything of interest stands within a hair of the left edge. t = 0 has no place on
 * such an axis and most of the power, so it gets a strip of its own in the figure per layer, and a
 * second panel shows power over null. A single coefficient scatters as a squared Gaussian does;
 * lines therefore show means over bands that are even in log t, which leaves the low coefficients
 * single and averages the high ones. The mean is taken of power, not of its logarithm, which lies
 * up to 5.5 dB lower (one degree of freedom). */
#include "analyze/plots/figures.h"
#include "analyze/plots/layer_color.h"
#include "analyze/plots/words.h"

#include <stdio.h>
#include <string.h>

#include "analyze/measure/averages.h"

enum { MOST_PANELS = 36, SUBSET = 24 };

static const char frequency_label[] = "frequency (cycles per token)";
static const char power_label[] = "power per channel (DCT-II, orthonormal)";
static const char ratio_label[] = "power / permuted null";
static const struct fkv_color null_color = {0.45, 0.45, 0.45, 1}, floor_color = {0.6, 0.4, 0.4, 1};

/* The spectrum's own bands (those of the CSV) with t = 0 in front: band i is edge[i] <= t < edge[i
 * + 1]. */
struct bands {
    int count, edge[FKV_BANDS + 2];
    double frequency[FKV_BANDS + 1]; /* cycles per token at the geometric middle; 0 for the first */
};

static void make_bands(struct bands *b, const struct fkv_spectrum *s) {
    b->count = s->bands + 1;
    b->edge[0] = 0;
    for (int i = 0; i <= s->bands; i++) b->edge[i + 1] = s->band_edge[i];
    b->frequency[0] = 0;
    for (int i = 1; i < b->count; i++)
        b->frequency[i] = sqrt((double)b->edge[i] * (b->edge[i + 1] - 1)) / (2.0 * s->n);
}

static double band_mean(const double *values, const struct bands *b, int i) {
    double sum = 0;
    for (int t = b->edge[i]; t < b->edge[i + 1]; t++) sum += values[t];
    return sum / (b->edge[i + 1] - b->edge[i]);
}

static const double *curve(const struct fkv_spectrum *s, const double *values, int layer,
                           int head) {
    return values + ((size_t)layer * (size_t)s->heads + (size_t)head) * (size_t)s->n;
}

/* Mean over heads, per band: out [bands]. */
static void layer_mean(const struct fkv_spectrum *s, const double *values, int layer,
                       const struct bands *b, double *out) {
    for (int i = 0; i < b->count; i++) {
        out[i] = 0;
        for (int h = 0; h < s->heads; h++)
            out[i] += band_mean(curve(s, values, layer, h), b, i) / s->heads;
    }
}

static bool any_finite(const double *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i])) return true;
    return false;
}

static struct fkv_line layer_line(const struct fkv_spectrum *s, int l) {
    struct fkv_line line = fkv_plot_layer_line(s->layers, s->layer_index, l);
    line.markers = s->n <= 32;
    return line;
}

/* The standard error of a layer's band, mean over heads: what full correlation between heads gives,
 * an upper bound. */
static double layer_error(const struct fkv_spectrum *s, int layer, int band) {
    double sum = 0;
    for (int h = 0; h < s->heads; h++) {
        size_t row = (size_t)layer * (size_t)s->heads + (size_t)h;
        sum += band ? s->band_se[row * (size_t)s->bands + (size_t)band - 1]
                    : s->power_se[row * (size_t)s->n];
    }
    return sum / s->heads;
}

static bool has_errors(const struct fkv_spectrum *s) {
    return s->layers <= FKV_PLOT_FEW && s->bands &&
           any_finite(s->band_se, (size_t)s->layers * (size_t)s->heads * (size_t)s->bands);
}

/* One standard error around each layer's line, where there are few enough layers to tell. */
static void add_errors(struct fkv_figure *f, const struct fkv_spectrum *s, const struct bands *b) {
    double mean[FKV_BANDS + 1], low[FKV_BANDS + 1], high[FKV_BANDS + 1];
    for (int l = 0; l < s->layers; l++) {
        layer_mean(s, s->power, l, b, mean);
        for (int i = 0; i < b->count; i++) {
            double se = layer_error(s, l, i);
            low[i] = fmax(mean[i] - se, mean[i] / 10), high[i] = mean[i] + se;
        }
        struct fkv_color color = fkv_plot_color(s->layers, s->layer_index, l);
        color.a = 0.25;
        fkv_figure_band(f, 0, NULL, color, b->count, b->frequency, low, high);
    }
}

/* The permuted null is flat at the layer's variance without DC, and layers differ by orders of
 * magnitude: few layers show each its own, dashed in its colour, and the panel below has the ratio
 * to it for any number of layers. From t = 1: at t = 0 a permutation changes nothing. */
static void add_null(struct fkv_figure *f, const struct fkv_spectrum *s, const struct bands *b) {
    double mean[FKV_BANDS + 1];
    int n = b->count - 1;
    if (n < 1 || s->layers > FKV_PLOT_FEW) return;
    for (int l = 0; l < s->layers; l++) {
        const struct fkv_line own = {
            .color = fkv_plot_color(s->layers, s->layer_index, l), .width = 0.8, .dashed = true};
        layer_mean(s, s->null, l, b, mean);
        fkv_figure_line(f, 0, &own, n, b->frequency + 1, mean + 1);
    }
    for (int i = 0; i < b->count; i++) mean[i] = NAN; /* the legend's entry only */
    const struct fkv_line line = {.label = s->layers == 1 ? "permuted null"
                                                          : "permuted null, each layer's own",
                                  .color = null_color,
                                  .width = 1.0,
                                  .dashed = true};
    fkv_figure_line(f, 0, &line, n, b->frequency + 1, mean + 1);
}

/* Power over null, layer by layer: the shape beside the levels, which DC and the differences
 * between layers press together in the panel above. */
static void add_excess(struct fkv_figure *f, const struct fkv_spectrum *s, const struct bands *b) {
    double power[FKV_BANDS + 1], null[FKV_BANDS + 1];
    if (b->count < 2) return;
    const double x[2] = {b->frequency[1], b->frequency[b->count - 1]}, one[2] = {1, 1};
    const struct fkv_line level = {.color = null_color, .width = 1.0, .dashed = true};
    fkv_figure_line(f, 1, &level, 2, x, one);
    for (int i = 0; i < s->layers; i++) {
        const int l = fkv_plot_drawn(s->layers, i);
        layer_mean(s, s->power, l, b, power);
        layer_mean(s, s->null, l, b, null);
        for (int k = 0; k < b->count; k++) power[k] /= null[k];
        power[0] = NAN; /* DC is its own null; the strip stays, so that the panels line up */
        const struct fkv_line line = layer_line(s, l);
        fkv_figure_line(f, 1, &line, b->count, b->frequency, power);
    }
}

/* What storage rounding adds, where it is near enough to the curves to matter: within a factor of
 * ten below the lowest. */
static void add_floor(struct fkv_figure *f, const struct fkv_spectrum *s, const struct bands *b,
                      double lowest) {
    double floor = 0;
    for (int i = 0; s->rounding_floor && i < s->layers * s->heads; i++)
        floor = fmax(floor, s->rounding_floor[i]);
    if (!(floor > lowest / 10) || b->count < 2) return;
    const double x[2] = {b->frequency[1], b->frequency[b->count - 1]}, y[2] = {floor, floor};
    const struct fkv_line line = {
        .label = "storage rounding (largest)", .color = floor_color, .width = 0.9, .dashed = true};
    fkv_figure_line(f, 0, &line, 2, x, y);
}

/* Returns the lowest power drawn. */
static double add_layers(struct fkv_figure *f, const struct fkv_spectrum *s,
                         const struct bands *b) {
    double mean[FKV_BANDS + 1], lowest = INFINITY;
    for (int i = 0; i < s->layers; i++) {
        const int l = fkv_plot_drawn(s->layers, i);
        char label[32];
        snprintf(label, sizeof label, "layer %d", s->layer_index[l]);
        struct fkv_line line = layer_line(s, l);
        if (s->layers == 1) line.label = label;
        layer_mean(s, s->power, l, b, mean);
        for (int k = 0; k < b->count; k++)
            if (mean[k] > 0) lowest = fmin(lowest, mean[k]);
        fkv_figure_line(f, 0, &line, b->count, b->frequency, mean);
    }
    return lowest;
}

static void note_segments(struct fkv_figure *f, const struct fkv_spectrum *s) {
    fkv_figure_note(f, "n\u00a0=\u00a0%d tokens, %lld segment%s of %d document%s.", s->n,
                    (long long)s->segments, s->segments == 1 ? "" : "s", s->documents,
                    s->documents == 1 ? "" : "s");
    if (s->bands + 1 < s->n)
        fkv_figure_note(f, " Lines: means over %d log-spaced bands of t.", s->bands);
}

static void note_errors(struct fkv_figure *f, const struct fkv_spectrum *s, const char *bound) {
    char words[FKV_SE_WORDS];
    fkv_figure_note(f, " Shading: \u00b1 1 standard error%s, %s.", bound,
                    fkv_se_unit_words(s->se_unit, s->documents, "segments", words));
}

int fkv_plot_spectrum(const struct fkv_spectrum *s, struct fkv_plot_target *to,
                      struct fkv_error *err) {
    struct fkv_figure *f;
    struct bands b;
    char title[128];
    snprintf(title, sizeof title, "Power spectrum of %s%s", fkv_plot_state_words[s->state],
             s->heads > 1 ? ", mean over heads" : "");
    if (fkv_figure_create(5.6, s->null ? 6.2 : 4.0, s->null ? 2 : 1, 1, title, &f, err))
        return FKV_FAILED;
    make_bands(&b, s);
    note_segments(f, s);
    fkv_figure_note(f, " DC (t\u00a0=\u00a00) stands left of the axis break.");
    if (s->layers > FKV_PLOT_FEW) fkv_figure_note(f, " Strong: eight layers, evenly spaced.");
    const struct fkv_axis below = {.label = frequency_label, .logarithmic = true, .zero = true};
    const struct fkv_axis y = {.label = power_label, .logarithmic = true};
    const struct fkv_axis ratio = {.label = ratio_label, .logarithmic = true};
    struct fkv_axis x = below;
    x.top_label = "DCT coefficient t", x.top_scale = 2.0 * s->n;
    if (s->null) x.label = NULL;
    fkv_figure_axes(f, 0, NULL, &x, &y);
    if (has_errors(s)) {
        note_errors(f, s, s->heads > 1 ? " at most (as if heads scattered together)" : "");
        add_errors(f, s, &b);
    }
    const double lowest = add_layers(f, s, &b);
    if (s->null) add_null(f, s, &b);
    add_floor(f, s, &b, lowest);
    if (s->null) {
        fkv_figure_axes(f, 1, NULL, &below, &ratio);
        add_excess(f, s, &b);
    }
    fkv_plot_add_color_bar(f, "layer", s->layers, s->layer_index);
    return fkv_plot_finish(f, to, err, "spectrum_%s", fkv_state_names[s->state]);
}

/* ------------------------------------------------------------------ per head */

/* A head's line, over its null where there is one, and its standard error. Without DC (x = 0 on an
 * axis that has no place for it): it is its own null, and as power it lies up to four decades above
 * the rest. */
static void add_head(struct fkv_figure *f, const struct fkv_spectrum *s, int panel, int l, int h,
                     const struct bands *b) {
    double mean[FKV_BANDS + 1], low[FKV_BANDS + 1], high[FKV_BANDS + 1];
    const bool few = s->heads <= FKV_PLOT_FEW;
    const size_t row = (size_t)l * (size_t)s->heads + (size_t)h;
    struct fkv_color color = few ? fkv_color_cycle(h) : fkv_plot_color(s->heads, s->head_index, h);
    char label[32];
    snprintf(label, sizeof label, "%s %d", fkv_plot_head_word(s->state), s->head_index[h]);
    /* Up to eight heads are told apart by colour, and the second four by dashes too. */
    const struct fkv_line line = {.label = few ? label : NULL,
                                  .color = color,
                                  .width = few ? 0.9 : 0.6,
                                  .dashed = few && h >= 4,
                                  .markers = s->n <= 16};
    for (int i = 1; i < b->count; i++) {
        const double null = s->null ? band_mean(curve(s, s->null, l, h), b, i) : 1,
                     se = s->band_se[row * (size_t)s->bands + (size_t)i - 1] / null;
        mean[i] = band_mean(curve(s, s->power, l, h), b, i) / null;
        low[i] = fmax(mean[i] - se, mean[i] / 10), high[i] = mean[i] + se;
    }
    color.a = few ? 0.2 : 0.08;
    if (any_finite(low + 1, (size_t)b->count - 1))
        fkv_figure_band(f, panel, NULL, color, b->count - 1, b->frequency + 1, low + 1, high + 1);
    fkv_figure_line(f, panel, &line, b->count - 1, b->frequency + 1, mean + 1);
}

static void add_heads(struct fkv_figure *f, const struct fkv_spectrum *s, int panel, int l,
                      const struct bands *b) {
    const double x[2] = {b->frequency[1], b->frequency[b->count - 1]}, one[2] = {1, 1};
    const struct fkv_line level = {.color = null_color, .width = 0.8, .dashed = true};
    if (b->count < 2) return;
    if (s->null) fkv_figure_line(f, panel, &level, 2, x, one);
    for (int h = 0; h < s->heads; h++) add_head(f, s, panel, l, h, b);
}

static int grid_columns(int panels) {
    static const int columns[] = {0, 1, 2, 3, 2, 3, 3, 4, 4, 3};
    return panels <= 9 ? columns[panels] : 4;
}

/* A page of panels: as wide as a page of print from three columns on; panels of many rows are
 * lower, so that 36 layers stay on one page. */
static int create_page(int panels, const char *title, struct fkv_figure **f,
                       struct fkv_error *err) {
    static const double widths[] = {0, 4.6, 5.6, 7.2, 7.2}, single[] = {0, 2.8, 2.4, 2.4, 2.4},
                        stacked[] = {0, 2.0, 2.0, 1.65, 1.65};
    const int columns = grid_columns(panels), rows = (panels + columns - 1) / columns;
    const double height = rows == 1 ? single[columns] : rows <= 3 ? stacked[columns] : 1.15;
    if (fkv_figure_create(widths[columns], 1 + rows * height, rows, columns, title, f, err))
        return FKV_FAILED;
    fkv_figure_share_axes(*f);
    return FKV_OK;
}

int fkv_plot_spectrum_heads(const struct fkv_spectrum *s, struct fkv_plot_target *to,
                            struct fkv_error *err) {
    const int panels = s->layers <= MOST_PANELS ? s->layers : SUBSET;
    struct fkv_figure *f;
    struct bands b;
    char title[160];
    int used = snprintf(title, sizeof title, "%s of %s, per %s",
                        s->null ? "Power over chance" : "Power spectrum",
                        fkv_plot_state_words[s->state], fkv_plot_head_word(s->state));
    if (panels < s->layers)
        snprintf(title + used, sizeof title - (size_t)used, " (%d of %d layers, evenly spaced)",
                 panels, s->layers);
    if (create_page(panels, title, &f, err)) return FKV_FAILED;
    make_bands(&b, s);
    note_segments(f, s);
    fkv_figure_note(f, s->null ? " Over the power of the same segments with their tokens permuted."
                               : " DC (t\u00a0=\u00a00) is left out.");
    if (any_finite(s->band_se, (size_t)s->layers * (size_t)s->heads * (size_t)s->bands))
        note_errors(f, s, "");
    const struct fkv_axis x = {.label = frequency_label, .logarithmic = true};
    const struct fkv_axis y = {.label = s->null ? ratio_label : power_label, .logarithmic = true};
    for (int i = 0; i < panels; i++) {
        int l = panels == 1 ? 0 : (int)lround((double)i * (s->layers - 1) / (panels - 1));
        char layer[32];
        snprintf(layer, sizeof layer, "layer %d", s->layer_index[l]);
        fkv_figure_axes(f, i, layer, &x, &y);
        add_heads(f, s, i, l, &b);
    }
    if (s->heads > FKV_PLOT_FEW)
        fkv_plot_add_color_bar(f, fkv_plot_head_word(s->state), s->heads, s->head_index);
    return fkv_plot_finish(f, to, err, "spectrum_heads_%s", fkv_state_names[s->state]);
}
