/* Cells of CSV files (RFC 4180): numbers that do not exist are empty, text is quoted where it must
 * be. */
#ifndef FKV_ANALYZE_TABLES_CSV_H
#define FKV_ANALYZE_TABLES_CSV_H

#include "kernels/statistics/correlation.h"
#include "kernels/base/atomic_file.h"

/* Opens FOLDER/NAME and writes its first line; header NULL: the caller writes it. */
int fkv_csv_open(struct fkv_atomic_file *f, const char *folder, const char *name,
                 const char *header, struct fkv_error *err);
/* Each a cell with a comma before it. */
void fkv_csv_number(FILE *f, double x);
void fkv_csv_interval(FILE *f, struct fkv_interval x); /* estimate, low, high */
void fkv_csv_text(FILE *f, const char *text);
/* A first cell, without a comma. */
void fkv_csv_first(FILE *f, const char *text);

#endif
