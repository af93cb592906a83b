/* LM-Infinite (Han et al., arXiv 2308.16137): a query sees the latest W tokens, W being the window
 * N, and of those before them the first G. The far ones stand at one distance, W, wherever they
 * are; all share one softmax.
 *
 * As in StreamingLLM the window is a matter of the view: keys are stored rotated to their token
 * index, the cache has storage for more than N + G slots, and slots that no query sees any more are
 * dropped in bulk. A far key stands at position 0, as without a rotation, and its query at W. So
 * when token j < G becomes far, for the query of token W + j, its key is turned back by j. Until
 * then queries need it where it was; that query's own token is therefore fed by itself, and a block
 * is split there. This happens G - 1 times in a timeline; a second copy of the first G keys would
 * take G slots more in every head, for all its length. In a 16-bit cache these keys are rounded
 * once more. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

enum { GLOBAL };
/* Slots of storage on top: half a window, because dropping moves a whole one, and at most what a
 * block has by default. */
enum { LEAST_SLACK = 16, MOST_SLACK = 512 };

static const struct fkv_policy_option options[] = {
    [GLOBAL] = {"global", FKV_OPTION_INTEGER, "TOKENS", 0, 1 << 28, 10,
                "first tokens that all queries see, on top of the window", NULL},
    {0},
};

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    (void)max_tokens, (void)err;
    int32_t slack = setup->window / 2;
    if (slack < LEAST_SLACK) slack = LEAST_SLACK;
    if (slack > MOST_SLACK) slack = MOST_SLACK;
    setup->most_seen = setup->window + (int32_t)setup->own[GLOBAL];
    setup->capacity = setup->most_seen + slack;
    return FKV_OK;
}

/* The token that becomes far with the head's next token; below 0: none is yet; from G on: none. */
static int64_t next_far(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    return head->tokens - setup->window;
}

static int32_t append_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const int64_t far = next_far(setup, head), global = setup->own[GLOBAL];
    if (far < 0) return (int32_t)-far;
    if (far >= 1 && far < global && head->tokens_since) return 0;
    return far < global - 1 ? 1 : setup->capacity - head->slots;
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    const int32_t global = (int32_t)setup->own[GLOBAL];
    const int64_t far = next_far(setup, head);
    if (far < global) {
        action->gather_slot = action->gather_from[0] = (int32_t)far;
        action->gather_count = 1;
        action->gather_shift = -(double)far;
        return;
    }
    /* The next query sees one slot of its own. */
    fkv_keep_latest(head, global, setup->window - 1, false, action);
}

static int32_t view(const struct fkv_policy_setup *setup, const struct fkv_head *head, int32_t rows,
                    struct fkv_span *spans) {
    const int64_t global = setup->own[GLOBAL],
                  before = head->tokens - rows - setup->window + 1; /* the window of row 0 */
    const int64_t far = before < 0 ? 0 : before < global ? before : global;
    return fkv_moving_view(head, rows, (int32_t)far, setup->window, setup->window, spans);
}

const struct fkv_policy fkv_policy_lm_infinite = {
    .name = "lm-infinite",
    .summary = "the latest N tokens, and the first ones at a distance of N",
    .page = "Every query attends to the latest W tokens, W being --window, and of the\n"
            "tokens before them to the first G (--global). One softmax over all of them.\n"
            "No training, and nothing is compressed.\n"
            "\n"
            "Source: Han et al., LM-Infinite, arXiv 2308.16137; the official code is\n"
            "github.com/Glaciohound/LM-Infinite.\n"
            "\n"
            "Positions: among the latest W tokens distances are as in the text. The G first\n"
            "tokens, once they are further away than that, all stand at one distance: their\n"
            "keys at position 0 (not rotated), the query at W. So no distance passes W.\n"
            "\n"
            "Paper and code: the paper limits a distance d to min(d, limit). The code turns\n"
            "the query of far tokens to min(limit, length - 1), where length counts all\n"
            "tokens so far, the block's included. With W = limit, as in all its examples, a\n"
            "query with far tokens has a length beyond the limit, so both are the same and\n"
            "that is what is done here. Left out: other limits than W, and two extensions\n"
            "that are off in the code unless asked for (the k best tokens of the middle, a\n"
            "penalty on it).\n"
            "\n"
            "Memory: a head shows W + G slots, G more than the window; up to 512 slots more\n"
            "are storage, so that tokens are dropped in bulk.\n"
            "\n"
            "Defaults: W is the trained context. G is 10, what the official README converts\n"
            "models with; its perplexity commands have 100, and it says that 10 to 100 do\n"
            "about the same. 10 is closer to equal memory at small windows. --sinks is not\n"
            "used.",
    .options = options,
    .takes_window = true,
    .without_sinks = true,
    .evicts_every_token = true,
    .max_spans = 2,
    .prepare = prepare,
    .append_limit = append_limit,
    .act = act,
    .position = fkv_token_position,
    .view = view,
};
