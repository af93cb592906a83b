/* A PEFT LoRA adapter on disk: adapter_config.json and adapter_model.safetensors (and, of
 * LongLoRA's trainings, trainable_params.safetensors). Its tensors are found by role, so that it
 * fits any format of checkpoint. A role's weights are W + scale * B A, in which W is the base's
 * tensor or one that the adapter brings whole. Every tensor of the files has a role, or the adapter
 * is refused. */
#ifndef FKV_ENGINE_CHECKPOINT_ADAPTER_H
#define FKV_ENGINE_CHECKPOINT_ADAPTER_H

#include "engine/checkpoint/roles.h"

struct fkv_adapter; /* owns the mappings */

/* Opens the folder `path` for a base of that config. Tied bases: see fkv_adapter_unties. */
int fkv_adapter_open(const char *path, const struct fkv_config *base, struct fkv_adapter **out,
                     struct fkv_error *err);
void fkv_adapter_close(struct fkv_adapter *a); /* NULL is fine */

/* SHA-256 of adapter_config.json and the weight files, one after the other. */
const char *fkv_adapter_sha256(const struct fkv_adapter *a);
/* base_model_name_or_path, "" where the config says none. */
const char *fkv_adapter_base(const struct fkv_adapter *a);
/* Rows of the embedding and the head: the base's, or those of an embedding and a head that the
 * adapter brings whole, both of the same number. */
int32_t fkv_adapter_vocab(const struct fkv_adapter *a);
/* Rows of a whole embedding or head beyond the vocabulary, which are left out: tokens that were
 * added for the training alone. */
int32_t fkv_adapter_rows_left_out(const struct fkv_adapter *a);
/* Whether the head is another matrix than the embedding. Of a tied base PEFT changes the one that
 * the adapter names and leaves the other as it was, unless ensure_weight_tying is set. */
bool fkv_adapter_unties(const struct fkv_adapter *a);

/* The tensor that replaces the base's; false: none does. An embedding that is not one of
 * modules_to_save is the base's own parameter, and the head's of a tied base. */
bool fkv_adapter_find(const struct fkv_adapter *a, enum fkv_role role, int32_t layer,
                      struct fkv_tensor *out);
/* Whether something is added to the role's weights. */
bool fkv_adapter_adds(const struct fkv_adapter *a, enum fkv_role role, int32_t layer);
/* Adds scale * B A to values [rows, cols] (rows 0: a vector of cols), with sums in float32. A value
 * of A or B that is not finite is an error. */
int fkv_adapter_add(const struct fkv_adapter *a, enum fkv_role role, int32_t layer, int32_t rows,
                    int32_t cols, float *values, struct fkv_error *err);

#endif
