/* The folder that a report is about, and how far the page has come. Every section gets one. */
#ifndef FKV_ANALYZE_REPORT_FOLDER_H
#define FKV_ANALYZE_REPORT_FOLDER_H

#include <stdbool.h>

#include "analyze/report/facts.h"
#include "analyze/report/outline.h"
#include "analyze/tables/table.h"
#include "kernels/base/path.h"

struct fkv_report {
    const char *folder;                 /* the caller's */
    struct fkv_text_list files;         /* names of its plain files, sorted */
    bool *taken;                        /* [files.count]: some section has this file; owned */
    struct fkv_h5_reader *results;      /* results.h5, open */
    struct fkv_report_facts facts;      /* of results.h5 */
    struct fkv_text_list commands;      /* that made the findings, each once, as they were met */
    int figures;                        /* numbered so far */
    int tables;                         /* numbered so far */
    struct fkv_report_outline *outline; /* filled on the way; the caller's */
};
/* Lists the folder, opens results.h5 and reads its facts. Refuses a folder without a results.h5 of
 * this toolkit. On failure nothing has to be closed. */
int fkv_report_open(const char *folder, struct fkv_report_outline *outline, struct fkv_report *out,
                    struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_report_close(struct fkv_report *r);

/* "FOLDER/NAME"; refuses one that is too long. */
int fkv_report_path(const struct fkv_report *r, const char *name, char path[FKV_PATH],
                    struct fkv_error *err);
/* Whether the folder has a plain file of this name. */
bool fkv_report_has(const struct fkv_report *r, const char *name);
/* Reads the folder's CSV file of this name. */
int fkv_report_table_read(const struct fkv_report *r, const char *name, struct fkv_table *out,
                          struct fkv_error *err);

#endif
