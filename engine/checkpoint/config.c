/* Owns the reading of config.json: which fields mean what in the four families we run, their
 * defaults, and the rotation frequencies. Whatever would change the numbers and is not computed
 * here is refused by name: a model that loads is a model that runs as its authors meant.
 *
 * Defaults are those of the configuration classes of Hugging Face transformers (4.x and 5.x agree),
 * because files leave out what equals them; the five sizes that define a model must be given. Two
 * spellings of the rotation exist: rope_theta and rope_scaling (4.x), and rope_parameters
 * holding both (5.x).
 *
 * Rotation: channel pair (i, i + head_dim/2) turns by inv_freq[i] = theta^(-2i/head_dim) per
 * position (Su et al. 2021, arXiv 2104.09864). Scaling:
 *
 *   linear   inv_freq / factor, position interpolation (Chen et al. 2023, arXiv 2306.15595)
 *   llama3   by wavelength w = 2 pi / inv_freq against the original context C (Grattafiori et al.
 *            2024, arXiv 2407.21783; reference code of Llama 3.1):
 *              w < C / high_freq_factor: inv_freq
 *              w > C / low_freq_factor: inv_freq / factor
 *              between: (1 - s) inv_freq / factor + s inv_freq,
 *                s = (C / w - low_freq_factor) / (high_freq_factor - low_freq_factor)
 *
 * transformers forms these in float32; double differs from it by rounding only and stays exact at
 * large positions. */
#include "engine/checkpoint/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/base/path.h"

enum {
    MAX_CONFIG_BYTES = 1 << 20,
    MAX_SIZE = 1 << 20,
    MAX_LAYERS = 1024,
    MAX_HEADS = 1 << 14,
    MAX_CONTEXT = 1 << 30
};

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
    if (get_size(root, where, "num_hidden_layers", true, MAX_LAYERS, &c->layers, err) ||
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

/* The object that describes the rotation, or NULL: rope_scaling if it says anything, else
 * rope_parameters. */
static int find_rope(const json_t *root, const char *where, const json_t **out, const char **field,
                     struct fkv_error *err) {
    static const char *const fields[] = {"rope_scaling", "rope_parameters"};
    *out = NULL;
    *field = fields[0];
    for (int i = 0; i < 2 && !*out; i++) {
        const json_t *rope = json_object_get(root, fields[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope))
            return fkv_fail(err, "%s: field \"%s\": expected an object or null", where, fields[i]);
        if (json_object_size(rope)) *out = rope, *field = fields[i];
    }
    for (void *at = json_object_iter((json_t *)*out); at;
         at = json_object_iter_next((json_t *)*out, at))
        if (json_is_object(json_object_iter_value(at)))
            return fkv_fail(err,
                            "%s: field \"%s\": expected one rotation for all layers, found one of "
                            "its own for %.64s",
                            where, *field, json_object_iter_key(at));
    return FKV_OK;
}

static int keep_scaling_text(const json_t *rope, const char *scope, struct fkv_config *c,
                             struct fkv_error *err) {
    char *text = json_dumps(rope, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0;
    bool fits = text && length < sizeof c->rope_scaling;
    if (fits) memcpy(c->rope_scaling, text, length + 1);
    free(text);
    if (fits) return FKV_OK;
    return fkv_fail(err, "%s: expected less than %zu characters, found %zu", scope,
                    sizeof c->rope_scaling, length);
}

static int scale_linear(const json_t *rope, const char *scope, struct fkv_config *c,
                        struct fkv_error *err) {
    double factor = 0;
    if (fkv_json_get_double(rope, scope, "factor", true, 1, 1e6, &factor, err)) return FKV_FAILED;
    for (int i = 0; i < c->head_dim / 2; i++) c->inv_freq[i] /= factor;
    c->linear_factor = factor;
    return FKV_OK;
}

static int scale_llama3(const json_t *root, const json_t *rope, const char *where,
                        const char *scope, struct fkv_config *c, struct fkv_error *err) {
    double factor = 0, low = 0, high = 0;
    int64_t context = c->trained_context;
    if (fkv_json_get_double(rope, scope, "factor", true, 1, 1e6, &factor, err) ||
        fkv_json_get_double(rope, scope, "low_freq_factor", true, 1e-6, 1e6, &low, err) ||
        fkv_json_get_double(rope, scope, "high_freq_factor", true, 1e-6, 1e6, &high, err) ||
        fkv_json_get_int(rope, scope, "original_max_position_embeddings", false, 1, MAX_CONTEXT,
                         &context, err) ||
        fkv_json_get_int(root, where, "original_max_position_embeddings", false, 1, MAX_CONTEXT,
                         &context, err))
        return FKV_FAILED;
    if (high <= low)
        return fkv_fail(
            err, "%s: field \"high_freq_factor\": expected more than low_freq_factor %g, found %g",
            scope, low, high);
    for (int i = 0; i < c->head_dim / 2; i++) {
        double f = c->inv_freq[i], wavelength = 2 * 3.14159265358979323846 / f;
        double smooth = ((double)context / wavelength - low) / (high - low);
        if (smooth < 0) smooth = 0; /* wavelength > context / low */
        if (smooth > 1) smooth = 1; /* wavelength < context / high */
        c->inv_freq[i] = (1 - smooth) * f / factor + smooth * f;
    }
    return FKV_OK;
}

static int read_rope(const json_t *root, const char *where, struct fkv_config *c,
                     struct fkv_error *err) {
    const json_t *rope;
    const char *field, *type = "default";
    char scope[FKV_PATH + 64]; /* a path and a field's name */
    double theta = 10000, part = 1;
    if (find_rope(root, where, &rope, &field, err)) return FKV_FAILED;
    snprintf(scope, sizeof scope, "%s: %s", where, field);
    if (fkv_json_get_double(root, where, "rope_theta", false, 1, 1e15, &theta, err) ||
        fkv_json_get_double(root, where, "partial_rotary_factor", false, 0, 1e6, &part, err))
        return FKV_FAILED;
    if (rope &&
        (fkv_json_get_double(rope, scope, "rope_theta", false, 1, 1e15, &theta, err) ||
         fkv_json_get_double(rope, scope, "partial_rotary_factor", false, 0, 1e6, &part, err) ||
         fkv_json_get_string(rope, scope, "type", false, &type, err) ||
         fkv_json_get_string(rope, scope, "rope_type", false, &type, err)))
        return FKV_FAILED;
    if (part != 1)
        return fkv_fail(err, "%s: field \"partial_rotary_factor\": expected 1, found %g", where,
                        part);

    c->rope_theta = theta;
    for (int i = 0; i < c->head_dim / 2; i++) c->inv_freq[i] = pow(theta, -2.0 * i / c->head_dim);
    strcpy(c->rope_scaling, "null");
    c->linear_factor = 1;
    if (!strcmp(type, "default")) return FKV_OK;
    if (!strcmp(type, "linear")) {
        if (scale_linear(rope, scope, c, err)) return FKV_FAILED;
    } else if (!strcmp(type, "llama3")) {
        if (scale_llama3(root, rope, where, scope, c, err)) return FKV_FAILED;
    } else {
        return fkv_fail(err,
                        "%s: field \"rope_type\": expected default, linear or llama3, found %.64s",
                        scope, type);
    }
    return keep_scaling_text(rope, scope, c, err);
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
    char text[1024];
    const int bytes =
        snprintf(text, sizeof text, "%s %d %d %d %d %d %d %d %d %.9g %.17g %s %.9g %d %d %d %d %d",
                 c->model_type, c->layers, c->dim, c->hidden, c->heads, c->kv_heads, c->head_dim,
                 c->vocab, c->trained_context, c->rms_eps, c->rope_theta, c->rope_scaling,
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
    const size_t half = (size_t)config->head_dim / 2;
    fkv_sha256_hex hash;
    if (fkv_sha256_memory(divisors, half * sizeof *divisors, hash, err)) return FKV_FAILED;
    for (size_t i = 0; i < half; i++) config->inv_freq[i] /= (double)divisors[i];
    snprintf(config->rope_scaling, sizeof config->rope_scaling,
             "{\"rope_type\":\"divisors\",\"sha256\":\"%s\"}", hash);
    return hash_fields(config, err);
}
