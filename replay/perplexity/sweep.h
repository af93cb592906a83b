/* A sweep: one ppl experiment at every point of a grid of ratios, a run file per point. */
#ifndef FKV_REPLAY_PERPLEXITY_SWEEP_H
#define FKV_REPLAY_PERPLEXITY_SWEEP_H

#include "replay/perplexity/points.h"

struct fkv_sweep {
    double *gammas; /* [count], ascending; owned */
    int count;      /* 0: no sweep */
    int decimals;   /* that tell them all apart, at least two */
};

/* "gamma=a:b:c" or "gamma=a,b,c", ascending, in (0, 1]. */
int fkv_sweep_parse(const char *text, struct fkv_sweep *sweep, struct fkv_error *err);
void fkv_sweep_free(struct fkv_sweep *sweep); /* harmless on a zeroed struct */
/* Point i: its name is the ratio as the policy is given it, "0.10", its path
 * FOLDER/gamma_0.10.h5. Sorted by name, the files are in the order of the grid. `folder` may be
 * NULL. */
int fkv_sweep_name(const struct fkv_sweep *sweep, const char *folder, int i,
                   struct fkv_point *point, struct fkv_error *err);

/* Of all points, which share all but gamma with `e`. JSON: a new reference. */
json_t *fkv_sweep_json(const struct fkv_point *points, int count, const struct fkv_experiment *e);
void fkv_sweep_print(const struct fkv_point *points, int count, const struct fkv_experiment *e);

#endif
