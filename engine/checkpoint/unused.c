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
    /* computed from the config */
    {"*rotary_emb.@(inv_freq|???_cached)", false, false},
    {"blk.*.attn_rot_embd.*", false, false},             /* inv_freq in old GGUF files */
    {"rope_@(freqs|factors_*).weight", false, false},    /* GGUF: read with the config */
    {"*.masked_bias", false, false},                     /* the number that a mask puts in */
    {"*.@(attn|self_attn|attention).bias", true, false}, /* causal masks that were saved */
    {"*position_ids", false, false},                     /* 0, 1, 2, ... */
    {"@(vision_tower|multi_modal_projector).*", false, true},
};

struct meaning {
    const char *pattern, *text;
};

/* What a model has beside its language model: transformers leaves it out, too, and the language
 * model's numbers stay as they are. */
static const struct meaning beside[] = {
    {"score.*", "a head of rewards or classes"},
    {"classifier.*", "a head of classes"},
    {"@(v_head|value_head).*", "a head of values"},
    {"qa_outputs.*", "a head of answers"},
    {"medusa_head.*", "heads that guess further tokens"},
    {"mtp.*", "layers that guess further tokens"},
    {0},
};

/* What any other tensor may mean. */
static const struct meaning meanings[] = {
    {"*lora_*", "a LoRA adapter that is not merged: merge it with PEFT, or give it as --adapter"},
    {"*@(experts|_exps.|_shexp.|block_sparse_moe|mlp.gate.|_inp.)*",
     "a mixture of experts, which is not supported"},
    {"*@(scale*|.absmax|.qweight)", "quantised weights in a form that is not supported"},
    {"*[qk]_norm.*", "a norm of queries or keys: is model_type right?"},
    {"*sinks", "attention sinks with weights, which are not supported"},
    {"*.bias", "a bias: is model_type right?"},
    {"*norm*", "a norm more: is model_type right?"},
    {"*cross*", "attention to another input, which is not supported"},
    {"*@(mlp|feed_forward|ffn)*", "a second MLP: is model_type right?"},
    {"@(vision|visual)*", "a part for images, which this family does not have"},
    {"*", "is model_type right?"},
    {0},
};

/* The first that fits the name, or NULL. */
static const char *find_meaning(const struct meaning *table, const char *name) {
    while (table->pattern && fnmatch(table->pattern, name, FNM_EXTMATCH)) table++;
    return table->text;
}

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
        if (!fnmatch(harmless[i].pattern, own, FNM_EXTMATCH) &&
            (!harmless[i].mask || t->dims > 2) &&
            (!harmless[i].media || (family && family->wrapper)))
            return true;
    return false;
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
    const char *meaning = find_meaning(meanings, own), *rest = own;
    const bool wrapped = fkv_skip_prefix(&rest, "module.") || fkv_skip_prefix(&rest, "_orig_mod.");
    if (!wrapped && find_all(c, err)) return FKV_FAILED;
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
        const char *meaning = find_meaning(beside, own);
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
