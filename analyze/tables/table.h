/* CSV files of anyone's: a line of names, then rows with as many cells; quotes as RFC 4180 has
 * them. Refused: rows of another length, more than 256 columns or 256 MiB, bytes that are no text.
 */
#ifndef FKV_ANALYZE_TABLES_TABLE_H
#define FKV_ANALYZE_TABLES_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/error.h"

struct fkv_table {
    int64_t rows; /* without the line of names */
    int columns;
    char **cell; /* [1 + rows, columns], row 0 the names; owned */
    char *text;  /* what the cells point into; owned */
};
int fkv_table_read(const char *path, struct fkv_table *out, struct fkv_error *err);
void fkv_table_free(struct fkv_table *c); /* harmless on a zeroed struct and a second time */
/* -1 where there is no such column. */
int fkv_table_column(const struct fkv_table *c, const char *name);
/* names: "a,b,c". Whether all of these columns are there. */
bool fkv_table_has(const struct fkv_table *c, const char *names);
const char *fkv_table_text(const struct fkv_table *c, int64_t row, int column);
double fkv_table_number(const struct fkv_table *c, int64_t row,
                        int column); /* NaN where it is no number */
/* The same by the column's name; "" and NaN where there is no such column. */
const char *fkv_table_text_of(const struct fkv_table *c, int64_t row, const char *column);
double fkv_table_number_of(const struct fkv_table *c, int64_t row, const char *column);

#endif
