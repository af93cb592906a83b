/* Runs, probes and results: files of moderate size, written dataset by dataset. The file is built
 * in memory and its image handed to an atomic file of ours, so a full disk or a crash never meets
 * HDF5 half-way (a failed flush inside it cannot be undone, and H5Fclose reports success after
 * one). */
#include "capture/store/h5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/hdf.h"
#include "kernels/base/atomic_file.h"

struct fkv_h5_writer {
    char *path;
    hid_t file;
};

struct fkv_h5_reader {
    char *path;
    hid_t file;
};

/* In a file, and in memory. */
struct types {
    hid_t file, memory;
};

static struct types types_of(enum fkv_h5_type type) {
    const struct types all[] = {
        [FKV_H5_F64] = {H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE},
        [FKV_H5_F32] = {H5T_IEEE_F32LE, H5T_NATIVE_FLOAT},
        [FKV_H5_I32] = {H5T_STD_I32LE, H5T_NATIVE_INT32},
        [FKV_H5_I64] = {H5T_STD_I64LE, H5T_NATIVE_INT64},
        [FKV_H5_U8] = {H5T_STD_U8LE, H5T_NATIVE_UINT8},
    };
    return all[type];
}

size_t fkv_h5_bytes(enum fkv_h5_type type) { return H5Tget_size(types_of(type).memory); }

/* ---- writing ---- */

int fkv_h5_create(const char *path, struct fkv_h5_writer **out, struct fkv_error *err) {
    *out = NULL;
    if (access(path, F_OK) == 0) return fkv_fail(err, "%s: exists already", path);
    struct fkv_atomic_file
        probe; /* an unwritable folder is an error now and not after hours of work */
    if (fkv_atomic_open(&probe, path, err)) return FKV_FAILED;
    fkv_atomic_abandon(&probe);
    struct fkv_h5_writer *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return fkv_fail(err, "%s: out of memory", path);
    }
    w->file = fkv_hdf_create(path, true, err);
    if (w->file < 0) {
        free(w->path);
        free(w);
        return FKV_FAILED;
    }
    *out = w;
    return FKV_OK;
}

int fkv_h5_put(struct fkv_h5_writer *w, const char *dataset, enum fkv_h5_type type, int rank,
               const int64_t *dims, const void *data, struct fkv_error *err) {
    const struct types types = types_of(type);
    hsize_t sizes[8] = {0};
    if (rank < 0 || rank > 8) return fkv_fail(err, "%s: %s: a rank of %d", w->path, dataset, rank);
    for (int i = 0; i < rank; i++) sizes[i] = (hsize_t)dims[i];
    if (fkv_hdf_put(w->file, dataset, types.file, types.memory, rank, sizes, data, err))
        return fkv_error_prefix(err, "%s", w->path);
    return FKV_OK;
}

/* The object an attribute belongs to; a group when there is no such object yet. */
static hid_t object_for(struct fkv_h5_writer *w, const char *object, struct fkv_error *err) {
    hid_t found = H5Oopen(w->file, object, H5P_DEFAULT);
    return found >= 0 ? found : fkv_hdf_group(w->file, object, err);
}

/* Closes an object whose attributes gave `status`, and says which file an error was in. */
static int close_object(hid_t object, int status, const char *path, struct fkv_error *err) {
    H5Oclose(object);
    return status ? fkv_error_prefix(err, "%s", path) : FKV_OK;
}

int fkv_h5_put_string(struct fkv_h5_writer *w, const char *object, const char *name,
                      const char *value, struct fkv_error *err) {
    hid_t on = object_for(w, object, err);
    int status = on < 0 ? FKV_FAILED : fkv_hdf_put_string(on, name, value, err);
    return close_object(on, status, w->path, err);
}

int fkv_h5_put_double(struct fkv_h5_writer *w, const char *object, const char *name, double value,
                      struct fkv_error *err) {
    hid_t on = object_for(w, object, err);
    int status = on < 0 ? FKV_FAILED : fkv_hdf_put_double(on, name, value, err);
    return close_object(on, status, w->path, err);
}

int fkv_h5_put_int(struct fkv_h5_writer *w, const char *object, const char *name, int64_t value,
                   struct fkv_error *err) {
    hid_t on = object_for(w, object, err);
    int status = on < 0 ? FKV_FAILED : fkv_hdf_put_int(on, name, value, err);
    return close_object(on, status, w->path, err);
}

static int write_image(struct fkv_h5_writer *w, struct fkv_error *err) {
    if (H5Fflush(w->file, H5F_SCOPE_LOCAL) < 0)
        return fkv_hdf_fail(err, "%s: cannot finish", w->path);
    ssize_t bytes = H5Fget_file_image(w->file, NULL, 0);
    void *image = bytes > 0 ? malloc((size_t)bytes) : NULL;
    if (!image || H5Fget_file_image(w->file, image, (size_t)bytes) != bytes) {
        free(image);
        return fkv_hdf_fail(err, "%s: cannot finish", w->path);
    }
    struct fkv_atomic_file file;
    int status = fkv_atomic_open(&file, w->path, err);
    if (status == FKV_OK) {
        fwrite(image, 1, (size_t)bytes, file.stream); /* commit reports what went wrong */
        status = fkv_atomic_commit(&file, err);
    }
    free(image);
    return status;
}

int fkv_h5_commit(struct fkv_h5_writer *w, struct fkv_error *err) {
    int status = access(w->path, F_OK) == 0 ? fkv_fail(err, "%s: exists already", w->path)
                                            : write_image(w, err);
    fkv_h5_abandon(w);
    return status;
}

void fkv_h5_abandon(struct fkv_h5_writer *w) {
    if (!w) return;
    H5Fclose(w->file);
    free(w->path);
    free(w);
}

/* ---- reading ---- */

int fkv_h5_open(const char *path, struct fkv_h5_reader **out, struct fkv_error *err) {
    *out = NULL;
    hid_t file = fkv_hdf_open(path, err);
    if (file < 0) return FKV_FAILED;
    struct fkv_h5_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        H5Fclose(file);
        return fkv_fail(err, "%s: out of memory", path);
    }
    r->file = file;
    *out = r;
    return FKV_OK;
}

void fkv_h5_close(struct fkv_h5_reader *r) {
    if (!r) return;
    H5Fclose(r->file);
    free(r->path);
    free(r);
}

/* Does every group on the path exist? H5Lexists answers only for the last name. "/" and "" always
 * are. */
static bool exists(hid_t file, const char *path) {
    char part[1024];
    if (strlen(path) >= sizeof part) return false;
    for (const char *at = path; *at; at++) {
        if (at[1] && at[1] != '/') continue;
        snprintf(part, sizeof part, "%.*s", (int)(at + 1 - path), path);
        if (strcmp(part, "/") && H5Lexists(file, part, H5P_DEFAULT) <= 0) return false;
    }
    return true;
}

/* Opens a dataset whose elements the file really holds; *id is H5I_INVALID_HID when there is none.
 * A file of a kilobyte can declare terabytes that were never written, and whoever reads asks for
 * memory by the shape. Deflate, the densest filter that HDF5 brings along, makes at most 1032 bytes
 * of one. */
static int find(struct fkv_h5_reader *r, const char *dataset, hid_t *id, int *rank,
                hsize_t sizes[8], struct fkv_error *err) {
    enum { DENSEST = 1032 };
    *id = H5I_INVALID_HID;
    if (!exists(r->file, dataset)) return FKV_OK;
    if (fkv_hdf_find(r->file, dataset, id, rank, sizes, err))
        return fkv_error_prefix(err, "%s", r->path);
    if (*id < 0) return FKV_OK;
    hid_t type = H5Dget_type(*id);
    int64_t bytes = (int64_t)H5Tget_size(type);
    bool beyond = false;
    for (int i = 0; i < *rank; i++) beyond |= __builtin_mul_overflow(bytes, sizes[i], &bytes);
    H5Tclose(type);
    if (!beyond && bytes / DENSEST <= (int64_t)H5Dget_storage_size(*id)) return FKV_OK;
    H5Dclose(*id);
    *id = H5I_INVALID_HID;
    return fkv_fail(err, "%s: %s: its shape asks for more than the file holds", r->path, dataset);
}

int fkv_h5_shape(struct fkv_h5_reader *r, const char *dataset, int *rank, int64_t dims[8],
                 bool *found, struct fkv_error *err) {
    hid_t id = H5I_INVALID_HID;
    hsize_t sizes[8];
    *found = false;
    if (find(r, dataset, &id, rank, sizes, err)) return FKV_FAILED;
    *found = id >= 0;
    if (id < 0) return FKV_OK;
    for (int i = 0; i < *rank; i++) dims[i] = (int64_t)sizes[i];
    H5Dclose(id);
    return FKV_OK;
}

int fkv_h5_get(struct fkv_h5_reader *r, const char *dataset, enum fkv_h5_type type,
               int64_t elements, void *data, struct fkv_error *err) {
    hid_t id = H5I_INVALID_HID;
    hsize_t sizes[8];
    int rank = 0;
    if (find(r, dataset, &id, &rank, sizes, err)) return FKV_FAILED;
    if (id < 0) return fkv_fail(err, "%s: %s: expected a dataset, found nothing", r->path, dataset);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= (int64_t)sizes[i];
    int status = FKV_OK;
    if (count != elements)
        status = fkv_fail(err, "%s: %s: expected %lld elements, found %lld", r->path, dataset,
                          (long long)elements, (long long)count);
    else if (count && H5Dread(id, types_of(type).memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = fkv_hdf_fail(err, "%s: %s: cannot read", r->path, dataset);
    H5Dclose(id);
    return status;
}

/* The object an attribute belongs to; H5I_INVALID_HID when there is none. */
static hid_t open_object(struct fkv_h5_reader *r, const char *object) {
    return exists(r->file, object) ? H5Oopen(r->file, object, H5P_DEFAULT) : H5I_INVALID_HID;
}

int fkv_h5_get_text(struct fkv_h5_reader *r, const char *object, const char *name, char **value,
                    struct fkv_error *err) {
    *value = NULL;
    hid_t on = open_object(r, object);
    if (on < 0) return FKV_OK;
    return close_object(on, fkv_hdf_get_string(on, name, value, err), r->path, err);
}

int fkv_h5_get_string(struct fkv_h5_reader *r, const char *object, const char *name, char *value,
                      int64_t bytes, bool *found, struct fkv_error *err) {
    char *text;
    int status = fkv_h5_get_text(r, object, name, &text, err);
    *found = text != NULL;
    if (text && (int64_t)strlen(text) >= bytes)
        status = fkv_fail(err, "%s: attribute %s of %s: expected fewer than %lld bytes", r->path,
                          name, object, (long long)bytes);
    else if (text)
        memcpy(value, text, strlen(text) + 1);
    free(text);
    return status;
}

int fkv_h5_get_double(struct fkv_h5_reader *r, const char *object, const char *name, double *value,
                      bool *found, struct fkv_error *err) {
    *found = false;
    hid_t on = open_object(r, object);
    if (on < 0) return FKV_OK;
    return close_object(on, fkv_hdf_get_double(on, name, value, found, err), r->path, err);
}

int fkv_h5_copy(struct fkv_h5_reader *from, struct fkv_h5_writer *to, const char *group,
                struct fkv_error *err) {
    if (H5Ocopy(from->file, group, to->file, group, H5P_DEFAULT, H5P_DEFAULT) < 0)
        return fkv_hdf_fail(err, "%s: cannot copy %s", from->path, group);
    return FKV_OK;
}
