/* DIR/report.html: all that freqkv-analyze left in a folder, as one file that loads nothing: style,
 * script, data and figures are inside.
 *
 * A section appears when its data does. A figure or a table belongs to the section that its name
 * matches (report.c). What the page says in words is computed from the numbers, and says no where
 * they do. The same folder gives the same bytes. Text from files is escaped and never becomes
 * markup; a figure is an image, in which no script runs. */
#ifndef FKV_ANALYZE_REPORT_REPORT_H
#define FKV_ANALYZE_REPORT_REPORT_H

#include <stdint.h>

#include "analyze/report/text_list.h"
#include "kernels/base/error.h"

/* What a report that was written holds, in short: what the command prints. */
struct fkv_report_outline {
    char *path;                    /* of the page; owned */
    int64_t bytes;                 /* of the page */
    int figures;                   /* how many the page shows */
    struct fkv_text_list sections; /* ids, in the order of the page */
    struct fkv_text_list summary;  /* sentences */
    struct fkv_text_list left_out; /* files that are not shown, "NAME: why" */
};
/* Harmless on a zeroed struct and a second time. */
void fkv_report_outline_free(struct fkv_report_outline *o);

/* Refuses a folder without a results.h5 of this toolkit, and a report.html that this tool did not
 * make. The file appears whole or not at all, and replaces one of an earlier run. */
int fkv_report_write(const char *folder, struct fkv_report_outline *out, struct fkv_error *err);

#endif
