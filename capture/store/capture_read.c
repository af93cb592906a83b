/* Reading an opened capture, one recording open at a time, and one file. States come chunk by chunk
 * (chunks.h) where the file is as ours are, else through HDF5, which is also asked again for what
 * chunks cannot give, so that errors are its own. 16-bit numbers are widened by our own kernels:
 * HDF5's conversion is a hundred times slower. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/capture_reader.h"
#include "capture/store/reader.h"

enum { MOST_CACHE = 64 << 20 };

static int select_recording(struct fkv_capture *c, int32_t index, struct fkv_error *err) {
    if (index < 0 || index >= c->count)
        return fkv_fail(err, "%s: expected a recording below %d, found %d", c->path, c->count,
                        index);
    if (c->current == index) return FKV_OK;
    fkv_reader_close_recording(c);
    const struct entry *e = &c->entries[index];
    if (!c->open_file || strcmp(c->open_file, e->file)) {
        fkv_reader_close_file(c);
        if ((c->file = fkv_hdf_open(e->file, err)) < 0) return FKV_FAILED;
        c->open_file = e->file;
    }
    if ((c->group = H5Gopen2(c->file, e->group, H5P_DEFAULT)) < 0)
        return fkv_hdf_fail(err, "%s: %s: cannot open the group", e->file, e->group);
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

int fkv_capture_read_token_class(struct fkv_capture *c, int32_t index, uint8_t *classes,
                                 bool *found, struct fkv_error *err) {
    return read_row(c, index, "token_class", H5T_NATIVE_UINT8, classes, found, err);
}

/* The dataset of a state; c->states has it. Its chunk cache holds the chunks of one head over all
 * tokens: heads that share a chunk are then read from disk once. */
static int open_state(struct fkv_capture *c, enum fkv_state state, struct fkv_error *err) {
    struct fkv_state_input *in = &c->states[state];
    if (in->dataset >= 0) return FKV_OK;
    const struct entry *e = &c->entries[c->current];
    const char *name = fkv_state_names[state];
    in->dataset = H5Dopen2(c->group, name, H5P_DEFAULT);
    if (in->dataset < 0) return fkv_hdf_fail(err, "%s: %s: expected a dataset", e->file, name);
    in->dtype = c->info.dtype;
    if (fkv_reader_dtype(in->dataset, name, &in->dtype, err))
        return fkv_error_prefix(err, "%s", e->file);
    fkv_chunks_describe(in);
    if (!in->chunk[0] || in->whole) return FKV_OK;
    double bytes = (double)fkv_dtype_bytes(in->dtype) * (double)(in->chunk[0] * in->chunk[1]) *
                   (double)in->chunk[3] * ((double)e->recording.n_tokens + (double)in->chunk[2]);
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(access, 10007, bytes < MOST_CACHE ? (size_t)bytes + (1 << 20) : MOST_CACHE,
                       1);
    H5Dclose(in->dataset);
    in->dataset = H5Dopen2(c->group, name, access);
    H5Pclose(access);
    return FKV_OK;
}

/* *buffer [*count] of `bytes` each, at least `needed` of them. */
static void *grow(void **buffer, size_t *count, size_t needed, size_t bytes) {
    if (*count < needed) {
        free(*buffer);
        *buffer = malloc(needed * bytes);
        *count = *buffer ? needed : 0;
    }
    return *buffer;
}

/* The integers that hold bf16 are int16 where torch's view made them: their bits, not their values,
 * are wanted. */
static hid_t bits_of_bf16(hid_t dataset) {
    hid_t type = H5Dget_type(dataset);
    const bool has_sign = H5Tget_sign(type) == H5T_SGN_2;
    H5Tclose(type);
    return has_sign ? H5T_NATIVE_INT16 : H5T_NATIVE_UINT16;
}

/* The space in memory has the selection's shape: for another one HDF5 walks element by element. */
static int read_through_hdf(const struct fkv_state_input *in, const hsize_t from[4],
                            const hsize_t count[4], const char *name, void *x,
                            struct fkv_error *err) {
    hid_t type = in->dtype == FKV_F32   ? H5T_NATIVE_FLOAT
                 : in->dtype == FKV_F16 ? fkv_hdf_f16()
                                        : bits_of_bf16(in->dataset);
    hid_t memory = H5Screate_simple(4, count, NULL), space = H5Dget_space(in->dataset);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
    int status = H5Dread(in->dataset, type, memory, space, H5P_DEFAULT, x) < 0
                     ? fkv_hdf_fail(err, "%s: cannot read", name)
                     : FKV_OK;
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

static int check_finite(const struct fkv_capture *c, enum fkv_state state, int32_t layer,
                        int32_t head, int64_t t, int64_t rows, const void *x, size_t n,
                        struct fkv_error *err) {
    const enum fkv_dtype dtype = c->states[state].dtype;
    if (fkv_all_finite(x, dtype, n)) return FKV_OK;
    size_t at = 0, row = (size_t)c->info.head_dim, bytes = fkv_dtype_bytes(dtype);
    float value;
    while (fkv_all_finite((const char *)x + at * bytes, dtype, 1)) at++;
    fkv_to_f32((const char *)x + at * bytes, dtype, 1, &value);
    return fkv_fail(
        err, "%s of layer %d, head %d, token %lld: expected a finite number, found %g",
        fkv_state_names[state], c->info.layer_index[layer],
        fkv_capture_head_number(&c->info, state, head + (int32_t)(at / row / (size_t)rows)),
        (long long)(t + (int64_t)(at / row % (size_t)rows)), (double)value);
}

/* Opens the state, where the range is inside it. */
static int find_range(struct fkv_capture *c, int32_t index, enum fkv_state state, int32_t layer,
                      int32_t head, int32_t heads, int64_t t, int64_t rows, struct fkv_error *err) {
    if (select_recording(c, index, err)) return FKV_FAILED;
    const struct entry *e = &c->entries[index];
    if (c->info.spectra_only || !fkv_capture_holds(&c->info, state))
        return fkv_fail(err, "%s: expected %s, found none%s", e->file, fkv_state_names[state],
                        c->info.spectra_only ? " (only sums of spectra)" : "");
    if (layer < 0 || layer >= c->info.layer_count || head < 0 || heads < 1 ||
        heads > fkv_capture_heads(c, state) - head || t < 0 || rows < 1 ||
        rows > e->recording.n_tokens - t)
        return fkv_fail(err, "%s: %s: layer %d, heads %d to %d, tokens %lld to %lld are outside it",
                        e->file, fkv_state_names[state], layer, head, head + heads, (long long)t,
                        (long long)(t + rows));
    return open_state(c, state, err);
}

/* The range has been found. */
static int read_range(struct fkv_capture *c, enum fkv_state state, int32_t layer, int32_t head,
                      int32_t heads, int64_t t, int64_t rows, void *x, struct fkv_error *err) {
    const struct fkv_state_input *in = &c->states[state];
    const hsize_t from[4] = {(hsize_t)layer, (hsize_t)head, (hsize_t)t, 0};
    const hsize_t count[4] = {1, (hsize_t)heads, (hsize_t)rows, (hsize_t)c->info.head_dim};
    void *chunk = in->whole ? grow(&c->chunk, &c->chunk_bytes, fkv_chunk_bytes(in), 1) : NULL;
    int status = FKV_OK;
    bool finite = false; /* as far as is known */
    if (!chunk || !fkv_chunks_read(in, from, count, chunk, x, &finite))
        status = read_through_hdf(in, from, count, fkv_state_names[state], x, err);
    if (!status && !finite)
        status = check_finite(c, state, layer, head, t, rows, x,
                              (size_t)(count[1] * count[2] * count[3]), err);
    return status ? fkv_error_prefix(err, "%s", c->entries[c->current].file) : FKV_OK;
}

int fkv_capture_read_stored(struct fkv_capture *c, int32_t index, enum fkv_state state,
                            int32_t layer, int32_t head, int32_t heads, int64_t t, int64_t rows,
                            void *x, enum fkv_dtype *dtype, struct fkv_error *err) {
    if (find_range(c, index, state, layer, head, heads, t, rows, err)) return FKV_FAILED;
    *dtype = c->states[state].dtype;
    return read_range(c, state, layer, head, heads, t, rows, x, err);
}

int fkv_capture_read_state(struct fkv_capture *c, int32_t index, enum fkv_state state,
                           int32_t layer, int32_t head, int32_t heads, int64_t t, int64_t rows,
                           float *x, struct fkv_error *err) {
    if (find_range(c, index, state, layer, head, heads, t, rows, err)) return FKV_FAILED;
    const enum fkv_dtype dtype = c->states[state].dtype;
    if (dtype == FKV_F32) return read_range(c, state, layer, head, heads, t, rows, x, err);
    const size_t n = (size_t)heads * (size_t)rows * (size_t)c->info.head_dim;
    if (!grow((void **)&c->scratch, &c->scratch_count, n, sizeof *c->scratch))
        return fkv_fail(err, "%s: %s: out of memory", c->entries[index].file,
                        fkv_state_names[state]);
    if (read_range(c, state, layer, head, heads, t, rows, c->scratch, err)) return FKV_FAILED;
    fkv_to_f32(c->scratch, dtype, n, x);
    return FKV_OK;
}

/* Sizes come from the attribute and are confirmed by the largest array before memory is taken for
 * them. */
static int read_sums(const struct fkv_capture *c, hid_t group, enum fkv_state state,
                     struct fkv_spectra_sums *sums, struct fkv_error *err) {
    int64_t n = 0, skip = 0, segments = -1;
    const int32_t heads = fkv_capture_heads(c, state), layers = c->info.layer_count;
    if (fkv_hdf_get_int(group, "segment_length", 1, INT32_MAX, &n, err) ||
        fkv_hdf_get_int(group, "skip_sinks", 0, INT32_MAX, &skip, err) ||
        fkv_hdf_get_int(group, "segments", 0, INT64_MAX, &segments, err))
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
    if (!c->info.spectra_only || !fkv_capture_holds(&c->info, state))
        return fkv_fail(err, "%s: %s: expected sums of spectra, found none", e->file, path);
    hid_t group = H5Gopen2(c->group, path, H5P_DEFAULT);
    if (group < 0) return fkv_hdf_fail(err, "%s: %s: expected a group", e->file, path);
    int status = read_sums(c, group, state, sums, err);
    H5Gclose(group);
    if (status == FKV_OK) return FKV_OK;
    fkv_spectra_sums_free(sums);
    return fkv_error_prefix(err, "%s: %s", e->file, path);
}
