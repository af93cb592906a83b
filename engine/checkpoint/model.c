/* Owns the binding of a checkpoint's tensors to the layers that use them; what it does not bind
 * takes no memory on a device.
 *
 * The tensors are gone through twice. First format and shape of all of them, which touches headers
 * only; that tells what the weights take, so that a model too large for a device is refused before
 * a byte is read. Then each is looked through for values that are not finite and given to the
 * backend, while its pages are still warm: copied to a device, where each is a buffer of its own,
 * or to the host's copy of all (held.c), or left where it is mapped. A device computes in dtypes
 * only: what is stored in a block format is expanded on its way there.
 *
 * What an adapter changes is formed in float32, and the host keeps it so. Rounded to bfloat16 the
 * sum is off by 47% of what the adapter adds where that is 0.3% of the weights, by 17% at 1%, by 6%
 * at 3% (norms, SmolLM2-135M). A device holds it in the base's dtype, in which it computes. */
#include "engine/checkpoint/model.h"

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

static int check_finite(const struct fkv_tensor *t, int threads, struct fkv_error *err) {
    const size_t cols = (size_t)t->shape[t->dims - 1],
                 n = cols * (t->dims == 2 ? (size_t)t->shape[0] : 1),
                 at = first_not_finite(t->data, t->format, n, threads),
                 block = fkv_weight_block(t->format), in = at % block;
    if (at == n) return FKV_OK;
    float values[FKV_WEIGHT_MOST_BLOCK];
    fkv_weight_expand(t->format, (const char *)t->data + fkv_weight_bytes(t->format, at - in),
                      block, values);
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
    bool device;  /* weights are copied to a device, and block formats expanded */
    bool rounded; /* options->rounded, on a host */
    int threads;  /* for the check of values: the backend's */
};

/* Vectors are read value by value, so they are stored in a dtype. */
static int check_tensor(const struct fkv_tensor *t, int32_t rows, int32_t cols,
                        struct fkv_error *err) {
    if (!rows && !fkv_weight_is_dtype(t->format))
        return fkv_fail(err, "%s: tensor %s: dtype: expected F32, F16 or BF16 (a vector), found %s",
                        t->path, t->name, t->format_name);
    return fkv_tensor_check_shape(t, rows, cols, err);
}

/* Block formats are expanded to a dtype where they are copied to a device; what an adapter adds to
 * is float32 on the host. */
static enum fkv_weight_format placed_format(const struct binder *b, enum fkv_weight_format stored,
                                            bool adds) {
    if (!b->device) return adds ? FKV_WEIGHT_F32 : stored;
    if (adds && b->options->expanded == FKV_F32) return FKV_WEIGHT_F32;
    return fkv_weight_is_dtype(stored) ? stored : (enum fkv_weight_format)b->options->expanded;
}

/* In a host's copy, where matrices of products may be rounded. */
static enum fkv_weight_format held_format(const struct binder *b, bool matrix,
                                          const struct fkv_weight *w) {
    const bool rounded = b->rounded && matrix && w != &b->model->embedding;
    return rounded ? fkv_held_rounded(w->format) : w->format;
}

/* n values -> a buffer of the device, expanded some at a time. */
static int upload_expanded(const struct fkv_model *m, const struct fkv_tensor *t,
                           enum fkv_dtype dtype, size_t n, struct fkv_buffer **out,
                           struct fkv_error *err) {
    enum { SOME = 1 << 20 };
    const size_t size = fkv_dtype_bytes(dtype);
    float *values = malloc(SOME * sizeof *values);
    char *converted = malloc(SOME * size);
    int status = values && converted ? FKV_OK : fkv_fail(err, "out of memory");
    *out = NULL;
    if (!status) status = m->ops->buffer_create(m->backend, n * size, out, err);
    for (size_t at = 0; at < n && !status; at += SOME) {
        const size_t count = n - at < SOME ? n - at : SOME;
        fkv_weight_expand(t->format, (const char *)t->data + fkv_weight_bytes(t->format, at), count,
                          values);
        fkv_from_f32(values, dtype, count, converted);
        status = m->ops->write(m->backend, *out, at * size, converted, count * size, err);
    }
    if (status && *out) m->ops->buffer_release(m->backend, *out);
    free(values);
    free(converted);
    return status;
}

/* The tensor's data to the backend, in the weight's format. */
static int place(const struct binder *b, const struct fkv_tensor *t, struct fkv_weight *w,
                 struct fkv_error *err) {
    struct fkv_model *m = b->model;
    const size_t n = (size_t)w->rows * (size_t)w->cols;
    if (b->options->check_values && check_finite(t, b->threads, err)) return FKV_FAILED;
    if (m->held.buffer) return fkv_held_add(&m->held, t->data, t->format, w, err);
    if (w->format == t->format ? m->ops->buffer_adopt(m->backend, t->data,
                                                      fkv_weight_bytes(t->format, n), &w->data, err)
                               : upload_expanded(m, t, fkv_weight_dtype(w), n, &w->data, err))
        return fkv_error_prefix(err, "%s: tensor %s", t->path, t->name);
    m->buffers[m->buffer_count++] = w->data;
    return FKV_OK;
}

/* The tensor of a role: the adapter's, or the base's. A tied base has its embedding for a head. */
static int find(const struct fkv_model *m, enum fkv_role role, int32_t layer, struct fkv_tensor *t,
                struct fkv_error *err) {
    if (m->adapter && fkv_adapter_find(m->adapter, role, layer, t))
        return fkv_tensor_check_dtype(t, err);
    if (role == FKV_HEAD && fkv_checkpoint_config(m->checkpoint)->tied) role = FKV_EMBEDDING;
    return fkv_checkpoint_find(m->checkpoint, role, layer, t, err);
}

/* Replaces the tensor's data by its values with what the adapter adds, in a new *copy. */
static int merge(const struct fkv_model *m, enum fkv_role role, int32_t layer, struct fkv_tensor *t,
                 void **copy, struct fkv_error *err) {
    int32_t rows, cols;
    fkv_role_shape(&m->config, role, &rows, &cols);
    const size_t n = (size_t)(rows ? rows : 1) * (size_t)cols;
    float *values = malloc(n * sizeof *values);
    if (!values)
        return fkv_fail(err, "%s: tensor %s: out of memory for %zu bytes with the adapter added",
                        t->path, t->name, n * sizeof *values);
    fkv_weight_expand(t->format, t->data, n, values);
    free(*copy);
    t->data = *copy = values;
    t->format = FKV_WEIGHT_F32;
    return fkv_adapter_add(m->adapter, role, layer, rows, cols, values, err);
}

/* What the weight takes mapped or on a device, and what in a host's copy. */
static void count(const struct binder *b, const struct fkv_tensor *t, bool adds, bool matrix,
                  const struct fkv_weight *w) {
    struct fkv_model *m = b->model;
    const size_t n = (size_t)w->rows * (size_t)w->cols;
    const enum fkv_weight_format held = held_format(b, matrix, w);
    const bool twice = m->config.tied && w == &m->logits.w; /* the embedding, which was counted */
    m->buffer_capacity++;
    m->held_bytes += (int64_t)fkv_weight_bytes(held, n);
    m->rounds |= held != w->format;
    if (!twice) m->weight_bytes += (int64_t)fkv_weight_bytes(w->format, n);
    if (adds && !b->device && !twice) m->merged_bytes += (int64_t)fkv_weight_bytes(w->format, n);
    if (b->device && !adds && w->format != t->format) m->expanded_from = fkv_weight_name(t->format);
}

/* The tensor of a role. */
static int bind(const struct binder *b, enum fkv_role role, int32_t layer, struct fkv_weight *w,
                struct fkv_error *err) {
    struct fkv_model *m = b->model;
    struct fkv_tensor t;
    void *copy;
    int32_t rows, cols;
    fkv_role_shape(&m->config, role, &rows, &cols);
    if (find(m, role, layer, &t, err)) return FKV_FAILED;
    const bool adds = m->adapter && fkv_adapter_adds(m->adapter, role, layer);
    const enum fkv_weight_format stored = t.less_one ? FKV_WEIGHT_F32 : t.format;
    *w = (struct fkv_weight){
        .format = placed_format(b, stored, adds), .rows = rows ? rows : 1, .cols = cols};
    if (b->pass == PASS_CHECK) {
        if (check_tensor(&t, rows, cols, err)) return FKV_FAILED;
        count(b, &t, adds, rows > 0, w);
        return FKV_OK;
    }
    if (m->held.buffer) w->format = held_format(b, rows > 0, w);
    if (fkv_role_tensor_arrange(&t, m->config.head_dim, &copy, err)) return FKV_FAILED;
    int status = adds ? merge(m, role, layer, &t, &copy, err) : FKV_OK;
    if (!status) status = place(b, &t, w, err);
    if (!status && !b->device && !m->held.buffer)
        m->copies[m->buffer_count - 1] = copy; /* as long as the host computes from it */
    else
        free(copy);
    return status;
}

static int bind_layer(const struct binder *b, int32_t layer, struct fkv_error *err) {
    struct fkv_layer_weights *l = &b->model->layers[layer];
    const struct {
        enum fkv_role role;
        struct fkv_weight *to;
    } tensors[] = {
        {FKV_ATTENTION_NORM, &l->qkv.norm},
        {FKV_QUERY, &l->qkv.wq},
        {FKV_KEY, &l->qkv.wk},
        {FKV_VALUE, &l->qkv.wv},
        {FKV_QUERY_BIAS, &l->qkv.bq},
        {FKV_KEY_BIAS, &l->qkv.bk},
        {FKV_VALUE_BIAS, &l->qkv.bv},
        {FKV_QUERY_NORM, &l->qkv.q_norm},
        {FKV_KEY_NORM, &l->qkv.k_norm},
        {FKV_OUTPUT, &l->output.w},
        {FKV_ATTENTION_OUTPUT_NORM, &l->output.norm},
        {FKV_MLP_NORM, &l->mlp.norm},
        {FKV_GATE, &l->mlp.gate},
        {FKV_UP, &l->mlp.up},
        {FKV_DOWN, &l->down.w},
        {FKV_MLP_OUTPUT_NORM, &l->down.norm},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (fkv_role_present(&b->model->config, tensors[i].role) &&
            bind(b, tensors[i].role, layer, tensors[i].to, err))
            return FKV_FAILED;
    return FKV_OK;
}

/* A tied head is the embedding, unless the host's copy rounds it. */
static int bind_head(const struct binder *b, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    if (!m->config.tied) return bind(b, FKV_HEAD, 0, &m->logits.w, err);
    const bool copied = b->pass == PASS_CHECK || m->held.buffer;
    m->logits.w = m->embedding;
    if (copied && held_format(b, true, &m->logits.w) != m->embedding.format)
        return bind(b, FKV_EMBEDDING, 0, &m->logits.w, err);
    return FKV_OK;
}

static int bind_all(const struct binder *b, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    if (bind(b, FKV_EMBEDDING, 0, &m->embedding, err)) return FKV_FAILED;
    for (int32_t layer = 0; layer < m->config.layers; layer++) {
        if (bind_layer(b, layer, err)) return FKV_FAILED;
        if (b->pass == PASS_LOAD && m->held.buffer) fkv_checkpoint_unload(m->checkpoint);
    }
    if (bind(b, FKV_FINAL_NORM, 0, &m->logits.norm, err)) return FKV_FAILED;
    return bind_head(b, err);
}

/* What the config says of the layers and of what follows them. */
static void set_numbers(struct fkv_model *m) {
    const struct fkv_config *c = &m->config;
    const float eps = c->rms_eps;
    m->attention = (struct fkv_attention_shape){.dim = c->dim,
                                                .heads = c->heads,
                                                .kv_heads = c->kv_heads,
                                                .head_dim = c->head_dim,
                                                .scale = c->attention_scale,
                                                .inv_freq = c->rotations[0].inv_freq,
                                                .rotary = c->rotations[0].channels,
                                                .gain = (float)c->rotations[0].attention_factor,
                                                .softcap = c->attention_softcap};
    for (int32_t i = 0; i < c->layers; i++) {
        struct fkv_layer_weights *l = &m->layers[i];
        l->qkv.eps = l->output.eps = l->mlp.eps = l->down.eps = eps;
        l->output.multiplier = l->down.multiplier = c->residual_multiplier;
        l->mlp.activation = c->activation;
    }
    m->logits.eps = eps;
    m->logits.multiplier = c->logits_multiplier;
    m->logits.softcap = c->logits_softcap;
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

/* What is bound has to fit a device; the host maps it, apart from what an adapter adds to, or has a
 * copy where memory allows. */
static int check_memory(const struct fkv_model *m, const struct fkv_device_info *info,
                        struct fkv_error *err) {
    char bytes[16], needs[300];
    const int64_t available = m->merged_bytes && !m->held.buffer ? fkv_host_memory_available() : -1;
    if (available >= 0 && m->merged_bytes > available) {
        char there[16];
        fkv_format_bytes(bytes, m->merged_bytes);
        fkv_format_bytes(there, available);
        return fkv_fail(err,
                        "%s: the weights that the adapter changes take %s of memory in float32, %s "
                        "are available",
                        m->name, bytes, there);
    }
    fkv_format_bytes(bytes, m->weight_bytes);
    snprintf(needs, sizeof needs, "%s: weights need %s", m->name, bytes);
    return fkv_check_device_memory(info, m->weight_bytes, needs, "", err);
}

/* A copy that is rounded saves more than one that is not, and may take more of what is available
 * (-1: not known): half, or a quarter, so that a session finds the rest. */
static void create_copy(struct fkv_model *m, int64_t available) {
    const int64_t most = available < 0 ? -1 : available / (m->rounds ? 2 : 4);
    fkv_held_create(m->ops, m->backend, m->held_bytes, m->buffer_capacity, most, &m->held);
}

/* Opens the adapter and makes the config that of the two together. */
static int open_adapter(struct fkv_model *m, const char *path, struct fkv_error *err) {
    struct fkv_config *c = &m->config;
    if (fkv_adapter_open(path, c, &m->adapter, err)) return FKV_FAILED;
    c->vocab = fkv_adapter_vocab(m->adapter);
    c->tied = c->tied && !fkv_adapter_unties(m->adapter);
    const size_t used = strlen(m->name);
    name_model(path, m->adapter_name);
    snprintf(m->name + used, sizeof m->name - used, "+%s", m->adapter_name);
    return FKV_OK;
}

static int load(struct fkv_model *m, const char *path, const struct fkv_model_options *options,
                struct fkv_error *err) {
    struct fkv_config *c = &m->config;
    struct fkv_device_info info;
    if (fkv_checkpoint_open(path, options->trained_context, &m->checkpoint, err) ||
        m->ops->info(m->backend, &info, err))
        return FKV_FAILED;
    *c = *fkv_checkpoint_config(m->checkpoint);
    if (options->rope_scaling.kind && fkv_config_rescale(c, &options->rope_scaling, err))
        return FKV_FAILED;
    name_model(path, m->name);
    if (options->adapter && open_adapter(m, options->adapter, err)) return FKV_FAILED;
    m->layers = calloc((size_t)c->layers, sizeof *m->layers);
    if (!m->layers) return fkv_fail(err, "%s: out of memory", path);
    set_numbers(m);
    struct binder binder = {.model = m,
                            .options = options,
                            .pass = PASS_CHECK,
                            .device = info.space == FKV_DEVICE,
                            .rounded = options->rounded && info.space != FKV_DEVICE,
                            .threads = info.threads ? info.threads : omp_get_max_threads()};
    if (bind_all(&binder, err)) return FKV_FAILED;
    if (!binder.device && (options->held || m->rounds)) create_copy(m, info.memory_free);
    if (check_memory(m, &info, err)) return FKV_FAILED;
    if (m->held.buffer) m->weight_bytes = m->held_bytes;
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

int fkv_model_sha256(const struct fkv_model *m, fkv_sha256_hex out, struct fkv_error *err) {
    char both[2 * sizeof(fkv_sha256_hex)];
    if (fkv_checkpoint_sha256(m->checkpoint, out, err)) return FKV_FAILED;
    if (!m->adapter) return FKV_OK;
    const int bytes = snprintf(both, sizeof both, "%s%s", out, fkv_adapter_sha256(m->adapter));
    return fkv_sha256_memory(both, (size_t)bytes, out, err);
}

const char *fkv_model_adapter_sha256(const struct fkv_model *m) {
    return m->adapter ? fkv_adapter_sha256(m->adapter) : "";
}

void fkv_model_close(struct fkv_model *model) {
    if (!model) return;
    fkv_adapter_close(model->adapter);
    for (int32_t i = 0; i < model->buffer_count; i++) {
        model->ops->buffer_release(model->backend, model->buffers[i]);
        free(model->copies[i]);
    }
    fkv_held_release(&model->held);
    free(model->buffers);
    free(model->copies);
    fkv_checkpoint_close(model->checkpoint);
    free(model->layers);
    free(model);
}
