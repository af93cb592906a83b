/* Means over the scored tokens of a run by bins of something, with the run's own intervals. */
#ifndef FKV_ANALYZE_PLOTS_RUN_CELLS_H
#define FKV_ANALYZE_PLOTS_RUN_CELLS_H

#include "analyze/plots/charts.h"
#include "capture/store/run.h"

/* Sums over tokens, by bin and by unit of the bootstrap. */
struct fkv_run_cells {
    int bins;
    struct fkv_units units; /* owned */
    double *sum;            /* [bins, units] of the quantity; owned */
    double *count;          /* [bins, units] tokens; owned */
    double *position;       /* [bins]: sum of the tokens' positions on the axis; owned */
};
/* After a failure, too, the caller closes it. */
int fkv_run_cells_open(struct fkv_run_cells *c, int bins, const struct fkv_run *run,
                       struct fkv_error *err);
void fkv_run_cells_close(struct fkv_run_cells *c);

/* Adds a token of a set of columns and of a block of the bootstrap; a bin beyond the last adds
 * nothing. */
void fkv_run_cells_add(struct fkv_run_cells *c, int32_t columns, int64_t block, int bin,
                       double value, double position);
double fkv_run_cells_tokens(const struct fkv_run_cells *c, int bin);
/* Draws the means of bins of `least` tokens or more, each at the mean position of its tokens, as a
 * line. style: its label and colour, and whether it is dashed and bare. */
void fkv_run_cells_draw(const struct fkv_run_cells *c, double least, struct fkv_chart *chart,
                        const struct fkv_chart_series *style);

#endif
