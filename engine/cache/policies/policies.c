/* The table of policies, and finding one by its name. */
#include "engine/cache/policies/policies.h"

#include <stdio.h>
#include <string.h>

#define ADDRESS(x) &fkv_policy_##x,
const struct fkv_policy *const fkv_policies[] = {FKV_POLICY_ROWS(ADDRESS) NULL};

const struct fkv_policy *fkv_policy_find(const char *name, struct fkv_error *err) {
    char known[256] = "";
    if (!name) name = fkv_full_attention.name;
    for (int i = 0; fkv_policies[i]; i++) {
        if (!strcmp(name, fkv_policies[i]->name)) return fkv_policies[i];
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", fkv_policies[i]->name);
    }
    fkv_fail_option(err, "--policy: expected one of %s, found \"%s\"", known, name);
    return NULL;
}
