/* One `ppl` experiment, as the table, the JSON object and the run file all describe it. A point of
 * a sweep is one, too. */
#ifndef FKV_REPLAY_PERPLEXITY_EXPERIMENT_H
#define FKV_REPLAY_PERPLEXITY_EXPERIMENT_H

#include "kernels/base/json.h"
#include "replay/perplexity/perplexity.h"

struct fkv_experiment {
    const struct fkv_model *model;
    const struct fkv_policy_setup *setup;
    const struct fkv_corpus *corpus;
    const struct fkv_plan *plan;
    const struct fkv_perplexity *result;
    const struct fkv_recorded *recorded; /* NULL without --out */
    bool baseline;                       /* differences to full attention are there */
    const char *baseline_missing; /* what they do not say and why, for people; NULL: nothing */
    int64_t tokens, score_from;   /* --tokens and --score-from; 0: not given */
    int64_t
        rope_positions; /* for which the policy's rotation was chosen; 0: at every length alike */
    const char *backend, *command, *compute;
    const char *kernels;          /* see struct fkv_device_info */
    const char *tokenizer_sha256; /* "" without a tokenizer */
    enum fkv_dtype cache_dtype;
    const char *model_sha256, *corpus_sha256; /* for the run file */
};

/* The numbers of an experiment, in the order in which its run file has them as attributes; what
 * follows FKV_RESULT_BASELINE_NLL exists with a baseline only. */
enum fkv_result {
    FKV_RESULT_GAMMA,
    FKV_RESULT_TOKENS_SCORED,
    FKV_RESULT_NLL,
    FKV_RESULT_NLL_SE,
    FKV_RESULT_COMPRESSIONS,
    FKV_RESULT_EVICTIONS,
    FKV_RESULT_CACHE_BYTES_PEAK,
    FKV_RESULT_CACHE_SLOTS,
    FKV_RESULT_BASELINE_NLL,
    FKV_RESULT_DELTA_NLL,
    FKV_RESULT_DELTA_NLL_SE,
    FKV_RESULT_KL,
    FKV_RESULT_KL_SE,
    FKV_RESULT_TOP1,
    FKV_RESULTS
};
extern const char *const fkv_result_names[FKV_RESULTS];
/* By definitions.md; NaN where a number does not exist. */
void fkv_experiment_results(const struct fkv_experiment *e, double results[FKV_RESULTS]);
double fkv_perplexity_se(const double results[FKV_RESULTS]); /* perplexity * se(mean nll) */

/* Full attention past the trained context is broken and no reference: NULL when the baseline is
 * valid, else why it is not. */
const char *fkv_experiment_invalid(const struct fkv_experiment *e);

/* The policy has a window that no pass of the plan fills: it never acts, and what comes out is full
 * attention. */
bool fkv_experiment_never_acts(const struct fkv_experiment *e);

/* Adds tokens_scored to cache_slots_mean, and baseline where there is one, to an object: what an
 * experiment and a point of a sweep share. */
void fkv_results_to_json(const double results[FKV_RESULTS], json_t *object);
/* A new reference. Of `e` no results are needed. */
json_t *fkv_baseline_json(const double results[FKV_RESULTS], const struct fkv_experiment *e);
/* Adds "se_unit", the name of what standard errors rest on, or null. */
void fkv_se_unit_to_json(enum fkv_se_unit unit, json_t *object);
/* The same for people, a line on stdout. */
void fkv_experiment_print_se_unit(const struct fkv_experiment *e);
/* "%.5f" and the like, or a dash for a number that does not exist. */
const char *fkv_format_result(char text[32], const char *format, double value);
/* "model M, policy P, window N, ...", without an end of line; gamma where `gamma` is set. */
void fkv_experiment_print_head(const struct fkv_experiment *e, bool gamma);
/* The same, and the texts, as an object, a new reference. */
json_t *fkv_experiment_head_json(const struct fkv_experiment *e, bool gamma);

/* The object of formats.md, "JSON keys people script against". A new reference. */
json_t *fkv_experiment_json(const struct fkv_experiment *e);
/* The table for people, to stdout. */
void fkv_experiment_print(const struct fkv_experiment *e);

/* Writes RUN.h5: `path` must not exist. Layout: run_file.c. */
int fkv_run_file_write(const char *path, const struct fkv_experiment *e, struct fkv_error *err);
/* Reads the numbers of a run file, and refuses one that was not made by this very experiment (of
 * which no results are needed): another model, other texts, other options. */
int fkv_run_file_read(const char *path, const struct fkv_experiment *e, double results[FKV_RESULTS],
                      struct fkv_error *err);
/* Reads what a run of full attention found, and refuses one that is not of this very experiment
 * but for its baseline: `e` is that of full attention, without results. The caller frees it. */
int fkv_run_file_read_baseline(const char *path, const struct fkv_experiment *e,
                               struct fkv_baseline_run *run, struct fkv_error *err);

#endif
