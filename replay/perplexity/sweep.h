/* A sweep: one ppl experiment at every point of a grid of ratios, a run file per point. */
#ifndef FKV_REPLAY_PERPLEXITY_SWEEP_H
#define FKV_REPLAY_PERPLEXITY_SWEEP_H

#include "kernels/base/path.h"
#include "replay/perplexity/experiment.h"

struct fkv_sweep {
    double *gammas; /* [count], ascending; owned */
    int count;      /* 0: no sweep */
    int decimals;   /* that tell them all apart, at least two */
};

struct fkv_sweep_point {
    char gamma[32];      /* as the policy is given it: "0.10" */
    char path[FKV_PATH]; /* of its run file: FOLDER/gamma_0.10.h5; "" without a folder */
    bool done;           /* by an earlier run, whose results these are */
    double results[FKV_RESULTS];
};

/* "gamma=a:b:c" or "gamma=a,b,c", ascending, in (0, 1]. */
int fkv_sweep_parse(const char *text, struct fkv_sweep *sweep, struct fkv_error *err);
void fkv_sweep_free(struct fkv_sweep *sweep); /* harmless on a zeroed struct */
/* Names of point i: points[i].gamma and path. Sorted by name, the files are in the order of the
 * grid. `folder` may be NULL. */
int fkv_sweep_name(const struct fkv_sweep *sweep, const char *folder, int i,
                   struct fkv_sweep_point *point, struct fkv_error *err);

/* A folder that can be written to, or that can be made; nothing is made yet. */
int fkv_sweep_check_folder(const char *folder, struct fkv_error *err);

/* Of all points, which share all but gamma with `e`. JSON: a new reference. */
json_t *fkv_sweep_json(const struct fkv_sweep_point *points, int count,
                       const struct fkv_experiment *e);
void fkv_sweep_print(const struct fkv_sweep_point *points, int count,
                     const struct fkv_experiment *e);

#endif
