/* What the files of the figure toolkit share: the description that the caller filled in (figure.c),
 * the layout found for it (layout.c, legend.c), text (text.c) and painting (paint.c). Lengths are
 * points from the top left corner. Private to this folder and its tests. */
#ifndef FKV_ANALYZE_FIGURE_PARTS_H
#define FKV_ANALYZE_FIGURE_PARTS_H

#include <cairo.h>

#include "analyze/figure/scale.h"
#include "analyze/figure/style.h"
#include "analyze/figure/ticks.h"
#include "kernels/base/error.h"

enum { FKV_DPI = 300, FKV_POINTS = 72, FKV_LEGEND_MOST = 32 };

struct fkv_box {
    double x, y, width, height;
};

struct fkv_item { /* a line, or a band when `high` is there */
    struct fkv_line style;
    int n;
    const double *x, *y, *high; /* [n] each */
};

struct fkv_heatmap {
    int rows, columns;
    const double *values;                /* [rows, columns] */
    const int *row_names, *column_names; /* [rows], [columns], or NULL */
};

struct fkv_panel {
    bool used;
    const char *title; /* or NULL */
    struct fkv_axis x, y;
    struct fkv_item *items; /* [count]; owned */
    int count;
    struct fkv_heatmap *map; /* or NULL */
    /* the layout */
    bool show_x, show_y; /* tick labels */
    struct fkv_box box;
    struct fkv_scale sx, sy;
    struct fkv_ticks tx, ty, tt;
};

struct fkv_legend {
    int count;
    const struct fkv_item *entries[FKV_LEGEND_MOST];
    bool outside; /* below the panels, in rows; else within panel 0 */
    struct fkv_box box;
};

/* Where a text was painted: the tests check that none leaves the canvas or covers another. */
struct fkv_text_box {
    struct fkv_box box;
    char text[48];
};

struct fkv_figure {
    double width, height; /* points */
    int rows, columns;
    const char *title, *note; /* or NULL */
    bool share;
    struct fkv_panel *panels; /* [rows * columns]; owned */
    struct fkv_color_bar bar; /* label NULL: none */
    struct fkv_block *blocks; /* texts and numbers of the parts above; owned */
    struct fkv_error failure; /* the first while it was filled; message "": none */
    cairo_font_face_t *font;
    /* the layout */
    struct fkv_box area; /* of the panels with their ticks and labels */
    struct fkv_box bar_box;
    struct fkv_ticks bar_ticks;
    struct fkv_legend legend;
    struct fkv_text_box *texts;
    int text_count, text_room;
};

enum { FKV_SIZE_TITLE = 10, FKV_SIZE_LABEL = 9, FKV_SIZE_TICK = 8, FKV_SIZE_NOTE = 7 };
enum fkv_anchor { FKV_LEFT, FKV_CENTER, FKV_RIGHT };

/* figure/text.c */
int fkv_font_open(cairo_font_face_t **out, struct fkv_error *err);
void fkv_text_begin(const struct fkv_figure *f, cairo_t *cr);
double fkv_text_width(cairo_t *cr, double size, const char *text);
double fkv_ticks_width(cairo_t *cr, const struct fkv_ticks *t); /* of the widest label */
/* (x, y) is on the baseline, or left of the middle of the letters for `upright` text (read from
 * below), which is centred on y. */
void fkv_text(struct fkv_figure *f, cairo_t *cr, double x, double y, double size,
              enum fkv_anchor anchor, bool upright, struct fkv_color color, const char *text);
/* Lines of at most `width`, broken at blanks (in the middle of a word where it must be): their
 * number; painted downwards from baseline y unless f is NULL. */
int fkv_text_wrapped(struct fkv_figure *f, cairo_t *cr, double x, double y, double width,
                     double size, enum fkv_anchor anchor, struct fkv_color color, const char *text);

/* figure/layout.c, figure/legend.c */
void fkv_figure_layout(struct fkv_figure *f, cairo_t *cr);
void fkv_legend_collect(struct fkv_figure *f);
double fkv_legend_rows_height(struct fkv_figure *f, cairo_t *cr,
                              double width);              /* of an outside legend */
bool fkv_legend_place(struct fkv_figure *f, cairo_t *cr); /* within panel 0, free of data */
void fkv_legend_paint(struct fkv_figure *f, cairo_t *cr);

/* figure/paint.c: lays out and paints on a surface whose user space is points. */
int fkv_figure_paint(struct fkv_figure *f, cairo_t *cr, struct fkv_error *err);

#endif
