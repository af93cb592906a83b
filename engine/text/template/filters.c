/* Filters: `value|NAME(...)`.
 *
 *   of texts       trim, upper, lower, capitalize, replace, string, int, safe
 *   of lists       length, count, first, last, join, list, items, dictsort, map, select, reject,
 *                  selectattr, rejectattr
 *   of anything    default, d, tojson */
#include <stdlib.h>

#include "engine/text/template/parts.h"

/* The value as it would be printed; its span lives as long as *text. */
static int text_of(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *text,
                   struct fkv_tpl_span *span) {
    struct fkv_tpl_text printed = {0};
    *text = (struct fkv_tpl_value){0};
    if (fkv_tpl_is_string(v)) {
        *text = fkv_tpl_share(v);
    } else {
        const int status = fkv_tpl_print(r, v, &printed);
        if (fkv_tpl_take_text(r, &printed, text) || status) return FKV_FAILED;
    }
    *span = fkv_tpl_span(text->json);
    return FKV_OK;
}

/* ---- of texts ---- */

/* A filter of a value as text; arguments are bound. */
typedef int text_filter(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out);

static int filter_trim(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span set = {NULL, 0};
    if (a->count && fkv_tpl_want_string(r, name, &a->at[0], &set)) return FKV_FAILED;
    s = fkv_tpl_strip(s, set, true, true);
    return fkv_tpl_string_value(r, s.at, s.bytes, out);
}

static int filter_case(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    (void)a;
    return fkv_tpl_change_case(r, s,
                               *name == 'u'   ? FKV_TPL_UPPER
                               : *name == 'l' ? FKV_TPL_LOWER
                                              : FKV_TPL_CAPITALIZE,
                               out);
}

static int filter_replace(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                          struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span from, to;
    if (fkv_tpl_want_string(r, name, &a->at[0], &from) ||
        fkv_tpl_want_string(r, name, &a->at[1], &to))
        return FKV_FAILED;
    return fkv_tpl_replace(r, s, from, to, out);
}

static int filter_string(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    (void)name, (void)a;
    return fkv_tpl_string_value(r, s.at, s.bytes, out);
}

/* The whole number that a text spells, else 0 or the argument. */
static int filter_int(struct fkv_tpl_run *r, const char *name, struct fkv_tpl_span s,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    char *end;
    int64_t other = 0;
    if (a->count && fkv_tpl_want_integer(r, name, &a->at[0], &other)) return FKV_FAILED;
    const long long value = strtoll(s.at, &end, 10);
    return fkv_tpl_plain(r, json_integer(s.bytes && !*end ? value : other), out);
}

static const struct {
    const char *name, *arguments;
    int required;
    text_filter *filter;
} text_filters[] = {
    {"trim", "chars", 0, filter_trim},
    {"upper", "", 0, filter_case},
    {"lower", "", 0, filter_case},
    {"capitalize", "", 0, filter_case},
    {"replace", "old new", 2, filter_replace},
    {"string", "", 0, filter_string},
    {"safe", "", 0, filter_string},
    {"int", "default", 0, filter_int},
};
enum { TEXT_FILTERS = sizeof text_filters / sizeof *text_filters };

/* ---- of lists ---- */

/* A filter of the list of what is in a value; arguments are bound. */
typedef int list_filter(struct fkv_tpl_run *r, const char *name, json_t *list,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out);

/* first and last. */
static int filter_end(struct fkv_tpl_run *r, const char *name, json_t *list,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const size_t count = json_array_size(list);
    (void)a;
    if (!count) return FKV_OK;
    return fkv_tpl_plain(r, json_incref(json_array_get(list, *name == 'f' ? 0 : count - 1)), out);
}

static int filter_join(struct fkv_tpl_run *r, const char *name, json_t *list,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span separator = {"", 0};
    if (a->count && fkv_tpl_want_string(r, name, &a->at[0], &separator)) return FKV_FAILED;
    return fkv_tpl_join(r, list, separator, out);
}

static int filter_list(struct fkv_tpl_run *r, const char *name, json_t *list,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    (void)name, (void)a;
    return fkv_tpl_plain(r, json_incref(list), out);
}

/* The attribute of an item, where `name` is given, else the item. */
static int part_of(struct fkv_tpl_run *r, json_t *item, const struct fkv_tpl_span *name,
                   struct fkv_tpl_value *out) {
    const struct fkv_tpl_value v = {FKV_TPL_PLAIN, json_incref(item), NULL};
    if (!name) {
        *out = v;
        return FKV_OK;
    }
    const int status = fkv_tpl_attribute(r, &v, name->at, out);
    json_decref(item);
    return status;
}

static int append(struct fkv_tpl_run *r, json_t *list, const struct fkv_tpl_value *v) {
    json_t *part = fkv_tpl_part(r, v);
    if (!part) return FKV_FAILED;
    return json_array_append(list, part) ? FKV_TPL_REFUSE(r, "out of memory") : FKV_OK;
}

/* Moves the arguments from `first` on to the front of others. */
static struct fkv_tpl_arguments rest_of(struct fkv_tpl_arguments *a, int first) {
    struct fkv_tpl_arguments rest = {.count = a->count > first ? a->count - first : 0};
    for (int i = 0; i < rest.count; i++) {
        rest.at[i] = fkv_tpl_share(&a->at[first + i]);
        rest.names[i] = a->names[first + i];
    }
    return rest;
}

/* map(attribute="x"), map("filter", ...). */
static int map_item(struct fkv_tpl_run *r, json_t *item, struct fkv_tpl_arguments *a,
                    json_t *list) {
    struct fkv_tpl_span name;
    struct fkv_tpl_value v = {FKV_TPL_PLAIN, item, NULL}, made = {0};
    if (!a->count || fkv_tpl_want_string(r, "map", &a->at[0], &name)) return FKV_FAILED;
    int status;
    if (a->names[0] && !strcmp(a->names[0], "attribute")) {
        status = part_of(r, item, &name, &made);
    } else {
        struct fkv_tpl_arguments rest = rest_of(a, 1);
        status = fkv_tpl_filter(r, name.at, &v, &rest, &made);
        fkv_tpl_arguments_free(&rest);
    }
    if (!status) status = append(r, list, &made);
    fkv_tpl_value_free(&made);
    return status;
}

/* select, reject (test, ...), selectattr, rejectattr (attribute, test, ...). */
static int select_item(struct fkv_tpl_run *r, const char *name, json_t *item,
                       struct fkv_tpl_arguments *a, json_t *list) {
    const bool by_attribute = strlen(name) > 6, reject = *name == 'r';
    struct fkv_tpl_span attribute, test = {NULL, 0};
    struct fkv_tpl_value part = {0};
    bool holds;
    if (by_attribute && (!a->count || fkv_tpl_want_string(r, name, &a->at[0], &attribute)))
        return FKV_FAILED;
    if (a->count > by_attribute && fkv_tpl_want_string(r, name, &a->at[by_attribute], &test))
        return FKV_FAILED;
    if (part_of(r, item, by_attribute ? &attribute : NULL, &part)) return FKV_FAILED;
    int status = FKV_OK;
    holds = fkv_tpl_truth(&part);
    if (test.at) {
        struct fkv_tpl_arguments rest = rest_of(a, by_attribute + 1);
        status = fkv_tpl_test(r, test.at, &part, &rest, &holds);
        fkv_tpl_arguments_free(&rest);
    }
    fkv_tpl_value_free(&part);
    if (status || holds == reject) return status;
    return append(r, list, &(struct fkv_tpl_value){FKV_TPL_PLAIN, item, NULL});
}

static int filter_each(struct fkv_tpl_run *r, const char *name, json_t *list,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const bool map = *name == 'm';
    if (map && !a->count) return FKV_TPL_REFUSE(r, "map: expected a filter or an attribute");
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *item = json_array_get(list, i);
        if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP)) return FKV_FAILED;
        if (map ? map_item(r, item, a, out->json) : select_item(r, name, item, a, out->json))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static const struct {
    const char *name, *arguments; /* NULL: the filter's own */
    list_filter *filter;
} list_filters[] = {
    {"first", "", filter_end},          {"last", "", filter_end},
    {"join", "separator", filter_join}, {"list", "", filter_list},
    {"map", NULL, filter_each},         {"select", NULL, filter_each},
    {"reject", NULL, filter_each},      {"selectattr", NULL, filter_each},
    {"rejectattr", NULL, filter_each},
};
enum { LIST_FILTERS = sizeof list_filters / sizeof *list_filters };

/* ---- of anything ---- */

static int filter_length(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    int64_t length;
    if (fkv_tpl_bind(r, "length", a, "", 0) || fkv_tpl_length(r, v, &length)) return FKV_FAILED;
    return fkv_tpl_plain(r, json_integer(length), out);
}

static int filter_default(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                          struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    if (fkv_tpl_bind(r, "default", a, "default_value boolean", 0)) return FKV_FAILED;
    const bool take = v->kind == FKV_TPL_UNDEFINED ||
                      (a->count > 1 && fkv_tpl_truth(&a->at[1]) && !fkv_tpl_truth(v));
    if (take && !a->count) return fkv_tpl_plain(r, json_string(""), out);
    *out = fkv_tpl_share(take ? &a->at[0] : v);
    return FKV_OK;
}

static int filter_tojson(struct fkv_tpl_run *r, const struct fkv_tpl_value *v,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_text text = {0};
    int64_t indent = -1;
    if (fkv_tpl_bind(r, "tojson", a, "indent", 0) ||
        (a->count && !json_is_null(a->at[0].json) &&
         fkv_tpl_want_integer(r, "tojson", &a->at[0], &indent)))
        return FKV_FAILED;
    if (v->kind != FKV_TPL_PLAIN)
        return FKV_TPL_REFUSE(r, "tojson: expected a value, found %s", fkv_tpl_type(v));
    if (indent > 16) return FKV_TPL_REFUSE(r, "tojson: expected an indent of 16 at most");
    const int status = fkv_tpl_json(r, v->json, (int)indent, 0, &text);
    return fkv_tpl_take_text(r, &text, out) || status ? FKV_FAILED : FKV_OK;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(json_string_value(json_array_get(*(json_t *const *)a, 0)),
                  json_string_value(json_array_get(*(json_t *const *)b, 0)));
}

/* Pairs by key. dictsort does not look at upper and lower case: keys with both are refused. */
static int sort_pairs(struct fkv_tpl_run *r, json_t *list) {
    const size_t count = json_array_size(list);
    json_t **pairs = malloc((count + 1) * sizeof *pairs);
    if (!pairs) return FKV_TPL_REFUSE(r, "out of memory");
    int status = FKV_OK;
    for (size_t i = 0; i < count; i++) {
        pairs[i] = json_incref(json_array_get(list, i));
        for (const char *key = json_string_value(json_array_get(pairs[i], 0)); *key; key++)
            if (*key >= 'A' && *key <= 'Z')
                status = FKV_TPL_REFUSE(r, "dictsort: expected keys in lower case");
    }
    qsort(pairs, count, sizeof *pairs, compare_keys);
    for (size_t i = 0; i < count; i++)
        if (json_array_set_new(list, i, pairs[i])) status = FKV_TPL_REFUSE(r, "out of memory");
    free(pairs);
    return status;
}

/* items and dictsort: a mapping -> pairs. */
static int filter_items(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const char *key;
    json_t *inner;
    if (fkv_tpl_bind(r, name, a, "", 0)) return FKV_FAILED;
    if (v->kind != FKV_TPL_UNDEFINED && !(v->kind == FKV_TPL_PLAIN && json_is_object(v->json)))
        return FKV_TPL_REFUSE(r, "%s: expected a mapping, found %s", name, fkv_tpl_type(v));
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    json_object_foreach(v->json, key, inner) {
        if (fkv_tpl_spend(r, 2 * FKV_TEMPLATE_STEP)) return FKV_FAILED;
        if (json_array_append_new(out->json, json_pack("[sO]", key, inner)))
            return FKV_TPL_REFUSE(r, "out of memory");
    }
    return *name == 'd' ? sort_pairs(r, out->json) : FKV_OK;
}

static int apply_list_filter(struct fkv_tpl_run *r, int i, const struct fkv_tpl_value *v,
                             struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    json_t *list;
    const char *name = list_filters[i].name, *arguments = list_filters[i].arguments;
    if (arguments && fkv_tpl_bind(r, name, a, arguments, 0)) return FKV_FAILED;
    if (fkv_tpl_items(r, v, &list)) return FKV_FAILED;
    const int status = list_filters[i].filter(r, name, list, a, out);
    json_decref(list);
    return status;
}

static int apply_text_filter(struct fkv_tpl_run *r, int i, const struct fkv_tpl_value *v,
                             struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_value text;
    struct fkv_tpl_span span;
    const char *name = text_filters[i].name;
    if (fkv_tpl_bind(r, name, a, text_filters[i].arguments, text_filters[i].required))
        return FKV_FAILED;
    int status = text_of(r, v, &text, &span);
    if (!status) status = text_filters[i].filter(r, name, span, a, out);
    fkv_tpl_value_free(&text);
    return status;
}

int fkv_tpl_filter(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                   struct fkv_tpl_arguments *arguments, struct fkv_tpl_value *out) {
    *out = (struct fkv_tpl_value){0};
    for (int i = 0; i < TEXT_FILTERS; i++)
        if (!strcmp(text_filters[i].name, name)) return apply_text_filter(r, i, v, arguments, out);
    for (int i = 0; i < LIST_FILTERS; i++)
        if (!strcmp(list_filters[i].name, name)) return apply_list_filter(r, i, v, arguments, out);
    if (!strcmp(name, "length") || !strcmp(name, "count"))
        return filter_length(r, v, arguments, out);
    if (!strcmp(name, "default") || !strcmp(name, "d")) return filter_default(r, v, arguments, out);
    if (!strcmp(name, "tojson")) return filter_tojson(r, v, arguments, out);
    if (!strcmp(name, "items") || !strcmp(name, "dictsort"))
        return filter_items(r, name, v, arguments, out);
    return FKV_TPL_REFUSE(r, "expected a filter that is known behind |, found %.80s", name);
}
