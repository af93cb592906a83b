/* The families of models that load. A family is one file in families/ (what its config means, and
 * how its tensors are called) and one row in families.c. What a family needs of a layer is data in
 * struct fkv_config, which the model binds and all backends read: nobody else asks for a name. */
#ifndef FKV_ENGINE_CHECKPOINT_FAMILIES_H
#define FKV_ENGINE_CHECKPOINT_FAMILIES_H

#include "engine/checkpoint/roles.h"

struct fkv_family {
    const char *model_type; /* in config.json */
    const char *wrapper; /* model_type of a config that holds this family's in text_config, beside
                            parts for other media, which are ignored; NULL: none */
    const char *architecture; /* general.architecture of its GGUF files */
    bool paired_heads;        /* there; see struct fkv_tensor */

    /* Where the config is silent. */
    int32_t heads, vocab; /* 0: they must be given */
    int32_t kv_heads;     /* 0: as many as heads */
    int32_t head_dim;     /* 0: dim / heads */
    int32_t context;
    double rms_eps; /* 0: 1e-6 */
    double theta;   /* of RoPE; 0: 10000 */
    bool tied;
    enum fkv_activation activation;

    const char *activation_field; /* NULL: "hidden_act" */
    const char *full_layers; /* how rope_parameters calls the layers of the first rotation where it
                                has one for each kind; NULL: there is one for all */
    bool partial_rotary;     /* partial_rotary_factor counts */
    bool ignores_bias;       /* attention_bias is not read */
    bool qkv_bias;
    enum fkv_qk_norm qk_norm;
    bool no_input_norms, output_norms;
    bool norms_less_one; /* in its folders; GGUF files hold w */

    /* The rest of the config. It comes with sizes, the first rotation and the defaults of this row
     * filled in, for layers that turn by the first rotation and see the whole context. NULL: there
     * is no more. */
    int (*read)(const json_t *root, const char *where, struct fkv_config *config,
                struct fkv_error *err);
    /* Fills in what its GGUF files leave to llama.cpp, in the words of a config.json. NULL:
     * nothing.
     */
    void (*complete)(json_t *config);
    /* Tensors that its folders call otherwise than hugging_face.c does; a NULL name ends them. */
    struct {
        enum fkv_role role;
        const char *name;
    } names[8];
};

extern const struct fkv_family fkv_family_llama, fkv_family_mistral, fkv_family_qwen2,
    fkv_family_qwen3, fkv_family_smollm3, fkv_family_phi3, fkv_family_gemma2, fkv_family_gemma3,
    fkv_family_olmo2, fkv_family_granite;

/* The family of a model_type, or of a wrapper's; NULL where there is none. */
const struct fkv_family *fkv_family_find(const char *model_type);
/* The family of a GGUF file, or NULL. */
const struct fkv_family *fkv_family_find_architecture(const char *architecture);
/* "llama, mistral, ...": model types, or architectures of GGUF files. Static text. */
const char *fkv_family_model_types(void);
const char *fkv_family_architectures(void);

/* Refuses layer_types with a kind that no family computes, whether the family reads them or not. */
int fkv_family_check_layer_types(const json_t *root, const char *where, struct fkv_error *err);
/* For families: sets the windows of layers from sliding_window (where the config is silent:
 * `window`, 0: none) and layer_types (where it is silent: `slides` [layers]). slides NULL: all
 * layers slide, and layer_types is not read, as in transformers. */
int fkv_family_set_windows(const json_t *root, const char *where, int32_t window, bool *slides,
                           struct fkv_config *config, struct fkv_error *err);

#endif
