/* A figure of any CSV with a header: columns of numbers are drawn over the first of them, one panel
 * each; rows that agree in all columns of text are one line. Tables of freqkv-replay needle and
 * bench and compare have figures of their own (needle.c, bench.c, pareto.c). Refused: tables
 * without a header, with rows of another length, with fewer than two columns of numbers. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots/charts.h"
#include "analyze/plots/figures.h"
#include "analyze/plots/replay_tables.h"

enum { COLUMNS = 64, CELLS = 100000 };

static bool read_number(const char *cell, double *value) {
    char *end;
    *value = NAN;
    if (!*cell) return true; /* a number that does not exist */
    *value = strtod(cell, &end);
    while (isspace((unsigned char)*end)) end++;
    return !*end;
}

/* A column of numbers has one at least, and nothing else. */
static void find_numbers(const struct fkv_table *t, bool number[COLUMNS]) {
    for (int c = 0; c < t->columns; c++) {
        bool any = false;
        double value;
        number[c] = true;
        for (int64_t r = 0; r < t->rows; r++) {
            number[c] = number[c] && read_number(fkv_table_text(t, r, c), &value);
            any = any || isfinite(value);
        }
        number[c] = number[c] && any;
    }
}

static void name_row(const struct fkv_table *t, const bool number[COLUMNS], int64_t row,
                     char label[160]) {
    int used = 0;
    label[0] = 0;
    for (int c = 0; c < t->columns && used < 120; c++)
        if (!number[c] && *fkv_table_text(t, row, c))
            used += snprintf(label + used, 160 - (size_t)used, "%s%.30s", used ? ", " : "",
                             fkv_table_text(t, row, c));
}

static int draw(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                struct fkv_error *err) {
    struct fkv_charts c = {0};
    bool number[COLUMNS];
    int x = 0;
    find_numbers(t, number);
    while (x < t->columns && !number[x]) x++;
    for (int column = x + 1; column < t->columns && c.panels < FKV_CHARTS_PANELS; column++) {
        if (!number[column]) continue;
        struct fkv_chart *chart = fkv_charts_panel(&c, t->cell[column], t->cell[x], NULL);
        for (int64_t r = 0; r < t->rows; r++) {
            char label[160];
            double position, value;
            read_number(fkv_table_text(t, r, x), &position);
            read_number(fkv_table_text(t, r, column), &value);
            name_row(t, number, r, label);
            fkv_chart_add(chart, label, fkv_color_cycle(chart->series), FKV_LOOK_JOINED, position,
                          (struct fkv_interval){value, NAN, NAN});
        }
    }
    const char *slash = strrchr(path, '/');
    const struct fkv_charts_page page = {
        .title = slash ? slash + 1 : path, .columns = c.panels < 3 ? c.panels : 3, .no_csv = true};
    int status = FKV_OK;
    if (!c.panels)
        status = fkv_fail(err, "%s: expected two columns of numbers or more, found fewer", path);
    return fkv_charts_finish(&c, status, &page, to, err);
}

int fkv_plot_table(const struct fkv_table *t, const char *path, struct fkv_plot_target *to,
                   struct fkv_error *err) {
    if (t->rows < 1)
        return fkv_fail(err, "%s: expected a header and one row or more, found %lld lines", path,
                        (long long)t->rows + 1);
    if (t->columns > COLUMNS || t->rows * t->columns > CELLS)
        return fkv_fail(
            err, "%s: expected at most %d columns and %d cells, found %d columns and %lld rows",
            path, COLUMNS, CELLS, t->columns, (long long)t->rows);
    const bool own = fkv_table_has(t, fkv_needle_columns) || fkv_table_has(t, fkv_bench_columns) ||
                     fkv_table_has(t, fkv_pareto_columns);
    return own ? FKV_OK : draw(t, path, to, err);
}
