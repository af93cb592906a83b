/* Times a prefill and decode steps; see measure.h. */
#include "replay/bench/measure.h"

#include "kernels/base/progress.h"

/* Feeds tokens [from, to) in blocks. */
static int feed(struct fkv_session *s, const int32_t *tokens, int64_t from, int64_t to,
                struct fkv_error *err) {
    const int32_t block = fkv_session_block(s);
    for (int64_t at = from, rows; at < to; at += rows) {
        rows = to - at < block ? to - at : block;
        if (fkv_session_feed(s, tokens + at, (int32_t)rows, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* Feeds token `at` alone and finds the most likely next one. */
static int step(struct fkv_session *s, const int32_t *tokens, int64_t at, struct fkv_error *err) {
    double nll;
    int32_t next;
    if (fkv_session_feed(s, tokens + at, 1, err)) return FKV_FAILED;
    return fkv_session_score(s, 0, 1, tokens + at, &nll, &next, err);
}

/* Reads the clock when everything that was asked for is done. */
static int read_clock(struct fkv_session *s, double *seconds, struct fkv_error *err) {
    const struct fkv_model *model = fkv_session_model(s);
    if (model->ops->synchronize(model->backend, err)) return FKV_FAILED;
    *seconds = fkv_seconds();
    return FKV_OK;
}

/* Time spent in actions of all sessions so far. */
static int read_stopwatch(struct fkv_session *s, double *seconds, struct fkv_error *err) {
    const struct fkv_model *model = fkv_session_model(s);
    return model->ops->time_read(model->backend, seconds, err);
}

/* Holds no more than the task will, whose peak is reported. */
static int warm_up(struct fkv_session *s, const struct fkv_bench_task *task,
                   struct fkv_error *err) {
    const int64_t prefill = task->length - task->decoded, most = fkv_session_block(s),
                  rows = prefill - 3 < most ? prefill - 3 : most;
    if ((rows > 0 && feed(s, task->tokens, 0, rows, err)) ||
        step(s, task->tokens, prefill - 1, err) || step(s, task->tokens, prefill, err))
        return FKV_FAILED;
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    return FKV_OK;
}

int fkv_bench_measure(struct fkv_session *s, const struct fkv_bench_task *task,
                      struct fkv_bench_times *times, struct fkv_error *err) {
    const struct fkv_policy_setup *setup = fkv_session_setup(s);
    const int64_t prefill = task->length - task->decoded, block = prefill - 1;
    double started, filled, ended, acted_before, acted;
    struct fkv_session_statistics before, after;
    if (warm_up(s, task, err)) return FKV_FAILED;
    fkv_session_statistics(s, &before);
    fkv_session_set_prefill(s, 0, (int32_t)block, block);
    if (read_stopwatch(s, &acted_before, err) || read_clock(s, &started, err) ||
        feed(s, task->tokens, 0, block, err) || step(s, task->tokens, block, err) ||
        read_clock(s, &filled, err))
        return FKV_FAILED;
    for (int64_t at = prefill; at < task->length; at++)
        if (step(s, task->tokens, at, err)) return FKV_FAILED;
    if (read_clock(s, &ended, err) || read_stopwatch(s, &acted, err)) return FKV_FAILED;
    fkv_session_statistics(s, &after);
    *times = (struct fkv_bench_times){
        .prefill = filled - started,
        .decode = ended - filled,
        .compressing = setup->policy->counts_compressions ? acted - acted_before : 0,
        .compressions = (double)(after.compressions - before.compressions) /
                        ((double)setup->layers * setup->kv_heads),
        .cache_bytes_peak = after.cache_bytes_peak};
    struct fkv_row_state last;
    fkv_session_row_state(s, 0, 1, &last);
    times->slots = last.slots;
    return FKV_OK;
}
