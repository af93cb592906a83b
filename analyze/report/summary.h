/* The findings in words. */
#ifndef FKV_ANALYZE_REPORT_SUMMARY_H
#define FKV_ANALYZE_REPORT_SUMMARY_H

#include "analyze/report/folder.h"

/* Fills outline->summary. */
int fkv_report_summary(struct fkv_report *r, struct fkv_error *err);

#endif
