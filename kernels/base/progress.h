/* A progress bar with rate and ETA on stderr: drawn only when stderr is a terminal and the user did
 * not say --quiet, at most ten times a second. Results never pass through here.
 *
 * The ETA follows what happens. Work is what is done (tokens, say) or, where one costs more than
 * another, the seconds that it was expected to take; then
 *
 *     ETA = work left * recent seconds / recent work
 *
 * where recent sums weigh what happened t seconds ago by exp(-t / T), T = 10 s or a tenth of the
 * time since the start, whichever is longer. A machine that becomes busy shows within seconds at
 * first, and a run of hours does not jump with every block. The rate shown is recent, too. */
#ifndef FKV_BASE_PROGRESS_H
#define FKV_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct fkv_progress {
    const char *unit; /* "tokens" */
    int64_t total;    /* 0 when unknown: no ETA */
    double total_work;
    double started, drawn;
    bool visible;
    double noted, done, work; /* when it was last noted, and what was done by then */
    double recent_seconds, recent_done, recent_work; /* weighed sums, see above */
};

void fkv_progress_start(struct fkv_progress *p, const char *unit, int64_t total, bool quiet);
/* From here on work is counted apart from what is done, `total_work` of it (0: it is not). */
void fkv_progress_weigh(struct fkv_progress *p, double total_work);
/* So much was done before: it counts as done, but at no rate. */
void fkv_progress_skip(struct fkv_progress *p, int64_t done, double work);
void fkv_progress_update(struct fkv_progress *p, int64_t done, const char *label);
void fkv_progress_update_work(struct fkv_progress *p, int64_t done, double work, const char *label);
void fkv_progress_finish(struct fkv_progress *p); /* clears the line */

double fkv_seconds(void); /* monotonic clock, seconds */

/* The formula, apart from clock and terminal. */
void fkv_progress_note(struct fkv_progress *p, double now, int64_t done, double work);
double fkv_progress_left(const struct fkv_progress *p); /* seconds; NaN: not known */

#endif
