/* The root attributes and shapes of captures.
 *
 * Chunks are [1, heads, tokens, head_dim]. Tokens are cut into equal chunks of at most 512, the
 * block a model runs in, or of more where 512 tokens of all heads stay under 256 KiB; heads are
 * joined until a chunk has 256 KiB. So a block is written once, in large pieces, and whoever reads
 * one head of a large model reads little else. */
#include "capture/store/capture_writer.h"
#include "capture/store/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_TOKENS = 512, CHUNK_BYTES = 256 << 10, MOST = 1 << 16, MOST_CONTEXT = 1 << 30 };
#define MOST_SUMS 1e11 /* numbers; far beyond memory, far below what overflows */

const char *const fkv_state_names[FKV_STATES] = {"key", "value", "key_rotated", "query"};

/* ---- memory ---- */

void fkv_capture_info_free(struct fkv_capture_info *info) {
    free(info->model_name);
    free(info->rope_scaling);
    free(info->backend);
    free(info->compute);
    free(info->kernels);
    free(info->adapter);
    free(info->options);
    free(info->layer_index);
    free(info->head_index);
    free(info->inv_freq);
    free(info->attention_factor);
    free(info->layer_window);
    *info = (struct fkv_capture_info){0};
}

int fkv_spectra_sums_allocate(struct fkv_spectra_sums *sums, int32_t layers, int32_t heads,
                              int32_t n, int32_t head_dim, struct fkv_error *err) {
    size_t rows = (size_t)layers * (size_t)heads;
    *sums =
        (struct fkv_spectra_sums){.layers = layers, .heads = heads, .n = n, .head_dim = head_dim};
    if ((double)rows * n > MOST_SUMS || (double)rows * head_dim > MOST_SUMS)
        return fkv_fail(err, "spectra of %d layers, %d heads, %d frequencies are too large", layers,
                        heads, n);
    sums->power_sum = calloc(rows * (3 * (size_t)n + (size_t)head_dim + 1), sizeof(double));
    if (!sums->power_sum)
        return fkv_fail(err, "out of memory for the spectra of %d layers, %d heads, %d frequencies",
                        layers, heads, n);
    sums->power_sum_of_squares = sums->power_sum + rows * (size_t)n;
    sums->normalised_sum = sums->power_sum_of_squares + rows * (size_t)n;
    sums->channel_mean_sum = sums->normalised_sum + rows * (size_t)n;
    sums->energy_sum = sums->channel_mean_sum + rows * (size_t)head_dim;
    return FKV_OK;
}

void fkv_spectra_sums_free(struct fkv_spectra_sums *sums) {
    free(sums->power_sum);
    *sums = (struct fkv_spectra_sums){0};
}

void fkv_sums_arrays(const struct fkv_spectra_sums *s,
                     struct fkv_sums_array arrays[FKV_SUMS_ARRAYS]) {
    const hsize_t layers = (hsize_t)s->layers, heads = (hsize_t)s->heads, n = (hsize_t)s->n,
                  d = (hsize_t)s->head_dim;
    const struct fkv_sums_array all[FKV_SUMS_ARRAYS] = {
        {"power_sum", 3, {layers, heads, n}, s->power_sum},
        {"power_sum_of_squares", 3, {layers, heads, n}, s->power_sum_of_squares},
        {"normalised_sum", 3, {layers, heads, n}, s->normalised_sum},
        {"channel_mean_sum", 3, {layers, heads, d}, s->channel_mean_sum},
        {"energy_sum", 2, {layers, heads, 0}, s->energy_sum},
    };
    memcpy(arrays, all, sizeof all);
}

/* ---- root attributes ---- */

static int put_text(hid_t file, const char *name, const char *value, struct fkv_error *err) {
    return fkv_hdf_put_string(file, name, value ? value : "", err);
}

int fkv_schema_write_info(hid_t file, const struct fkv_capture_info *info, struct fkv_error *err) {
    const hsize_t layers = (hsize_t)info->layer_count, heads = (hsize_t)info->head_count;
    bool failed = put_text(file, "format", FKV_CAPTURE_FORMAT, err) ||
                  fkv_hdf_put_int(file, "format_version", FKV_CAPTURE_FORMAT_VERSION, err) ||
                  put_text(file, "software_version", FKV_VERSION, err) ||
                  put_text(file, "model_name", info->model_name, err) ||
                  put_text(file, "model_sha256", info->model_sha256, err) ||
                  put_text(file, "config_sha256", info->config_sha256, err) ||
                  put_text(file, "adapter", info->adapter, err) ||
                  put_text(file, "adapter_sha256", info->adapter_sha256, err) ||
                  put_text(file, "tokenizer_sha256", info->tokenizer_sha256, err) ||
                  fkv_hdf_put_int(file, "n_layers", info->n_layers, err) ||
                  fkv_hdf_put_int(file, "n_heads", info->n_heads, err) ||
                  fkv_hdf_put_int(file, "n_kv_heads", info->n_kv_heads, err) ||
                  fkv_hdf_put_int(file, "head_dim", info->head_dim, err) ||
                  fkv_hdf_put_array(file, "layer_index", H5T_STD_I32LE, H5T_NATIVE_INT32, 1,
                                    &layers, info->layer_index, err) ||
                  fkv_hdf_put_array(file, "head_index", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &heads,
                                    info->head_index, err) ||
                  fkv_schema_write_rotation(file, info, err) ||
                  fkv_schema_write_scores(file, info, err) ||
                  fkv_hdf_put_int(file, "trained_context", info->trained_context, err) ||
                  fkv_hdf_put_bool(file, "adds_bos", info->adds_bos, err) ||
                  put_text(file, "dtype", fkv_dtype_name(info->dtype), err) ||
                  put_text(file, "backend", info->backend, err) ||
                  put_text(file, "compute", info->compute, err) ||
                  put_text(file, "kernels", info->kernels, err) ||
                  put_text(file, "options", info->options, err);
    return failed ? FKV_FAILED : FKV_OK;
}

static int get_count(hid_t file, const char *name, int64_t low, int64_t high, int32_t *value,
                     struct fkv_error *err) {
    int64_t number = 0; /* no required one may be 0 */
    if (fkv_hdf_get_int(file, name, low, high, &number, err)) return FKV_FAILED;
    if (low && !number)
        return fkv_fail(err, "attribute %s: expected a number at the root, found none", name);
    *value = (int32_t)number;
    return FKV_OK;
}

static int get_hash(hid_t file, const char *name, fkv_sha256_hex out, struct fkv_error *err) {
    char *text = NULL;
    if (fkv_hdf_get_string(file, name, &text, err)) return FKV_FAILED;
    int status = FKV_OK;
    if (text && *text && strspn(text, "0123456789abcdef") != strlen(text))
        status = fkv_fail(err, "attribute %s: expected 64 hex digits, found \"%.80s\"", name, text);
    else if (text && *text && strlen(text) != 64)
        status =
            fkv_fail(err, "attribute %s: expected 64 hex digits, found %zu", name, strlen(text));
    else
        snprintf(out, sizeof(fkv_sha256_hex), "%s", text ? text : "");
    free(text);
    return status;
}

/* Ascending indices below `limit`; where the file has none: all of them. */
static int get_indices(hid_t file, const char *name, int32_t limit, int32_t **index, int32_t *count,
                       struct fkv_error *err) {
    void *numbers = NULL;
    int64_t n = limit;
    if (fkv_hdf_get_numbers(file, name, H5T_NATIVE_INT32, limit, &numbers, &n, NULL, err))
        return FKV_FAILED;
    int32_t *values = numbers ? numbers : calloc((size_t)limit, sizeof *values);
    if (!values) return fkv_fail(err, "attribute %s: out of memory", name);
    for (int32_t i = 0; !numbers && i < limit; i++) values[i] = i;
    *index = values;
    *count = (int32_t)n;
    for (int32_t i = 0; i < n; i++)
        if (values[i] < 0 || values[i] >= limit || (i && values[i] <= values[i - 1]))
            return fkv_fail(
                err, "attribute %s: expected ascending numbers below %d, found %d at place %d",
                name, limit, values[i], i);
    return FKV_OK;
}

bool fkv_schema_names_bf16(const char *text) {
    return !strcmp(text, "bf16") || !strcmp(text, "bfloat16");
}

static int get_format(hid_t file, struct fkv_error *err) {
    char *format = NULL;
    int64_t version = FKV_CAPTURE_FORMAT_VERSION;
    if (fkv_hdf_get_string(file, "format", &format, err)) return FKV_FAILED;
    int status = FKV_OK;
    if (format && strcmp(format, FKV_CAPTURE_FORMAT))
        status = fkv_fail(err, "attribute format: expected \"%s\", found \"%.80s\"",
                          FKV_CAPTURE_FORMAT, format);
    else if (format)
        status =
            fkv_hdf_get_int(file, "format_version", 1, FKV_CAPTURE_FORMAT_VERSION, &version, err);
    free(format);
    return status;
}

/* In a user's own file, whose datasets say what they are, it matters where it says that uint16
 * stands for bf16; and the names of numpy and torch are fine, too. */
static int get_dtype(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    char *name = NULL;
    if (fkv_hdf_get_string(file, "dtype", &name, err)) return FKV_FAILED;
    int status = FKV_OK;
    const bool ours = H5Aexists(file, "format") > 0;
    if (name && !ours)
        info->dtype = fkv_schema_names_bf16(name) ? FKV_BF16 : info->dtype;
    else if (name && fkv_dtype_parse(name, &info->dtype))
        status = fkv_fail(err, "attribute dtype: expected f16, f32 or bf16, found \"%.80s\"", name);
    free(name);
    return status;
}

int fkv_schema_read_info(hid_t file, struct fkv_capture_info *info, struct fkv_error *err) {
    *info = (struct fkv_capture_info){0};
    int64_t adds_bos = 0;
    bool failed =
        get_format(file, err) || get_count(file, "n_layers", 1, MOST, &info->n_layers, err) ||
        get_count(file, "n_kv_heads", 1, MOST, &info->n_kv_heads, err) ||
        get_count(file, "head_dim", 1, MOST, &info->head_dim, err) ||
        get_count(file, "n_heads", 0, MOST, &info->n_heads, err) ||
        get_count(file, "trained_context", 0, MOST_CONTEXT, &info->trained_context, err) ||
        fkv_hdf_get_int(file, "adds_bos", 0, 1, &adds_bos, err) ||
        get_indices(file, "layer_index", info->n_layers, &info->layer_index, &info->layer_count,
                    err) ||
        get_indices(file, "head_index", info->n_kv_heads, &info->head_index, &info->head_count,
                    err) ||
        get_hash(file, "model_sha256", info->model_sha256, err) ||
        get_hash(file, "config_sha256", info->config_sha256, err) ||
        get_hash(file, "adapter_sha256", info->adapter_sha256, err) ||
        fkv_hdf_get_string(file, "adapter", &info->adapter, err) ||
        get_hash(file, "tokenizer_sha256", info->tokenizer_sha256, err) ||
        fkv_hdf_get_string(file, "model_name", &info->model_name, err) ||
        fkv_hdf_get_string(file, "backend", &info->backend, err) ||
        fkv_hdf_get_string(file, "compute", &info->compute, err) ||
        fkv_hdf_get_string(file, "kernels", &info->kernels, err) ||
        fkv_hdf_get_string(file, "options", &info->options, err) || get_dtype(file, info, err) ||
        fkv_schema_read_rotation(file, info, err) || fkv_schema_read_scores(file, info, err);
    info->adds_bos = adds_bos != 0;
    if (!failed && info->attention_scale == 0) info->attention_scale = 1 / sqrt(info->head_dim);
    if (!failed && info->n_heads && info->n_heads % info->n_kv_heads)
        failed =
            fkv_fail(err, "attribute n_heads: expected a multiple of n_kv_heads = %d, found %d",
                     info->n_kv_heads, info->n_heads);
    if (!failed) return FKV_OK;
    fkv_capture_info_free(info);
    return FKV_FAILED;
}

/* ---- comparing ---- */

static int differ_text(const char *field, const char *expected, const char *found,
                       struct fkv_error *err) {
    if (!strcmp(expected ? expected : "", found ? found : "")) return FKV_OK;
    return fkv_fail(err, "%s: expected \"%.300s\", found \"%.300s\"", field,
                    expected ? expected : "", found ? found : "");
}

static int differ_number(const char *field, double expected, double found, struct fkv_error *err) {
    if (expected == found) return FKV_OK;
    return fkv_fail(err, "%s: expected %.17g, found %.17g", field, expected, found);
}

static int differ_indices(const char *field, int32_t count, const int32_t *expected,
                          int32_t found_count, const int32_t *found, struct fkv_error *err) {
    if (count != found_count)
        return fkv_fail(err, "%s: expected %d of them, found %d", field, count, found_count);
    for (int32_t i = 0; i < count; i++)
        if (expected[i] != found[i])
            return fkv_fail(err, "%s: expected %d at place %d, found %d", field, expected[i], i,
                            found[i]);
    return FKV_OK;
}

static int differ_states(uint32_t expected, uint32_t found, struct fkv_error *err) {
    for (int i = 0; i < FKV_STATES; i++)
        if (((expected ^ found) >> i) & 1)
            return fkv_fail(err, "%s: expected %s, found %s", fkv_state_names[i],
                            (expected >> i) & 1 ? "it" : "none", (found >> i) & 1 ? "it" : "none");
    return FKV_OK;
}

int fkv_capture_info_compare(const struct fkv_capture_info *a, const struct fkv_capture_info *b,
                             const char *where, struct fkv_error *err) {
    bool differ = differ_text("adapter_sha256", a->adapter_sha256, b->adapter_sha256, err) ||
                  differ_text("model_name", a->model_name, b->model_name, err) ||
                  differ_text("model_sha256", a->model_sha256, b->model_sha256, err) ||
                  differ_text("config_sha256", a->config_sha256, b->config_sha256, err) ||
                  differ_text("tokenizer_sha256", a->tokenizer_sha256, b->tokenizer_sha256, err) ||
                  differ_number("n_layers", a->n_layers, b->n_layers, err) ||
                  differ_number("n_heads", a->n_heads, b->n_heads, err) ||
                  differ_number("n_kv_heads", a->n_kv_heads, b->n_kv_heads, err) ||
                  differ_number("head_dim", a->head_dim, b->head_dim, err) ||
                  differ_number("rope_theta", a->rope_theta, b->rope_theta, err) ||
                  differ_text("rope_scaling", a->rope_scaling, b->rope_scaling, err) ||
                  differ_number("trained_context", a->trained_context, b->trained_context, err) ||
                  differ_indices("layer_index", a->layer_count, a->layer_index, b->layer_count,
                                 b->layer_index, err) ||
                  differ_indices("head_index", a->head_count, a->head_index, b->head_count,
                                 b->head_index, err) ||
                  fkv_schema_compare_rotation(a, b, err) || fkv_schema_compare_scores(a, b, err) ||
                  differ_number("spectra_only", a->spectra_only, b->spectra_only, err) ||
                  differ_states(a->states, b->states, err) ||
                  differ_text("dtype", fkv_dtype_name(a->dtype), fkv_dtype_name(b->dtype), err) ||
                  differ_text("backend", a->backend, b->backend, err) ||
                  differ_text("compute", a->compute, b->compute, err) ||
                  differ_text("options", a->options, b->options, err);
    return differ ? fkv_error_prefix(
                        err, "%s: made with another model, tokenizer, processor or options", where)
                  : FKV_OK;
}

/* ---- shapes ---- */

int32_t fkv_capture_state_heads(const struct fkv_capture_info *info, enum fkv_state state) {
    return state == FKV_STATE_QUERY ? info->head_count * (info->n_heads / info->n_kv_heads)
                                    : info->head_count;
}

void fkv_schema_infer_heads(struct fkv_capture_info *info, hsize_t query_heads) {
    hsize_t group = query_heads / (hsize_t)info->head_count;
    if (info->n_heads || query_heads % (hsize_t)info->head_count ||
        group * (hsize_t)info->n_kv_heads > MOST)
        return;
    info->n_heads = (int32_t)group * info->n_kv_heads;
}

int32_t fkv_capture_head_number(const struct fkv_capture_info *info, enum fkv_state state,
                                int32_t head) {
    if (state != FKV_STATE_QUERY) return info->head_index[head];
    int32_t group = info->n_heads / info->n_kv_heads;
    return info->head_index[head / group] * group + head % group;
}

void fkv_schema_chunk(const struct fkv_capture_info *info, enum fkv_state state, int64_t n_tokens,
                      int64_t *tokens, int32_t *heads) {
    int32_t all = fkv_capture_state_heads(info, state);
    int64_t row = (int64_t)info->head_dim * (int64_t)fkv_dtype_bytes(info->dtype),
            most = CHUNK_BYTES / (row * all);
    if (most < CHUNK_TOKENS) most = CHUNK_TOKENS;
    int64_t pieces = (n_tokens + most - 1) / most;
    *tokens = (n_tokens + pieces - 1) / pieces;
    *heads = 1;
    while (*heads < all && (*tokens * row * *heads < CHUNK_BYTES || all % *heads)) ++*heads;
}

int64_t fkv_capture_bytes(const struct fkv_capture_info *info, int64_t n_tokens,
                          int32_t segment_length) {
    enum { FILE_OVERHEAD = 16 << 10, CHUNK_OVERHEAD = 32 };
    int64_t bytes = FILE_OVERHEAD + 9 * n_tokens;
    for (enum fkv_state state = 0; state < FKV_STATES; state++) {
        if (!fkv_capture_holds(info, state)) continue;
        int64_t rows = (int64_t)info->layer_count * fkv_capture_state_heads(info, state);
        if (info->spectra_only) {
            bytes +=
                rows * (3 * (int64_t)segment_length + info->head_dim + 1) * (int64_t)sizeof(double);
            continue;
        }
        int64_t tokens;
        int32_t heads;
        fkv_schema_chunk(info, state, n_tokens, &tokens, &heads);
        int64_t chunks = rows / heads * ((n_tokens + tokens - 1) / tokens);
        bytes += chunks * (tokens * heads * info->head_dim * (int64_t)fkv_dtype_bytes(info->dtype) +
                           CHUNK_OVERHEAD);
    }
    return bytes;
}

int64_t fkv_capture_staging(const struct fkv_capture_info *info, int64_t n_tokens, int32_t rows) {
    int64_t bytes = 0;
    for (enum fkv_state state = 0; state < FKV_STATES && !info->spectra_only; state++) {
        if (!fkv_capture_holds(info, state)) continue;
        int64_t tokens;
        int32_t heads;
        fkv_schema_chunk(info, state, n_tokens, &tokens, &heads);
        int64_t row = tokens * fkv_capture_state_heads(info, state) * info->head_dim *
                      (int64_t)fkv_dtype_bytes(info->dtype);
        bytes += tokens > rows ? (info->layer_count + 1) * row : row;
    }
    return bytes;
}

int64_t fkv_schema_document_number(const char *file_name) {
    size_t digits = strspn(file_name, "0123456789");
    if (digits < 6 || digits > 9 || strcmp(file_name + digits, ".h5")) return -1;
    return strtoll(file_name, NULL, 10);
}
