/* GGUF files, versions 2 and 3 (ggml's docs/gguf.md): metadata by key, tensors mapped from disk.
 * The whole header is checked before anything is handed out: counts, types and lengths within the
 * file, keys and names that occur once, known tensor types, sizes that are not zero, offsets that
 * are aligned, inside the file and do not overlap. */
#ifndef FKV_ENGINE_CHECKPOINT_GGUF_H
#define FKV_ENGINE_CHECKPOINT_GGUF_H

#include "engine/checkpoint/tensor.h"
#include "kernels/base/hash.h"

struct fkv_gguf; /* owns the mapping */

/* Types of metadata, as the file numbers them. */
enum fkv_gguf_type {
    FKV_GGUF_UINT8,
    FKV_GGUF_INT8,
    FKV_GGUF_UINT16,
    FKV_GGUF_INT16,
    FKV_GGUF_UINT32,
    FKV_GGUF_INT32,
    FKV_GGUF_FLOAT32,
    FKV_GGUF_BOOL,
    FKV_GGUF_STRING,
    FKV_GGUF_ARRAY,
    FKV_GGUF_UINT64,
    FKV_GGUF_INT64,
    FKV_GGUF_FLOAT64,
    FKV_GGUF_TYPES
};

/* Inside the mapping, without a NUL at its end. */
struct fkv_gguf_string {
    const char *text;
    size_t bytes;
};

struct fkv_gguf_array {
    enum fkv_gguf_type type; /* of the items: never an array */
    size_t count;
    const unsigned char *items; /* as stored */
};

int fkv_gguf_open(const char *path, struct fkv_gguf **out, struct fkv_error *err);
/* The same of a file in memory, which stays the caller's; `where` names it in messages. */
int fkv_gguf_parse(const void *file, size_t bytes, const char *where, struct fkv_gguf **out,
                   struct fkv_error *err);
void fkv_gguf_unload(const struct fkv_gguf *g); /* see fkv_mapping_unload */
void fkv_gguf_close(struct fkv_gguf *g);        /* NULL is fine */

/* The file as messages name it. */
const char *fkv_gguf_path(const struct fkv_gguf *g);

/* ---- metadata. `required` false: a missing key leaves *value as it is. ---- */

bool fkv_gguf_has(const struct fkv_gguf *g, const char *key);
/* The key is there and holds an array. */
bool fkv_gguf_is_array(const struct fkv_gguf *g, const char *key);
int fkv_gguf_get_int(const struct fkv_gguf *g, const char *key, bool required, int64_t low,
                     int64_t high, int64_t *value, struct fkv_error *err);
int fkv_gguf_get_double(const struct fkv_gguf *g, const char *key, bool required, double low,
                        double high, double *value, struct fkv_error *err);
int fkv_gguf_get_bool(const struct fkv_gguf *g, const char *key, bool required, bool *value,
                      struct fkv_error *err);
int fkv_gguf_get_string(const struct fkv_gguf *g, const char *key, bool required,
                        struct fkv_gguf_string *value, struct fkv_error *err);
/* An array of items of `type`. */
int fkv_gguf_get_array(const struct fkv_gguf *g, const char *key, bool required,
                       enum fkv_gguf_type type, struct fkv_gguf_array *value,
                       struct fkv_error *err);
/* The first string of an array of strings, which then begins with the next one. The array must not
 * be empty. */
struct fkv_gguf_string fkv_gguf_next_string(struct fkv_gguf_array *array);
/* Item i of an array of numbers. */
double fkv_gguf_item(const struct fkv_gguf_array *array, size_t i);

/* SHA-256 of all keys whose names begin with `prefix`, in order: name, NUL, value as stored. */
int fkv_gguf_sha256(const struct fkv_gguf *g, const char *prefix, fkv_sha256_hex out,
                    struct fkv_error *err);

/* ---- tensors ---- */

/* All of them, sorted by name. */
const struct fkv_tensor_table *fkv_gguf_tensors(const struct fkv_gguf *g);

#endif
