/* Owns what a report reads of gamma.csv. */
#include "analyze/report/losses.h"

#include <math.h>
#include <stdlib.h>

#include "analyze/tables/table.h"

/* Columns of gamma.csv: with a ratio per head, and with one for all heads. */
static const struct {
    const char *per_head;
    const char *uniform;
} columns[FKV_LOSS_KINDS] = {
    [FKV_LOSS_KEYS] = {"key_energy_lost", "key_energy_lost_uniform"},
    [FKV_LOSS_VALUES] = {"value_energy_lost", "value_energy_lost_uniform"},
    [FKV_LOSS_OBJECTIVE] = {"objective", "objective_uniform"},
    [FKV_LOSS_OBJECTIVE_PROJECTED] = {"objective_projected", "objective_projected_uniform"}};

/* Mean of a column over all rows; NaN where there is no such column, no row, or a missing number.
 */
static double mean_of(const struct fkv_table *t, const char *name) {
    int column = fkv_table_column(t, name);
    double sum = 0;
    if (column < 0 || !t->rows) return NAN;
    for (int64_t row = 0; row < t->rows; row++) sum += fkv_table_number(t, row, column);
    return sum / (double)t->rows;
}

int fkv_report_losses_read(const struct fkv_report *r, struct fkv_report_losses *out,
                           struct fkv_error *err) {
    char path[4096];
    struct fkv_table table;
    *out = (struct fkv_report_losses){0};
    if (!fkv_report_has(r, "gamma.csv")) return FKV_OK;
    if (fkv_report_path(r, "gamma.csv", path, err) || fkv_table_read(path, &table, err))
        return FKV_FAILED;
    int gamma = fkv_table_column(&table, "gamma");
    double *ratios = malloc(((size_t)table.rows + 1) * sizeof *ratios);
    int status = gamma < 0 ? fkv_fail(err, "%s: expected a column gamma, found none", path)
                 : ratios  ? FKV_OK
                           : fkv_fail(err, "%s: out of memory", path);
    for (int64_t row = 0; !status && row < table.rows; row++)
        ratios[row] = fkv_table_number(&table, row, gamma);
    if (!status) status = fkv_spread_of(ratios, table.rows, &out->gamma, err);
    for (int i = 0; i < FKV_LOSS_KINDS; i++) {
        out->per_head[i] = mean_of(&table, columns[i].per_head);
        out->uniform[i] = mean_of(&table, columns[i].uniform);
    }
    free(ratios);
    fkv_table_free(&table);
    return status;
}
