/* What this machine has: checked before a long run starts, so that it is refused at once and not hours later. */
#ifndef FKV_BASE_HOST_H
#define FKV_BASE_HOST_H

#include <stdint.h>

#include "kernels/base/error.h"

int64_t fkv_host_memory_available(void); /* bytes, MemAvailable; -1 if unknown */
int fkv_host_disk_free(const char *path, int64_t *bytes,
                       struct fkv_error *err);         /* of the nearest existing parent of path */
void fkv_format_bytes(char out[16], int64_t bytes);    /* "1.5 GiB" */
void fkv_format_seconds(char out[16], double seconds); /* "0.1 s" at least, "3 min", "2.5 h"; NaN: "unknown" */
int fkv_make_directories(const char *path, struct fkv_error *err); /* mkdir -p */

#endif
