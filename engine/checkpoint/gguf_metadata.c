/* Answers by key what a GGUF file's metadata say. A value of another type or out of range is an
 * error that names the key; integers of every width are integers, and numbers where numbers are
 * asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/checkpoint/gguf_parts.h"

size_t fkv_gguf_type_bytes(enum fkv_gguf_type type) {
    static const size_t bytes[FKV_GGUF_TYPES] = {
        [FKV_GGUF_UINT8] = 1,  [FKV_GGUF_INT8] = 1,  [FKV_GGUF_UINT16] = 2,  [FKV_GGUF_INT16] = 2,
        [FKV_GGUF_UINT32] = 4, [FKV_GGUF_INT32] = 4, [FKV_GGUF_FLOAT32] = 4, [FKV_GGUF_BOOL] = 1,
        [FKV_GGUF_UINT64] = 8, [FKV_GGUF_INT64] = 8, [FKV_GGUF_FLOAT64] = 8};
    return bytes[type];
}

static const char *type_name(enum fkv_gguf_type type) {
    static const char *const names[FKV_GGUF_TYPES] = {
        "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
        "bool",  "string", "array",  "uint64", "int64",  "float64"};
    return names[type];
}

int fkv_gguf_by_key(const void *a, const void *b) {
    const struct fkv_gguf_key *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static const struct fkv_gguf_key *find_key(const struct fkv_gguf *g, const char *name) {
    const struct fkv_gguf_key wanted = {.name = (char *)name};
    return g->key_count ? bsearch(&wanted, g->keys, g->key_count, sizeof wanted, fkv_gguf_by_key)
                        : NULL;
}

/* A bit for each type. */
enum {
    INTEGERS = 1 << FKV_GGUF_UINT8 | 1 << FKV_GGUF_INT8 | 1 << FKV_GGUF_UINT16 |
               1 << FKV_GGUF_INT16 | 1 << FKV_GGUF_UINT32 | 1 << FKV_GGUF_INT32 |
               1 << FKV_GGUF_UINT64 | 1 << FKV_GGUF_INT64,
    NUMBERS = INTEGERS | 1 << FKV_GGUF_FLOAT32 | 1 << FKV_GGUF_FLOAT64
};

/* *out: the key, of one of `types`; NULL where it is missing and not required. */
static int get_key(const struct fkv_gguf *g, const char *name, bool required, unsigned types,
                   const char *expected, const struct fkv_gguf_key **out, struct fkv_error *err) {
    *out = find_key(g, name);
    if (!*out && required)
        return fkv_fail(err, "%s: key %s: expected it, found nothing", g->path, name);
    if (!*out || types >> (*out)->type & 1) return FKV_OK;
    return fkv_fail(err, "%s: key %s: expected %s, found %s", g->path, name, expected,
                    type_name((*out)->type));
}

/* An integer or a bool as int64; a uint64 beyond it as the largest. */
static int64_t integer_at(enum fkv_gguf_type type, const unsigned char *p) {
    const uint64_t bits = fkv_gguf_number(p, fkv_gguf_type_bytes(type));
    switch (type) {
    case FKV_GGUF_INT8: return (int8_t)bits;
    case FKV_GGUF_INT16: return (int16_t)bits;
    case FKV_GGUF_INT32: return (int32_t)bits;
    case FKV_GGUF_INT64: return (int64_t)bits;
    default: return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
    }
}

static double number_at(enum fkv_gguf_type type, const unsigned char *p) {
    if (type == FKV_GGUF_FLOAT32) {
        float x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    if (type == FKV_GGUF_FLOAT64) {
        double x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    return (double)integer_at(type, p);
}

bool fkv_gguf_has(const struct fkv_gguf *g, const char *key) { return find_key(g, key); }

bool fkv_gguf_is_array(const struct fkv_gguf *g, const char *name) {
    const struct fkv_gguf_key *key = find_key(g, name);
    return key && key->type == FKV_GGUF_ARRAY;
}

int fkv_gguf_get_int(const struct fkv_gguf *g, const char *name, bool required, int64_t low,
                     int64_t high, int64_t *value, struct fkv_error *err) {
    const struct fkv_gguf_key *key;
    if (get_key(g, name, required, INTEGERS, "an integer", &key, err)) return FKV_FAILED;
    if (!key) return FKV_OK;
    const int64_t found = integer_at(key->type, key->value);
    if (found < low || found > high)
        return fkv_fail(err, "%s: key %s: expected an integer in [%lld, %lld], found %lld", g->path,
                        name, (long long)low, (long long)high, (long long)found);
    *value = found;
    return FKV_OK;
}

int fkv_gguf_get_double(const struct fkv_gguf *g, const char *name, bool required, double low,
                        double high, double *value, struct fkv_error *err) {
    const struct fkv_gguf_key *key;
    if (get_key(g, name, required, NUMBERS, "a number", &key, err)) return FKV_FAILED;
    if (!key) return FKV_OK;
    const double found = number_at(key->type, key->value);
    if (!(found >= low && found <= high))
        return fkv_fail(err, "%s: key %s: expected a number in [%g, %g], found %g", g->path, name,
                        low, high, found);
    *value = found;
    return FKV_OK;
}

int fkv_gguf_get_bool(const struct fkv_gguf *g, const char *name, bool required, bool *value,
                      struct fkv_error *err) {
    const struct fkv_gguf_key *key;
    if (get_key(g, name, required, 1 << FKV_GGUF_BOOL, "a bool", &key, err)) return FKV_FAILED;
    if (!key) return FKV_OK;
    *value = integer_at(key->type, key->value) != 0;
    return FKV_OK;
}

static struct fkv_gguf_string string_at(const unsigned char *p) {
    return (struct fkv_gguf_string){(const char *)p + 8, (size_t)fkv_gguf_number(p, 8)};
}

int fkv_gguf_get_string(const struct fkv_gguf *g, const char *name, bool required,
                        struct fkv_gguf_string *value, struct fkv_error *err) {
    const struct fkv_gguf_key *key;
    if (get_key(g, name, required, 1 << FKV_GGUF_STRING, "a string", &key, err)) return FKV_FAILED;
    if (!key) return FKV_OK;
    *value = string_at(key->value);
    return FKV_OK;
}

int fkv_gguf_get_array(const struct fkv_gguf *g, const char *name, bool required,
                       enum fkv_gguf_type type, struct fkv_gguf_array *value,
                       struct fkv_error *err) {
    const struct fkv_gguf_key *key;
    if (get_key(g, name, required, ~0u, "", &key, err)) return FKV_FAILED;
    if (!key) return FKV_OK;
    if (key->type != FKV_GGUF_ARRAY || key->array.type != type)
        return fkv_fail(err, "%s: key %s: expected an array of %s, found %s%s", g->path, name,
                        type_name(type), key->type == FKV_GGUF_ARRAY ? "one of " : "",
                        type_name(key->type == FKV_GGUF_ARRAY ? key->array.type : key->type));
    *value = key->array;
    return FKV_OK;
}

struct fkv_gguf_string fkv_gguf_next_string(struct fkv_gguf_array *array) {
    const struct fkv_gguf_string s = string_at(array->items);
    array->items += 8 + s.bytes;
    array->count--;
    return s;
}

double fkv_gguf_item(const struct fkv_gguf_array *array, size_t i) {
    return number_at(array->type, array->items + i * fkv_gguf_type_bytes(array->type));
}

int fkv_gguf_sha256(const struct fkv_gguf *g, const char *prefix, fkv_sha256_hex out,
                    struct fkv_error *err) {
    char *all = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&all, &bytes);
    if (!f) return fkv_fail(err, "%s: out of memory", g->path);
    bool whole = true;
    for (size_t i = 0; i < g->key_count; i++) {
        const struct fkv_gguf_key *key = &g->keys[i];
        if (strncmp(key->name, prefix, strlen(prefix))) continue;
        const size_t name = strlen(key->name) + 1;
        whole &= fwrite(key->name, 1, name, f) == name &&
                 fwrite(key->value, 1, key->bytes, f) == key->bytes;
    }
    whole &= !fclose(f);
    const int status = whole ? fkv_sha256_memory(all, bytes, out, err)
                             : fkv_fail(err, "%s: out of memory", g->path);
    free(all);
    return status;
}
