/* What a probe found, for people and for scripts. */
#ifndef FKV_REPLAY_PROBE_REPORT_H
#define FKV_REPLAY_PROBE_REPORT_H

#include "capture/store/probe_damage.h"
#include "kernels/base/json.h"

/* The object that --json prints; a new reference. */
json_t *fkv_probe_json(const struct fkv_damage *d);
/* The table, to stdout. */
void fkv_probe_print(const struct fkv_damage *d);

#endif
