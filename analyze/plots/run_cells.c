/* See run_cells.h. */
#include "analyze/plots/run_cells.h"

#include <stdlib.h>

int fkv_run_cells_open(struct fkv_run_cells *c, int bins, const struct fkv_run *run,
                       struct fkv_error *err) {
    *c = (struct fkv_run_cells){.bins = bins};
    if (fkv_run_units(run, &c->units, err)) return FKV_FAILED;
    size_t n = (size_t)bins * (size_t)c->units.count + 1;
    c->sum = calloc(n, sizeof(double)), c->count = calloc(n, sizeof(double));
    c->position = calloc((size_t)bins, sizeof(double));
    return c->sum && c->count && c->position ? FKV_OK
                                             : fkv_fail(err, "out of memory for %d bins", bins);
}

void fkv_run_cells_close(struct fkv_run_cells *c) {
    fkv_units_free(&c->units);
    free(c->sum), free(c->count), free(c->position);
}

void fkv_run_cells_add(struct fkv_run_cells *c, int32_t columns, int64_t block, int bin,
                       double value, double position) {
    if (bin < 0 || bin >= c->bins) return;
    const int64_t cell = bin * c->units.count + fkv_unit_at(&c->units, columns, block);
    c->sum[cell] += value, c->count[cell] += 1;
    c->position[bin] += position;
}

double fkv_run_cells_tokens(const struct fkv_run_cells *c, int bin) {
    double tokens = 0;
    for (int64_t u = 0; u < c->units.count; u++) tokens += c->count[bin * c->units.count + u];
    return tokens;
}

struct fkv_interval fkv_run_cells_mean(const struct fkv_run_cells *c, int bin, double *position) {
    *position = c->position[bin] / fkv_run_cells_tokens(c, bin);
    return fkv_ratio_interval(&c->units, c->sum + bin * c->units.count,
                              c->count + bin * c->units.count, NULL);
}
