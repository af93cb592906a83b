/* StreamingLLM (Xiao et al., arXiv 2309.17453): the first S tokens and the latest N - S, evicting
 * at every token, positions inside the cache.
 *
 * Every query has its own window, so the window is a matter of the view and not of moving memory:
 * the cache has storage for more than N slots, a query sees the sinks and the N - S slots that end
 * with its own, and the slots that no query sees any more are dropped in bulk when storage runs
 * out. Positions: with N slots seen, the query stands at N - 1, the sinks at 0 .. S-1, and a window
 * key d tokens back at N - 1 - d. Keys are stored rotated to their token index; for the window only
 * the distance d matters, so the query turns to its token index there, and to min(token index, N -
 * 1) for the sinks. A query block that crosses N is split by append_limit, so that the sinks' query
 * position is one rule per block.
 */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

enum { LEAST_SLACK = 16 }; /* slots: a small window would else act every few tokens */

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    (void)max_tokens, (void)err;
    int32_t slack = setup->window / 2 > LEAST_SLACK ? setup->window / 2 : LEAST_SLACK;
    setup->capacity = setup->window + slack;
    return FKV_OK;
}

static int32_t append_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    int32_t limit = head->tokens < setup->window ? setup->window : setup->capacity;
    return limit - head->slots;
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    /* The next query sees one slot of its own, so N - S - 1 older ones are enough. */
    fkv_keep_latest(head, setup->sinks, setup->window - setup->sinks - 1, false, action);
}

static int32_t view(const struct fkv_policy_setup *setup, const struct fkv_head *head, int32_t rows,
                    struct fkv_span *spans) {
    const bool all_seen = head->tokens - rows < setup->window;
    if (all_seen) return fkv_causal_view(setup, head, rows, spans);
    return fkv_moving_view(head, rows, setup->sinks, setup->window - 1,
                           setup->window - setup->sinks, spans);
}

const struct fkv_policy fkv_policy_streaming = {
    .name = "streaming",
    .summary = "the first tokens and the latest, one evicted per token",
    .page = "A query sees the first S tokens (--sinks) and the latest N - S (--window), its\n"
            "own included. Every token evicts one.\n"
            "\n"
            "Source: StreamingLLM, Xiao et al., arXiv 2309.17453.\n"
            "\n"
            "Positions: inside the cache and not in the text. With N slots seen, the query\n"
            "stands at N - 1, the sinks at 0 .. S - 1, a token d back at N - 1 - d.\n"
            "\n"
            "Paper and code: both keep keys before RoPE and rotate them at every step. Here\n"
            "keys are stored rotated to their token and the query is turned to the position\n"
            "that gives the same distances, once for the sinks and once for the window; all\n"
            "under one softmax. Slots that no query sees any more are dropped in bulk.\n"
            "\n"
            "Memory: a query sees N slots; storage is up to N / 2 slots more, at least 16.\n"
            "\n"
            "Defaults: N is the trained context, S 4, which is also the paper's.\n",
    .takes_window = true,
    .mixes = true,
    .evicts_every_token = true,
    .max_spans = 2,
    .prepare = prepare,
    .append_limit = append_limit,
    .act = act,
    .position = fkv_token_position,
    .view = view,
};
