/* Safetensors files, one or sharded with model.safetensors.index.json, mapped read-only from disk.
 * All headers are checked as a whole before any tensor is handed out. */
#ifndef FKV_ENGINE_CHECKPOINT_SAFETENSORS_H
#define FKV_ENGINE_CHECKPOINT_SAFETENSORS_H

#include "engine/checkpoint/mapping.h"
#include "engine/checkpoint/safetensors_header.h"
#include "kernels/base/hash.h"

struct fkv_shard {
    char *path;
    struct fkv_mapping file;
};

/* To read: opening fills it. */
struct fkv_safetensors {
    struct fkv_shard *shards; /* [count] in the order of names */
    int count;
    struct fkv_tensor_table tensors; /* of all shards, sorted by name */
};

/* DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names, or without it
 * all of DIR/model-00001-of-0000N.safetensors. */
int fkv_safetensors_open(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err);
/* The files DIR/names[count] alone. */
int fkv_safetensors_open_files(const char *directory, const char *const *names, int count,
                               struct fkv_safetensors **out, struct fkv_error *err);
void fkv_safetensors_close(struct fkv_safetensors *files); /* NULL is fine */

/* SHA-256 of the shards' contents in name order (a single file: of that file). */
int fkv_safetensors_sha256(const struct fkv_safetensors *files, fkv_sha256_hex out,
                           struct fkv_error *err);

#endif
