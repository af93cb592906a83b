/* How the caller describes an axis, a line and a colour bar. Lengths are points (1/72 inch). */
#ifndef FKV_ANALYZE_FIGURE_STYLE_H
#define FKV_ANALYZE_FIGURE_STYLE_H

#include <math.h>
#include <stdbool.h>

#include "analyze/figure/color.h"

#define FKV_FIT NAN /* an end of an axis that follows the data, where the other is fixed */

enum { FKV_AXIS_TICKS = 10 };

struct fkv_axis {
    const char *label;
    double low, high; /* or FKV_FIT; both 0: both follow the data */
    bool logarithmic; /* what is not positive breaks the line */
    bool zero;     /* of a logarithmic x axis: points at x = 0 get a strip of their own at the left,
                      behind a break */
    bool integers; /* of a linear axis: ticks at whole numbers only */
    int at_count;  /* > 0: ticks at `at` where their numbers stand apart, else as without */
    double at[FKV_AXIS_TICKS]; /* [at_count], rising */
    int name_count; /* > 0: a linear axis of named things at 0, 1, 2, ... instead of numbers, from
                       -0.5 to name_count - 0.5 */
    const char *const *names; /* [name_count] */
    const char *top_label;    /* of an x axis: a second one on top shows x * top_scale; or NULL */
    double top_scale;
};

/* Lines and bands with a label enter the legend, once per label, up to 32. */
struct fkv_line {
    const char *label;
    struct fkv_color color;
    double width;
    bool dashed;
    bool markers;
    bool ringed;    /* markers with a white rim, which are seen on any colour */
    bool scattered; /* markers alone, no line between them */
};

/* Beside the panels, for what is coloured by a number. */
struct fkv_color_bar {
    const char *label;
    double low, high;
    double
        top; /* the part of the map in use: 1, or less where yellow lines would vanish on white */
    bool integers;  /* ticks at whole numbers only */
    bool is_signed; /* the map with a pale middle, here and in the heat maps beside it; low = -high
                     */
    bool marked;    /* with a stroke across it at `mark` */
    double mark;
    int steps;        /* > 0: one field per name instead of a continuous bar */
    const int *names; /* [steps], from low to high */
};

#endif
