/* Files that appear whole or not at all: written under a temporary name in the same folder, synced,
 * then renamed. */
#ifndef FKV_BASE_ATOMIC_FILE_H
#define FKV_BASE_ATOMIC_FILE_H

#include <stdio.h>

#include "kernels/base/error.h"

struct fkv_atomic_file {
    FILE *stream; /* write here */
    char *path, *temporary;
};

int fkv_atomic_open(struct fkv_atomic_file *f, const char *path, struct fkv_error *err);
int fkv_atomic_commit(
    struct fkv_atomic_file *f,
    struct fkv_error *err); /* flush, fsync, rename, fsync the folder; on failure nothing is left */
void fkv_atomic_abandon(struct fkv_atomic_file *f); /* removes the temporary; harmless after commit
                                                       or on a zeroed struct */

/* For files another library writes by name: fsyncs `temporary`, renames it to `path`, syncs the
 * folder. */
int fkv_atomic_rename(const char *temporary, const char *path, struct fkv_error *err);

/* Makes the name of a file that was created under `path` last. */
int fkv_atomic_sync_folder(const char *path, struct fkv_error *err);

/* Whole file into malloc'd memory with a NUL after it; refuses more than `limit` bytes. */
int fkv_read_file(const char *path, size_t limit, char **data, size_t *bytes,
                  struct fkv_error *err);
/* The same of a stream that is open, which it closes; `path` is for messages. */
int fkv_read_stream(FILE *f, const char *path, size_t limit, char **data, size_t *bytes,
                    struct fkv_error *err);
/* The message for a stream that could not be read, by errno; EBADMSG: packed data is damaged. */
int fkv_read_failed(const char *path, struct fkv_error *err);

#endif
