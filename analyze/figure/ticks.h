/* Where ticks stand and what they say. */
#ifndef FKV_ANALYZE_FIGURE_TICKS_H
#define FKV_ANALYZE_FIGURE_TICKS_H

enum { FKV_TICKS = 160 };

struct fkv_ticks {
    int count;
    double at[FKV_TICKS];
    char label[FKV_TICKS][48]; /* "" for a minor tick; superscripts as ^{...} */
};

/* About `most` (>= 2) labelled ticks within [low, high], never fewer than two and never more than
 * `most` + 1 or five; low < high, finite, and above 0 for the logarithm. No step is below
 * `least_step`. */
void fkv_ticks_linear(double low, double high, int most, double least_step, struct fkv_ticks *t);
/* Ticks at the places at [count], labelled with as many digits as tell them. */
void fkv_ticks_at(const double *at, int count, struct fkv_ticks *t);
void fkv_ticks_log(double low, double high, int most, struct fkv_ticks *t);

#endif
