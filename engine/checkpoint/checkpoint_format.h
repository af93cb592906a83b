/* What a format of checkpoints supplies, and what formats share. Seen by engine/checkpoint alone.
 */
#ifndef FKV_ENGINE_CHECKPOINT_CHECKPOINT_FORMAT_H
#define FKV_ENGINE_CHECKPOINT_CHECKPOINT_FORMAT_H

#include "engine/checkpoint/roles.h"

/* How a checkpoint names the tensor of a role; a layer's stands behind the layer's prefix. */
struct fkv_role_name {
    const char *own;
    const char *shared; /* of one tensor that holds the rows of several roles, or NULL */
};

struct fkv_checkpoint {
    const struct fkv_checkpoint_format *format;
    char *path;
    struct fkv_config config;
    void *files;                           /* the format's own */
    bool paired_heads;                     /* of queries and keys; see fkv_role_tensor */
    struct fkv_role_name names[FKV_ROLES]; /* the format's; `open` may change them */
    char prefix[48]; /* in front of all names: of training that wrapped the model, "" else */
    char note[512];  /* what is left out, in words for people; "": nothing */
};

enum { FKV_TENSOR_NAME = 96 };

struct fkv_checkpoint_format {
    const char *what; /* a path of this format, for messages: "a GGUF file" */
    /* Whether what is at the path is of this format, by a first look. */
    bool (*fits)(const char *path);
    /* Fills the checkpoint, whose path is set. On failure `close` frees what is there. */
    int (*open)(struct fkv_checkpoint *c, int32_t trained_context, struct fkv_error *err);
    void (*close)(struct fkv_checkpoint *c);
    /* The tensor of that name; false where there is none. */
    bool (*find)(const struct fkv_checkpoint *c, const char *name, struct fkv_role_tensor *out);
    size_t (*count)(const struct fkv_checkpoint *c);
    /* Tensor i of all. */
    void (*tensor)(const struct fkv_checkpoint *c, size_t i, struct fkv_role_tensor *out);
    int (*sha256)(const struct fkv_checkpoint *c, fkv_sha256_hex out, struct fkv_error *err);
    const char *layer_prefix; /* printf format of the layer's number */
    const char *where;        /* what a tensor is looked for in, for messages */
    const char *formats;      /* of tensors that are computable, for messages */
    struct fkv_role_name names[FKV_ROLES];
};

/* The role's name, `own` of the format's, with that of its layer in front. */
void fkv_checkpoint_print_name(const struct fkv_checkpoint_format *format, enum fkv_role role,
                               int32_t layer, const char *own, char name[FKV_TENSOR_NAME]);
/* How folders of the config's family name the tensors of roles. */
void fkv_hugging_face_names(const struct fkv_config *config, struct fkv_role_name names[FKV_ROLES]);

/* One row per format: ROW(x) stands for fkv_x_format. A path is of the first that fits it. */
#define FKV_CHECKPOINT_FORMAT_ROWS(ROW)                                                            \
    ROW(hugging_face)                                                                              \
    ROW(gguf)

#define FKV_DECLARE_CHECKPOINT_FORMAT(x) extern const struct fkv_checkpoint_format fkv_##x##_format;
FKV_CHECKPOINT_FORMAT_ROWS(FKV_DECLARE_CHECKPOINT_FORMAT)

#endif
