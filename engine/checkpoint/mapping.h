/* A weight file mapped read-only. */
#ifndef FKV_ENGINE_CHECKPOINT_MAPPING_H
#define FKV_ENGINE_CHECKPOINT_MAPPING_H

#include <stddef.h>

#include "kernels/base/error.h"

struct fkv_mapping {
    const unsigned char *data; /* NULL for an empty file */
    size_t bytes;
};

int fkv_mapping_open(const char *path, struct fkv_mapping *out, struct fkv_error *err);
void fkv_mapping_close(struct fkv_mapping *m); /* one that is zero is fine */

#endif
