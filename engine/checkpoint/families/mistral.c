/* Mistral (arXiv 2310.06825): LLaMA's layers, of which all slide or none. */
#include <string.h>

#include "engine/checkpoint/families.h"

enum { SILENT_WINDOW = 4096 };

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    bool slides[FKV_MAX_LAYERS];
    memset(slides, true, sizeof slides);
    return fkv_family_set_windows(root, where, SILENT_WINDOW, slides, c, err);
}

const struct fkv_family fkv_family_mistral = {
    .model_type = "mistral",
    .kv_heads = 8,
    .context = 131072,
    .read = read,
};
