/* What ratios per head lose beside one ratio for all heads, from gamma.csv. */
#ifndef FKV_ANALYZE_REPORT_LOSSES_H
#define FKV_ANALYZE_REPORT_LOSSES_H

#include "analyze/report/folder.h"
#include "analyze/report/spread.h"

enum fkv_report_loss_kind {
    FKV_LOSS_KEYS,                /* share of the keys' energy */
    FKV_LOSS_VALUES,              /* share of the values' energy */
    FKV_LOSS_OBJECTIVE,           /* what the ratios were chosen to minimise */
    FKV_LOSS_OBJECTIVE_PROJECTED, /* the same after the output projection */
    FKV_LOSS_KINDS
};
struct fkv_report_losses {
    struct fkv_spread gamma;         /* of the heads' ratios; count 0: there is no gamma.csv */
    double per_head[FKV_LOSS_KINDS]; /* mean over heads; NaN where the file does not say */
    double uniform[FKV_LOSS_KINDS];  /* the same at one ratio for all heads */
};
int fkv_report_losses_read(const struct fkv_report *r, struct fkv_report_losses *out,
                           struct fkv_error *err);

#endif
