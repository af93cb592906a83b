/* Options of a policy's own: a table in its file, a NULL name ends it. The command line, --help,
 * JSON, the attributes of run files and the comparison of runs follow from the table. Where a
 * function takes `table`, NULL is an empty one. */
#ifndef FKV_ENGINE_CACHE_POLICIES_OPTIONS_H
#define FKV_ENGINE_CACHE_POLICIES_OPTIONS_H

#include <stdio.h>

#include "kernels/base/json.h"

enum { FKV_OWN_OPTIONS = 8, FKV_OPTION_KEY = 32 }; /* most of one policy; bytes of a key */
enum fkv_option_kind {
    FKV_OPTION_INTEGER,
    FKV_OPTION_CHOICE,
    FKV_OPTION_ON_OFF,
    FKV_OPTION_FLAG,
    FKV_OPTION_TEXT
};

struct fkv_policy_option {
    const char *name; /* "mass-bias": --mass-bias; attribute and JSON key are mass_bias */
    enum fkv_option_kind kind;
    const char *argument; /* its name in --help; a choice's words, "avg|max", whose values are 0,
                             1, ...; NULL: the option takes none */
    int64_t low, high;    /* an integer's or a choice's range */
    int64_t standard;     /* the default; 1 is on, 0 is off */
    const char *help;
    const char *standard_text; /* the default of a text */
};

/* A value that the user gave. */
struct fkv_own_value {
    const char *name; /* as in the table; NULL ends a list */
    int64_t value;
    const char *text; /* of a text, instead; NULL: the default. Borrowed */
};

/* values and, of texts, texts [FKV_OWN_OPTIONS], in the table's order <- the defaults and what is
 * given in `own` (a NULL name ends it); both NULL: only checks. Texts are borrowed. An option that
 * is not in the table, or a value out of range, is refused; `policy` is the name for messages. */
int fkv_own_set(const char *policy, const struct fkv_policy_option *table,
                const struct fkv_own_value *own, int64_t *values, const char **texts,
                struct fkv_error *err);

/* All options with their values, "recent=256 rescale=on mass-bias=off"; "" without any. malloc'd;
 * NULL: no memory. */
char *fkv_own_text(const struct fkv_policy_option *table, const int64_t *values,
                   const char *const *texts);
/* The policy and its options that are not at their default, "freqkv, recent 256". malloc'd; NULL:
 * no memory. */
char *fkv_own_label(const char *policy, const struct fkv_policy_option *table,
                    const int64_t *values, const char *const *texts);
/* " (default 32)"; nothing for a flag, or for a text whose default is empty. */
void fkv_own_print_standard(FILE *f, const struct fkv_policy_option *option);
/* Adds every option to `object` under its key. */
void fkv_own_to_json(const struct fkv_policy_option *table, const int64_t *values,
                     const char *const *texts, json_t *object);
/* Word `value` of a choice; *bytes: its length. */
const char *fkv_own_word(const struct fkv_policy_option *option, int64_t value, int *bytes);
/* "mass-bias" -> "mass_bias" */
void fkv_own_key(const struct fkv_policy_option *option, char key[FKV_OPTION_KEY]);

#endif
