/* The shortest keys stay; see the page below. */
#include "engine/cache/policies/policies.h"
#include "engine/cache/policies/selecting.h"

const struct fkv_policy fkv_policy_knorm = {
    .name = "knorm",
    .summary = "the shortest keys",
    .page = "At the end of a prefill block a head keeps the slots with the shortest keys:\n"
            "they tend to be paid much attention. No query is looked at.\n"
            "\n"
            "Source: Devoto et al., arXiv 2406.11430; alessiodevoto/l2compress.\n"
            "\n"
            "Positions: what stays keeps the position of its token, and queries stand at\n"
            "theirs.\n"
            "\n"
            "Paper and code: the authors' examples leave the first two layers alone\n"
            "(skip_layers=[0, 1]). Here, as in kvpress, all layers are treated alike;\n"
            "KnormPress keeps the same slots.\n"
            "\n"
            "Memory: a block is held whole before it is cut.\n"
            "\n"
            "Defaults: the budget is half the trained context.\n",
    .scores = FKV_SCORE_KEY_NORM,
    FKV_SELECTING_BY_KEYS,
};
