/* Merging captures: shards and machines add up because a recording is a file. Files are copied byte
 * for byte and only their numbers change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "capture/store/folder.h"
#include "capture/store/schema.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/path.h"

/* One recording of one of the captures, in the order of its text and offset. */
struct source {
    const struct fkv_recording *recording;
    const char *file;
};

static int by_text(const void *a, const void *b) {
    const struct fkv_recording *x = ((const struct source *)a)->recording,
                               *y = ((const struct source *)b)->recording;
    int order = strcmp(x->text_sha256, y->text_sha256);
    return order ? order : (x->offset > y->offset) - (x->offset < y->offset);
}

static int copy_file(const char *from, const char *to, struct fkv_error *err) {
    char buffer[64 << 10];
    struct fkv_atomic_file out;
    FILE *in = fopen(from, "rb");
    if (!in) return fkv_fail_errno(err, "%s: cannot open", from);
    int status = fkv_atomic_open(&out, to, err);
    for (size_t got = 1; !status && got && !ferror(out.stream);) {
        got = fread(buffer, 1, sizeof buffer, in);
        fwrite(buffer, 1, got, out.stream);
    }
    if (!status && ferror(in)) {
        status = fkv_fail_errno(err, "%s: cannot read", from);
        fkv_atomic_abandon(&out);
    } else if (!status) {
        status = fkv_atomic_commit(&out, err);
    }
    fclose(in);
    return status;
}

/* The captures' recordings in the order given; every one must have a file of its own and a text of
 * its own. */
static int list_recordings(struct fkv_capture *const *captures, int count, struct source **out,
                           int64_t *total, struct fkv_error *err) {
    *total = 0;
    for (int i = 0; i < count; i++) *total += fkv_capture_count(captures[i]);
    struct source *all = calloc((size_t)*total, sizeof *all),
                  *sorted = calloc((size_t)*total, sizeof *sorted);
    int status = all && sorted ? FKV_OK : fkv_fail(err, "out of memory");
    for (int64_t i = 0, at = 0; i < count && status == FKV_OK; i++)
        for (int32_t k = 0; k < fkv_capture_count(captures[i]) && status == FKV_OK; k++, at++) {
            all[at] = (struct source){fkv_capture_recording(captures[i], k),
                                      fkv_capture_own_file(captures[i], k)};
            if (!all[at].file)
                status = fkv_fail(err, "%s: expected a folder made by freqkv-capture",
                                  fkv_capture_path(captures[i]));
        }
    if (status == FKV_OK) {
        memcpy(sorted, all, (size_t)*total * sizeof *all);
        qsort(sorted, (size_t)*total, sizeof *sorted, by_text);
        for (int64_t i = 1; i < *total && status == FKV_OK; i++)
            if (by_text(&sorted[i - 1], &sorted[i]) == 0)
                status = fkv_fail(err, "%s: the same text and offset as %s (\"%s\", token %lld)",
                                  sorted[i].file, sorted[i - 1].file, sorted[i].recording->name,
                                  (long long)sorted[i].recording->offset);
    }
    free(sorted);
    if (status) {
        free(all);
        all = NULL;
    }
    *out = all;
    return status;
}

/* The first of the captures that holds the output projection's, against which all others that do
 * are held; NULL where none does. */
static int choose_gram(struct fkv_capture *const *captures, int count, const char **file,
                       struct fkv_error *err) {
    struct fkv_capture *first = NULL;
    *file = NULL;
    for (int i = 0; i < count; i++) {
        if (!fkv_capture_output_gram(captures[i])) continue;
        if (first && fkv_output_gram_compare(first, captures[i], err)) return FKV_FAILED;
        if (!first) first = captures[i];
    }
    if (first) *file = fkv_capture_output_gram(first);
    return FKV_OK;
}

/* FOLDER/NUMBER.h5 */
static int name_copy(char path[FKV_PATH], const char *folder, int64_t number,
                     struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/%06lld.h5", folder, (long long)number);
}

static int copy_all(const struct source *sources, int64_t total, const char *folder,
                    struct fkv_error *err) {
    char to[FKV_PATH];
    int status =
        mkdir(folder, 0777) ? fkv_fail_errno(err, "%s: cannot make the folder", folder) : FKV_OK;
    for (int64_t i = 0; i < total && status == FKV_OK; i++) {
        status = name_copy(to, folder, i, err);
        if (status == FKV_OK) status = copy_file(sources[i].file, to, err);
    }
    return status;
}

static void remove_all(int64_t total, const char *folder) {
    char path[FKV_PATH];
    struct fkv_error err; /* what has no path was not copied */
    for (int64_t i = 0; i < total; i++)
        if (name_copy(path, folder, i, &err) == FKV_OK) unlink(path);
}

/* Recordings are copied to a folder of their own, which is renamed to documents/ when all are
 * copied: a merge that is cut short would open as a capture of fewer texts. */
static int write_merged(const struct source *sources, int64_t total, const char *gram,
                        const struct fkv_capture_info *info, const char *folder,
                        struct fkv_error *err) {
    struct fkv_capture_writer *w;
    char fresh[FKV_PATH], documents[FKV_PATH], gram_copy[FKV_PATH];
    if (fkv_path_print(fresh, err, "%s/.merging", folder) ||
        fkv_path_print(documents, err, "%s/" FKV_CAPTURE_DOCUMENTS, folder) ||
        fkv_folder_output_gram(gram_copy, folder, false, err) ||
        fkv_capture_create(folder, info, false, &w, err))
        return FKV_FAILED;
    int status = copy_all(sources, total, fresh, err);
    if (status == FKV_OK && gram) status = copy_file(gram, gram_copy, err);
    if (status == FKV_OK) status = fkv_atomic_rename(fresh, documents, err);
    if (status == FKV_OK) status = fkv_capture_finish(w, err);
    if (status) { /* half a merge is no capture */
        remove_all(total, fresh);
        rmdir(fresh);
        remove_all(total, documents);
    }
    fkv_capture_abandon(w);
    return status;
}

int fkv_capture_merge(const char *const *paths, int count, const char *folder,
                      struct fkv_error *err) {
    if (count < 1) return fkv_fail(err, "%s: nothing to merge", folder);
    struct fkv_capture **captures = calloc((size_t)count, sizeof *captures);
    if (!captures) return fkv_fail(err, "out of memory");
    int status = FKV_OK;
    for (int i = 0; i < count && status == FKV_OK; i++) {
        status = fkv_capture_open(paths[i], &captures[i], err);
        if (status == FKV_OK)
            status = fkv_capture_info_compare(fkv_capture_info(captures[0]),
                                              fkv_capture_info(captures[i]), paths[i], err);
    }
    struct source *sources = NULL;
    int64_t total = 0;
    if (status == FKV_OK) status = list_recordings(captures, count, &sources, &total, err);
    const char *gram = NULL;
    if (status == FKV_OK) status = choose_gram(captures, count, &gram, err);
    if (status == FKV_OK)
        status = write_merged(sources, total, gram, fkv_capture_info(captures[0]), folder, err);
    free(sources);
    for (int i = 0; i < count; i++) fkv_capture_close(captures[i]);
    free(captures);
    return status;
}
