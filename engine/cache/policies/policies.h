/* The rows of the policy table; see engine/cache/policy.h for what a row answers. */
#ifndef FKV_ENGINE_POLICIES_H
#define FKV_ENGINE_POLICIES_H

#include "engine/cache/policy.h"

extern const struct fkv_policy fkv_policy_full, fkv_policy_freqkv, fkv_policy_local,
    fkv_policy_streaming;

/* What the policies that keep slot-index positions and one causal run of slots share. */
int fkv_schedule_prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err);
int32_t fkv_schedule_room(const struct fkv_policy_setup *setup, const struct fkv_head *head);
double fkv_slot_position(const struct fkv_policy_setup *setup, const struct fkv_head *head);
int32_t fkv_causal_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                        int32_t query_head, int32_t rows, const struct fkv_evidence *evidence,
                        struct fkv_span *spans);

#endif
