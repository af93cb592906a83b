/* What panels and legends paint alike. */
#ifndef FKV_ANALYZE_FIGURE_MARKER_H
#define FKV_ANALYZE_FIGURE_MARKER_H

#include <cairo.h>

#include "analyze/figure/style.h"

/* What is painted next has this colour. */
void fkv_paint_color(cairo_t *cr, struct fkv_color color);
/* The marker of a line at (x, y), in points. */
void fkv_paint_marker(cairo_t *cr, const struct fkv_line *style, double x, double y);

#endif
