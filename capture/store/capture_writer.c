/* Writing captures: one file per recording, under a temporary name until it is whole.
 *
 * States come in as the model makes them, a block of tokens of all heads of one layer, and lie on disk as [layer, head, token, channel]. Each (state, layer) has room for one
 * row of chunks, in the capture's dtype; rows are checked, converted and transposed into it, and it goes to the file when it is full, so every chunk is
 * written once. HDF5 converts nothing.
 *
 * The disk space is taken before the first byte is written: a full disk is an error of fallocate's then, and not one inside HDF5, which cannot
 * take back a failed flush. A lock on documents/ keeps a second run out. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture/store/folder.h"
#include "capture/store/schema.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/host.h"

/* Tokens [first, first+rows) of one layer, not yet in the file. They lie within one row of chunks. */
struct staging {
    uint8_t *data; /* [heads, tokens per chunk, head_dim] of the capture's dtype */
    int64_t first, rows;
    int64_t received;
};

struct state_output {
    hid_t dataset, space;
    int32_t heads;
    int64_t chunk;
    struct staging *layers; /* [layer_count] */
    bool sums;              /* written, where only sums are */
};

struct fkv_capture_writer {
    char *folder;
    const struct fkv_capture_info *info;
    int lock;
    bool fresh; /* nothing was there before */

    char *temporary, *path; /* of the recording being written; NULL between recordings */
    hid_t file, group;
    int64_t n_tokens;
    struct state_output states[FKV_STATES];
};

static bool wanted(const struct fkv_capture_writer *w, int state) { return (w->info->states >> state) & 1; }

/* ---- the folder ---- */

int fkv_capture_create(const char *folder, const struct fkv_capture_info *info, bool resume,
                       struct fkv_capture_writer **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_capture_writer *w = calloc(1, sizeof *w);
    char *name = strdup(folder);
    if (!w || !name) {
        free(w);
        free(name);
        return fkv_fail(err, "%s: out of memory", folder);
    }
    *w = (struct fkv_capture_writer){.folder = name, .info = info, .lock = -1, .file = H5I_INVALID_HID};
    if (fkv_folder_prepare(folder, resume, &w->fresh, &w->lock, err) ||
        (!w->fresh && fkv_folder_check(folder, info, err))) {
        fkv_capture_abandon(w);
        return FKV_FAILED;
    }
    *out = w;
    return FKV_OK;
}

bool fkv_capture_has(const struct fkv_capture_writer *w, int64_t index) {
    char *path = fkv_folder_document(w->folder, index, false);
    bool there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}

int fkv_capture_check(const struct fkv_capture_writer *w, int64_t index, const struct fkv_recording *recording,
                      struct fkv_error *err) {
    char *path = fkv_folder_document(w->folder, index, false);
    struct fkv_capture *c = NULL;
    int status = path ? fkv_capture_open(path, &c, err) : fkv_fail(err, "%s: out of memory", w->folder);
    if (status == FKV_OK) {
        const struct fkv_recording *there = fkv_capture_recording(c, 0);
        if (strcmp(there->text_sha256, recording->text_sha256) || there->offset != recording->offset ||
            there->n_tokens != recording->n_tokens)
            status = fkv_fail(err,
                              "%s: made from another text: expected \"%s\" (sha256 %.8s...), tokens %lld to %lld, "
                              "found \"%s\" (%.8s...), %lld to %lld",
                              path, recording->name, recording->text_sha256, (long long)recording->offset,
                              (long long)(recording->offset + recording->n_tokens), there->name, there->text_sha256,
                              (long long)there->offset, (long long)(there->offset + there->n_tokens));
    }
    fkv_capture_close(c);
    free(path);
    return status;
}

/* ---- one recording ---- */

static void release_recording(struct fkv_capture_writer *w) {
    if (w->file >= 0) H5Fclose(w->file);
    w->file = H5I_INVALID_HID;
    if (w->temporary) unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    w->temporary = w->path = NULL;
    for (int s = 0; s < FKV_STATES; s++) {
        struct state_output *o = &w->states[s];
        if (o->layers) {
            H5Sclose(o->space);
            for (int32_t i = 0; i < w->info->layer_count; i++) free(o->layers[i].data);
        }
        free(o->layers);
        *o = (struct state_output){0};
    }
}

/* Best effort: file systems that cannot reserve say so and are left alone. */
static int reserve(const char *path, int64_t bytes, struct fkv_error *err) {
    int fd = open(path, O_WRONLY | O_CLOEXEC), status = FKV_OK;
    if (fd < 0) return fkv_fail_errno(err, "%s: cannot write", path);
    char size[16];
    fkv_format_bytes(size, bytes);
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        status = fkv_fail_errno(err, "%s: cannot reserve %s on disk", path, size);
    close(fd);
    return status;
}

/* Gives back what was reserved beyond the end. */
static int trim(const char *path, struct fkv_error *err) {
    struct stat found;
    if (stat(path, &found) || truncate(path, found.st_size)) return fkv_fail_errno(err, "%s: cannot trim", path);
    return FKV_OK;
}

static int open_state(struct fkv_capture_writer *w, enum fkv_state state, struct fkv_error *err) {
    const struct fkv_capture_info *info = w->info;
    struct state_output *o = &w->states[state];
    int32_t chunk_heads;
    fkv_schema_chunk(info, state, w->n_tokens, &o->chunk, &chunk_heads);
    o->heads = fkv_schema_heads(info, state);
    const hsize_t dims[4] = {(hsize_t)info->layer_count, (hsize_t)o->heads, (hsize_t)w->n_tokens,
                             (hsize_t)info->head_dim};
    const hsize_t chunk[4] = {1, (hsize_t)chunk_heads, (hsize_t)o->chunk, (hsize_t)info->head_dim};
    hid_t type = info->dtype == FKV_F32 ? H5T_IEEE_F32LE : info->dtype == FKV_F16 ? fkv_hdf_f16() : H5T_STD_U16LE;
    o->dataset = fkv_hdf_dataset(w->group, fkv_state_names[state], type, 4, dims, chunk, err);
    if (o->dataset < 0) return FKV_FAILED;
    if (info->dtype == FKV_BF16 && fkv_hdf_put_string(o->dataset, "dtype", "bf16", err)) return FKV_FAILED;
    o->space = H5Screate_simple(4, dims, NULL);
    o->layers = calloc((size_t)info->layer_count, sizeof *o->layers);
    size_t bytes = (size_t)o->heads * (size_t)o->chunk * (size_t)info->head_dim * fkv_dtype_bytes(info->dtype);
    for (int32_t i = 0; o->layers && i < info->layer_count; i++)
        if (!(o->layers[i].data = malloc(bytes))) return fkv_fail(err, "out of memory for staging");
    return o->layers ? FKV_OK : fkv_fail(err, "out of memory for staging");
}

static int write_head(struct fkv_capture_writer *w, const struct fkv_recording *r, const int32_t *tokens,
                      struct fkv_error *err) {
    if (fkv_schema_write_info(w->file, w->info, err) || (w->group = fkv_hdf_group(w->file, "document", err)) < 0 ||
        fkv_hdf_put_string(w->group, "name", r->name, err) ||
        fkv_hdf_put_string(w->group, "text_sha256", r->text_sha256, err) ||
        fkv_hdf_put_numbers(w->group, "n_tokens", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &r->n_tokens, err) ||
        fkv_hdf_put_numbers(w->group, "offset", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &r->offset, err) ||
        fkv_hdf_put_bool(w->group, "beyond_trained_context", r->beyond_trained_context, err))
        return FKV_FAILED;
    const hsize_t n = (hsize_t)r->n_tokens;
    if (fkv_hdf_put(w->group, "tokens", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &n, tokens, err)) return FKV_FAILED;
    for (int s = 0; s < FKV_STATES && !w->info->spectra_only; s++)
        if (wanted(w, s) && open_state(w, s, err)) return FKV_FAILED;
    return FKV_OK;
}

int fkv_capture_begin(struct fkv_capture_writer *w, int64_t index, const struct fkv_recording *recording,
                      const int32_t *tokens, struct fkv_error *err) {
    release_recording(w);
    w->path = fkv_folder_document(w->folder, index, false);
    w->temporary = fkv_folder_document(w->folder, index, true);
    w->n_tokens = recording->n_tokens;
    if (!w->path || !w->temporary) return fkv_fail(err, "%s: out of memory", w->folder);
    if (recording->n_tokens < 1) return fkv_fail(err, "%s: a recording without tokens", w->path);
    if (access(w->path, F_OK) == 0) return fkv_fail(err, "%s: exists already", w->path);
    if ((w->file = fkv_hdf_create(w->temporary, false, err)) < 0) return FKV_FAILED;
    int64_t bytes = w->info->spectra_only ? 64 << 10 : fkv_capture_bytes(w->info, w->n_tokens, 0);
    if (reserve(w->temporary, bytes, err)) return FKV_FAILED;
    return write_head(w, recording, tokens, err) ? fkv_error_prefix(err, "%s", w->path) : FKV_OK;
}

/* ---- states ---- */

/* Largest magnitude that rounds to a finite number of the dtype. */
static float largest(enum fkv_dtype dtype) {
    return dtype == FKV_F16 ? 65519.996f : dtype == FKV_BF16 ? 0x1.fefffep127f : 0x1.fffffep127f;
}

static bool all_within(const float *x, size_t n, float limit) {
    int beyond = 0;
    for (size_t i = 0; i < n; i++) beyond |= !(fabsf(x[i]) <= limit);
    return !beyond;
}

static int name_bad_value(const struct fkv_capture_writer *w, enum fkv_state state, int32_t layer, int64_t t,
                          const float *x, float limit, struct fkv_error *err) {
    const struct fkv_capture_info *info = w->info;
    size_t at = 0, d = (size_t)info->head_dim, row = d * (size_t)w->states[state].heads;
    while (fabsf(x[at]) <= limit) at++;
    int32_t head = fkv_schema_head_number(info, state, (int32_t)(at % row / d));
    long long token = t + (int64_t)(at / row);
    if (!isfinite(x[at]))
        return fkv_fail(err, "%s of layer %d, head %d, token %lld: expected a finite number, found %g",
                        fkv_state_names[state], info->layer_index[layer], head, token, (double)x[at]);
    return fkv_fail(err, "%s of layer %d, head %d, token %lld: %g is beyond %s: use --dtype %s", fkv_state_names[state],
                    info->layer_index[layer], head, token, (double)x[at],
                    info->dtype == FKV_F16 ? "float16's 65504" : "bfloat16's range",
                    info->dtype == FKV_F16 ? "f32 or bf16" : "f32");
}

static int flush_staging(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer, struct fkv_error *err) {
    struct state_output *o = &w->states[state];
    struct staging *s = &o->layers[layer];
    if (s->rows == 0) return FKV_OK;
    const hsize_t heads = (hsize_t)o->heads, rows = (hsize_t)s->rows, d = (hsize_t)w->info->head_dim;
    const hsize_t from[4] = {(hsize_t)layer, 0, (hsize_t)s->first, 0}, count[4] = {1, heads, rows, d};
    const hsize_t room[3] = {heads, (hsize_t)o->chunk, d}, part[3] = {heads, rows, d};
    const hsize_t inside[3] = {0, (hsize_t)(s->first % o->chunk), 0};
    hid_t memory = H5Screate_simple(3, room, NULL), type = H5Dget_type(o->dataset);
    H5Sselect_hyperslab(memory, H5S_SELECT_SET, inside, NULL, part, NULL);
    H5Sselect_hyperslab(o->space, H5S_SELECT_SET, from, NULL, count, NULL);
    int status = FKV_OK;
    if (H5Dwrite(o->dataset, type, memory, o->space, H5P_DEFAULT, s->data) < 0)
        status = fkv_hdf_fail(err, "%s: %s: cannot write", w->path, fkv_state_names[state]);
    H5Tclose(type);
    H5Sclose(memory);
    s->rows = 0;
    return status;
}

/* x [rows, heads, head_dim] -> rows from `at` on of data [heads, chunk, head_dim] */
static void stage(const struct state_output *o, enum fkv_dtype dtype, size_t d, uint8_t *data, int64_t at, int64_t rows,
                  const float *x) {
    size_t bytes = d * fkv_dtype_bytes(dtype);
    for (int64_t h = 0; h < o->heads; h++)
        for (int64_t r = 0; r < rows; r++)
            fkv_from_f32(x + (size_t)(r * o->heads + h) * d, dtype, d, data + (size_t)(h * o->chunk + at + r) * bytes);
}

int fkv_capture_write_state(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer, int64_t t, int32_t rows,
                            const float *x, struct fkv_error *err) {
    struct state_output *o = &w->states[state];
    if (!o->layers || layer < 0 || layer >= w->info->layer_count || t < 0 || rows < 0 || t + rows > w->n_tokens)
        return fkv_fail(err, "%s: %s, layer %d, tokens %lld to %lld are not part of this recording", w->folder,
                        fkv_state_names[state], layer, (long long)t, (long long)t + rows);
    struct staging *s = &o->layers[layer];
    const size_t d = (size_t)w->info->head_dim, row = d * (size_t)o->heads;
    const float limit = largest(w->info->dtype);
    if (!all_within(x, (size_t)rows * row, limit)) return name_bad_value(w, state, layer, t, x, limit, err);
    s->received += rows;
    while (rows > 0) {
        int64_t at = t % o->chunk, fit = o->chunk - at < rows ? o->chunk - at : rows;
        if ((s->first + s->rows != t || at == 0) && flush_staging(w, state, layer, err)) return FKV_FAILED;
        if (s->rows == 0) s->first = t;
        stage(o, w->info->dtype, d, s->data, at, fit, x);
        s->rows += fit;
        if (at + fit == o->chunk && flush_staging(w, state, layer, err)) return FKV_FAILED;
        t += fit;
        rows -= (int32_t)fit;
        x += (size_t)fit * row;
    }
    return FKV_OK;
}

int fkv_capture_write_nll(struct fkv_capture_writer *w, const float *nll, struct fkv_error *err) {
    const hsize_t n = (hsize_t)w->n_tokens;
    if (w->file < 0) return fkv_fail(err, "%s: no recording has begun", w->folder);
    if (fkv_hdf_put(w->group, "nll", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, &n, nll, err))
        return fkv_error_prefix(err, "%s", w->path);
    return FKV_OK;
}

int fkv_capture_write_sums(struct fkv_capture_writer *w, enum fkv_state state, const struct fkv_spectra_sums *sums,
                           struct fkv_error *err) {
    char path[64];
    if (w->file < 0 || !w->info->spectra_only || !wanted(w, state))
        return fkv_fail(err, "%s: sums of %s are not part of this capture", w->folder, fkv_state_names[state]);
    snprintf(path, sizeof path, "spectra/%s", fkv_state_names[state]);
    hid_t group = fkv_hdf_group(w->group, path, err);
    if (group < 0) return fkv_error_prefix(err, "%s", w->path);
    const int64_t n = sums->n, skip = sums->skip_sinks;
    int status =
        fkv_hdf_put_numbers(group, "segment_length", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &n, err) ||
                fkv_hdf_put_numbers(group, "skip_sinks", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &skip, err) ||
                fkv_hdf_put_numbers(group, "segments", H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &sums->segments, err)
            ? FKV_FAILED
            : FKV_OK;
    struct fkv_sums_array arrays[FKV_SUMS_ARRAYS];
    fkv_sums_arrays(sums, arrays);
    for (int i = 0; i < FKV_SUMS_ARRAYS && status == FKV_OK; i++)
        status = fkv_hdf_put(group, arrays[i].name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, arrays[i].rank, arrays[i].dims,
                             arrays[i].data, err);
    H5Gclose(group);
    w->states[state].sums = true;
    return status ? fkv_error_prefix(err, "%s", w->path) : FKV_OK;
}

/* ---- the end ---- */

static int complete(struct fkv_capture_writer *w, struct fkv_error *err) {
    for (int s = 0; s < FKV_STATES; s++) {
        if (!wanted(w, s)) continue;
        if (w->info->spectra_only && !w->states[s].sums)
            return fkv_fail(err, "%s: %s: no sums were written", w->path, fkv_state_names[s]);
        for (int32_t i = 0; !w->info->spectra_only && i < w->info->layer_count; i++) {
            if (flush_staging(w, s, i, err)) return FKV_FAILED;
            if (w->states[s].layers[i].received != w->n_tokens)
                return fkv_fail(err, "%s: %s of layer %d: expected %lld tokens, found %lld", w->path,
                                fkv_state_names[s], w->info->layer_index[i], (long long)w->n_tokens,
                                (long long)w->states[s].layers[i].received);
        }
    }
    return FKV_OK;
}

int fkv_capture_commit(struct fkv_capture_writer *w, struct fkv_error *err) {
    if (w->file < 0) return fkv_fail(err, "%s: no recording has begun", w->folder);
    int status = complete(w, err);
    if (status == FKV_OK) {
        status = fkv_hdf_close(w->file, w->path, err);
        w->file = H5I_INVALID_HID;
    }
    if (status == FKV_OK) status = trim(w->temporary, err);
    if (status == FKV_OK) status = fkv_atomic_rename(w->temporary, w->path, err);
    if (status == FKV_OK) {
        free(w->temporary);
        w->temporary = NULL;
    }
    release_recording(w);
    return status;
}

int fkv_capture_finish(struct fkv_capture_writer *w, struct fkv_error *err) {
    return fkv_folder_write_face(w->folder, w->info, err);
}

void fkv_capture_abandon(struct fkv_capture_writer *w) {
    if (!w) return;
    release_recording(w);
    if (w->lock >= 0) close(w->lock);
    if (w->fresh) fkv_folder_remove_if_empty(w->folder);
    free(w->folder);
    free(w);
}
