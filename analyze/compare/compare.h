/* Runs against runs: differences, token by token, of runs that scored the same tokens.
 *
 * Both runs of a pair saw the same texts, so what makes a token hard is in both and drops out of
 * the difference. Intervals and p values: kernels/statistics/bootstrap.h; the same resamples serve
 * all pairs. */
#ifndef FKV_ANALYZE_COMPARE_COMPARE_H
#define FKV_ANALYZE_COMPARE_COMPARE_H

#include "analyze/figure/figure.h"
#include "capture/store/run.h"
#include "kernels/base/memory.h"

/* What differs: of run b less of run a, per token. */
enum fkv_difference_kind {
    FKV_DIFFERENCE_NLL,  /* nats */
    FKV_DIFFERENCE_KL,   /* nats, each to its own baseline; of runs that have one */
    FKV_DIFFERENCE_TOP1, /* share of tokens where policy and baseline have one argmax; likewise */
    FKV_DIFFERENCES
};
extern const char *const fkv_difference_names[FKV_DIFFERENCES]; /* "delta_nll", ... */

/* How tokens are put into groups. */
enum fkv_grouping { FKV_ALL_TOKENS, FKV_BY_POSITION, FKV_BY_CLASS, FKV_BY_DOCUMENT, FKV_GROUPINGS };
extern const char *const fkv_grouping_names[FKV_GROUPINGS]; /* "all", "position", ... */
/* The grouping of a name; FKV_GROUPINGS for none. */
enum fkv_grouping fkv_grouping_find(const char *name);

struct fkv_token_group {
    enum fkv_grouping by;
    char name[FKV_DOCUMENT_NAME]; /* "0-511" (positions), "digit", a document's; "all" */
    int32_t index;                /* of the class or document */
    int64_t first, end;           /* of positions [first, end) in document or window */
    struct fkv_units units;       /* of its bootstrap: the runs', or one document's; owned */
};

struct fkv_difference {
    int64_t tokens;           /* 0: the group has none, or a run lacks the number */
    struct fkv_interval mean; /* of b less a; NaN where it does not exist */
    double se;                /* of the mean */
    double p;                 /* of the mean being 0 */
};

struct fkv_run_pair {
    int32_t a, b;
};

struct fkv_comparison {
    const struct fkv_run *runs; /* [count]; borrowed */
    int32_t count;
    char (*label)[FKV_RUN_LABEL]; /* [count]; no two alike */
    int32_t groups;
    struct fkv_token_group *group; /* [groups], all tokens first */
    int32_t pairs;                 /* count (count - 1) / 2 */
    struct fkv_run_pair *pair;     /* [pairs] (0,1), (0,2), ..., (1,2), ... */
    struct fkv_difference *found;  /* [pairs, groups, FKV_DIFFERENCES] */
    struct fkv_memory memory;
};

/* Refuses runs that did not score the same tokens, with what differs. */
int fkv_comparison_check(const struct fkv_run *runs, int32_t count, struct fkv_error *err);
/* Compares every run with every later one. The runs passed fkv_comparison_check. */
int fkv_comparison_make(const struct fkv_run *runs, int32_t count, struct fkv_comparison *c,
                        struct fkv_error *err);
void fkv_comparison_free(struct fkv_comparison *c); /* harmless on a zeroed struct */

/* Of a pair and a group -> [FKV_DIFFERENCES]; borrowed. */
const struct fkv_difference *fkv_comparison_at(const struct fkv_comparison *c, int32_t pair,
                                               int32_t group);

/* FOLDER/compare.csv: a row per pair and group. */
int fkv_comparison_write(const char *folder, const struct fkv_comparison *c, struct fkv_error *err);
/* The overall differences and those of one grouping on stdout, as a table or one JSON object. */
int fkv_comparison_print(const struct fkv_comparison *c, enum fkv_grouping by, bool json,
                         struct fkv_error *err);

#endif
