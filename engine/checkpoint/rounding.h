/* Weights rounded to bfloat16 once, for a host that multiplies in it. */
#ifndef FKV_ENGINE_CHECKPOINT_ROUNDING_H
#define FKV_ENGINE_CHECKPOINT_ROUNDING_H

#include "engine/checkpoint/model.h"

/* Of a model on a host: replaces its matrices of float32 and float16 by rounded copies, on so many
 * threads, where memory allows: m->rounded says whether, m->rounded_bytes what they take. An
 * embedding stays as it is stored; the head of a tied model gets a copy of its own. */
int fkv_model_round(struct fkv_model *m, int threads, struct fkv_error *err);

#endif
