/* Owns the mappings of a checkpoint's weight files and the table of the tensors in them (one file's
 * part of it: safetensors_header.h). */
#include "engine/checkpoint/safetensors.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/base/json.h"
#include "kernels/base/path.h"

enum { MAX_INDEX_BYTES = 64 << 20, MAX_SHARDS = 4096 };

/* Maps one more file and adds its tensors. */
static int add_file(struct fkv_safetensors *files, const char *directory, const char *name,
                    struct fkv_error *err) {
    const int i = files->count;
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0)
        return fkv_fail(err, "%s: out of memory", directory);
    files->paths[i] = path;
    files->count++;
    if (fkv_mapping_open(path, &files->mappings[i], err)) return FKV_FAILED;
    return fkv_tensor_table_read(files->mappings[i].data, files->mappings[i].bytes, path,
                                 &files->tensors, err);
}

static int add_files(struct fkv_safetensors *files, const char *directory, const char *const *names,
                     int count, struct fkv_error *err) {
    files->paths = calloc((size_t)count, sizeof *files->paths);
    files->mappings = calloc((size_t)count, sizeof *files->mappings);
    if (!files->paths || !files->mappings) return fkv_fail(err, "%s: out of memory", directory);
    for (int i = 0; i < count; i++)
        if (add_file(files, directory, names[i], err)) return FKV_FAILED;
    const struct fkv_tensor *again = fkv_tensor_table_sort(&files->tensors);
    if (!again) return FKV_OK;
    return fkv_fail(err, "%s: tensor %.200s: expected it in one shard, found it in %s too",
                    again->path, again->name, again[-1].path);
}

int fkv_safetensors_open_files(const char *directory, const char *const *names, int count,
                               struct fkv_safetensors **out, struct fkv_error *err) {
    struct fkv_safetensors *files = calloc(1, sizeof *files);
    *out = NULL;
    if (!files) return fkv_fail(err, "%s: out of memory", directory);
    if (add_files(files, directory, names, count, err)) {
        fkv_safetensors_close(files);
        return FKV_FAILED;
    }
    *out = files;
    return FKV_OK;
}

void fkv_safetensors_close(struct fkv_safetensors *files) {
    if (!files) return;
    for (int i = 0; i < files->count; i++) {
        fkv_mapping_close(&files->mappings[i]);
        free((char *)files->paths[i]);
    }
    free(files->paths);
    free(files->mappings);
    fkv_tensor_table_free(&files->tensors);
    free(files);
}

/* ---- shards with an index ---- */

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

static int check_weight_map(const struct fkv_safetensors *files, const char *directory, json_t *map,
                            const char *where, struct fkv_error *err) {
    const char *tensor;
    json_t *shard;
    json_object_foreach(map, tensor, shard) {
        const struct fkv_tensor *found = fkv_tensor_find(&files->tensors, tensor);
        const char *name = json_string_value(shard);
        if (!found || strcmp(found->path + strlen(directory) + 1, name))
            return fkv_fail(err,
                            "%s: field \"weight_map\": tensor %.200s: expected in %s, found %s",
                            where, tensor, name, found ? found->path : "nowhere");
    }
    return FKV_OK;
}

static int open_indexed(const char *directory, const char *index, struct fkv_safetensors **out,
                        struct fkv_error *err) {
    json_t *root = fkv_json_load(index, MAX_INDEX_BYTES, err);
    if (!root) return FKV_FAILED;
    json_t *map = json_object_get(root, "weight_map");
    const size_t tensors = json_object_size(map);
    const char **names = calloc(tensors + 1, sizeof *names);
    int count = 0, status;
    if (!names)
        status = fkv_fail(err, "%s: out of memory", index);
    else if (!tensors)
        status = fkv_fail(
            err,
            "%s: field \"weight_map\": expected an object of tensor names and files, found none",
            index);
    else
        status = list_shards(map, index, names, &count, err) ||
                 fkv_safetensors_open_files(directory, names, count, out, err) ||
                 check_weight_map(*out, directory, map, index, err);
    free(names);
    json_decref(root);
    return status ? FKV_FAILED : FKV_OK;
}

/* ---- shards without one ---- */

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
static int check_numbers(const char *const *names, int count, const char *directory,
                         struct fkv_error *err) {
    for (int i = 0; i < count; i++) {
        int number, of, all;
        parse_shard(names[0], &number, &all);
        parse_shard(names[i], &number, &of);
        if (of != all)
            return fkv_fail(err, "%s: expected shards of one model, found %s and %s", directory,
                            names[0], names[i]);
        if (number != i + 1 || (i == count - 1 && number != all))
            return fkv_fail(err,
                            "%s: expected shards 1 to %d, found no number %d; the download is not "
                            "whole: run hf download NAME again",
                            directory, all, number != i + 1 ? i + 1 : count + 1);
    }
    return FKV_OK;
}

static int looks_like_weights(const struct dirent *entry) {
    static const char endings[] = "?*.@(safetensors|index.json|bin|pt|pth|ckpt|gguf)";
    return !fnmatch(endings, entry->d_name, FNM_EXTMATCH);
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
    return fkv_fail(
        err, "%s: expected model.safetensors or model.safetensors.index.json, found %s%s",
        directory, n ? list : "no weights",
        n ? " (convert with transformers: from_pretrained(FOLDER).save_pretrained(NEW_FOLDER))"
          : "");
}

/* All of them; refuses a folder that has none. */
static int open_numbered(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err) {
    struct dirent **entries;
    const int count = scandir(directory, &entries, is_shard, alphasort);
    if (count < 0) return fkv_fail_errno(err, "%s: cannot read the folder", directory);
    const char **names = calloc((size_t)count + 1, sizeof *names);
    int status = names ? FKV_OK : fkv_fail(err, "%s: out of memory", directory);
    for (int i = 0; i < count && names; i++) names[i] = entries[i]->d_name;
    if (!status)
        status = !count ? explain_missing(directory, err)
                        : check_numbers(names, count, directory, err) ||
                              fkv_safetensors_open_files(directory, names, count, out, err);
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
    free(names);
    return status ? FKV_FAILED : FKV_OK;
}

/* Also true for a link that leads nowhere: opening it then says so. */
static bool exists(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0;
}

int fkv_safetensors_open(const char *directory, struct fkv_safetensors **out,
                         struct fkv_error *err) {
    static const char *const single_name = "model.safetensors";
    char single[FKV_PATH], index[FKV_PATH];
    *out = NULL;
    if (fkv_path_print(single, err, "%s/%s", directory, single_name) ||
        fkv_path_print(index, err, "%s/model.safetensors.index.json", directory))
        return FKV_FAILED;
    const int status = exists(single)
                           ? fkv_safetensors_open_files(directory, &single_name, 1, out, err)
                       : exists(index) ? open_indexed(directory, index, out, err)
                                       : open_numbered(directory, out, err);
    if (!status) return FKV_OK;
    fkv_safetensors_close(*out);
    *out = NULL;
    return FKV_FAILED;
}
