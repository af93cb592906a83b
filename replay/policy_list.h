/* Several policies in one option, each with options of its own:
 *
 *   full,local,freqkv:gamma=0.25:recent=128,linear:operator=random:7,freqkv:mass-bias
 *
 * A policy's name, then its options after colons: window, sinks, gamma and those that its file
 * declares, with their values as on the command line. What follows a colon and is neither
 * NAME=VALUE nor a flag of the policy belongs to the value before it ("random:7"), and so does a
 * comma before a digit ("gamma=0.5,0.4": a ratio per layer). */
#ifndef FKV_REPLAY_POLICY_LIST_H
#define FKV_REPLAY_POLICY_LIST_H

#include "engine/cache/policies/policies.h"

enum { FKV_POLICY_LIST_MOST = 32 };

struct fkv_policy_list {
    int count;                               /* 1 .. FKV_POLICY_LIST_MOST */
    struct fkv_policy_options *options;      /* [count]; owned */
    const char **names;                      /* [count] as written: "freqkv:gamma=0.25"; owned */
    struct fkv_operator_data *operator_data; /* [count] what their options' files hold; owned */
    char *text[2];                           /* names and options point into these; owned */
};

/* Reads `text`, the value of --policies, into a zeroed list; opens no file. Window, sinks, gamma
 * and prefill_block of `shared` are those of every policy that does not give its own; its other
 * fields are not used. Refused: a policy or an option that does not exist, an option that the
 * policy does not take, a bad value, one entry twice. The caller frees the list, after failures
 * too. */
int fkv_policy_list_parse(const char *text, const struct fkv_policy_options *shared,
                          struct fkv_policy_list *list, struct fkv_error *err);
/* Reads the files that options name (--operator of linear), once, before a policy is set up. */
int fkv_policy_list_read(struct fkv_policy_list *list, struct fkv_error *err);
void fkv_policy_list_free(struct fkv_policy_list *list); /* harmless on a zeroed struct and twice */

#endif
