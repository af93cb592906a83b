/* KeyDiff; see its page below. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/selecting.h"

const struct fkv_policy fkv_policy_keydiff = {
    .name = "keydiff",
    .summary = "keys that differ most from the mean direction of all keys",
    .page = "At the end of a prefill block a head keeps the slots whose keys have the\n"
            "smallest cosine with the mean of all its keys, each taken at length 1. No query\n"
            "is looked at.\n"
            "\n"
            "Source: KeyDiff, Park et al., arXiv 2504.15364.\n"
            "\n"
            "Positions: what stays keeps the position of its token, and queries stand at\n"
            "theirs.\n"
            "\n"
            "Paper and code: the paper processes a prompt block by block, which here is\n"
            "--protocol blocks:b; its variant that always keeps the latest tokens is left\n"
            "out. Keys are taken as the cache holds them, after RoPE, as in kvpress, whose\n"
            "KeyDiffPress keeps the same slots.\n"
            "\n"
            "Memory: a block is held whole before it is cut.\n"
            "\n"
            "Defaults: the budget is half the trained context.\n",
    .scores = FKV_SCORE_KEY_DIRECTION,
    FKV_SELECTING_BY_KEYS,
};
