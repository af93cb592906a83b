/* Granite 3 (IBM): LLaMA's layers with four multipliers. */
#include <math.h>

#include "engine/checkpoint/families.h"

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    const struct {
        const char *field;
        float *value;
        bool inverse;
    } multipliers[] = {
        {"embedding_multiplier", &c->embedding_multiplier, false},
        {"residual_multiplier", &c->residual_multiplier, false},
        {"attention_multiplier", &c->attention_scale, false},
        {"logits_scaling", &c->logits_multiplier, true},
    };
    for (int i = 0; i < 4; i++) {
        const char *const never_null[] = {multipliers[i].field, NULL};
        double value = 1;
        if (fkv_json_refuse_null(root, where, never_null, err) ||
            fkv_json_get_double(root, where, multipliers[i].field, false, 1e-9, 1e9, &value, err))
            return FKV_FAILED;
        *multipliers[i].value = (float)(multipliers[i].inverse ? 1 / value : value);
    }
    return FKV_OK;
}

/* llama.cpp's default. */
static void complete(json_t *config) {
    const double head_dim = json_number_value(json_object_get(config, "head_dim"));
    if (!json_object_get(config, "attention_multiplier") && head_dim > 0)
        json_object_set_new(config, "attention_multiplier", json_real(1 / sqrt(head_dim)));
}

const struct fkv_family fkv_family_granite = {
    .model_type = "granite",
    .architecture = "granite",
    .paired_heads = true,
    .context = 2048,
    .read = read,
    .complete = complete,
};
