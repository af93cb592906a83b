/* A checkpoint as a GGUF file. Its metadata are put in the words of a Hugging Face config and read
 * by config_read.c, so that both formats go through the same checks and defaults; the names of keys
 * and tensors are those of llama.cpp's converter.
 *
 * What differs from a Hugging Face folder:
 *  - llama.cpp rotates neighbouring channels, so for some architectures its converter stores the
 *    rows of a head's queries and keys in pairs; they are put back in a copy.
 *  - The frequencies of Llama 3.1 come as a tensor of divisors, rope_freqs.weight.
 *  - A missing output.weight means a tied head.
 *  - Norms of Gemma are stored as they are applied: the converter has added 1. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/gguf.h"
#include "engine/checkpoint/gguf_rope.h"
#include "kernels/base/json.h"

/* ---- config ---- */

static int find_architecture(const struct fkv_gguf *g, const struct fkv_family **out,
                             struct fkv_error *err) {
    struct fkv_gguf_string name;
    int64_t parts = 1;
    char text[65];
    if (fkv_gguf_get_int(g, "split.count", false, 0, INT32_MAX, &parts, err)) return FKV_FAILED;
    if (parts > 1) /* the parts behind the first have no architecture */
        return fkv_fail(err,
                        "%s: key split.count: expected 1, found %lld (join the parts with "
                        "llama-gguf-split --merge)",
                        fkv_gguf_path(g), (long long)parts);
    struct fkv_gguf_string type = {"model", 5};
    if (fkv_gguf_get_string(g, "general.type", false, &type, err) ||
        fkv_gguf_get_string(g, "general.architecture", true, &name, err))
        return FKV_FAILED;
    if (type.bytes == 7 && !memcmp(type.text, "adapter", 7))
        return fkv_fail(err,
                        "%s: key general.type: expected model, found adapter; give its base as "
                        "--model, and as --adapter the folder of PEFT that it was made from",
                        fkv_gguf_path(g));
    snprintf(text, sizeof text, "%.*s", name.bytes < 64 ? (int)name.bytes : 64, name.text);
    *out = fkv_family_find_architecture(text);
    if (!*out)
        return fkv_fail(err, "%s: key general.architecture: expected %s, found %s",
                        fkv_gguf_path(g), fkv_family_architectures(), text);
    return FKV_OK;
}

/* The key ARCHITECTURE.rest */
static const char *key_of(const struct fkv_family *f, const char *rest, char key[96]) {
    snprintf(key, 96, "%s.%s", f->architecture, rest);
    return key;
}

/* The sizes and numbers that have a field of their own. */
static int add_numbers(const struct fkv_gguf *g, const struct fkv_family *f, json_t *config,
                       struct fkv_error *err) {
    static const struct {
        const char *rest, *field;
        bool real, required, zero_is_none; /* the last: 0 is as good as no key */
    } numbers[] = {
        {"block_count", "num_hidden_layers", false, true, false},
        {"embedding_length", "hidden_size", false, true, false},
        {"feed_forward_length", "intermediate_size", false, true, false},
        {"context_length", "max_position_embeddings", false, true, false},
        {"attention.head_count", "num_attention_heads", false, true, false},
        {"attention.head_count_kv", "num_key_value_heads", false, false, false},
        {"attention.key_length", "head_dim", false, false, false},
        {"attention.sliding_window", "sliding_window", false, false, true},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true, false},
        {"rope.freq_base", "rope_theta", true, false, false},
        {"rope.freq_base_swa", "rope_local_base_freq", true, false, false},
        {"attention.scale", "attention_multiplier", true, false, true},
        {"embedding_scale", "embedding_multiplier", true, false, true},
        {"residual_scale", "residual_multiplier", true, false, true},
        {"logit_scale", "logits_scaling", true, false, true},
        {"attn_logit_softcapping", "attn_logit_softcapping", true, false, false},
        {"final_logit_softcapping", "final_logit_softcapping", true, false, false},
    };
    char key[96];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t integer = 0;
        double real = 0;
        key_of(f, numbers[i].rest, key);
        const bool zero_is_none = numbers[i].zero_is_none, required = numbers[i].required;
        if (numbers[i].real
                ? fkv_gguf_get_double(g, key, required, 0, 1e15, &real, err)
                : fkv_gguf_get_int(g, key, required, !zero_is_none, INT32_MAX, &integer, err))
            return FKV_FAILED;
        if (fkv_gguf_has(g, key) && !(zero_is_none && real == 0 && integer == 0))
            json_object_set_new(config, numbers[i].field,
                                numbers[i].real ? json_real(real) : json_integer(integer));
    }
    /* llama.cpp's defaults where they are not those of the family */
    const json_t *heads = json_object_get(config, "num_attention_heads"),
                 *dim = json_object_get(config, "hidden_size");
    if (!json_object_get(config, "rope_theta"))
        json_object_set_new(config, "rope_theta", json_real(10000));
    if (!json_object_get(config, "num_key_value_heads"))
        json_object_set(config, "num_key_value_heads", (json_t *)heads);
    if (!json_object_get(config, "head_dim") && json_integer_value(heads) > 0)
        json_object_set_new(config, "head_dim",
                            json_integer(json_integer_value(dim) / json_integer_value(heads)));
    return FKV_OK;
}

/* Keys that change the numbers: only the values that we compute. */
static int refuse_unsupported(const struct fkv_gguf *g, const struct fkv_family *f,
                              const json_t *config, struct fkv_error *err) {
    const int64_t head_dim = json_integer_value(json_object_get(config, "head_dim"));
    const struct {
        const char *rest;
        int64_t expected;
    } fixed[] = {{"expert_count", 0},
                 {"attention.value_length", head_dim},
                 {"rope.dimension_count", head_dim}};
    const int count = f->partial_rotary ? 2 : 3;
    bool causal = true;
    char key[96];
    if (fkv_gguf_get_bool(g, key_of(f, "attention.causal", key), false, &causal, err))
        return FKV_FAILED;
    if (!causal)
        return fkv_fail(err, "%s: key %s: expected true, found false (not supported)",
                        fkv_gguf_path(g), key);
    for (int i = 0; i < count; i++) {
        int64_t value = fixed[i].expected;
        key_of(f, fixed[i].rest, key);
        if (fkv_gguf_get_int(g, key, false, 0, INT64_MAX, &value, err)) return FKV_FAILED;
        if (value != fixed[i].expected)
            return fkv_fail(err, "%s: key %s: expected %lld, found %lld (not supported)",
                            fkv_gguf_path(g), key, (long long)fixed[i].expected, (long long)value);
    }
    return FKV_OK;
}

/* Which layers slide: an array with a bool for each, or a period n: every n-th does not, with 0
 * all do. */
static int add_layer_types(const struct fkv_gguf *g, const struct fkv_family *f, json_t *config,
                           struct fkv_error *err) {
    const json_int_t given = json_integer_value(json_object_get(config, "num_hidden_layers")),
                     layers =
                         given < FKV_MAX_LAYERS ? given : FKV_MAX_LAYERS; /* more are refused */
    struct fkv_gguf_array listed = {0};
    int64_t period = 0;
    char key[96];
    key_of(f, "attention.sliding_window_pattern", key);
    if (!fkv_gguf_has(g, key)) return FKV_OK;
    const bool array = fkv_gguf_is_array(g, key);
    if (array ? fkv_gguf_get_array(g, key, true, FKV_GGUF_BOOL, &listed, err)
              : fkv_gguf_get_int(g, key, true, 0, INT32_MAX, &period, err))
        return FKV_FAILED;
    if (array && listed.count != (size_t)given)
        return fkv_fail(err, "%s: key %s: expected a bool for each of %lld layers, found %zu",
                        fkv_gguf_path(g), key, (long long)given, listed.count);
    json_t *types = json_array();
    for (json_int_t l = 0; l < layers; l++) {
        const bool slides =
            array ? fkv_gguf_item(&listed, (size_t)l) != 0 : !period || (l + 1) % period != 0;
        json_array_append_new(types, json_string(slides ? "sliding_attention" : "full_attention"));
    }
    json_object_set_new(config, "layer_types", types);
    return FKV_OK;
}

/* Of a head, the channels that turn. */
static int add_channels(const struct fkv_gguf *g, const struct fkv_family *f, json_t *config,
                        struct fkv_error *err) {
    const int64_t head_dim = json_integer_value(json_object_get(config, "head_dim"));
    int64_t channels = head_dim;
    char key[96];
    if (fkv_gguf_get_int(g, key_of(f, "rope.dimension_count", key), false, 1, INT32_MAX, &channels,
                         err))
        return FKV_FAILED;
    if (channels != head_dim && head_dim)
        json_object_set_new(config, "partial_rotary_factor",
                            json_real((double)channels / (double)head_dim));
    return FKV_OK;
}

/* A window that the family does not know, where it matters. */
static int refuse_unused_window(const struct fkv_gguf *g, const struct fkv_family *f,
                                const struct fkv_config *c, struct fkv_error *err) {
    int64_t window = 0;
    bool used = false;
    char key[96];
    key_of(f, "attention.sliding_window", key);
    if (fkv_gguf_get_int(g, key, false, 0, INT32_MAX, &window, err)) return FKV_FAILED;
    for (int32_t l = 0; l < c->layers; l++) used |= c->layer[l].window != 0;
    if (used || !window || window >= c->trained_context) return FKV_OK;
    return fkv_fail(err, "%s: key %s: expected at least the context of %d, found %lld",
                    fkv_gguf_path(g), key, c->trained_context, (long long)window);
}

/* bos, and the tokens that end a text: of chat models eot stands beside eos. */
static int add_tokens(const struct fkv_gguf *g, json_t *config, struct fkv_error *err) {
    int64_t bos = -1, ends[2] = {-1, -1};
    if (fkv_gguf_get_int(g, "tokenizer.ggml.bos_token_id", false, 0, INT64_MAX, &bos, err) ||
        fkv_gguf_get_int(g, "tokenizer.ggml.eos_token_id", false, 0, INT64_MAX, &ends[0], err) ||
        fkv_gguf_get_int(g, "tokenizer.ggml.eot_token_id", false, 0, INT64_MAX, &ends[1], err))
        return FKV_FAILED;
    json_t *list = json_array();
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0 && (i == 0 || ends[i] != ends[0]))
            json_array_append_new(list, json_integer(ends[i]));
    json_object_set_new(config, "eos_token_id", list);
    if (bos >= 0) json_object_set_new(config, "bos_token_id", json_integer(bos));
    return FKV_OK;
}

static int add_all(const struct fkv_gguf *g, const struct fkv_family *f, json_t *config,
                   struct fkv_error *err) {
    const struct fkv_tensor *embedding = fkv_tensor_find(fkv_gguf_tensors(g), "token_embd.weight");
    if (!embedding)
        return fkv_fail(err, "%s: tensor token_embd.weight: expected in the file, found nothing",
                        fkv_gguf_path(g));
    json_object_set_new(config, "model_type", json_string(f->model_type));
    json_object_set_new(config, "vocab_size", json_integer(embedding->shape[0]));
    json_object_set_new(config, "tie_word_embeddings",
                        json_boolean(!fkv_tensor_find(fkv_gguf_tensors(g), "output.weight")));
    if (add_numbers(g, f, config, err) || refuse_unsupported(g, f, config, err) ||
        add_channels(g, f, config, err) || add_layer_types(g, f, config, err) ||
        fkv_gguf_add_rope(g, f->architecture, config, err))
        return FKV_FAILED;
    if (f->complete) f->complete(config);
    return add_tokens(g, config, err);
}

static int divide_frequencies(const struct fkv_gguf *g, struct fkv_config *c,
                              struct fkv_error *err) {
    const struct fkv_tensor *t = fkv_tensor_find(fkv_gguf_tensors(g), "rope_freqs.weight");
    float divisors[FKV_MAX_HEAD_DIM / 2];
    const int32_t half = c->rotations[0].channels / 2;
    if (!t) return FKV_OK;
    if (t->dims != 1 || t->shape[0] != half || !t->computable || t->format != FKV_WEIGHT_F32)
        return fkv_fail(err,
                        "%s: tensor rope_freqs.weight: expected %d values of F32, found %lld of %s",
                        fkv_gguf_path(g), half, (long long)t->shape[0], t->format_name);
    memcpy(divisors, t->data, (size_t)half * sizeof *divisors);
    for (int32_t i = 0; i < half; i++)
        if (!(divisors[i] > 0 && isfinite(divisors[i])))
            return fkv_fail(err,
                            "%s: tensor rope_freqs.weight: expected values above 0, found %g at "
                            "[%d]",
                            fkv_gguf_path(g), (double)divisors[i], i);
    return fkv_config_divide_frequencies(c, divisors, err);
}

/* ---- tensors ---- */

static int open_file(struct fkv_checkpoint *c, int32_t trained_context, struct fkv_error *err) {
    const struct fkv_family *f = NULL;
    struct fkv_gguf *g;
    if (fkv_gguf_open(c->path, &g, err)) return FKV_FAILED;
    c->files = g;
    c->tensors = fkv_gguf_tensors(g);
    if (find_architecture(g, &f, err)) return FKV_FAILED;
    c->paired_heads = f->paired_heads;
    json_t *config = json_object();
    if (!config) return fkv_fail(err, "%s: out of memory", c->path);
    int status = add_all(g, f, config, err);
    if (status == FKV_OK)
        status = fkv_config_read(config, c->path, trained_context, &c->config, err);
    json_decref(config);
    c->config.norms_less_one = false;
    if (status == FKV_OK) status = refuse_unused_window(g, f, &c->config, err);
    if (status == FKV_OK) status = divide_frequencies(g, &c->config, err);
    return status ? status : fkv_checkpoint_check_unused(c, err);
}

static void close_file(struct fkv_checkpoint *c) { fkv_gguf_close(c->files); }

static void unload(const struct fkv_checkpoint *c) { fkv_gguf_unload(c->files); }

static const struct fkv_tensor *find(const struct fkv_checkpoint *c, const char *name) {
    return fkv_tensor_find(c->tensors, name);
}

static int sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out, struct fkv_error *err) {
    const char *const path = c->path;
    return fkv_sha256_files(&path, 1, out, err);
}

static bool fits(const char *path) {
    char magic[4] = "";
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    const bool gguf = fread(magic, 1, sizeof magic, f) == 4 && !memcmp(magic, "GGUF", 4);
    fclose(f);
    return gguf;
}

const struct fkv_checkpoint_format fkv_gguf_format = {
    .what = "a GGUF file",
    .fits = fits,
    .open = open_file,
    .close = close_file,
    .unload = unload,
    .find = find,
    .sha256 = sha256,
    .layer_prefix = "blk.%d.",
    .where = "the file",
    .formats = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K",
    .names =
        {
            [FKV_EMBEDDING] = {"token_embd.weight", NULL},
            [FKV_FINAL_NORM] = {"output_norm.weight", NULL},
            [FKV_HEAD] = {"output.weight", NULL},
            [FKV_ATTENTION_NORM] = {"attn_norm.weight", NULL},
            [FKV_QUERY] = {"attn_q.weight", "attn_qkv.weight"},
            [FKV_KEY] = {"attn_k.weight", "attn_qkv.weight"},
            [FKV_VALUE] = {"attn_v.weight", "attn_qkv.weight"},
            [FKV_QUERY_BIAS] = {"attn_q.bias", NULL},
            [FKV_KEY_BIAS] = {"attn_k.bias", NULL},
            [FKV_VALUE_BIAS] = {"attn_v.bias", NULL},
            [FKV_QUERY_NORM] = {"attn_q_norm.weight", NULL},
            [FKV_KEY_NORM] = {"attn_k_norm.weight", NULL},
            [FKV_OUTPUT] = {"attn_output.weight", NULL},
            [FKV_ATTENTION_OUTPUT_NORM] = {"post_attention_norm.weight", NULL},
            [FKV_MLP_NORM] = {"ffn_norm.weight", NULL},
            [FKV_GATE] = {"ffn_gate.weight", "ffn_up.weight"},
            [FKV_UP] = {"ffn_up.weight", "ffn_up.weight"},
            [FKV_DOWN] = {"ffn_down.weight", NULL},
            [FKV_MLP_OUTPUT_NORM] = {"post_ffw_norm.weight", NULL},
        },
};
