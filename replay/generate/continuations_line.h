/* Between continuations.c and continuations_file.c: what a line is as text, and comparing
 * objects. */
#ifndef FKV_REPLAY_GENERATE_CONTINUATIONS_LINE_H
#define FKV_REPLAY_GENERATE_CONTINUATIONS_LINE_H

#include "kernels/base/json.h"

/* The object as it is written, with its newline and a NUL, malloc'd; NULL and a message. */
char *fkv_continuation_text(const json_t *line, size_t *bytes, struct fkv_error *err);

/* Refuses, by name, a field that the two objects do not share; `skipped` (NULL ends it, and may
 * be NULL) may differ. */
int fkv_continuations_same(const char *where, const json_t *expected, const json_t *found,
                           const char *const *skipped, struct fkv_error *err);

#endif
