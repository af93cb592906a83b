/* The table of policies. */
#ifndef FKV_ENGINE_CACHE_POLICIES_POLICIES_H
#define FKV_ENGINE_CACHE_POLICIES_POLICIES_H

#include "engine/cache/policies/policy.h"

/* One row per policy, in the order of --help: ROW(x) stands for fkv_policy_x. */
#define FKV_POLICY_ROWS(ROW)                                                                       \
    ROW(full)                                                                                      \
    ROW(freqkv)                                                                                    \
    ROW(linear)                                                                                    \
    ROW(local)                                                                                     \
    ROW(streaming)                                                                                 \
    ROW(lm_infinite)                                                                               \
    ROW(mixed)                                                                                     \
    ROW(snapkv)                                                                                    \
    ROW(pyramidkv)                                                                                 \
    ROW(h2o)                                                                                       \
    ROW(keydiff)                                                                                   \
    ROW(knorm)                                                                                     \
    ROW(longheads)

#define FKV_DECLARE_POLICY(x) extern const struct fkv_policy fkv_policy_##x;
FKV_POLICY_ROWS(FKV_DECLARE_POLICY)

/* All of them; NULL ends the list. */
extern const struct fkv_policy *const fkv_policies[];

/* The policy of that name; NULL: the default, full attention. Returns NULL and a message where
 * there is none. */
const struct fkv_policy *fkv_policy_find(const char *name, struct fkv_error *err);

#endif
