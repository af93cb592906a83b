/* The header of one safetensors file, checked as a whole: size cap, JSON without duplicates, known
 * dtypes, shape x dtype = bytes, offsets inside the file, no overlaps, no holes. */
#ifndef FKV_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H
#define FKV_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

struct fkv_tensor {
    const char *name; /* owned by the table */
    const void *data; /* inside the mapping */
    size_t bytes;
    const char *format; /* the dtype as the file names it: "F32", "BF16", "I64", ... */
    bool computable;    /* it is one of ours; only then is `dtype` set */
    enum fkv_dtype dtype;
    int32_t dims;
    int64_t shape[4]; /* the first four */
    int32_t file;     /* index of the shard */
    size_t offset;    /* of data in that file */
};

struct fkv_tensor_entry {
    char *name;        /* owned by the table */
    size_t begin, end; /* offsets in the file's data */
    struct fkv_tensor tensor;
};

/* Tensors by name. */
struct fkv_tensor_table {
    struct fkv_tensor_entry *entries; /* [count] */
    size_t count;
};

/* The tensors of the file [bytes] in memory, sorted by offset, in `table`, which was zero; `where`
 * names the file in messages. On failure the table holds what was read so far. The caller frees it
 * either way. */
int fkv_tensor_table_read(const void *file, size_t bytes, const char *where,
                          struct fkv_tensor_table *table, struct fkv_error *err);
/* An empty table is fine, and left. */
void fkv_tensor_table_free(struct fkv_tensor_table *table);

#endif
