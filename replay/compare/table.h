/* What a comparison found: rows of policies, and every pair of them. */
#ifndef FKV_REPLAY_COMPARE_TABLE_H
#define FKV_REPLAY_COMPARE_TABLE_H

#include "kernels/base/json.h"
#include "replay/compare/pairs.h"
#include "replay/perplexity/experiment.h"

/* Numbers that do not exist are NaN. */
struct fkv_compare_row {
    const char *policy;    /* with its options, as written: "freqkv:gamma=0.25" */
    const char *file;      /* its run */
    int32_t budget, slots; /* asked for, and the window or kept slots that gives; 0: none */
    bool known;            /* what follows is there */
    const double *results; /* [FKV_RESULTS] of the run; borrowed */
    double ms_per_token;
    float *nll;              /* the run's column; owned */
    struct fkv_pair to_full; /* of full attention itself, 0 without a standard error */
    double
        recall; /* loss of a passage where it returns less where it stood first, nats per token */
    double recall_delta, recall_delta_se; /* less full attention's */
};

struct fkv_rivals {
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    const char *invalid;          /* why full attention is no reference; NULL: it is */
    bool equal_mean;              /* budgets are means; else peaks */
    struct fkv_compare_row *rows; /* [count], full attention first */
    int count;
    struct fkv_pair *pairs; /* [count, count]: row b less row a at [a, b], a < b; owned */
};
/* Fills in the pairs. */
int fkv_rivals_pair(struct fkv_rivals *c, struct fkv_error *err);
void fkv_rivals_free(struct fkv_rivals *c); /* and the rows' columns */

/* DIR/compare.csv of the rows that are known, and DIR/pairs.csv; each replaced as a whole. */
int fkv_rivals_write(const struct fkv_rivals *c, const char *path, struct fkv_error *err);
int fkv_rivals_write_pairs(const struct fkv_rivals *c, const char *path, struct fkv_error *err);
/* {"rows": [...], "pairs": [...], ...}; a new reference. */
json_t *fkv_rivals_json(const struct fkv_rivals *c);
/* The table for people, to standard output. */
void fkv_rivals_print(const struct fkv_rivals *c);

#endif
