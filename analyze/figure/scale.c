/* Owns scales (scale.h). */
#include "analyze/figure/scale.h"

#include <math.h>

double fkv_scale_at(const struct fkv_scale *s, double v) {
    if (s->zero && v == 0) return s->zero_at;
    if (!isfinite(v) || (s->logarithmic && v <= 0)) return NAN;
    double t = s->logarithmic ? log(v / s->low) / log(s->high / s->low)
                              : (v - s->low) / (s->high - s->low);
    return s->from +
           fmax(-8, fmin(9, t)) *
               (s->to - s->from); /* far outside is clipped; cairo's numbers end at 8 million */
}
