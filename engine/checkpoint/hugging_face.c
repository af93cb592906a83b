/* A checkpoint as a Hugging Face folder: config.json and safetensors. Tensors that no role asks for
 * are ignored: old files carry rotary_emb.inv_freq, others extra heads.
 *
 * Ways of saving name tensors differently: with a head they begin with "model.", without one
 * (AutoModel) they do not, and the text part of a multimodal model begins with "language_model.",
 * or with that after "model.". A checkpoint that says it is tied and yet brings lm_head.weight has
 * its own head used: transformers 5 ties only where both are equal, which is the same numbers. One
 * that is tied may bring either of the two (safetensors' save_model keeps the first by name). */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/safetensors.h"

static const char EMBEDDING[] = "model.embed_tokens.weight";

/* The tensor under any way of naming it, or NULL. */
static const struct fkv_tensor *find_tensor(const struct fkv_safetensors *files, const char *name) {
    const char *prefix = "model.", *without = name;
    char text[128];
    const struct fkv_tensor *t = fkv_safetensors_find(files, name);
    if (!t && !strncmp(name, prefix, strlen(prefix))) {
        without += strlen(prefix);
        t = fkv_safetensors_find(files, without);
    }
    if (!t && snprintf(text, sizeof text, "language_model.%s", name) > 0)
        t = fkv_safetensors_find(files, text);
    if (!t && snprintf(text, sizeof text, "model.language_model.%s", without) > 0)
        t = fkv_safetensors_find(files, text);
    return t;
}

void fkv_hugging_face_names(const struct fkv_config *config,
                            struct fkv_role_name names[FKV_ROLES]) {
    const struct fkv_family *family = fkv_family_find(config->model_type);
    memcpy(names, fkv_hugging_face_format.names, FKV_ROLES * sizeof *names);
    for (int i = 0; family->names[i].name; i++)
        names[family->names[i].role] = (struct fkv_role_name){family->names[i].name, NULL};
}

static int open_folder(struct fkv_checkpoint *c, int32_t trained_context, struct fkv_error *err) {
    struct fkv_safetensors *files;
    if (fkv_config_load(c->path, trained_context, &c->config, err) ||
        fkv_safetensors_open(c->path, &files, err))
        return FKV_FAILED;
    c->files = files;
    fkv_hugging_face_names(&c->config, c->names);
    if (find_tensor(files, "lm_head.weight") && find_tensor(files, EMBEDDING))
        c->config.tied = false;
    return FKV_OK;
}

static void close_folder(struct fkv_checkpoint *c) { fkv_safetensors_close(c->files); }

static bool find(const struct fkv_checkpoint *c, const char *name, struct fkv_role_tensor *out) {
    const struct fkv_tensor *t = find_tensor(c->files, name);
    if (!t && c->config.tied && !strcmp(name, EMBEDDING))
        t = find_tensor(c->files, "lm_head.weight");
    if (!t) return false;
    *out = (struct fkv_role_tensor){.path = fkv_safetensors_path(c->files, t->file),
                                    .name = t->name,
                                    .format_name = t->format,
                                    .computable = t->computable,
                                    .format = (enum fkv_weight_format)t->dtype,
                                    .dims = t->dims,
                                    .data = t->data};
    memcpy(out->shape, t->shape, sizeof out->shape);
    return true;
}

static int sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out, struct fkv_error *err) {
    return fkv_safetensors_sha256(c->files, out, err);
}

static bool fits(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

const struct fkv_checkpoint_format fkv_hugging_face_format = {
    .what = "a model's folder",
    .fits = fits,
    .open = open_folder,
    .close = close_folder,
    .find = find,
    .sha256 = sha256,
    .layer_prefix = "model.layers.%d.",
    .where = "the safetensors files",
    .formats = "F32, F16 or BF16",
    .names =
        {
            [FKV_EMBEDDING] = {"model.embed_tokens.weight", NULL},
            [FKV_FINAL_NORM] = {"model.norm.weight", NULL},
            [FKV_HEAD] = {"lm_head.weight", NULL},
            [FKV_ATTENTION_NORM] = {"input_layernorm.weight", NULL},
            [FKV_QUERY] = {"self_attn.q_proj.weight", "self_attn.qkv_proj.weight"},
            [FKV_KEY] = {"self_attn.k_proj.weight", "self_attn.qkv_proj.weight"},
            [FKV_VALUE] = {"self_attn.v_proj.weight", "self_attn.qkv_proj.weight"},
            [FKV_QUERY_BIAS] = {"self_attn.q_proj.bias", NULL},
            [FKV_KEY_BIAS] = {"self_attn.k_proj.bias", NULL},
            [FKV_VALUE_BIAS] = {"self_attn.v_proj.bias", NULL},
            [FKV_QUERY_NORM] = {"self_attn.q_norm.weight", NULL},
            [FKV_KEY_NORM] = {"self_attn.k_norm.weight", NULL},
            [FKV_OUTPUT] = {"self_attn.o_proj.weight", NULL},
            [FKV_ATTENTION_OUTPUT_NORM] = {"post_attention_layernorm.weight", NULL},
            [FKV_MLP_NORM] = {"post_attention_layernorm.weight", NULL},
            [FKV_GATE] = {"mlp.gate_proj.weight", "mlp.gate_up_proj.weight"},
            [FKV_UP] = {"mlp.up_proj.weight", "mlp.gate_up_proj.weight"},
            [FKV_DOWN] = {"mlp.down_proj.weight", NULL},
            [FKV_MLP_OUTPUT_NORM] = {"post_feedforward_layernorm.weight", NULL},
        },
};
