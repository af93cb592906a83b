/* What a run will take, worked out and compared with what there is before it starts. */
#ifndef FKV_REPLAY_NEEDS_H
#define FKV_REPLAY_NEEDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/command_line.h"
#include "engine/session/session.h"
#include "kernels/base/json.h"

struct fkv_needs {
    int64_t documents, tokens,
        fed;         /* of the texts; fed: tokens of all passes, the baseline's too */
    int64_t weights; /* bytes, where the backend computes; they are mapped or loaded by now */
    struct fkv_session_needs sessions; /* of all sessions open at a time */
    int64_t host;                      /* bytes the experiment itself keeps on the host */
    int64_t disk;                      /* bytes of the output; 0: none */
    const char *output;                /* its path; NULL: none */
    double seconds;                    /* about; fkv_session_rehearse says what a token takes */

    bool device; /* computed on one; filled in by fkv_needs_check, as is what there is: */
    int64_t host_free, device_free, free; /* bytes of memory, and of disk at `output` */
};

/* Prints memory and disk to `to`, which may be NULL; refuses what cannot fit. */
int fkv_needs_check(struct fkv_needs *needs, const struct fkv_engine *engine, FILE *to,
                    struct fkv_error *err);
void fkv_needs_print_time(const struct fkv_needs *needs, FILE *to); /* `to` may be NULL */

/* The object that --dry-run --json prints: documents, tokens, tokens_fed, disk_bytes, disk_free,
 * memory_bytes, memory_available, device_bytes, device_free, weight_bytes, seconds. */
json_t *fkv_needs_json(const struct fkv_needs *needs);

/* An output that exists, or whose folder is missing or cannot be written: refused at once and not
 * after hours. */
int fkv_check_new_file(const char *path, struct fkv_error *err);
/* The same of a folder that may be there already; nothing is made yet. */
int fkv_check_folder(const char *folder, struct fkv_error *err);
/* Makes the folder where it is missing; *made: it was. */
int fkv_make_folder(const char *folder, bool *made, struct fkv_error *err);

#endif
