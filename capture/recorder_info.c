/* What a capture says about itself: model, tokenizer, layers, heads, and the options that decide
 * its contents. */
#include <stdlib.h>
#include <string.h>

#include "capture/recorder.h"
#include "kernels/base/json.h"

/* As JSON with sorted keys, so that equal options are equal text. Left out on purpose: what does
 * not change the contents (threads) or is told apart by the recordings themselves (texts, shard).
 */
static char *describe_options(const struct fkv_recorder *r) {
    const struct fkv_recorder_options *o = &r->options;
    json_t *states = json_array();
    for (int i = 0; i < FKV_STATES; i++)
        if ((o->states >> i) & 1) json_array_append_new(states, json_string(fkv_state_names[i]));
    json_t *all = json_pack("{s:o, s:I, s:s, s:b}", "states", states, "max_tokens",
                            (json_int_t)o->max_tokens, "cache_dtype",
                            fkv_dtype_name(fkv_engine_cache_dtype(r->engine_options, r->engine)),
                            "spectra_only", (int)o->spectra_only);
    if (o->spectra_only) {
        json_object_set_new(all, "length", json_integer(o->length));
        json_object_set_new(all, "skip_sinks", json_integer(o->skip_sinks));
    }
    char *text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(all);
    return text;
}

static int32_t *indices(const int *chosen, int count, int32_t all, int32_t *out_count) {
    *out_count = chosen ? count : all;
    int32_t *index = malloc((size_t)*out_count * sizeof *index);
    for (int32_t i = 0; index && i < *out_count; i++) index[i] = chosen ? chosen[i] : i;
    return index;
}

/* Whether captured layers turn differently. */
static bool layers_differ(const struct fkv_config *c, const struct fkv_capture_info *info) {
    bool differ = false;
    for (int32_t i = 1; i < info->layer_count; i++)
        differ |=
            c->layer[info->layer_index[i]].rotation != c->layer[info->layer_index[0]].rotation;
    return differ;
}

/* The rotation of every captured layer, or one where they all turn alike. */
static int describe_rotation(const struct fkv_config *c, int64_t positions,
                             struct fkv_capture_info *info, struct fkv_error *err) {
    const size_t half = (size_t)c->head_dim / 2;
    info->rotation_per_layer = layers_differ(c, info);
    const size_t rows = info->rotation_per_layer ? (size_t)info->layer_count : 1;
    bool scaled = false;
    info->inv_freq = calloc(rows * half, sizeof *info->inv_freq);
    info->attention_factor = calloc(rows, sizeof *info->attention_factor);
    if (!info->inv_freq || !info->attention_factor) return fkv_fail(err, "out of memory");
    for (size_t i = 0; i < rows; i++) {
        const int32_t rotation = c->layer[info->layer_index[i]].rotation;
        info->attention_factor[i] = 1;
        if (rotation == FKV_NO_ROTATION) continue;
        const struct fkv_rope *rope = &c->rotations[rotation];
        if (info->rotary_dim && info->rotary_dim != rope->channels)
            return fkv_fail(err, "expected as many channels to turn in all layers, found %d and %d",
                            info->rotary_dim, rope->channels);
        info->rotary_dim = rope->channels;
        info->attention_factor[i] = rope->attention_factor;
        scaled |= rope->attention_factor != 1;
        fkv_rope_frequencies(rope, positions, info->inv_freq + i * half);
    }
    if (!scaled) {
        free(info->attention_factor);
        info->attention_factor = NULL;
    }
    info->rope_positions = fkv_config_rotates_by_length(c) ? positions : 0;
    return FKV_OK;
}

/* What scores go through besides their scale, where there is any. */
static int describe_scores(const struct fkv_config *c, struct fkv_capture_info *info,
                           struct fkv_error *err) {
    bool slides = false;
    info->attention_softcap = (double)c->attention_softcap;
    info->layer_window = calloc((size_t)info->layer_count, sizeof *info->layer_window);
    if (!info->layer_window) return fkv_fail(err, "out of memory");
    for (int32_t i = 0; i < info->layer_count; i++) {
        info->layer_window[i] = c->layer[info->layer_index[i]].window;
        slides |= info->layer_window[i] != 0;
    }
    if (slides) return FKV_OK;
    free(info->layer_window);
    info->layer_window = NULL;
    return FKV_OK;
}

int fkv_recorder_make_info(struct fkv_recorder *r, struct fkv_error *err) {
    const struct fkv_model *model = r->engine->model;
    const struct fkv_config *c = &model->config;
    const struct fkv_tokenizer *tokenizer = r->engine->tokenizer;
    const struct fkv_recorder_options *o = &r->options;
    struct fkv_capture_info *info = &r->info;
    *info = (struct fkv_capture_info){.n_layers = c->layers,
                                      .n_heads = c->heads,
                                      .n_kv_heads = c->kv_heads,
                                      .head_dim = c->head_dim,
                                      .rope_theta = c->rotations[0].theta,
                                      .attention_scale = (double)c->attention_scale,
                                      .trained_context = c->trained_context,
                                      .adds_bos = tokenizer && fkv_tokenizer_bos(tokenizer) >= 0,
                                      .dtype = o->dtype,
                                      .spectra_only = o->spectra_only,
                                      .states = o->states};
    info->model_name = strdup(model->name);
    info->rope_scaling = strdup(c->rotations[0].scaling);
    info->backend = strdup(model->ops->name);
    info->compute = strdup(fkv_engine_compute_name(r->engine_options, r->engine));
    info->kernels = strdup(r->engine->device.kernels);
    info->adapter = strdup(model->adapter_name);
    info->options = describe_options(r);
    info->layer_index = indices(o->layers, o->layer_count, c->layers, &info->layer_count);
    info->head_index = indices(o->heads, o->head_count, c->kv_heads, &info->head_count);
    if (!info->model_name || !info->rope_scaling || !info->backend || !info->compute ||
        !info->kernels || !info->adapter || !info->options || !info->layer_index ||
        !info->head_index)
        return fkv_fail(err, "out of memory");
    if (describe_rotation(c, o->max_tokens, info, err) || describe_scores(c, info, err))
        return FKV_FAILED;
    strcpy(info->config_sha256, c->sha256);
    strcpy(info->adapter_sha256, fkv_model_adapter_sha256(model));
    if (tokenizer) strcpy(info->tokenizer_sha256, fkv_tokenizer_sha256(tokenizer));
    return fkv_model_sha256(model, info->model_sha256, err);
}
