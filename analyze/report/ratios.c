/* Owns the section of ratios per head: what the table loses beside one ratio for all heads, from
 * gamma.csv. The map and the histogram are the command's own figures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/report/parts.h"

static const struct {
    const char *column, *uniform, *label;
} losses[] = {
    {"key_energy_lost", "key_energy_lost_uniform", "keys: share of energy lost"},
    {"value_energy_lost", "value_energy_lost_uniform", "values: share of energy lost"},
    {"objective", "objective_uniform", "what the table minimises"},
    {"objective_projected", "objective_projected_uniform", "the same after the output projection"}};

/* Mean of a column over rows; NaN where there is none or one is missing. */
static double mean_of(const struct fkv_table *t, const char *name) {
    int column = fkv_table_column(t, name);
    double sum = 0;
    if (column < 0 || !t->rows) return NAN;
    for (int64_t row = 0; row < t->rows; row++) sum += fkv_table_number(t, row, column);
    return sum / (double)t->rows;
}

int fkv_report_losses_read(struct fkv_report *r, struct fkv_report_losses *out,
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
    for (int i = 0; i < FKV_REPORT_LOSSES; i++) {
        out->label[i] = losses[i].label;
        out->table[i] = mean_of(&table, losses[i].column);
        out->uniform[i] = mean_of(&table, losses[i].uniform);
    }
    free(ratios);
    fkv_table_free(&table);
    return status;
}

int fkv_report_ratios(struct fkv_report *r, FILE *out, struct fkv_error *err) {
    struct fkv_report_losses l;
    if (fkv_report_losses_read(r, &l, err)) return FKV_FAILED;
    if (!l.gamma.count) return FKV_OK;
    char caption[256];
    snprintf(caption, sizeof caption,
             "Means over %d heads, on the texts that the ratios were chosen on. Uniform: one ratio "
             "of %.4g for every head.",
             l.gamma.count, l.gamma.mean);
    fkv_html_table(out, r, caption);
    fputs("<thead><tr><th scope='col' class='text'>loss</th><th scope='col'>ratio per head</th><th "
          "scope='col'>uniform</th><th scope='col'>difference</th></tr></thead>\n"
          "<tbody>\n",
          out);
    for (int i = 0; i < FKV_REPORT_LOSSES; i++) {
        if (!isfinite(l.table[i])) continue;
        fprintf(out, "<tr><th scope='row'>%s</th><td>", l.label[i]);
        fkv_html_number(out, l.table[i]);
        fputs("</td><td>", out);
        fkv_html_number(out, l.uniform[i]);
        double change = l.table[i] / l.uniform[i] - 1;
        if (isfinite(change))
            fprintf(out, "</td><td>%s%.1f%%</td></tr>\n", change < 0 ? "\u2212" : "+",
                    100 * fabs(change));
        else
            fputs("</td><td>\u2013</td></tr>\n", out);
    }
    fkv_html_table_end(out);
    return FKV_OK;
}
