/* OUT.csv of `needle`: a line of names, then one row per prompt, in the order of the cells. The
 * file grows as lines_file.h says. */
#ifndef FKV_REPLAY_TASKS_NEEDLE_ROWS_H
#define FKV_REPLAY_TASKS_NEEDLE_ROWS_H

#include "engine/cache/setup.h"
#include "replay/lines_file.h"
#include "replay/tasks/needle_score.h"

/* What rows are made of. */
struct fkv_needle_sheet {
    enum fkv_needle_kind kind;
    const struct fkv_policy_setup *setup;
    const struct fkv_needle_cell *cells; /* [count] */
    int64_t count;
    struct fkv_needle_result *results; /* [count]; the caller's, their texts too */
};

/* A fkv_line_printer: the row of cell i with its result. */
void fkv_needle_print_line(const void *sheet, int64_t i, FILE *f);

/* Reads lines from `f`, called `where` in messages: each must be, byte for byte, one that this
 * sheet has with the numbers and the text found in it. Fills in the results, zeroed before; the
 * caller frees them, after a failure too. */
int fkv_needle_rows_read(FILE *f, const char *where, const struct fkv_needle_sheet *sheet,
                         struct fkv_lines_found *found, struct fkv_error *err);

#endif
