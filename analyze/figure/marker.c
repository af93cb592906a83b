/* Owns colours and markers on a surface (marker.h). */
#include "analyze/figure/marker.h"

void fkv_paint_color(cairo_t *cr, struct fkv_color c) {
    cairo_set_source_rgba(cr, c.r, c.g, c.b, c.a);
}

void fkv_paint_marker(cairo_t *cr, const struct fkv_line *s, double x, double y) {
    for (int rim = s->ringed; rim >= 0; rim--) {
        fkv_paint_color(cr, rim ? (struct fkv_color){1, 1, 1, 1} : s->color);
        cairo_new_sub_path(cr);
        cairo_arc(cr, x, y, s->width + 0.8 + 0.8 * rim, 0, 2 * M_PI);
        cairo_fill(cr);
    }
}
