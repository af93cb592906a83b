/* What --operator of the policy `linear` reads: a file of matrices, or a capture to fit one to. */
#ifndef FKV_REPLAY_OPERATORS_OPERATOR_FILE_H
#define FKV_REPLAY_OPERATORS_OPERATOR_FILE_H

#include "engine/cache/policies/policies.h"

/* Where an option "operator" is given as "OP.h5" or "klt:CAPTURE": reads it into `data` (zeroed
 * before), and lets `policy` point to it, with what stands for it in files as the option's text.
 * Anything else stays as it is. The caller frees `data`, after failures too. */
int fkv_operator_data_read(struct fkv_policy_options *policy, struct fkv_operator_data *data,
                           struct fkv_error *err);
/* Zeroed data is fine. */
void fkv_operator_data_free(struct fkv_operator_data *data);

#endif
