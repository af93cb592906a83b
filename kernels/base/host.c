/* Disk space and folders, and how sizes and times are written. Memory and processors: allowance.c.
 */
#include "kernels/base/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

void fkv_host_processor(char out[128]) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, 128, "CPU");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %127[^\n]", out) == 1) break;
    if (f) fclose(f);
}

int fkv_host_disk_free(const char *path, int64_t *bytes, struct fkv_error *err) {
    char *parent = strdup(path);
    if (!parent) return fkv_fail(err, "%s: out of memory", path);
    struct statvfs found;
    int status;
    while ((status = statvfs(*parent ? parent : ".", &found)) &&
           (errno == ENOENT || errno == ENOTDIR) && *parent) {
        char *slash = strrchr(parent, '/');
        if (slash == parent && parent[1])
            parent[1] = 0; /* the root */
        else
            *(slash ? slash : parent) = 0;
    }
    free(parent);
    if (status) return fkv_fail_errno(err, "%s: cannot ask for free space", path);
    *bytes = (int64_t)found.f_bavail * (int64_t)found.f_frsize;
    return FKV_OK;
}

void fkv_format_bytes(char out[16], int64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double x = (double)bytes;
    int unit = 0;
    while (x >= 1024 && unit < 6) x /= 1024, unit++;
    if (bytes < 0)
        snprintf(out, 16, "unknown");
    else
        snprintf(out, 16, unit ? "%.1f %s" : "%.0f %s", x, units[unit]);
}

struct fkv_bytes_text fkv_bytes_text(int64_t bytes) {
    struct fkv_bytes_text out;
    fkv_format_bytes(out.text, bytes);
    return out;
}

void fkv_format_seconds(char out[16], double seconds) {
    if (!(seconds >= 0))
        snprintf(out, 16, "unknown");
    else if (seconds < 120)
        snprintf(out, 16, "%.*f s", seconds < 10, seconds < 0.1 ? 0.1 : seconds);
    else if (seconds < 7200)
        snprintf(out, 16, "%.0f min", seconds / 60);
    else
        snprintf(out, 16, "%.1f h", seconds / 3600);
}

int fkv_make_directories(const char *path, struct fkv_error *err) {
    char *copy = strdup(path);
    if (!copy || !*copy) {
        free(copy);
        return fkv_fail(err, "cannot make the folder \"%s\"", path);
    }
    int status = FKV_OK;
    for (char *at = copy + 1; status == FKV_OK; at++) {
        char here = *at;
        if (here && here != '/') continue;
        *at = 0;
        if (mkdir(copy, 0777) && errno != EEXIST)
            status = fkv_fail_errno(err, "%s: cannot make the folder", copy);
        *at = here;
        if (!here) break;
    }
    struct stat found;
    if (status == FKV_OK && (stat(path, &found) || !S_ISDIR(found.st_mode)))
        status = fkv_fail(err, "%s: expected a folder, found a file", path);
    free(copy);
    return status;
}
