/* Phi-3 and Phi-4-mini (arXiv 2404.14219, 2503.01743): LLaMA's layers with fused projections, of
 * which all slide or none; of a head, only a part may turn. */
#include "engine/checkpoint/families.h"

static int read(const json_t *root, const char *where, struct fkv_config *c,
                struct fkv_error *err) {
    return fkv_family_set_windows(root, where, 0, NULL, c, err);
}

const struct fkv_family fkv_family_phi3 = {
    .model_type = "phi3",
    .architecture = "phi3",
    .context = 4096,
    .rms_eps = 1e-5,
    .partial_rotary = true,
    .ignores_bias = true,
    .read = read,
};
