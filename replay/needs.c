/* The check before a long run. A model's own copy of the weights was taken from what is available
 * before the check, so both sides count it. Weights that stay mapped are cached pages, which the
 * kernel calls available: they have to fit beside cache and scratch all the same, or every pass
 * would read them from disk again. On a device they are loaded by now. */
#include "replay/needs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/host.h"

static int check_memory(const char *where, int64_t needed, int64_t available,
                        struct fkv_error *err) {
    char a[16], b[16];
    if (available < 0 || needed <= available) return FKV_OK;
    fkv_format_bytes(a, needed);
    fkv_format_bytes(b, available);
    return fkv_fail(err, "not enough memory%s: needs %s, available %s", where, a, b);
}

static void print_bytes(const struct fkv_needs *needs, FILE *to) {
    char weights[16], cache[16], scratch[16], kept[16], available[16];
    fkv_format_bytes(weights, needs->weights);
    fkv_format_bytes(cache, needs->sessions.cache);
    fkv_format_bytes(scratch, fkv_session_needs_bytes(&needs->sessions) - needs->sessions.cache);
    fkv_format_bytes(kept, needs->host);
    fkv_format_bytes(available, needs->device ? needs->device_free : needs->host_free);
    fprintf(to, "memory: weights %s, cache %s, scratch %s, results %s; available %s\n", weights,
            cache, scratch, kept, available);
    if (!needs->output) return;
    fkv_format_bytes(kept, needs->disk);
    fkv_format_bytes(available, needs->free);
    fprintf(to, "disk: %s about %s; free %s\n", needs->output, kept, available);
}

int fkv_needs_check(struct fkv_needs *needs, const struct fkv_engine *engine, FILE *to,
                    struct fkv_error *err) {
    struct fkv_device_info info;
    if (engine->ops->info(engine->backend, &info, err)) return FKV_FAILED;
    if (needs->output && fkv_host_disk_free(needs->output, &needs->free, err)) return FKV_FAILED;
    needs->device = info.space == FKV_DEVICE;
    needs->device_free = needs->device ? info.memory_free : 0;
    const struct fkv_model *m = engine->model;
    const int64_t own = needs->device ? 0 : m->held.buffer ? m->held_bytes : m->merged_bytes;
    needs->host_free = fkv_host_memory_beside(needs->device ? 0 : needs->weights - own);
    if (needs->host_free >= 0) needs->host_free += own;
    if (to) print_bytes(needs, to);
    if (!needs->device) {
        if (check_memory("",
                         needs->weights + fkv_session_needs_bytes(&needs->sessions) + needs->host,
                         needs->host_free, err))
            return FKV_FAILED;
    } else if (check_memory(" on the device", fkv_session_needs_bytes(&needs->sessions),
                            needs->device_free, err) ||
               check_memory("", needs->host, needs->host_free, err)) {
        return FKV_FAILED;
    }
    if (needs->output && needs->disk > needs->free) {
        char a[16], b[16];
        fkv_format_bytes(a, needs->disk);
        fkv_format_bytes(b, needs->free);
        return fkv_fail(err, "%s: not enough space: needs about %s, free %s", needs->output, a, b);
    }
    return FKV_OK;
}

void fkv_needs_print_time(const struct fkv_needs *needs, FILE *to) {
    char time[16];
    fkv_format_seconds(time, needs->seconds);
    if (to) fprintf(to, "time: about %s, corrected while running\n", time);
}

json_t *fkv_needs_json(const struct fkv_needs *n) {
    const int64_t engine = fkv_session_needs_bytes(&n->sessions),
                  host = n->host + (n->device ? 0 : n->weights + engine);
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:I, s:o, s:I, s:I, s:I, s:o}", "documents",
                     (json_int_t)n->documents, "tokens", (json_int_t)n->tokens, "tokens_fed",
                     (json_int_t)n->fed, "disk_bytes", (json_int_t)n->disk, "disk_free",
                     n->output ? json_integer(n->free) : json_null(), "memory_bytes",
                     (json_int_t)host, "memory_available",
                     n->host_free < 0 ? json_null() : json_integer(n->host_free), "device_bytes",
                     (json_int_t)(n->device ? engine : 0), "device_free",
                     (json_int_t)n->device_free, "weight_bytes", (json_int_t)n->weights, "seconds",
                     fkv_json_number(n->seconds));
}

int fkv_check_new_file(const char *path, struct fkv_error *err) {
    if (!*path) return fkv_fail(err, "--out: expected a path, found an empty one");
    if (access(path, F_OK) == 0)
        return fkv_fail(err, "%s: exists already; remove it or name another file", path);
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) return fkv_fail(err, "%s: out of memory", path);
    int status =
        access(folder, W_OK) ? fkv_fail_errno(err, "%s: cannot write to its folder", path) : FKV_OK;
    free(folder);
    return status;
}

int fkv_check_folder(const char *folder, struct fkv_error *err) {
    struct stat found;
    if (stat(folder, &found)) return fkv_check_new_file(folder, err);
    if (!S_ISDIR(found.st_mode))
        return fkv_fail(err, "%s: expected a folder, found a file", folder);
    return access(folder, W_OK) ? fkv_fail_errno(err, "%s: cannot write to it", folder) : FKV_OK;
}

int fkv_make_folder(const char *folder, bool *made, struct fkv_error *err) {
    *made = !mkdir(folder, 0777);
    return *made || errno == EEXIST ? FKV_OK
                                    : fkv_fail_errno(err, "%s: cannot make the folder", folder);
}
