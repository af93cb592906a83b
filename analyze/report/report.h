/* DIR/report.html: all that freqkv-analyze left in a folder, as one page that needs nothing else:
 * no network, no fonts, figures inline, data inside.
 *
 * A section appears when its data does; a figure or a table belongs to the section whose prefix its
 * name has (report.c). What the page says in words is computed from the numbers, and says no where
 * they do. The same folder gives the same bytes. Names that come from files are data, never markup.
 */
#ifndef FKV_ANALYZE_REPORT_REPORT_H
#define FKV_ANALYZE_REPORT_REPORT_H

#include <stdint.h>

#include "kernels/base/error.h"

struct fkv_text_list {
    char **text; /* [count]; owned, as each is */
    int count;
};
/* Adds a copy; printf's arguments. */
int fkv_text_list_add(struct fkv_text_list *list, struct fkv_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fkv_text_list_free(
    struct fkv_text_list *list); /* harmless on a zeroed struct and a second time */

/* What stands in a report that was written. */
struct fkv_report_outline {
    char *path; /* owned */
    int64_t bytes;
    int figures;
    struct fkv_text_list sections; /* ids */
    struct fkv_text_list summary;  /* sentences */
    struct fkv_text_list left_out; /* files that are not shown, "NAME: why" */
};
/* Refuses a folder without a results.h5 of ours. The file appears whole or not at all, and replaces
 * one of an earlier run; a report.html that this tool did not make is refused. */
int fkv_report_write(const char *folder, struct fkv_report_outline *out, struct fkv_error *err);
void fkv_report_outline_free(
    struct fkv_report_outline *o); /* harmless on a zeroed struct and a second time */

#endif
