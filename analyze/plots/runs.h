/* What figures of runs share. */
#ifndef FKV_ANALYZE_PLOTS_RUNS_H
#define FKV_ANALYZE_PLOTS_RUNS_H

#include "capture/store/run.h"
#include "kernels/statistics/correlation.h"

/* The colour's number of run i of runs [count]: labels are numbered as they come, and the first run
 * with run i's label decides. */
int fkv_plot_run_color(const struct fkv_run *runs, int32_t count, int32_t i);
/* The 95% interval of a mean with its standard error. */
struct fkv_interval fkv_plot_around(double mean, double se);

#endif
