/* Safetensors files, one or sharded with model.safetensors.index.json, mapped read-only from disk.
 * All headers are checked as a whole before any tensor is handed out. */
#ifndef FKV_ENGINE_CHECKPOINT_SAFETENSORS_H
#define FKV_ENGINE_CHECKPOINT_SAFETENSORS_H

#include "engine/checkpoint/mapping.h"
#include "engine/checkpoint/safetensors_header.h"

/* To read: opening fills it. */
struct fkv_safetensors {
    const char **paths;           /* [count] in the order of names */
    struct fkv_mapping *mappings; /* [count] */
    int count;
    struct fkv_tensor_table tensors; /* of all files, sorted by name */
};

/* DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names, or without it
 * all of DIR/model-00001-of-0000N.safetensors. */
int fkv_safetensors_open(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err);
/* The files DIR/names[count] alone. */
int fkv_safetensors_open_files(const char *directory, const char *const *names, int count,
                               struct fkv_safetensors **out, struct fkv_error *err);
void fkv_safetensors_close(struct fkv_safetensors *files); /* NULL is fine */

#endif
