/* LLaMA 1 to 3 (arXiv 2302.13971, 2307.09288, 2407.21783), and the many models of its shape. */
#include "engine/checkpoint/families.h"

const struct fkv_family fkv_family_llama = {
    .model_type = "llama",
    .architecture = "llama", /* Mistral's files, too */
    .paired_heads = true,
    .context = 2048,
};
