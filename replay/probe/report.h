/* What a probe found, for people and for scripts. */
#ifndef FKV_REPLAY_PROBE_REPORT_H
#define FKV_REPLAY_PROBE_REPORT_H

#include "capture/store/probe.h"
#include "kernels/base/json.h"
#include "kernels/statistics/bootstrap.h"
#include "replay/probe/changes.h"

/* Of one change: means over all scored tokens, with 95% intervals. NaN where there are too few
 * units. */
struct fkv_probe_effect {
    struct fkv_interval delta_nll, kl;
    double lost[2]; /* mean over windows: keys, values */
    double p, q;    /* of delta_nll being 0; q among the layers, or the heads, of one change */
    double kl_p; /* of KL being no more than that of the repeated run, one-sided; NaN without one */
    double kl_q;
};

struct fkv_probe_summary {
    struct fkv_probe_effect *effects; /* [changes]; owned */
    double untouched_nll;
    int64_t units, documents;
    enum fkv_se_unit se_unit;
};

int fkv_probe_summarise(const struct fkv_probe *probe, const struct fkv_edit *edits,
                        struct fkv_probe_summary *summary, struct fkv_error *err);
void fkv_probe_summary_free(struct fkv_probe_summary *summary); /* harmless on a zeroed struct */

json_t *fkv_probe_json(const struct fkv_probe *probe,
                       const struct fkv_probe_summary *summary); /* a new reference */
void fkv_probe_print(const struct fkv_probe *probe, const struct fkv_probe_summary *summary);

#endif
