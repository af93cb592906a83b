/* What the changes of a probe did (definitions.md, "Probe"): nll with the change minus nll
 * untouched, and KL, paired per token, over all windows. What freqkv-replay probe reports and what
 * freqkv-analyze draws.
 *
 * Intervals and units: kernels/statistics/bootstrap.h, blocks being 256 scored tokens in a row
 * within a window. p of delta nll: two-sided t of what is independent. q: corrected
 * (Benjamini-Hochberg) among the layers, or among the heads, of one family: those are the tables
 * that people search for the largest entry.
 *
 * A mean KL is never below zero, so "KL = 0" is no hypothesis that any change could meet. What is
 * tested is KL minus the KL of the untouched run repeated in blocks of another size, which is
 * rounding alone: p is one-sided, of a change that does more than rounding does. An empty change
 * has a KL of exactly 0, below the repeated run's, and two-sided that would count as a difference.
 * p of KL is NaN where the file has no KL of that run per token. */
#ifndef FKV_STORE_PROBE_DAMAGE_H
#define FKV_STORE_PROBE_DAMAGE_H

#include "capture/store/probe.h"
#include "kernels/statistics/bootstrap.h"

enum fkv_damage_measure { FKV_DAMAGE_NLL, FKV_DAMAGE_KL, FKV_DAMAGES };
/* "delta_nll", "kl" */
extern const char *const fkv_damage_names[FKV_DAMAGES];

/* Of one change, over all scored tokens. NaN where there are too few units. */
struct fkv_damage_row {
    struct fkv_interval mean[FKV_DAMAGES];
    double se[FKV_DAMAGES];
    double p[FKV_DAMAGES];
    double q[FKV_DAMAGES]; /* NaN where the change is of all heads */
    double lost[2];        /* keys, values: mean over windows of lost_energy */
};

struct fkv_damage {
    const struct fkv_probe *probe; /* borrowed; outlives this */
    struct fkv_units units;        /* owned */
    int64_t *first_unit;           /* [windows] of the window's first block; owned */
    double *counts;                /* [units] scored tokens; owned */
    double *sums[FKV_DAMAGES];     /* [changes, units]; owned */
    double *excess; /* [changes, units] KL above the repeated run's; owned; NULL without that run */
    struct fkv_damage_row *row; /* [changes]; owned */
    double untouched_nll;       /* mean over all scored tokens */
};

/* The caller frees it. Refused: a probe without windows or changes, and numbers that are not
 * finite; the message names the change. */
int fkv_damage_make(const struct fkv_probe *probe, struct fkv_damage *out, struct fkv_error *err);
/* Harmless on a zeroed struct and a second time. */
void fkv_damage_free(struct fkv_damage *d);

/* The unit of scored token i of a window. */
int64_t fkv_damage_unit(const struct fkv_damage *d, int64_t window, int32_t i);

#endif
