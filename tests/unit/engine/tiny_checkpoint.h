/* A tiny checkpoint, complete or changed in one place, and a backend that only counts what it is
 * given. */
#ifndef FKV_TESTS_TINY_CHECKPOINT_H
#define FKV_TESTS_TINY_CHECKPOINT_H

#include "engine/checkpoint/model.h"
#include "tests/unit/engine/weights_file.h"

/* ---- a backend that holds buffers and nothing else ---- */

struct fkv_buffer {
    const void *host;
    size_t bytes;
};

static int buffers_held, buffers_made;
static bool adopting_fails;
static struct fkv_device_info device; /* of the host, unless a test says otherwise */

static int adopt(struct fkv_backend *b, const void *host, size_t bytes, struct fkv_buffer **out,
                 struct fkv_error *err) {
    (void)b;
    if (adopting_fails) return fkv_fail(err, "no room");
    *out = malloc(sizeof **out);
    assert_non_null(*out);
    (*out)->host = host;
    (*out)->bytes = bytes;
    buffers_held++;
    buffers_made++;
    return FKV_OK;
}

static void release(struct fkv_backend *b, struct fkv_buffer *buffer) {
    (void)b;
    if (buffer) buffers_held--;
    free(buffer);
}

static int info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *err) {
    (void)b, (void)err;
    *out = device;
    return FKV_OK;
}

static const struct fkv_backend_ops ops = {
    .info = info, .buffer_adopt = adopt, .buffer_release = release};

/* ---- a tiny checkpoint, complete or changed in one place ---- */

enum { DIM = 8, HIDDEN = 12, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 6, VOCAB = 10, LAYERS = 2 };

struct change {
    const char *tensor, *shape,
        *format; /* of this tensor: another shape or dtype; both NULL: left out */
    int element; /* with a value: this element is set to it */
    float value;
    const void *data; /* with shape and format: the whole tensor */
    size_t bytes;
};

static void add(struct weights_file *w, const struct change *change, const char *name, int rows,
                int cols) {
    bool changed = change && !strcmp(change->tensor, name);
    float values[2 * HEADS * HEAD_DIM * HIDDEN];
    char shape[32];
    int n = (rows ? rows : 1) * cols;
    assert_in_range(n, 1, sizeof values / sizeof *values);
    test_fill(values, (size_t)n, 0, 1);
    if (rows)
        snprintf(shape, sizeof shape, "[%d,%d]", rows, cols);
    else
        snprintf(shape, sizeof shape, "[%d]", cols);
    if (!changed)
        weights_add(w, name, "F32", shape, values, (size_t)n * 4);
    else if (change->value != 0) {
        values[change->element] = change->value;
        weights_add(w, name, "F32", shape, values, (size_t)n * 4);
    } else if (change->data)
        weights_add(w, name, change->format, change->shape, change->data, change->bytes);
    else if (change->shape)
        weights_add(w, name, "F32", change->shape, values, (size_t)n * 4);
    else if (change->format)
        weights_add(w, name, change->format, shape, NULL, (size_t)n);
}

static void write_config(const char *model_type, bool tied, int vocab) {
    char text[512];
    snprintf(text, sizeof text,
             "{\"model_type\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d, "
             "\"num_hidden_layers\": %d, "
             "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
             "\"vocab_size\": %d, "
             "\"sliding_window\": null, \"tie_word_embeddings\": %s}",
             model_type, DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, vocab,
             tied ? "true" : "false");
    test_write_text(test_path(folder, "config.json"), text);
}

/* How tensors are saved: what stands in front of all names but the head's, and bytes before the
 * first one. */
static const char *prefix = "model.";
static int skipped;

static void write_checkpoint(const char *model_type, bool tied, bool head,
                             const struct change *change) {
    const struct {
        const char *name, *only; /* only: the family that has it */
        int rows, cols;
    } tensors[] = {{"input_layernorm.weight", NULL, 0, DIM},
                   {"self_attn.q_proj.weight", NULL, HEADS * HEAD_DIM, DIM},
                   {"self_attn.k_proj.weight", NULL, KV_HEADS * HEAD_DIM, DIM},
                   {"self_attn.v_proj.weight", NULL, KV_HEADS * HEAD_DIM, DIM},
                   {"self_attn.q_proj.bias", "qwen2", 0, HEADS * HEAD_DIM},
                   {"self_attn.k_proj.bias", "qwen2", 0, KV_HEADS * HEAD_DIM},
                   {"self_attn.v_proj.bias", "qwen2", 0, KV_HEADS * HEAD_DIM},
                   {"self_attn.q_norm.weight", "qwen3", 0, HEAD_DIM},
                   {"self_attn.k_norm.weight", "qwen3", 0, HEAD_DIM},
                   {"self_attn.o_proj.weight", NULL, DIM, HEADS * HEAD_DIM},
                   {"post_attention_layernorm.weight", NULL, 0, DIM},
                   {"mlp.gate_proj.weight", NULL, HIDDEN, DIM},
                   {"mlp.up_proj.weight", NULL, HIDDEN, DIM},
                   {"mlp.down_proj.weight", NULL, DIM, HIDDEN}};
    struct weights_file w = {0};
    write_config(model_type, tied, VOCAB);
    char name[96];
    if (skipped) weights_add(&w, "model.rotary_emb.inv_freq", "U8", "[3]", NULL, (size_t)skipped);
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    add(&w, change, name, VOCAB, DIM);
    for (int layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
            snprintf(name, sizeof name, "%slayers.%d.%s", prefix, layer, tensors[i].name);
            if (!tensors[i].only || !strcmp(tensors[i].only, model_type))
                add(&w, change, name, tensors[i].rows, tensors[i].cols);
        }
    snprintf(name, sizeof name, "%snorm.weight", prefix);
    add(&w, change, name, 0, DIM);
    if (head) add(&w, change, "lm_head.weight", VOCAB, DIM);
    weights_write(&w, folder, "model.safetensors");
}

static struct fkv_model *opened(void) {
    struct fkv_model *model;
    assert_ok(fkv_model_open(folder, &ops, NULL, &(struct fkv_model_options){.check_values = true},
                             &model, &err));
    return model;
}

static void open_refused(bool check_values, const char *text) {
    struct fkv_model *model = (void *)1;
    assert_refused(fkv_model_open(folder, &ops, NULL,
                                  &(struct fkv_model_options){.check_values = check_values}, &model,
                                  &err),
                   text);
    if (!strstr(err.message, folder)) fail_msg("message \"%s\" names no file", err.message);
    assert_null(model);
    assert_int_equal(buffers_held, 0);
}

#endif
