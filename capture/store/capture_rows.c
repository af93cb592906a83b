/* States into a recording's file. Rows come in as the model makes them, a block of tokens of all
 * heads of one layer, already in the capture's dtype, and lie on disk as [layer, head, token,
 * channel]. They are checked and transposed into a row of chunks, and HDF5, which converts nothing,
 * gets whole rows of chunks, so every chunk is written once. Rows that make a whole one go straight
 * through one buffer that all layers share; only a (state, layer) that gets less than that at a
 * time has a buffer of its own to collect in.
 *
 * What conversion has made infinite is found by its bits: the number itself is gone by then. */
#include <stdlib.h>
#include <string.h>

#include "capture/store/capture_writer.h"
#include "capture/store/chunks.h"
#include "capture/store/writer.h"

enum { CHECKSUM = 4 }; /* bytes after a chunk */

/* ---- life ---- */

static size_t chunk_row_bytes(const struct fkv_capture_writer *w, const struct state_output *o) {
    return (size_t)o->heads * (size_t)o->chunk * (size_t)w->info->head_dim *
           fkv_dtype_bytes(w->info->dtype);
}

static void free_buffers(const struct fkv_capture_writer *w, struct state_output *o) {
    for (int32_t i = 0; o->layers && i < w->info->layer_count; i++) free(o->layers[i].data);
    free(o->layers);
    free(o->whole);
    o->layers = NULL;
    o->whole = NULL;
    o->buffer_bytes = 0;
}

static int open_state(struct fkv_capture_writer *w, enum fkv_state state, struct fkv_error *err) {
    const struct fkv_capture_info *info = w->info;
    struct state_output *o = &w->states[state];
    fkv_schema_chunk(info, state, w->n_tokens, &o->chunk, &o->chunk_heads);
    o->heads = fkv_capture_state_heads(info, state);
    const hsize_t dims[4] = {(hsize_t)info->layer_count, (hsize_t)o->heads, (hsize_t)w->n_tokens,
                             (hsize_t)info->head_dim};
    const hsize_t chunk[4] = {1, (hsize_t)o->chunk_heads, (hsize_t)o->chunk,
                              (hsize_t)info->head_dim};
    hid_t type = info->dtype == FKV_F32   ? H5T_IEEE_F32LE
                 : info->dtype == FKV_F16 ? fkv_hdf_f16()
                                          : H5T_STD_U16LE;
    o->dataset = fkv_hdf_dataset(w->group, fkv_state_names[state], type, 4, dims, chunk, err);
    if (o->dataset < 0) return FKV_FAILED;
    if (info->dtype == FKV_BF16 && fkv_hdf_put_string(o->dataset, "dtype", "bf16", err))
        return FKV_FAILED;
    o->space = H5Screate_simple(4, dims, NULL);
    const size_t bytes = chunk_row_bytes(w, o) + CHECKSUM;
    if (bytes > o->buffer_bytes) {
        free_buffers(w, o);
        o->buffer_bytes = bytes;
        o->layers = calloc((size_t)info->layer_count, sizeof *o->layers);
        o->whole = malloc(bytes);
    }
    return o->layers && o->whole ? FKV_OK : fkv_fail(err, "out of memory for staging");
}

int fkv_writer_open_states(struct fkv_capture_writer *w, struct fkv_error *err) {
    for (int s = 0; s < FKV_STATES; s++)
        if (fkv_capture_holds(w->info, s) && open_state(w, s, err)) return FKV_FAILED;
    return FKV_OK;
}

void fkv_writer_close_states(struct fkv_capture_writer *w) {
    for (int s = 0; s < FKV_STATES; s++) {
        struct state_output *o = &w->states[s];
        if (o->space > 0) H5Sclose(o->space);
        o->space = 0;
        o->sums = false;
        for (int32_t i = 0; o->layers && i < w->info->layer_count; i++)
            o->layers[i].rows = o->layers[i].received = 0;
    }
}

void fkv_writer_free_states(struct fkv_capture_writer *w) {
    for (int s = 0; s < FKV_STATES; s++) free_buffers(w, &w->states[s]);
}

/* ---- numbers that cannot stand in a capture ---- */

static int name_bad_value(const struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                          int64_t t, const void *x, struct fkv_error *err) {
    const struct fkv_capture_info *info = w->info;
    const size_t bytes = fkv_dtype_bytes(info->dtype), d = (size_t)info->head_dim;
    const size_t row = d * (size_t)w->states[state].heads;
    size_t at = 0;
    while (fkv_all_finite((const char *)x + at * bytes, info->dtype, 1)) at++;
    float value;
    fkv_to_f32((const char *)x + at * bytes, info->dtype, 1, &value);
    int32_t head = fkv_capture_head_number(info, state, (int32_t)(at % row / d));
    const long long token = t + (int64_t)(at / row);
    if (value != value || info->dtype == FKV_F32)
        return fkv_fail(
            err, "%s of layer %d, head %d, token %lld: expected a finite number, found %g",
            fkv_state_names[state], info->layer_index[layer], head, token, (double)value);
    return fkv_fail(err,
                    "%s of layer %d, head %d, token %lld: a number (or an infinity) that is beyond "
                    "%s: use --dtype %s",
                    fkv_state_names[state], info->layer_index[layer], head, token,
                    info->dtype == FKV_F16 ? "float16's 65504" : "bfloat16's range",
                    info->dtype == FKV_F16 ? "f32 or bf16" : "f32");
}

/* ---- rows ---- */

/* A whole row of chunks, tokens [first, first+rows), to the file as it is on disk: zeros after the
 * last token, and after each chunk its checksum, for which data [heads, chunk, head_dim] has
 * CHECKSUM more bytes. HDF5's own way takes the checksum a word at a time and copies through its
 * chunk cache: three times the work. */
static int write_whole(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                       int64_t first, int64_t rows, uint8_t *data, struct fkv_error *err) {
    const struct state_output *o = &w->states[state];
    const size_t head = chunk_row_bytes(w, o) / (size_t)o->heads,
                 chunk = head * (size_t)o->chunk_heads,
                 filled = head / (size_t)o->chunk * (size_t)rows;
    for (int32_t h = 0; h < o->heads; h++)
        memset(data + (size_t)h * head + filled, 0, head - filled);
    for (int32_t h = 0; h < o->heads; h += o->chunk_heads, data += chunk) {
        const hsize_t at[4] = {(hsize_t)layer, (hsize_t)h, (hsize_t)first, 0};
        const uint32_t sum = fkv_fletcher32(data, chunk / 2);
        uint8_t *end = data + chunk, next[CHECKSUM];
        memcpy(next, end, CHECKSUM);
        for (int i = 0; i < CHECKSUM; i++) end[i] = (uint8_t)(sum >> 8 * i);
        if (H5Dwrite_chunk(o->dataset, H5P_DEFAULT, 0, at, chunk + CHECKSUM, data) < 0)
            return fkv_hdf_fail(err, "%s: %s: cannot write", w->path, fkv_state_names[state]);
        memcpy(end, next, CHECKSUM);
    }
    return FKV_OK;
}

/* Tokens [first, first+rows), a part of one row of chunks, from data [heads, chunk, head_dim] to
 * the file. */
static int write_part(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                      int64_t first, int64_t rows, const uint8_t *data, struct fkv_error *err) {
    struct state_output *o = &w->states[state];
    const hsize_t heads = (hsize_t)o->heads, tokens = (hsize_t)rows, d = (hsize_t)w->info->head_dim;
    const hsize_t from[4] = {(hsize_t)layer, 0, (hsize_t)first, 0},
                  count[4] = {1, heads, tokens, d};
    const hsize_t held[3] = {heads, (hsize_t)o->chunk, d}, part[3] = {heads, tokens, d};
    const hsize_t inside[3] = {0, (hsize_t)(first % o->chunk), 0};
    hid_t memory = H5Screate_simple(3, held, NULL), type = H5Dget_type(o->dataset);
    H5Sselect_hyperslab(memory, H5S_SELECT_SET, inside, NULL, part, NULL);
    H5Sselect_hyperslab(o->space, H5S_SELECT_SET, from, NULL, count, NULL);
    int status = FKV_OK;
    if (H5Dwrite(o->dataset, type, memory, o->space, H5P_DEFAULT, data) < 0)
        status = fkv_hdf_fail(err, "%s: %s: cannot write", w->path, fkv_state_names[state]);
    H5Tclose(type);
    H5Sclose(memory);
    return status;
}

static int flush_staging(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                         struct fkv_error *err) {
    const struct state_output *o = &w->states[state];
    struct staging *s = &o->layers[layer];
    const int64_t rows = s->rows;
    const bool whole =
        s->first % o->chunk == 0 && (rows == o->chunk || s->first + rows == w->n_tokens);
    s->rows = 0;
    if (!rows) return FKV_OK;
    return whole ? write_whole(w, state, layer, s->first, rows, s->data, err)
                 : write_part(w, state, layer, s->first, rows, s->data, err);
}

/* x [rows, heads, head_dim] -> rows from `at` on of data [heads, chunk, head_dim]; `bytes`: of
 * head_dim numbers */
static void transpose(const struct state_output *o, size_t bytes, uint8_t *data, int64_t at,
                      int64_t rows, const uint8_t *x) {
    for (int64_t h = 0; h < o->heads; h++)
        for (int64_t r = 0; r < rows; r++)
            memcpy(data + (size_t)(h * o->chunk + at + r) * bytes,
                   x + (size_t)(r * o->heads + h) * bytes, bytes);
}

/* Tokens [t, t+rows), of one row of chunks. */
static int take_rows(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer, int64_t t,
                     int64_t rows, const uint8_t *x, struct fkv_error *err) {
    struct state_output *o = &w->states[state];
    struct staging *s = &o->layers[layer];
    const size_t bytes = (size_t)w->info->head_dim * fkv_dtype_bytes(w->info->dtype);
    const int64_t at = t % o->chunk;
    const bool ends = at + rows == o->chunk || t + rows == w->n_tokens;
    if ((s->first + s->rows != t || at == 0) && flush_staging(w, state, layer, err))
        return FKV_FAILED;
    if (at == 0 && ends) {
        transpose(o, bytes, o->whole, 0, rows, x);
        return write_whole(w, state, layer, t, rows, o->whole, err);
    }
    if (!s->data && !(s->data = malloc(o->buffer_bytes)))
        return fkv_fail(err, "out of memory for staging");
    if (s->rows == 0) s->first = t;
    transpose(o, bytes, s->data, at, rows, x);
    s->rows += rows;
    return ends ? flush_staging(w, state, layer, err) : FKV_OK;
}

int fkv_capture_write_rows(struct fkv_capture_writer *w, enum fkv_state state, int32_t layer,
                           int64_t t, int32_t rows, const void *x, struct fkv_error *err) {
    struct state_output *o = &w->states[state];
    if (w->file < 0 || !o->layers || layer < 0 || layer >= w->info->layer_count || t < 0 ||
        rows < 0 || t + rows > w->n_tokens)
        return fkv_fail(err, "%s: %s, layer %d, tokens %lld to %lld are not part of this recording",
                        w->folder, fkv_state_names[state], layer, (long long)t,
                        (long long)t + rows);
    const size_t row = (size_t)w->info->head_dim * (size_t)o->heads;
    const uint8_t *from = x;
    if (!fkv_all_finite(x, w->info->dtype, (size_t)rows * row))
        return name_bad_value(w, state, layer, t, x, err);
    o->layers[layer].received += rows;
    while (rows > 0) {
        int64_t fit = o->chunk - t % o->chunk;
        if (fit > rows) fit = rows;
        if (take_rows(w, state, layer, t, fit, from, err)) return FKV_FAILED;
        t += fit;
        rows -= (int32_t)fit;
        from += (size_t)fit * row * fkv_dtype_bytes(w->info->dtype);
    }
    return FKV_OK;
}

int fkv_writer_finish_states(struct fkv_capture_writer *w, struct fkv_error *err) {
    for (int s = 0; s < FKV_STATES; s++)
        for (int32_t i = 0; fkv_capture_holds(w->info, s) && i < w->info->layer_count; i++) {
            if (flush_staging(w, s, i, err)) return FKV_FAILED;
            if (w->states[s].layers[i].received != w->n_tokens)
                return fkv_fail(err, "%s: %s of layer %d: expected %lld tokens, found %lld",
                                w->path, fkv_state_names[s], w->info->layer_index[i],
                                (long long)w->n_tokens, (long long)w->states[s].layers[i].received);
        }
    return FKV_OK;
}
