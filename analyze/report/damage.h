/* The part of the summary that is about runs and probes. */
#ifndef FKV_ANALYZE_REPORT_DAMAGE_H
#define FKV_ANALYZE_REPORT_DAMAGE_H

#include "analyze/report/folder.h"

/* Appends to outline->summary. */
int fkv_report_say_damage(struct fkv_report *r, struct fkv_error *err);

#endif
