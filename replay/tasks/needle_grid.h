/* Prompts of a grid of lengths and depths, each repeated with other digits and another piece of the
 * texts, fed one after the other. All prompts are built when it opens, so that what cannot be built
 * is refused at once; their ids are made again when each is fed. A file of their rows
 * (needle_rows.h) grows by one per prompt, and goes on after the last whole row. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_GRID_H
#define FKV_REPLAY_TASKS_NEEDLE_GRID_H

#include "kernels/base/json.h"
#include "replay/identity.h"
#include "replay/tasks/needle_rows.h"

struct fkv_needle_grid {
    const struct fkv_needle_task *task;
    const double *lengths, *depths; /* [length_count], [depth_count] */
    int length_count, depth_count;
    int64_t repeats;
    const struct fkv_policy_setup *setup;

    /* filled in by fkv_needle_grid_open */
    struct fkv_needle_cell *cells; /* [count] by length, then repeat, then depth; owned */
    int64_t count, longest;        /* longest: tokens fed of a prompt and its answer */
    /* and by what follows */
    struct fkv_needle_result *results; /* [count]; owned, the texts too */
    struct fkv_lines_found found;      /* of the file */
    int64_t first;                     /* cell whose row is not there yet */
};

/* `g` with everything above filled in; `setup` may follow. */
int fkv_needle_grid_open(struct fkv_needle_grid *g, struct fkv_error *err);
void fkv_needle_grid_close(struct fkv_needle_grid *g); /* harmless on a zeroed struct */

/* What rows are made of. */
struct fkv_needle_sheet fkv_needle_grid_sheet(const struct fkv_needle_grid *g);

/* What makes the rows, a new reference: the model, the texts as their tokens, and the grid. */
json_t *fkv_needle_grid_identity(const struct fkv_needle_grid *g, const struct fkv_replay *replay,
                                 const struct fkv_corpus *corpus, struct fkv_error *err);
/* Takes over what an earlier run left of the file. */
int fkv_needle_grid_look_up(struct fkv_needle_grid *g, const char *path, const json_t *identity,
                            bool quiet, struct fkv_error *err);

/* Seconds that the cells from `first` on take. */
double fkv_needle_grid_seconds(const struct fkv_needle_grid *g, const struct fkv_cost *cost);
/* Feeds and scores the cells from `first` on; path NULL: no file. cost: what progress is counted
 * in; zeros: prompts. */
int fkv_needle_grid_run(struct fkv_needle_grid *g, struct fkv_session *session, const char *path,
                        const json_t *identity, const struct fkv_cost *cost, bool quiet,
                        struct fkv_error *err);

#endif
