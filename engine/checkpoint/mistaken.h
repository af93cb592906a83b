/* Folders and files that are given in place of a model or an adapter by mistake: says what they are
 * and what to do. */
#ifndef FKV_ENGINE_CHECKPOINT_MISTAKEN_H
#define FKV_ENGINE_CHECKPOINT_MISTAKEN_H

#include "kernels/base/error.h"

/* Refuses a path that is known to be no model that loads; FKV_OK for all others. `expected` says
 * what would be one, for the message: "a model's folder or a GGUF file". */
int fkv_mistaken_model(const char *path, const char *expected, struct fkv_error *err);
/* Refuses a path that is known to be no adapter that loads; FKV_OK for all others. */
int fkv_mistaken_adapter(const char *path, struct fkv_error *err);
/* Refuses a file that is a pointer of git-lfs; FKV_OK for all others, and where there is none. */
int fkv_mistaken_pointer(const char *path, struct fkv_error *err);

#endif
