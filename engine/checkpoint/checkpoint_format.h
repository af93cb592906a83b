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
    void *files;                            /* the format's own */
    const struct fkv_tensor_table *tensors; /* all that are in them, sorted by name */
    bool paired_heads;                      /* of queries and keys; see struct fkv_tensor */
    struct fkv_role_name names[FKV_ROLES];  /* the format's; `open` may change them */
    char prefix[48]; /* in front of all names: of training that wrapped the model, "" else */
    char note[512];  /* what is left out, in words for people; "": nothing */
};

struct fkv_checkpoint_format {
    const char *what; /* a path of this format, for messages: "a GGUF file" */
    /* Whether what is at the path is of this format, by a first look. */
    bool (*fits)(const char *path);
    /* Fills the checkpoint, whose path is set. On failure `close` frees what is there. */
    int (*open)(struct fkv_checkpoint *c, int32_t trained_context, struct fkv_error *err);
    void (*close)(struct fkv_checkpoint *c);
    void (*unload)(const struct fkv_checkpoint *c); /* see fkv_checkpoint_unload */
    /* The tensor of that name, however the files spell it, or NULL. */
    const struct fkv_tensor *(*find)(const struct fkv_checkpoint *c, const char *name);
    int (*sha256)(const struct fkv_checkpoint *c, fkv_sha256_hex out, struct fkv_error *err);
    const char *layer_prefix; /* printf format of the layer's number */
    const char *where;        /* what a tensor is looked for in, for messages */
    const char *formats;      /* of tensors that are computable, for messages */
    struct fkv_role_name names[FKV_ROLES];
};

/* The whole tensor that a role's name leads to, or NULL. *shared: by the name of one that holds the
 * rows of several roles. */
const struct fkv_tensor *fkv_checkpoint_lookup(const struct fkv_checkpoint *c, enum fkv_role role,
                                               int32_t layer, bool *shared);
/* For formats, at the end of `open`: FKV_OK where the tensors that no role asks for change nothing;
 * those that were trained for something else are counted in the checkpoint's note. Any other is
 * refused with its file, its name, and what it may mean. */
int fkv_checkpoint_check_unused(struct fkv_checkpoint *c, struct fkv_error *err);
/* How folders of the config's family name the tensors of roles. */
void fkv_hugging_face_names(const struct fkv_config *config, struct fkv_role_name names[FKV_ROLES]);

extern const struct fkv_checkpoint_format fkv_hugging_face_format, fkv_gguf_format;

#endif
