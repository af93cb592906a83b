/* What gguf_read.c, which reads a file's header, and gguf_metadata.c, which answers by key, share.
 */
#ifndef FKV_ENGINE_CHECKPOINT_GGUF_PARTS_H
#define FKV_ENGINE_CHECKPOINT_GGUF_PARTS_H

#include "engine/checkpoint/gguf.h"
#include "engine/checkpoint/mapping.h"

struct fkv_gguf_key {
    char *name;
    enum fkv_gguf_type type; /* FKV_GGUF_ARRAY: see `array` */
    struct fkv_gguf_array array;
    const unsigned char *value; /* of a string: its length */
    size_t bytes;               /* of the value, as stored */
};

struct fkv_gguf {
    char *path;
    struct fkv_mapping mapping; /* zero where the bytes are the caller's */
    struct fkv_gguf_key *keys;  /* sorted by name */
    size_t key_count;
    struct fkv_tensor_table tensors; /* sorted by name */
};

/* The little-endian number of `bytes` bytes at p. */
static inline uint64_t fkv_gguf_number(const unsigned char *p, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

/* Bytes of a value, of all types but strings and arrays. */
size_t fkv_gguf_type_bytes(enum fkv_gguf_type type);
/* The order of keys, for qsort and bsearch. */
int fkv_gguf_by_key(const void *a, const void *b);

#endif
