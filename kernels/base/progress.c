/* The progress bar. One line, redrawn in place with a carriage return; the line is cut to 79
 * columns so that it never wraps. */
#include "kernels/base/progress.h"

#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

double fkv_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void fkv_progress_start(struct fkv_progress *p, const char *unit, int64_t total, bool quiet) {
    *p = (struct fkv_progress){
        .unit = unit, .total = total, .total_work = (double)total, .started = fkv_seconds()};
    p->noted = p->started;
    p->visible = !quiet && isatty(STDERR_FILENO);
}

void fkv_progress_weigh(struct fkv_progress *p, double total_work) {
    if (total_work > 0) p->total_work = total_work;
}

void fkv_progress_skip(struct fkv_progress *p, int64_t done, double work) {
    p->done += (double)done;
    p->work += work;
}

void fkv_progress_note(struct fkv_progress *p, double now, int64_t done, double work) {
    const double passed = now - p->noted, tenth = (now - p->started) / 10,
                 memory = tenth > 10 ? tenth : 10;
    const double weight = exp(-passed / memory);
    p->recent_seconds = weight * p->recent_seconds + passed;
    p->recent_done = weight * p->recent_done + (double)done - p->done;
    p->recent_work = weight * p->recent_work + work - p->work;
    p->noted = now;
    p->done = (double)done;
    p->work = work;
}

double fkv_progress_left(const struct fkv_progress *p) {
    if (!(p->total_work > 0 && p->recent_work > 0)) return NAN;
    const double left = p->total_work - p->work;
    return left > 0 ? left * p->recent_seconds / p->recent_work : 0;
}

static void format_duration(char out[32], double seconds) {
    unsigned s = seconds < 359999 ? (unsigned)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(out, 32, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%u:%02u", s / 60, s % 60);
}

void fkv_progress_update_work(struct fkv_progress *p, int64_t done, double work,
                              const char *label) {
    if (!p->visible) return;
    const double now = fkv_seconds();
    if (now - p->drawn < 0.1) return;
    p->drawn = now;
    fkv_progress_note(p, now, done, work);
    const double rate = p->recent_seconds > 0 ? p->recent_done / p->recent_seconds : 0,
                 left = fkv_progress_left(p);
    char line[80];
    if (p->total > 0) {
        char bar[21] = "                    ", time[32] = "?";
        const double part = work < p->total_work ? work / p->total_work : 1;
        for (int i = 0; i < (int)(20 * part); i++) bar[i] = '#';
        if (left >= 0) format_duration(time, left);
        snprintf(line, sizeof line, "[%s] %3d%%  %.4g %s/s  %.8s left  %s", bar, (int)(100 * part),
                 rate, p->unit, time, label ? label : "");
    } else {
        snprintf(line, sizeof line, "%lld %s  %.4g %s/s  %s", (long long)done, p->unit, rate,
                 p->unit, label ? label : "");
    }
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
}

void fkv_progress_update(struct fkv_progress *p, int64_t done, const char *label) {
    fkv_progress_update_work(p, done, (double)done, label);
}

void fkv_progress_finish(struct fkv_progress *p) {
    if (p->visible && p->drawn > 0) fputs("\r\033[K", stderr);
    p->visible = false;
}
