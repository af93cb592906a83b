/* Owns what a report reads of gamma.csv. */
#include "analyze/report/losses.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Columns of gamma.csv with a ratio per head; with one for all heads they end in _uniform. */
static const char *const columns[FKV_LOSS_KINDS] = {[FKV_LOSS_KEYS] = "key_energy_lost",
                                                    [FKV_LOSS_VALUES] = "value_energy_lost",
                                                    [FKV_LOSS_OBJECTIVE] = "objective",
                                                    [FKV_LOSS_OBJECTIVE_PROJECTED] =
                                                        "objective_projected"};

/* Mean of a column over all rows; NaN where there is no such column, no row, or a missing number.
 */
static double mean_of(const struct fkv_table *t, const char *start, const char *end) {
    char name[64];
    double sum = 0;
    snprintf(name, sizeof name, "%s%s", start, end);
    for (int64_t row = 0; row < t->rows; row++) sum += fkv_table_number_of(t, row, name);
    return t->rows ? sum / (double)t->rows : NAN;
}

int fkv_report_losses_read(const struct fkv_report *r, struct fkv_report_losses *out,
                           struct fkv_error *err) {
    struct fkv_table table;
    *out = (struct fkv_report_losses){0};
    if (!fkv_report_has(r, "gamma.csv")) return FKV_OK;
    if (fkv_report_table_read(r, "gamma.csv", &table, err)) return FKV_FAILED;
    double *ratios = malloc(((size_t)table.rows + 1) * sizeof *ratios);
    int status = FKV_OK;
    if (!fkv_table_has(&table, "gamma"))
        status = fkv_fail(err, "%s/gamma.csv: expected a column gamma, found none", r->folder);
    else if (!ratios)
        status = fkv_fail(err, "%s/gamma.csv: out of memory", r->folder);
    for (int64_t row = 0; !status && row < table.rows; row++)
        ratios[row] = fkv_table_number_of(&table, row, "gamma");
    if (!status) status = fkv_spread_of(ratios, table.rows, &out->gamma, err);
    for (int i = 0; i < FKV_LOSS_KINDS; i++) {
        out->per_head[i] = mean_of(&table, columns[i], "");
        out->uniform[i] = mean_of(&table, columns[i], "_uniform");
    }
    free(ratios);
    fkv_table_free(&table);
    return status;
}
