/* A small figure toolkit over cairo: axes, lines, bands, heat maps, a colour bar and legends, at
 * print quality, the same to the byte on every run. One picture is drawn twice from the same
 * description: PNG (through libpng: pHYs 300 dpi, provenance as text chunks) and SVG (provenance as
 * metadata). A figure is a grid of panels. It is filled first and laid out when it is written,
 * because margins depend on what the ticks say; the caller places nothing. What fails while it is
 * filled, memory that runs out too, is remembered and said by fkv_figure_write. Text is UTF-8 in
 * DejaVu Sans, found by path (FKV_FONT overrides); "10^{2}" raises and "x_{L}" lowers what stands
 * in the braces. All sizes but the figure's own are points (1/72 inch). */
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
/* `count` numbers, all 0, that live as long as the figure; NULL without memory. */
double *fkv_figure_numbers(struct fkv_figure *f, size_t count);
/* Appends what printf would write to the small print below everything, which is wrapped to the
 * width. */
void fkv_figure_note(struct fkv_figure *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Panels are numbered row by row from 0; one that never gets axes stays empty. title: may be
 * NULL. */
void fkv_figure_axes(struct fkv_figure *f, int panel, const char *title, const struct fkv_axis *x,
                     const struct fkv_axis *y);
/* x, y [n]; NaN breaks the line. Over a heat map, cell (row r, column c) is centred on x = c, y =
 * r. */
void fkv_figure_line(struct fkv_figure *f, int panel, const struct fkv_line *style, int n,
                     const double *x, const double *y);
/* x, low, high [n]; label: of the legend, may be NULL. */
void fkv_figure_band(struct fkv_figure *f, int panel, const char *label, struct fkv_color color,
                     int n, const double *x, const double *low, const double *high);
/* values [rows, columns], row 0 at the top, coloured as the colour bar says; names [rows] and
 * [columns] are the ticks; NULL: 0, 1, 2, ... The panel's axes give the labels only. */
void fkv_figure_heatmap(struct fkv_figure *f, int panel, int rows, int columns,
                        const double *values, const int *row_names, const int *column_names);
void fkv_figure_color_bar(struct fkv_figure *f, const struct fkv_color_bar *bar);
/* Writes BASE.png and BASE.svg, atomically. Refuses a figure that could not be filled. */
int fkv_figure_write(struct fkv_figure *f, const char *base,
                     const struct fkv_provenance *provenance, struct fkv_error *err);

#endif
