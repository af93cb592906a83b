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
    enum fkv_weight_format format;
} formats[] = {
    {"F32", 32, true, FKV_WEIGHT_F32},   {"F16", 16, true, FKV_WEIGHT_F16},
    {"BF16", 16, true, FKV_WEIGHT_BF16}, {.name = "BOOL", .bits = 8},
    {.name = "F4", .bits = 4},           {.name = "F6_E2M3", .bits = 6},
    {.name = "F6_E3M2", .bits = 6},      {.name = "U8", .bits = 8},
    {.name = "I8", .bits = 8},           {.name = "F8_E4M3", .bits = 8},
    {.name = "F8_E5M2", .bits = 8},      {.name = "F8_E8M0", .bits = 8},
    {.name = "F8_E4M3FNUZ", .bits = 8},  {.name = "F8_E5M2FNUZ", .bits = 8},
    {.name = "I16", .bits = 16},         {.name = "U16", .bits = 16},
    {.name = "I32", .bits = 32},         {.name = "U32", .bits = 32},
    {.name = "F64", .bits = 64},         {.name = "I64", .bits = 64},
    {.name = "U64", .bits = 64},         {.name = "C64", .bits = 64},
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

static int read_format(const json_t *info, const char *scope, struct fkv_tensor *tensor, int *bits,
                       struct fkv_error *err) {
    const char *name = NULL;
    if (fkv_json_get_string(info, scope, "dtype", true, &name, err)) return FKV_FAILED;
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(name, formats[i].name)) {
            tensor->format_name = formats[i].name;
            tensor->computable = formats[i].computable;
            tensor->format = formats[i].format;
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
                        scope, tensor->format_name, total);
    tensor->bytes = total / 8;
    return FKV_OK;
}

static int read_offset(const json_t *info, const char *scope, size_t data_bytes,
                       struct fkv_tensor *tensor, struct fkv_error *err) {
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
    tensor->offset = (size_t)from;
    if ((size_t)(to - from) == tensor->bytes) return FKV_OK;
    return fkv_fail(
        err, "%s: field \"data_offsets\": expected %zu bytes (shape times dtype %s), found %zu",
        scope, tensor->bytes, tensor->format_name, (size_t)(to - from));
}

static int read_tensor(const char *name, const json_t *info, const char *path,
                       const unsigned char *data, size_t data_bytes, struct fkv_tensor *tensor,
                       struct fkv_error *err) {
    char scope[1024];
    int bits = 0;
    *tensor = (struct fkv_tensor){.path = path};
    fkv_print_short(scope, sizeof scope, "%s: tensor %s", path, name);
    if (!json_is_object(info)) return fkv_fail(err, "%s: expected an object", scope);
    if (read_format(info, scope, tensor, &bits, err) ||
        read_shape(info, scope, bits, tensor, err) ||
        read_offset(info, scope, data_bytes, tensor, err))
        return FKV_FAILED;
    tensor->data = data + tensor->offset;
    tensor->name = strdup(name);
    return tensor->name ? FKV_OK : fkv_fail(err, "%s: out of memory", scope);
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

/* Sorted by offset, the tensors [count] follow one another from the data's first byte to its last.
 */
static int check_coverage(struct fkv_tensor *tensors, size_t count, const char *where,
                          size_t data_bytes, struct fkv_error *err) {
    if (count) qsort(tensors, count, sizeof *tensors, fkv_tensor_by_offset);
    size_t reached = 0;
    for (size_t i = 0; i < count; i++) {
        const struct fkv_tensor *t = &tensors[i];
        if (t->offset != reached)
            return fkv_fail(
                err,
                "%s: tensor %.200s: field \"data_offsets\": expected begin %zu, found %zu (%s)",
                where, t->name, reached, t->offset,
                t->offset < reached ? "tensors overlap" : "a hole in the data");
        reached += t->bytes;
    }
    if (reached != data_bytes)
        return fkv_fail(err,
                        "%s: expected %zu bytes of data (the end of the last tensor), found %zu",
                        where, reached, data_bytes);
    return FKV_OK;
}

static int read_tensors(json_t *header, const char *path, const unsigned char *data,
                        size_t data_bytes, struct fkv_tensor_table *table, struct fkv_error *err) {
    const size_t first = table->count, most = first + json_object_size(header) + 1;
    struct fkv_tensor *tensors = realloc(table->tensors, most * sizeof *tensors);
    const char *name;
    json_t *info;
    if (!tensors) return fkv_fail(err, "%s: out of memory", path);
    table->tensors = tensors;
    json_object_foreach(header, name, info) {
        if (!strcmp(name, "__metadata__")) {
            if (check_metadata(info, path, err)) return FKV_FAILED;
            continue;
        }
        if (read_tensor(name, info, path, data, data_bytes, &tensors[table->count], err))
            return FKV_FAILED;
        table->count++;
    }
    return check_coverage(tensors + first, table->count - first, path, data_bytes, err);
}

int fkv_tensor_table_read(const void *contents, size_t bytes, const char *path,
                          struct fkv_tensor_table *table, struct fkv_error *err) {
    const unsigned char *file = contents;
    if (bytes < 8)
        return fkv_fail(err, "%s: expected 8 bytes of header length, found a file of %zu", path,
                        bytes);
    uint64_t length = 0;
    for (int i = 0; i < 8; i++) length |= (uint64_t)file[i] << (8 * i);
    if (length > MAX_HEADER_BYTES)
        return fkv_fail(err, "%s: header length: expected at most %d bytes, found %llu", path,
                        MAX_HEADER_BYTES, (unsigned long long)length);
    if (length > bytes - 8)
        return fkv_fail(err, "%s: header: expected %llu bytes, found %zu (a truncated file)", path,
                        (unsigned long long)length, bytes - 8);
    if (!length || file[8] != '{')
        return fkv_fail(err, "%s: header: expected a JSON object, found %s", path,
                        length ? "another byte" : "nothing");
    json_t *header = fkv_json_parse((const char *)file + 8, (size_t)length, path, err);
    if (!header) return FKV_FAILED;
    size_t start = 8 + (size_t)length;
    int status = read_tensors(header, path, file + start, bytes - start, table, err);
    json_decref(header);
    return status;
}
