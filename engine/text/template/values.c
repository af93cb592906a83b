/* Values: what Python makes of them where a template asks. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/text/template/parts.h"

enum { MAX_NESTED = 16, MAX_JSON = 32 };

void fkv_tpl_value_free(struct fkv_tpl_value *v) {
    json_decref(v->json);
    *v = (struct fkv_tpl_value){0};
}

struct fkv_tpl_value fkv_tpl_share(const struct fkv_tpl_value *v) {
    json_incref(v->json);
    return *v;
}

int fkv_tpl_plain(struct fkv_tpl_run *r, json_t *json, struct fkv_tpl_value *out) {
    *out = (struct fkv_tpl_value){json ? FKV_TPL_PLAIN : FKV_TPL_UNDEFINED, json, NULL};
    return json ? FKV_OK : FKV_TPL_REFUSE(r, "out of memory");
}

int fkv_tpl_string_value(struct fkv_tpl_run *r, const char *at, size_t bytes,
                         struct fkv_tpl_value *out) {
    if (fkv_tpl_spend(r, bytes)) return FKV_FAILED;
    return fkv_tpl_plain(r, json_stringn(at, bytes), out);
}

int fkv_tpl_take_text(struct fkv_tpl_run *r, int status, struct fkv_bytes *text,
                      struct fkv_tpl_value *out) {
    if (!status)
        status = fkv_tpl_plain(r, json_stringn(text->at ? text->at : "", text->count), out);
    free(text->at);
    return status;
}

const char *fkv_tpl_type(const struct fkv_tpl_value *v) {
    static const char *const names[] = {
        [JSON_OBJECT] = "a mapping", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "none"};
    if (v->kind == FKV_TPL_PLAIN) return names[json_typeof(v->json)];
    if (v->kind == FKV_TPL_UNDEFINED) return "something undefined";
    return v->kind == FKV_TPL_NAMESPACE ? "a namespace" : "a function";
}

bool fkv_tpl_is_string(const struct fkv_tpl_value *v) { return json_is_string(v->json); }

bool fkv_tpl_is_integer(const struct fkv_tpl_value *v, int64_t *value) {
    if (!json_is_integer(v->json) && !json_is_boolean(v->json)) return false;
    *value = json_is_integer(v->json) ? json_integer_value(v->json) : json_is_true(v->json);
    return true;
}

bool fkv_tpl_is_number(const struct fkv_tpl_value *v, double *value) {
    int64_t whole;
    if (json_is_real(v->json))
        *value = json_real_value(v->json);
    else if (fkv_tpl_is_integer(v, &whole))
        *value = (double)whole;
    else
        return false;
    return true;
}

static size_t size_of(const json_t *json) {
    return json_is_array(json) ? json_array_size(json) : json_object_size(json);
}

bool fkv_tpl_truth(const struct fkv_tpl_value *v) {
    double number;
    if (v->kind != FKV_TPL_PLAIN) return v->kind != FKV_TPL_UNDEFINED;
    if (fkv_tpl_is_number(v, &number)) return number != 0;
    if (json_is_string(v->json)) return json_string_length(v->json) > 0;
    return size_of(v->json) > 0;
}

/* Spends what going through all of it takes, so that nothing that is done with it later can take
 * longer; refuses what is too deep and, where all is to be `whole`, other numbers. */
static int go_through(struct fkv_tpl_run *r, const json_t *json, bool whole, int depth) {
    const char *key;
    json_t *inner;
    size_t i;
    if (whole && json_is_real(json))
        return FKV_TPL_REFUSE(r, "expected whole numbers to write as JSON, found another");
    if (!json_is_array(json) && !json_is_object(json)) return FKV_OK;
    if (depth > MAX_JSON) return FKV_TPL_REFUSE(r, "expected lists and mappings less deep");
    if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP * (size_of(json) + 1))) return FKV_FAILED;
    json_array_foreach(json, i, inner) {
        if (go_through(r, inner, whole, depth + 1)) return FKV_FAILED;
    }
    json_object_foreach((json_t *)json, key, inner) {
        if (go_through(r, inner, whole, depth + 1)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* Borrowed, or NULL and a message. */
static json_t *part_of(struct fkv_tpl_run *r, const struct fkv_tpl_value *v) {
    if (v->kind != FKV_TPL_PLAIN) {
        FKV_TPL_REFUSE(r, "expected a value to keep in a list or a mapping, found %s",
                       fkv_tpl_type(v));
        return NULL;
    }
    return go_through(r, v->json, false, MAX_JSON - MAX_NESTED) ? NULL : v->json;
}

int fkv_tpl_put_part(struct fkv_tpl_run *r, json_t *all, const char *key,
                     const struct fkv_tpl_value *v) {
    json_t *part = part_of(r, v);
    if (!part) return FKV_FAILED;
    const int status = key ? json_object_set(all, key, part) : json_array_append(all, part);
    return status ? FKV_TPL_REFUSE(r, "out of memory") : FKV_OK;
}

int fkv_tpl_append(struct fkv_tpl_run *r, json_t *list, json_t *item) {
    if (json_array_append_new(list, item)) return FKV_TPL_REFUSE(r, "out of memory");
    return fkv_tpl_spend(r, FKV_TEMPLATE_STEP);
}

int fkv_tpl_equal(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                  const struct fkv_tpl_value *b, bool *equal) {
    double x, y;
    if (a->kind != FKV_TPL_PLAIN || b->kind != FKV_TPL_PLAIN) {
        *equal = a->kind == b->kind && a->json == b->json && a->node == b->node;
        return FKV_OK;
    }
    if (fkv_tpl_is_number(a, &x) && fkv_tpl_is_number(b, &y)) {
        *equal = json_is_integer(a->json) && json_is_integer(b->json)
                     ? json_integer_value(a->json) == json_integer_value(b->json)
                     : x == y;
        return FKV_OK;
    }
    if (go_through(r, a->json, false, 0) || go_through(r, b->json, false, 0)) return FKV_FAILED;
    *equal = json_equal(a->json, b->json);
    return FKV_OK;
}

int fkv_tpl_order(struct fkv_tpl_run *r, const struct fkv_tpl_value *a,
                  const struct fkv_tpl_value *b, int *order) {
    double x, y;
    if (fkv_tpl_is_number(a, &x) && fkv_tpl_is_number(b, &y)) {
        *order = (x > y) - (x < y);
        return FKV_OK;
    }
    if (!fkv_tpl_is_string(a) || !fkv_tpl_is_string(b))
        return FKV_TPL_REFUSE(r, "expected two numbers or two strings to compare, found %s and %s",
                              fkv_tpl_type(a), fkv_tpl_type(b));
    *order = strcmp(json_string_value(a->json), json_string_value(b->json));
    return FKV_OK;
}

int fkv_tpl_contains(struct fkv_tpl_run *r, const struct fkv_tpl_value *all,
                     const struct fkv_tpl_value *one, bool *contains) {
    *contains = false;
    if (all->kind == FKV_TPL_UNDEFINED) return FKV_OK;
    if (fkv_tpl_is_string(all) && fkv_tpl_is_string(one)) {
        const struct fkv_tpl_span text = fkv_tpl_span(all->json), part = fkv_tpl_span(one->json);
        *contains = !part.bytes || memmem(text.at, text.bytes, part.at, part.bytes);
        return fkv_tpl_spend(r, text.bytes);
    }
    if (json_is_object(all->json)) {
        *contains = fkv_tpl_is_string(one) &&
                    json_object_get(all->json, json_string_value(one->json)) != NULL;
        return FKV_OK;
    }
    if (!json_is_array(all->json))
        return FKV_TPL_REFUSE(r, "expected %s in a list, a mapping or a string, found it in %s",
                              fkv_tpl_type(one), fkv_tpl_type(all));
    for (size_t i = 0; i < json_array_size(all->json) && !*contains; i++) {
        const struct fkv_tpl_value item = {FKV_TPL_PLAIN, json_array_get(all->json, i), NULL};
        if (fkv_tpl_spend(r, FKV_TEMPLATE_STEP) || fkv_tpl_equal(r, &item, one, contains))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_tpl_length(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, int64_t *length) {
    *length = 0;
    if (v->kind == FKV_TPL_UNDEFINED) return FKV_OK;
    if (v->kind != FKV_TPL_PLAIN ||
        !(fkv_tpl_is_string(v) || json_is_array(v->json) || json_is_object(v->json)))
        return FKV_TPL_REFUSE(r, "expected something that has a length, found %s", fkv_tpl_type(v));
    *length = (int64_t)(fkv_tpl_is_string(v) ? fkv_tpl_characters(fkv_tpl_span(v->json))
                                             : size_of(v->json));
    return FKV_OK;
}

/* ---- text ---- */

int fkv_tpl_spend(struct fkv_tpl_run *r, size_t effort) {
    if (effort > FKV_TEMPLATE_EFFORT || (r->effort += effort) > FKV_TEMPLATE_EFFORT)
        return FKV_TPL_REFUSE(r, "the template takes too many steps or bytes");
    return FKV_OK;
}

int fkv_tpl_put(struct fkv_tpl_run *r, struct fkv_bytes *text, const char *at, size_t bytes) {
    if (fkv_tpl_spend(r, bytes)) return FKV_FAILED;
    return fkv_bytes_append(text, at, bytes, NULL) ? FKV_TPL_REFUSE(r, "out of memory") : FKV_OK;
}

static int put_string(struct fkv_tpl_run *r, struct fkv_bytes *text, const char *string) {
    return fkv_tpl_put(r, text, string, strlen(string));
}

int fkv_tpl_print(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_bytes *text) {
    if (v->kind == FKV_TPL_UNDEFINED) return FKV_OK;
    if (fkv_tpl_is_string(v)) {
        const struct fkv_tpl_span s = fkv_tpl_span(v->json);
        return fkv_tpl_put(r, text, s.at, s.bytes);
    }
    if (json_is_integer(v->json)) {
        char digits[24];
        snprintf(digits, sizeof digits, "%" JSON_INTEGER_FORMAT, json_integer_value(v->json));
        return put_string(r, text, digits);
    }
    if (json_is_boolean(v->json))
        return put_string(r, text, json_is_true(v->json) ? "True" : "False");
    if (json_is_null(v->json)) return put_string(r, text, "None");
    return FKV_TPL_REFUSE(r, "expected a text or a whole number to print, found %s%s",
                          fkv_tpl_type(v), json_is_real(v->json) ? " that is not whole" : "");
}

struct writing {
    struct fkv_tpl_run *r;
    struct fkv_bytes *text;
    int status;
};

static int write_part(const char *at, size_t bytes, void *data) {
    struct writing *w = data;
    return w->status = fkv_tpl_put(w->r, w->text, at, bytes);
}

/* Jansson writes as Python does, but for lower case in \u001f, and lines without blanks. */
int fkv_tpl_json(struct fkv_tpl_run *r, const json_t *json, int indent, struct fkv_bytes *text) {
    struct writing w = {r, text, FKV_OK};
    const size_t blanks = indent < 0 ? 0 : indent ? (size_t)indent : 1;
    if (go_through(r, json, true, 0)) return FKV_FAILED;
    if (json_dump_callback(json, write_part, &w, JSON_ENCODE_ANY | JSON_INDENT(blanks)))
        return w.status ? FKV_FAILED : FKV_TPL_REFUSE(r, "out of memory");
    size_t count = 0;
    for (size_t i = 0; i < text->count; i++) {
        if (!indent && count && text->at[count - 1] == '\n' && text->at[i] == ' ') continue;
        text->at[count++] = text->at[i];
    }
    text->count = count;
    const char *end = text->at + count;
    for (char *at = text->at; (at = memchr(at, '\\', (size_t)(end - at))); at += 2)
        if (at[1] == 'u') at[5] = (char)tolower(at[5]);
    return FKV_OK;
}

/* ---- parts ---- */

static int append_characters(struct fkv_tpl_run *r, struct fkv_tpl_span s, json_t *list) {
    for (size_t i = 0, bytes; i < s.bytes; i += bytes) {
        bytes = fkv_utf8_bytes(s.at[i]);
        if (fkv_tpl_append(r, list, json_stringn(s.at + i, bytes))) return FKV_FAILED;
    }
    return FKV_OK;
}

static int append_keys(struct fkv_tpl_run *r, json_t *object, json_t *list) {
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (fkv_tpl_append(r, list, json_string(key))) return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_tpl_items(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, struct fkv_tpl_value *out) {
    if (json_is_array(v->json)) return fkv_tpl_plain(r, json_incref(v->json), out);
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    if (fkv_tpl_is_string(v)) return append_characters(r, fkv_tpl_span(v->json), out->json);
    if (v->kind == FKV_TPL_PLAIN && json_is_object(v->json))
        return append_keys(r, v->json, out->json);
    if (v->kind == FKV_TPL_UNDEFINED) return FKV_OK;
    return FKV_TPL_REFUSE(r, "expected a list, a mapping or a string to go through, found %s",
                          fkv_tpl_type(v));
}

int fkv_tpl_attribute(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, const char *name,
                      struct fkv_tpl_value *out) {
    *out = (struct fkv_tpl_value){0};
    if (v->kind == FKV_TPL_UNDEFINED)
        return FKV_TPL_REFUSE(r, "expected something that has \"%.80s\", found something undefined",
                              name);
    json_t *inner = json_object_get(v->json, name);
    if (inner) *out = (struct fkv_tpl_value){FKV_TPL_PLAIN, json_incref(inner), NULL};
    return FKV_OK;
}
