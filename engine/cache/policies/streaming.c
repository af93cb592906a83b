/* StreamingLLM (Xiao et al., arXiv 2309.17453): the first S tokens and the latest N - S, evicting
 * at every token, positions inside the cache.
 *
 * Every query has its own window, so the window is a matter of the view and not of moving memory:
 * the cache has room for more than N slots, a query sees the sinks and the N - S slots that end
 * with its own, and only when storage runs out are the dead slots dropped in bulk. Positions: with
 * N slots seen, the query stands at N - 1, the sinks at 0 .. S-1, and a window key d tokens back at
 * N - 1 - d. Keys lie rotated at their token index; for the window only the distance d matters, so
 * the query turns to its token index there, and to min(token index, N - 1) for the sinks. A query
 * block that crosses N is split by `room`, so that the sinks' query position is one rule per block.
 */
#include "engine/cache/policies/policies.h"

enum { LEAST_SLACK = 16 }; /* a small window is not cleared of dead slots every few tokens */

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    (void)max_tokens, (void)err;
    int32_t slack = setup->window / 2 > LEAST_SLACK ? setup->window / 2 : LEAST_SLACK;
    setup->capacity = setup->window + slack;
    return FKV_OK;
}

static int32_t room(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    int32_t limit = head->tokens < setup->window ? setup->window : setup->capacity;
    return limit - head->slots;
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                const struct fkv_evidence *evidence, struct fkv_action *action) {
    (void)evidence;
    /* The next query sees one slot of its own, so N - S - 1 older ones are enough. */
    int32_t kept = setup->window - setup->sinks - 1;
    action->map_n = 0;
    action->gather_slot = setup->sinks;
    action->gather_count = kept;
    action->gather_shift = 0;
    for (int32_t j = 0; j < kept; j++) action->gather_from[j] = head->slots - kept + j;
    action->slots = setup->sinks + kept;
}

static double position(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    (void)setup;
    return (double)head->tokens;
}

static int32_t view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                    int32_t query_head, int32_t rows, const struct fkv_evidence *evidence,
                    struct fkv_span *spans) {
    int64_t token = head->tokens - rows; /* of row 0 */
    if (token < setup->window)
        return fkv_causal_view(setup, head, query_head, rows, evidence, spans);
    int32_t own = head->slots - rows, reach = setup->window - setup->sinks, count = 0;
    if (setup->sinks)
        spans[count++] = (struct fkv_span){.first = 0,
                                           .end = setup->sinks,
                                           .from = FKV_NO_LIMIT_BELOW,
                                           .until = FKV_NO_LIMIT_ABOVE,
                                           .position = setup->window - 1,
                                           .fixed = true};
    spans[count++] = (struct fkv_span){.first = setup->sinks,
                                       .end = head->slots,
                                       .from = own - reach + 1,
                                       .until = own + 1,
                                       .position = (double)token};
    return count;
}

const struct fkv_policy fkv_policy_streaming = {
    .name = "streaming",
    .summary = "keep the sinks and the latest N - S tokens, evicting at every token",
    .has_window = true,
    .evicts_every_token = true,
    .max_spans = 2,
    .prepare = prepare,
    .room = room,
    .act = act,
    .position = position,
    .view = view,
};
