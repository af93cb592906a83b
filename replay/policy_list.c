/* Reading a list of policies; see policy_list.h. One copy of the text is cut into entries, which
 * stay as written for messages and tables; another is cut further into names and values, which the
 * options point into. */
#include "replay/policy_list.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"
#include "replay/operators/operator_file.h"

static const struct fkv_policy_option *find_own(const struct fkv_policy *policy, const char *name) {
    for (const struct fkv_policy_option *o = policy->options; o && o->name; o++)
        if (!strcmp(o->name, name)) return o;
    return NULL;
}

/* ---- cutting ---- */

/* Cuts an entry off *rest, at a comma that no digit follows; NULL: there is none left. */
static char *cut_entry(char **rest) {
    char *entry = *rest, *at = entry;
    if (!entry) return NULL;
    while ((at = strchr(at, ',')) && isdigit((unsigned char)at[1])) at++;
    *rest = at ? at + 1 : NULL;
    if (at) *at = 0;
    return entry;
}

/* Whether an option starts here, up to the next colon: NAME=VALUE or a flag. */
static bool starts_option(const struct fkv_policy *policy, const char *at) {
    char name[FKV_OPTION_KEY];
    const size_t bytes = strcspn(at, ":");
    if (memchr(at, '=', bytes)) return true;
    snprintf(name, sizeof name, "%.*s", (int)(bytes < sizeof name ? bytes : 0), at);
    const struct fkv_policy_option *own = find_own(policy, name);
    return own && own->kind == FKV_OPTION_FLAG;
}

/* Cuts an option off *rest; NULL: there is none left. */
static char *cut_option(char **rest, const struct fkv_policy *policy) {
    char *option = *rest, *at = option;
    if (!option) return NULL;
    while ((at = strchr(at, ':')) && !starts_option(policy, at + 1)) at++;
    *rest = at ? at + 1 : NULL;
    if (at) *at = 0;
    return option;
}

/* ---- values ---- */

/* The value of an own option that is no text. `what` names it in messages. */
static int own_value(const struct fkv_policy_option *own, const char *what, const char *text,
                     int64_t *value, struct fkv_error *err) {
    int bytes;
    if (own->kind == FKV_OPTION_FLAG) {
        *value = 1;
        return text ? fkv_fail_option(err, "%s: expected no value, found \"%s\"", what, text)
                    : FKV_OK;
    }
    if (own->kind == FKV_OPTION_INTEGER)
        return fkv_parse_int(text, what, own->low, own->high, value, err);
    if (own->kind == FKV_OPTION_ON_OFF) {
        *value = !strcmp(text, "on");
        return *value || !strcmp(text, "off")
                   ? FKV_OK
                   : fkv_fail_option(err, "%s: expected on or off, found \"%s\"", what, text);
    }
    for (*value = own->low; *value <= own->high; ++*value) {
        const char *word = fkv_own_word(own, *value, &bytes);
        if (strlen(text) == (size_t)bytes && !strncmp(text, word, (size_t)bytes)) return FKV_OK;
    }
    return fkv_fail_option(err, "%s: expected %s, found \"%s\"", what, own->argument, text);
}

/* The last value given counts. */
static int set_own(struct fkv_policy_options *o, const struct fkv_policy_option *own,
                   const char *what, const char *text, struct fkv_error *err) {
    struct fkv_own_value value = {.name = own->name};
    int i = 0;
    while (i < FKV_OWN_OPTIONS && o->own[i].name && strcmp(o->own[i].name, own->name)) i++;
    if (i == FKV_OWN_OPTIONS)
        return fkv_fail_option(err, "%s: no policy takes so many options", what);
    if (own->kind == FKV_OPTION_TEXT)
        value.text = text;
    else if (own_value(own, what, text, &value.value, err))
        return FKV_FAILED;
    o->own[i] = value;
    return FKV_OK;
}

/* Ratios that can be read at all; what they are is checked against the model. */
static int set_ratios(struct fkv_policy_options *o, const char *what, const char *text,
                      struct fkv_error *err) {
    double *values = NULL;
    int count;
    o->gamma = text;
    if (*text == '@') return FKV_OK;
    int status = fkv_parse_range(text, what, &values, &count, err);
    free(values);
    return status;
}

/* Whether the policy takes window, sinks or gamma; else, which of its own there are. */
static int refuse(const struct fkv_policy *policy, const char *what, struct fkv_error *err) {
    char names[256] = "";
    if (policy->takes_window) snprintf(names, sizeof names, "window, sinks");
    if (policy->takes_ratio)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%sgamma",
                 *names ? ", " : "");
    for (const struct fkv_policy_option *o = policy->options; o && o->name; o++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "",
                 o->name);
    return fkv_fail_option(err, "%s: the policy does not take it; it takes %s", what,
                           *names ? names : "no options");
}

static int set_option(struct fkv_policy_options *o, const struct fkv_policy *policy, char *text,
                      struct fkv_error *err) {
    char what[128];
    int64_t number;
    char *equals = strchr(text, '='), *value = equals ? equals + 1 : NULL;
    if (equals) *equals = 0;
    snprintf(what, sizeof what, "--policies: %s: %.60s", policy->name, text);
    const bool window = !strcmp(text, "window"), sinks = !strcmp(text, "sinks"),
               ratio = !strcmp(text, "gamma");
    const struct fkv_policy_option *own = find_own(policy, text);
    if (!own && !(window && policy->takes_window) && !(sinks && policy->takes_window) &&
        !(ratio && policy->takes_ratio))
        return refuse(policy, what, err);
    if ((!value || !*value) && !(own && own->kind == FKV_OPTION_FLAG))
        return fkv_fail_option(err, "%s: expected a value, found none", what);
    if (own) return set_own(o, own, what, value, err);
    if (ratio) return set_ratios(o, what, value, err);
    if (fkv_parse_int(value, what, window ? 1 : 0, 1 << 28, &number, err)) return FKV_FAILED;
    *(window ? &o->window : &o->sinks) = (int32_t)number;
    return FKV_OK;
}

/* ---- entries ---- */

static int parse_entry(char *text, const struct fkv_policy_options *shared,
                       struct fkv_policy_options *o, struct fkv_error *err) {
    char *name = strsep(&text, ":"), *option;
    *o = (struct fkv_policy_options){.window = shared->window,
                                     .sinks = shared->sinks,
                                     .gamma = shared->gamma,
                                     .prefill_block = shared->prefill_block};
    const struct fkv_policy *policy = fkv_policy_find(name, err);
    if (!policy) return fkv_error_prefix(err, "--policies");
    o->name = policy->name;
    while ((option = cut_option(&text, policy)))
        if (set_option(o, policy, option, err)) return FKV_FAILED;
    return FKV_OK;
}

static int allocate(const char *text, struct fkv_policy_list *list, struct fkv_error *err) {
    list->options = calloc(FKV_POLICY_LIST_MOST, sizeof *list->options);
    list->names = calloc(FKV_POLICY_LIST_MOST, sizeof *list->names);
    list->operator_data = calloc(FKV_POLICY_LIST_MOST, sizeof *list->operator_data);
    list->text[0] = strdup(text);
    list->text[1] = strdup(text);
    return list->options && list->names && list->operator_data && list->text[0] && list->text[1]
               ? FKV_OK
               : fkv_fail(err, "out of memory for a list of policies");
}

int fkv_policy_list_parse(const char *text, const struct fkv_policy_options *shared,
                          struct fkv_policy_list *list, struct fkv_error *err) {
    if (allocate(text, list, err)) return FKV_FAILED;
    char *names = list->text[0], *values = list->text[1], *name;
    while ((name = cut_entry(&names))) {
        char *entry = cut_entry(&values);
        if (list->count == FKV_POLICY_LIST_MOST)
            return fkv_fail_option(err, "--policies: expected at most %d, found more",
                                   FKV_POLICY_LIST_MOST);
        for (int i = 0; i < list->count; i++)
            if (!strcmp(list->names[i], name))
                return fkv_fail_option(err, "--policies: expected each once, found \"%s\" twice",
                                       name);
        list->names[list->count] = name;
        if (parse_entry(entry, shared, &list->options[list->count], err)) return FKV_FAILED;
        list->count++;
    }
    return FKV_OK;
}

int fkv_policy_list_read(struct fkv_policy_list *list, struct fkv_error *err) {
    for (int i = 0; i < list->count; i++)
        if (fkv_operator_data_read(&list->options[i], &list->operator_data[i], err))
            return fkv_error_prefix(err, "--policies: %s", list->names[i]);
    return FKV_OK;
}

void fkv_policy_list_free(struct fkv_policy_list *list) {
    for (int i = 0; list->operator_data && i < list->count; i++)
        fkv_operator_data_free(&list->operator_data[i]);
    free(list->options);
    free(list->names);
    free(list->operator_data);
    free(list->text[0]);
    free(list->text[1]);
    *list = (struct fkv_policy_list){0};
}
