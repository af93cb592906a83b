/* Owns what is in the folder. */
#include "analyze/report/folder.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int fkv_report_path(const struct fkv_report *r, const char *name, char path[FKV_PATH],
                    struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/%s", r->folder, name);
}

bool fkv_report_has(const struct fkv_report *r, const char *name) {
    for (int i = 0; i < r->files.count; i++)
        if (!strcmp(r->files.text[i], name)) return true;
    return false;
}

int fkv_report_table_read(const struct fkv_report *r, const char *name, struct fkv_table *out,
                          struct fkv_error *err) {
    char path[FKV_PATH];
    *out = (struct fkv_table){0};
    return fkv_report_path(r, name, path, err) ? FKV_FAILED : fkv_table_read(path, out, err);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Hidden files are left out: a writer that is not finished has one. */
static int list_files(struct fkv_report *r, struct fkv_error *err) {
    DIR *directory = opendir(r->folder);
    int status = directory ? FKV_OK : fkv_fail_errno(err, "%s", r->folder);
    if (status) return status;
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        char path[FKV_PATH];
        struct stat info;
        if (*entry->d_name == '.') continue;
        status = fkv_report_path(r, entry->d_name, path, err);
        if (!status && !stat(path, &info) && S_ISREG(info.st_mode))
            fkv_text_list_add(&r->files, "%s", entry->d_name);
    }
    closedir(directory);
    if (r->files.count)
        qsort(r->files.text, (size_t)r->files.count, sizeof *r->files.text, by_text);
    r->taken = calloc((size_t)r->files.count + 1, sizeof *r->taken);
    if (!status && (r->files.failed || !r->taken)) status = fkv_fail(err, "out of memory");
    return status;
}

static int open_results(struct fkv_report *r, struct fkv_error *err) {
    char path[FKV_PATH], format[64] = "";
    bool found;
    if (fkv_report_path(r, "results.h5", path, err)) return FKV_FAILED;
    if (!fkv_report_has(r, "results.h5"))
        return fkv_fail(err,
                        "%s: expected results.h5, which freqkv-analyze spectrum, error and gamma "
                        "write, found none",
                        r->folder);
    if (fkv_h5_open(path, &r->results, err)) return FKV_FAILED;
    if (fkv_h5_get_string(r->results, "/", "format", format, sizeof format, &found, err))
        return fkv_error_prefix(err, "%s", path);
    if (strcmp(format, "freqkv-results"))
        return fkv_fail(err, "%s: attribute format: expected \"freqkv-results\", found %s%.60s%s",
                        path, *format ? "\"" : "", *format ? format : "none", *format ? "\"" : "");
    if (fkv_report_facts_read(r->results, &r->facts, err) ||
        fkv_report_commands_read(r->results, &r->commands, err))
        return fkv_error_prefix(err, "%s", path);
    return FKV_OK;
}

int fkv_report_open(const char *folder, struct fkv_report_outline *outline, struct fkv_report *out,
                    struct fkv_error *err) {
    *out = (struct fkv_report){.folder = folder, .outline = outline};
    int status = list_files(out, err);
    if (!status) status = open_results(out, err);
    if (status) fkv_report_close(out);
    return status;
}

void fkv_report_close(struct fkv_report *r) {
    if (r->results) fkv_h5_close(r->results);
    fkv_report_facts_free(&r->facts);
    fkv_text_list_free(&r->commands);
    fkv_text_list_free(&r->files);
    free(r->taken);
    *r = (struct fkv_report){0};
}
