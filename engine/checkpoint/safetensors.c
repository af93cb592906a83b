/* Owns the mappings of a checkpoint's weight files and the table of the tensors in them.
 *
 * The format (huggingface.co/docs/safetensors): 8 bytes, the little-endian length of the header;
 * the header, a JSON object {name: {"dtype", "shape", "data_offsets": [begin, end)}} with an
 * optional "__metadata__" of strings; then the data, where offset 0 is the first byte after the
 * header. Accepted is what the reference reader accepts: header up to 100 MB, known dtypes, bytes =
 * shape x dtype, and tensors that, sorted by offset, cover the data from its first byte to the
 * file's last without overlap or hole. All of it is checked before a tensor is handed out, so that
 * nothing behind this file computes with an offset that a stranger wrote.
 *
 * Tensors of dtypes we cannot compute with (I64, F8_E4M3, ...) are kept in the table: files carry
 * such extras, and only binding one is an error. */
#include "engine/checkpoint/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/mapping.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_HEADER_BYTES = 100000000, MAX_INDEX_BYTES = 64 << 20, MAX_SHARDS = 4096 };

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

struct entry {
    char *name;
    size_t begin, end; /* offsets in the file's data */
    struct fkv_tensor tensor;
};

struct table {
    struct entry *entries;
    size_t count;
};

struct shard {
    char *path, *name; /* the name as the index has it */
    struct fkv_mapping file;
};

struct fkv_safetensors {
    struct shard *shards;
    int count;
    struct table table; /* of all shards, sorted by name */
};

/* ---- one file's header ---- */

static void table_free(struct table *table) {
    for (size_t i = 0; i < table->count; i++) free(table->entries[i].name);
    free(table->entries);
    *table = (struct table){0};
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
                        struct entry *entry, struct fkv_error *err) {
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
                      const unsigned char *data, size_t data_bytes, struct entry *entry,
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
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Sorted by offset, tensors follow one another from the data's first byte to its last. */
static int check_coverage(struct table *table, const char *where, size_t data_bytes,
                          struct fkv_error *err) {
    if (table->count) qsort(table->entries, table->count, sizeof *table->entries, by_offset);
    size_t reached = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct entry *e = &table->entries[i];
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
                        size_t data_bytes, struct table *table, struct fkv_error *err) {
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

/* The tensors of one file in `table`, sorted by offset. On failure the table holds what was read so
 * far; the caller frees it. */
static int read_header(const unsigned char *file, size_t bytes, const char *where,
                       struct table *table, struct fkv_error *err) {
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

int fkv_safetensors_check(const void *file, size_t file_bytes, const char *where,
                          struct fkv_error *err) {
    struct table table = {0};
    int status = read_header(file, file_bytes, where, &table, err);
    table_free(&table);
    return status;
}

/* ---- files ---- */

/* Maps one more file and adds its tensors; `files->shards` has an entry for it. */
static int add_shard(struct fkv_safetensors *files, const char *directory, const char *name,
                     struct fkv_error *err) {
    struct shard *shard = &files->shards[files->count++];
    struct table found = {0};
    if (asprintf(&shard->path, "%s/%s", directory, name) < 0) {
        shard->path = NULL;
        return fkv_fail(err, "%s: out of memory", directory);
    }
    shard->name = strdup(name);
    if (!shard->name) return fkv_fail(err, "%s: out of memory", directory);
    if (fkv_mapping_open(shard->path, &shard->file, err)) return FKV_FAILED;
    int status = read_header(shard->file.data, shard->file.bytes, shard->path, &found, err);
    struct table *all = &files->table;
    if (status == FKV_OK && found.count) {
        struct entry *grown = realloc(all->entries, (all->count + found.count) * sizeof *grown);
        if (grown) {
            for (size_t i = 0; i < found.count; i++)
                found.entries[i].tensor.file = files->count - 1;
            memcpy(grown + all->count, found.entries, found.count * sizeof *grown);
            all->entries = grown;
            all->count += found.count;
            found.count = 0; /* the names have a new owner */
        } else {
            status = fkv_fail(err, "%s: out of memory", shard->path);
        }
    }
    table_free(&found);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int sort_table(struct fkv_safetensors *files, struct fkv_error *err) {
    struct table *t = &files->table;
    if (t->count) qsort(t->entries, t->count, sizeof *t->entries, by_name);
    for (size_t i = 1; i < t->count; i++)
        if (!strcmp(t->entries[i - 1].name, t->entries[i].name))
            return fkv_fail(err, "%s: tensor %.200s: expected it in one shard, found it in %s too",
                            files->shards[t->entries[i].tensor.file].path, t->entries[i].name,
                            files->shards[t->entries[i - 1].tensor.file].path);
    return FKV_OK;
}

static int allocate_shards(struct fkv_safetensors *files, int count, const char *where,
                           struct fkv_error *err) {
    files->shards = calloc((size_t)count, sizeof *files->shards);
    return files->shards ? FKV_OK : fkv_fail(err, "%s: out of memory", where);
}

static int strings_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A path of named folders and a file: nothing hidden, nothing above. */
static bool stays_inside(const char *path) {
    for (const char *part = path;; part++) {
        if (*part == '/' || *part == '.' || !*part) return false;
        part = strchr(part, '/');
        if (!part) return true;
    }
}

/* The distinct shard names of a weight map, sorted; borrowed from it. */
static int list_shards(json_t *map, const char *where, const char **names, int *count,
                       struct fkv_error *err) {
    size_t n = 0;
    for (void *at = json_object_iter(map); at; at = json_object_iter_next(map, at)) {
        const char *name = json_string_value(json_object_iter_value(at));
        if (!name || !stays_inside(name))
            return fkv_fail(err,
                            "%s: field \"weight_map\": tensor %.200s: expected a file within the "
                            "folder, found %.200s",
                            where, json_object_iter_key(at), name ? name : "no string");
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, strings_order);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[i - 1])) {
            if (*count == MAX_SHARDS)
                return fkv_fail(err,
                                "%s: field \"weight_map\": expected at most %d shards, found more",
                                where, MAX_SHARDS);
            names[(*count)++] = names[i];
        }
    return FKV_OK;
}

static int check_weight_map(const struct fkv_safetensors *files, json_t *map, const char *where,
                            struct fkv_error *err) {
    for (void *at = json_object_iter(map); at; at = json_object_iter_next(map, at)) {
        const char *tensor = json_object_iter_key(at),
                   *shard = json_string_value(json_object_iter_value(at));
        const struct fkv_tensor *found = fkv_safetensors_find(files, tensor);
        if (!found || strcmp(files->shards[found->file].name, shard))
            return fkv_fail(
                err, "%s: field \"weight_map\": tensor %.200s: expected in %s, found %s", where,
                tensor, shard, found ? files->shards[found->file].path : "nowhere");
    }
    return FKV_OK;
}

static int open_sharded(struct fkv_safetensors *files, const char *directory, const char *index,
                        struct fkv_error *err) {
    json_t *root = fkv_json_load(index, MAX_INDEX_BYTES, err);
    if (!root) return FKV_FAILED;
    json_t *map = json_object_get(root, "weight_map");
    size_t tensors = json_object_size(map);
    int count = 0, status = FKV_OK;
    const char **names = calloc(tensors + 1, sizeof *names);
    if (!names)
        status = fkv_fail(err, "%s: out of memory", index);
    else if (!tensors)
        status = fkv_fail(
            err,
            "%s: field \"weight_map\": expected an object of tensor names and files, found none",
            index);
    else if (!(status = list_shards(map, index, names, &count, err)) &&
             !(status = allocate_shards(files, count, index, err))) {
        for (int i = 0; i < count && !status; i++)
            status = add_shard(files, directory, names[i], err);
        if (!status) status = sort_table(files, err);
        if (!status) status = check_weight_map(files, map, index, err);
    }
    free(names);
    json_decref(root);
    return status;
}

static int looks_like_weights(const struct dirent *entry) {
    static const char *const endings[] = {".safetensors", ".index.json", ".bin", ".pt",
                                          ".pth",         ".ckpt",       ".gguf"};
    size_t length = strlen(entry->d_name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t n = strlen(endings[i]);
        if (length > n && !strcmp(entry->d_name + length - n, endings[i])) return 1;
    }
    return 0;
}

/* Refuses a folder without weights, naming the files found in it. */
static int explain_missing(const char *directory, struct fkv_error *err) {
    struct dirent **entries;
    int n = scandir(directory, &entries, looks_like_weights, alphasort);
    if (n < 0) return fkv_fail_errno(err, "%s: cannot read the folder", directory);
    char list[400] = "";
    for (int i = 0; i < n; i++) {
        fkv_print_short(list, sizeof list, "%s%s%s", list, i ? ", " : "", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    fkv_fail(err, "%s: expected model.safetensors or model.safetensors.index.json, found %s%s",
             directory, n ? list : "no weights",
             n ? " (convert with transformers: from_pretrained(FOLDER).save_pretrained(NEW_FOLDER))"
               : "");
    return FKV_FAILED;
}

/* Also true for a link that leads nowhere: opening it then says so. */
static bool exists(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0;
}

int fkv_safetensors_open(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err) {
    *out = NULL;
    char single[FKV_PATH], index[FKV_PATH];
    if (fkv_path_print(single, err, "%s/model.safetensors", directory) ||
        fkv_path_print(index, err, "%s/model.safetensors.index.json", directory))
        return FKV_FAILED;
    struct fkv_safetensors *files = calloc(1, sizeof *files);
    int status;
    if (!files)
        status = fkv_fail(err, "%s: out of memory", directory);
    else if (exists(single)) {
        if (!(status = allocate_shards(files, 1, directory, err)) &&
            !(status = add_shard(files, directory, "model.safetensors", err)))
            status = sort_table(files, err);
    } else if (exists(index))
        status = open_sharded(files, directory, index, err);
    else
        status = explain_missing(directory, err);
    if (status)
        fkv_safetensors_close(files);
    else
        *out = files;
    return status;
}

void fkv_safetensors_close(struct fkv_safetensors *files) {
    if (!files) return;
    for (int i = 0; i < files->count; i++) {
        fkv_mapping_close(&files->shards[i].file);
        free(files->shards[i].path);
        free(files->shards[i].name);
    }
    free(files->shards);
    table_free(&files->table);
    free(files);
}

/* ---- questions ---- */

const struct fkv_tensor *fkv_safetensors_find(const struct fkv_safetensors *files,
                                              const char *name) {
    const struct table *t = &files->table;
    struct entry key = {.name = (char *)name};
    const struct entry *found =
        t->count ? bsearch(&key, t->entries, t->count, sizeof key, by_name) : NULL;
    return found ? &found->tensor : NULL;
}

int fkv_safetensors_count(const struct fkv_safetensors *files) { return files->count; }

const char *fkv_safetensors_path(const struct fkv_safetensors *files, int file) {
    return files->shards[file].path;
}

const void *fkv_safetensors_mapping(const struct fkv_safetensors *files, int file, size_t *bytes) {
    *bytes = files->shards[file].file.bytes;
    return files->shards[file].file.data;
}

int fkv_safetensors_sha256(const struct fkv_safetensors *files, fkv_sha256_hex out,
                           struct fkv_error *err) {
    const char **paths = calloc((size_t)files->count, sizeof *paths);
    if (!paths) return fkv_fail(err, "out of memory");
    for (int i = 0; i < files->count; i++) paths[i] = files->shards[i].path;
    int status = fkv_sha256_files(paths, files->count, out, err);
    free(paths);
    return status;
}
