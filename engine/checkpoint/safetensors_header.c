/* Owns the reading of a safetensors header and the table of the tensors in one file.
 *
 * The format (huggingface.co/docs/safetensors): 8 bytes, the little-endian length of the header;
 * the header, a JSON object {name: {"dtype", "shape", "data_offsets": [begin, end)}} with an
 * optional "__metadata__" of strings; then the data, where offset 0 is the first byte after the
 * header. Accepted is what the reference reader accepts: header up to 100 MB, known dtypes, bytes =
 * shape x dtype, and tensors that, sorted by offset, cover the data from its first byte to the
 * file's last without overlap or hole. All of it is checked before a tensor is handed out, so that
 * no other file computes with an unchecked offset.
 *
 * Tensors of dtypes we cannot compute with (I64, F8_E4M3, ...) are kept in the table: files carry
 * such extras, and only binding one is an error. */
#include "engine/checkpoint/safetensors_header.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/json.h"

enum { MAX_HEADER_BYTES = 100000000 };

static const struct format {
    const char *name;
    int bits;
    bool computable;
    enum fkv_dtype dtype;
} formats[] = {
    {"F32", 32, true, FKV_F32},         {"F16", 16, true, FKV_F16},
    {"BF16", 16, true, FKV_BF16},       {.name = "BOOL", .bits = 8},
    {.name = "F4", .bits = 4},          {.name = "F6_E2M3", .bits = 6},
    {.name = "F6_E3M2", .bits = 6},     {.name = "U8", .bits = 8},
    {.name = "I8", .bits = 8},          {.name = "F8_E4M3", .bits = 8},
    {.name = "F8_E5M2", .bits = 8},     {.name = "F8_E8M0", .bits = 8},
    {.name = "F8_E4M3FNUZ", .bits = 8}, {.name = "F8_E5M2FNUZ", .bits = 8},
    {.name = "I16", .bits = 16},        {.name = "U16", .bits = 16},
    {.name = "I32", .bits = 32},        {.name = "U32", .bits = 32},
    {.name = "F64", .bits = 64},        {.name = "I64", .bits = 64},
    {.name = "U64", .bits = 64},        {.name = "C64", .bits = 64},
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

void fkv_tensor_table_free(struct fkv_tensor_table *table) {
    for (size_t i = 0; i < table->count; i++) free(table->entries[i].name);
    free(table->entries);
    *table = (struct fkv_tensor_table){0};
}

static int read_format(const json_t *info, const char *scope, struct fkv_tensor *tensor, int *bits,
                       struct fkv_error *err) {
    const char *name = NULL;
    if (fkv_json_get_string(info, scope, "dtype", true, &name, err)) return FKV_FAILED;
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(name, formats[i].name)) {
            tensor->format = formats[i].name;
            tensor->computable = formats[i].computable;
            tensor->dtype = formats[i].dtype;
            *bits = formats[i].bits;
            return FKV_OK;
        }
    return fkv_fail(
        err, "%s: field \"dtype\": expected a safetensors dtype (F32, F16, BF16, ...), found %.32s",
        scope, name);
}

/* The shape, and the bytes it takes at `bits` per element. */
static int read_shape(const json_t *info, const char *scope, int bits, struct fkv_tensor *tensor,
                      struct fkv_error *err) {
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape))
        return fkv_fail(err, "%s: field \"shape\": expected a list of sizes", scope);
    size_t total = (size_t)bits;
    bool overflow = json_array_size(shape) > INT32_MAX;
    tensor->dims = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < tensor->dims && !overflow; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fkv_fail(err,
                            "%s: field \"shape\": expected integers of at least 0, found another "
                            "value at place %d",
                            scope, i);
        if (i < 4) tensor->shape[i] = json_integer_value(size);
        overflow = __builtin_mul_overflow(total, (size_t)json_integer_value(size), &total);
    }
    if (overflow)
        return fkv_fail(
            err, "%s: field \"shape\": expected a tensor that fits in memory, found more", scope);
    if (total % 8)
        return fkv_fail(err, "%s: field \"shape\": expected whole bytes of %s, found %zu bits",
                        scope, tensor->format, total);
    tensor->bytes = total / 8;
    return FKV_OK;
}

static int read_offsets(const json_t *info, const char *scope, size_t data_bytes,
                        struct fkv_tensor_entry *entry, struct fkv_error *err) {
    const json_t *offsets = json_object_get(info, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return fkv_fail(err, "%s: field \"data_offsets\": expected two integers", scope);
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (size_t)to > data_bytes)
        return fkv_fail(err,
                        "%s: field \"data_offsets\": expected 0 <= begin <= end <= %zu (the file's "
                        "data), found [%lld, %lld]",
                        scope, data_bytes, (long long)from, (long long)to);
    entry->begin = (size_t)from;
    entry->end = (size_t)to;
    if (entry->end - entry->begin != entry->tensor.bytes)
        return fkv_fail(
            err, "%s: field \"data_offsets\": expected %zu bytes (shape times dtype %s), found %zu",
            scope, entry->tensor.bytes, entry->tensor.format, entry->end - entry->begin);
    return FKV_OK;
}

static int read_entry(const char *name, const json_t *info, const char *where,
                      const unsigned char *data, size_t data_bytes, struct fkv_tensor_entry *entry,
                      struct fkv_error *err) {
    char scope[1024];
    int bits = 0;
    fkv_print_short(scope, sizeof scope, "%s: tensor %s", where, name);
    if (!json_is_object(info)) return fkv_fail(err, "%s: expected an object", scope);
    if (read_format(info, scope, &entry->tensor, &bits, err) ||
        read_shape(info, scope, bits, &entry->tensor, err) ||
        read_offsets(info, scope, data_bytes, entry, err))
        return FKV_FAILED;
    entry->tensor.data = data + entry->begin;
    entry->name = strdup(name);
    entry->tensor.name = entry->name;
    return entry->name ? FKV_OK : fkv_fail(err, "%s: out of memory", scope);
}

static int check_metadata(const json_t *metadata, const char *where, struct fkv_error *err) {
    if (!json_is_object(metadata))
        return fkv_fail(err, "%s: field \"__metadata__\": expected an object of strings", where);
    for (void *at = json_object_iter((json_t *)metadata); at;
         at = json_object_iter_next((json_t *)metadata, at))
        if (!json_is_string(json_object_iter_value(at)))
            return fkv_fail(
                err, "%s: field \"__metadata__\": expected strings, found another value at %.64s",
                where, json_object_iter_key(at));
    return FKV_OK;
}

static int by_offset(const void *a, const void *b) {
    const struct fkv_tensor_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Sorted by offset, tensors follow one another from the data's first byte to its last. */
static int check_coverage(struct fkv_tensor_table *table, const char *where, size_t data_bytes,
                          struct fkv_error *err) {
    if (table->count) qsort(table->entries, table->count, sizeof *table->entries, by_offset);
    size_t reached = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct fkv_tensor_entry *e = &table->entries[i];
        if (e->begin != reached)
            return fkv_fail(
                err,
                "%s: tensor %.200s: field \"data_offsets\": expected begin %zu, found %zu (%s)",
                where, e->name, reached, e->begin,
                e->begin < reached ? "tensors overlap" : "a hole in the data");
        reached = e->end;
    }
    if (reached != data_bytes)
        return fkv_fail(err,
                        "%s: expected %zu bytes of data (the end of the last tensor), found %zu",
                        where, reached, data_bytes);
    return FKV_OK;
}

static int read_entries(json_t *header, const char *where, const unsigned char *data,
                        size_t data_bytes, struct fkv_tensor_table *table, struct fkv_error *err) {
    table->entries = calloc(json_object_size(header) + 1, sizeof *table->entries);
    if (!table->entries) return fkv_fail(err, "%s: out of memory", where);
    for (void *at = json_object_iter(header); at; at = json_object_iter_next(header, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *info = json_object_iter_value(at);
        if (!strcmp(name, "__metadata__")) {
            if (check_metadata(info, where, err)) return FKV_FAILED;
        } else {
            if (read_entry(name, info, where, data, data_bytes, &table->entries[table->count], err))
                return FKV_FAILED;
            table->count++;
        }
    }
    return check_coverage(table, where, data_bytes, err);
}

int fkv_tensor_table_read(const void *contents, size_t bytes, const char *where,
                          struct fkv_tensor_table *table, struct fkv_error *err) {
    const unsigned char *file = contents;
    if (bytes < 8)
        return fkv_fail(err, "%s: expected 8 bytes of header length, found a file of %zu", where,
                        bytes);
    uint64_t length = 0;
    for (int i = 0; i < 8; i++) length |= (uint64_t)file[i] << (8 * i);
    if (length > MAX_HEADER_BYTES)
        return fkv_fail(err, "%s: header length: expected at most %d bytes, found %llu", where,
                        MAX_HEADER_BYTES, (unsigned long long)length);
    if (length > bytes - 8)
        return fkv_fail(err, "%s: header: expected %llu bytes, found %zu (a truncated file)", where,
                        (unsigned long long)length, bytes - 8);
    if (!length || file[8] != '{')
        return fkv_fail(err, "%s: header: expected a JSON object, found %s", where,
                        length ? "another byte" : "nothing");
    json_t *header = fkv_json_parse((const char *)file + 8, (size_t)length, where, err);
    if (!header) return FKV_FAILED;
    size_t start = 8 + (size_t)length;
    int status = read_entries(header, where, file + start, bytes - start, table, err);
    for (size_t i = 0; i < table->count; i++)
        table->entries[i].tensor.offset = start + table->entries[i].begin;
    json_decref(header);
    return status;
}
