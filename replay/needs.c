/* The check before a long run. Weights are mapped from disk, so what the kernel calls available already counts their cached pages: they have to
 * fit beside cache and scratch all the same, or every pass would read them from disk again. On a device they are loaded by now. */
#include "replay/needs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/host.h"

int fkv_needs_session(struct fkv_needs *needs, const struct fkv_engine *engine, const struct fkv_policy_options *policy,
                      const struct fkv_session_options *options, struct fkv_error *err) {
    int64_t cache, scratch;
    if (fkv_session_bytes(&engine->model->config, policy, options, &cache, &scratch, err)) return FKV_FAILED;
    needs->cache += cache;
    needs->scratch += scratch;
    return FKV_OK;
}

static int check_memory(const char *where, int64_t wanted, int64_t available, struct fkv_error *err) {
    char a[16], b[16];
    if (available < 0 || wanted <= available) return FKV_OK;
    fkv_format_bytes(a, wanted);
    fkv_format_bytes(b, available);
    return fkv_fail(err, "not enough memory%s: needs %s, available %s", where, a, b);
}

int fkv_needs_check(const struct fkv_needs *needs, const struct fkv_engine *engine, bool print, struct fkv_error *err) {
    struct fkv_device_info info;
    int64_t disk_free = 0, host = fkv_host_memory_available();
    if (engine->ops->info(engine->backend, &info, err)) return FKV_FAILED;
    if (needs->output && fkv_host_disk_free(needs->output, &disk_free, err)) return FKV_FAILED;
    if (print) {
        char weights[16], cache[16], scratch[16], kept[16], available[16];
        fkv_format_bytes(weights, needs->weights);
        fkv_format_bytes(cache, needs->cache);
        fkv_format_bytes(scratch, needs->scratch);
        fkv_format_bytes(kept, needs->host);
        fkv_format_bytes(available, info.space == FKV_HOST ? host : info.memory_free);
        fprintf(stderr, "memory: weights %s, cache %s, scratch %s, results %s; available %s\n", weights, cache, scratch,
                kept, available);
        if (needs->output) {
            fkv_format_bytes(kept, needs->disk);
            fkv_format_bytes(available, disk_free);
            fprintf(stderr, "disk: %s about %s; free %s\n", needs->output, kept, available);
        }
    }
    int64_t engine_bytes = needs->cache + needs->scratch;
    if (info.space == FKV_HOST) {
        if (check_memory("", needs->weights + engine_bytes + needs->host, host, err)) return FKV_FAILED;
    } else if (check_memory(" on the device", engine_bytes, info.memory_free, err) ||
               check_memory("", needs->host, host, err)) {
        return FKV_FAILED;
    }
    if (needs->output && needs->disk > disk_free) {
        char a[16], b[16];
        fkv_format_bytes(a, needs->disk);
        fkv_format_bytes(b, disk_free);
        return fkv_fail(err, "%s: not enough space: needs about %s, free %s", needs->output, a, b);
    }
    return FKV_OK;
}

int fkv_check_new_file(const char *path, struct fkv_error *err) {
    if (access(path, F_OK) == 0) return fkv_fail(err, "%s: exists already; remove it or name another file", path);
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!folder) return fkv_fail(err, "%s: out of memory", path);
    int status = access(folder, W_OK) ? fkv_fail_errno(err, "%s: cannot write to its folder", path) : FKV_OK;
    free(folder);
    return status;
}
