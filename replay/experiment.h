/* One `ppl` experiment, as the table, the JSON object and the run file all describe it. */
#ifndef FKV_REPLAY_EXPERIMENT_H
#define FKV_REPLAY_EXPERIMENT_H

#include "kernels/base/json.h"
#include "replay/perplexity.h"

struct fkv_experiment {
    const struct fkv_model *model;
    const struct fkv_policy_setup *setup;
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    const struct fkv_perplexity *result;
    const struct fkv_recorded *recorded; /* NULL without --out */
    bool baseline;                       /* `full` ran beside it */
    int64_t tokens, score_from;          /* --tokens and --score-from; 0: not given */
    const char *backend, *command;
    enum fkv_dtype cache_dtype;
};

/* What is derived from the sums, by definitions.md. NaN where it does not exist. */
double fkv_experiment_perplexity_se(const struct fkv_experiment *e); /* perplexity * se(mean nll) */
double fkv_experiment_delta_nll(const struct fkv_experiment *e);

/* Full attention past the trained context is broken and no reference: NULL when the baseline is valid, else why it is not. */
const char *fkv_experiment_invalid(const struct fkv_experiment *e);

/* The object of formats.md, "JSON keys people script against". A new reference. */
json_t *fkv_experiment_json(const struct fkv_experiment *e);
/* The table for people, to stdout. */
void fkv_experiment_print(const struct fkv_experiment *e);

/* Writes RUN.h5: `path` must not exist. Layout: run_file.c. */
int fkv_run_file_write(const char *path, const struct fkv_experiment *e, struct fkv_error *err);

#endif
