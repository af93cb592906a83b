/* A checkpoint as a Hugging Face folder: config.json and safetensors.
 *
 * Ways of saving name tensors differently: with a head they begin with "model.", without one
 * (AutoModel) they do not, and the text part of a multimodal model begins with "language_model.",
 * or with that after "model.". A model that was saved from inside torch's wrappers has "module." or
 * "_orig_mod." in front of all names. A checkpoint that says it is tied and yet brings
 * lm_head.weight has its own head used: transformers 5 ties only where both are equal, which is the
 * same numbers. One that is tied may bring either of the two (safetensors' save_model keeps the
 * first by name). */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/checkpoint/adapter_name.h"
#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/safetensors.h"

static const char EMBEDDING[] = "model.embed_tokens.weight";

/* The tensor of that name behind what stands in front of all, or NULL. */
static const struct fkv_tensor *find_behind(const struct fkv_checkpoint *c, const char *front,
                                            const char *name) {
    char text[256];
    snprintf(text, sizeof text, "%s%s%s", c->prefix, front, name);
    return fkv_tensor_find(c->tensors, text);
}

/* The tensor under any way of naming it, or NULL. */
static const struct fkv_tensor *find_tensor(const struct fkv_checkpoint *c, const char *name) {
    const char *without = name;
    fkv_skip_prefix(&without, "model.");
    const struct fkv_tensor *t = find_behind(c, "", name);
    if (!t) t = find_behind(c, "", without);
    if (!t) t = find_behind(c, "language_model.", name);
    return t ? t : find_behind(c, "model.language_model.", without);
}

/* Whether all names go on with `next` behind the prefix. */
static bool all_begin(const struct fkv_checkpoint *c, const char *next) {
    for (size_t i = 0; i < c->tensors->count; i++) {
        const char *name = c->tensors->tensors[i].name;
        if (!fkv_skip_prefix(&name, c->prefix) || !fkv_skip_prefix(&name, next)) return false;
    }
    return c->tensors->count > 0;
}

/* What torch's wrappers put in front of all names, one around the other. */
static void find_prefix(struct fkv_checkpoint *c) {
    static const char *const wrappers[] = {"module.", "_orig_mod."};
    for (size_t i = 0; i < 2; i++) {
        const size_t used = strlen(c->prefix);
        if (used + sizeof "_orig_mod." > sizeof c->prefix || !all_begin(c, wrappers[i])) continue;
        strcpy(c->prefix + used, wrappers[i]);
        find_prefix(c);
        return;
    }
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
    c->tensors = &files->tensors;
    fkv_hugging_face_names(&c->config, c->names);
    find_prefix(c);
    if (find_tensor(c, "lm_head.weight") && find_tensor(c, EMBEDDING)) c->config.tied = false;
    return fkv_checkpoint_check_unused(c, err);
}

static void close_folder(struct fkv_checkpoint *c) { fkv_safetensors_close(c->files); }

static void unload(const struct fkv_checkpoint *c) {
    const struct fkv_safetensors *files = c->files;
    for (int i = 0; i < files->count; i++) fkv_mapping_unload(&files->mappings[i]);
}

static const struct fkv_tensor *find(const struct fkv_checkpoint *c, const char *name) {
    const struct fkv_tensor *t = find_tensor(c, name);
    return t || !c->config.tied || strcmp(name, EMBEDDING) ? t : find_tensor(c, "lm_head.weight");
}

static int sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out, struct fkv_error *err) {
    const struct fkv_safetensors *files = c->files;
    return fkv_sha256_files(files->paths, files->count, out, err);
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
    .unload = unload,
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
