/* Owns the mappings of a checkpoint's weight files and the table of the tensors in them (one file's
 * part of it: safetensors_header.h). */
#include "engine/checkpoint/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/mapping.h"
#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_INDEX_BYTES = 64 << 20, MAX_SHARDS = 4096 };

struct shard {
    char *path, *name; /* the name as the index has it */
    struct fkv_mapping file;
};

struct fkv_safetensors {
    struct shard *shards;
    int count;
    struct fkv_tensor_table table; /* of all shards, sorted by name */
};

/* Maps one more file and adds its tensors; `files->shards` has an entry for it. */
static int add_shard(struct fkv_safetensors *files, const char *directory, const char *name,
                     struct fkv_error *err) {
    struct shard *shard = &files->shards[files->count++];
    struct fkv_tensor_table found = {0};
    if (asprintf(&shard->path, "%s/%s", directory, name) < 0) {
        shard->path = NULL;
        return fkv_fail(err, "%s: out of memory", directory);
    }
    shard->name = strdup(name);
    if (!shard->name) return fkv_fail(err, "%s: out of memory", directory);
    if (fkv_mapping_open(shard->path, &shard->file, err)) return FKV_FAILED;
    int status =
        fkv_tensor_table_read(shard->file.data, shard->file.bytes, shard->path, &found, err);
    struct fkv_tensor_table *all = &files->table;
    if (status == FKV_OK && found.count) {
        struct fkv_tensor_entry *grown =
            realloc(all->entries, (all->count + found.count) * sizeof *grown);
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
    fkv_tensor_table_free(&found);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct fkv_tensor_entry *)a)->name,
                  ((const struct fkv_tensor_entry *)b)->name);
}

static int sort_table(struct fkv_safetensors *files, struct fkv_error *err) {
    struct fkv_tensor_table *t = &files->table;
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

/* "model-00001-of-00003.safetensors" -> its number and how many there are; else false. */
static bool parse_shard(const char *name, int *number, int *of) {
    int used = 0;
    return sscanf(name, "model-%5d-of-%5d.safetensors%n", number, of, &used) == 2 && used > 0 &&
           !name[used];
}

static int is_shard(const struct dirent *entry) {
    int number, of;
    return parse_shard(entry->d_name, &number, &of);
}

/* The shards in the folder are 1 to N of N, in order. */
static int check_numbers(struct dirent **entries, int count, const char *directory,
                         struct fkv_error *err) {
    for (int i = 0; i < count; i++) {
        int number, of, all;
        parse_shard(entries[0]->d_name, &number, &all);
        parse_shard(entries[i]->d_name, &number, &of);
        if (of != all)
            return fkv_fail(err, "%s: expected shards of one model, found %s and %s", directory,
                            entries[0]->d_name, entries[i]->d_name);
        if (number != i + 1 || (i == count - 1 && number != all))
            return fkv_fail(err,
                            "%s: expected shards 1 to %d, found no number %d; the download is not "
                            "whole: run hf download NAME again",
                            directory, all, number != i + 1 ? i + 1 : count + 1);
    }
    return FKV_OK;
}

/* Shards without an index: all of them. *found false where there are none. */
static int open_numbered(struct fkv_safetensors *files, const char *directory, bool *found,
                         struct fkv_error *err) {
    struct dirent **entries;
    const int count = scandir(directory, &entries, is_shard, alphasort);
    if (count < 0) return fkv_fail_errno(err, "%s: cannot read the folder", directory);
    *found = count > 0;
    int status = check_numbers(entries, count, directory, err);
    if (!status && count) status = allocate_shards(files, count, directory, err);
    for (int i = 0; i < count; i++) {
        if (!status) status = add_shard(files, directory, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    return status ? status : sort_table(files, err);
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
    } else if (exists(index)) {
        status = open_sharded(files, directory, index, err);
    } else {
        bool found = false;
        status = open_numbered(files, directory, &found, err);
        if (!status && !found) status = explain_missing(directory, err);
    }
    if (status)
        fkv_safetensors_close(files);
    else
        *out = files;
    return status;
}

int fkv_safetensors_open_files(const char *directory, const char *const *names, int count,
                               struct fkv_safetensors **out, struct fkv_error *err) {
    struct fkv_safetensors *files = calloc(1, sizeof *files);
    *out = NULL;
    int status = files ? allocate_shards(files, count, directory, err)
                       : fkv_fail(err, "%s: out of memory", directory);
    for (int i = 0; i < count && !status; i++) status = add_shard(files, directory, names[i], err);
    if (!status) status = sort_table(files, err);
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
    fkv_tensor_table_free(&files->table);
    free(files);
}

/* ---- questions ---- */

const struct fkv_tensor *fkv_safetensors_find(const struct fkv_safetensors *files,
                                              const char *name) {
    const struct fkv_tensor_table *t = &files->table;
    struct fkv_tensor_entry key = {.name = (char *)name};
    const struct fkv_tensor_entry *found =
        t->count ? bsearch(&key, t->entries, t->count, sizeof key, by_name) : NULL;
    return found ? &found->tensor : NULL;
}

size_t fkv_safetensors_count(const struct fkv_safetensors *files) { return files->table.count; }

const struct fkv_tensor *fkv_safetensors_tensor(const struct fkv_safetensors *files, size_t i) {
    return &files->table.entries[i].tensor;
}

const char *fkv_safetensors_path(const struct fkv_safetensors *files, int file) {
    return files->shards[file].path;
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
