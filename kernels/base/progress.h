/* A progress bar with rate and ETA on stderr: drawn only when stderr is a terminal and the user did not say --quiet, at most ten
 * times a second. Results never pass through here. */
#ifndef FKV_BASE_PROGRESS_H
#define FKV_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct fkv_progress {
    const char *unit; /* "tokens" */
    int64_t total;    /* 0 when unknown: no ETA */
    double started, drawn;
    bool visible;
};

void fkv_progress_start(struct fkv_progress *p, const char *unit, int64_t total, bool quiet);
void fkv_progress_update(struct fkv_progress *p, int64_t done, const char *label);
void fkv_progress_finish(struct fkv_progress *p); /* clears the line */

double fkv_seconds(void); /* monotonic clock, seconds */

#endif
