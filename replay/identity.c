/* Every option counts, the defaults that were applied included: a file is gone on with only where
 * each field is the same, but for those that lines_file.c names. */
#include "replay/identity.h"

void fkv_quant_to_json(const struct fkv_policy_setup *setup, json_t *object) {
    if (!setup->quant) return;
    json_object_set_new(object, "cache_quant", json_string(fkv_quant_name(setup->quant)));
    json_object_set_new(object, "cache_quant_keys",
                        json_string(setup->quant_before ? "before" : "after"));
}

json_t *fkv_identity_policy_json(const struct fkv_policy_setup *setup) {
    const bool window = setup->policy->takes_window;
    json_t *o = json_object(), *retained = setup->retained ? json_array() : json_null();
    for (int32_t h = 0; setup->retained && h < setup->layers * setup->kv_heads; h++)
        json_array_append_new(retained, json_integer(setup->retained[h]));
    json_object_set_new(o, "policy", json_string(setup->policy->name));
    json_object_set_new(o, "window", window ? json_integer(setup->window) : json_null());
    json_object_set_new(o, "sinks", window ? json_integer(setup->sinks) : json_null());
    fkv_own_to_json(setup->policy->options, setup->own, setup->own_texts, o);
    json_object_set_new(o, "gamma", fkv_json_number(setup->gamma));
    json_object_set_new(o, "retained", retained);
    fkv_quant_to_json(setup, o);
    return o;
}

/* The one token that ends a text (-1: none), or the list of several. */
static json_t *ends_json(const struct fkv_config *config) {
    if (config->end_count < 2) return json_integer(config->end_count ? config->ends[0] : -1);
    json_t *list = json_array();
    for (int32_t i = 0; i < config->end_count; i++)
        json_array_append_new(list, json_integer(config->ends[i]));
    return list;
}

int64_t fkv_identity_rope_positions(const struct fkv_config *config,
                                    const struct fkv_policy_setup *setup, int64_t tokens) {
    return fkv_config_rotates_by_length(config) ? fkv_session_reach(setup, tokens) : 0;
}

json_t *fkv_identity_json(const struct fkv_identity *identity, struct fkv_error *err) {
    const struct fkv_engine_options *options = &identity->replay->options;
    const struct fkv_engine *engine = &identity->replay->engine;
    const struct fkv_model *model = engine->model;
    const struct fkv_config *config = &model->config;
    fkv_sha256_hex model_sha256;
    if (fkv_model_sha256(model, model_sha256, err)) return NULL;
    json_t *o = json_pack(
        "{s:s, s:i, s:s, s:o, s:o, s:s, s:s, s:s, s:i, s:o, s:s, s:o, s:s}", "format",
        identity->format, "format_version", 1, "software_version", FKV_VERSION, "command",
        fkv_json_string(identity->replay->command), "model", fkv_json_string(model->name),
        "model_sha256", model_sha256, "config_sha256", config->sha256, "model_type",
        config->model_type, "trained_context", (int)config->trained_context, "rope_theta",
        fkv_json_number(config->rotations[0].theta), "rope_scaling", config->rotations[0].scaling,
        "eos", ends_json(config), "tokenizer_sha256", fkv_engine_tokenizer_sha256(engine));
    json_t *how = json_pack(
        "{s:s, s:s, s:s, s:s, s:i}", "backend", engine->ops->name, "compute",
        fkv_engine_compute_name(options, engine), "kernels", engine->device.kernels, "cache_dtype",
        fkv_dtype_name(fkv_engine_cache_dtype(options, engine)), "batch", (int)identity->batch);
    json_t *setup = identity->setup ? fkv_identity_policy_json(identity->setup) : json_object();
    int failed = !o || json_object_update(o, setup) || json_object_update(o, how);
    json_decref(setup);
    json_decref(how);
    if (!failed && identity->rope_positions)
        failed = json_object_set_new(o, "rope_positions", json_integer(identity->rope_positions));
    if (!failed && model->adapter) { /* model_sha256 counts it, too */
        failed =
            json_object_set_new(o, "adapter", fkv_json_string(model->adapter_name)) ||
            json_object_set_new(o, "adapter_sha256", json_string(fkv_model_adapter_sha256(model)));
    }
    if (!failed) return o;
    json_decref(o);
    fkv_fail(err, "out of memory for what makes a file");
    return NULL;
}
