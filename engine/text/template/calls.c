/* Calls: what a template calls by name, which `rows` lists, and macros of the template. Methods are
 * those of Python. */
#include <stdio.h>
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

static int call_raise(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span message;
    (void)v, (void)out;
    if (fkv_tpl_want_string(r, name, &a->at[0], &message)) return FKV_FAILED;
    return FKV_TPL_REFUSE(r, "the template refuses the messages: %.*s",
                          (int)(message.bytes < 400 ? message.bytes : 400), message.at);
}

static int call_namespace(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                          struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    (void)name, (void)v;
    if (fkv_tpl_plain(r, json_object(), out)) return FKV_FAILED;
    out->kind = FKV_TPL_NAMESPACE;
    for (int i = 0; i < a->count; i++) {
        if (!a->names[i]) return FKV_TPL_REFUSE(r, "namespace: expected arguments by name");
        if (fkv_tpl_put_part(r, out->json, a->names[i], &a->at[i])) return FKV_FAILED;
    }
    return FKV_OK;
}

static int call_range(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    int64_t n[3] = {0, 0, 1};
    (void)v;
    for (int i = 0; i < a->count; i++)
        if (fkv_tpl_want_integer(r, name, &a->at[i], &n[a->count == 1 ? 1 : i])) return FKV_FAILED;
    for (int i = 0; i < 3; i++)
        if (n[i] > INT32_MAX || n[i] < INT32_MIN || !n[2])
            return FKV_TPL_REFUSE(r, "range: expected other numbers");
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    for (int64_t i = n[0]; n[2] > 0 ? i < n[1] : i > n[1]; i += n[2]) {
        if (json_array_size(out->json) == MAX_RANGE)
            return FKV_TPL_REFUSE(r, "range: expected at most %d numbers", MAX_RANGE);
        if (fkv_tpl_append(r, out->json, json_integer(i))) return FKV_FAILED;
    }
    return FKV_OK;
}

/* The date at midnight, in the words of the locale C. */
static int call_strftime(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span format;
    struct tm date = {0};
    char text[256];
    (void)v;
    if (fkv_tpl_want_string(r, name, &a->at[0], &format)) return FKV_FAILED;
    if (sscanf(r->date, "%4d-%2d-%2d", &date.tm_year, &date.tm_mon, &date.tm_mday) != 3)
        return FKV_TPL_REFUSE(r, "strftime_now: expected a date, found %s", r->date);
    date.tm_year -= 1900;
    date.tm_mon--;
    timegm(&date); /* the day of the week and of the year */
    const size_t bytes = strftime(text, sizeof text, format.at, &date);
    if (!bytes && format.bytes) return FKV_TPL_REFUSE(r, "strftime_now: expected a shorter format");
    return fkv_tpl_string_value(r, text, bytes, out);
}

/* ---- methods of mappings ---- */

static int call_get(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                    struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span key;
    if (fkv_tpl_want_string(r, name, &a->at[0], &key)) return FKV_FAILED;
    json_t *inner = json_object_get(v->json, key.at);
    if (inner) return fkv_tpl_plain(r, json_incref(inner), out);
    if (a->count < 2) return fkv_tpl_plain(r, json_null(), out);
    *out = fkv_tpl_share(&a->at[1]);
    return FKV_OK;
}

/* ---- the names ---- */

/* What stands before the | or the dot -> what is called for it: itself, its text (that lives as
 * long), the list of what is in it. */
typedef int take(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *out);

static int itself(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *out) {
    (void)r;
    *out = fkv_tpl_share(v);
    return FKV_OK;
}

static int as_text(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                   struct fkv_tpl_value *out) {
    struct fkv_bytes text = {0};
    if (fkv_tpl_is_string(v)) return itself(r, v, out);
    return fkv_tpl_take_text(r, fkv_tpl_print(r, v, &text), &text, out);
}

enum { FUNCTION = 1, FILTER = 2, OF_STRING = 4, OF_MAPPING = 8 };

static const struct row {
    const char *name;
    int kinds; /* as what it may be called: the last two are methods */
    take *take;
    const char *arguments; /* NULL: any */
    int required;
    fkv_tpl_callee *call;
} rows[] = {
    {"raise_exception", FUNCTION, itself, "message", 1, call_raise},
    {"namespace", FUNCTION, itself, NULL, 0, call_namespace},
    {"range", FUNCTION, itself, "start stop step", 1, call_range},
    {"strftime_now", FUNCTION, itself, "format", 1, call_strftime},
    {"strip", OF_STRING, itself, "chars", 0, fkv_tpl_call_strip},
    {"lstrip", OF_STRING, itself, "chars", 0, fkv_tpl_call_strip},
    {"rstrip", OF_STRING, itself, "chars", 0, fkv_tpl_call_strip},
    {"trim", FILTER, as_text, "chars", 0, fkv_tpl_call_strip},
    {"startswith", OF_STRING, itself, "part", 1, fkv_tpl_call_ends},
    {"endswith", OF_STRING, itself, "part", 1, fkv_tpl_call_ends},
    {"split", OF_STRING, itself, "sep maxsplit", 0, fkv_tpl_call_split},
    {"replace", OF_STRING | FILTER, as_text, "old new", 2, fkv_tpl_call_replace},
    {"upper", OF_STRING | FILTER, as_text, "", 0, fkv_tpl_call_case},
    {"lower", OF_STRING | FILTER, as_text, "", 0, fkv_tpl_call_case},
    {"capitalize", OF_STRING | FILTER, as_text, "", 0, fkv_tpl_call_case},
    {"title", OF_STRING, itself, "", 0, fkv_tpl_call_case},
    {"join", OF_STRING, itself, "list", 1, fkv_tpl_call_join_list},
    {"string", FILTER, as_text, "", 0, fkv_tpl_call_same},
    {"safe", FILTER, as_text, "", 0, fkv_tpl_call_same},
    {"int", FILTER, as_text, "default", 0, fkv_tpl_call_int},
    {"first", FILTER, fkv_tpl_items, "", 0, fkv_tpl_call_end},
    {"last", FILTER, fkv_tpl_items, "", 0, fkv_tpl_call_end},
    {"join", FILTER, fkv_tpl_items, "separator", 0, fkv_tpl_call_join},
    {"list", FILTER, fkv_tpl_items, "", 0, fkv_tpl_call_same},
    {"map", FILTER, fkv_tpl_items, NULL, 0, fkv_tpl_call_each},
    {"select", FILTER, fkv_tpl_items, NULL, 0, fkv_tpl_call_each},
    {"reject", FILTER, fkv_tpl_items, NULL, 0, fkv_tpl_call_each},
    {"selectattr", FILTER, fkv_tpl_items, NULL, 0, fkv_tpl_call_each},
    {"rejectattr", FILTER, fkv_tpl_items, NULL, 0, fkv_tpl_call_each},
    {"length", FILTER, itself, "", 0, fkv_tpl_call_length},
    {"default", FILTER, itself, "default_value boolean", 0, fkv_tpl_call_default},
    {"tojson", FILTER, itself, "indent", 0, fkv_tpl_call_tojson},
    {"dictsort", FILTER, itself, "", 0, fkv_tpl_call_items},
    {"items", OF_MAPPING | FILTER, itself, "", 0, fkv_tpl_call_items},
    {"values", OF_MAPPING, itself, "", 0, fkv_tpl_call_items},
    {"keys", OF_MAPPING, fkv_tpl_items, "", 0, fkv_tpl_call_same},
    {"get", OF_MAPPING, itself, "key default", 1, call_get},
};
enum { ROWS = sizeof rows / sizeof *rows };

static const struct row *find(int kind, const char *name) {
    for (int i = 0; i < ROWS; i++)
        if (rows[i].kinds & kind && !strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

bool fkv_tpl_is_function(const struct fkv_tpl_run *r, const char *name) {
    const struct row *row = find(FUNCTION, name);
    return row && (r->date || row->call != call_strftime);
}

static int call_row(struct fkv_tpl_run *r, const struct row *row, const struct fkv_tpl_value *v,
                    struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_value taken = {0};
    *out = (struct fkv_tpl_value){0};
    if (row->arguments && fkv_tpl_bind(r, row->name, a, row->arguments, row->required))
        return FKV_FAILED;
    int status = row->take(r, v, &taken);
    if (!status) status = row->call(r, row->name, &taken, a, out);
    fkv_tpl_value_free(&taken);
    return status;
}

int fkv_tpl_filter(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                   struct fkv_tpl_arguments *arguments, struct fkv_tpl_value *out) {
    if (!strcmp(name, "count")) name = "length";
    if (!strcmp(name, "d")) name = "default";
    const struct row *row = find(FILTER, name);
    if (row) return call_row(r, row, v, arguments, out);
    return FKV_TPL_REFUSE(r, "expected a filter that is known behind |, found %.80s", name);
}

static int call_method(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const bool mapping = v->kind == FKV_TPL_PLAIN && json_is_object(v->json);
    const struct row *row = find(fkv_tpl_is_string(v) ? OF_STRING : mapping ? OF_MAPPING : 0, name);
    if (row) return call_row(r, row, v, a, out);
    return FKV_TPL_REFUSE(r, "%s has no method %.80s that is known", fkv_tpl_type(v), name);
}

static int call_function(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_arguments *a,
                         struct fkv_tpl_value *out) {
    const struct fkv_tpl_value nothing = {0};
    if (fkv_tpl_is_function(r, name)) return call_row(r, find(FUNCTION, name), &nothing, a, out);
    return FKV_TPL_REFUSE(r,
                          "expected raise_exception, namespace, range%s or a macro, found %.80s%s",
                          r->date ? ", strftime_now" : "", name,
                          strcmp(name, "strftime_now") ? "" : " (it needs a date)");
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
