/* CSV files of the folder, in a section. */
#ifndef FKV_ANALYZE_REPORT_TABLES_H
#define FKV_ANALYZE_REPORT_TABLES_H

#include <stdio.h>

#include "analyze/report/folder.h"

/* The CSV `name` as a table that is folded away; a long one in part. A file that cannot be read is
 * named in outline->left_out. */
int fkv_report_table(struct fkv_report *r, FILE *out, const char *name, struct fkv_error *err);

#endif
