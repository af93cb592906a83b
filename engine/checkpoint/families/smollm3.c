/* SmolLM3: LLaMA's layers, of which every fourth has no rotation (NoPE, arXiv 2501.18795). Where
 * use_sliding_window says so, those slide; where layer_types is given, the layers that it lists
 * slide in any case. */
#include "engine/checkpoint/families.h"

enum { SILENT_INTERVAL = 4 };

/* no_rope_layers [layers or more]: 1 where a layer turns, 0 where it does not. */
static int read_listed(const json_t *list, const char *where, struct fkv_config *c,
                       struct fkv_error *err) {
    if (!json_is_array(list) || json_array_size(list) < (size_t)c->layers)
        return fkv_fail(err, "%s: field \"no_rope_layers\": expected %d entries, found %zu", where,
                        c->layers, json_array_size(list));
    for (int32_t l = 0; l < c->layers; l++) {
        const json_t *item = json_array_get(list, (size_t)l);
        const json_int_t turns = json_integer_value(item);
        if (!json_is_integer(item) || (turns != 0 && turns != 1))
            return fkv_fail(err, "%s: field \"no_rope_layers\": expected 0 or 1 for layer %d",
                            where, l);
        if (!turns) c->layer[l].rotation = FKV_NO_ROTATION;
    }
    return FKV_OK;
}

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    const json_t *list = json_object_get(root, "no_rope_layers"),
                 *types = json_object_get(root, "layer_types");
    bool used = false, slides[FKV_MAX_LAYERS];
    int64_t interval = SILENT_INTERVAL;
    if (fkv_json_get_int(root, where, "no_rope_layer_interval", false, 1, INT32_MAX, &interval,
                         err) ||
        fkv_json_get_bool(root, where, "use_sliding_window", false, &used, err))
        return FKV_FAILED;
    if (list && !json_is_null(list)) {
        if (read_listed(list, where, c, err)) return FKV_FAILED;
    } else {
        for (int32_t l = 0; l < c->layers; l++)
            if ((l + 1) % interval == 0) c->layer[l].rotation = FKV_NO_ROTATION;
    }
    for (int32_t l = 0; l < c->layers; l++) slides[l] = c->layer[l].rotation == FKV_NO_ROTATION;
    used = (used || (types && !json_is_null(types))) && json_object_get(root, "sliding_window");
    return used ? fkv_family_set_windows(root, where, 0, slides, c, err) : FKV_OK;
}

const struct fkv_family fkv_family_smollm3 = {
    .model_type = "smollm3",
    .architecture = "smollm3",
    .paired_heads = true,
    .kv_heads = 4,
    .context = 32768,
    .theta = 2e6,
    .tied = true,
    .read = read,
};
