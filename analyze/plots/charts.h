/* Figures of points with intervals: what was measured at some positions of an axis, by series, in
 * panels. Filled point by point; drawn, and written as a CSV beside the picture, at the end.
 *
 * Memory that runs out while it is filled is remembered and said by fkv_charts_finish. */
#ifndef FKV_ANALYZE_PLOTS_CHARTS_H
#define FKV_ANALYZE_PLOTS_CHARTS_H

#include "analyze/plots/target.h"
#include "kernels/statistics/correlation.h"

enum { FKV_CHARTS_PANELS = 12, FKV_CHARTS_SERIES = 64, FKV_CHARTS_NAMES = 96 };

enum fkv_chart_look {
    FKV_LOOK_POINTS, /* markers with whiskers */
    FKV_LOOK_JOINED, /* the same, with a line through them */
    FKV_LOOK_LINE    /* a line with a band */
};

struct fkv_chart_series {
    char *label;        /* owned */
    const char *policy; /* of the runs: a column of the CSV file; NULL: it has none; borrowed */
    struct fkv_color color;
    enum fkv_chart_look look;
    bool in_place;                      /* not moved apart from others */
    bool dashed, bare, unnamed, hidden; /* bare: no intervals in the picture; unnamed: not in the
                                           legend; hidden: in the table alone */
    int count, capacity;
    double *x;              /* [count]; owned */
    struct fkv_interval *y; /* [count]; owned */
};

struct fkv_chart {
    char *title, *x_label, *y_label; /* owned */
    bool across; /* values run along x; positions are names along y, the first at the top */
    bool logarithmic_x, logarithmic_y;
    bool integers; /* positions are whole numbers */
    bool apart;    /* series share positions of an axis of numbers: a hundredth of it between
                      them keeps whiskers apart */
    double level;  /* a grey line at this value; NaN: none */
    int names, series;
    char *name[FKV_CHARTS_NAMES]; /* owned */
    struct fkv_chart_series one[FKV_CHARTS_SERIES];
    bool failed; /* memory ran out */
};

/* Begins as {0}. */
struct fkv_charts {
    int panels;
    struct fkv_chart chart[FKV_CHARTS_PANELS];
};

/* Harmless on a zeroed struct and a second time. */
void fkv_charts_close(struct fkv_charts *c);

/* A new panel, with axes labelled as said and no reference line. */
struct fkv_chart *fkv_charts_panel(struct fkv_charts *c, const char *title, const char *x_label,
                                   const char *y_label);
/* The position of a name on the panel's axis of names, put there if it is new; -1 when there are
 * too many. */
int fkv_chart_name(struct fkv_chart *c, const char *name);
/* A point of a series, which the first one makes. x NaN: the series has one value and no position;
 * it is drawn along the whole axis of numbers, which other series must span, and its place in the
 * table is empty. Returns the series; NULL when there are too many, or no memory. */
struct fkv_chart_series *fkv_chart_add(struct fkv_chart *c, const char *series,
                                       struct fkv_color color, enum fkv_chart_look look, double x,
                                       struct fkv_interval y);

struct fkv_charts_page {
    const char *name; /* what the target's stem is continued with, as of fkv_plot_name */
    const char *title, *note;
    double width, height; /* inches; 0: from the number of panels and names */
    int columns;
    const struct fkv_color_bar *bar; /* or NULL */
    bool no_csv;                     /* the numbers come from a table */
};
/* Draws what was filled in, unless there is no panel, writes its table, and closes it, whatever
 * happens. status: of the filling; other than FKV_OK it is returned, and nothing is written. */
int fkv_charts_finish(struct fkv_charts *c, int status, const struct fkv_charts_page *page,
                      struct fkv_plot_target *to, struct fkv_error *err);

#endif
