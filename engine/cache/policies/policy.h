/* What a cache policy answers: what a (layer, KV head) keeps of its past, and how queries see it.
 *
 * A policy never touches memory. It answers questions about one head's schedule, and the session
 * turns the answers into kernel calls for all heads at once. Answers depend only on the setup and
 * on the head's counters, so the host knows the whole schedule beforehand and nothing waits for the
 * device. One exception: which slots a selecting policy keeps depends on what is in the cache. Such
 * a policy says how slots are scored and how many stay (selecting.h); the session reads the scores
 * back from the device at the end of every prefill block. And what a query sees may depend on the
 * query: a policy that has `choose` is given its score of every chunk (session/choose.c).
 *
 * To add a policy, write its file in this folder and add its row to the table in policies.h.
 * Everything else follows from the struct below: the command line, --help, run files, what is
 * counted and what is refused. */
#ifndef FKV_ENGINE_CACHE_POLICIES_POLICY_H
#define FKV_ENGINE_CACHE_POLICIES_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cache/operators.h"
#include "engine/cache/policies/options.h"
#include "kernels/cache.h"

/* What the user asked for. Zero or negative where a default is wanted. */
struct fkv_policy_options {
    const char *name;  /* NULL: full attention */
    int32_t window;    /* N; 0: the trained context */
    int32_t budget;    /* slots that a head may hold: N, or what a selecting policy keeps; 0: that
                          policy's default */
    int32_t sinks;     /* S; -1: 4 */
    const char *gamma; /* "0.5", "0.5,0.4,..." (one per layer) or "@gamma.json"; NULL: 0.5 */
    struct fkv_own_value own[FKV_OWN_OPTIONS]; /* the policy's own options; a NULL name ends them */
    const struct fkv_operator_data *operator_data; /* what an option's file holds; NULL: none.
                                                      Borrowed by every setup and session */
    int32_t prefill_block; /* most tokens of a prefill block, at whose end a selecting policy acts;
                              0: as many as the session takes */
    enum fkv_quant quant;  /* grid that the session's cache is rounded to (kernels/quant.h) */
    bool quant_before;     /* keys are rounded before RoPE, not after it */
};

/* The options worked out for one model: what every answer is computed from. */
struct fkv_policy_setup {
    const struct fkv_policy *policy;
    int32_t layers;
    int32_t kv_heads;
    int32_t window;                         /* N */
    int32_t sinks;                          /* S */
    int32_t recent;                         /* R: newest slots that an action leaves as they are */
    int32_t compressible;                   /* n = N - S - R */
    int32_t capacity;                       /* slots of storage per head */
    int32_t chunk;                          /* tokens of a chunk that queries choose; 0: they do
                                               not choose */
    int32_t max_spans;                      /* of a view: the policy's, or set by `prepare` */
    int32_t most_seen;                      /* slots a query sees at most; INT32_MAX: all */
    int32_t trained_context;                /* of the model, tokens */
    int32_t prefill_block;                  /* as in the options */
    enum fkv_quant quant;                   /* as in the options */
    bool quant_before;                      /* the same */
    int64_t own[FKV_OWN_OPTIONS];           /* values of policy->options, in their order */
    const char *own_texts[FKV_OWN_OPTIONS]; /* the same of texts; borrowed */
    const struct fkv_operator_data *operator_data; /* NULL: none. Borrowed */
    bool mass_bias;    /* scores of slots get the log of how many tokens each stands for */
    char *own_text;    /* own options with their values, "recent=256 rescale=on mass-bias=off"; ""
                          without any. Owned. */
    char *label;       /* name, own options that are not at their default and the grid of the cache,
                          "freqkv, recent 256, q4 cache". Owned. */
    double gamma;      /* mean over heads; NaN where the policy takes no ratio */
    int32_t *retained; /* L [layers, kv_heads]; NULL where the policy takes no ratio. Owned. */
    int32_t *layer_windows; /* [layers] of the model's own: tokens that a query sees, its own
                               included; 0: all before it. See sliding.c. Owned. */
    const struct fkv_policy **head_policies; /* [layers, kv_heads] of a table; NULL: one policy for
                                                all heads. Owned. */
    char *table_text; /* what stands for the table in files: basename "@" first 16 digits of
                         sha256; NULL: none. Owned. */
    struct fkv_policy_setup *parts; /* [part_count] one per policy of the table; its pointers are
                                       borrowed from this setup. NULL: none. Owned. */
    int32_t part_count;
};

/* The state of one (layer, sequence, KV head). */
struct fkv_head {
    int32_t layer;
    int32_t sequence;
    int32_t kv_head;
    int32_t slots;        /* in use, of setup->capacity */
    int32_t rounds;       /* actions so far */
    int64_t tokens;       /* appended so far */
    int32_t tokens_since; /* appended since the last action */
    double shift;         /* of the positions of what follows, from its slot index; not 0 only after
                             surgery (engine/session/surgery.h) */
    int32_t block;        /* tokens of a prefill block; 0: there is no prefill */
    int64_t prefill;      /* tokens of the prefill: blocks that end beyond are none */
};

/* An action on one head: first the map, then the gather. */
struct fkv_action {
    int32_t map_slot;     /* first slot of the map */
    int32_t map_n;        /* slots that the map takes; 0: no map */
    int32_t map_retained; /* slots that it leaves, from map_slot on */
    double map_gain;      /* of the DCT */
    int32_t map_matrices; /* 0: the DCT; else `fill_map` gives this map: 1: one matrix for keys and
                             values; 2: one each */
    int32_t map_id;       /* of matrices: heads of one id and L share them */
    int32_t gather_slot;  /* slot gather_from[j] moves to gather_slot + j */
    int32_t gather_count; /* 0: no gather */
    int32_t *gather_from; /* [setup->capacity], ascending; memory of the session */
    double gather_shift;  /* added to the positions of the moved keys */
    int32_t slots;        /* in use afterwards */
};

/* What a selecting policy scores the slots of a head by; the highest scores stay. */
enum fkv_slot_score {
    FKV_NO_SCORE,           /* the policy does not select */
    FKV_SCORE_ATTENTION,    /* attention that queries paid to the slot (kernels/cache.h) */
    FKV_SCORE_KEY_NORM,     /* minus the length of its key */
    FKV_SCORE_KEY_DIRECTION /* minus the cosine of its key and the mean direction of all keys */
};

/* What stays of a head at the end of a prefill block. */
struct fkv_selection {
    int32_t budget;  /* slots that stay; a head with no more is left alone */
    int32_t recent;  /* of those, the latest, whatever their scores; 0 .. budget */
    int32_t observe; /* attention: of the block's last so many queries; 0: of all queries since
                        token 0 */
    int32_t kernel;  /* scores of the others are pooled over so many slots, odd; 1: not pooled */
    bool pool_max;   /* by their maximum; else by their average */
};

struct fkv_scored_slot; /* selecting.h */

/* What a query chooses by, of its head's finished chunks. */
struct fkv_chunk_scores {
    const double *score;             /* [chunks] the query, before RoPE, times the chunk's vector */
    struct fkv_scored_slot *scratch; /* [chunks] */
    int32_t *chosen;                 /* [chunks + 1] scratch */
};

struct fkv_policy {
    const char *name;
    const char *summary; /* what it keeps, in one line of at most 70 characters */
    const char *page; /* its page of help, lines of at most 80 characters: algorithm, source, rule
                         of positions, where paper and code differ, defaults */
    const struct fkv_policy_option *options; /* its own; a NULL name ends them; NULL: none */

    bool takes_window; /* --window and --sinks: no query sees a distance of more than N, or more
                          than setup->most_seen slots */
    const char *window_unit; /* own option, an integer, that N is a multiple of; NULL: any N */
    bool without_sinks;      /* --sinks is not used, and S is 0 */
    bool takes_ratio;        /* --gamma: a head keeps setup->retained of its n compressible slots */
    bool takes_table;        /* --table, its first own option (FKV_TABLE): heads have policies and
                                ratios of their own. What is counted below, some heads may */
    bool mixes;              /* such a table may name it: it keeps to a window */
    bool maps_slots;         /* its actions have maps, which a session prepares when it opens */
    bool low_pass;           /* those keep the L lowest DCT coefficients of n slots */
    bool allows_surgery; /* slots stay where they are appended, so that experiments may change them
                          */
    bool counts_compressions; /* every action of a head is counted as a compression */
    bool counts_evictions;    /* every action of a head is counted as an eviction */
    bool evicts_every_token;  /* every token past the window is counted as an eviction; actions only
                                 free storage */
    bool keeps_every_token;   /* in storage, also those that no query sees */
    enum fkv_slot_score scores; /* the policy selects slots at the end of prefill blocks */
    int32_t max_spans; /* of a view; the session adds empty ones, so that decode steps have one
                          shape. 0: set by `prepare` */

    /* Slots that actions leave as they are (R), from setup->own; NULL: none. */
    int32_t (*recent)(const struct fkv_policy_setup *setup);

    /* Checks the options further and sets capacity, and most_seen where it is not N. `max_tokens`:
     * most tokens a session will see. How many of them come at once is not known here: the block
     * must change neither memory nor counts. */
    int (*prepare)(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err);

    /* How many tokens may be appended before the next view; 0: an action has to come first. */
    int32_t (*append_limit)(const struct fkv_policy_setup *setup, const struct fkv_head *head);

    /* A selecting policy's, in place of `act`: what stays of a head now; NULL: it does not select.
     */
    void (*select)(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                   struct fkv_selection *selection);

    /* Fills in the action of a head whose append_limit is 0. It comes zeroed, with gather_from set
     * and slots = head->slots. NULL where the policy selects. */
    void (*act)(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action);

    /* The matrices of a head's map, [map_retained, map_n] each; `value` only where map_matrices is
     * 2, else NULL. NULL where no action has matrices. */
    int (*fill_map)(const struct fkv_policy_setup *setup, const struct fkv_head *head, float *key,
                    float *value, struct fkv_error *err);

    /* The position at which the next appended key is stored. */
    double (*position)(const struct fkv_policy_setup *setup, const struct fkv_head *head);

    /* What the newest `rows` rows see, whose keys are in slots [head->slots - rows, head->slots)
     * and already counted in `head` -> spans [max_spans], under one joint softmax
     * (kernels/cache.h). Returns the number of spans. */
    int32_t (*view)(const struct fkv_policy_setup *setup, const struct fkv_head *head, int32_t rows,
                    struct fkv_span *spans);

    /* In the place of `view` where a head has more than N tokens: what one query head's query of
     * token `token` sees -> spans [max_spans]. Returns their number. The newest rows are all of the
     * newest chunk: append_limit ends at its border. Needs setup->chunk; NULL: queries do not
     * choose. */
    int32_t (*choose)(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                      int64_t token, const struct fkv_chunk_scores *scores, struct fkv_span *spans);
};

/* The first own option of a policy with a table. */
enum { FKV_TABLE };

/* The policy whose schedule head `head` of [layers, kv_heads] follows. */
static inline const struct fkv_policy *fkv_policy_of_head(const struct fkv_policy_setup *setup,
                                                          int32_t head) {
    return setup->head_policies ? setup->head_policies[head] : setup->policy;
}

/* What answers for the heads of a layer: the setup's policy, or, where the layer's own window is
 * below the policy's, one that keeps just that. It has prepare NULL and no options. (sliding.c) */
const struct fkv_policy *fkv_policy_of_layer(const struct fkv_policy_setup *setup, int32_t layer);

/* Does what the policy keeps, or what a query sees of it, depend on queries? */
static inline bool fkv_policy_sees_queries(const struct fkv_policy *policy) {
    return policy->scores == FKV_SCORE_ATTENTION || policy->choose;
}

/* The policy that keeps every token, at its defaults: the baseline, and what records. */
extern const struct fkv_policy_options fkv_full_attention;

#endif
