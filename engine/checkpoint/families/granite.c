/* Granite 3 (IBM): LLaMA's layers with four multipliers. */
#include <math.h>

#include "engine/checkpoint/families.h"

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    double embedding = 1, residual = 1, attention = 1, logits = 1;
    const double least = 1e-9, most = 1e9;
    static const char *const never_null[] = {"embedding_multiplier", "residual_multiplier",
                                             "attention_multiplier", "logits_scaling", NULL};
    if (fkv_json_refuse_null(root, where, never_null, err) ||
        fkv_json_get_double(root, where, "embedding_multiplier", false, least, most, &embedding,
                            err) ||
        fkv_json_get_double(root, where, "residual_multiplier", false, least, most, &residual,
                            err) ||
        fkv_json_get_double(root, where, "attention_multiplier", false, least, most, &attention,
                            err) ||
        fkv_json_get_double(root, where, "logits_scaling", false, least, most, &logits, err))
        return FKV_FAILED;
    c->embedding_multiplier = (float)embedding;
    c->residual_multiplier = (float)residual;
    c->attention_scale = (float)attention;
    c->logits_multiplier = (float)(1 / logits);
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
