/* Rotation scaling of a GGUF file in the words of a Hugging Face config.
 *
 * What llama.cpp means by the keys under ARCHITECTURE.rope.scaling:
 *  - A factor without a type is linear; a factor of 0 is none.
 *  - attn_factor and yarn_attn_factor multiply cos and sin, of yarn beside the 0.1 ln s + 1 that
 *    its authors suggest; absent: 1, also where transformers would derive one (longrope).
 *  - The lists of longrope are tensors, rope_factors_short.weight and rope_factors_long.weight; a
 *    type need not be given beside them.
 *  - yarn_ext_factor other than 1 mixes yarn with linear scaling, and yarn_log_multiplier belongs
 *    to architectures that we do not run: both are refused. finetuned changes no number. */
#include "engine/checkpoint/gguf_rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/checkpoint/rope.h"

struct scaling {
    char type[32]; /* "none", "linear", "yarn" or "longrope", or what the file says else */
    double factor, attention_factor;
};

/* The key ARCHITECTURE.rope.rest */
static const char *key_of(const char *architecture, const char *rest, char key[96]) {
    snprintf(key, 96, "%s.rope.%s", architecture, rest);
    return key;
}

static int get_number(const struct fkv_gguf *g, const char *architecture, const char *rest,
                      double *value, struct fkv_error *err) {
    char key[96];
    return fkv_gguf_get_double(g, key_of(architecture, rest, key), false, 0, 1e6, value, err);
}

static int read_type(const struct fkv_gguf *g, const char *architecture, struct scaling *s,
                     struct fkv_error *err) {
    struct fkv_gguf_string type = {"linear", 6};
    double old_factor = 0;
    char key[96];
    if (fkv_gguf_get_string(g, key_of(architecture, "scaling.type", key), false, &type, err) ||
        get_number(g, architecture, "scaling.factor", &s->factor, err) ||
        get_number(g, architecture, "scale_linear", &old_factor, err))
        return FKV_FAILED;
    snprintf(s->type, sizeof s->type, "%.*s", type.bytes < 31 ? (int)type.bytes : 31, type.text);
    if (fkv_tensor_find(fkv_gguf_tensors(g), "rope_factors_long.weight"))
        strcpy(s->type, "longrope");
    if (old_factor > 0 && s->factor == 0) {
        s->factor = old_factor;
        strcpy(s->type, "linear");
    }
    if (!strcmp(s->type, "linear") && s->factor == 0) strcpy(s->type, "none");
    return FKV_OK;
}

static int refuse_unsupported(const struct fkv_gguf *g, const char *architecture,
                              const struct scaling *s, struct fkv_error *err) {
    const bool yarn = !strcmp(s->type, "yarn"), longrope = !strcmp(s->type, "longrope");
    double mixed = 1, log_multiplier = 0;
    char key[96];
    if (fkv_gguf_get_double(g, key_of(architecture, "scaling.yarn_ext_factor", key), false, -1, 1e6,
                            &mixed, err) ||
        get_number(g, architecture, "scaling.yarn_log_multiplier", &log_multiplier, err))
        return FKV_FAILED;
    const struct {
        const char *rest;
        double expected, found;
        bool matters;
    } fixed[] = {
        {"scaling.yarn_ext_factor", 1, mixed, yarn && mixed >= 0}, /* below 0: by the type */
        {"scaling.yarn_log_multiplier", 0, log_multiplier, yarn},
        {"scaling.attn_factor", 1, s->attention_factor, !yarn && !longrope},
        {"scaling.factor", 1, s->factor, longrope && s->factor != 0},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (fixed[i].matters && fixed[i].found != fixed[i].expected)
            return fkv_fail(err, "%s: key %s: expected %g beside the scaling %s, found %g",
                            fkv_gguf_path(g), key_of(architecture, fixed[i].rest, key),
                            fixed[i].expected, s->type, fixed[i].found);
    return FKV_OK;
}

/* A tensor of divisors as a list. */
static int add_list(const struct fkv_gguf *g, const char *name, const char *field, json_t *scaling,
                    struct fkv_error *err) {
    const struct fkv_tensor *t = fkv_tensor_find(fkv_gguf_tensors(g), name);
    if (!t || t->dims != 1 || t->shape[0] > FKV_MAX_HEAD_DIM / 2 || !t->computable ||
        t->format != FKV_WEIGHT_F32)
        return fkv_fail(err, "%s: tensor %s: expected at most %d values of F32, found %lld of %s",
                        fkv_gguf_path(g), name, FKV_MAX_HEAD_DIM / 2,
                        t ? (long long)t->shape[0] : 0, t ? t->format_name : "none");
    json_t *list = json_array();
    for (int64_t i = 0; i < t->shape[0]; i++) {
        float value;
        memcpy(&value, (const char *)t->data + (size_t)i * sizeof value, sizeof value);
        json_array_append_new(list, json_real(isfinite(value) ? (double)value : 0));
    }
    json_object_set_new(scaling, field, list);
    return FKV_OK;
}

/* yarn's own fields. */
static int add_yarn(const struct fkv_gguf *g, const char *architecture, const struct scaling *s,
                    json_t *scaling, struct fkv_error *err) {
    double own = 1, fast = 0, slow = 0;
    if (get_number(g, architecture, "scaling.yarn_attn_factor", &own, err) ||
        get_number(g, architecture, "scaling.yarn_beta_fast", &fast, err) ||
        get_number(g, architecture, "scaling.yarn_beta_slow", &slow, err))
        return FKV_FAILED;
    const double factor = s->factor > 0 ? s->factor : 1, both = s->attention_factor * own;
    json_object_set_new(scaling, "factor", json_real(factor));
    if (fast > 0) json_object_set_new(scaling, "beta_fast", json_real(fast));
    if (slow > 0) json_object_set_new(scaling, "beta_slow", json_real(slow));
    if (both != 1)
        json_object_set_new(scaling, "attention_factor",
                            json_real(both * (factor > 1 ? 0.1 * log(factor) + 1 : 1)));
    return FKV_OK;
}

static int add_longrope(const struct fkv_gguf *g, const struct scaling *s, json_t *scaling,
                        struct fkv_error *err) {
    json_object_set_new(scaling, "attention_factor", json_real(s->attention_factor));
    return add_list(g, "rope_factors_long.weight", "long_factor", scaling, err) ||
                   add_list(g, "rope_factors_short.weight", "short_factor", scaling, err)
               ? FKV_FAILED
               : FKV_OK;
}

int fkv_gguf_add_rope(const struct fkv_gguf *g, const char *architecture, json_t *config,
                      struct fkv_error *err) {
    struct scaling s = {.attention_factor = 1};
    int64_t original = 0;
    char key[96];
    if (read_type(g, architecture, &s, err) ||
        get_number(g, architecture, "scaling.attn_factor", &s.attention_factor, err) ||
        fkv_gguf_get_int(g, key_of(architecture, "scaling.original_context_length", key), false, 1,
                         INT32_MAX, &original, err) ||
        refuse_unsupported(g, architecture, &s, err))
        return FKV_FAILED;
    if (!strcmp(s.type, "none")) return FKV_OK;
    json_t *scaling = json_object();
    json_object_set_new(scaling, "rope_type", fkv_json_string(s.type));
    json_object_set_new(config, "rope_scaling", scaling);
    if (original)
        json_object_set_new(scaling, "original_max_position_embeddings", json_integer(original));
    if (!strcmp(s.type, "yarn")) return add_yarn(g, architecture, &s, scaling, err);
    if (!strcmp(s.type, "longrope")) return add_longrope(g, &s, scaling, err);
    json_object_set_new(scaling, "factor", json_real(s.factor));
    return FKV_OK;
}
