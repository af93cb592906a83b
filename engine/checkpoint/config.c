/* Owns the reading of config.json: which fields mean what in the four families we run, their
 * defaults. Whatever would change the numbers and is not computed here is refused by name: a model
 * that loads is a model that runs as its authors meant.
 *
 * Defaults are those of the configuration classes of Hugging Face transformers (4.x and 5.x agree),
 * because files leave out what equals them; the five sizes that define a model must be given.
 * Rotations are read by rope.c. */
#include "engine/checkpoint/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/base/path.h"

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_SIZE = 1 << 20, MAX_HEADS = 1 << 14, MAX_CONTEXT = 1 << 30 };

struct family {
    const char *model_type;
    bool qkv_bias, qk_norm;
    int32_t kv_heads;     /* where the config is silent; 0: as many as heads */
    int32_t head_dim;     /* likewise; 0: dim / heads */
    int32_t context;      /* likewise */
    int32_t window;       /* sliding window where the config is silent; 0: the family has none */
    bool window_switched; /* ... and it counts only with use_sliding_window, from layer
                             max_window_layers on */
};

static const struct family families[] = {
    {.model_type = "llama", .context = 2048},
    {.model_type = "mistral", .kv_heads = 8, .context = 131072, .window = 4096},
    {.model_type = "qwen2",
     .qkv_bias = true,
     .kv_heads = 32,
     .context = 32768,
     .window = 4096,
     .window_switched = true},
    {.model_type = "qwen3",
     .qk_norm = true,
     .kv_heads = 32,
     .head_dim = 128,
     .context = 32768,
     .window = 4096,
     .window_switched = true},
};
enum { FAMILIES = sizeof families / sizeof families[0] };

/* NULL and a message for a family we do not know. */
static const struct family *find_family(const json_t *root, const char *where,
                                        struct fkv_error *err) {
    const char *type = "nothing";
    if (fkv_json_get_string(root, where, "model_type", false, &type, err)) return NULL;
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(type, families[i].model_type)) return &families[i];
    fkv_fail(err, "%s: field \"model_type\": expected llama, mistral, qwen2 or qwen3, found %.64s",
             where, type);
    return NULL;
}

static bool is_null(const json_t *root, const char *field) {
    return json_is_null(json_object_get(root, field));
}

static int get_size(const json_t *root, const char *where, const char *field, bool required,
                    int64_t high, int32_t *value, struct fkv_error *err) {
    int64_t v = *value;
    if (fkv_json_get_int(root, where, field, required, 1, high, &v, err)) return FKV_FAILED;
    *value = (int32_t)v;
    return FKV_OK;
}

static int read_sizes(const json_t *root, const char *where, const struct family *family,
                      struct fkv_config *c, struct fkv_error *err) {
    if (get_size(root, where, "num_hidden_layers", true, FKV_MAX_LAYERS, &c->layers, err) ||
        get_size(root, where, "hidden_size", true, MAX_SIZE, &c->dim, err) ||
        get_size(root, where, "intermediate_size", true, MAX_SIZE, &c->hidden, err) ||
        get_size(root, where, "num_attention_heads", true, MAX_HEADS, &c->heads, err) ||
        get_size(root, where, "vocab_size", true, MAX_SIZE, &c->vocab, err))
        return FKV_FAILED;

    c->trained_context = family->context;
    if (get_size(root, where, "max_position_embeddings", false, MAX_CONTEXT, &c->trained_context,
                 err))
        return FKV_FAILED;

    c->kv_heads =
        family->kv_heads && !is_null(root, "num_key_value_heads") ? family->kv_heads : c->heads;
    if (get_size(root, where, "num_key_value_heads", false, MAX_HEADS, &c->kv_heads, err))
        return FKV_FAILED;
    if (c->heads % c->kv_heads)
        return fkv_fail(err,
                        "%s: field \"num_key_value_heads\": expected a divisor of "
                        "num_attention_heads %d, found %d",
                        where, c->heads, c->kv_heads);

    c->head_dim = family->head_dim;
    if (get_size(root, where, "head_dim", false, FKV_MAX_HEAD_DIM, &c->head_dim, err))
        return FKV_FAILED;
    if (c->head_dim == 0) {
        if (c->dim % c->heads)
            return fkv_fail(err,
                            "%s: field \"hidden_size\": expected a multiple of num_attention_heads "
                            "%d (there is no head_dim), found %d",
                            where, c->heads, c->dim);
        c->head_dim = c->dim / c->heads;
    }
    if (c->head_dim % 2 || c->head_dim > FKV_MAX_HEAD_DIM)
        return fkv_fail(err, "%s: field \"head_dim\": expected an even number up to %d, found %d",
                        where, FKV_MAX_HEAD_DIM, c->head_dim);
    if ((int64_t)c->heads * c->head_dim > MAX_SIZE)
        return fkv_fail(err,
                        "%s: field \"num_attention_heads\": expected at most %d channels over all "
                        "heads, found %d x %d",
                        where, MAX_SIZE, c->heads, c->head_dim);
    return FKV_OK;
}

/* Refuses what is not computed. */
static int refuse_unsupported(const json_t *root, const char *where, const struct family *family,
                              struct fkv_error *err) {
    const char *activation = "silu";
    bool attention_bias = false, mlp_bias = false;
    if (fkv_json_get_string(root, where, "hidden_act", false, &activation, err) ||
        fkv_json_get_bool(root, where, "attention_bias", false, &attention_bias, err) ||
        fkv_json_get_bool(root, where, "mlp_bias", false, &mlp_bias, err))
        return FKV_FAILED;
    if (strcmp(activation, "silu"))
        return fkv_fail(err, "%s: field \"hidden_act\": expected silu, found %.64s", where,
                        activation);
    if (attention_bias &&
        !family->qkv_bias) /* qwen2 never reads it: biases on q, k, v, none on the output */
        return fkv_fail(err,
                        "%s: field \"attention_bias\": expected false (a bias on the output "
                        "projection is not supported), "
                        "found true",
                        where);
    if (mlp_bias)
        return fkv_fail(err, "%s: field \"mlp_bias\": expected false (not supported), found true",
                        where);
    const json_t *quantization = json_object_get(root, "quantization_config");
    if (json_is_object(quantization)) {
        const char *method = json_string_value(json_object_get(quantization, "quant_method"));
        return fkv_fail(err,
                        "%s: field \"quantization_config\": expected none (weights must be F32, "
                        "F16 or BF16), found %.64s",
                        where, method ? method : "one");
    }
    return FKV_OK;
}

static bool any_layer_slides(const json_t *root, int64_t first_sliding, int32_t layers) {
    const json_t *types = json_object_get(root, "layer_types");
    if (!json_is_array(types)) return first_sliding < layers;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type && !strcmp(type, "sliding_attention")) return true;
    }
    return false;
}

/* A window of w lets a token see itself and w - 1 before it, so one as long as the trained context
 * never matters. */
static int check_window(const json_t *root, const char *where, const struct family *family,
                        const struct fkv_config *c, struct fkv_error *err) {
    if (!family->window || is_null(root, "sliding_window")) return FKV_OK;
    int64_t window = family->window, first_sliding = 28;
    bool used = !family->window_switched;
    if (fkv_json_get_int(root, where, "sliding_window", false, 0, MAX_CONTEXT, &window, err))
        return FKV_FAILED;
    if (family->window_switched) {
        if (fkv_json_get_bool(root, where, "use_sliding_window", false, &used, err) ||
            fkv_json_get_int(root, where, "max_window_layers", false, 0, INT32_MAX, &first_sliding,
                             err))
            return FKV_FAILED;
        used = used && any_layer_slides(root, first_sliding, c->layers);
    }
    if (used && window < c->trained_context)
        return fkv_fail(err,
                        "%s: field \"sliding_window\": expected null or at least "
                        "max_position_embeddings %d, found %lld "
                        "(sliding-window attention is not supported; with --trained-context %lld "
                        "the model loads, and up to there the window never matters)",
                        where, c->trained_context, (long long)window, (long long)window);
    return FKV_OK;
}

/* All layers of these families turn by one rotation, and the whole of a head. */
static int read_rope(const json_t *root, const char *where, struct fkv_config *c,
                     struct fkv_error *err) {
    const struct fkv_rope_defaults defaults = {
        .theta = 10000, .head_dim = c->head_dim, .trained_context = c->trained_context};
    struct fkv_rope *r = &c->rotations[0];
    if (fkv_rope_read(root, where, &defaults, r, err)) return FKV_FAILED;
    if (r->channels != c->head_dim)
        return fkv_fail(err, "%s: field \"partial_rotary_factor\": expected 1, found %g", where,
                        (double)r->channels / c->head_dim);
    c->rotation_count = 1;
    return FKV_OK;
}

/* An id, a list of ids, or none, added to ids [FKV_MOST_ENDS] that are not there yet. One outside
 * the vocabulary can never occur and counts as none. */
static int add_token_ids(const json_t *root, const char *where, const char *field, int32_t vocab,
                         int32_t *ids, int32_t *count, struct fkv_error *err) {
    const json_t *value = json_object_get(root, field);
    const size_t listed = json_is_array(value) ? json_array_size(value) : 1;
    if (!value || json_is_null(value)) return FKV_OK;
    for (size_t i = 0; i < listed; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(item))
            return fkv_fail(err, "%s: field \"%s\": expected a token id or a list of them", where,
                            field);
        const double id = json_number_value(item);
        if (id < 0 || id >= vocab) continue;
        int32_t at = 0;
        while (at < *count && ids[at] != (int32_t)id) at++;
        if (at == FKV_MOST_ENDS)
            return fkv_fail(err, "%s: field \"%s\": expected at most %d ids, found more", where,
                            field, FKV_MOST_ENDS);
        if (at == *count) ids[(*count)++] = (int32_t)id;
    }
    return FKV_OK;
}

/* The first id of a field, or -1. */
static int get_token_id(const json_t *root, const char *where, const char *field, int32_t vocab,
                        int32_t *id, struct fkv_error *err) {
    int32_t ids[FKV_MOST_ENDS], count = 0;
    if (add_token_ids(root, where, field, vocab, ids, &count, err)) return FKV_FAILED;
    *id = count ? ids[0] : -1;
    return FKV_OK;
}

static int read_config(const json_t *root, const char *where, int32_t trained_context,
                       struct fkv_config *c, struct fkv_error *err) {
    if (!json_is_object(root)) return fkv_fail(err, "%s: expected a JSON object", where);
    const struct family *family = find_family(root, where, err);
    if (!family) return FKV_FAILED;
    strcpy(c->model_type, family->model_type);
    c->qkv_bias = family->qkv_bias;
    c->qk_norm = family->qk_norm;
    if (refuse_unsupported(root, where, family, err) || read_sizes(root, where, family, c, err))
        return FKV_FAILED;

    double eps = 1e-6;
    if (fkv_json_get_double(root, where, "rms_norm_eps", false, 0, 1, &eps, err) ||
        fkv_json_get_bool(root, where, "tie_word_embeddings", false, &c->tied, err) ||
        get_token_id(root, where, "bos_token_id", c->vocab, &c->bos, err) ||
        add_token_ids(root, where, "eos_token_id", c->vocab, c->ends, &c->end_count, err))
        return FKV_FAILED;
    c->eos = c->end_count ? c->ends[0] : -1;
    c->rms_eps = (float)eps;
    c->attention_scale = (float)(1 / sqrt(c->head_dim));
    if (read_rope(root, where, c, err)) return FKV_FAILED; /* by the context of the config */
    if (trained_context) c->trained_context = trained_context;
    return check_window(root, where, family, c, err);
}

static int hash_fields(struct fkv_config *c, struct fkv_error *err) {
    char text[1024 + sizeof c->rotations[0].scaling];
    const struct fkv_rope *rope = &c->rotations[0];
    const int bytes =
        snprintf(text, sizeof text, "%s %d %d %d %d %d %d %d %d %.9g %.17g %s %.9g %d %d %d %d %d",
                 c->model_type, c->layers, c->dim, c->hidden, c->heads, c->kv_heads, c->head_dim,
                 c->vocab, c->trained_context, c->rms_eps, rope->theta, rope->scaling,
                 c->attention_scale, c->tied, c->qkv_bias, c->qk_norm, c->bos, c->eos);
    return fkv_sha256_memory(text, (size_t)bytes, c->sha256, err);
}

int fkv_config_read(const json_t *root, const char *where, int32_t trained_context,
                    struct fkv_config *config, struct fkv_error *err) {
    *config = (struct fkv_config){0};
    if (read_config(root, where, trained_context, config, err)) return FKV_FAILED;
    return hash_fields(config, err);
}

int fkv_config_parse(const char *text, size_t bytes, const char *where, int32_t trained_context,
                     struct fkv_config *config, struct fkv_error *err) {
    json_t *root = fkv_json_parse(text, bytes, where, err);
    if (!root) return FKV_FAILED;
    const int status = fkv_config_read(root, where, trained_context, config, err);
    json_decref(root);
    return status;
}

/* generation_config.json names ends that config.json may leave out: Llama 3's chat models. */
static int add_generation_ends(const char *directory, struct fkv_config *config,
                               struct fkv_error *err) {
    char path[FKV_PATH];
    struct stat info;
    if (fkv_path_print(path, err, "%s/generation_config.json", directory)) return FKV_FAILED;
    if (stat(path, &info)) return FKV_OK;
    json_t *root = fkv_json_load(path, MAX_CONFIG_BYTES, err);
    if (!root) return FKV_FAILED;
    const int status = add_token_ids(root, path, "eos_token_id", config->vocab, config->ends,
                                     &config->end_count, err);
    json_decref(root);
    return status;
}

int fkv_config_load(const char *directory, int32_t trained_context, struct fkv_config *config,
                    struct fkv_error *err) {
    char path[FKV_PATH];
    if (fkv_path_print(path, err, "%s/config.json", directory)) return FKV_FAILED;
    json_t *root = fkv_json_load(path, MAX_CONFIG_BYTES, err);
    if (!root) return FKV_FAILED;
    const int status = fkv_config_read(root, path, trained_context, config, err);
    json_decref(root);
    return status ? status : add_generation_ends(directory, config, err);
}

int fkv_config_divide_frequencies(struct fkv_config *config, const float *divisors,
                                  struct fkv_error *err) {
    if (fkv_rope_divide(&config->rotations[0], divisors, err)) return FKV_FAILED;
    return hash_fields(config, err);
}

bool fkv_config_rotates_by_length(const struct fkv_config *config) {
    for (int32_t r = 0; r < config->rotation_count; r++)
        if (config->rotations[r].by_length) return true;
    return false;
}
