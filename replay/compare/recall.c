/* See recall.h. The passage stands a quarter into the text: late enough to be none of the sinks,
 * and with most of the prompt between it and its return. */
#include "replay/compare/recall.h"

#include <stdlib.h>

#include "kernels/statistics/bootstrap.h"

static const double depth = 0.25;
enum { DIGITS = 5 }; /* of keys that are not used: the draws are those of needle's default */

static struct fkv_needle_grid grid_of(const struct fkv_recall *r,
                                      const struct fkv_policy_setup *setup) {
    return (struct fkv_needle_grid){.task = &r->task,
                                    .lengths = &r->length,
                                    .depths = &depth,
                                    .length_count = 1,
                                    .depth_count = 1,
                                    .repeats = r->repeats,
                                    .setup = setup};
}

int fkv_recall_open(struct fkv_recall *r, struct fkv_error *err) {
    if (!r->repeats) return FKV_OK;
    const struct fkv_engine *engine = &r->replay->engine;
    if (fkv_corpus_read(&r->replay->options, engine, false, 0, &r->corpus, err) ||
        fkv_haystack_open(&r->corpus, engine->tokenizer, &r->haystack, err))
        return FKV_FAILED;
    r->task = (struct fkv_needle_task){.kind = FKV_RECALL,
                                       .haystack = &r->haystack,
                                       .tokenizer = engine->tokenizer,
                                       .vocab = engine->model->config.vocab,
                                       .bos = fkv_engine_added_bos(engine),
                                       .digits = DIGITS,
                                       .passage = r->passage,
                                       .seed = r->seed,
                                       .block = r->block};
    struct fkv_needle_grid grid = grid_of(r, NULL);
    int status = fkv_needle_grid_open(&grid, err);
    fkv_needle_grid_close(&grid);
    return status ? fkv_error_prefix(err, "recall (--recall 0 leaves it out)") : FKV_OK;
}

void fkv_recall_close(struct fkv_recall *r) {
    fkv_haystack_close(&r->haystack);
    fkv_corpus_free(&r->corpus);
}

static int run_grid(const struct fkv_recall *r, const struct fkv_policy_options *policy,
                    struct fkv_needle_grid *grid, const char *path, const json_t *identity,
                    struct fkv_error *err) {
    static const struct fkv_cost by_prompts = {0};
    struct fkv_session_options options;
    struct fkv_session *session;
    if (fkv_replay_session_options(r->replay, policy, 1, grid->longest, &options, err) ||
        fkv_session_open(r->replay->engine.model, policy, &options, &session, err))
        return FKV_FAILED;
    int status = fkv_needle_grid_run(grid, session, path, identity, &by_prompts,
                                     r->replay->options.quiet, err);
    fkv_session_close(session);
    return status;
}

int fkv_recall_run(const struct fkv_recall *r, const struct fkv_policy_options *policy,
                   const char *path, double *change, struct fkv_error *err) {
    struct fkv_policy_setup setup;
    struct fkv_policy_options with_block = *policy;
    with_block.prefill_block = r->block;
    if (fkv_policy_setup(&with_block, &r->replay->engine.model->config, (int64_t)r->length, &setup,
                         err))
        return FKV_FAILED;
    struct fkv_needle_grid grid = grid_of(r, &setup);
    json_t *identity = NULL;
    int status = fkv_needle_grid_open(&grid, err);
    if (!status && !(identity = fkv_needle_grid_identity(&grid, r->replay, &r->corpus, err)))
        status = FKV_FAILED;
    if (!status) status = fkv_needle_grid_look_up(&grid, path, identity, true, err);
    if (!status && grid.first < grid.count)
        status = run_grid(r, &with_block, &grid, path, identity, err);
    for (int64_t i = 0; i < r->repeats && !status; i++)
        change[i] = grid.results[i].second - grid.results[i].first;
    json_decref(identity);
    fkv_needle_grid_close(&grid);
    fkv_policy_setup_free(&setup);
    return status;
}

int fkv_recall_mean(const double *change, int64_t repeats, struct fkv_recall_mean *out,
                    struct fkv_error *err) {
    struct fkv_units units = {0};
    int64_t *blocks = malloc((size_t)repeats * sizeof *blocks);
    double *counts = malloc((size_t)repeats * sizeof *counts), sum = 0;
    int status = blocks && counts ? FKV_OK : fkv_fail(err, "out of memory for recall");
    for (int64_t i = 0; i < repeats && !status; i++) blocks[i] = 1, counts[i] = 1, sum += change[i];
    if (!status) status = fkv_units_make(blocks, repeats, true, &units, err);
    if (!status) {
        out->mean = sum / (double)repeats;
        fkv_ratio_interval(&units, change, counts, &out->se);
    }
    fkv_units_free(&units);
    free(blocks);
    free(counts);
    return status;
}
