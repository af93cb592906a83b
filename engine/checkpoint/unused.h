/* Tensors of a checkpoint that no role asks for. Seen by engine/checkpoint alone. */
#ifndef FKV_ENGINE_CHECKPOINT_UNUSED_H
#define FKV_ENGINE_CHECKPOINT_UNUSED_H

#include "engine/checkpoint/checkpoint_format.h"

/* For formats, at the end of `open`: FKV_OK where they change nothing; those that were trained for
 * something else are counted in the checkpoint's note. Any other is refused with its file, its
 * name, and what it may mean. */
int fkv_checkpoint_check_unused(struct fkv_checkpoint *c, struct fkv_error *err);

#endif
