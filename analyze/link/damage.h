/* What the changes of a probe did (definitions.md, "Probe"): nll with the change minus nll
 * untouched, and KL, paired per token, over windows, by class of token.
 *
 * Intervals and units: kernels/statistics/bootstrap.h, blocks being 256 scored tokens in a row
 * within a window. p of delta nll: two-sided t of what is independent. p of KL: one-sided, of KL
 * minus the KL of the untouched run repeated in blocks of another size, paired per token, since a
 * mean KL is never below zero and rounding alone makes one; NaN where the file has no KL of that
 * run per token. q: corrected (Benjamini-Hochberg) among the heads, or among the layers, of one
 * change. The same as freqkv-replay probe reports. */
#ifndef FKV_ANALYZE_LINK_DAMAGE_H
#define FKV_ANALYZE_LINK_DAMAGE_H

#include "kernels/statistics/correlation.h"
#include "capture/store/probe.h"

enum fkv_damage_measure { FKV_DAMAGE_NLL, FKV_DAMAGE_KL, FKV_DAMAGES };
extern const char *const fkv_damage_names[FKV_DAMAGES]; /* "delta_nll", "kl" */

struct fkv_damage_row {
    struct fkv_interval mean[FKV_DAMAGES];
    double se[FKV_DAMAGES], p[FKV_DAMAGES],
        q[FKV_DAMAGES]; /* q NaN where the change is of all heads */
    double lost[2];     /* keys, values: mean over windows of lost_energy */
};

struct fkv_damage {
    const struct fkv_probe *probe;
    struct fkv_units units;
    int64_t *first;            /* [windows] unit of the window's first block; owned */
    double *counts;            /* [units]; owned */
    double *sums[FKV_DAMAGES]; /* [changes, units]; owned */
    double *floor; /* [units] KL of the repeated run; owned, NULL where the file has none */
    struct fkv_damage_row *row; /* [changes]; owned */
};

int fkv_damage_make(const struct fkv_probe *probe, struct fkv_damage *out, struct fkv_error *err);
void fkv_damage_free(struct fkv_damage *d); /* harmless on a zeroed struct and a second time */

/* Mean delta nll of a change over the tokens of class `c` (analyze/link/token_classes.h), with the
 * number of them. */
struct fkv_interval fkv_damage_of_class(const struct fkv_damage *d, int32_t change, int c,
                                        double *se, int64_t *tokens,
                                        double *room /* [2 * units] */);

#endif
