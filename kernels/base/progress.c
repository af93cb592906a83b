/* The progress bar. One line, redrawn in place with a carriage return; the line is cut to 79 columns so that it never wraps. */
#include "kernels/base/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double fkv_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void fkv_progress_start(struct fkv_progress *p, const char *unit, int64_t total, bool quiet) {
    *p = (struct fkv_progress){.unit = unit, .total = total, .started = fkv_seconds()};
    p->visible = !quiet && isatty(STDERR_FILENO);
}

static void format_duration(char out[32], double seconds) {
    unsigned s = seconds < 359999 ? (unsigned)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(out, 32, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%u:%02u", s / 60, s % 60);
}

void fkv_progress_update(struct fkv_progress *p, int64_t done, const char *label) {
    if (!p->visible) return;
    double now = fkv_seconds();
    if (now - p->drawn < 0.1) return;
    p->drawn = now;
    double elapsed = now - p->started, rate = elapsed > 0 ? (double)done / elapsed : 0;
    char line[80];
    if (p->total > 0) {
        char bar[21] = "                    ", left[32] = "?";
        int filled = (int)(20 * done / p->total);
        for (int i = 0; i < filled && i < 20; i++) bar[i] = '#';
        if (rate > 0) format_duration(left, (double)(p->total - done) / rate);
        snprintf(line, sizeof line, "[%s] %3d%%  %.4g %s/s  %.8s left  %s", bar, (int)(100 * done / p->total), rate,
                 p->unit, left, label ? label : "");
    } else {
        snprintf(line, sizeof line, "%lld %s  %.4g %s/s  %s", (long long)done, p->unit, rate, p->unit,
                 label ? label : "");
    }
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
}

void fkv_progress_finish(struct fkv_progress *p) {
    if (p->visible && p->drawn > 0) fputs("\r\033[K", stderr);
    p->visible = false;
}
