/* Tables of policies' own options, and their values as texts and JSON; see options.h. */
#include "engine/cache/policies/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct fkv_policy_option none = {0};

static int check_value(const struct fkv_policy_option *option, int64_t value,
                       struct fkv_error *err) {
    if (option->kind == FKV_OPTION_TEXT) return FKV_OK;
    const bool ranged = option->kind == FKV_OPTION_INTEGER || option->kind == FKV_OPTION_CHOICE;
    const int64_t low = ranged ? option->low : 0, high = ranged ? option->high : 1;
    if (value >= low && value <= high) return FKV_OK;
    return fkv_fail_option(
        err, "--%s: expected a number from %" PRId64 " to %" PRId64 ", found %" PRId64,
        option->name, low, high, value);
}

static int refuse(const char *policy, const struct fkv_policy_option *table, const char *name,
                  struct fkv_error *err) {
    char own[256] = "";
    for (int i = 0; table[i].name; i++) {
        size_t used = strlen(own);
        snprintf(own + used, sizeof own - used, "%s--%s", used ? ", " : "", table[i].name);
    }
    return fkv_fail_option(err, "--%s: policy %s does not take it%s%s", name, policy,
                           *own ? "; its own options are " : "; it has no options of its own", own);
}

int fkv_own_set(const char *policy, const struct fkv_policy_option *table,
                const struct fkv_own_value *own, int64_t *values, const char **texts,
                struct fkv_error *err) {
    if (!table) table = &none;
    for (int i = 0; values && table[i].name; i++) {
        values[i] = table[i].standard;
        texts[i] = table[i].standard_text;
    }
    for (int k = 0; k < FKV_OWN_OPTIONS && own[k].name; k++) {
        int i = 0;
        while (table[i].name && strcmp(table[i].name, own[k].name)) i++;
        if (!table[i].name) return refuse(policy, table, own[k].name, err);
        if (check_value(&table[i], own[k].value, err)) return FKV_FAILED;
        if (values) values[i] = own[k].value;
        if (values && own[k].text) texts[i] = own[k].text;
    }
    return FKV_OK;
}

void fkv_own_key(const struct fkv_policy_option *option, char key[FKV_OPTION_KEY]) {
    snprintf(key, FKV_OPTION_KEY, "%s", option->name);
    for (char *c = key; *c; c++)
        if (*c == '-') *c = '_';
}

const char *fkv_own_word(const struct fkv_policy_option *option, int64_t value, int *bytes) {
    const char *word = option->argument;
    for (; value > 0; value--) word += strcspn(word, "|") + 1;
    *bytes = (int)strcspn(word, "|");
    return word;
}

/* As a user would give it. */
static void print_value(FILE *f, const struct fkv_policy_option *option, int64_t value,
                        const char *text) {
    int bytes;
    if (option->kind == FKV_OPTION_TEXT)
        fputs(text, f);
    else if (option->kind == FKV_OPTION_INTEGER)
        fprintf(f, "%" PRId64, value);
    else if (option->kind == FKV_OPTION_CHOICE) {
        const char *word = fkv_own_word(option, value, &bytes);
        fprintf(f, "%.*s", bytes, word);
    } else
        fputs(value ? "on" : "off", f);
}

void fkv_own_print_standard(FILE *f, const struct fkv_policy_option *option) {
    if (option->kind == FKV_OPTION_FLAG) return;
    if (option->kind == FKV_OPTION_TEXT && !*option->standard_text) return;
    fputs(" (default ", f);
    print_value(f, option, option->standard, option->standard_text);
    putc(')', f);
}

char *fkv_own_text(const struct fkv_policy_option *table, const int64_t *values,
                   const char *const *texts) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    if (!table) table = &none;
    for (int i = 0; table[i].name; i++) {
        fprintf(f, "%s%s=", i ? " " : "", table[i].name);
        print_value(f, &table[i], values[i], texts[i]);
    }
    fclose(f);
    return text;
}

/* Whether an option is at its default. */
static bool is_standard(const struct fkv_policy_option *option, int64_t value, const char *text) {
    return option->kind == FKV_OPTION_TEXT ? !strcmp(text, option->standard_text)
                                           : value == option->standard;
}

char *fkv_own_label(const char *policy, const struct fkv_policy_option *table,
                    const int64_t *values, const char *const *texts) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    if (!table) table = &none;
    fputs(policy, f);
    for (int i = 0; table[i].name; i++) {
        if (is_standard(&table[i], values[i], texts[i])) continue;
        fprintf(f, ", %s", table[i].name);
        if (table[i].kind == FKV_OPTION_FLAG) continue;
        fputc(' ', f);
        print_value(f, &table[i], values[i], texts[i]);
    }
    fclose(f);
    return text;
}

static json_t *value_json(const struct fkv_policy_option *option, int64_t value, const char *text) {
    if (option->kind == FKV_OPTION_TEXT) return json_string(text);
    if (option->kind == FKV_OPTION_INTEGER) return json_integer(value);
    if (option->kind != FKV_OPTION_CHOICE) return json_boolean(value);
    int bytes;
    const char *word = fkv_own_word(option, value, &bytes);
    return json_stringn(word, (size_t)bytes);
}

void fkv_own_to_json(const struct fkv_policy_option *table, const int64_t *values,
                     const char *const *texts, json_t *object) {
    if (!table) table = &none;
    for (int i = 0; table[i].name; i++) {
        char key[FKV_OPTION_KEY];
        fkv_own_key(&table[i], key);
        json_object_set_new(object, key, value_json(&table[i], values[i], texts[i]));
    }
}
