/* OUT.csv of `needle`: a line of names, then one row per prompt, in the order of the cells. The
 * file grows as lines_file.h says. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_ROWS_H
#define FKV_REPLAY_TASKS_NEEDLE_ROWS_H

#include <stdio.h>

#include "engine/cache/setup.h"
#include "replay/tasks/needle_score.h"

/* What rows are made of. */
struct fkv_needle_sheet {
    enum fkv_needle_kind kind;
    const struct fkv_policy_setup *setup;
    const struct fkv_needle_cell *cells; /* [count] */
    int64_t count;
};

/* A line with its newline and a NUL, malloc'd; NULL: out of memory. `i` -1: the line of names, else
 * the row of cell i with its result. */
char *fkv_needle_line(const struct fkv_needle_sheet *sheet, int64_t i,
                      const struct fkv_needle_result *result, size_t *bytes);

/* What an earlier run left. */
struct fkv_needle_rows {
    int64_t lines; /* whole ones, the line of names included */
    int64_t bytes; /* theirs */
    int64_t torn;  /* bytes of a line that is not whole */
};
/* Reads lines from `f`, called `where` in messages: each must be, byte for byte, one that this
 * sheet has with the numbers and the text found in it. results [sheet->count], zeroed: filled in,
 * the caller frees them, after a failure too. */
int fkv_needle_rows_read(FILE *f, const char *where, const struct fkv_needle_sheet *sheet,
                         struct fkv_needle_result *results, struct fkv_needle_rows *found,
                         struct fkv_error *err);

#endif
