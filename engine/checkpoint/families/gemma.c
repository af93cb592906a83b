/* Gemma 2 and the text part of Gemma 3 (arXiv 2408.00118, 2503.19786): norms before and after
 * attention and MLP, whose weights are stored less one; GELU; embeddings times sqrt(dim); a scale
 * of attention of its own; layers that slide between some that see the whole context. Gemma 2 caps
 * scores and logits; Gemma 3 normalises the heads of queries and keys instead, and its sliding
 * layers turn by a rotation of their own.
 *
 * transformers rounds sqrt(dim) to the dtype that it computes in. We compute in float32, as
 * llama.cpp does, and so does it when asked to. */
#include <math.h>

#include "engine/checkpoint/families.h"
#include "kernels/base/path.h"

enum { SILENT_WINDOW = 4096, SILENT_SCALAR = 256 };

/* A cap that may be null: 0 then. */
static int read_cap(const json_t *root, const char *where, const char *field, double silent,
                    float *cap, struct fkv_error *err) {
    double value = silent;
    *cap = 0;
    if (json_is_null(json_object_get(root, field))) return FKV_OK;
    if (fkv_json_get_double(root, where, field, false, 1e-3, 1e6, &value, err)) return FKV_FAILED;
    *cap = (float)value;
    return FKV_OK;
}

/* Every `pattern`-th layer sees the whole context. */
static int read_common(const json_t *root, const char *where, int64_t pattern, struct fkv_config *c,
                       struct fkv_error *err) {
    bool both_ways = false, slides[FKV_MAX_LAYERS];
    double scalar = SILENT_SCALAR;
    static const char *const never_null[] = {"sliding_window", "query_pre_attn_scalar", NULL};
    if (fkv_json_refuse_null(root, where, never_null, err) ||
        fkv_json_get_double(root, where, "query_pre_attn_scalar", false, 1e-3, 1e6, &scalar, err) ||
        fkv_json_get_bool(root, where, "use_bidirectional_attention", false, &both_ways, err))
        return FKV_FAILED;
    if (both_ways)
        return fkv_fail(err,
                        "%s: field \"use_bidirectional_attention\": expected false (not "
                        "supported), found true",
                        where);
    c->attention_scale = (float)(1 / sqrt(scalar));
    c->embedding_multiplier = (float)sqrt(c->dim);
    for (int32_t l = 0; l < c->layers; l++) slides[l] = (l + 1) % pattern != 0;
    return fkv_family_set_windows(root, where, SILENT_WINDOW, slides, c, err);
}

/* llama.cpp's scale of attention, by the number of layers: that of the 27B models (46 in Gemma 2,
 * 62 in Gemma 3) is 1/sqrt(dim / heads). */
static void complete(json_t *config) {
    const json_int_t layers = json_integer_value(json_object_get(config, "num_hidden_layers")),
                     dim = json_integer_value(json_object_get(config, "hidden_size")),
                     heads = json_integer_value(json_object_get(config, "num_attention_heads"));
    const bool largest = layers == 46 || layers == 62;
    json_t *scalar = largest && heads > 0 ? json_real((double)dim / (double)heads)
                                          : json_incref(json_object_get(config, "head_dim"));
    json_object_set_new(config, "query_pre_attn_scalar", scalar);
}

/* ---- Gemma 2 ---- */

static int read_gemma2(const json_t *root, const char *where, struct fkv_config *c,
                       struct fkv_error *err) {
    if (read_cap(root, where, "attn_logit_softcapping", 50, &c->attention_softcap, err) ||
        read_cap(root, where, "final_logit_softcapping", 30, &c->logits_softcap, err))
        return FKV_FAILED;
    return read_common(root, where, 2, c, err);
}

const struct fkv_family fkv_family_gemma2 = {
    .model_type = "gemma2",
    .architecture = "gemma2",
    .kv_heads = 4,
    .head_dim = 256,
    .context = 8192,
    .tied = true,
    .activation = FKV_GELU_TANH,
    .activation_field = "hidden_activation",
    .output_norms = true,
    .norms_less_one = true,
    .read = read_gemma2,
    .complete = complete,
    .names = {{FKV_MLP_NORM, "pre_feedforward_layernorm.weight"}},
};

/* ---- Gemma 3 ---- */

static const char local_layers[] = "sliding_attention";

/* The rotation of sliding layers: of rope_parameters, or rope_local_base_freq unscaled. */
static int read_local_rotation(const json_t *root, const char *where, struct fkv_config *c,
                               struct fkv_error *err) {
    const json_t *own = json_object_get(json_object_get(root, "rope_parameters"), local_layers);
    char scope[FKV_PATH];
    double theta = 10000;
    if (fkv_path_print(scope, err, "%s: rotation of sliding layers", where) ||
        fkv_json_get_double(root, where, "rope_local_base_freq", false, 1, 1e15, &theta, err))
        return FKV_FAILED;
    json_t *alone = json_object();
    if (!alone || (own && json_object_set(alone, "rope_parameters", (json_t *)own))) {
        json_decref(alone);
        return fkv_fail(err, "%s: out of memory", where);
    }
    const struct fkv_rope_defaults defaults = {
        .theta = theta, .head_dim = c->head_dim, .trained_context = c->trained_context};
    const int status = fkv_rope_read(alone, scope, &defaults, &c->rotations[1], err);
    json_decref(alone);
    c->rotation_count = 2;
    return status;
}

/* llama.cpp: no layer slides in a file that gives no window. */
static void complete_gemma3(json_t *config) {
    const json_int_t layers = json_integer_value(json_object_get(config, "num_hidden_layers"));
    complete(config);
    if (json_object_get(config, "sliding_window")) return;
    json_t *types = json_array();
    for (json_int_t l = 0; l < layers && l < FKV_MAX_LAYERS; l++)
        json_array_append_new(types, json_string("full_attention"));
    json_object_set_new(config, "layer_types", types);
}

static int read_gemma3(const json_t *root, const char *where, struct fkv_config *c,
                       struct fkv_error *err) {
    int64_t pattern = 6;
    float attention_cap;
    if (fkv_json_get_int(root, where, "sliding_window_pattern", false, 1, INT32_MAX, &pattern,
                         err) ||
        read_cap(root, where, "final_logit_softcapping", 0, &c->logits_softcap, err) ||
        read_cap(root, where, "attn_logit_softcapping", 0, &attention_cap, err) ||
        read_common(root, where, pattern, c, err) || read_local_rotation(root, where, c, err))
        return FKV_FAILED;
    if (attention_cap != 0)
        return fkv_fail(err,
                        "%s: field \"attn_logit_softcapping\": expected null (transformers does "
                        "not apply it), found %g",
                        where, (double)attention_cap);
    for (int32_t l = 0; l < c->layers; l++) c->layer[l].rotation = c->layer[l].window ? 1 : 0;
    return FKV_OK;
}

const struct fkv_family fkv_family_gemma3 = {
    .model_type = "gemma3_text",
    .wrapper = "gemma3",
    .architecture = "gemma3",
    .heads = 8,
    .vocab = 262208,
    .kv_heads = 4,
    .head_dim = 256,
    .context = 131072,
    .theta = 1e6,
    .tied = true,
    .activation = FKV_GELU_TANH,
    .activation_field = "hidden_activation",
    .full_layers = "full_attention",
    .qk_norm = FKV_QK_NORM_HEADS,
    .output_norms = true,
    .norms_less_one = true,
    .read = read_gemma3,
    .complete = complete_gemma3,
    .names = {{FKV_MLP_NORM, "pre_feedforward_layernorm.weight"}},
};
