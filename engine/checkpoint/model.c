/* Owns the binding of a checkpoint's tensors to the layers that use them; what it does not bind is
 * ignored (old files carry rotary_emb.inv_freq, others extra heads) and takes no memory on a
 * device.
 *
 * The tensors are gone through twice. First name, dtype, shape and alignment of all of them, one
 * call per tensor, which touches headers only; that tells what the weights take, so that a model
 * too large for a device is refused before a byte is read. Then each is looked through for values
 * that are not finite and given to the backend, while its pages are still warm; each is a buffer of
 * its own, so that it is aligned.
 *
 * A checkpoint that says it is tied and yet brings lm_head.weight has its own head used:
 * transformers 5 ties only where both are equal, which is the same numbers. */
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

/* The index of the first element that is not finite, or n. */
static size_t first_not_finite(const void *data, enum fkv_dtype dtype, size_t n, int threads) {
    size_t size = fkv_dtype_bytes(dtype), first = n;
    int64_t chunks = (int64_t)((n + CHECK_CHUNK - 1) / CHECK_CHUNK);
    if (chunks < PARALLEL_CHUNKS) threads = 1;
#pragma omp parallel for schedule(dynamic, 8) reduction(min : first) num_threads(threads)
    for (int64_t c = 0; c < chunks; c++) {
        size_t from = (size_t)c * CHECK_CHUNK,
               count = n - from < CHECK_CHUNK ? n - from : CHECK_CHUNK;
        const char *chunk = (const char *)data + from * size;
        if (from >= first || !any_not_finite(chunk, dtype, count)) continue;
        for (size_t i = 0; i < count && first > from + i; i++)
            if (any_not_finite(chunk + i * size, dtype, 1)) first = from + i;
    }
    return first;
}

static int check_finite(const struct fkv_tensor *t, const struct fkv_weight *w, int threads,
                        const char *path, const char *name, struct fkv_error *err) {
    size_t n = (size_t)w->rows * (size_t)w->cols,
           at = first_not_finite(t->data, t->dtype, n, threads);
    if (at == n) return FKV_OK;
    float value;
    fkv_to_f32((const char *)t->data + at * fkv_dtype_bytes(t->dtype), t->dtype, 1, &value);
    char index[48];
    if (t->dims == 1)
        snprintf(index, sizeof index, "[%zu]", at);
    else
        snprintf(index, sizeof index, "[%zu, %zu]", at / (size_t)w->cols, at % (size_t)w->cols);
    return fkv_fail(err, "%s: tensor %s: expected finite values, found %s at %s", path, name,
                    value != value ? "NaN" : "infinity", index);
}

/* ---- binding ---- */

enum pass { PASS_CHECK, PASS_LOAD };

struct binder {
    struct fkv_model *model;
    const char *directory;
    bool check_values;
    enum pass pass;
    int threads; /* for the check of values: the backend's */
};

static void print_shape(char text[96], const int64_t *shape, int32_t dims) {
    int used = snprintf(text, 96, "[");
    for (int32_t i = 0; i < dims && i < 4; i++)
        used += snprintf(text + used, 96 - (size_t)used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + used, 96 - (size_t)used, dims > 4 ? ", ...]" : "]");
}

static int check_tensor(const struct fkv_tensor *t, const char *path, const char *name,
                        int32_t rows, int32_t cols, struct fkv_error *err) {
    if (!t->computable)
        return fkv_fail(err, "%s: tensor %s: dtype: expected F32, F16 or BF16, found %s", path,
                        name, t->format);
    const int64_t expected[2] = {rows ? rows : cols, cols};
    int32_t dims = rows ? 2 : 1;
    if (t->dims != dims || t->shape[0] != expected[0] ||
        (dims == 2 && t->shape[1] != expected[1])) {
        char wanted[96], found[96];
        print_shape(wanted, expected, dims);
        print_shape(found, t->shape, t->dims);
        return fkv_fail(err, "%s: tensor %s: shape: expected %s, found %s", path, name, wanted,
                        found);
    }
    if ((uintptr_t)t->data % fkv_dtype_bytes(t->dtype))
        return fkv_fail(err,
                        "%s: tensor %s: data offset: expected a multiple of %zu, found %zu (save "
                        "the file again)",
                        path, name, fkv_dtype_bytes(t->dtype), t->offset);
    return FKV_OK;
}

/* The tensor `name` as a matrix (rows, cols), or as a vector [cols] where rows is 0. */
static int bind(const struct binder *b, const char *name, int32_t rows, int32_t cols,
                struct fkv_weight *w, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    const struct fkv_tensor *t = fkv_safetensors_find(m->files, name);
    if (!t)
        return fkv_fail(err, "%s: tensor %s: expected in the safetensors files, found nothing",
                        b->directory, name);
    const char *path = fkv_safetensors_path(m->files, t->file);
    if (b->pass == PASS_CHECK) {
        m->weight_bytes += (int64_t)t->bytes;
        m->buffer_capacity++;
        return check_tensor(t, path, name, rows, cols, err);
    }
    *w = (struct fkv_weight){.format = (enum fkv_weight_format)t->dtype, .rows = rows ? rows : 1, .cols = cols};
    if (b->check_values && check_finite(t, w, b->threads, path, name, err)) return FKV_FAILED;
    if (m->ops->buffer_adopt(m->backend, t->data, t->bytes, &w->data, err))
        return fkv_error_prefix(err, "%s: tensor %s", path, name);
    m->buffers[m->buffer_count++] = w->data;
    return FKV_OK;
}

static int bind_layer(const struct binder *b, int32_t layer, struct fkv_error *err) {
    const struct fkv_config *c = &b->model->config;
    struct fkv_layer_weights *w = &b->model->layers[layer];
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
        const char *name;
        int32_t rows, cols; /* rows 0: a vector */
        bool present;
        struct fkv_weight *to;
    } tensors[] = {
        {"input_layernorm.weight", 0, c->dim, true, &w->qkv.norm},
        {"self_attn.q_proj.weight", q, c->dim, true, &w->qkv.wq},
        {"self_attn.k_proj.weight", kv, c->dim, true, &w->qkv.wk},
        {"self_attn.v_proj.weight", kv, c->dim, true, &w->qkv.wv},
        {"self_attn.q_proj.bias", 0, q, c->qkv_bias, &w->qkv.bq},
        {"self_attn.k_proj.bias", 0, kv, c->qkv_bias, &w->qkv.bk},
        {"self_attn.v_proj.bias", 0, kv, c->qkv_bias, &w->qkv.bv},
        {"self_attn.q_norm.weight", 0, c->head_dim, c->qk_norm, &w->qkv.q_norm},
        {"self_attn.k_norm.weight", 0, c->head_dim, c->qk_norm, &w->qkv.k_norm},
        {"self_attn.o_proj.weight", c->dim, q, true, &w->wo},
        {"post_attention_layernorm.weight", 0, c->dim, true, &w->mlp_norm},
        {"mlp.gate_proj.weight", c->hidden, c->dim, true, &w->gate},
        {"mlp.up_proj.weight", c->hidden, c->dim, true, &w->up},
        {"mlp.down_proj.weight", c->dim, c->hidden, true, &w->down},
    };
    w->qkv.eps = c->rms_eps;
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, tensors[i].name);
        if (tensors[i].present &&
            bind(b, name, tensors[i].rows, tensors[i].cols, tensors[i].to, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int bind_all(const struct binder *b, struct fkv_error *err) {
    struct fkv_model *m = b->model;
    struct fkv_config *c = &m->config;
    if (bind(b, "model.embed_tokens.weight", c->vocab, c->dim, &m->embedding, err))
        return FKV_FAILED;
    for (int32_t layer = 0; layer < c->layers; layer++)
        if (bind_layer(b, layer, err)) return FKV_FAILED;
    if (bind(b, "model.norm.weight", 0, c->dim, &m->final_norm, err)) return FKV_FAILED;
    if (fkv_safetensors_find(m->files, "lm_head.weight")) c->tied = false;
    if (!c->tied) return bind(b, "lm_head.weight", c->vocab, c->dim, &m->head, err);
    m->head = m->embedding;
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

/* A path -> its last part, but ".../models--ORG--NAME/snapshots/HASH" -> NAME. A link's own name is
 * what the user calls the model, so links are followed only where the path as typed ends in "." or
 * "..". */
static void name_model(const char *directory, char name[256]) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", directory);
    const char *last = cut_last(path);
    if (*last == '.' && realpath(directory, path)) last = cut_last(path);
    snprintf(name, 256, "%.255s", last);
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

static int load(struct fkv_model *m, const char *directory, bool check_values,
                struct fkv_error *err) {
    struct fkv_config *c = &m->config;
    struct fkv_device_info info;
    if (fkv_config_load(directory, c, err) || fkv_safetensors_open(directory, &m->files, err))
        return FKV_FAILED;
    m->attention = (struct fkv_attention_shape){c->dim,      c->heads,           c->kv_heads,
                                                c->head_dim, c->attention_scale, c->inv_freq};
    m->layers = calloc((size_t)c->layers, sizeof *m->layers);
    if (!m->layers) return fkv_fail(err, "%s: out of memory", directory);
    name_model(directory, m->name);
    struct binder binder = {m, directory, check_values, PASS_CHECK, 1};
    if (bind_all(&binder, err) || m->ops->info(m->backend, &info, err) ||
        check_memory(m, &info, err))
        return FKV_FAILED;
    binder.pass = PASS_LOAD;
    binder.threads = info.threads ? info.threads : omp_get_max_threads();
    m->buffers = calloc((size_t)m->buffer_capacity, sizeof *m->buffers);
    if (!m->buffers) return fkv_fail(err, "%s: out of memory", directory);
    return bind_all(&binder, err);
}

int fkv_model_open(const char *directory, const struct fkv_backend_ops *ops,
                   struct fkv_backend *backend, bool check_values, struct fkv_model **out,
                   struct fkv_error *err) {
    *out = NULL;
    struct fkv_model *m = calloc(1, sizeof *m);
    if (!m) return fkv_fail(err, "%s: out of memory", directory);
    m->ops = ops;
    m->backend = backend;
    if (load(m, directory, check_values, err)) {
        fkv_model_close(m);
        return FKV_FAILED;
    }
    *out = m;
    return FKV_OK;
}

void fkv_model_close(struct fkv_model *model) {
    if (!model) return;
    for (int32_t i = 0; i < model->buffer_count; i++)
        model->ops->buffer_release(model->backend, model->buffers[i]);
    free(model->buffers);
    fkv_safetensors_close(model->files);
    free(model->layers);
    free(model);
}
