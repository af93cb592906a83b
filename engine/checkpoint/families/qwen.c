/* Qwen2 (arXiv 2407.10671), with biases on queries, keys and values, and Qwen3 (arXiv 2505.09388),
 * with a norm on each head of queries and keys instead. Where use_sliding_window says so, the
 * layers from max_window_layers on slide. */
#include "engine/checkpoint/families.h"

enum { SILENT_WINDOW = 4096, SILENT_FIRST = 28 };

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    bool used = false, slides[FKV_MAX_LAYERS];
    int64_t first = SILENT_FIRST;
    if (fkv_json_get_bool(root, where, "use_sliding_window", false, &used, err) ||
        fkv_json_get_int(root, where, "max_window_layers", false, 0, INT32_MAX, &first, err))
        return FKV_FAILED;
    for (int32_t l = 0; l < c->layers; l++) slides[l] = l >= first;
    return used ? fkv_family_set_windows(root, where, SILENT_WINDOW, slides, c, err) : FKV_OK;
}

const struct fkv_family fkv_family_qwen2 = {
    .model_type = "qwen2",
    .architecture = "qwen2",
    .kv_heads = 32,
    .context = 32768,
    .ignores_bias = true,
    .qkv_bias = true,
    .read = read,
};

const struct fkv_family fkv_family_qwen3 = {
    .model_type = "qwen3",
    .architecture = "qwen3",
    .kv_heads = 32,
    .head_dim = 128,
    .context = 32768,
    .qk_norm = FKV_QK_NORM_HEADS,
    .read = read,
};
