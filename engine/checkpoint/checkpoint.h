/* A checkpoint on disk, whatever its format: a config, tensors by role, a hash. Nobody above it
 * knows how a format names or orders what it holds. Opening finds the format: a Hugging Face
 * folder (hugging_face.c) or a GGUF file (gguf_model.c). */
#ifndef FKV_ENGINE_CHECKPOINT_CHECKPOINT_H
#define FKV_ENGINE_CHECKPOINT_CHECKPOINT_H

#include "engine/checkpoint/roles.h"

struct fkv_checkpoint; /* owns the mappings */

/* Opens the folder or file `path`. Everything in its headers is checked,
 * and a tensor that the model would not use is refused (unused.c); `trained_context` replaces
 * what the config says, 0: as it says. */
int fkv_checkpoint_open(const char *path, int32_t trained_context, struct fkv_checkpoint **out,
                        struct fkv_error *err);
void fkv_checkpoint_close(struct fkv_checkpoint *c); /* NULL is fine */

/* Valid as long as the checkpoint is open. */
const struct fkv_config *fkv_checkpoint_config(const struct fkv_checkpoint *c);
/* The tensor of a role, of layer `layer` where it is a layer's. One that is missing, or stored
 * in a format that we cannot compute with, is an error. */
int fkv_checkpoint_find(const struct fkv_checkpoint *c, enum fkv_role role, int32_t layer,
                        struct fkv_tensor *out, struct fkv_error *err);
/* Takes the files' pages that were read out of the process, after a copy of what is in them. */
void fkv_checkpoint_unload(const struct fkv_checkpoint *c);
/* What of the checkpoint is left out, in words for people; "": nothing. */
const char *fkv_checkpoint_note(const struct fkv_checkpoint *c);
/* SHA-256 of the weight files' contents, of several in name order. */
int fkv_checkpoint_sha256(const struct fkv_checkpoint *c, fkv_sha256_hex out,
                          struct fkv_error *err);

#endif
