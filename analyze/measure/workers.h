/* Backends for work that falls into many independent pieces: on the CPU one backend of one thread
 * per core, so that whole pieces run side by side and threads meet once per segment instead of
 * twice per transform (a barrier costs little on an idle machine, and most of the time on a busy
 * one); on a device one backend that takes all. */
#ifndef FKV_ANALYZE_MEASURE_WORKERS_H
#define FKV_ANALYZE_MEASURE_WORKERS_H

#include <stdbool.h>

#include "kernels/kernels.h"

struct fkv_workers {
    const struct fkv_backend_ops *ops;
    int32_t count;
    bool device;
    struct fkv_backend **backend; /* [count]; owned */
};
/* backend and device as on the command line; threads 0: all cores. `why`: as of fkv_backend_find.
 */
int fkv_workers_open(struct fkv_workers *w, const char *backend, int device, int threads,
                     struct fkv_error *why, struct fkv_error *err);
void fkv_workers_close(struct fkv_workers *w); /* harmless on a zeroed struct and a second time */

#endif
