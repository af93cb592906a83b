/* A small figure toolkit over cairo: axes, lines, bands, heat maps, a colour bar and legends, at
 * print quality, the same to the byte on every run. One picture is drawn twice from the same
 * description: PNG (through libpng: pHYs 300 dpi, provenance as text chunks) and SVG (provenance as
 * metadata). A figure is a grid of panels. It is filled first and laid out when it is written,
 * because margins depend on what the ticks say; the caller places nothing. Text is UTF-8 in DejaVu
 * Sans, found by path (FKV_FONT overrides); "10^{2}" raises and "x_{L}" lowers what stands in the
 * braces. All sizes but the figure's own are points (1/72 inch). */
#ifndef FKV_ANALYZE_FIGURE_FIGURE_H
#define FKV_ANALYZE_FIGURE_FIGURE_H

#include "analyze/figure/style.h"
#include "analyze/measure/findings.h"

struct fkv_figure;

/* width and height in inches; title may be NULL. */
int fkv_figure_create(double width, double height, int rows, int columns, const char *title,
                      struct fkv_figure **out, struct fkv_error *err);
void fkv_figure_destroy(struct fkv_figure *f);
/* All panels get the same ranges; ticks stand at the outer panels only, and the first panel's
 * labels once for all. */
void fkv_figure_share_axes(struct fkv_figure *f);
/* Small print below everything, wrapped to the width. */
int fkv_figure_note(struct fkv_figure *f, const char *text, struct fkv_error *err);
/* Panels are numbered row by row from 0; one that never gets axes stays empty. With `top_label`
 * (may be NULL) a second x axis on top shows x * top_scale. */
int fkv_figure_axes(struct fkv_figure *f, int panel, const char *title, const struct fkv_axis *x,
                    const struct fkv_axis *y, const char *top_label, double top_scale,
                    struct fkv_error *err);
/* x, y [n]; NaN breaks the line. Over a heat map, cell (row r, column c) is centred on x = c, y =
 * r. */
int fkv_figure_line(struct fkv_figure *f, int panel, const struct fkv_line *style, int n,
                    const double *x, const double *y, struct fkv_error *err);
int fkv_figure_band(struct fkv_figure *f, int panel, const char *label, struct fkv_color color,
                    int n, const double *x, const double *low, const double *high,
                    struct fkv_error *err); /* [n] each */
/* values [rows, columns], row 0 at the top, coloured from low to high; names [rows] and [columns]
 * are the ticks. The panel's axes give the labels only. */
int fkv_figure_heatmap(struct fkv_figure *f, int panel, int rows, int columns, const double *values,
                       const int *row_names, const int *column_names, double low, double high,
                       struct fkv_error *err);
int fkv_figure_color_bar(struct fkv_figure *f, const struct fkv_color_bar *bar,
                         struct fkv_error *err);
/* Writes BASE.png and BASE.svg, atomically. */
int fkv_figure_write(struct fkv_figure *f, const char *base,
                     const struct fkv_provenance *provenance, struct fkv_error *err);

#endif
