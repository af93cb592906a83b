/* Owns the reading of config.json: the fields that all families share, and the order in which the
 * rest is read (families.h, rope.h). Whatever would change the numbers and is not computed here is
 * refused by name: a model that loads is a model that runs as its authors meant.
 *
 * Defaults are those of the configuration classes of Hugging Face transformers (4.x and 5.x agree),
 * because files leave out what equals them; the five sizes that define a model must be given. */
#include "engine/checkpoint/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/families.h"
#include "kernels/base/path.h"

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_SIZE = 1 << 20, MAX_HEADS = 1 << 14 };

/* NULL and a message for a family we do not know. */
static const struct fkv_family *find_family(const json_t *root, const char *where,
                                            struct fkv_error *err) {
    const char *type = "nothing";
    if (fkv_json_get_string(root, where, "model_type", false, &type, err)) return NULL;
    const struct fkv_family *family = fkv_family_find(type);
    if (!family)
        fkv_fail(err, "%s: field \"model_type\": expected %s, found %.64s", where,
                 fkv_family_model_types(), type);
    return family;
}

static int read_sizes(const json_t *root, const char *where, const struct fkv_family *family,
                      struct fkv_config *c, struct fkv_error *err) {
    const struct {
        const char *field;
        bool required;
        int32_t high, *value;
    } sizes[] = {
        {"num_hidden_layers", true, FKV_MAX_LAYERS, &c->layers},
        {"hidden_size", true, MAX_SIZE, &c->dim},
        {"intermediate_size", true, MAX_SIZE, &c->hidden},
        {"num_attention_heads", !family->heads, MAX_HEADS, &c->heads},
        {"vocab_size", !family->vocab, MAX_SIZE, &c->vocab},
        {"max_position_embeddings", false, FKV_MAX_CONTEXT, &c->trained_context},
        {"num_key_value_heads", false, MAX_HEADS, &c->kv_heads},
        {"head_dim", false, FKV_MAX_HEAD_DIM, &c->head_dim},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t value = *sizes[i].value;
        if (fkv_json_get_int(root, where, sizes[i].field, sizes[i].required, 1, sizes[i].high,
                             &value, err))
            return FKV_FAILED;
        *sizes[i].value = (int32_t)value;
    }
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (c->heads % c->kv_heads)
        return fkv_fail(err,
                        "%s: field \"num_key_value_heads\": expected a divisor of "
                        "num_attention_heads %d, found %d",
                        where, c->heads, c->kv_heads);
    if (!c->head_dim && c->dim % c->heads)
        return fkv_fail(err,
                        "%s: field \"hidden_size\": expected a multiple of num_attention_heads "
                        "%d (there is no head_dim), found %d",
                        where, c->heads, c->dim);
    if (!c->head_dim) c->head_dim = c->dim / c->heads;
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

static const char *activation_field(const struct fkv_family *family) {
    return family->activation_field ? family->activation_field : "hidden_act";
}

static int read_activation(const json_t *root, const char *where, const struct fkv_family *family,
                           struct fkv_config *c, struct fkv_error *err) {
    static const char *const names[] = {[FKV_SILU] = "silu", [FKV_GELU_TANH] = "gelu_pytorch_tanh"};
    const char *field = activation_field(family), *found = names[family->activation];
    if (fkv_json_get_string(root, where, field, false, &found, err)) return FKV_FAILED;
    if (!strcmp(found, "swish")) found = names[FKV_SILU];
    for (int i = 0; i < 2; i++)
        if (!strcmp(found, names[i])) {
            c->activation = (enum fkv_activation)i;
            return FKV_OK;
        }
    return fkv_fail(err, "%s: field \"%s\": expected silu or gelu_pytorch_tanh, found %.64s", where,
                    field, found);
}

/* Refuses what is not computed. */
static int refuse_unsupported(const json_t *root, const char *where,
                              const struct fkv_family *family, struct fkv_error *err) {
    const char *const never_null[] = {"rms_norm_eps", "tie_word_embeddings",
                                      activation_field(family), NULL};
    bool attention_bias = false, mlp_bias = false;
    if (fkv_json_refuse_null(root, where, never_null, err) ||
        fkv_json_get_bool(root, where, "attention_bias", false, &attention_bias, err) ||
        fkv_json_get_bool(root, where, "mlp_bias", false, &mlp_bias, err))
        return FKV_FAILED;
    if (attention_bias && !family->ignores_bias)
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

static int read_rotation(const json_t *root, const char *where, const struct fkv_family *family,
                         struct fkv_config *c, struct fkv_error *err) {
    const struct fkv_rope_defaults defaults = {.layers = family->full_layers,
                                               .theta = family->theta != 0 ? family->theta : 10000,
                                               .head_dim = c->head_dim,
                                               .trained_context = c->trained_context};
    if (fkv_rope_read(root, where, &defaults, &c->rotations[0], err)) return FKV_FAILED;
    c->rotation_count = 1;
    if (c->rotations[0].channels < c->head_dim && !family->partial_rotary)
        return fkv_fail(err, "%s: field \"partial_rotary_factor\": expected 1, found %g", where,
                        (double)c->rotations[0].channels / c->head_dim);
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

/* What the family's row says, and the sizes that hold where the config is silent. */
static void set_family(const struct fkv_family *family, const json_t *root, struct fkv_config *c) {
    const bool null_kv_heads = json_is_null(json_object_get(root, "num_key_value_heads"));
    strcpy(c->model_type, family->model_type);
    c->heads = family->heads;
    c->vocab = family->vocab;
    c->trained_context = family->context;
    c->kv_heads = null_kv_heads ? 0 : family->kv_heads; /* 0: as many as heads */
    c->head_dim = family->head_dim;
    c->qkv_bias = family->qkv_bias;
    c->qk_norm = family->qk_norm;
    c->input_norms = !family->no_input_norms;
    c->output_norms = family->output_norms;
    c->norms_less_one = family->norms_less_one;
    c->tied = family->tied;
    c->embedding_multiplier = c->residual_multiplier = c->logits_multiplier = 1;
}

static int read_config(const json_t *root, const char *where, int32_t trained_context,
                       struct fkv_config *c, struct fkv_error *err) {
    if (!json_is_object(root)) return fkv_fail(err, "%s: expected a JSON object", where);
    const struct fkv_family *family = find_family(root, where, err);
    if (!family) return FKV_FAILED;
    set_family(family, root, c);
    if (refuse_unsupported(root, where, family, err) ||
        fkv_family_check_layer_types(root, where, err) ||
        read_activation(root, where, family, c, err) || read_sizes(root, where, family, c, err))
        return FKV_FAILED;

    double eps = family->rms_eps != 0 ? family->rms_eps : 1e-6;
    if (fkv_json_get_double(root, where, "rms_norm_eps", false, 0, 1, &eps, err) ||
        fkv_json_get_bool(root, where, "tie_word_embeddings", false, &c->tied, err) ||
        get_token_id(root, where, "bos_token_id", c->vocab, &c->bos, err) ||
        add_token_ids(root, where, "eos_token_id", c->vocab, c->ends, &c->end_count, err))
        return FKV_FAILED;
    c->eos = c->end_count ? c->ends[0] : -1;
    c->rms_eps = (float)eps;
    c->attention_scale = (float)(1 / sqrt(c->head_dim));
    if (read_rotation(root, where, family, c, err) || /* by the context of the config */
        (family->read && family->read(root, where, c, err)))
        return FKV_FAILED;
    if (trained_context) c->trained_context = trained_context;
    return FKV_OK;
}

/* What only some families have. */
static bool is_plain(const struct fkv_config *c) {
    bool plain = c->rotation_count == 1 && c->rotations[0].channels == c->head_dim &&
                 c->attention_softcap == 0 && c->logits_softcap == 0 &&
                 c->embedding_multiplier == 1 && c->residual_multiplier == 1 &&
                 c->logits_multiplier == 1 && c->activation == FKV_SILU;
    for (int32_t l = 0; l < c->layers; l++)
        plain = plain && c->layer[l].rotation == 0 && c->layer[l].window == 0;
    return plain;
}

/* That is hashed behind the rest, so that a config without it has the hash that it always had. */
static int print_special(const struct fkv_config *c, char *text, size_t size,
                         struct fkv_error *err) {
    const struct fkv_rope *local = &c->rotations[c->rotation_count - 1];
    fkv_sha256_hex layers;
    if (fkv_sha256_memory(c->layer, (size_t)c->layers * sizeof *c->layer, layers, err))
        return FKV_FAILED;
    snprintf(text, size, " %d %.17g %s %d %.9g %.9g %.9g %.9g %.9g %d %s", c->rotation_count,
             local->theta, local->scaling, local->channels, (double)c->attention_softcap,
             (double)c->logits_softcap, (double)c->embedding_multiplier,
             (double)c->residual_multiplier, (double)c->logits_multiplier, c->activation, layers);
    return FKV_OK;
}

static int hash_fields(struct fkv_config *c, struct fkv_error *err) {
    char text[1024 + 2 * sizeof c->rotations[0].scaling],
        special[512 + sizeof c->rotations[0].scaling] = "";
    const struct fkv_rope *r = &c->rotations[0];
    if (!is_plain(c) && print_special(c, special, sizeof special, err)) return FKV_FAILED;
    const int bytes = snprintf(
        text, sizeof text, "%s %d %d %d %d %d %d %d %d %.9g %.17g %s %.9g %d %d %d %d %d%s",
        c->model_type, c->layers, c->dim, c->hidden, c->heads, c->kv_heads, c->head_dim, c->vocab,
        c->trained_context, c->rms_eps, r->theta, r->scaling, c->attention_scale, c->tied,
        c->qkv_bias, c->qk_norm, c->bos, c->eos, special);
    return fkv_sha256_memory(text, (size_t)bytes, c->sha256, err);
}

/* The text part of a multimodal config, with what it leaves to the whole: token ids, for example.
 * A new reference, or NULL. */
static json_t *text_part(const json_t *root) {
    const json_t *part = json_object_get(root, "text_config");
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const struct fkv_family *family = type ? fkv_family_find(type) : NULL;
    if (!json_is_object(part) || !family || strcmp(type, family->model_type) == 0)
        return json_incref((json_t *)root);
    json_t *text = json_copy((json_t *)part);
    if (text && json_object_update_missing(text, (json_t *)root)) {
        json_decref(text);
        return NULL;
    }
    return text;
}

int fkv_config_read(const json_t *root, const char *where, int32_t trained_context,
                    struct fkv_config *config, struct fkv_error *err) {
    memset(config, 0, sizeof *config);
    json_t *text = text_part(root);
    if (!text) return fkv_fail(err, "%s: out of memory", where);
    const int status = read_config(text, where, trained_context, config, err);
    json_decref(text);
    return status ? status : hash_fields(config, err);
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

int fkv_config_rescale(struct fkv_config *c, const struct fkv_rope_scaling *scaling,
                       struct fkv_error *err) {
    const double context =
        floor(c->trained_context * (scaling->kind->lengthens ? scaling->factor : 1));
    if (context > FKV_MAX_CONTEXT)
        return fkv_fail(err,
                        "rope scaling: expected a context of at most %d, found %d tokens times %g",
                        FKV_MAX_CONTEXT, c->trained_context, scaling->factor);
    if (fkv_rope_rescale(&c->rotations[0], scaling, c->trained_context, err)) return FKV_FAILED;
    c->trained_context = (int32_t)context;
    return hash_fields(c, err);
}

bool fkv_config_rotates_by_length(const struct fkv_config *config) {
    for (int32_t r = 0; r < config->rotation_count; r++)
        if (config->rotations[r].by_length) return true;
    return false;
}
