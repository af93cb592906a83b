/* A small figure toolkit over cairo: axes, lines, bands, heat maps, colour bars and legends, at print quality, the same to the byte on every run.
 * One picture is drawn twice from the same description: PNG (through libpng: pHYs 300 dpi, tEXt provenance) and SVG (metadata). Text is drawn with DejaVu Sans found by path. */
#ifndef FKV_ANALYZE_FIGURE_H
#define FKV_ANALYZE_FIGURE_H

#include <stdbool.h>

#include "analyze/findings.h"

struct fkv_figure; /* a grid of panels, filled and then written */

struct fkv_axis {
    const char *label;
    double low, high; /* low == high: fitted to the data */
    bool logarithmic;
};

struct fkv_color {
    double r, g, b, a;
};
/* t in [0,1] on a perceptually uniform map (viridis); and the i-th of a colour-blind-safe qualitative set. */
struct fkv_color fkv_color_map(double t);
struct fkv_color fkv_color_cycle(int i);

struct fkv_line {
    const char *label;
    struct fkv_color color;
    double width;
    bool dashed;
    bool markers;
};

/* width and height in inches; title may be NULL. */
int fkv_figure_create(double width, double height, int rows, int columns, const char *title, struct fkv_figure **out,
                      struct fkv_error *err);
void fkv_figure_destroy(struct fkv_figure *f);
/* Panels are numbered row by row from 0. `top` (may be NULL) is a second x axis on top with its own scale: low/high are its values at the ends of x. */
int fkv_figure_axes(struct fkv_figure *f, int panel, const char *title, const struct fkv_axis *x,
                    const struct fkv_axis *y, const struct fkv_axis *top, struct fkv_error *err);
int fkv_figure_line(struct fkv_figure *f, int panel, const struct fkv_line *style, int n, const double *x,
                    const double *y, struct fkv_error *err); /* NaN breaks the line */
int fkv_figure_band(struct fkv_figure *f, int panel, struct fkv_color color, int n, const double *x, const double *low,
                    const double *high, struct fkv_error *err);
/* values [rows, columns], row 0 at the top; a colour bar with `label` at the right; ticks name rows and columns. */
int fkv_figure_heatmap(struct fkv_figure *f, int panel, int rows, int columns, const double *values,
                       const int *row_names, const int *column_names, const char *label, double low, double high,
                       struct fkv_error *err);
int fkv_figure_color_bar(struct fkv_figure *f, int panel, const char *label, double low, double high,
                         struct fkv_error *err); /* for lines coloured by a number */
/* Writes BASE.png and BASE.svg, atomically. */
int fkv_figure_write(struct fkv_figure *f, const char *base, const struct fkv_provenance *provenance,
                     struct fkv_error *err);

#endif
