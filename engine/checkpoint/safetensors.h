/* Safetensors files, one or sharded with model.safetensors.index.json, mapped read-only from disk.
 * The header is checked as a whole before any tensor is handed out: size cap, JSON without
 * duplicates, known dtypes, shape x dtype = bytes, offsets inside the file, no overlaps, no holes.
 */
#ifndef FKV_ENGINE_CHECKPOINT_SAFETENSORS_H
#define FKV_ENGINE_CHECKPOINT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/dtype.h"

struct fkv_safetensors; /* owns the mappings */

struct fkv_tensor {
    const char *name; /* belongs to the files */
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

/* DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names. */
int fkv_safetensors_open(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err);
void fkv_safetensors_close(struct fkv_safetensors *files); /* NULL is fine */

/* The tensor of that name, or NULL. */
const struct fkv_tensor *fkv_safetensors_find(const struct fkv_safetensors *files,
                                              const char *name);

/* How many shards. */
int fkv_safetensors_count(const struct fkv_safetensors *files);
/* The path of shard `file`. */
const char *fkv_safetensors_path(const struct fkv_safetensors *files, int file);
/* The whole mapping of shard `file`, and its size. */
const void *fkv_safetensors_mapping(const struct fkv_safetensors *files, int file, size_t *bytes);
/* SHA-256 of the shards' contents in name order (a single file: of that file). */
int fkv_safetensors_sha256(const struct fkv_safetensors *files, fkv_sha256_hex out,
                           struct fkv_error *err);

/* One file's header, from memory: `file_bytes` is the whole file's size. For
 * tests and the fuzzer. */
int fkv_safetensors_check(const void *file, size_t file_bytes, const char *where,
                          struct fkv_error *err);

#endif
