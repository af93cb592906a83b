/* What SnapKV and PyramidKV share: they differ in the budget of a layer alone. */
#ifndef FKV_ENGINE_CACHE_POLICIES_SNAPKV_H
#define FKV_ENGINE_CACHE_POLICIES_SNAPKV_H

#include "engine/cache/policies/selecting.h"

enum {
    FKV_SNAPKV_OBSERVE = FKV_BUDGET + 1,
    FKV_SNAPKV_POOL,
    FKV_SNAPKV_KERNEL,
    FKV_SNAPKV_OPTIONS
};
/* The first rows of a table of own options. */
#define FKV_SNAPKV_ROWS                                                                             \
    FKV_BUDGET_ROW,                                                                                 \
        {"observe",                                                                                 \
         FKV_OPTION_INTEGER,                                                                        \
         "W",                                                                                       \
         1,                                                                                         \
         1 << 28,                                                                                   \
         32,                                                                                        \
         "the last W queries of a block say what to keep; their own slots stay",                    \
         NULL},                                                                                     \
        {"pool", FKV_OPTION_CHOICE, "avg|max", 0, 1, 0, "pooling of the scores along slots", NULL}, \
    {                                                                                               \
        "kernel", FKV_OPTION_INTEGER, "K", 1, 1 << 20, 5,                                           \
            "slots that are pooled, an odd number; 1: no pooling", NULL                             \
    }

/* Puts the default budget in place and refuses a budget within the observed window and an even
 * kernel. */
int fkv_snapkv_check(struct fkv_policy_setup *setup, struct fkv_error *err);
/* A `select`: the whole budget in every layer. */
void fkv_snapkv_select(const struct fkv_policy_setup *setup, const struct fkv_head *head,
                       struct fkv_selection *selection);

#endif
