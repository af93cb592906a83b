/* What every command that runs a model has: the options that all of them share, the model, and the
 * command line. Settings of a command hold one; what runs for it borrows it. */
#ifndef FKV_REPLAY_REPLAY_H
#define FKV_REPLAY_REPLAY_H

#include "engine/command_line.h"
#include "replay/needs.h"

struct fkv_replay {
    struct fkv_engine_options options;
    struct fkv_policy_options policy; /* of a command with a list: what its policies share */
    const char *out;                  /* --out; NULL: not given */
    bool dry_run;
    char *command; /* as a shell takes it back; owned */

    /* filled in by fkv_replay_open; owned */
    struct fkv_engine engine;
    struct fkv_operator_data operator_data; /* what files of `policy` hold */
};

/* Before argp_parse: defaults, and the command line. */
void fkv_replay_default(struct fkv_replay *r, int argc, char **argv);
/* After it: reads what the policy's options name, and opens the model. */
int fkv_replay_open(struct fkv_replay *r, struct fkv_error *err);
/* Frees all of it, after failures too. Where `status` is no success, says so as "NAME: message".
 * Returns main's exit status. */
int fkv_replay_close(struct fkv_replay *r, const char *name, int status,
                     const struct fkv_error *err);

/* Options of sessions of `sequences` that see up to max_tokens tokens, with their block
 * (fkv_engine_block). */
int fkv_replay_session_options(const struct fkv_replay *r, const struct fkv_policy_options *policy,
                               int32_t sequences, int64_t max_tokens,
                               struct fkv_session_options *options, struct fkv_error *err);
/* Opens a session, and notes of each rotation by length what was chosen. */
int fkv_replay_session(const struct fkv_replay *r, const struct fkv_policy_options *policy,
                       const struct fkv_session_options *options, struct fkv_session **session,
                       struct fkv_error *err);

/* Says what computes, and what the cache is rounded to. Returns where else a run's needs are told
 * (fkv_needs_stream). */
FILE *fkv_replay_announce(const struct fkv_replay *r);
/* Whether anybody is told how long a run takes. */
bool fkv_replay_tells_time(const struct fkv_replay *r);
/* Tells the time; of a dry run that answers in JSON, all needs. */
int fkv_replay_tell_time(const struct fkv_replay *r, const struct fkv_needs *needs,
                         struct fkv_error *err);

#endif
