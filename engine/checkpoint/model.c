/* Owns the binding of a checkpoint's tensors to the layers that use them; what it does not bind
 * takes no memory on a device.
 *
 * The tensors are gone through twice. First format and shape of all of them, which touches headers
 * only; that tells what the weights take, so that a model too large for a device is refused before
 * a byte is read. Then each is looked through for values that are not finite and given to the
 * backend, while its pages are still warm; each is a buffer of its own, so that it is aligned. A
 * device computes in dtypes only: what is stored in a block format is expanded on its way there. */
#include "engine/checkpoint/model.h"

#include <inttypes.h>
#include <limits.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device_memory.h"
#include "kernels/base/host.h"

/* ---- values ---- */

/* Elements looked at between two questions whether something was found, and chunks from which on a
 * second thread is worth waking: a small model has hundreds of small tensors, and on a busy machine
 * each parallel region costs milliseconds. */
enum { CHECK_CHUNK = 1 << 16, PARALLEL_CHUNKS = 64 };

/* Exponent bits all set: an infinity or a NaN. Without an early way out, so that it vectorises. */
static bool any_not_finite(const void *data, enum fkv_dtype dtype, size_t n) {
    unsigned found = 0;
    if (dtype == FKV_F32) {
        const uint32_t *x = data;
        for (size_t i = 0; i < n; i++) found |= (x[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        const uint16_t *x = data, mask = dtype == FKV_F16 ? 0x7c00 : 0x7f80;
        for (size_t i = 0; i < n; i++) found |= (x[i] & mask) == mask;
    }
    return found;
}

/* The index of the first of n values that is not finite, or n. */
static size_t first_in_dtype(const void *data, enum fkv_dtype dtype, size_t n) {
    const size_t size = fkv_dtype_bytes(dtype);
    size_t i = 0;
    if (!any_not_finite(data, dtype, n)) return n;
    while (!any_not_finite((const char *)data + i * size, dtype, 1)) i++;
    return i;
}

/* The same of whole blocks, expanded some at a time. */
static size_t first_in_blocks(const void *data, enum fkv_weight_format format, size_t n) {
    enum { SOME = 16 * FKV_WEIGHT_MOST_BLOCK };
    float values[SOME];
    for (size_t at = 0; at < n; at += SOME) {
        const size_t count = n - at < SOME ? n - at : SOME;
        fkv_weight_expand(format, (const char *)data + fkv_weight_bytes(format, at), count, values);
        const size_t first = first_in_dtype(values, FKV_F32, count);
        if (first < count) return at + first;
    }
    return n;
}

/* The index of the first value that is not finite, or n. */
static size_t first_not_finite(const void *data, enum fkv_weight_format format, size_t n,
                               int threads) {
    size_t first = n;
    int64_t chunks = (int64_t)((n + CHECK_CHUNK - 1) / CHECK_CHUNK);
    if (chunks < PARALLEL_CHUNKS) threads = 1;
#pragma omp parallel for schedule(dynamic, 8) reduction(min : first) num_threads(threads)
    for (int64_t c = 0; c < chunks; c++) {
        const size_t from = (size_t)c * CHECK_CHUNK,
                     count = n - from < CHECK_CHUNK ? n - from : CHECK_CHUNK;
        const char *chunk = (const char *)data + fkv_weight_bytes(format, from);
        if (from >= first) continue;
        const size_t at = fkv_weight_is_dtype(format)
                              ? first_in_dtype(chunk, (enum fkv_dtype)format, count)
                              : first_in_blocks(chunk, format, count);
        if (at < count) first = from + at;
    }
    return first;
}

static int check_finite(const struct fkv_role_tensor *t, const void *data, int threads,
                        struct fkv_error *err) {
    const size_t cols = (size_t)t->shape[t->dims - 1],
                 n = cols * (t->dims == 2 ? (size_t)t->shape[0] : 1),
                 at = first_not_finite(data, t->format, n, threads),
                 block = fkv_weight_block(t->format), in = at % block;
    if (at == n) return FKV_OK;
    float values[FKV_WEIGHT_MOST_BLOCK];
    fkv_weight_expand(t->format, (const char *)data + fkv_weight_bytes(t->format, at - in), block,
                      values);
    char index[48];
    if (t->dims == 1)
        snprintf(index, sizeof index, "[%zu]", at);
    else
        snprintf(index, sizeof index, "[%zu, %zu]", at / cols, at % cols);
    return fkv_fail(err, "%s: tensor %s: expected finite values, found %s at %s", t->path, t->name,
                    values[in] != values[in] ? "NaN" : "infinity", index);
}

/* ---- binding ---- */

enum pass { PASS_CHECK, PASS_LOAD };

struct binder {
    struct fkv_model *model;
    const struct fkv_model_options *options;
    enum pass pass;
    bool device; /* weights are copied to a device, and block formats expanded */
    int threads; /* for the check of values: the backend's */
};

static void print_shape(char text[96], const int64_t *shape, int32_t dims) {
    int used = snprintf(text, 96, "[");
    for (int32_t i = 0; i < dims && i < 4; i++)
        used += snprintf(text + used, 96 - (size_t)used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + used, 96 - (size_t)used, dims > 4 ? ", ...]" : "]");
}

/* Vectors are read value by value, so they are stored in a dtype. */
static int check_tensor(const struct fkv_role_tensor *t, int32_t rows, int32_t cols,
                        struct fkv_error *err) {
    if (!rows && !fkv_weight_is_dtype(t->format))
        return fkv_fail(err, "%s: tensor %s: dtype: expected F32, F16 or BF16 (a vector), found %s",
                        t->path, t->name, t->format_name);
    const int64_t expected[2] = {rows ? rows : cols, cols};
    int32_t dims = rows ? 2 : 1;
    if (t->dims != dims || t->shape[0] != expected[0] ||
        (dims == 2 && t->shape[1] != expected[1])) {
        char wanted[96], found[96];
        print_shape(wanted, expected, dims);
        print_shape(found, t->shape, t->dims);
        return fkv_fail(err, "%s: tensor %s: shape: expected %s, found %s", t->path, t->name,
                        wanted, found);
    }
    return FKV_OK;
}

/* Block formats are expanded to this dtype where they are copied to a device. */
static enum fkv_weight_format held_format(const struct binder *b, enum fkv_weight_format stored) {
    if (!b->device || fkv_weight_is_dtype(stored)) return stored;
    return (enum fkv_weight_format)b->options->expanded;
}

/* n values -> a buffer of the device, expanded some at a time. */
static int upload_expanded(const struct fkv_model *m, const void *data,
                           enum fkv_weight_format stored, enum fkv_dtype dtype, size_t n,
                           struct fkv_buffer **out, struct fkv_error *err) {
    enum { SOME = 1 << 20 };
    const size_t size = fkv_dtype_bytes(dtype);
    float *values = malloc(SOME * sizeof *values);
    char *converted = malloc(SOME * size);
    int status = values && converted ? FKV_OK : fkv_fail(err, "out of memory");
    *out = NULL;
    if (!status) status = m->ops->buffer_create(m->backend, n * size, out, err);
    for (size_t at = 0; at < n && !status; at += SOME) {
        const size_t count = n - at < SOME ? n - at : SOME;
        fkv_weight_expand(stored, (const char *)data + fkv_weight_bytes(stored, at), count, values);
        fkv_from_f32(values, dtype, count, converted);
        status = m->ops->write(m->backend, *out, at * size, converted, count * size, err);
    }
    if (status && *out) m->ops->buffer_release(m->backend, *out);
    free(values);
    free(converted);
    return status;
}

/* The tensor's data to the backend. A copy is kept as long as the host computes from it. */
static int place(const struct binder *b, const struct fkv_role_tensor *t, const void *data,
                 void *copy, struct fkv_weight *w, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    const size_t n = (size_t)w->rows * (size_t)w->cols;
    if (b->options->check_values && check_finite(t, data, b->threads, err)) return FKV_FAILED;
    if (w->format == t->format
            ? m->ops->buffer_adopt(m->backend, data, fkv_weight_bytes(t->format, n), &w->data, err)
            : upload_expanded(m, data, t->format, fkv_weight_dtype(w), n, &w->data, err))
        return fkv_error_prefix(err, "%s: tensor %s", t->path, t->name);
    m->buffers[m->buffer_count] = w->data;
    m->copies[m->buffer_count++] = b->device ? NULL : copy;
    return FKV_OK;
}

/* The tensor of a role, where the model has one. */
static int bind(const struct binder *b, enum fkv_role role, int32_t layer, struct fkv_weight *w,
                struct fkv_error *err) {
    struct fkv_model *m = b->model;
    struct fkv_role_tensor t;
    const void *data;
    void *copy;
    int32_t rows, cols;
    if (!fkv_role_present(&m->config, role)) return FKV_OK;
    fkv_role_shape(&m->config, role, &rows, &cols);
    if (fkv_checkpoint_find(m->checkpoint, role, layer, &t, err)) return FKV_FAILED;
    if (b->pass == PASS_CHECK) {
        if (check_tensor(&t, rows, cols, err)) return FKV_FAILED;
        const enum fkv_weight_format held = held_format(b, t.format);
        m->weight_bytes +=
            (int64_t)fkv_weight_bytes(held, (size_t)(rows ? rows : 1) * (size_t)cols);
        if (held != t.format) m->expanded_from = fkv_weight_name(t.format);
        m->buffer_capacity++;
        return FKV_OK;
    }
    *w = (struct fkv_weight){
        .format = held_format(b, t.format), .rows = rows ? rows : 1, .cols = cols};
    if (fkv_role_tensor_arrange(&t, m->config.head_dim, &data, &copy, err)) return FKV_FAILED;
    const int status = place(b, &t, data, copy, w, err);
    if (status || b->device) free(copy);
    return status;
}

static int bind_layer(const struct binder *b, int32_t layer, struct fkv_error *err) {
    struct fkv_layer_weights *w = &b->model->layers[layer];
    const struct {
        enum fkv_role role;
        struct fkv_weight *to;
    } tensors[] = {
        {FKV_ATTENTION_NORM, &w->qkv.norm},
        {FKV_QUERY, &w->qkv.wq},
        {FKV_KEY, &w->qkv.wk},
        {FKV_VALUE, &w->qkv.wv},
        {FKV_QUERY_BIAS, &w->qkv.bq},
        {FKV_KEY_BIAS, &w->qkv.bk},
        {FKV_VALUE_BIAS, &w->qkv.bv},
        {FKV_QUERY_NORM, &w->qkv.q_norm},
        {FKV_KEY_NORM, &w->qkv.k_norm},
        {FKV_OUTPUT, &w->wo},
        {FKV_MLP_NORM, &w->mlp_norm},
        {FKV_GATE, &w->gate},
        {FKV_UP, &w->up},
        {FKV_DOWN, &w->down},
    };
    w->qkv.eps = b->model->config.rms_eps;
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (bind(b, tensors[i].role, layer, tensors[i].to, err)) return FKV_FAILED;
    return FKV_OK;
}

static int bind_all(const struct binder *b, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    if (bind(b, FKV_EMBEDDING, 0, &m->embedding, err)) return FKV_FAILED;
    for (int32_t layer = 0; layer < m->config.layers; layer++)
        if (bind_layer(b, layer, err)) return FKV_FAILED;
    if (bind(b, FKV_FINAL_NORM, 0, &m->final_norm, err) || bind(b, FKV_HEAD, 0, &m->head, err))
        return FKV_FAILED;
    if (m->config.tied) m->head = m->embedding;
    return FKV_OK;
}

/* ---- life ---- */

/* Cuts the last part off `path` and returns it; "" when there is none. Slashes at the end do not
 * count. */
static const char *cut_last(char *path) {
    for (size_t n = strlen(path); n && path[n - 1] == '/'; n--) path[n - 1] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) return path;
    *slash = 0;
    return slash + 1;
}

/* A path -> its last part without ".gguf", but ".../models--ORG--NAME/snapshots/HASH" -> NAME. A
 * link's own name is what the user calls the model, so links are followed only where the path as
 * typed ends in "." or
 * "..". */
static void name_model(const char *from, char name[256]) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", from);
    const char *last = cut_last(path);
    if (*last == '.' && realpath(from, path)) last = cut_last(path);
    snprintf(name, 256, "%.255s", last);
    char *ending = strrchr(name, '.');
    if (ending && !strcmp(ending, ".gguf")) *ending = 0;
    if (last == path || strcmp(cut_last(path), "snapshots")) return;
    const char *cached = cut_last(path),
               *organisation = strncmp(cached, "models--", 8) ? NULL : strstr(cached + 8, "--");
    if (organisation) snprintf(name, 256, "%.255s", organisation + 2);
}

/* What is bound has to fit a device; the host maps it. */
static int check_memory(const struct fkv_model *m, const struct fkv_device_info *info,
                        struct fkv_error *err) {
    char bytes[16], needs[300];
    fkv_format_bytes(bytes, m->weight_bytes);
    snprintf(needs, sizeof needs, "%s: weights need %s", m->name, bytes);
    return fkv_check_device_memory(info, m->weight_bytes, needs, "", err);
}

static int load(struct fkv_model *m, const char *path, const struct fkv_model_options *options,
                struct fkv_error *err) {
    struct fkv_config *c = &m->config;
    struct fkv_device_info info;
    if (fkv_checkpoint_open(path, options->trained_context, &m->checkpoint, err) ||
        m->ops->info(m->backend, &info, err))
        return FKV_FAILED;
    *c = *fkv_checkpoint_config(m->checkpoint);
    const struct fkv_rope *rope = &c->rotations[0];
    m->attention = (struct fkv_attention_shape){.dim = c->dim,
                                                .heads = c->heads,
                                                .kv_heads = c->kv_heads,
                                                .head_dim = c->head_dim,
                                                .scale = c->attention_scale,
                                                .inv_freq = rope->inv_freq,
                                                .rotary = rope->channels,
                                                .gain = (float)rope->attention_factor};
    m->layers = calloc((size_t)c->layers, sizeof *m->layers);
    if (!m->layers) return fkv_fail(err, "%s: out of memory", path);
    name_model(path, m->name);
    struct binder binder = {.model = m,
                            .options = options,
                            .pass = PASS_CHECK,
                            .device = info.space == FKV_DEVICE,
                            .threads = info.threads ? info.threads : omp_get_max_threads()};
    if (bind_all(&binder, err) || check_memory(m, &info, err)) return FKV_FAILED;
    binder.pass = PASS_LOAD;
    m->buffers = calloc((size_t)m->buffer_capacity, sizeof *m->buffers);
    m->copies = calloc((size_t)m->buffer_capacity, sizeof *m->copies);
    if (!m->buffers || !m->copies) return fkv_fail(err, "%s: out of memory", path);
    return bind_all(&binder, err);
}

int fkv_model_open(const char *path, const struct fkv_backend_ops *ops, struct fkv_backend *backend,
                   const struct fkv_model_options *options, struct fkv_model **out,
                   struct fkv_error *err) {
    *out = NULL;
    struct fkv_model *m = calloc(1, sizeof *m);
    if (!m) return fkv_fail(err, "%s: out of memory", path);
    m->ops = ops;
    m->backend = backend;
    if (load(m, path, options, err)) {
        fkv_model_close(m);
        return FKV_FAILED;
    }
    *out = m;
    return FKV_OK;
}

void fkv_model_close(struct fkv_model *model) {
    if (!model) return;
    for (int32_t i = 0; i < model->buffer_count; i++) {
        model->ops->buffer_release(model->backend, model->buffers[i]);
        free(model->copies[i]);
    }
    free(model->buffers);
    free(model->copies);
    fkv_checkpoint_close(model->checkpoint);
    free(model->layers);
    free(model);
}
