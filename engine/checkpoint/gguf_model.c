/* A checkpoint as a GGUF file. Its metadata are put in the words of a Hugging Face config and read
 * by config.c, so that both formats go through the same checks and defaults; the names of keys and
 * tensors are those of llama.cpp's converter.
 *
 * What differs from a Hugging Face folder:
 *  - llama.cpp rotates neighbouring channels, so for some architectures its converter stores the
 *    rows of a head's queries and keys in pairs; they are put back in a copy.
 *  - The frequencies of Llama 3.1 come as a tensor of divisors, rope_freqs.weight.
 *  - A missing output.weight means a tied head.
 *  - llama.cpp computes whatever tensors it finds: one that we do not compute is refused. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/gguf.h"
#include "kernels/base/json.h"

static const struct architecture {
    const char *name, *model_type;
    bool paired_heads;
} architectures[] = {
    {"llama", "llama", true}, /* Mistral, too */
    {"qwen2", "qwen2", false},
    {"qwen3", "qwen3", false},
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

/* ---- config ---- */

static bool equals(struct fkv_gguf_string s, const char *text) {
    return s.bytes == strlen(text) && !memcmp(s.text, text, s.bytes);
}

static int find_architecture(const struct fkv_gguf *g, const struct architecture **out,
                             struct fkv_error *err) {
    struct fkv_gguf_string name;
    int64_t parts = 1;
    struct fkv_gguf_string type = {"model", 5};
    if (fkv_gguf_get_string(g, "general.type", false, &type, err) ||
        fkv_gguf_get_string(g, "general.architecture", true, &name, err))
        return FKV_FAILED;
    if (equals(type, "adapter"))
        return fkv_fail(err,
                        "%s: key general.type: expected model, found adapter; give its base as "
                        "--model, and as --adapter the folder of PEFT that it was made from",
                        fkv_gguf_path(g));
    for (int i = 0; i < ARCHITECTURES; i++)
        if (equals(name, architectures[i].name)) {
            *out = &architectures[i];
            if (fkv_gguf_get_int(g, "split.count", false, 0, INT32_MAX, &parts, err))
                return FKV_FAILED;
            if (parts > 1)
                return fkv_fail(err,
                                "%s: key split.count: expected 1, found %lld (join the parts with "
                                "llama-gguf-split --merge)",
                                fkv_gguf_path(g), (long long)parts);
            return FKV_OK;
        }
    const int shown = name.bytes < 64 ? (int)name.bytes : 64;
    return fkv_fail(err, "%s: key general.architecture: expected llama, qwen2 or qwen3, found %.*s",
                    fkv_gguf_path(g), shown, name.text);
}

/* The key ARCHITECTURE.rest */
static const char *key_of(const struct architecture *a, const char *rest, char key[96]) {
    snprintf(key, 96, "%s.%s", a->name, rest);
    return key;
}

/* The sizes and numbers that have a field of their own. */
static int add_numbers(const struct fkv_gguf *g, const struct architecture *a, json_t *config,
                       struct fkv_error *err) {
    static const struct {
        const char *rest, *field;
        bool real, required;
    } numbers[] = {
        {"block_count", "num_hidden_layers", false, true},
        {"embedding_length", "hidden_size", false, true},
        {"feed_forward_length", "intermediate_size", false, true},
        {"context_length", "max_position_embeddings", false, true},
        {"attention.head_count", "num_attention_heads", false, true},
        {"attention.head_count_kv", "num_key_value_heads", false, false},
        {"attention.key_length", "head_dim", false, false},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true},
        {"rope.freq_base", "rope_theta", true, false},
    };
    char key[96];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int64_t integer = 0;
        double real = 0;
        key_of(a, numbers[i].rest, key);
        if (numbers[i].real
                ? fkv_gguf_get_double(g, key, numbers[i].required, 0, 1e15, &real, err)
                : fkv_gguf_get_int(g, key, numbers[i].required, 1, INT32_MAX, &integer, err))
            return FKV_FAILED;
        if (fkv_gguf_has(g, key))
            json_object_set_new(config, numbers[i].field,
                                numbers[i].real ? json_real(real) : json_integer(integer));
    }
    /* llama.cpp's defaults where they are not those of the family */
    const json_t *heads = json_object_get(config, "num_attention_heads"),
                 *dim = json_object_get(config, "hidden_size");
    if (!json_object_get(config, "num_key_value_heads"))
        json_object_set(config, "num_key_value_heads", (json_t *)heads);
    if (!json_object_get(config, "head_dim") && json_integer_value(heads) > 0)
        json_object_set_new(config, "head_dim",
                            json_integer(json_integer_value(dim) / json_integer_value(heads)));
    return FKV_OK;
}

/* Keys that change the numbers: only the values that we compute. */
static int refuse_unsupported(const struct fkv_gguf *g, const struct architecture *a,
                              const json_t *config, struct fkv_error *err) {
    const int64_t head_dim = json_integer_value(json_object_get(config, "head_dim"));
    const struct {
        const char *rest;
        int64_t expected;
    } fixed[] = {{"expert_count", 0},
                 {"attention.value_length", head_dim},
                 {"rope.dimension_count", head_dim}};
    char key[96];
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        int64_t value = fixed[i].expected;
        key_of(a, fixed[i].rest, key);
        if (fkv_gguf_get_int(g, key, false, 0, INT64_MAX, &value, err)) return FKV_FAILED;
        if (value != fixed[i].expected)
            return fkv_fail(err, "%s: key %s: expected %lld, found %lld (not supported)",
                            fkv_gguf_path(g), key, (long long)fixed[i].expected, (long long)value);
    }
    int64_t window = 0;
    const int64_t context = json_integer_value(json_object_get(config, "max_position_embeddings"));
    if (fkv_gguf_get_int(g, key_of(a, "attention.sliding_window", key), false, 0, INT64_MAX,
                         &window, err))
        return FKV_FAILED;
    if (window && window < context)
        return fkv_fail(err, "%s: key %s: expected at least the context of %lld, found %lld",
                        fkv_gguf_path(g), key, (long long)context, (long long)window);
    return FKV_OK;
}

static int add_rope(const struct fkv_gguf *g, const struct architecture *a, json_t *config,
                    struct fkv_error *err) {
    struct fkv_gguf_string type = {"none", 4};
    double factor = 0, old_factor = 0;
    int64_t original = 0;
    char key[96];
    if (fkv_gguf_get_string(g, key_of(a, "rope.scaling.type", key), false, &type, err) ||
        fkv_gguf_get_double(g, key_of(a, "rope.scaling.factor", key), false, 0, 1e6, &factor,
                            err) ||
        fkv_gguf_get_double(g, key_of(a, "rope.scale_linear", key), false, 0, 1e6, &old_factor,
                            err) ||
        fkv_gguf_get_int(g, key_of(a, "rope.scaling.original_context_length", key), false, 1,
                         INT32_MAX, &original, err))
        return FKV_FAILED;
    if (old_factor > 0 && factor == 0) {
        factor = old_factor;
        type = (struct fkv_gguf_string){"linear", 6};
    }
    if (equals(type, "none") || (equals(type, "linear") && factor == 0)) return FKV_OK;
    json_t *scaling = json_object();
    json_object_set_new(scaling, "rope_type", json_stringn(type.text, type.bytes));
    json_object_set_new(scaling, "factor", json_real(factor));
    if (original)
        json_object_set_new(scaling, "original_max_position_embeddings", json_integer(original));
    json_object_set_new(config, "rope_scaling", scaling);
    return FKV_OK;
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

static int add_all(const struct fkv_gguf *g, const struct architecture *a, json_t *config,
                   struct fkv_error *err) {
    const struct fkv_gguf_tensor *embedding = fkv_gguf_find(g, "token_embd.weight");
    if (!embedding)
        return fkv_fail(err, "%s: tensor token_embd.weight: expected in the file, found nothing",
                        fkv_gguf_path(g));
    json_object_set_new(config, "model_type", json_string(a->model_type));
    json_object_set_new(config, "vocab_size", json_integer(embedding->shape[0]));
    json_object_set_new(config, "tie_word_embeddings",
                        json_boolean(!fkv_gguf_find(g, "output.weight")));
    if (add_numbers(g, a, config, err) || refuse_unsupported(g, a, config, err) ||
        add_rope(g, a, config, err))
        return FKV_FAILED;
    return add_tokens(g, config, err);
}

static int divide_frequencies(const struct fkv_gguf *g, struct fkv_config *c,
                              struct fkv_error *err) {
    const struct fkv_gguf_tensor *t = fkv_gguf_find(g, "rope_freqs.weight");
    float divisors[FKV_MAX_HEAD_DIM / 2];
    const int32_t half = c->head_dim / 2;
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

/* Whether a tensor has a role in this model; shared names count for all their roles. */
static bool has_role(const struct fkv_checkpoint *c, const char *name) {
    int layer = -1, used = 0;
    char prefix[32] = "";
    const bool in_layer = sscanf(name, "blk.%9d.%n", &layer, &used) == 1 && used > 0;
    if (in_layer) snprintf(prefix, sizeof prefix, c->format->layer_prefix, layer);
    if (strncmp(name, prefix, strlen(prefix))) return false; /* another spelling of the number */
    if (in_layer && (layer < 0 || layer >= c->config.layers)) return false;
    for (int role = 0; role < FKV_ROLES; role++) {
        const struct fkv_role_name *names = &c->format->names[role];
        if ((role >= FKV_ATTENTION_NORM) != in_layer ||
            !fkv_role_present(&c->config, (enum fkv_role)role))
            continue;
        if (!strcmp(name + used, names->own) ||
            (names->shared && !strcmp(name + used, names->shared)))
            return true;
    }
    return !strcmp(name, "rope_freqs.weight");
}

static int refuse_unknown_tensors(const struct fkv_checkpoint *c, const struct fkv_gguf *g,
                                  struct fkv_error *err) {
    for (size_t i = 0; i < fkv_gguf_tensor_count(g); i++) {
        const char *name = fkv_gguf_tensor(g, i)->name;
        if (!has_role(c, name))
            return fkv_fail(err,
                            "%s: tensor %.200s: expected none of this name in a %s of %d "
                            "layers, found one (not supported)",
                            c->path, name, c->config.model_type, c->config.layers);
    }
    return FKV_OK;
}

static int open_file(struct fkv_checkpoint *c, int32_t trained_context, struct fkv_error *err) {
    const struct architecture *a = NULL;
    struct fkv_gguf *g;
    if (fkv_gguf_open(c->path, &g, err)) return FKV_FAILED;
    c->files = g;
    if (find_architecture(g, &a, err)) return FKV_FAILED;
    c->paired_heads = a->paired_heads;
    json_t *config = json_object();
    if (!config) return fkv_fail(err, "%s: out of memory", c->path);
    int status = add_all(g, a, config, err);
    if (status == FKV_OK)
        status = fkv_config_read(config, c->path, trained_context, &c->config, err);
    json_decref(config);
    if (status == FKV_OK) status = divide_frequencies(g, &c->config, err);
    return status ? status : refuse_unknown_tensors(c, g, err);
}

static void close_file(struct fkv_checkpoint *c) { fkv_gguf_close(c->files); }

static bool find(const struct fkv_checkpoint *c, const char *name, struct fkv_role_tensor *out) {
    const struct fkv_gguf_tensor *t = fkv_gguf_find(c->files, name);
    if (!t) return false;
    *out = (struct fkv_role_tensor){.path = c->path,
                                    .name = t->name,
                                    .format_name = t->format_name,
                                    .computable = t->computable,
                                    .format = t->format,
                                    .dims = t->dims,
                                    .data = t->data};
    memcpy(out->shape, t->shape, sizeof out->shape);
    return true;
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
            [FKV_MLP_NORM] = {"ffn_norm.weight", NULL},
            [FKV_GATE] = {"ffn_gate.weight", "ffn_up.weight"},
            [FKV_UP] = {"ffn_up.weight", "ffn_up.weight"},
            [FKV_DOWN] = {"ffn_down.weight", NULL},
        },
};
