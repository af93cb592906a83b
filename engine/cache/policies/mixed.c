/* A policy of its own for every (layer, KV head), from a table: heads whose keys are not of low
 * frequency need not be treated as if they were.
 *
 * The policies of a table keep to one window N and one number of sinks S, so that heads differ in
 * what they keep and never in how much they may hold. Each of them has a part, a setup of its own
 * with the same N, S and ratios, and answers for its heads by it: a head under freqkv in a mixture
 * does what it does under freqkv alone. Storage is the largest part's for every head.
 *
 * --recent is not taken: it would give heads of one ratio different sizes. A head without a ratio
 * (streaming) evicts at every token once it is full: it counts as L = n - 1 where a ratio is asked
 * for. */
#include <stdlib.h>
#include <string.h>

#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

enum { MASS_BIAS = FKV_TABLE + 1 };

static const struct fkv_policy_option options[] = {
    [FKV_TABLE] = {.name = "table",
                   .kind = FKV_OPTION_TEXT,
                   .argument = "POLICIES.json",
                   .standard_text = "",
                   .help = "a policy (freqkv, local or streaming) and a ratio per layer and KV "
                           "head, as freqkv-analyze gamma --mixed writes them"},
    [MASS_BIAS] = FKV_MASS_BIAS_ROW,
    {0},
};

static const struct fkv_policy_setup *part_of(const struct fkv_policy_setup *setup,
                                              const struct fkv_head *head) {
    const struct fkv_policy *policy =
        fkv_policy_of_head(setup, head->layer * setup->kv_heads + head->kv_head);
    int32_t i = 0;
    while (setup->parts[i].policy != policy) i++;
    return &setup->parts[i];
}

/* The own options of this policy that a part's policy takes as well. */
static int set_own(const struct fkv_policy_setup *setup, struct fkv_policy_setup *part,
                   struct fkv_error *err) {
    struct fkv_own_value own[FKV_OWN_OPTIONS] = {0};
    int count = 0;
    for (const struct fkv_policy_option *o = part->policy->options; o && o->name; o++)
        for (int i = 0; options[i].name; i++)
            if (!strcmp(o->name, options[i].name))
                own[count++] = (struct fkv_own_value){.name = o->name, .value = setup->own[i]};
    return fkv_own_set(part->policy->name, part->policy->options, own, part->own, part->own_texts,
                       err);
}

static int add_part(struct fkv_policy_setup *setup, const struct fkv_policy *policy,
                    int64_t max_tokens, struct fkv_error *err) {
    struct fkv_policy_setup *part = &setup->parts[setup->part_count];
    *part = *setup;
    part->policy = policy;
    if (set_own(setup, part, err) || policy->prepare(part, max_tokens, err)) return FKV_FAILED;
    setup->part_count++;
    if (part->capacity > setup->capacity) setup->capacity = part->capacity;
    setup->mass_bias = setup->mass_bias || part->mass_bias;
    return FKV_OK;
}

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    int32_t policies = 0;
    while (fkv_policies[policies]) policies++;
    setup->parts = calloc((size_t)policies, sizeof *setup->parts);
    if (!setup->parts) return fkv_fail(err, "policy %s: out of memory", setup->policy->name);
    for (int32_t h = 0; h < setup->layers * setup->kv_heads; h++) {
        const struct fkv_policy *policy = fkv_policy_of_head(setup, h);
        int32_t i = 0;
        while (i < setup->part_count && setup->parts[i].policy != policy) i++;
        if (i == setup->part_count && add_part(setup, policy, max_tokens, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int32_t append_limit(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const struct fkv_policy_setup *part = part_of(setup, head);
    return part->policy->append_limit(part, head);
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    const struct fkv_policy_setup *part = part_of(setup, head);
    part->policy->act(part, head, action);
}

static double position(const struct fkv_policy_setup *setup, const struct fkv_head *head) {
    const struct fkv_policy_setup *part = part_of(setup, head);
    return part->policy->position(part, head);
}

static int32_t view(const struct fkv_policy_setup *setup, const struct fkv_head *head, int32_t rows,
                    struct fkv_span *spans) {
    const struct fkv_policy_setup *part = part_of(setup, head);
    return part->policy->view(part, head, rows, spans);
}

const struct fkv_policy fkv_policy_mixed = {
    .name = "mixed",
    .summary = "a policy and a ratio per layer and KV head, from a table",
    .page = "Each (layer, KV head) follows one of freqkv, local and streaming, as a table\n"
            "says, because heads that are not of low frequency need not be treated as if\n"
            "they were. All share one window N and the sinks; a head does what it does\n"
            "under its policy alone.\n"
            "\n"
            "Source: none; a table comes from `freqkv-analyze gamma --mixed`, or is yours.\n"
            "Positions: those of each head's policy.\n"
            "\n"
            "The table is JSON: \"policy\" and \"gamma\", each one for all heads, one per\n"
            "layer or [layer][kv_head]; and, where you like, the fields of gamma.json\n"
            "(n_layers, n_kv_heads, window, sinks, retained, text_sha256). A head whose\n"
            "policy takes no ratio may have null for it.\n"
            "\n"
            "Defaults: the window and the sinks of the table, else those of all policies.\n"
            "freqkv stands at its defaults but for --mass-bias; --recent is not taken, so\n"
            "that one ratio means one size in all heads.\n",
    .options = options,
    .takes_window = true,
    .takes_table = true,
    .maps_slots = true,
    .counts_compressions = true,
    .counts_evictions = true,
    .evicts_every_token = true,
    .max_spans = 2,
    .prepare = prepare,
    .append_limit = append_limit,
    .act = act,
    .position = position,
    .view = view,
};
