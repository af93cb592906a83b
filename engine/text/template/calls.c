/* Calls: our functions, macros of the template, and methods of strings and mappings by their Python
 * names.
 *
 *   functions          raise_exception, namespace, range, strftime_now (where there is a date)
 *   of strings         strip, lstrip, rstrip, startswith, endswith, split, replace, upper, lower,
 *                      title, capitalize, join
 *   of mappings        get, items, keys, values */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/text/template/parts.h"

enum { MAX_RANGE = 100000 }; /* Jinja's, in its sandbox */

/* ---- arguments ---- */

/* Word i of `names`, of `length` bytes; NULL: there are fewer. */
static const char *word(const char *names, int i, size_t *length) {
    while (i-- && names) names = (names = strchr(names, ' ')) ? names + 1 : NULL;
    *length = names ? strcspn(names, " ") : 0;
    return *length ? names : NULL;
}

static int index_of(const char *names, const char *name) {
    const char *at;
    size_t length;
    for (int i = 0; (at = word(names, i, &length)); i++)
        if (strlen(name) == length && !memcmp(at, name, length)) return i;
    return -1;
}

int fkv_tpl_bind(struct fkv_tpl_run *r, const char *what, struct fkv_tpl_arguments *arguments,
                 const char *names, int required) {
    struct fkv_tpl_arguments bound = {0};
    bool given[FKV_TPL_MAX_ARGUMENTS] = {false};
    size_t length;
    for (int i = 0; i < arguments->count; i++) {
        const char *name = arguments->names[i];
        const int at = name ? index_of(names, name) : word(names, i, &length) ? i : -1;
        if (at < 0 || given[at]) {
            fkv_tpl_arguments_free(&bound);
            return FKV_TPL_REFUSE(r, "%.80s: expected the arguments (%s), found %s%.80s", what,
                                  names, name ? "" : "more", name ? name : "");
        }
        given[at] = true;
        bound.at[at] = arguments->at[i];
        arguments->at[i] = (struct fkv_tpl_value){0};
        if (at >= bound.count) bound.count = at + 1;
    }
    *arguments = bound;
    for (int i = 0; i < required; i++)
        if (!given[i])
            return FKV_TPL_REFUSE(r, "%.80s: expected the arguments (%s), found fewer", what,
                                  names);
    return FKV_OK;
}

int fkv_tpl_want_string(struct fkv_tpl_run *r, const char *what, const struct fkv_tpl_value *v,
                        struct fkv_tpl_span *span) {
    if (!fkv_tpl_is_string(v))
        return FKV_TPL_REFUSE(r, "%s: expected a string, found %s", what, fkv_tpl_type(v));
    *span = fkv_tpl_span(v->json);
    return FKV_OK;
}

int fkv_tpl_want_integer(struct fkv_tpl_run *r, const char *what, const struct fkv_tpl_value *v,
                         int64_t *value) {
    if (fkv_tpl_is_integer(v, value)) return FKV_OK;
    return FKV_TPL_REFUSE(r, "%s: expected a whole number, found %s", what, fkv_tpl_type(v));
}

/* ---- functions ---- */

static int call_raise(struct fkv_tpl_run *r, struct fkv_tpl_arguments *a,
                      struct fkv_tpl_value *out) {
    struct fkv_tpl_span message;
    (void)out;
    if (fkv_tpl_bind(r, "raise_exception", a, "message", 1) ||
        fkv_tpl_want_string(r, "raise_exception", &a->at[0], &message))
        return FKV_FAILED;
    return FKV_TPL_REFUSE(r, "the template refuses the messages: %.*s",
                          (int)(message.bytes < 400 ? message.bytes : 400), message.at);
}

static int call_namespace(struct fkv_tpl_run *r, struct fkv_tpl_arguments *a,
                          struct fkv_tpl_value *out) {
    if (fkv_tpl_plain(r, json_object(), out)) return FKV_FAILED;
    out->kind = FKV_TPL_NAMESPACE;
    for (int i = 0; i < a->count; i++) {
        if (!a->names[i]) return FKV_TPL_REFUSE(r, "namespace: expected arguments by name");
        json_t *part = fkv_tpl_part(r, &a->at[i]);
        if (!part) return FKV_FAILED;
        if (json_object_set(out->json, a->names[i], part))
            return FKV_TPL_REFUSE(r, "out of memory");
    }
    return FKV_OK;
}

static int call_range(struct fkv_tpl_run *r, struct fkv_tpl_arguments *a,
                      struct fkv_tpl_value *out) {
    int64_t n[3] = {0, 0, 1};
    const int count = a->count;
    if (fkv_tpl_bind(r, "range", a, "start stop step", 1)) return FKV_FAILED;
    for (int i = 0; i < count; i++)
        if (fkv_tpl_want_integer(r, "range", &a->at[i], &n[count == 1 ? 1 : i])) return FKV_FAILED;
    for (int i = 0; i < 3; i++)
        if (n[i] > INT32_MAX || n[i] < INT32_MIN || !n[2])
            return FKV_TPL_REFUSE(r, "range: expected other numbers");
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    for (int64_t i = n[0]; n[2] > 0 ? i < n[1] : i > n[1]; i += n[2]) {
        if (json_array_size(out->json) == MAX_RANGE)
            return FKV_TPL_REFUSE(r, "range: expected at most %d numbers", MAX_RANGE);
        if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP)) return FKV_FAILED;
        if (json_array_append_new(out->json, json_integer(i)))
            return FKV_TPL_REFUSE(r, "out of memory");
    }
    return FKV_OK;
}

/* The date at midnight, in the words of the locale C. */
static int call_strftime(struct fkv_tpl_run *r, struct fkv_tpl_arguments *a,
                         struct fkv_tpl_value *out) {
    struct fkv_tpl_span format;
    struct tm date = {0};
    char text[256];
    if (fkv_tpl_bind(r, "strftime_now", a, "format", 1) ||
        fkv_tpl_want_string(r, "strftime_now", &a->at[0], &format))
        return FKV_FAILED;
    if (sscanf(r->date, "%4d-%2d-%2d", &date.tm_year, &date.tm_mon, &date.tm_mday) != 3)
        return FKV_TPL_REFUSE(r, "strftime_now: expected a date, found %s", r->date);
    date.tm_year -= 1900;
    date.tm_mon--;
    timegm(&date); /* the day of the week and of the year */
    const size_t bytes = strftime(text, sizeof text, format.at, &date);
    if (!bytes && format.bytes) return FKV_TPL_REFUSE(r, "strftime_now: expected a shorter format");
    return fkv_tpl_string_value(r, text, bytes, out);
}

static const struct {
    const char *name;
    int (*call)(struct fkv_tpl_run *r, struct fkv_tpl_arguments *a, struct fkv_tpl_value *out);
} functions[] = {{"raise_exception", call_raise},
                 {"namespace", call_namespace},
                 {"range", call_range},
                 {"strftime_now", call_strftime}};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

bool fkv_tpl_is_function(const struct fkv_tpl_run *r, const char *name) {
    for (int i = 0; i < FUNCTIONS; i++)
        if (!strcmp(functions[i].name, name)) return r->date || functions[i].call != call_strftime;
    return false;
}

static int call_function(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_arguments *a,
                         struct fkv_tpl_value *out) {
    for (int i = 0; i < FUNCTIONS; i++)
        if (!strcmp(functions[i].name, name) && fkv_tpl_is_function(r, name))
            return functions[i].call(r, a, out);
    return FKV_TPL_REFUSE(r,
                          "expected raise_exception, namespace, range%s or a macro, found %.80s%s",
                          r->date ? ", strftime_now" : "", name,
                          strcmp(name, "strftime_now") ? "" : " (it needs a date)");
}

/* ---- methods ---- */

static int call_strip(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span set = {NULL, 0};
    if (fkv_tpl_bind(r, name, a, "chars", 0) ||
        (a->count && !json_is_null(a->at[0].json) && fkv_tpl_want_string(r, name, &a->at[0], &set)))
        return FKV_FAILED;
    s = fkv_tpl_strip(s, set, *name != 'r', *name != 'l');
    return fkv_tpl_string_value(r, s.at, s.bytes, out);
}

static bool has_end(const char *name, struct fkv_tpl_span s, struct fkv_tpl_span part) {
    const size_t at = *name == 's' ? 0 : s.bytes - part.bytes;
    return part.bytes <= s.bytes && !memcmp(s.at + at, part.at, part.bytes);
}

/* startswith and endswith, of a string or of one in a list. */
static int call_ends(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                     struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span part;
    bool holds = false;
    if (fkv_tpl_bind(r, name, a, "part", 1)) return FKV_FAILED;
    const json_t *list = json_is_array(a->at[0].json) ? a->at[0].json : NULL;
    for (size_t i = 0; i < (list ? json_array_size(list) : 1); i++) {
        const struct fkv_tpl_value one = {FKV_TPL_PLAIN,
                                          list ? json_array_get(list, i) : a->at[0].json, NULL};
        if (fkv_tpl_want_string(r, name, &one, &part)) return FKV_FAILED;
        holds |= has_end(name, s, part);
    }
    return fkv_tpl_plain(r, json_boolean(holds), out);
}

static int call_split(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span separator = {NULL, 0};
    int64_t most = -1;
    if (fkv_tpl_bind(r, name, a, "sep maxsplit", 0) ||
        (a->at[0].json && !json_is_null(a->at[0].json) &&
         fkv_tpl_want_string(r, name, &a->at[0], &separator)) ||
        (a->count > 1 && fkv_tpl_want_integer(r, name, &a->at[1], &most)))
        return FKV_FAILED;
    return fkv_tpl_split(r, s, separator, most, out);
}

static int call_replace(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span from, to;
    if (fkv_tpl_bind(r, name, a, "old new", 2) || fkv_tpl_want_string(r, name, &a->at[0], &from) ||
        fkv_tpl_want_string(r, name, &a->at[1], &to))
        return FKV_FAILED;
    return fkv_tpl_replace(r, s, from, to, out);
}

static int call_case(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                     struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const enum fkv_tpl_case how = *name == 'u'   ? FKV_TPL_UPPER
                                  : *name == 'l' ? FKV_TPL_LOWER
                                  : *name == 't' ? FKV_TPL_TITLE
                                                 : FKV_TPL_CAPITALIZE;
    return fkv_tpl_bind(r, name, a, "", 0) ? FKV_FAILED : fkv_tpl_change_case(r, s, how, out);
}

static int call_join(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                     struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    json_t *list;
    if (fkv_tpl_bind(r, name, a, "list", 1) || fkv_tpl_items(r, &a->at[0], &list))
        return FKV_FAILED;
    const int status = fkv_tpl_join(r, list, s, out);
    json_decref(list);
    return status;
}

static const struct {
    const char *name;
    int (*call)(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                struct fkv_tpl_arguments *a, struct fkv_tpl_value *out);
} string_methods[] = {{"strip", call_strip},     {"lstrip", call_strip},    {"rstrip", call_strip},
                      {"startswith", call_ends}, {"endswith", call_ends},   {"split", call_split},
                      {"replace", call_replace}, {"upper", call_case},      {"lower", call_case},
                      {"title", call_case},      {"capitalize", call_case}, {"join", call_join}};
enum { STRING_METHODS = sizeof string_methods / sizeof *string_methods };

static int call_get(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                    struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span key;
    if (fkv_tpl_bind(r, "get", a, "key default", 1) ||
        fkv_tpl_want_string(r, "get", &a->at[0], &key))
        return FKV_FAILED;
    json_t *inner = json_object_get(v->json, key.at);
    if (inner) return fkv_tpl_plain(r, json_incref(inner), out);
    if (a->count < 2) return fkv_tpl_plain(r, json_null(), out);
    *out = fkv_tpl_share(&a->at[1]);
    return FKV_OK;
}

/* keys, values and items. */
static int call_parts(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    if (fkv_tpl_bind(r, name, a, "", 0)) return FKV_FAILED;
    if (*name == 'i') return fkv_tpl_filter(r, name, v, a, out);
    if (*name == 'k') return fkv_tpl_filter(r, "list", v, a, out);
    const char *key;
    json_t *inner;
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    json_object_foreach(v->json, key, inner) {
        if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP)) return FKV_FAILED;
        if (json_array_append(out->json, inner)) return FKV_TPL_REFUSE(r, "out of memory");
    }
    return FKV_OK;
}

static int call_method(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    for (int i = 0; i < STRING_METHODS && fkv_tpl_is_string(v); i++)
        if (!strcmp(string_methods[i].name, name))
            return string_methods[i].call(r, name, fkv_tpl_span(v->json), a, out);
    if (v->kind == FKV_TPL_PLAIN && json_is_object(v->json)) {
        if (!strcmp(name, "get")) return call_get(r, v, a, out);
        if (!strcmp(name, "items") || !strcmp(name, "keys") || !strcmp(name, "values"))
            return call_parts(r, name, v, a, out);
    }
    return FKV_TPL_REFUSE(r, "%s has no method %.80s that is known", fkv_tpl_type(v), name);
}

/* ---- calls ---- */

static int call_named(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_value callee;
    if (fkv_tpl_evaluate(r, node->left, &callee)) return FKV_FAILED;
    const struct fkv_tpl_node *macro = callee.node;
    const bool variable = callee.kind == FKV_TPL_PLAIN || callee.kind == FKV_TPL_NAMESPACE;
    fkv_tpl_value_free(&callee);
    r->line = node->line;
    if (variable)
        return FKV_TPL_REFUSE(r, "expected a function, found %.80s, which is none",
                              node->left->name);
    return macro ? fkv_tpl_call_macro(r, macro, a, out)
                 : call_function(r, node->left->name, a, out);
}

int fkv_tpl_call(struct fkv_tpl_run *r, const struct fkv_tpl_node *node,
                 struct fkv_tpl_value *out) {
    const struct fkv_tpl_node *callee = node->left;
    struct fkv_tpl_arguments arguments;
    struct fkv_tpl_value v = {0};
    int status = fkv_tpl_evaluate_arguments(r, node->items, &arguments);
    if (!status && callee->kind == FKV_TPL_NAME) {
        status = call_named(r, node, &arguments, out);
    } else if (!status && callee->kind == FKV_TPL_ATTRIBUTE) {
        status = fkv_tpl_evaluate(r, callee->left, &v);
        r->line = node->line;
        if (!status) status = call_method(r, callee->name, &v, &arguments, out);
    } else if (!status) {
        status = FKV_TPL_REFUSE(r, "expected the name of a function or a method before (");
    }
    fkv_tpl_value_free(&v);
    fkv_tpl_arguments_free(&arguments);
    return status;
}
