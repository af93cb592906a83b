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
/* Takes the pages that were read out of the process. They stay in the page cache and come back when
 * they are read again. */
void fkv_mapping_unload(const struct fkv_mapping *m);
void fkv_mapping_close(struct fkv_mapping *m); /* one that is zero is fine */

#endif
