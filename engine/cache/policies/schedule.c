/* Answers that several policies share; see schedule.h. */
#include "engine/cache/policies/schedule.h"

int fkv_schedule_prepare(struct fkv_policy_setup *setup, int64_t max_tokens,
                         struct fkv_error *err) {
    (void)max_tokens, (void)err;
    setup->capacity = setup->window;
    return FKV_OK;
}

int fkv_prepare_every_token(struct fkv_policy_setup *setup, int64_t max_tokens,
                            struct fkv_error *err) {
    if (max_tokens > INT32_MAX / 2)
        return fkv_fail(err, "policy %s: at most %d tokens fit one cache, found %lld",
                        setup->policy->name, INT32_MAX / 2, (long long)max_tokens);
    setup->capacity = (int32_t)max_tokens;
    return FKV_OK;
}

int32_t fkv_schedule_free_slots(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    return setup->capacity - head->slots;
}

void fkv_no_action(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                   struct fkv_action *action) {
    (void)setup, (void)head, (void)action;
}

double fkv_slot_position(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    (void)setup;
    return head->slots + head->shift;
}

int32_t fkv_causal_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                        int32_t rows, struct fkv_span *spans) {
    const int32_t own = head->slots - rows, /* slot of row 0's own key */
        window = setup->layer_windows[head->layer];
    spans[0] = (struct fkv_span){.first = 0,
                                 .end = head->slots,
                                 .from = window ? own - window + 1 : FKV_NO_LIMIT_BELOW,
                                 .until = own + 1,
                                 .position = own + head->shift};
    return 1;
}

void fkv_keep_latest(const struct fkv_head *head, int32_t first, int32_t kept, bool by_slot,
                     struct fkv_action *action) {
    const int32_t oldest = head->slots - kept;
    action->gather_slot = first;
    action->gather_count = kept;
    action->gather_shift = by_slot ? first - oldest : 0;
    for (int32_t j = 0; j < kept; j++) action->gather_from[j] = oldest + j;
    action->slots = first + kept;
}

double fkv_token_position(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    (void)setup;
    return (double)head->tokens;
}

int32_t fkv_moving_view(const struct fkv_head *head, int32_t rows, int32_t far,
                        int32_t far_position, int32_t reach, struct fkv_span *spans) {
    const int32_t own = head->slots - rows; /* slot of row 0's own key */
    int32_t count = 0;
    if (far)
        spans[count++] = (struct fkv_span){.first = 0,
                                           .end = far,
                                           .from = FKV_NO_LIMIT_BELOW,
                                           .until = FKV_NO_LIMIT_ABOVE,
                                           .position = far_position,
                                           .fixed = true};
    spans[count++] = (struct fkv_span){.first = far,
                                       .end = head->slots,
                                       .from = own - reach + 1,
                                       .until = own + 1,
                                       .position = (double)(head->tokens - rows)};
    return count;
}
