/* DIR/report.html: all that freqkv-analyze left in a folder, as one file that loads nothing: style,
 * script, data and figures are inside.
 *
 * A section appears when its data does. A figure or a table belongs to the section that its name
 * matches (report.c). What the page says in words is computed from the numbers, and says no where
 * they do. The same folder gives the same bytes. Text from files is escaped and never becomes
 * markup; a figure is an image, in which no script runs. */
#ifndef FKV_ANALYZE_REPORT_REPORT_H
#define FKV_ANALYZE_REPORT_REPORT_H

#include "analyze/report/outline.h"
#include "kernels/base/error.h"

/* Refuses a folder without a results.h5 of this toolkit, and a report.html that this tool did not
 * make. The file appears whole or not at all, and replaces one of an earlier run. */
int fkv_report_write(const char *folder, struct fkv_report_outline *out, struct fkv_error *err);

#endif
