/* What the policies with one causal run of slots share. Full attention, FreqKV and local differ in
 * what happens when a head is full, not in how queries see the slots: all of them, causally, every
 * key at its slot index (plus the head's shift, after surgery), the query at the position of its
 * own key. */
#include "engine/cache/policies/policies.h"

int fkv_schedule_prepare(struct fkv_policy_setup *setup, int64_t max_tokens,
                         struct fkv_error *err) {
    (void)max_tokens, (void)err;
    setup->capacity = setup->window;
    return FKV_OK;
}

int32_t fkv_schedule_room(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    return setup->capacity - head->slots;
}

double fkv_slot_position(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    (void)setup;
    return head->slots + head->shift;
}

int32_t fkv_causal_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                        int32_t query_head, int32_t rows, const struct fkv_evidence *evidence,
                        struct fkv_span *spans) {
    (void)setup, (void)query_head, (void)evidence;
    int32_t own = head->slots - rows;
    spans[0] = (struct fkv_span){.first = 0,
                                 .end = head->slots,
                                 .from = FKV_NO_LIMIT_BELOW,
                                 .until = own + 1,
                                 .position = own + head->shift};
    return 1;
}
