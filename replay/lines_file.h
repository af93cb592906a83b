/* A file of results that grows by a line at a time, appended and synced, by one process at a time,
 * so that an interruption leaves whole lines and at most one that is torn. FILE.run, beside it, is
 * a JSON object that says what made the lines (identity.h). It is written before the first line and
 * stays. */
#ifndef FKV_REPLAY_LINES_FILE_H
#define FKV_REPLAY_LINES_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels/base/json.h"

/* "FILE" -> "FILE.run", malloc'd; NULL: out of memory. */
char *fkv_lines_identity_path(const char *path);

/* Opens what an earlier run left of FILE for reading; *f is NULL where there is no file. Changes
 * nothing. Refuses, by field, a file whose FILE.run says something else than `identity`, and one
 * without a FILE.run. */
int fkv_lines_find(const char *path, const json_t *identity, FILE **f, struct fkv_error *err);

/* Prints row i of a CSV file, or its start; -1: the line of names. */
typedef void fkv_line_printer(const void *sheet, int64_t i, FILE *f);
/* What that prints, with a NUL, malloc'd; NULL and a message. */
char *fkv_lines_printed(fkv_line_printer *print, const void *sheet, int64_t i, size_t *bytes,
                        struct fkv_error *err);

/* What an earlier run left. */
struct fkv_lines_found {
    int64_t lines; /* whole ones */
    int64_t bytes; /* theirs */
    int64_t torn;  /* bytes of a line that is not whole */
};
/* Refuses a line that this run does not write: line i (from 0), text [bytes] and a NUL, with its
 * newline or, not `whole`, as far as it came. `where` ("FILE:7") is for messages. */
typedef int fkv_line_check(void *context, int64_t i, const char *text, size_t bytes, bool whole,
                           const char *where, struct fkv_error *err);
/* Checks all lines in `f`, called `path` in messages. */
int fkv_lines_read(FILE *f, const char *path, fkv_line_check *check, void *context,
                   struct fkv_lines_found *found, struct fkv_error *err);

struct fkv_lines_file; /* FILE, open for appending */

/* Goes on behind `bytes` of whole lines and drops the `torn` bytes of a line after them; creates
 * both files where nothing was (0, 0). Refuses a file that another process writes. */
int fkv_lines_open(const char *path, const json_t *identity, int64_t bytes, int64_t torn,
                   struct fkv_lines_file **out, struct fkv_error *err);
/* Appends a line, text [bytes] with its newline, and syncs it; a line that cannot be written whole
 * is taken back. */
int fkv_lines_append(struct fkv_lines_file *file, const char *text, size_t bytes,
                     struct fkv_error *err);
/* The same of an object on a line. */
int fkv_lines_append_json(struct fkv_lines_file *file, const json_t *line, struct fkv_error *err);
/* The same of what `print` prints of `sheet`. */
int fkv_lines_append_printed(struct fkv_lines_file *file, fkv_line_printer *print,
                             const void *sheet, int64_t i, struct fkv_error *err);
/* Without a single line both files go. NULL is fine. */
void fkv_lines_close(struct fkv_lines_file *file);

/* A cell of CSV: quoted, with quotes doubled. */
void fkv_lines_put_quoted(const char *text, FILE *f);
/* An object as it is written, with its newline and a NUL, malloc'd; NULL and a message. */
char *fkv_lines_text(const json_t *line, size_t *bytes, struct fkv_error *err);
/* Refuses, by name, a field that the two objects do not share; `skipped` (NULL ends it, and may be
 * NULL) may differ. */
int fkv_lines_same(const char *where, const json_t *expected, const json_t *found,
                   const char *const *skipped, struct fkv_error *err);

#endif
