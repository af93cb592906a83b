/* What policies share. Full attention, FreqKV and local keep slot-index positions and one causal
 * run of slots: they differ in what happens when a head is full, not in how queries see the slots.
 * StreamingLLM and LM-Infinite keep token-index positions and show a window that moves. */
#ifndef FKV_ENGINE_CACHE_POLICIES_SCHEDULE_H
#define FKV_ENGINE_CACHE_POLICIES_SCHEDULE_H

#include "engine/cache/policies/policy.h"

/* The option of FreqKV's that a mixture with it takes as well. */
#define FKV_MASS_BIAS_ROW                                                                          \
    {                                                                                              \
        "mass-bias", FKV_OPTION_FLAG, NULL, 0, 1, 0,                                               \
            "attention scores get the log of how many tokens each slot stands for", NULL           \
    }

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

/* What a policy answers alike that keeps slot-index positions and acts when a head is full, for its
 * row. */
#define FKV_SCHEDULE_ANSWERS                                                                       \
    .max_spans = 1, .append_limit = fkv_schedule_free_slots, .position = fkv_slot_position,        \
    .view = fkv_causal_view

/* Part of an `act`: of a head's slots those below `first` and the latest `kept` stay, which move
 * down to follow them; so do their positions where they count by slot. */
void fkv_keep_latest(const struct fkv_head *head, int32_t first, int32_t kept, bool by_slot,
                     struct fkv_action *action);
/* A `position`: the token index. */
double fkv_token_position(const struct fkv_policy_setup *setup, const struct fkv_head *head);
/* A `view` of token-index positions: the slots below `far`, all of them, from position
 * `far_position`, and of the others as many as `reach`, up to the query's own. */
int32_t fkv_moving_view(const struct fkv_head *head, int32_t rows, int32_t far,
                        int32_t far_position, int32_t reach, struct fkv_span *spans);

#endif
