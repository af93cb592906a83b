/* A file of lines that grows, and FILE.run, which says what made it.
 *
 * A line is one write and one fdatasync, which also settles the file's size, so what a kill leaves
 * is whole lines and at most one that is torn. FILE.run is written whole before the first line; an
 * object in front of the lines would be in the way of every script that reads them. */
#include "replay/lines_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/atomic_file.h"

enum { MOST_IDENTITY = 1 << 28, LINE_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(17) };

struct fkv_lines_file {
    int fd;
    char *path, *identity; /* of FILE and FILE.run */
    int64_t bytes;         /* of whole lines */
    bool created;          /* by this process */
};

/* ---- rows ---- */

void fkv_lines_put_quoted(const char *text, FILE *f) {
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    fputc('"', f);
}

char *fkv_lines_printed(fkv_line_printer *print, const void *sheet, int64_t i, size_t *bytes,
                        struct fkv_error *err) {
    char *line = NULL;
    FILE *f = open_memstream(&line, bytes);
    if (f) print(sheet, i, f);
    if (f && !fclose(f)) return line;
    free(line);
    fkv_fail(err, "out of memory for a row");
    return NULL;
}

/* ---- objects ---- */

char *fkv_lines_text(const json_t *line, size_t *bytes, struct fkv_error *err) {
    char *text = json_dumps(line, LINE_FLAGS);
    *bytes = text ? strlen(text) : 0;
    char *longer = text ? realloc(text, *bytes + 2) : NULL;
    if (!longer) {
        free(text);
        fkv_fail(err, "out of memory for a line");
        return NULL;
    }
    memcpy(longer + (*bytes)++, "\n", 2);
    return longer;
}

static int refuse(const char *where, const char *field, const json_t *expected, const json_t *found,
                  struct fkv_error *err) {
    char *a = expected ? json_dumps(expected, LINE_FLAGS | JSON_ENCODE_ANY) : NULL,
         *b = found ? json_dumps(found, LINE_FLAGS | JSON_ENCODE_ANY) : NULL;
    fkv_fail(err,
             "%s: field \"%s\": expected %.160s, found %.160s: made by another run; give its "
             "options, or another --out",
             where, field, a ? a : "nothing", b ? b : "nothing");
    free(a);
    free(b);
    return FKV_FAILED;
}

int fkv_lines_same(const char *where, const json_t *expected, const json_t *found,
                   const char *const *skipped, struct fkv_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(found)) return fkv_fail(err, "%s: expected an object", where);
    json_object_foreach((json_t *)expected, key, value) {
        bool skip = false;
        for (int i = 0; skipped && skipped[i]; i++) skip |= !strcmp(key, skipped[i]);
        const json_t *other = json_object_get(found, key);
        if (!skip && (!other || !json_equal(value, other)))
            return refuse(where, key, value, other, err);
    }
    json_object_foreach((json_t *)found, key,
                        value) if (!json_object_get(expected, key)) return refuse(where, key, NULL,
                                                                                  value, err);
    return FKV_OK;
}

/* ---- what made the lines ---- */

/* What may differ: it changes no line, or rounds otherwise (kernels). */
static const char *const informative[] = {"software_version", "command", "model",
                                          "adapter",          "kernels", NULL};

char *fkv_lines_identity_path(const char *path) {
    char *identity;
    return asprintf(&identity, "%s.run", path) < 0 ? NULL : identity;
}

static int check_identity(const char *path, const json_t *expected, struct fkv_error *err) {
    json_t *found = fkv_json_load(path, MOST_IDENTITY, err);
    if (!found) return FKV_FAILED;
    int status = fkv_lines_same(path, expected, found, informative, err);
    json_decref(found);
    return status;
}

static int write_identity(const char *path, const json_t *identity, struct fkv_error *err) {
    struct fkv_atomic_file file;
    size_t bytes;
    char *text = fkv_lines_text(identity, &bytes, err);
    if (!text) return FKV_FAILED;
    int status = fkv_atomic_open(&file, path, err);
    if (!status) {
        fwrite(text, 1, bytes, file.stream); /* commit says whether it went well */
        status = fkv_atomic_commit(&file, err);
    }
    free(text);
    return status;
}

int fkv_lines_find(const char *path, const json_t *identity, FILE **out, struct fkv_error *err) {
    char *description = fkv_lines_identity_path(path);
    if (!description) return fkv_fail(err, "%s: out of memory", path);
    int status = FKV_OK;
    FILE *f = fopen(path, "rb");
    if (!f && errno != ENOENT) status = fkv_fail_errno(err, "%s: cannot open", path);
    bool described = access(description, F_OK) == 0;
    if (f && !described)
        status = fkv_fail(
            err, "%s: not there, so nothing says what made %s; remove that or name another --out",
            description, path);
    if (!status && described) status = check_identity(description, identity, err);
    if (status && f) fclose(f);
    *out = status ? NULL : f;
    free(description);
    return status;
}

int fkv_lines_read(FILE *f, const char *path, fkv_line_check *check, void *context,
                   struct fkv_lines_found *found, struct fkv_error *err) {
    char *line = NULL, where[512];
    size_t capacity = 0;
    ssize_t bytes;
    int status = FKV_OK;
    *found = (struct fkv_lines_found){0};
    while (!status && (bytes = getline(&line, &capacity, f)) > 0) {
        const bool whole = line[bytes - 1] == '\n'; /* all but the last one are */
        snprintf(where, sizeof where, "%.400s:%" PRId64, path, found->lines + 1);
        status = check(context, found->lines, line, (size_t)bytes, whole, where, err);
        found->lines += whole;
        *(whole ? &found->bytes : &found->torn) += bytes;
    }
    free(line);
    if (!status && ferror(f)) status = fkv_fail_errno(err, "%s: cannot read", path);
    return status;
}

/* ---- growing ---- */

/* Locks the file for this process. Refused: a file that another process holds, or that has grown
 * since it was read. On a file system without locks only the size is checked. */
static int lock(int fd, const char *path, int64_t expected, struct fkv_error *err) {
    struct stat now;
    if ((flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) ||
        (!fstat(fd, &now) && now.st_size != expected))
        return fkv_fail(err, "%s: another process writes it: wait for that, then go on", path);
    return FKV_OK;
}

int fkv_lines_open(const char *path, const json_t *identity, int64_t bytes, int64_t torn,
                   struct fkv_lines_file **out, struct fkv_error *err) {
    struct fkv_lines_file *file = calloc(1, sizeof *file);
    *out = NULL;
    if (!file) return fkv_fail(err, "%s: out of memory", path);
    file->fd = -1;
    file->bytes = bytes;
    file->path = strdup(path);
    file->identity = fkv_lines_identity_path(path);
    int status = file->path && file->identity ? FKV_OK : fkv_fail(err, "%s: out of memory", path);
    if (!status && access(file->identity, F_OK)) {
        status = write_identity(file->identity, identity, err);
        file->created = !status;
    }
    if (!status) {
        file->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (file->fd < 0) status = fkv_fail_errno(err, "%s: cannot write", path);
    }
    if (!status && lock(file->fd, path, bytes + torn, err)) {
        status = FKV_FAILED;
        file->created = false; /* the files are the other process's */
    }
    if (!status && ftruncate(file->fd, file->bytes))
        status = fkv_fail_errno(err, "%s: cannot cut to whole lines", path);
    if (!status) status = fkv_atomic_sync_folder(path, err);
    if (status) {
        fkv_lines_close(file);
        return FKV_FAILED;
    }
    *out = file;
    return FKV_OK;
}

int fkv_lines_append(struct fkv_lines_file *file, const char *text, size_t bytes,
                     struct fkv_error *err) {
    size_t done = 0;
    ssize_t wrote = 0;
    while (done < bytes && ((wrote = write(file->fd, text + done, bytes - done)) > 0 ||
                            (wrote < 0 && errno == EINTR)))
        if (wrote > 0) done += (size_t)wrote;
    int status = done == bytes && !fdatasync(file->fd)
                     ? FKV_OK
                     : fkv_fail_errno(err, "%s: cannot write", file->path);
    if (!status)
        file->bytes += (int64_t)bytes;
    else if (ftruncate(file->fd, file->bytes))
        return FKV_FAILED; /* the line is torn, as after a kill */
    return status;
}

int fkv_lines_append_json(struct fkv_lines_file *file, const json_t *line, struct fkv_error *err) {
    size_t bytes;
    char *text = fkv_lines_text(line, &bytes, err);
    int status = text ? fkv_lines_append(file, text, bytes, err) : FKV_FAILED;
    free(text);
    return status;
}

int fkv_lines_append_printed(struct fkv_lines_file *file, fkv_line_printer *print,
                             const void *sheet, int64_t i, struct fkv_error *err) {
    size_t bytes;
    char *text = fkv_lines_printed(print, sheet, i, &bytes, err);
    int status = text ? fkv_lines_append(file, text, bytes, err) : FKV_FAILED;
    free(text);
    return status;
}

void fkv_lines_close(struct fkv_lines_file *file) {
    if (!file) return;
    if (file->fd >= 0) close(file->fd);
    if (file->created && !file->bytes) {
        if (file->fd >= 0) unlink(file->path);
        unlink(file->identity);
    }
    free(file->path);
    free(file->identity);
    free(file);
}
