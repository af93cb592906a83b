/* The folder of a capture. Its recordings are those that have a name in documents/; capture.h5
 * links to them and can be made again at any time. */
#include "capture/store/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "capture/store/capture_reader.h"
#include "capture/store/writer.h"
#include "kernels/base/host.h"
#include "kernels/base/path.h"

int fkv_folder_document(char path[FKV_PATH], const char *folder, int64_t number, bool temporary,
                        struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/" FKV_CAPTURE_DOCUMENTS "/%s%06lld.h5%s", folder,
                          temporary ? "." : "", (long long)number, temporary ? ".tmp" : "");
}

int fkv_folder_output_gram(char path[FKV_PATH], const char *folder, bool temporary,
                           struct fkv_error *err) {
    return fkv_path_print(path, err, "%s/%s" FKV_CAPTURE_GRAM ".h5%s", folder, temporary ? "." : "",
                          temporary ? ".tmp" : "");
}

bool fkv_folder_has_document(const char *folder, int64_t number) {
    char path[FKV_PATH];
    return !fkv_folder_document(path, folder, number, false, NULL) && access(path, F_OK) == 0;
}

bool fkv_folder_has_output_gram(const char *folder) {
    char path[FKV_PATH];
    return !fkv_folder_output_gram(path, folder, false, NULL) && access(path, F_OK) == 0;
}

static bool is_temporary(const char *name) { return name[0] == '.' && strstr(name, ".h5.tmp"); }

static bool is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static int is_document(const struct dirent *entry) {
    return fkv_schema_document_number(entry->d_name) >= 0;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int fkv_folder_list(const char *folder, int64_t **numbers, int64_t *count, struct fkv_error *err) {
    char path[FKV_PATH];
    *numbers = NULL;
    *count = 0;
    if (fkv_path_print(path, err, "%s/" FKV_CAPTURE_DOCUMENTS, folder)) return FKV_FAILED;
    struct dirent **entries;
    const int found = scandir(path, &entries, is_document, NULL);
    if (found < 0)
        return errno == ENOENT ? FKV_OK : fkv_fail_errno(err, "%s: cannot read the folder", path);
    *numbers = malloc(((size_t)found + 1) * sizeof **numbers);
    for (int i = 0; i < found; i++) {
        if (*numbers) (*numbers)[i] = fkv_schema_document_number(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (!*numbers) return fkv_fail(err, "%s: out of memory", path);
    *count = found;
    qsort(*numbers, (size_t)found, sizeof **numbers, ascending);
    return FKV_OK;
}

/* With `resume`: removes temporaries and refuses strangers. Without: refuses everything. A folder
 * that does not exist holds nothing. */
static int clear_entries(const char *path, bool resume, bool documents, struct fkv_error *err) {
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? FKV_OK : fkv_fail_errno(err, "%s: cannot read the folder", path);
    int status = FKV_OK;
    for (struct dirent *e; status == FKV_OK && (e = readdir(dir));) {
        bool ours = documents ? fkv_schema_document_number(e->d_name) >= 0
                              : !strcmp(e->d_name, FKV_CAPTURE_LINKS) ||
                                    !strcmp(e->d_name, FKV_CAPTURE_DOCUMENTS) ||
                                    !strcmp(e->d_name, FKV_CAPTURE_GRAM ".h5");
        if (is_dots(e->d_name) || (resume && ours)) continue;
        if (!resume)
            status =
                fkv_fail(err, "%s: exists and is not empty: choose another folder%s", path,
                         ours || is_temporary(e->d_name) ? ", or go on in it with --resume" : "");
        else if (!is_temporary(e->d_name))
            status = fkv_fail(err, "%s: holds %s, which is no part of a capture", path, e->d_name);
        else if (unlinkat(dirfd(dir), e->d_name, 0))
            status = fkv_fail_errno(err, "%s/%s: cannot remove", path, e->d_name);
    }
    closedir(dir);
    return status;
}

int fkv_folder_prepare(const char *folder, bool resume, int64_t *end, int *lock,
                       struct fkv_error *err) {
    char documents[FKV_PATH];
    *end = -1;
    *lock = -1;
    /* Long enough for the names that follow: temporaries of recordings. A folder that is too deep
     * is refused before it is made. */
    if (fkv_folder_document(documents, folder, 0, true, err) ||
        fkv_path_print(documents, err, "%s/" FKV_CAPTURE_DOCUMENTS, folder))
        return FKV_FAILED;
    if (!resume && clear_entries(folder, false, false, err)) return FKV_FAILED;
    if (fkv_make_directories(documents, err)) return FKV_FAILED;
    *lock = open(documents, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return fkv_fail_errno(err, "%s: cannot open", documents);
    if (flock(*lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return fkv_fail(err, "%s: another run is writing here", folder);
    if (clear_entries(folder, true, false, err) || clear_entries(documents, true, true, err))
        return FKV_FAILED;
    if (access(documents, W_OK)) return fkv_fail_errno(err, "%s: cannot write", documents);
    int64_t *numbers, count;
    if (fkv_folder_list(folder, &numbers, &count, err)) return FKV_FAILED;
    *end = count ? numbers[count - 1] + 1 : 0;
    free(numbers);
    return FKV_OK;
}

int fkv_folder_check(const char *folder, const struct fkv_capture_info *info,
                     struct fkv_error *err) {
    struct fkv_capture *c = NULL;
    if (fkv_capture_open_partial(folder, &c, err)) return FKV_FAILED;
    int status = fkv_capture_info_compare(info, fkv_capture_info(c), folder, err);
    fkv_capture_close(c);
    return status;
}

/* The links of capture.h5 whose files are not there: how many of how many, and the first. */
struct missing {
    const char *folder;
    int64_t links, missing;
    char first[64];
};

static herr_t check_link(hid_t group, const char *name, const H5L_info_t *info, void *to) {
    struct missing *m = to;
    char path[FKV_PATH];
    (void)group;
    if (info->type != H5L_TYPE_EXTERNAL) return 0;
    m->links++;
    if (fkv_path_print(path, NULL, "%s/" FKV_CAPTURE_DOCUMENTS "/%s.h5", m->folder, name) ||
        access(path, F_OK) == 0)
        return 0;
    if (!m->missing++) snprintf(m->first, sizeof m->first, FKV_CAPTURE_DOCUMENTS "/%.40s.h5", name);
    return 0;
}

int fkv_folder_check_links(const char *folder, struct fkv_error *err) {
    struct missing m = {.folder = folder};
    char path[FKV_PATH];
    if (fkv_path_print(path, err, "%s/" FKV_CAPTURE_LINKS, folder)) return FKV_FAILED;
    hid_t file = access(path, R_OK) ? H5I_INVALID_HID : fkv_hdf_open(path, NULL);
    if (file < 0) return FKV_OK;
    if (H5Lexists(file, FKV_CAPTURE_DOCUMENTS, H5P_DEFAULT) > 0)
        H5Literate_by_name(file, FKV_CAPTURE_DOCUMENTS, H5_INDEX_NAME, H5_ITER_INC, NULL,
                           check_link, &m, H5P_DEFAULT);
    const bool gram =
        H5Lexists(file, FKV_CAPTURE_GRAM, H5P_DEFAULT) > 0 && !fkv_folder_has_output_gram(folder);
    H5Fclose(file);
    if (m.missing)
        return fkv_fail(err,
                        "%s: names %lld recordings, %lld are there: %s is missing (copy it, or run "
                        "the capture's command again with --resume; without " FKV_CAPTURE_LINKS
                        " the others are read alone)",
                        path, (long long)m.links, (long long)(m.links - m.missing), m.first);
    return gram ? fkv_fail(err, "%s: names " FKV_CAPTURE_GRAM ".h5, which is missing", path)
                : FKV_OK;
}

static int link_documents(hid_t file, const char *folder, struct fkv_error *err) {
    int64_t *numbers, count;
    if (fkv_folder_list(folder, &numbers, &count, err)) return FKV_FAILED;
    hid_t group = fkv_hdf_group(file, FKV_CAPTURE_DOCUMENTS, err);
    int status = group < 0 ? FKV_FAILED : FKV_OK;
    for (int64_t i = 0; i < count && status == FKV_OK; i++) {
        char target[64], name[32];
        snprintf(target, sizeof target, FKV_CAPTURE_DOCUMENTS "/%06lld.h5", (long long)numbers[i]);
        snprintf(name, sizeof name, "%06lld", (long long)numbers[i]);
        if (H5Lcreate_external(target, "/document", group, name, H5P_DEFAULT, H5P_DEFAULT) < 0)
            status = fkv_hdf_fail(err, "cannot link to %s", target);
    }
    if (group >= 0) H5Gclose(group);
    free(numbers);
    return status;
}

static int link_output_gram(hid_t file, const char *folder, struct fkv_error *err) {
    if (fkv_folder_has_output_gram(folder) &&
        H5Lcreate_external(FKV_CAPTURE_GRAM ".h5", "/" FKV_CAPTURE_GRAM, file, FKV_CAPTURE_GRAM,
                           H5P_DEFAULT, H5P_DEFAULT) < 0)
        return fkv_hdf_fail(err, "cannot link to " FKV_CAPTURE_GRAM ".h5");
    return FKV_OK;
}

int fkv_folder_write_links(const char *folder, const struct fkv_capture_info *info,
                           struct fkv_error *err) {
    char path[FKV_PATH], temporary[FKV_PATH], created[32];
    if (fkv_path_print(temporary, err, "%s/." FKV_CAPTURE_LINKS ".tmp", folder) ||
        fkv_path_print(path, err, "%s/" FKV_CAPTURE_LINKS, folder))
        return FKV_FAILED;
    time_t now = time(NULL);
    struct tm utc;
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    hid_t file = fkv_hdf_create(temporary, false, err);
    if (file < 0) return FKV_FAILED;
    int status = fkv_schema_write_info(file, info, err) ||
                         fkv_hdf_put_string(file, "created", created, err) ||
                         link_documents(file, folder, err) || link_output_gram(file, folder, err)
                     ? fkv_error_prefix(err, "%s", path)
                     : FKV_OK;
    return fkv_writer_end(file, status, temporary, path, err);
}

/* Without a recording, what says something of the model alone is no capture either. */
void fkv_folder_remove_if_empty(const char *folder) {
    char path[FKV_PATH];
    if (fkv_path_print(path, NULL, "%s/" FKV_CAPTURE_DOCUMENTS, folder) || rmdir(path)) return;
    if (!fkv_folder_output_gram(path, folder, false, NULL)) unlink(path);
    rmdir(folder);
}
