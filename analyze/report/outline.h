/* What a report that was written holds, in short: what the command prints. */
#ifndef FKV_ANALYZE_REPORT_OUTLINE_H
#define FKV_ANALYZE_REPORT_OUTLINE_H

#include <stdint.h>

#include "analyze/report/text_list.h"

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

#endif
