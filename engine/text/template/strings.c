/* Python's methods of strings, over characters of UTF-8. Changes of case are of one character each
 * (Python makes two of the German sharp s). */
#include <utf8proc.h>

#include "engine/text/template/parts.h"

struct fkv_tpl_span fkv_tpl_span(const json_t *string) {
    return (struct fkv_tpl_span){json_string_value(string), json_string_length(string)};
}

size_t fkv_tpl_characters(struct fkv_tpl_span s) {
    size_t count = 0;
    for (size_t i = 0; i < s.bytes; i++) count += (s.at[i] & 0xc0) != 0x80;
    return count;
}

/* Whether the character is one of `set`, or white space to Python. */
static bool in_set(const char *at, size_t bytes, struct fkv_tpl_span set) {
    if (set.at) return memmem(set.at, set.bytes, at, bytes) != NULL;
    return fkv_is_space(fkv_utf8_at(at, bytes)) || (*at >= 0x1c && *at <= 0x1f);
}

/* Without characters of `set` (at NULL: white space) at its ends. */
static struct fkv_tpl_span strip(struct fkv_tpl_span s, struct fkv_tpl_span set, bool left,
                                 bool right) {
    size_t bytes;
    while (left && s.bytes && in_set(s.at, bytes = fkv_utf8_bytes(s.at[0]), set)) {
        s.at += bytes;
        s.bytes -= bytes;
    }
    for (size_t start; right && s.bytes; s.bytes = start) {
        start = fkv_utf8_before(s.at, s.bytes);
        if (!in_set(s.at + start, s.bytes - start, set)) break;
    }
    return s;
}

int fkv_tpl_call_strip(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span set = {NULL, 0};
    if (a->count && !json_is_null(a->at[0].json) && fkv_tpl_want_string(r, name, &a->at[0], &set))
        return FKV_FAILED;
    const struct fkv_tpl_span s = strip(fkv_tpl_span(v->json), set, *name != 'r', *name != 'l');
    return fkv_tpl_string_value(r, s.at, s.bytes, out);
}

/* startswith and endswith, of a string or of one in a list. */
int fkv_tpl_call_ends(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const struct fkv_tpl_span s = fkv_tpl_span(v->json);
    struct fkv_tpl_span part;
    bool holds = false;
    const json_t *list = json_is_array(a->at[0].json) ? a->at[0].json : NULL;
    for (size_t i = 0; i < (list ? json_array_size(list) : 1); i++) {
        const struct fkv_tpl_value item = {FKV_TPL_PLAIN, json_array_get(list, i), NULL};
        if (fkv_tpl_want_string(r, name, list ? &item : &a->at[0], &part)) return FKV_FAILED;
        holds |= part.bytes <= s.bytes &&
                 !memcmp(s.at + (*name == 's' ? 0 : s.bytes - part.bytes), part.at, part.bytes);
    }
    return fkv_tpl_plain(r, json_boolean(holds), out);
}

/* upper, lower, title and capitalize. */
int fkv_tpl_call_case(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                      struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const struct fkv_tpl_span s = fkv_tpl_span(v->json);
    struct fkv_bytes text = {0};
    bool inside = false; /* of a word */
    int status = FKV_OK;
    (void)a;
    for (size_t i = 0, bytes; i < s.bytes && !status; i += bytes) {
        bytes = fkv_utf8_bytes(s.at[i]);
        const utf8proc_int32_t c = fkv_utf8_at(s.at + i, bytes);
        const utf8proc_int32_t lower = utf8proc_tolower(c), upper = utf8proc_toupper(c);
        const bool raise = *name == 'u' || (*name == 'c' && !i) || (*name == 't' && !inside);
        utf8proc_uint8_t changed[4];
        const utf8proc_ssize_t made = utf8proc_encode_char(raise ? upper : lower, changed);
        inside = lower != c || upper != c;
        status = fkv_tpl_put(r, &text, (char *)changed, (size_t)made);
    }
    return fkv_tpl_take_text(r, status, &text, out);
}

int fkv_tpl_call_replace(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                         struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_span s = fkv_tpl_span(v->json), from, to;
    struct fkv_bytes text = {0};
    if (fkv_tpl_want_string(r, name, &a->at[0], &from) ||
        fkv_tpl_want_string(r, name, &a->at[1], &to))
        return FKV_FAILED;
    if (!from.bytes) return FKV_TPL_REFUSE(r, "expected a string to replace, found \"\"");
    int status = FKV_OK;
    while (!status) {
        const char *found = memmem(s.at, s.bytes, from.at, from.bytes);
        const size_t bytes = found ? (size_t)(found - s.at) : s.bytes;
        status = fkv_tpl_put(r, &text, s.at, bytes);
        if (!found || status) break;
        status = fkv_tpl_put(r, &text, to.at, to.bytes);
        s.at = found + from.bytes;
        s.bytes -= bytes + from.bytes;
    }
    return fkv_tpl_take_text(r, status, &text, out);
}

/* ---- split ---- */

static int append(struct fkv_tpl_run *r, json_t *list, const char *at, size_t bytes) {
    if (fkv_tpl_spend(r, bytes)) return FKV_FAILED;
    return fkv_tpl_append(r, list, json_stringn(at, bytes));
}

static int split_at(struct fkv_tpl_run *r, struct fkv_tpl_span s, struct fkv_tpl_span separator,
                    int64_t most, json_t *list) {
    for (int64_t i = 0; i != most; i++) {
        const char *found = memmem(s.at, s.bytes, separator.at, separator.bytes);
        if (!found) break;
        const size_t bytes = (size_t)(found - s.at);
        if (append(r, list, s.at, bytes)) return FKV_FAILED;
        s.at = found + separator.bytes;
        s.bytes -= bytes + separator.bytes;
    }
    return append(r, list, s.at, s.bytes);
}

static int split_at_spaces(struct fkv_tpl_run *r, struct fkv_tpl_span s, int64_t most,
                           json_t *list) {
    const struct fkv_tpl_span spaces = {NULL, 0};
    s = strip(s, spaces, true, false);
    for (int64_t i = 0; s.bytes; i++) {
        size_t bytes = 0;
        while (bytes < s.bytes &&
               (i == most || !in_set(s.at + bytes, fkv_utf8_bytes(s.at[bytes]), spaces)))
            bytes += fkv_utf8_bytes(s.at[bytes]);
        if (append(r, list, s.at, bytes)) return FKV_FAILED;
        s = strip((struct fkv_tpl_span){s.at + bytes, s.bytes - bytes}, spaces, true, false);
    }
    return FKV_OK;
}

/* At every separator, or at white space without empty parts. */
int fkv_tpl_call_split(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                       struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    const struct fkv_tpl_span s = fkv_tpl_span(v->json);
    struct fkv_tpl_span separator = {NULL, 0};
    int64_t most = -1;
    if ((a->at[0].json && !json_is_null(a->at[0].json) &&
         fkv_tpl_want_string(r, name, &a->at[0], &separator)) ||
        (a->count > 1 && fkv_tpl_want_integer(r, name, &a->at[1], &most)))
        return FKV_FAILED;
    if (separator.at && !separator.bytes)
        return FKV_TPL_REFUSE(r, "expected a string to split at, found \"\"");
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    return separator.at ? split_at(r, s, separator, most, out->json)
                        : split_at_spaces(r, s, most, out->json);
}

/* ---- join ---- */

int fkv_tpl_join(struct fkv_tpl_run *r, const json_t *list, struct fkv_tpl_span separator,
                 struct fkv_tpl_value *out) {
    struct fkv_bytes text = {0};
    int status = FKV_OK;
    for (size_t i = 0; i < json_array_size(list) && !status; i++) {
        const struct fkv_tpl_value item = {FKV_TPL_PLAIN, json_array_get(list, i), NULL};
        if (i) status = fkv_tpl_put(r, &text, separator.at, separator.bytes);
        if (!status) status = fkv_tpl_spend(r, FKV_TEMPLATE_STEP);
        if (!status) status = fkv_tpl_print(r, &item, &text);
    }
    return fkv_tpl_take_text(r, status, &text, out);
}

/* The method: of the separator, with a list. */
int fkv_tpl_call_join_list(struct fkv_tpl_run *r, const char *name, const struct fkv_tpl_value *v,
                           struct fkv_tpl_arguments *a, struct fkv_tpl_value *out) {
    struct fkv_tpl_value list;
    (void)name;
    int status = fkv_tpl_items(r, &a->at[0], &list);
    if (!status) status = fkv_tpl_join(r, list.json, fkv_tpl_span(v->json), out);
    fkv_tpl_value_free(&list);
    return status;
}

/* ---- slices ---- */

/* An index as Python counts, within low and high. */
static int64_t clamp(const int64_t *index, int64_t left_out, int64_t length, int64_t low,
                     int64_t high) {
    if (!index) return left_out;
    const int64_t i = *index < 0 ? (*index < -length ? low : *index + length) : *index;
    return i < low ? low : i > high ? high : i;
}

/* Characters start to stop of a string. */
static int slice_string(struct fkv_tpl_run *r, struct fkv_tpl_span s, int64_t start, int64_t stop,
                        struct fkv_tpl_value *out) {
    size_t from = 0, to;
    for (int64_t i = 0; i < start; i++) from += fkv_utf8_bytes(s.at[from]);
    to = from;
    for (int64_t i = start; i < stop; i++) to += fkv_utf8_bytes(s.at[to]);
    if (fkv_tpl_spend(r, to)) return FKV_FAILED;
    return fkv_tpl_string_value(r, s.at + from, to - from, out);
}

static int slice_list(struct fkv_tpl_run *r, const json_t *list, int64_t start, int64_t stop,
                      int64_t by, struct fkv_tpl_value *out) {
    if (fkv_tpl_plain(r, json_array(), out)) return FKV_FAILED;
    for (int64_t i = start; by > 0 ? i < stop : i > stop; i += by) {
        json_t *item = json_array_get(list, (size_t)i);
        if (fkv_tpl_append(r, out->json, json_incref(item))) return FKV_FAILED;
        if (by > 0 ? stop - i <= by : i - stop <= -by) break; /* i + by may be too large */
    }
    return FKV_OK;
}

int fkv_tpl_slice(struct fkv_tpl_run *r, const struct fkv_tpl_value *v, const int64_t *start,
                  const int64_t *stop, const int64_t *step, struct fkv_tpl_value *out) {
    int64_t length;
    const int64_t by = step ? *step : 1;
    if (!by || by == INT64_MIN) return FKV_TPL_REFUSE(r, "expected a slice by another step");
    if (!fkv_tpl_is_string(v) && !json_is_array(v->json))
        return FKV_TPL_REFUSE(r, "expected a list or a string to slice, found %s", fkv_tpl_type(v));
    if (fkv_tpl_length(r, v, &length)) return FKV_FAILED;
    const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? length : length - 1;
    const int64_t first = clamp(start, by > 0 ? 0 : length - 1, length, low, high),
                  end = clamp(stop, by > 0 ? length : -1, length, low, high);
    if (!fkv_tpl_is_string(v)) return slice_list(r, v->json, first, end, by, out);
    if (by == 1) return slice_string(r, fkv_tpl_span(v->json), first, end, out);
    struct fkv_tpl_value characters = {0}, part = {0};
    int status = fkv_tpl_items(r, v, &characters);
    if (!status) status = slice_list(r, characters.json, first, end, by, &part);
    if (!status) status = fkv_tpl_join(r, part.json, (struct fkv_tpl_span){"", 0}, out);
    fkv_tpl_value_free(&characters);
    fkv_tpl_value_free(&part);
    return status;
}
