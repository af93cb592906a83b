/* Cache policies: what a (layer, KV head) keeps of its past and how queries see it.
 *
 * A policy is one file and one row of fkv_policies[]. It never touches memory: it answers questions
 * about one head's schedule, and the session turns the answers into kernel calls for all heads at
 * once. Answers depend only on the setup and on the head's counters, so the host knows the whole
 * schedule beforehand and nothing waits for the device.
 *
 *   room      how many tokens may be appended before the policy must act (0: act first). The lazy
 *             trigger of FreqKV is `room == 0`.
 *   act       what happens then: keep, a linear map along tokens, a gather by index, or a map and
 *             then a gather.
 *   position  the rotation that the next appended key is stored with.
 *   view      which slots the newest rows see: spans with causal limits and query positions, under
 *             one joint softmax (kernels.h, struct fkv_span).
 *
 * How policies that are not here yet fit, without a special case in attention:
 *   LM-Infinite   keys stored at their token index. view: two spans, the first S slots with the
 *                 query at a fixed position (distance clamped), the recent window with the query at
 *                 its token index; rows on both sides of the clamp are split by `room`. act:
 *                 gather, as `streaming`.
 *   SnapKV        needs_recent_queries > 0: the session keeps the last w query rows and, at the end
 *                 of a prefill block (acts_at_block_end), hands act the attention that they paid to
 *                 each slot (evidence->scores). act: gather with the chosen indices, shift 0;
 *                 position: the token index.
 *   PyramidKV     SnapKV with a budget that depends on head->layer; setup->retained already stands
 *                 per (layer, KV head).
 *   LongHeads     per_query_head: view is asked once per query head and picks the chunks whose
 *                 representative keys score best against the query (evidence->scores per chunk);
 *                 spans carry the positions that squeeze the chosen chunks together. act: keep.
 * `evidence` is NULL for policies that asked for none; the session that produces it comes with the
 * first of them. */
#ifndef FKV_ENGINE_CACHE_POLICY_H
#define FKV_ENGINE_CACHE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cache/options.h"
#include "engine/checkpoint/config.h"
#include "kernels/kernels.h"

/* What the user asked for. Zero or negative where a default is wanted. */
struct fkv_policy_options {
    const char *name;
    int32_t window;    /* N; 0: the trained context */
    int32_t sinks;     /* S; -1: 4 */
    const char *gamma; /* "0.5", "0.5,0.4,..." (one per layer) or "@gamma.json"; NULL: 0.5 */
    struct fkv_own_value own[FKV_OWN_OPTIONS]; /* the policy's own options; a NULL name ends them */
};

/* The options worked out for one model: what every answer is computed from. */
struct fkv_policy_setup {
    const struct fkv_policy *policy;
    int32_t layers, kv_heads;
    int32_t window, sinks;
    int32_t recent; /* R: newest slots that an action leaves as they are; 0 for most policies */
    int32_t compressible;         /* n = N - S - R */
    int32_t capacity;             /* slots of storage per head */
    int64_t own[FKV_OWN_OPTIONS]; /* values of policy->options, in their order */
    bool mass_bias; /* scores of slots get the log of how many tokens each stands for */
    char *own_text; /* own options with their values: "recent=256 rescale=on mass-bias=off"; ""
                       without any. Owned. */
    char *label;    /* the policy and its own options that are not at their default: "freqkv, recent
                       256". Owned. */
    double gamma;   /* mean over heads; NaN where the policy has none */
    int32_t *retained; /* L [layers, kv_heads]; NULL where the policy has none. Owned. */
};

/* Where one (layer, sequence, KV head) stands. */
struct fkv_head {
    int32_t layer, sequence, kv_head;
    int32_t slots;  /* in use, of setup->capacity */
    int32_t rounds; /* actions so far */
    int64_t tokens; /* appended so far */
    int32_t since;  /* tokens appended since the last action */
    double shift;   /* what follows stands at its slot index plus this; not 0 only after surgery
                       (session.h) */
};

struct fkv_evidence {
    const float *scores; /* see SnapKV and LongHeads above */
    int32_t count;
};

struct fkv_action {
    int32_t map_slot, map_n,
        map_retained; /* map_n slots from map_slot on become map_retained; map_n == 0: no map */
    double map_gain;
    int32_t gather_slot, gather_count; /* after the map: slots gather_from[j] move to gather_slot +
                                          j; 0: no gather */
    int32_t *gather_from;              /* [capacity], provided by the session */
    double gather_shift;               /* positions added to the moved keys' rotation */
    int32_t slots;                     /* in use afterwards */
};

struct fkv_policy {
    const char *name, *summary;
    const struct fkv_policy_option *options; /* of its own; a NULL name ends them; NULL: none */
    bool has_window;                         /* takes --window and --sinks */
    bool has_gamma;                          /* takes a retaining ratio: retained slots per head */
    bool compresses;         /* its actions are linear maps, counted as compressions */
    bool evicts;             /* its actions drop slots, counted as evictions */
    bool evicts_every_token; /* beyond N tokens each drops one from view; actions only free storage
                              */
    bool low_pass;           /* what it keeps are the L lowest DCT coefficients of n slots */
    bool acts_at_block_end, per_query_head;
    int32_t needs_recent_queries;
    int32_t max_spans; /* of a view; the session pads with empty ones, so that decode steps have one
                          shape */
    /* Slots that actions leave as they are (R), from setup->own; NULL: none. */
    int32_t (*recent)(const struct fkv_policy_setup *setup);
    /* Checks the options further and sets capacity. `max_tokens`: most tokens a session will see.
     * How many of them come at once is not known here: the block must change neither memory nor
     * counts. */
    int (*prepare)(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err);
    int32_t (*room)(const struct fkv_policy_setup *setup, const struct fkv_head *head);
    void (*act)(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                const struct fkv_evidence *evidence, struct fkv_action *action);
    double (*position)(const struct fkv_policy_setup *setup, const struct fkv_head *head);
    /* Spans for `rows` queries whose own keys lie in slots [head->slots - rows, head->slots),
     * already counted in `head`. `query_head` is -1 unless per_query_head. spans [max_spans].
     * Returns the number of spans. */
    int32_t (*view)(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                    int32_t query_head, int32_t rows, const struct fkv_evidence *evidence,
                    struct fkv_span *spans);
};

extern const struct fkv_policy *const fkv_policies[]; /* NULL ends it */
const struct fkv_policy *fkv_policy_find(const char *name,
                                         struct fkv_error *err); /* NULL and a message */

/* Finds the policy, applies defaults, checks: own options are the policy's, window > sinks +
 * recent, 1 <= L < n (tables: L a multiple of n/64), table of the model's shape and window. */
int fkv_policy_setup(const struct fkv_policy_options *options, const struct fkv_config *config,
                     int64_t max_tokens, struct fkv_policy_setup *setup, struct fkv_error *err);
void fkv_policy_setup_free(struct fkv_policy_setup *setup);
/* About how many slots the queries of a timeline of so many tokens see, summed: mean over heads, as
 * if the last round between two actions were a whole one. */
double fkv_policy_slots(const struct fkv_policy_setup *setup, int64_t tokens);

#endif
