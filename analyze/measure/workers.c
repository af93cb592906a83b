/* Owns the backends that the analyzer works with (workers.h). */
#include "analyze/measure/workers.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

int fkv_workers_open(struct fkv_workers *w, const char *backend, int device, int threads,
                     struct fkv_error *why, struct fkv_error *err) {
    const struct fkv_backend_options one = {.device = device, .threads = 1};
    struct fkv_device_info info;
    int32_t most = threads ? threads : omp_get_max_threads();
    *w = (struct fkv_workers){.backend = calloc((size_t)most, sizeof *w->backend)};
    if (!w->backend) return fkv_fail(err, "out of memory for %d threads", most);
    int status = fkv_backend_find(backend, &w->ops, why, err);
    if (!status) status = w->ops->open(&one, &w->backend[0], err);
    if (!status) w->count = 1;
    if (!status) status = w->ops->info(w->backend[0], &info, err);
    if (!status) w->device = info.space == FKV_DEVICE;
    while (!status && !w->device && w->count < most) {
        status = w->ops->open(&one, &w->backend[w->count], err);
        if (!status) w->count++;
    }
    if (status) fkv_workers_close(w);
    return status;
}

void fkv_workers_close(struct fkv_workers *w) {
    for (int32_t i = 0; i < w->count; i++) w->ops->close(w->backend[i]);
    free(w->backend);
    memset(w, 0, sizeof *w);
}
