/* What filters do: `value|NAME(...)`; those that are also methods of strings stand in strings.c. */
#include <stdlib.h>

#include "engine/text/template/parts.h"

/* string, safe and list: what is taken is the result. */
int fkv_tpl_call_same(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    (void)r, (void)name, (void)a;
    *out = fkv_tpl_share(v);
    return FKV_OK;
}

/* The whole number that a text spells, else 0 or the argument. */
int fkv_tpl_call_int(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                     struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const char *text = json_string_value(v->json);
    char *end;
    int64_t other = 0;
    if (a->count && fkv_tpl_want_integer(r, name, &a->at[0], &other)) return FKV_FAILED;
    const long long value = strtoll(text, &end, 10);
    return fkv_tpl_plain(r, json_integer(*text && !*end ? value : other), out);
}

/* ---- of lists ---- */

/* first and last. */
int fkv_tpl_call_end(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                     struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const size_t count = json_array_size(v->json);
    (void)a;
    if (!count) return FKV_OK;
    json_t *item = json_array_get(v->json, *name == 'f' ? 0 : count - 1);
    return fkv_tpl_plain(r, json_incref(item), out);
}

int fkv_tpl_call_join(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span separator = {"", 0};
    if (a->count && fkv_tpl_want_string(r, name, &a->at[0], &separator)) return FKV_FAILED;
    return fkv_tpl_join(r, v->json, separator, out);
}

/* The attribute of an item, where `name` is given, else the item. */
static int part_of(struct fkv_tpl_run *r, const struct fkv_tpl_value *item,
                   const struct fkv_tpl_span *name, struct fkv_tpl_value *out) {
    if (name) return fkv_tpl_attribute(r, item, name->at, out);
    *out = fkv_tpl_share(item);
    return FKV_OK;
}

/* Shares the arguments from `first` on, put to the front of others. */
static struct fkv_tpl_arguments rest_of(struct fkv_tpl_arguments *a, int first) {
    struct fkv_tpl_arguments rest = {.count = a->count > first ? a->count - first : 0};
    for (int i = 0; i < rest.count; i++) {
        rest.at[i] = fkv_tpl_share(&a->at[first + i]);
        rest.names[i] = a->names[first + i];
    }
    return rest;
}

/* map(attribute="x"), map("filter", ...). */
static int map_item(struct fkv_tpl_run *r, const struct fkv_tpl_value *item,
                    struct fkv_tpl_arguments *a, json_t *list) {
    struct fkv_tpl_span name;
    struct fkv_tpl_value made = {0};
    if (!a->count || fkv_tpl_want_string(r, "map", &a->at[0], &name)) return FKV_FAILED;
    int status;
    if (a->names[0] && !strcmp(a->names[0], "attribute")) {
        status = part_of(r, item, &name, &made);
    } else {
        struct fkv_tpl_arguments rest = rest_of(a, 1);
        status = fkv_tpl_filter(r, name.at, item, &rest, &made);
        fkv_tpl_arguments_free(&rest);
    }
    if (!status) status = fkv_tpl_put_part(r, list, NULL, &made);
    fkv_tpl_value_free(&made);
    return status;
}

/* select, reject (test, ...), selectattr, rejectattr (attribute, test, ...). */
static int select_item(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *item,
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
    return status || holds == reject ? status : fkv_tpl_put_part(r, list, NULL, item);
}

int fkv_tpl_call_each(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const bool map = *name == 'm';
    if (map && !a->count) return FKV_TPL_REFUSE(r, "map: expected a filter or an attribute");
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    for (size_t i = 0; i < json_array_size(v->json); i++) {
        const struct fkv_tpl_value item = {FKV_TPL_PLAIN, json_array_get(v->json, i), NULL};
        if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP)) return FKV_FAILED;
        if (map ? map_item(r, &item, a, out->json) : select_item(r, name, &item, a, out->json))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* ---- of anything ---- */

int fkv_tpl_call_length(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    int64_t length;
    (void)name, (void)a;
    if (fkv_tpl_length(r, v, &length)) return FKV_FAILED;
    return fkv_tpl_plain(r, json_integer(length), out);
}

int fkv_tpl_call_default(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const bool take = v->kind == FKV_TPL_UNDEFINED ||
                      (a->count > 1 && fkv_tpl_truth(&a->at[1]) && !fkv_tpl_truth(v));
    (void)name;
    if (take && !a->count) return fkv_tpl_plain(r, json_string(""), out);
    *out = fkv_tpl_share(take ? &a->at[0] : v);
    return FKV_OK;
}

int fkv_tpl_call_tojson(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                        struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_bytes text = {0};
    int64_t indent = -1;
    if (a->count && !json_is_null(a->at[0].json) &&
        fkv_tpl_want_integer(r, name, &a->at[0], &indent))
        return FKV_FAILED;
    if (v->kind != FKV_TPL_PLAIN)
        return FKV_TPL_REFUSE(r, "tojson: expected a value, found %s", fkv_tpl_type(v));
    if (indent > 16) return FKV_TPL_REFUSE(r, "tojson: expected an indent of 16 at most");
    return fkv_tpl_take_text(r, fkv_tpl_json(r, v->json, (int)indent, &text), &text, out);
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

/* items and dictsort: a mapping -> pairs; values: a mapping -> what it holds. */
int fkv_tpl_call_items(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const char *key;
    json_t *inner;
    (void)a;
    if (v->kind != FKV_TPL_UNDEFINED && !(v->kind == FKV_TPL_PLAIN && json_is_object(v->json)))
        return FKV_TPL_REFUSE(r, "%s: expected a mapping, found %s", name, fkv_tpl_type(v));
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    json_object_foreach(v->json, key, inner) {
        json_t *item = *name == 'v' ? json_incref(inner) : json_pack("[sO]", key, inner);
        if (fkv_tpl_append(r, out->json, item)) return FKV_FAILED;
    }
    return *name == 'd' ? sort_pairs(r, out->json) : FKV_OK;
}
