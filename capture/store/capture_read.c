/* Reading an opened capture, one recording's file open at a time. 16-bit numbers are widened by our
 * own kernels: HDF5's conversion is a hundred times slower. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "capture/store/capture_reader.h"
#include "capture/store/reader.h"

enum { MOST_CACHE = 64 << 20 };

static int select_recording(struct fkv_capture *c, int32_t index, struct fkv_error *err) {
    if (index < 0 || index >= c->count)
        return fkv_fail(err, "%s: expected a recording below %d, found %d", c->path, c->count,
                        index);
    if (c->current == index) return FKV_OK;
    fkv_reader_close_current(c);
    const struct entry *e = &c->entries[index];
    if ((c->file = fkv_hdf_open(e->file, err)) < 0) return FKV_FAILED;
    if ((c->group = H5Gopen2(c->file, e->group, H5P_DEFAULT)) < 0) {
        fkv_hdf_fail(err, "%s: %s: cannot open the group", e->file, e->group);
        fkv_reader_close_current(c);
        return FKV_FAILED;
    }
    c->current = index;
    return FKV_OK;
}

static int read_row(struct fkv_capture *c, int32_t index, const char *name, hid_t type, void *data,
                    bool *found, struct fkv_error *err) {
    *found = false;
    if (select_recording(c, index, err)) return FKV_FAILED;
    const struct entry *e = &c->entries[index];
    const hsize_t n = (hsize_t)e->recording.n_tokens;
    if (fkv_hdf_get(c->group, name, type, 1, &n, data, found, err))
        return fkv_error_prefix(err, "%s", e->file);
    return FKV_OK;
}

int fkv_capture_read_tokens(struct fkv_capture *c, int32_t index, int32_t *tokens, bool *found,
                            struct fkv_error *err) {
    return read_row(c, index, "tokens", H5T_NATIVE_INT32, tokens, found, err);
}

int fkv_capture_read_nll(struct fkv_capture *c, int32_t index, float *nll, bool *found,
                         struct fkv_error *err) {
    return read_row(c, index, "nll", H5T_NATIVE_FLOAT, nll, found, err);
}

int fkv_capture_read_token_class(struct fkv_capture *c, int32_t index, uint8_t *classes,
                                 bool *found, struct fkv_error *err) {
    return read_row(c, index, "token_class", H5T_NATIVE_UINT8, classes, found, err);
}

/* The dataset of a state, with a chunk cache that holds the chunks of one head over all tokens:
 * heads that share a chunk are then read from disk once. */
static hid_t state_dataset(struct fkv_capture *c, enum fkv_state state, struct fkv_error *err) {
    if (c->states[state] >= 0) return c->states[state];
    const struct entry *e = &c->entries[c->current];
    hid_t dataset = H5Dopen2(c->group, fkv_state_names[state], H5P_DEFAULT);
    if (dataset < 0) {
        fkv_hdf_fail(err, "%s: %s: expected a dataset", e->file, fkv_state_names[state]);
        return dataset;
    }
    hid_t creation = H5Dget_create_plist(dataset), type = H5Dget_type(dataset);
    hsize_t chunk[4] = {0};
    double bytes = (double)H5Tget_size(type);
    if (H5Pget_layout(creation) == H5D_CHUNKED && H5Pget_chunk(creation, 4, chunk) == 4) {
        bytes *= (double)(chunk[0] * chunk[1]) * (double)chunk[3] *
                 ((double)e->recording.n_tokens + (double)chunk[2]);
        hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
        H5Pset_chunk_cache(access, 10007,
                           bytes < MOST_CACHE ? (size_t)bytes + (1 << 20) : MOST_CACHE, 1);
        H5Dclose(dataset);
        dataset = H5Dopen2(c->group, fkv_state_names[state], access);
        H5Pclose(access);
    }
    H5Tclose(type);
    H5Pclose(creation);
    return c->states[state] = dataset;
}

/* x <- the selection of `count` elements per axis, as float32. The space in memory has the
 * selection's shape: for another one HDF5 walks element by element. */
static int read_selection(struct fkv_capture *c, hid_t dataset, hid_t space, const hsize_t count[4],
                          const char *name, float *x, struct fkv_error *err) {
    const size_t n = (size_t)(count[1] * count[2] * count[3]);
    enum fkv_dtype dtype = c->info.dtype;
    if (fkv_reader_dtype(dataset, name, &dtype, err)) return FKV_FAILED;
    void *to = x;
    hid_t type = dtype == FKV_F32   ? H5T_NATIVE_FLOAT
                 : dtype == FKV_F16 ? fkv_hdf_f16()
                                    : H5T_NATIVE_UINT16;
    if (dtype != FKV_F32) {
        if (c->scratch_count < n) {
            free(c->scratch);
            c->scratch = malloc(n * sizeof *c->scratch);
            c->scratch_count = c->scratch ? n : 0;
        }
        if (!(to = c->scratch)) return fkv_fail(err, "%s: out of memory", name);
    }
    hid_t memory = H5Screate_simple(4, count, NULL);
    int status = H5Dread(dataset, type, memory, space, H5P_DEFAULT, to) < 0
                     ? fkv_hdf_fail(err, "%s: cannot read", name)
                     : FKV_OK;
    H5Sclose(memory);
    if (status == FKV_OK && dtype != FKV_F32) fkv_to_f32(c->scratch, dtype, n, x);
    return status;
}

static int check_finite(const struct fkv_capture *c, enum fkv_state state, int32_t layer,
                        int32_t head, int64_t t, int64_t rows, const float *x, size_t n,
                        struct fkv_error *err) {
    int beyond = 0;
    for (size_t i = 0; i < n; i++) beyond |= !(fabsf(x[i]) < INFINITY);
    if (!beyond) return FKV_OK;
    size_t at = 0, row = (size_t)c->info.head_dim;
    while (isfinite(x[at])) at++;
    return fkv_fail(
        err, "%s of layer %d, head %d, token %lld: expected a finite number, found %g",
        fkv_state_names[state], c->info.layer_index[layer],
        fkv_schema_head_number(&c->info, state, head + (int32_t)(at / row / (size_t)rows)),
        (long long)(t + (int64_t)(at / row % (size_t)rows)), (double)x[at]);
}

int fkv_capture_read_state(struct fkv_capture *c, int32_t index, enum fkv_state state,
                           int32_t layer, int32_t head, int32_t heads, int64_t t, int64_t rows,
                           float *x, struct fkv_error *err) {
    if (select_recording(c, index, err)) return FKV_FAILED;
    const struct entry *e = &c->entries[index];
    if (c->info.spectra_only || !((c->info.states >> state) & 1))
        return fkv_fail(err, "%s: expected %s, found none%s", e->file, fkv_state_names[state],
                        c->info.spectra_only ? " (only sums of spectra)" : "");
    if (layer < 0 || layer >= c->info.layer_count || head < 0 || heads < 1 ||
        heads > fkv_capture_heads(c, state) - head || t < 0 || rows < 1 ||
        rows > e->recording.n_tokens - t)
        return fkv_fail(err, "%s: %s: layer %d, heads %d to %d, tokens %lld to %lld are outside it",
                        e->file, fkv_state_names[state], layer, head, head + heads, (long long)t,
                        (long long)(t + rows));
    hid_t dataset = state_dataset(c, state, err);
    if (dataset < 0) return FKV_FAILED;
    const hsize_t from[4] = {(hsize_t)layer, (hsize_t)head, (hsize_t)t, 0};
    const hsize_t count[4] = {1, (hsize_t)heads, (hsize_t)rows, (hsize_t)c->info.head_dim};
    const size_t n = (size_t)heads * (size_t)rows * (size_t)c->info.head_dim;
    hid_t space = H5Dget_space(dataset);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
    int status = read_selection(c, dataset, space, count, fkv_state_names[state], x, err);
    H5Sclose(space);
    if (status == FKV_OK) status = check_finite(c, state, layer, head, t, rows, x, n, err);
    return status ? fkv_error_prefix(err, "%s", e->file) : FKV_OK;
}

/* Sizes come from the attribute and are confirmed by the largest array before memory is taken for
 * them. */
static int read_sums(const struct fkv_capture *c, hid_t group, enum fkv_state state,
                     struct fkv_spectra_sums *sums, struct fkv_error *err) {
    int64_t n = 0, skip = 0, segments = -1;
    const int32_t heads = fkv_capture_heads(c, state), layers = c->info.layer_count;
    if (fkv_hdf_get_int(group, "segment_length", 1, INT32_MAX, &n, NULL, err) ||
        fkv_hdf_get_int(group, "skip_sinks", 0, INT32_MAX, &skip, NULL, err) ||
        fkv_hdf_get_int(group, "segments", 0, INT64_MAX, &segments, NULL, err))
        return FKV_FAILED;
    if (n == 0 || segments < 0)
        return fkv_fail(err, "attribute %s: expected a number, found none",
                        n ? "segments" : "segment_length");
    hid_t dataset;
    hsize_t dims[8];
    int rank = 0;
    if (fkv_hdf_find(group, "power_sum", &dataset, &rank, dims, err)) return FKV_FAILED;
    if (dataset < 0) return fkv_fail(err, "power_sum: expected a dataset, found none");
    H5Dclose(dataset);
    if (rank != 3)
        return fkv_fail(err, "power_sum: expected 3 axes [layers, heads, n], found %d", rank);
    if (fkv_reader_check_dim("power_sum", "layers", layers, dims[0], err) ||
        fkv_reader_check_dim("power_sum", "heads", heads, dims[1], err) ||
        fkv_reader_check_dim("power_sum", "frequencies (segment_length)", n, dims[2], err) ||
        fkv_spectra_sums_allocate(sums, layers, heads, (int32_t)n, c->info.head_dim, err))
        return FKV_FAILED;
    sums->segments = segments;
    sums->skip_sinks = (int32_t)skip;
    struct fkv_sums_array arrays[FKV_SUMS_ARRAYS];
    fkv_sums_arrays(sums, arrays);
    for (int i = 0; i < FKV_SUMS_ARRAYS; i++) {
        bool found;
        if (fkv_hdf_get(group, arrays[i].name, H5T_NATIVE_DOUBLE, arrays[i].rank, arrays[i].dims,
                        arrays[i].data, &found, err))
            return FKV_FAILED;
        if (!found) return fkv_fail(err, "%s: expected a dataset, found none", arrays[i].name);
        size_t count = 1;
        for (int k = 0; k < arrays[i].rank; k++) count *= (size_t)arrays[i].dims[k];
        for (size_t k = 0; k < count; k++)
            if (!isfinite(arrays[i].data[k]))
                return fkv_fail(err, "%s: expected finite numbers, found %g at place %zu",
                                arrays[i].name, arrays[i].data[k], k);
    }
    return FKV_OK;
}

int fkv_capture_read_sums(struct fkv_capture *c, int32_t index, enum fkv_state state,
                          struct fkv_spectra_sums *sums, struct fkv_error *err) {
    *sums = (struct fkv_spectra_sums){0};
    if (select_recording(c, index, err)) return FKV_FAILED;
    const struct entry *e = &c->entries[index];
    char path[64];
    snprintf(path, sizeof path, "spectra/%s", fkv_state_names[state]);
    if (!c->info.spectra_only || !((c->info.states >> state) & 1))
        return fkv_fail(err, "%s: %s: expected sums of spectra, found none", e->file, path);
    hid_t group = H5Gopen2(c->group, path, H5P_DEFAULT);
    if (group < 0) return fkv_hdf_fail(err, "%s: %s: expected a group", e->file, path);
    int status = read_sums(c, group, state, sums, err);
    H5Gclose(group);
    if (status == FKV_OK) return FKV_OK;
    fkv_spectra_sums_free(sums);
    return fkv_error_prefix(err, "%s: %s", e->file, path);
}
