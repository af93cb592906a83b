/* The names of tensors in a LoRA adapter of PEFT, taken apart. */
#ifndef FKV_ENGINE_CHECKPOINT_ADAPTER_NAME_H
#define FKV_ENGINE_CHECKPOINT_ADAPTER_NAME_H

#include <stdbool.h>

/* What a tensor of an adapter is to its module. */
enum fkv_adapter_kind {
    FKV_ADAPTER_WHOLE, /* replaces the base's */
    FKV_ADAPTER_A,
    FKV_ADAPTER_B, /* of a module's bias: the bias of B */
    FKV_ADAPTER_KINDS
};

enum { FKV_ADAPTER_NAME = 256 };

struct fkv_adapter_name {
    char module[FKV_ADAPTER_NAME]; /* without "model.": "layers.0.self_attn.q_proj" */
    char label[64];                /* the adapter's name in it, ".default"; "" where it has none */
    bool labelled;                 /* of the kinds that may have one */
    bool model;                    /* "model." stood before the module */
    bool bias;                     /* of the module's bias, not of its weight */
    bool embedding;                /* a factor of an embedding, transposed */
    enum fkv_adapter_kind kind;
};

/* false: no name of a weight, a bias or a factor, or longer than any. */
bool fkv_adapter_name_parse(const char *text, struct fkv_adapter_name *out);
/* Whether a name of Hugging Face's ("model.norm.weight", "self_attn.q_proj.bias"; NULL: none) is
 * that of the module's weight, or with `bias` of its bias. */
bool fkv_adapter_name_is(const char *tensor, const char *module, bool bias);
/* Moves *at behind `prefix`; false where it does not begin so. */
bool fkv_skip_prefix(const char **at, const char *prefix);
/* Cuts `ending` off `text`; false where it does not end so. */
bool fkv_cut_ending(char *text, const char *ending);

#endif
