/* OLMo 2 (arXiv 2501.00656): norms after attention and MLP instead of before them, and one over all
 * heads of queries, and of keys. */
#include "engine/checkpoint/families.h"

const struct fkv_family fkv_family_olmo2 = {
    .model_type = "olmo2",
    .architecture = "olmo2",
    .context = 2048,
    .rms_eps = 1e-5,
    .qk_norm = FKV_QK_NORM_WHOLE,
    .no_input_norms = true,
    .output_norms = true,
};
