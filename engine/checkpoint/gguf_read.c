/* Owns the reading of a GGUF file's header. All numbers are little-endian:
 *
 *     "GGUF", version (uint32), number of tensors and of keys (uint64)
 *     each key: string, type (uint32), value; a string is its length (uint64) and bytes; an array
 *         the type of its items, their number (uint64), the items
 *     each tensor: name, number of sizes (uint32), the sizes (uint64, fastest first), type
 *         (uint32), offset (uint64) from the start of the data
 *     the data, from the next multiple of general.alignment (32 where the key is missing)
 *
 * A reader walks over the bytes and refuses what would leave them; nothing behind it computes with
 * a length or an offset that a stranger wrote. Arrays of arrays are refused: no key has them. Keys
 * of any name are kept, tensors of any known type too: only binding one is an error. */
#include "engine/checkpoint/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/checkpoint/gguf_parts.h"

enum {
    MOST_NAME = 1024, /* bytes of a key or of a tensor's name */
    DEFAULT_ALIGNMENT = 32,
    /* the fewest bytes of a key with its value and of a tensor, which bound their numbers */
    LEAST_KEY = 8 + 1 + 4 + 1,
    LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
};

/* ---- tensor types ---- */

static const struct tensor_type {
    const char *name;
    uint16_t values, bytes; /* of a block */
    bool computable;
    enum fkv_weight_format format;
} tensor_types[] = {
    [0] = {"F32", 1, 4, true, FKV_WEIGHT_F32},
    [1] = {"F16", 1, 2, true, FKV_WEIGHT_F16},
    [2] = {"Q4_0", 32, 18, true, FKV_WEIGHT_Q4_0},
    [3] = {"Q4_1", 32, 20, true, FKV_WEIGHT_Q4_1},
    [6] = {"Q5_0", 32, 22, true, FKV_WEIGHT_Q5_0},
    [7] = {"Q5_1", 32, 24, true, FKV_WEIGHT_Q5_1},
    [8] = {"Q8_0", 32, 34, true, FKV_WEIGHT_Q8_0},
    [9] = {"Q8_1", 32, 36, false, 0},
    [10] = {"Q2_K", 256, 84, true, FKV_WEIGHT_Q2_K},
    [11] = {"Q3_K", 256, 110, true, FKV_WEIGHT_Q3_K},
    [12] = {"Q4_K", 256, 144, true, FKV_WEIGHT_Q4_K},
    [13] = {"Q5_K", 256, 176, true, FKV_WEIGHT_Q5_K},
    [14] = {"Q6_K", 256, 210, true, FKV_WEIGHT_Q6_K},
    [15] = {"Q8_K", 256, 292, false, 0},
    [16] = {"IQ2_XXS", 256, 66, false, 0},
    [17] = {"IQ2_XS", 256, 74, false, 0},
    [18] = {"IQ3_XXS", 256, 98, false, 0},
    [19] = {"IQ1_S", 256, 50, false, 0},
    [20] = {"IQ4_NL", 32, 18, false, 0},
    [21] = {"IQ3_S", 256, 110, false, 0},
    [22] = {"IQ2_S", 256, 82, false, 0},
    [23] = {"IQ4_XS", 256, 136, false, 0},
    [24] = {"I8", 1, 1, false, 0},
    [25] = {"I16", 1, 2, false, 0},
    [26] = {"I32", 1, 4, false, 0},
    [27] = {"I64", 1, 8, false, 0},
    [28] = {"F64", 1, 8, false, 0},
    [29] = {"IQ1_M", 256, 56, false, 0},
    [30] = {"BF16", 1, 2, true, FKV_WEIGHT_BF16},
    [34] = {"TQ1_0", 256, 54, false, 0},
    [35] = {"TQ2_0", 256, 66, false, 0},
    [39] = {"MXFP4", 32, 17, false, 0},
};
enum { TENSOR_TYPES = sizeof tensor_types / sizeof tensor_types[0] };

/* ---- walking over the bytes ---- */

struct reader {
    const unsigned char *data;
    size_t bytes, at;
    const char *where;
    const char *key; /* of the key or tensor that is read, for messages */
    struct fkv_error *err;
};

/* n bytes, or NULL and a message. */
static const unsigned char *take(struct reader *r, uint64_t n, const char *what) {
    if (n > r->bytes - r->at) {
        fkv_fail(r->err,
                 "%s: %s: %s: expected at most %zu bytes (the rest of the file), found %llu",
                 r->where, r->key, what, r->bytes - r->at, (unsigned long long)n);
        return NULL;
    }
    const unsigned char *p = r->data + r->at;
    r->at += (size_t)n;
    return p;
}

static int take_number(struct reader *r, size_t bytes, const char *what, uint64_t *value) {
    const unsigned char *p = take(r, bytes, what);
    if (!p) return FKV_FAILED;
    *value = fkv_gguf_number(p, bytes);
    return FKV_OK;
}

static int take_string(struct reader *r, const char *what, struct fkv_gguf_string *out) {
    uint64_t length;
    if (take_number(r, 8, what, &length)) return FKV_FAILED;
    const unsigned char *p = take(r, length, what);
    if (!p) return FKV_FAILED;
    *out = (struct fkv_gguf_string){(const char *)p, (size_t)length};
    return FKV_OK;
}

/* A key or a tensor's name as a C string that the caller frees. */
static int take_name(struct reader *r, const char *what, char **out) {
    struct fkv_gguf_string s;
    if (take_string(r, what, &s)) return FKV_FAILED;
    if (!s.bytes || s.bytes > MOST_NAME || memchr(s.text, 0, s.bytes))
        return fkv_fail(r->err, "%s: %s: %s: expected 1 to %d bytes without NUL, found %zu%s",
                        r->where, r->key, what, MOST_NAME, s.bytes,
                        s.bytes && s.bytes <= MOST_NAME ? " with one" : "");
    *out = strndup(s.text, s.bytes);
    return *out ? FKV_OK : fkv_fail(r->err, "%s: out of memory", r->where);
}

/* ---- metadata ---- */

static int take_type(struct reader *r, const char *what, enum fkv_gguf_type *type) {
    uint64_t number;
    if (take_number(r, 4, what, &number)) return FKV_FAILED;
    if (number >= FKV_GGUF_TYPES)
        return fkv_fail(r->err, "%s: %s: %s: expected 0 to %d, found %llu", r->where, r->key, what,
                        FKV_GGUF_TYPES - 1, (unsigned long long)number);
    *type = (enum fkv_gguf_type)number;
    return FKV_OK;
}

static int take_array(struct reader *r, struct fkv_gguf_array *array) {
    uint64_t count;
    if (take_type(r, "type of items", &array->type) || take_number(r, 8, "number of items", &count))
        return FKV_FAILED;
    if (array->type == FKV_GGUF_ARRAY)
        return fkv_fail(r->err, "%s: %s: expected an array of numbers or strings, found arrays",
                        r->where, r->key);
    const size_t least = array->type == FKV_GGUF_STRING ? 8 : fkv_gguf_type_bytes(array->type);
    if (count > (r->bytes - r->at) / least)
        return fkv_fail(r->err,
                        "%s: %s: number of items: expected at most %zu (the rest of the file), "
                        "found %llu",
                        r->where, r->key, (r->bytes - r->at) / least, (unsigned long long)count);
    array->count = (size_t)count;
    array->items = r->data + r->at;
    if (array->type != FKV_GGUF_STRING) r->at += (size_t)count * least;
    for (uint64_t i = 0; array->type == FKV_GGUF_STRING && i < count; i++) {
        struct fkv_gguf_string s;
        if (take_string(r, "string", &s)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int take_key(struct reader *r, struct fkv_gguf_key *key) {
    char scope[96];
    struct fkv_gguf_string s;
    if (take_name(r, "name of a key", &key->name)) return FKV_FAILED;
    snprintf(scope, sizeof scope, "key %.80s", key->name);
    r->key = scope;
    int status = take_type(r, "type", &key->type);
    key->value = r->data + r->at;
    if (status)
        ;
    else if (key->type == FKV_GGUF_ARRAY)
        status = take_array(r, &key->array);
    else if (key->type == FKV_GGUF_STRING)
        status = take_string(r, "string", &s);
    else
        status = take(r, fkv_gguf_type_bytes(key->type), "value") ? FKV_OK : FKV_FAILED;
    key->bytes = (size_t)(r->data + r->at - key->value);
    r->key = "header";
    return status;
}

static int take_keys(struct reader *r, struct fkv_gguf *g, uint64_t count) {
    if (count > (r->bytes - r->at) / LEAST_KEY)
        return fkv_fail(r->err,
                        "%s: header: number of keys: expected at most %zu in a file of %zu bytes, "
                        "found %llu",
                        r->where, (r->bytes - r->at) / LEAST_KEY, r->bytes,
                        (unsigned long long)count);
    g->keys = calloc((size_t)count + 1, sizeof *g->keys);
    if (!g->keys) return fkv_fail(r->err, "%s: out of memory", r->where);
    while (g->key_count < count) /* a name is freed with the others, whatever follows it */
        if (take_key(r, &g->keys[g->key_count++])) return FKV_FAILED;
    qsort(g->keys, g->key_count, sizeof *g->keys, fkv_gguf_by_key);
    for (size_t i = 1; i < g->key_count; i++)
        if (!strcmp(g->keys[i - 1].name, g->keys[i].name))
            return fkv_fail(r->err, "%s: key %.200s: expected it once, found it twice", r->where,
                            g->keys[i].name);
    return FKV_OK;
}

/* ---- tensors ---- */

static int take_shape(struct reader *r, struct fkv_tensor *t) {
    uint64_t dims, sizes[4] = {0}, count = 1;
    if (take_number(r, 4, "number of sizes", &dims)) return FKV_FAILED;
    if (dims < 1 || dims > 4)
        return fkv_fail(r->err, "%s: %s: number of sizes: expected 1 to 4, found %llu", r->where,
                        r->key, (unsigned long long)dims);
    for (uint64_t i = 0; i < dims; i++) {
        if (take_number(r, 8, "size", &sizes[i])) return FKV_FAILED;
        if (!sizes[i] || sizes[i] > INT32_MAX)
            return fkv_fail(r->err, "%s: %s: size %llu: expected 1 to %d, found %llu", r->where,
                            r->key, (unsigned long long)i, INT32_MAX, (unsigned long long)sizes[i]);
        if (__builtin_mul_overflow(count, sizes[i], &count) || count > (uint64_t)INT64_MAX / 8)
            return fkv_fail(r->err,
                            "%s: %s: sizes: expected a tensor that fits in memory, found "
                            "more",
                            r->where, r->key);
    }
    t->dims = (int32_t)dims;
    for (uint64_t i = 0; i < dims; i++) t->shape[i] = (int64_t)sizes[dims - 1 - i];
    return FKV_OK;
}

static int take_format(struct reader *r, struct fkv_tensor *t) {
    uint64_t number;
    if (take_number(r, 4, "type", &number)) return FKV_FAILED;
    if (number >= TENSOR_TYPES || !tensor_types[number].name)
        return fkv_fail(r->err,
                        "%s: %s: type: expected one of ggml's (F32, F16, Q4_K, ...), found number "
                        "%llu",
                        r->where, r->key, (unsigned long long)number);
    const struct tensor_type *type = &tensor_types[number];
    const int64_t row = t->shape[t->dims - 1];
    if (row % type->values)
        return fkv_fail(r->err,
                        "%s: %s: row: expected a multiple of %d values (a block of %s), "
                        "found %lld",
                        r->where, r->key, type->values, type->name, (long long)row);
    size_t blocks = (size_t)row / type->values;
    for (int32_t i = 0; i + 1 < t->dims; i++) blocks *= (size_t)t->shape[i];
    if (__builtin_mul_overflow(blocks, (size_t)type->bytes, &t->bytes))
        return fkv_fail(r->err, "%s: %s: expected a tensor that fits in memory, found more",
                        r->where, r->key);
    t->format_name = type->name;
    t->computable = type->computable;
    t->format = type->format;
    return FKV_OK;
}

static int take_tensor(struct reader *r, struct fkv_tensor *t) {
    char scope[96], *name = NULL;
    uint64_t offset = 0;
    if (take_name(r, "name of a tensor", &name)) return FKV_FAILED;
    t->path = r->where;
    t->name = name;
    snprintf(scope, sizeof scope, "tensor %.80s", name);
    r->key = scope;
    const int status = take_shape(r, t) || take_format(r, t) || take_number(r, 8, "offset", &offset)
                           ? FKV_FAILED
                           : FKV_OK;
    t->offset = offset;
    r->key = "header";
    return status;
}

/* Sorts by offset and gives every tensor its data, which starts at `start`. */
static int check_offsets(struct reader *r, struct fkv_tensor_table *table, size_t start,
                         size_t alignment) {
    const size_t data = r->bytes - start;
    size_t reached = 0;
    if (table->count)
        qsort(table->tensors, table->count, sizeof *table->tensors, fkv_tensor_by_offset);
    for (size_t i = 0; i < table->count; i++) {
        struct fkv_tensor *t = &table->tensors[i];
        if (t->offset % alignment)
            return fkv_fail(r->err,
                            "%s: tensor %.200s: offset: expected a multiple of %zu, found %zu",
                            r->where, t->name, alignment, t->offset);
        if (t->offset > data || t->bytes > data - t->offset)
            return fkv_fail(r->err,
                            "%s: tensor %.200s: offset: expected its %zu bytes within the %zu of "
                            "data, found them from %zu on (a truncated file?)",
                            r->where, t->name, t->bytes, data, t->offset);
        if (t->offset < reached)
            return fkv_fail(r->err,
                            "%s: tensor %.200s: offset: expected at least %zu (the end of "
                            "%.200s), found %zu",
                            r->where, t->name, reached, t[-1].name, t->offset);
        reached = t->offset + t->bytes;
        t->data = r->data + start + t->offset;
    }
    return FKV_OK;
}

static int take_tensors(struct reader *r, struct fkv_gguf *g, uint64_t count) {
    struct fkv_tensor_table *table = &g->tensors;
    if (count > (r->bytes - r->at) / LEAST_TENSOR)
        return fkv_fail(r->err,
                        "%s: header: number of tensors: expected at most %zu in a file of %zu "
                        "bytes, found %llu",
                        r->where, (r->bytes - r->at) / LEAST_TENSOR, r->bytes,
                        (unsigned long long)count);
    table->tensors = calloc((size_t)count + 1, sizeof *table->tensors);
    if (!table->tensors) return fkv_fail(r->err, "%s: out of memory", r->where);
    while (table->count < count) /* a name is freed with the others, whatever follows it */
        if (take_tensor(r, &table->tensors[table->count++])) return FKV_FAILED;
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (fkv_gguf_get_int(g, "general.alignment", false, 1, 1 << 30, &alignment, r->err))
        return FKV_FAILED;
    if (alignment & (alignment - 1))
        return fkv_fail(r->err, "%s: key general.alignment: expected a power of two, found %lld",
                        r->where, (long long)alignment);
    const size_t step = (size_t)alignment, padded = (r->at + step - 1) / step * step,
                 start = padded < r->bytes ? padded : r->bytes;
    if (check_offsets(r, table, start, step)) return FKV_FAILED;
    const struct fkv_tensor *again = fkv_tensor_table_sort(table);
    if (!again) return FKV_OK;
    return fkv_fail(r->err, "%s: tensor %.200s: expected it once, found it twice", r->where,
                    again->name);
}

/* ---- the file ---- */

static int check_version(struct reader *r, uint64_t version) {
    if (version == 2 || version == 3) return FKV_OK;
    const bool swapped = version && version % (1 << 24) == 0;
    return fkv_fail(r->err, "%s: header: version: expected 2 or 3, found %s%llu%s", r->where,
                    swapped ? "big-endian " : "",
                    (unsigned long long)(swapped ? version >> 24 : version),
                    version == 1 ? " (convert the model again with llama.cpp)" : "");
}

static int read_header(struct reader *r, struct fkv_gguf *g) {
    uint64_t version, tensors, keys;
    const unsigned char *magic = take(r, 4, "magic");
    if (!magic) return FKV_FAILED;
    if (memcmp(magic, "GGUF", 4))
        return fkv_fail(r->err, "%s: header: expected GGUF, found other bytes", r->where);
    if (take_number(r, 4, "version", &version) || check_version(r, version) ||
        take_number(r, 8, "number of tensors", &tensors) ||
        take_number(r, 8, "number of keys", &keys))
        return FKV_FAILED;
    return take_keys(r, g, keys) || take_tensors(r, g, tensors) ? FKV_FAILED : FKV_OK;
}

int fkv_gguf_parse(const void *file, size_t bytes, const char *where, struct fkv_gguf **out,
                   struct fkv_error *err) {
    struct fkv_gguf *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g) g->path = strdup(where);
    if (!g || !g->path) {
        free(g);
        return fkv_fail(err, "%s: out of memory", where);
    }
    struct reader r = {.data = file, .bytes = bytes, .where = g->path, .key = "header", .err = err};
    if (read_header(&r, g)) {
        fkv_gguf_close(g);
        return FKV_FAILED;
    }
    *out = g;
    return FKV_OK;
}

int fkv_gguf_open(const char *path, struct fkv_gguf **out, struct fkv_error *err) {
    struct fkv_mapping mapping;
    *out = NULL;
    if (fkv_mapping_open(path, &mapping, err)) return FKV_FAILED;
    if (fkv_gguf_parse(mapping.data, mapping.bytes, path, out, err)) {
        fkv_mapping_close(&mapping);
        return FKV_FAILED;
    }
    (*out)->mapping = mapping;
    return FKV_OK;
}

void fkv_gguf_unload(const struct fkv_gguf *g) { fkv_mapping_unload(&g->mapping); }

void fkv_gguf_close(struct fkv_gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->key_count; i++) free(g->keys[i].name);
    free(g->keys);
    fkv_tensor_table_free(&g->tensors);
    fkv_mapping_close(&g->mapping);
    free(g->path);
    free(g);
}

const char *fkv_gguf_path(const struct fkv_gguf *g) { return g->path; }

const struct fkv_tensor_table *fkv_gguf_tensors(const struct fkv_gguf *g) { return &g->tensors; }
