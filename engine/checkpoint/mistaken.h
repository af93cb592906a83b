/* Folders and files that are given in place of a model or an adapter by mistake: says what they are
 * and what to do. */
#ifndef FKV_ENGINE_CHECKPOINT_MISTAKEN_H
#define FKV_ENGINE_CHECKPOINT_MISTAKEN_H

#include "kernels/base/error.h"

/* Refuses a path that is known to be no model that loads; FKV_OK for all others. */
int fkv_mistaken_model(const char *path, struct fkv_error *err);
/* The same of an adapter. */
int fkv_mistaken_adapter(const char *path, struct fkv_error *err);
/* Refuses a file that is a pointer of git-lfs; FKV_OK for all others, and where there is none. */
int fkv_mistaken_pointer(const char *path, struct fkv_error *err);

#endif
