/* Files that appear whole or not at all. The data is synced before the rename and the folder after
 * it: without the first a crash can leave the name on an empty file, without the second the name
 * itself can be lost. The temporary carries the process id and is opened with O_EXCL, so two runs
 * writing the same file do not write into each other. */
#include "kernels/base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Syncs a path: data and metadata of a file, or the entries of a folder. */
static int sync_path(const char *path, int flags, struct fkv_error *err) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return fkv_fail_errno(err, "%s: cannot open", path);
    int status = fsync(fd) ? fkv_fail_errno(err, "%s: cannot sync", path) : FKV_OK;
    close(fd);
    return status;
}

int fkv_atomic_sync_folder(const char *path, struct fkv_error *err) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) return fkv_fail(err, "%s: out of memory", path);
    int status = sync_path(folder, O_RDONLY | O_DIRECTORY, err);
    free(folder);
    return status;
}

int fkv_atomic_open(struct fkv_atomic_file *f, const char *path, struct fkv_error *err) {
    *f = (struct fkv_atomic_file){0};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!*name) return fkv_fail(err, "\"%s\" does not name a file", path);
    size_t bytes = strlen(path) + 64;
    f->path = strdup(path);
    f->temporary = malloc(bytes);
    int fd = -1;
    if (!f->path || !f->temporary) {
        errno = ENOMEM;
    } else {
        errno = EEXIST;
        for (int attempt = 0; fd < 0 && errno == EEXIST && attempt < 100; attempt++) {
            snprintf(f->temporary, bytes, "%.*s.%s.tmp-%ld-%d", (int)(name - path), path, name,
                     (long)getpid(), attempt);
            fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        }
    }
    if (fd >= 0 && (f->stream = fdopen(fd, "wb"))) return FKV_OK;
    int status = fkv_fail_errno(err, "%s: cannot write", path);
    if (fd >= 0) {
        close(fd);
        unlink(f->temporary);
    }
    free(f->path);
    free(f->temporary);
    *f = (struct fkv_atomic_file){0};
    return status;
}

/* Flushes and syncs. stdio does not keep the reason of an earlier failed write: one more byte is
 * written to get it again. */
static int flush_and_sync(struct fkv_atomic_file *f, struct fkv_error *err) {
    int fd = fileno(f->stream);
    errno = 0;
    bool lost = ferror(f->stream);
    if (fflush(f->stream) == 0 && !lost && fsync(fd) == 0) return FKV_OK;
    if (lost && !errno && write(fd, "", 1) == 1) errno = EIO;
    return fkv_fail_errno(err, "%s: cannot write", f->path);
}

int fkv_atomic_commit(struct fkv_atomic_file *f, struct fkv_error *err) {
    int status = flush_and_sync(f, err);
    if (fclose(f->stream) && status == FKV_OK)
        status = fkv_fail_errno(err, "%s: cannot write", f->path);
    f->stream = NULL;
    if (status == FKV_OK && rename(f->temporary, f->path))
        status = fkv_fail_errno(err, "%s: cannot rename to %s", f->temporary, f->path);
    if (status == FKV_OK) {
        free(f->temporary);
        f->temporary = NULL;
        status = fkv_atomic_sync_folder(f->path, err);
    }
    fkv_atomic_abandon(f);
    return status;
}

void fkv_atomic_abandon(struct fkv_atomic_file *f) {
    if (f->stream) fclose(f->stream);
    if (f->temporary) unlink(f->temporary);
    free(f->temporary);
    free(f->path);
    *f = (struct fkv_atomic_file){0};
}

int fkv_atomic_rename(const char *temporary, const char *path, struct fkv_error *err) {
    if (sync_path(temporary, O_RDONLY, err)) return FKV_FAILED;
    if (rename(temporary, path))
        return fkv_fail_errno(err, "%s: cannot rename to %s", temporary, path);
    return fkv_atomic_sync_folder(path, err);
}

/* Reads until the end and not what fstat promises: pipes and files under /proc have no size. */
int fkv_read_file(const char *path, size_t limit, char **data, size_t *bytes,
                  struct fkv_error *err) {
    *data = NULL;
    *bytes = 0;
    FILE *f = fopen(path, "rb");
    if (!f) return fkv_fail_errno(err, "%s: cannot open", path);
    return fkv_read_stream(f, path, limit, data, bytes, err);
}

int fkv_read_failed(const char *path, struct fkv_error *err) {
    if (errno != EBADMSG) return fkv_fail_errno(err, "%s: cannot read", path);
    return fkv_fail(err, "%s: cannot be unpacked: it is damaged or cut short", path);
}

int fkv_read_stream(FILE *f, const char *path, size_t limit, char **data, size_t *bytes,
                    struct fkv_error *err) {
    *data = NULL;
    *bytes = 0;
    struct stat found;
    size_t size = 0, capacity = fstat(fileno(f), &found) == 0 && found.st_size > 0
                                    ? (size_t)found.st_size
                                    : 4096;
    if (capacity > limit && limit < SIZE_MAX - 1) capacity = limit + 1;
    char *text = malloc(capacity + 1);
    while (text && !feof(f) && !ferror(f) && size <= limit) {
        if (size == capacity) {
            char *larger = realloc(text, 2 * capacity + 1);
            if (!larger) free(text);
            text = larger;
            capacity *= 2;
            if (!text) break;
        }
        size += fread(text + size, 1, capacity - size, f);
    }
    int status = FKV_OK;
    if (!text)
        status = fkv_fail(err, "%s: out of memory", path);
    else if (ferror(f))
        status = fkv_read_failed(path, err);
    else if (size > limit)
        status = fkv_fail(err, "%s: expected at most %zu bytes, found more", path, limit);
    fclose(f);
    if (status) {
        free(text);
        return status;
    }
    text[size] = 0;
    *data = text;
    *bytes = size;
    return FKV_OK;
}
