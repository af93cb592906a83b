/* The table of families, and what several of them read alike. */
#include "engine/checkpoint/families.h"

#include <stdio.h>
#include <string.h>

static const struct fkv_family *const families[] = {
    &fkv_family_llama,   &fkv_family_mistral, &fkv_family_qwen2,  &fkv_family_qwen3,
    &fkv_family_smollm3, &fkv_family_phi3,    &fkv_family_gemma2, &fkv_family_gemma3,
    &fkv_family_olmo2,   &fkv_family_granite,
};
enum { FAMILIES = sizeof families / sizeof families[0] };

const struct fkv_family *fkv_family_find(const char *model_type) {
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(model_type, families[i]->model_type) ||
            (families[i]->wrapper && !strcmp(model_type, families[i]->wrapper)))
            return families[i];
    return NULL;
}

const struct fkv_family *fkv_family_find_architecture(const char *architecture) {
    for (int i = 0; i < FAMILIES; i++)
        if (families[i]->architecture && !strcmp(architecture, families[i]->architecture))
            return families[i];
    return NULL;
}

/* "a, b or c": of all families a string that the last of them has. */
static const char *list(char text[256], size_t member) {
    size_t used = 0;
    for (int i = 0; i < FAMILIES; i++) {
        const char *name = *(const char *const *)((const char *)families[i] + member),
                   *before = !used               ? ""
                             : i == FAMILIES - 1 ? " or "
                                                 : ", ";
        if (name) used += (size_t)snprintf(text + used, 256 - used, "%s%s", before, name);
    }
    return text;
}

const char *fkv_family_model_types(void) {
    static char text[256];
    return list(text, offsetof(struct fkv_family, model_type));
}

const char *fkv_family_architectures(void) {
    static char text[256];
    return list(text, offsetof(struct fkv_family, architecture));
}

static const char sliding[] = "sliding_attention";

int fkv_family_check_layer_types(const json_t *root, const char *where, struct fkv_error *err) {
    const json_t *types = json_object_get(root, "layer_types");
    for (size_t l = 0; l < json_array_size(types); l++) {
        const char *type = json_string_value(json_array_get(types, l));
        if (!type || (strcmp(type, sliding) && strcmp(type, "full_attention")))
            return fkv_fail(err,
                            "%s: field \"layer_types\": expected full_attention or "
                            "sliding_attention, found %.64s for layer %zu",
                            where, type ? type : "no text", l);
    }
    return FKV_OK;
}

/* layer_types [layers], which are checked -> slides, which stays as it is where there are none. */
static int read_layer_types(const json_t *root, const char *where, int32_t layers, bool *slides,
                            struct fkv_error *err) {
    const json_t *types = json_object_get(root, "layer_types");
    if (!types || json_is_null(types)) return FKV_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)layers)
        return fkv_fail(err, "%s: field \"layer_types\": expected %d entries, found %zu", where,
                        layers, json_array_size(types));
    for (int32_t l = 0; l < layers; l++)
        slides[l] = !strcmp(json_string_value(json_array_get(types, (size_t)l)), sliding);
    return FKV_OK;
}

int fkv_family_set_windows(const json_t *root, const char *where, int32_t window, bool *slides,
                           struct fkv_config *c, struct fkv_error *err) {
    int64_t tokens = window;
    if (json_is_null(json_object_get(root, "sliding_window"))) return FKV_OK;
    if (fkv_json_get_int(root, where, "sliding_window", false, 1, FKV_MAX_CONTEXT, &tokens, err) ||
        (slides && read_layer_types(root, where, c->layers, slides, err)))
        return FKV_FAILED;
    for (int32_t l = 0; l < c->layers; l++)
        if (!slides || slides[l]) c->layer[l].window = (int32_t)tokens;
    return FKV_OK;
}
