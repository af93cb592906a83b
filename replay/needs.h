/* What a run will take, worked out and compared with what there is before it starts. */
#ifndef FKV_REPLAY_NEEDS_H
#define FKV_REPLAY_NEEDS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/command_line.h"
#include "engine/session.h"

struct fkv_needs {
    int64_t weights, cache, scratch; /* bytes, where the backend computes; weights are mapped or already there */
    int64_t host;                    /* bytes the experiment itself keeps on the host */
    int64_t disk;                    /* bytes of the output; 0: none */
    const char *output;              /* its path; NULL: none */
};

/* Adds a session's cache and scratch. */
int fkv_needs_session(struct fkv_needs *needs, const struct fkv_engine *engine, const struct fkv_policy_options *policy,
                      const struct fkv_session_options *options, struct fkv_error *err);
/* Prints one paragraph to stderr when `print`; refuses what cannot fit. */
int fkv_needs_check(const struct fkv_needs *needs, const struct fkv_engine *engine, bool print, struct fkv_error *err);

/* An output that exists, or whose folder is missing or cannot be written: refused at once and not after hours. */
int fkv_check_new_file(const char *path, struct fkv_error *err);

#endif
