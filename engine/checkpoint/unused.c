/* Tensors of a checkpoint that no role asks for. A model with a norm, a bias or a layer more than
 * its family has would give other numbers than its authors', so what is not known to be harmless is
 * refused. transformers warns of all of them and goes on by its config, llama.cpp computes with
 * what it finds. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "engine/checkpoint/adapter_name.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/checkpoint_format.h"
#include "engine/checkpoint/families.h"

/* What changes no number, behind any prefix of the model's. */
static const struct {
    const char *pattern;
    bool mask;  /* only with more than two axes: a causal mask, no bias */
    bool media; /* only of families that come inside multimodal models */
} harmless[] = {
    {"*rotary_emb.inv_freq", false, false},   /* computed from the config */
    {"*rotary_emb.???_cached", false, false}, /* cos and sin, likewise */
    {"blk.*.attn_rot_embd.*", false, false},  /* inv_freq in old GGUF files */
    {"rope_freqs.weight", false, false},      /* GGUF: read with the config */
    {"rope_factors_*.weight", false, false},  /* likewise */
    {"*.masked_bias", false, false},          /* the number that a mask puts in */
    {"*.attn.bias", true, false},             /* causal masks that were saved */
    {"*.self_attn.bias", true, false},
    {"*.attention.bias", true, false},
    {"*position_ids", false, false}, /* 0, 1, 2, ... */
    {"vision_tower.*", false, true},
    {"multi_modal_projector.*", false, true},
};

/* What a model has beside its language model: transformers leaves it out, too, and the language
 * model's numbers stay as they are. */
static const struct {
    const char *pattern, *meaning;
} beside[] = {
    {"score.*", "a head of rewards or classes"},
    {"classifier.*", "a head of classes"},
    {"v_head.*", "a head of values"},
    {"value_head.*", "a head of values"},
    {"qa_outputs.*", "a head of answers"},
    {"medusa_head.*", "heads that guess further tokens"},
    {"mtp.*", "layers that guess further tokens"},
};

/* What a tensor may mean, the first that fits. */
static const struct {
    const char *pattern, *meaning;
} meanings[] = {
    {"*lora_*", "a LoRA adapter that is not merged: merge it with PEFT, or give it as --adapter"},
    {"*experts*", "a mixture of experts, which is not supported"},
    {"*_exps.*", "a mixture of experts, which is not supported"},
    {"*_shexp.*", "a mixture of experts, which is not supported"},
    {"*block_sparse_moe*", "a mixture of experts, which is not supported"},
    {"*mlp.gate.*", "a mixture of experts, which is not supported"},
    {"*_inp.*", "a mixture of experts, which is not supported"},
    {"*scale*", "quantised weights in a form that is not supported"},
    {"*.absmax", "quantised weights in a form that is not supported"},
    {"*.qweight", "quantised weights in a form that is not supported"},
    {"*[qk]_norm.*", "a norm of queries or keys: is model_type right?"},
    {"*sinks", "attention sinks with weights, which are not supported"},
    {"*.bias", "a bias: is model_type right?"},
    {"*norm*", "a norm more: is model_type right?"},
    {"*cross*", "attention to another input, which is not supported"},
    {"*mlp*", "a second MLP: is model_type right?"},
    {"*feed_forward*", "a second MLP: is model_type right?"},
    {"*ffn*", "a second MLP: is model_type right?"},
    {"vision*", "a part for images, which this family does not have"},
    {"visual*", "a part for images, which this family does not have"},
};

/* The name behind what ways of saving put in front of it. */
static const char *own_name(const struct fkv_checkpoint *c, const char *name) {
    fkv_skip_prefix(&name, c->prefix);
    while (fkv_skip_prefix(&name, "model.") || fkv_skip_prefix(&name, "language_model.")) continue;
    return name;
}

/* layer < 0: in none. */
static bool has_role(const struct fkv_checkpoint *c, int32_t layer, const struct fkv_tensor *t) {
    bool shared;
    if (layer >= c->config.layers) return false;
    for (enum fkv_role role = 0; role < FKV_ROLES; role++)
        if ((role >= FKV_ATTENTION_NORM) == (layer >= 0) && fkv_role_present(&c->config, role) &&
            fkv_checkpoint_lookup(c, role, layer, &shared) == t)
            return true;
    return false;
}

static bool is_harmless(const struct fkv_checkpoint *c, const char *own,
                        const struct fkv_tensor *t) {
    const struct fkv_family *family = fkv_family_find(c->config.model_type);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (!fnmatch(harmless[i].pattern, own, 0) && (!harmless[i].mask || t->dims > 2) &&
            (!harmless[i].media || (family && family->wrapper)))
            return true;
    return false;
}

static const char *beside_meaning(const char *own) {
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if (!fnmatch(beside[i].pattern, own, 0)) return beside[i].meaning;
    return NULL;
}

/* The message of the first role that has no tensor, or one that is not computable. */
static int find_all(const struct fkv_checkpoint *c, struct fkv_error *err) {
    struct fkv_tensor t;
    for (enum fkv_role role = 0; role < FKV_ROLES; role++)
        for (int32_t l = 0; l < (role >= FKV_ATTENTION_NORM ? c->config.layers : 1); l++)
            if (fkv_role_present(&c->config, role) && fkv_checkpoint_find(c, role, l, &t, err))
                return FKV_FAILED;
    return FKV_OK;
}

/* Names that are only spelled otherwise are missed elsewhere, which says more. */
static int refuse(const struct fkv_checkpoint *c, const char *own, int32_t layer,
                  const struct fkv_tensor *t, struct fkv_error *err) {
    const char *meaning = "is model_type right?", *rest = own;
    const bool wrapped = fkv_skip_prefix(&rest, "module.") || fkv_skip_prefix(&rest, "_orig_mod.");
    if (!wrapped && find_all(c, err)) return FKV_FAILED;
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (!fnmatch(meanings[i].pattern, own, 0)) {
            meaning = meanings[i].meaning;
            break;
        }
    if (layer >= c->config.layers) meaning = "a layer more than the config says";
    if (wrapped) meaning = "all names should have this prefix of a torch wrapper, or none";
    return fkv_fail(err,
                    "%s: tensor %.200s: expected none of this name in a %s of %d layers, found one "
                    "(%s)",
                    t->path, t->name, c->config.model_type, c->config.layers, meaning);
}

int fkv_checkpoint_check_unused(struct fkv_checkpoint *c, struct fkv_error *err) {
    size_t left_out = 0;
    for (size_t i = 0; i < c->tensors->count; i++) {
        const struct fkv_tensor *t = &c->tensors->tensors[i];
        const char *own = own_name(c, t->name);
        int layer = -1, read = 0;
        if (sscanf(own, "layers.%9d.%n", &layer, &read) != 1 &&
            sscanf(own, "blk.%9d.%n", &layer, &read) != 1)
            layer = -1;
        if (has_role(c, read ? layer : -1, t) || is_harmless(c, own, t)) continue;
        const char *meaning = beside_meaning(own);
        if (!meaning) return refuse(c, own, layer, t, err);
        if (!left_out++)
            snprintf(c->note, sizeof c->note, "%.300s: tensor %.100s is left out (%s)", t->path,
                     t->name, meaning);
    }
    if (left_out > 1) {
        const size_t used = strlen(c->note);
        snprintf(c->note + used, sizeof c->note - used, ", and %zu of its kind", left_out - 1);
    }
    return FKV_OK;
}
