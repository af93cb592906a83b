/* Owns the reading of CSV files (table.h). A cell is taken apart in place, so a table costs its
 * text and a pointer per cell. */
#include "analyze/tables/table.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"

enum { LARGEST = 256 << 20, MOST_COLUMNS = 256 };

void fkv_table_free(struct fkv_table *c) {
    free(c->cell);
    free(c->text);
    memset(c, 0, sizeof *c);
}

/* Ends the cell that starts at *at and steps behind it; *last when it was the line's last. */
static char *take_cell(char **at, bool *last) {
    char *start = *at, *to = start, *from = start;
    bool quoted = *from == '"';
    if (quoted) from++;
    while (*from && (quoted || (*from != ',' && *from != '\n'))) {
        if (*from == '"' && quoted) {
            quoted = from[1] == '"';
            from++;
            if (!quoted) continue;
        }
        if (*from == '\r' && from[1] == '\n') {
            from++;
            continue;
        }
        *to++ = *from++;
    }
    *last = *from != ',';
    *at = *from ? from + 1 : from;
    *to = 0;
    return start;
}

static int64_t count_lines(const char *text) {
    int64_t lines = 0;
    for (const char *p = text; *p; p++) lines += *p == '\n';
    return lines + 1; /* the last may lack its end */
}

static int take_rows(struct fkv_table *c, const char *path, struct fkv_error *err) {
    char *names[MOST_COLUMNS], *at = c->text;
    bool last = false;
    while (!last && c->columns < MOST_COLUMNS) names[c->columns++] = take_cell(&at, &last);
    if (!last)
        return fkv_fail(err, "%s: expected at most %d columns, found more", path, MOST_COLUMNS);
    size_t most = (size_t)count_lines(at) + 1;
    c->cell = malloc(most * (size_t)c->columns * sizeof *c->cell);
    if (!c->cell) return fkv_fail(err, "%s: out of memory", path);
    memcpy(c->cell, names, (size_t)c->columns * sizeof *names);
    while (*at) {
        char **row = c->cell + (c->rows + 1) * c->columns;
        int cells = 0;
        for (last = false; !last; cells++) {
            char *cell = take_cell(&at, &last);
            if (cells < c->columns) row[cells] = cell;
        }
        if (cells != c->columns)
            return fkv_fail(err, "%s: row %lld: expected %d cells, found %d", path,
                            (long long)c->rows + 1, c->columns, cells);
        c->rows++;
    }
    return FKV_OK;
}

int fkv_table_read(const char *path, struct fkv_table *out, struct fkv_error *err) {
    size_t bytes;
    *out = (struct fkv_table){0};
    if (fkv_read_file(path, LARGEST, &out->text, &bytes, err)) return FKV_FAILED;
    int status =
        strlen(out->text) == bytes ? FKV_OK : fkv_fail(err, "%s: expected text, found a NUL", path);
    if (!status) status = take_rows(out, path, err);
    if (!status) return FKV_OK;
    fkv_table_free(out);
    return FKV_FAILED;
}

/* -1 where no column has the name of `length` bytes. */
static int find_column(const struct fkv_table *c, const char *name, size_t length) {
    for (int i = 0; i < c->columns; i++)
        if (strlen(c->cell[i]) == length && !strncmp(c->cell[i], name, length)) return i;
    return -1;
}

int fkv_table_column(const struct fkv_table *c, const char *name) {
    return find_column(c, name, strlen(name));
}

bool fkv_table_has(const struct fkv_table *c, const char *names) {
    size_t length = strcspn(names, ",");
    return find_column(c, names, length) >= 0 &&
           (!names[length] || fkv_table_has(c, names + length + 1));
}

const char *fkv_table_text(const struct fkv_table *c, int64_t row, int column) {
    return c->cell[(row + 1) * c->columns + column];
}

double fkv_table_number(const struct fkv_table *c, int64_t row, int column) {
    const char *text = fkv_table_text(c, row, column);
    char *end;
    double value = strtod(text, &end);
    return *text && !*end ? value : NAN;
}

const char *fkv_table_text_of(const struct fkv_table *c, int64_t row, const char *column) {
    const int i = fkv_table_column(c, column);
    return i < 0 ? "" : fkv_table_text(c, row, i);
}

double fkv_table_number_of(const struct fkv_table *c, int64_t row, const char *column) {
    const int i = fkv_table_column(c, column);
    return i < 0 ? NAN : fkv_table_number(c, row, i);
}
