/* Writing captures: one file per recording, under a temporary name until it is whole. How states
 * get into it is capture_rows.c.
 *
 * The disk space is taken before the first byte is written: a full disk is an error of fallocate's
 * then, and not one inside HDF5, which cannot take back a failed flush. A lock on documents/ keeps
 * a second run out. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "capture/store/folder.h"
#include "capture/store/writer.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/host.h"

/* ---- the folder ---- */

static struct fkv_capture_writer *make_writer(const char *folder,
                                              const struct fkv_capture_info *info,
                                              struct fkv_error *err) {
    struct fkv_capture_writer *w = calloc(1, sizeof *w);
    char *name = strdup(folder);
    if (w && name) {
        *w = (struct fkv_capture_writer){
            .folder = name, .info = info, .lock = -1, .file = H5I_INVALID_HID};
        return w;
    }
    free(w);
    free(name);
    fkv_fail(err, "%s: out of memory", folder);
    return NULL;
}

int fkv_capture_create(const char *folder, const struct fkv_capture_info *info, bool resume,
                       struct fkv_capture_writer **out, struct fkv_error *err) {
    struct fkv_capture_writer *w = *out = make_writer(folder, info, err);
    if (!w) return FKV_FAILED;
    bool gram;
    if (fkv_folder_prepare(folder, resume, &w->end, &w->lock, err) ||
        (w->end > 0 && fkv_folder_check(folder, info, err)) ||
        fkv_output_gram_check_folder(folder, info, &gram, err)) {
        fkv_capture_abandon(w);
        *out = NULL;
        return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_capture_share(const struct fkv_capture_writer *first, struct fkv_capture_writer **out,
                      struct fkv_error *err) {
    *out = make_writer(first->folder, first->info, err);
    if (!*out) return FKV_FAILED;
    (*out)->end = first->end;
    (*out)->shared = true;
    return FKV_OK;
}

int64_t fkv_capture_end(const struct fkv_capture_writer *w) { return w->end; }

bool fkv_capture_has(const struct fkv_capture_writer *w, int64_t index) {
    return fkv_folder_has_document(w->folder, index);
}

int fkv_capture_check(const struct fkv_capture_writer *w, int64_t index,
                      const struct fkv_recording *recording, struct fkv_error *err) {
    char path[FKV_PATH];
    struct fkv_capture *c;
    if (fkv_folder_document(path, w->folder, index, false, err) || fkv_capture_open(path, &c, err))
        return FKV_FAILED;
    const struct fkv_recording *found = fkv_capture_recording(c, 0);
    const bool same = !strcmp(found->text_sha256, recording->text_sha256) &&
                      found->offset == recording->offset && found->n_tokens == recording->n_tokens;
    if (!same)
        fkv_fail(err,
                 "%s: made from another text: expected \"%s\" (sha256 %.8s...), "
                 "tokens %lld to %lld, "
                 "found \"%s\" (%.8s...), %lld to %lld",
                 path, recording->name, recording->text_sha256, (long long)recording->offset,
                 (long long)(recording->offset + recording->n_tokens), found->name,
                 found->text_sha256, (long long)found->offset,
                 (long long)(found->offset + found->n_tokens));
    fkv_capture_close(c);
    return same ? FKV_OK : FKV_FAILED;
}

/* ---- one recording ---- */

static void release_recording(struct fkv_capture_writer *w) {
    if (w->file >= 0) H5Fclose(w->file);
    w->file = H5I_INVALID_HID;
    if (*w->temporary) unlink(w->temporary);
    *w->temporary = 0;
    fkv_writer_close_states(w);
}

/* Best effort: file systems that cannot reserve say so and are left alone. */
int fkv_writer_reserve(const char *path, int64_t bytes, struct fkv_error *err) {
    int fd = open(path, O_WRONLY | O_CLOEXEC), status = FKV_OK;
    if (fd < 0) return fkv_fail_errno(err, "%s: cannot write", path);
    char size[16];
    fkv_format_bytes(size, bytes);
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        status = fkv_fail_errno(err, "%s: cannot reserve %s on disk", path, size);
    close(fd);
    return status;
}

static int trim(const char *path, struct fkv_error *err) {
    struct stat found;
    if (stat(path, &found) || truncate(path, found.st_size))
        return fkv_fail_errno(err, "%s: cannot trim", path);
    return FKV_OK;
}

int fkv_writer_end(hid_t file, int status, const char *temporary, const char *path,
                   struct fkv_error *err) {
    if (status)
        H5Fclose(file);
    else
        status = fkv_hdf_close(file, path, err);
    if (!status && !trim(temporary, err) && !fkv_atomic_rename(temporary, path, err)) return FKV_OK;
    unlink(temporary);
    return FKV_FAILED;
}

static int write_head(struct fkv_capture_writer *w, const struct fkv_recording *r,
                      const int32_t *tokens, struct fkv_error *err) {
    if (fkv_schema_write_info(w->file, w->info, err) ||
        (w->group = fkv_hdf_group(w->file, "document", err)) < 0 ||
        fkv_hdf_put_string(w->group, "name", r->name, err) ||
        fkv_hdf_put_string(w->group, "text_sha256", r->text_sha256, err) ||
        fkv_hdf_put_int(w->group, "n_tokens", r->n_tokens, err) ||
        fkv_hdf_put_int(w->group, "offset", r->offset, err) ||
        fkv_hdf_put_bool(w->group, "beyond_trained_context", r->beyond_trained_context, err))
        return FKV_FAILED;
    const hsize_t n = (hsize_t)r->n_tokens;
    if (fkv_hdf_put(w->group, "tokens", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &n, tokens, err))
        return FKV_FAILED;
    return w->info->spectra_only ? FKV_OK : fkv_writer_open_states(w, err);
}

int fkv_capture_begin(struct fkv_capture_writer *w, int64_t index,
                      const struct fkv_recording *recording, const int32_t *tokens,
                      struct fkv_error *err) {
    release_recording(w);
    if (fkv_folder_document(w->path, w->folder, index, false, err)) return FKV_FAILED;
    w->n_tokens = recording->n_tokens;
    if (recording->n_tokens < 1) return fkv_fail(err, "%s: a recording without tokens", w->path);
    if (access(w->path, F_OK) == 0) return fkv_fail(err, "%s: exists already", w->path);
    if (fkv_folder_document(w->temporary, w->folder, index, true, err) ||
        (w->file = fkv_hdf_create(w->temporary, false, err)) < 0)
        return FKV_FAILED;
    int64_t bytes = w->info->spectra_only ? 64 << 10 : fkv_capture_bytes(w->info, w->n_tokens, 0);
    if (fkv_writer_reserve(w->temporary, bytes, err)) return FKV_FAILED;
    return write_head(w, recording, tokens, err) ? fkv_error_prefix(err, "%s", w->path) : FKV_OK;
}

/* ---- tokens, classes and scores ---- */

static int write_row(struct fkv_capture_writer *w, const char *name, hid_t file_type,
                     hid_t memory_type, const void *data, struct fkv_error *err) {
    const hsize_t n = (hsize_t)w->n_tokens;
    if (w->file < 0) return fkv_fail(err, "%s: no recording has begun", w->folder);
    if (fkv_hdf_put(w->group, name, file_type, memory_type, 1, &n, data, err))
        return fkv_error_prefix(err, "%s", w->path);
    return FKV_OK;
}

int fkv_capture_write_nll(struct fkv_capture_writer *w, const float *nll, struct fkv_error *err) {
    return write_row(w, "nll", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nll, err);
}

int fkv_capture_write_token_class(struct fkv_capture_writer *w, const uint8_t *classes,
                                  struct fkv_error *err) {
    return write_row(w, "token_class", H5T_STD_U8LE, H5T_NATIVE_UINT8, classes, err);
}

int fkv_capture_write_sums(struct fkv_capture_writer *w, enum fkv_state state,
                           const struct fkv_spectra_sums *sums, struct fkv_error *err) {
    char path[64];
    if (w->file < 0 || !w->info->spectra_only || !fkv_capture_holds(w->info, state))
        return fkv_fail(err, "%s: sums of %s are not part of this capture", w->folder,
                        fkv_state_names[state]);
    snprintf(path, sizeof path, "spectra/%s", fkv_state_names[state]);
    hid_t group = fkv_hdf_group(w->group, path, err);
    if (group < 0) return fkv_error_prefix(err, "%s", w->path);
    const int64_t n = sums->n, skip = sums->skip_sinks;
    int status = fkv_hdf_put_int(group, "segment_length", n, err) ||
                         fkv_hdf_put_int(group, "skip_sinks", skip, err) ||
                         fkv_hdf_put_int(group, "segments", sums->segments, err)
                     ? FKV_FAILED
                     : FKV_OK;
    struct fkv_sums_array arrays[FKV_SUMS_ARRAYS];
    fkv_sums_arrays(sums, arrays);
    for (int i = 0; i < FKV_SUMS_ARRAYS && status == FKV_OK; i++)
        status = fkv_hdf_put(group, arrays[i].name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE,
                             arrays[i].rank, arrays[i].dims, arrays[i].data, err);
    H5Gclose(group);
    w->states[state].sums = true;
    return status ? fkv_error_prefix(err, "%s", w->path) : FKV_OK;
}

/* ---- the end ---- */

static int complete(struct fkv_capture_writer *w, struct fkv_error *err) {
    if (!w->info->spectra_only) return fkv_writer_finish_states(w, err);
    for (int s = 0; s < FKV_STATES; s++)
        if (fkv_capture_holds(w->info, s) && !w->states[s].sums)
            return fkv_fail(err, "%s: %s: no sums were written", w->path, fkv_state_names[s]);
    return FKV_OK;
}

int fkv_capture_commit(struct fkv_capture_writer *w, struct fkv_error *err) {
    if (w->file < 0) return fkv_fail(err, "%s: no recording has begun", w->folder);
    int status = complete(w, err);
    if (status == FKV_OK) {
        status = fkv_writer_end(w->file, FKV_OK, w->temporary, w->path, err);
        w->file = H5I_INVALID_HID;
    }
    release_recording(w);
    return status;
}

int fkv_capture_finish(struct fkv_capture_writer *w, struct fkv_error *err) {
    return fkv_folder_write_links(w->folder, w->info, err);
}

void fkv_capture_abandon(struct fkv_capture_writer *w) {
    if (!w) return;
    release_recording(w);
    fkv_writer_free_states(w);
    if (w->lock >= 0) close(w->lock);
    if (w->end == 0 && !w->shared) fkv_folder_remove_if_empty(w->folder);
    free(w->folder);
    free(w);
}
