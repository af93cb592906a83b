/* See replay.h. */
#include "replay/replay.h"

#include <stdlib.h>

#include "replay/operators/operator_file.h"

void fkv_replay_default(struct fkv_replay *r, int argc, char **argv) {
    fkv_engine_options_default(&r->options);
    fkv_policy_options_default(&r->policy);
    r->command = fkv_join_arguments(argc, argv);
}

int fkv_replay_open(struct fkv_replay *r, struct fkv_error *err) {
    if (!r->command) return fkv_fail(err, "out of memory");
    return fkv_operator_data_read(&r->policy, &r->operator_data, err) ||
                   fkv_engine_open(&r->options, &r->engine, err)
               ? FKV_FAILED
               : FKV_OK;
}

int fkv_replay_close(struct fkv_replay *r, const char *name, int status,
                     const struct fkv_error *err) {
    fkv_engine_close(&r->engine);
    fkv_operator_data_free(&r->operator_data);
    free(r->command);
    return status ? fkv_tool_failed(name, err) : FKV_EXIT_DONE;
}

int fkv_replay_session_options(const struct fkv_replay *r, const struct fkv_policy_options *policy,
                               int32_t sequences, int64_t max_tokens,
                               struct fkv_session_options *options, struct fkv_error *err) {
    *options = (struct fkv_session_options){.sequences = sequences,
                                            .max_tokens = max_tokens,
                                            .cache_dtype =
                                                fkv_engine_cache_dtype(&r->options, &r->engine)};
    return fkv_engine_block(&r->engine, policy, false, 1, 0, options, err);
}

int fkv_replay_session(const struct fkv_replay *r, const struct fkv_policy_options *policy,
                       const struct fkv_session_options *options, struct fkv_session **session,
                       struct fkv_error *err) {
    if (fkv_session_open(r->engine.model, policy, options, session, err)) return FKV_FAILED;
    fkv_note_rotation(&r->options, &r->engine.model->config,
                      fkv_session_rotation_positions(*session));
    return FKV_OK;
}

FILE *fkv_replay_announce(const struct fkv_replay *r) {
    FILE *to = fkv_needs_stream(&r->options, r->dry_run);
    fkv_engine_announce(&r->options, &r->engine, to);
    fkv_policy_note_quant(&r->policy, to);
    return to;
}

bool fkv_replay_tells_time(const struct fkv_replay *r) { return r->dry_run || !r->options.quiet; }

int fkv_replay_tell_time(const struct fkv_replay *r, const struct fkv_needs *needs,
                         struct fkv_error *err) {
    fkv_needs_print_time(needs, fkv_needs_stream(&r->options, r->dry_run));
    return r->dry_run && r->options.json ? fkv_json_print(fkv_needs_json(needs), err) : FKV_OK;
}
