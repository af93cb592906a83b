/* What policies share that keep slot-index positions and one causal run of slots. Full attention,
 * FreqKV and local differ in what happens when a head is full, not in how queries see the slots. */
#ifndef FKV_ENGINE_CACHE_POLICIES_SCHEDULE_H
#define FKV_ENGINE_CACHE_POLICIES_SCHEDULE_H

#include "engine/cache/policies/policy.h"

/* A `prepare`: as much storage as the window. */
int fkv_schedule_prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err);
/* A `prepare`: storage for every token. */
int fkv_prepare_every_token(struct fkv_policy_setup *setup, int64_t max_tokens,
                            struct fkv_error *err);
/* An `append_limit`: the free slots, so that a head acts when it is full. */
int32_t fkv_schedule_free_slots(const struct fkv_policy_setup *setup, const struct fkv_head *head);
/* An `act`: nothing. The session refuses tokens beyond the capacity. */
void fkv_no_action(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                   struct fkv_action *action);
/* A `position`: the slot index, plus the head's shift after surgery. */
double fkv_slot_position(const struct fkv_policy_setup *setup, const struct fkv_head *head);
/* A `view`: all slots, causally, or as many as the layer's own window has; the query stands at the
 * position of its own key. */
int32_t fkv_causal_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                        int32_t rows, struct fkv_span *spans);

#endif
