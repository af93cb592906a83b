/* Walks through the schedule of every head as a session does (engine/session/schedule.c), in
 * stretches between two actions. Which slots a selecting policy keeps is not known here, but how
 * many is. */
#include "engine/cache/slots.h"

#include <stdlib.h>

#include "engine/cache/policies/selecting.h"

static void act(const struct fkv_policy_setup *setup, const struct fkv_policy *policy,
                struct fkv_head *head, int32_t *scratch) {
    struct fkv_action action = {.gather_from = scratch, .slots = head->slots};
    struct fkv_selection selection;
    if (policy->select) {
        policy->select(setup, head, &selection);
        if (selection.budget < action.slots) action.slots = selection.budget;
    } else {
        policy->act(setup, head, &action);
    }
    head->slots = action.slots;
    head->rounds++;
    head->tokens_since = 0;
}

int32_t fkv_visible_slots(const struct fkv_span *spans, int32_t count, int32_t i) {
    int32_t visible = 0;
    for (int32_t k = 0; k < count; k++) {
        int32_t low = spans[k].from + i, high = spans[k].until + i;
        if (low < spans[k].first) low = spans[k].first;
        if (high > spans[k].end) high = spans[k].end;
        if (high > low) visible += high - low;
    }
    return visible;
}

/* Slots that the newest `rows` rows see. Where queries choose chunks, how many slots they see does
 * not depend on the scores, which are all 0 here. spans [max_spans], chunks' arrays [chunks + 1].
 */
static double slots_of_rows(const struct fkv_policy_setup *setup, const struct fkv_policy *policy,
                            const struct fkv_head *head, int32_t rows,
                            const struct fkv_chunk_scores *chunks, struct fkv_span *spans) {
    double sum = 0;
    if (policy->choose && head->tokens > setup->window) {
        for (int32_t i = 0; i < rows; i++) {
            const int32_t count =
                policy->choose(setup, head, head->tokens - rows + i, chunks, spans);
            sum += fkv_visible_slots(spans, count, 0);
        }
        return sum;
    }
    const int32_t count = policy->view(setup, head, rows, spans);
    for (int32_t i = 0; i < rows; i++) sum += fkv_visible_slots(spans, count, i);
    return sum;
}

/* scratch [capacity], spans [max_spans]. -1: the policy takes no more tokens. */
static double slots_of_head(const struct fkv_policy_setup *setup, struct fkv_head head,
                            int32_t *scratch, const struct fkv_chunk_scores *chunks,
                            struct fkv_span *spans) {
    const struct fkv_policy *policy = fkv_policy_of_layer(setup, head.layer);
    double sum = 0;
    while (head.tokens < head.prefill) {
        int32_t rows = policy->append_limit(setup, &head);
        if (rows < 1) {
            act(setup, policy, &head, scratch);
            rows = policy->append_limit(setup, &head);
            if (rows < 1) return -1;
        }
        if (rows > head.prefill - head.tokens) rows = (int32_t)(head.prefill - head.tokens);
        head.slots += rows;
        head.tokens += rows;
        head.tokens_since += rows;
        sum += slots_of_rows(setup, policy, &head, rows, chunks, spans);
    }
    return sum;
}

int fkv_policy_count_slots(const struct fkv_policy_setup *setup, int64_t tokens, int32_t block,
                           double *sum, struct fkv_error *err) {
    const int32_t heads = setup->layers * setup->kv_heads;
    const size_t chunks = setup->chunk ? (size_t)(setup->capacity / setup->chunk) + 2 : 1;
    int32_t *scratch = malloc((size_t)setup->capacity * sizeof *scratch);
    struct fkv_span *spans = calloc((size_t)setup->max_spans, sizeof *spans);
    double *score = calloc(chunks, sizeof *score), one = 0;
    struct fkv_scored_slot *scored = malloc(chunks * sizeof *scored);
    int32_t *chosen = malloc(chunks * sizeof *chosen);
    const struct fkv_chunk_scores scores = {score, scored, chosen};
    *sum = 0;
    int status = scratch && spans && score && scored && chosen
                     ? FKV_OK
                     : fkv_fail(err, "out of memory for %d slots", setup->capacity);
    for (int32_t h = 0; h < heads && one >= 0 && !status; h++) {
        const struct fkv_head head = {.layer = h / setup->kv_heads,
                                      .kv_head = h % setup->kv_heads,
                                      .block = block,
                                      .prefill = tokens};
        const bool as_before =
            head.kv_head && (!setup->retained || setup->retained[h] == setup->retained[h - 1]);
        if (!as_before) one = slots_of_head(setup, head, scratch, &scores, spans);
        *sum += one / heads;
    }
    free(scratch);
    free(spans);
    free(score);
    free(scored);
    free(chosen);
    if (status) return FKV_FAILED;
    return one < 0 ? fkv_fail(err, "policy %s: the cache of %d slots is full within %lld tokens",
                              setup->policy->name, setup->capacity, (long long)tokens)
                   : FKV_OK;
}
