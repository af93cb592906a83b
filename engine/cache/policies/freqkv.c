/* FreqKV (arXiv 2505.00570, section 3): when a head's cache holds N slots and another token
 * arrives, the n = N - S - R slots between the sinks and the most recent R become L: orthonormal
 * DCT-II along tokens, the L lowest coefficients, orthonormal inverse of length L, times sqrt(L/n),
 * so that a constant stays that constant. What was compressed is compressed again with what came
 * since. Keys are compressed before RoPE and then stand at their new slot index. R = 0 and the gain
 * are the paper's setting; R > 0 and gain 1 are options of the official code. */
#include <math.h>

#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/schedule.h"

enum { RECENT, RESCALE, MASS_BIAS };

static const struct fkv_policy_option options[] = {
    [RECENT] = {"recent", FKV_OPTION_INTEGER, "R", 0, 1 << 28, 0,
                "the latest R slots stay uncompressed too", NULL},
    [RESCALE] = {"rescale", FKV_OPTION_ON_OFF, "on|off", 0, 1, 1, "the factor sqrt(L/n)", NULL},
    [MASS_BIAS] = FKV_MASS_BIAS_ROW,
    {0},
};

static int32_t recent(const struct fkv_policy_setup *setup) { return (int32_t)setup->own[RECENT]; }

static int prepare(struct fkv_policy_setup *setup, int64_t max_tokens, struct fkv_error *err) {
    setup->mass_bias = setup->own[MASS_BIAS];
    return fkv_schedule_prepare(setup, max_tokens, err);
}

static void act(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                struct fkv_action *action) {
    int32_t n = setup->compressible,
            kept = setup->retained[head->layer * setup->kv_heads + head->kv_head];
    action->map_slot = setup->sinks;
    action->map_n = n;
    action->map_retained = kept;
    action->map_gain = setup->own[RESCALE] ? sqrt((double)kept / n) : 1;
    action->gather_slot = setup->sinks + kept;
    action->gather_count = setup->recent;
    action->gather_shift = kept - n;
    for (int32_t j = 0; j < setup->recent; j++) action->gather_from[j] = setup->sinks + n + j;
    action->slots = setup->sinks + kept + setup->recent;
}

const struct fkv_policy fkv_policy_freqkv = {
    .name = "freqkv",
    .summary = "the lowest DCT coefficients of what is older, again and again",
    .page = "When the cache of a head holds N slots (--window) and another token arrives,\n"
            "the n = N - S - R slots between the first S (--sinks) and the latest R\n"
            "(--recent) become L = floor(gamma n): an orthonormal DCT-II along tokens, its L\n"
            "lowest coefficients, an orthonormal inverse of length L, times sqrt(L/n), so\n"
            "that a constant stays that constant. Keys and values alike. What was compressed\n"
            "is compressed again with what came since.\n"
            "\n"
            "Source: FreqKV, arXiv 2505.00570, section 3.\n"
            "\n"
            "Positions: keys are compressed before RoPE and then stand at their new slot\n"
            "index; a query stands at the slot of its own key. No position passes N - 1.\n"
            "\n"
            "Paper and code: R = 0 and the factor sqrt(L/n) are the paper's setting. R > 0\n"
            "and --rescale off are options of the official code. --mass-bias is in neither.\n"
            "\n"
            "Memory: N slots per head, and after a compression N - n + L.\n"
            "\n"
            "Defaults: N is the trained context, S 4, gamma 0.5, R 0.\n",
    .options = options,
    .takes_window = true,
    .mixes = true,
    .takes_ratio = true,
    .maps_slots = true,
    .low_pass = true,
    .counts_compressions = true,
    .recent = recent,
    .prepare = prepare,
    .act = act,
    FKV_SCHEDULE_ANSWERS,
};
