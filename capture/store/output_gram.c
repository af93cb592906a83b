/* What a capture keeps of the output projection (capture.h): checking, writing, reading and
 * comparing /output_gram. It says nothing of any text, so it has a file of its own, which is
 * written before the first recording and never again. A file of another model is refused wherever
 * it is met; one that is damaged fails its checksums. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "capture/store/folder.h"
#include "capture/store/reader.h"
#include "capture/store/writer.h"
#include "kernels/base/atomic_file.h"

enum { AXES = 4 };

static void shape(const struct fkv_capture_info *info, hsize_t dims[AXES]) {
    dims[0] = (hsize_t)info->layer_count,
    dims[1] = (hsize_t)fkv_capture_state_heads(info, FKV_STATE_QUERY);
    dims[2] = dims[3] = (hsize_t)info->head_dim;
}

/* Numbers of one layer. */
static size_t layer_size(const struct fkv_capture_info *info) {
    return (size_t)fkv_capture_state_heads(info, FKV_STATE_QUERY) * (size_t)info->head_dim *
           (size_t)info->head_dim;
}

int64_t fkv_capture_output_gram_bytes(const struct fkv_capture_info *info) {
    if (info->spectra_only || !fkv_capture_holds(info, FKV_STATE_VALUE)) return 0;
    return (int64_t)info->layer_count * (int64_t)(layer_size(info) * sizeof(float));
}

/* One layer: finite, and no diagonal element, the square of a column's length, below zero. */
static int check_values(const struct fkv_capture_info *info, int32_t layer, const float *gram,
                        struct fkv_error *err) {
    const size_t d = (size_t)info->head_dim, n = layer_size(info);
    for (size_t i = 0; i < n; i++) {
        const size_t head = i / (d * d), row = i / d % d, column = i % d;
        if (isfinite(gram[i]) && (row != column || gram[i] >= 0)) continue;
        return fkv_fail(
            err, FKV_CAPTURE_GRAM " of layer %d, head %d: expected %s, found %g at [%zu, %zu]",
            info->layer_index[layer], fkv_capture_head_number(info, FKV_STATE_QUERY, (int32_t)head),
            isfinite(gram[i]) ? "no square of a length below 0" : "finite numbers", (double)gram[i],
            row, column);
    }
    return FKV_OK;
}

/* ---- checking ---- */

static int check_type(hid_t dataset, struct fkv_error *err) {
    hid_t type = H5Dget_type(dataset);
    bool known =
        H5Tget_class(type) == H5T_FLOAT && (H5Tget_size(type) == 4 || H5Tget_size(type) == 8);
    H5Tclose(type);
    return known ? FKV_OK
                 : fkv_fail(err,
                            FKV_CAPTURE_GRAM ": expected float32 or float64, found another type");
}

int fkv_output_gram_check(hid_t file, struct fkv_capture_info *info, bool *found,
                          struct fkv_error *err) {
    static const char *const axes[AXES] = {"layers (n_layers, or the length of layer_index)",
                                           "query heads (those that share the captured KV heads)",
                                           "channels (head_dim)", "channels (head_dim)"};
    hid_t dataset;
    hsize_t dims[8], expected[AXES];
    int rank = 0;
    if (fkv_hdf_find(file, FKV_CAPTURE_GRAM, &dataset, &rank, dims, err)) return FKV_FAILED;
    *found = dataset >= 0;
    if (!*found) return FKV_OK;
    int status = check_type(dataset, err);
    H5Dclose(dataset);
    if (status) return status;
    if (rank != AXES)
        return fkv_fail(
            err, FKV_CAPTURE_GRAM ": expected 4 axes [layers, heads, head_dim, head_dim], found %d",
            rank);
    fkv_schema_infer_heads(info, dims[1]);
    if (!info->n_heads)
        return fkv_fail(err, FKV_CAPTURE_GRAM ": expected a multiple of %d query heads, found %llu",
                        info->head_count, (unsigned long long)dims[1]);
    shape(info, expected);
    for (int i = 0; i < AXES; i++)
        if (fkv_reader_check_dim(FKV_CAPTURE_GRAM, axes[i], (int64_t)expected[i], dims[i], err))
            return FKV_FAILED;
    return FKV_OK;
}

static int check_file(const char *path, const struct fkv_capture_info *info, bool *found,
                      struct fkv_error *err) {
    struct fkv_capture_info own;
    hid_t file = fkv_hdf_open(path, err);
    if (file < 0) return FKV_FAILED;
    int status = fkv_schema_read_info(file, &own, err) ? fkv_error_prefix(err, "%s", path) : FKV_OK;
    own.states = info->states,
    own.spectra_only = info->spectra_only; /* of recordings, not of this file */
    if (status == FKV_OK) status = fkv_capture_info_compare(info, &own, path, err);
    if (status == FKV_OK && fkv_output_gram_check(file, &own, found, err))
        status = fkv_error_prefix(err, "%s", path);
    if (status == FKV_OK && !*found)
        status = fkv_fail(err, "%s: " FKV_CAPTURE_GRAM ": expected a dataset, found none", path);
    fkv_capture_info_free(&own);
    H5Fclose(file);
    return status;
}

int fkv_output_gram_check_folder(const char *folder, const struct fkv_capture_info *info,
                                 bool *found, struct fkv_error *err) {
    char path[FKV_PATH];
    *found = false;
    if (!fkv_folder_has_output_gram(folder)) return FKV_OK;
    return fkv_folder_output_gram(path, folder, false, err) || check_file(path, info, found, err)
               ? FKV_FAILED
               : FKV_OK;
}

/* ---- writing ---- */

bool fkv_capture_has_output_gram(const struct fkv_capture_writer *w) {
    return fkv_folder_has_output_gram(w->folder);
}

static int write_file(const char *temporary, const char *path, const struct fkv_capture_info *info,
                      const float *gram, struct fkv_error *err) {
    hsize_t dims[AXES];
    shape(info, dims);
    hid_t file = fkv_hdf_create(temporary, false, err);
    if (file < 0) return FKV_FAILED;
    int status =
        fkv_writer_reserve(temporary, fkv_capture_output_gram_bytes(info) + (64 << 10), err);
    if (!status && (fkv_schema_write_info(file, info, err) ||
                    fkv_hdf_put(file, FKV_CAPTURE_GRAM, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, AXES,
                                dims, gram, err)))
        status = fkv_error_prefix(err, "%s", path);
    return fkv_writer_end(file, status, temporary, path, err);
}

int fkv_capture_write_output_gram(struct fkv_capture_writer *w, const float *gram,
                                  struct fkv_error *err) {
    for (int32_t layer = 0; layer < w->info->layer_count; layer++)
        if (check_values(w->info, layer, gram + (size_t)layer * layer_size(w->info), err))
            return fkv_error_prefix(err, "%s", w->folder);
    char path[FKV_PATH], temporary[FKV_PATH];
    return fkv_folder_output_gram(path, w->folder, false, err) ||
                   fkv_folder_output_gram(temporary, w->folder, true, err) ||
                   write_file(temporary, path, w->info, gram, err)
               ? FKV_FAILED
               : FKV_OK;
}

/* ---- reading ---- */

const char *fkv_capture_output_gram(const struct fkv_capture *c) { return c->gram; }

static int read_layer(hid_t file, const struct fkv_capture_info *info, int32_t layer, float *gram,
                      struct fkv_error *err) {
    hsize_t count[AXES];
    const hsize_t from[AXES] = {(hsize_t)layer};
    shape(info, count);
    count[0] = 1;
    hid_t dataset = H5Dopen2(file, FKV_CAPTURE_GRAM, H5P_DEFAULT);
    if (dataset < 0) return fkv_hdf_fail(err, FKV_CAPTURE_GRAM ": expected a dataset");
    hid_t space = H5Dget_space(dataset), memory = H5Screate_simple(AXES, count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
    int status = H5Dread(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, gram) < 0
                     ? fkv_hdf_fail(err, FKV_CAPTURE_GRAM ": cannot read")
                     : check_values(info, layer, gram, err);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}

int fkv_capture_read_output_gram(struct fkv_capture *c, int32_t layer, float *gram,
                                 struct fkv_error *err) {
    if (!c->gram) return fkv_fail(err, "%s: expected " FKV_CAPTURE_GRAM ", found none", c->path);
    if (layer < 0 || layer >= c->info.layer_count)
        return fkv_fail(err, "%s: expected a layer below %d, found %d", c->gram,
                        c->info.layer_count, layer);
    hid_t file = fkv_hdf_open(c->gram, err);
    if (file < 0) return FKV_FAILED;
    int status = read_layer(file, &c->info, layer, gram, err);
    H5Fclose(file);
    return status ? fkv_error_prefix(err, "%s", c->gram) : FKV_OK;
}

/* Machines may round products differently; 1e-5 of a head's largest element is far above that and
 * far below what another model would make. */
static int compare_layer(struct fkv_capture *a, struct fkv_capture *b, int32_t layer, float *x,
                         float *y, struct fkv_error *err) {
    if (fkv_capture_read_output_gram(a, layer, x, err) ||
        fkv_capture_read_output_gram(b, layer, y, err))
        return FKV_FAILED;
    const size_t head = (size_t)a->info.head_dim * (size_t)a->info.head_dim,
                 n = layer_size(&a->info);
    for (size_t from = 0; from < n; from += head) {
        float largest = 0, difference = 0;
        for (size_t i = from; i < from + head; i++) {
            largest = fmaxf(largest, fabsf(x[i]));
            difference = fmaxf(difference, fabsf(x[i] - y[i]));
        }
        if (!(difference <= 1e-5f * largest))
            return fkv_fail(
                err,
                "%s: layer %d, head %d: expected the " FKV_CAPTURE_GRAM
                " of %s, found one that differs "
                "by %g of its largest element",
                b->gram, a->info.layer_index[layer],
                fkv_capture_head_number(&a->info, FKV_STATE_QUERY, (int32_t)(from / head)), a->gram,
                (double)(difference / largest));
    }
    return FKV_OK;
}

int fkv_output_gram_compare(struct fkv_capture *a, struct fkv_capture *b, struct fkv_error *err) {
    const size_t bytes = layer_size(&a->info) * sizeof(float);
    float *x = malloc(bytes), *y = malloc(bytes);
    int status = x && y ? FKV_OK : fkv_fail(err, "%s: out of memory", a->gram);
    for (int32_t layer = 0; layer < a->info.layer_count && status == FKV_OK; layer++)
        status = compare_layer(a, b, layer, x, y, err);
    free(x);
    free(y);
    return status;
}
