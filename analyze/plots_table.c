/* A figure of any CSV with a header: columns of numbers are drawn over the first of them, one panel each; rows that agree in all columns of text are one line. Refused: tables
 * without a header, with rows of another length, with fewer than two columns of numbers. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/plots_charts.h"
#include "analyze/plots_files.h"
#include "kernels/base/atomic_file.h"

enum { COLUMNS = 64, ROWS = 100000, TABLE_BYTES = 64 << 20 };

struct table {
    int columns, rows;
    char **cell; /* [rows + 1, columns]: the header first; point into the file's text; owned array */
    bool number[COLUMNS];
};

/* Takes one cell off *at, undoing its quotes in place; *last: it ended its line. NULL at the end of the text. */
static char *next_cell(char **at, bool *last) {
    char *in = *at, *out = *at, *cell = *at;
    bool quoted = *in == '"';
    if (!*in) return NULL;
    if (quoted) in++;
    while (*in && (quoted || (*in != ',' && *in != '\n' && *in != '\r'))) {
        if (quoted && *in == '"' && in[1] != '"') {
            quoted = false, in++;
            continue;
        }
        if (quoted && *in == '"') in++;
        *out++ = *in++;
    }
    *last = *in != ',';
    if (*in == '\r') in++;
    if (*in) in++;
    *out = 0;
    *at = in;
    return cell;
}

static int split(char *text, struct table *t, struct fkv_error *err) {
    int count = 0, in_row = 0;
    t->cell = malloc(((size_t)ROWS + 1) * sizeof *t->cell);
    if (!t->cell) return fkv_fail(err, "out of memory for a table");
    for (bool last = false;;) {
        char *cell = next_cell(&text, &last);
        if (!cell) break;
        if (count == ROWS || (!t->rows && in_row == COLUMNS))
            return fkv_fail(err, "expected at most %d columns and %d cells, found more", COLUMNS, ROWS);
        t->cell[count++] = cell, in_row++;
        if (!last) continue;
        if (t->rows && in_row != t->columns)
            return fkv_fail(err, "line %d: expected %d cells as in the header, found %d", t->rows + 1, t->columns,
                            in_row);
        t->columns = in_row, t->rows++, in_row = 0;
    }
    t->rows--;
    if (t->rows < 1) return fkv_fail(err, "expected a header and one row or more, found %d lines", t->rows + 1);
    return FKV_OK;
}

static bool read_number(const char *cell, double *value) {
    char *end;
    *value = NAN;
    if (!*cell) return true; /* a number that does not exist */
    *value = strtod(cell, &end);
    while (isspace((unsigned char)*end)) end++;
    return !*end;
}

/* A column of numbers has one at least, and nothing else. */
static void find_numbers(struct table *t) {
    for (int c = 0; c < t->columns; c++) {
        bool any = false;
        double value;
        t->number[c] = true;
        for (int r = 1; r <= t->rows; r++) {
            t->number[c] = t->number[c] && read_number(t->cell[r * t->columns + c], &value);
            any = any || isfinite(value);
        }
        t->number[c] = t->number[c] && any;
    }
}

static void name_row(const struct table *t, int row, char label[160]) {
    int used = 0;
    label[0] = 0;
    for (int c = 0; c < t->columns && used < 120; c++)
        if (!t->number[c] && *t->cell[row * t->columns + c])
            used +=
                snprintf(label + used, 160 - (size_t)used, "%s%.30s", used ? ", " : "", t->cell[row * t->columns + c]);
}

static int draw(const struct table *t, const char *path, struct fkv_plot_place *at, struct fkv_error *err) {
    struct fkv_charts c;
    int x = 0;
    while (x < t->columns && !t->number[x]) x++;
    if (fkv_charts_open(&c, err)) return FKV_FAILED;
    for (int column = x + 1; column < t->columns && c.panels < FKV_CHARTS_PANELS; column++) {
        if (!t->number[column]) continue;
        int panel = fkv_charts_panel(&c, t->cell[column], t->cell[x], NULL);
        for (int r = 1; r <= t->rows; r++) {
            char label[160];
            double place, value;
            read_number(t->cell[r * t->columns + x], &place);
            read_number(t->cell[r * t->columns + column], &value);
            name_row(t, r, label);
            fkv_charts_add(&c, panel, label, fkv_color_cycle(c.chart[panel].series), FKV_LOOK_JOINED, place,
                           (struct fkv_interval){value, NAN, NAN});
        }
    }
    const char *slash = strrchr(path, '/');
    const struct fkv_charts_page page = {at->folder, at->stem, slash ? slash + 1 : path,    NULL,
                                         0,          0,        c.panels < 3 ? c.panels : 3, NULL};
    int status = c.panels ? fkv_charts_draw(&c, &page, at->provenance, err)
                          : fkv_fail(err, "%s: expected two columns of numbers or more, found fewer", path);
    at->figures += !status;
    fkv_charts_close(&c);
    return status;
}

int fkv_plot_table(const char *path, struct fkv_plot_place *at, struct fkv_error *err) {
    struct table t = {0};
    char *text;
    size_t bytes;
    if (fkv_read_file(path, TABLE_BYTES, &text, &bytes, err)) return FKV_FAILED;
    int status = memchr(text, 0, bytes) ? fkv_fail(err, "expected text, found a zero byte") : split(text, &t, err);
    if (status) fkv_error_prefix(err, "%s", path);
    if (!status) find_numbers(&t);
    if (!status) status = draw(&t, path, at, err);
    free(t.cell);
    free(text);
    return status;
}
