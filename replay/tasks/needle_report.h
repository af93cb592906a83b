/* What the prompts of a run of `needle` add up to. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_REPORT_H
#define FKV_REPLAY_TASKS_NEEDLE_REPORT_H

#include "kernels/base/json.h"
#include "replay/tasks/needle_rows.h"

/* The object of --json, without what the command line alone knows. A new reference. */
json_t *fkv_needle_report_json(const struct fkv_needle_sheet *sheet);
/* The table for people, to standard output. */
void fkv_needle_report_print(const struct fkv_needle_sheet *sheet);

#endif
