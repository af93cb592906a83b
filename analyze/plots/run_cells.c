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

void fkv_run_cells_draw(const struct fkv_run_cells *c, double least, struct fkv_chart *chart,
                        const struct fkv_chart_series *style) {
    for (int b = 0; b < c->bins; b++) {
        const double tokens = fkv_run_cells_tokens(c, b);
        if (tokens < least) continue;
        const struct fkv_interval mean = fkv_ratio_interval(&c->units, c->sum + b * c->units.count,
                                                            c->count + b * c->units.count, NULL);
        struct fkv_chart_series *line = fkv_chart_add(chart, style->label, style->color,
                                                      FKV_LOOK_LINE, c->position[b] / tokens, mean);
        if (line) line->dashed = style->dashed, line->bare = style->bare;
    }
}
