/* What the findings of a folder rest on: models, tokenizers and texts. */
#ifndef FKV_ANALYZE_REPORT_SOURCES_H
#define FKV_ANALYZE_REPORT_SOURCES_H

#include "analyze/report/folder.h"

struct fkv_report_source {
    char *kind;    /* "model", "tokenizer", "text"; owned */
    char *name;    /* "" where it is not known; owned */
    char *sha256;  /* "" where it is not known; owned */
    char *used_by; /* "capture", "runs", "probe NAME", "ratios", joined by ", "; owned */
};
struct fkv_report_sources {
    struct fkv_report_source *list; /* [count]; owned */
    int64_t count;
};
/* Reads the files of sources (tables/sources.h) and gamma.json. What cannot be read is named in
 * outline->left_out. */
int fkv_report_sources_read(struct fkv_report *r, struct fkv_report_sources *out,
                            struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_report_sources_free(struct fkv_report_sources *s);

#endif
