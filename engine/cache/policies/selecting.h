/* What selecting policies share. They keep slots by score, at the end of every prefill block: a
 * stretch of tokens that the caller names (fkv_session_set_prefill), in whose middle nothing is
 * dropped. What is scored has been fed by then, so nothing looks ahead. The action comes when
 * another token arrives. Keys keep the rotation that they were appended with, which is their token
 * index, and queries stand at theirs: what is dropped leaves gaps, and nothing moves closer. */
#ifndef FKV_ENGINE_CACHE_POLICIES_SELECTING_H
#define FKV_ENGINE_CACHE_POLICIES_SELECTING_H

#include "engine/cache/policies/schedule.h"

/* The budget, the first own option of every selecting policy; on the command line it is one option
 * of all policies (struct fkv_policy_options). */
enum { FKV_BUDGET };
#define FKV_BUDGET_ROW                                                                             \
    {                                                                                              \
        "budget", FKV_OPTION_INTEGER, "SLOTS", 0, 1 << 28, 0,                                      \
            "slots that a head keeps after a prefill block; 0: half the trained context", NULL     \
    }
/* Puts the default in place of a budget of 0. */
void fkv_selecting_default_budget(struct fkv_policy_setup *setup);

/* Policies that score slots by their keys have no other option. */
extern const struct fkv_policy_option fkv_budget_option[];
/* Their `prepare`. */
int fkv_selecting_prepare_keys(struct fkv_policy_setup *setup, int64_t max_tokens,
                               struct fkv_error *err);
/* Their `select`: the budget, by score alone. */
void fkv_selecting_by_keys(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                           struct fkv_selection *selection);

/* The rest of a `prepare`: storage for the `most` slots that a head keeps and a prefill block on
 * top, or for all tokens of the session where that is less. */
int fkv_selecting_prepare(struct fkv_policy_setup *setup, int64_t most, int64_t max_tokens,
                          struct fkv_error *err);
/* An `append_limit`: to the end of the prefill block, or the free slots. */
int32_t fkv_selecting_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head);
/* A `view`: all slots, causally; the query stands at its token index. */
int32_t fkv_selecting_view(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                           int32_t rows, struct fkv_span *spans);

/* What every selecting policy answers alike, for its row. */
#define FKV_SELECTING_ANSWERS                                                                      \
    .counts_evictions = true, .max_spans = 1, .append_limit = fkv_selecting_limit,                 \
    .position = fkv_token_position, .view = fkv_selecting_view
/* The same and the rest, where slots are scored by their keys. */
#define FKV_SELECTING_BY_KEYS                                                                      \
    FKV_SELECTING_ANSWERS, .options = fkv_budget_option, .prepare = fkv_selecting_prepare_keys,    \
                           .select = fkv_selecting_by_keys

/* A slot and its score. */
struct fkv_scored_slot {
    double score;
    int32_t slot;
};
/* The slots that stay, ascending -> from [selection->budget]: the latest `recent`, and of the
 * others those of highest pooled score, the earlier of two equal ones. score [slots] in; budget <
 * slots. Pooling has stride 1 and zeros (a maximum: nothing) beyond both ends. `scratch` [slots].
 */
void fkv_select_slots(const struct fkv_selection *selection, const double *score, int32_t slots,
                      struct fkv_scored_slot *scratch, int32_t *from);

#endif
