/* From values to points along an axis. */
#ifndef FKV_ANALYZE_FIGURE_SCALE_H
#define FKV_ANALYZE_FIGURE_SCALE_H

#include <stdbool.h>

/* Values from `low` to `high` stand at `from` to `to`, in points; x = 0 of an axis with a strip for
 * it at `zero_at`. */
struct fkv_scale {
    double low, high, from, to, zero_at;
    bool logarithmic, zero;
};
/* NaN where the scale has no point for the value. */
double fkv_scale_at(const struct fkv_scale *s, double value);

#endif
