/* The text of a .jsonl row. Only its field is read: what stands beside it need not be JSON in all
 * strictness (Python writes NaN, scrapers leave half a surrogate pair), as long as its strings and
 * brackets end. The text itself may hold U+0000, but no half of a pair. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/text/bytes.h"
#include "engine/text/documents.h"

struct row {
    const char *start, *at, *end;
    const char *where;
    struct fkv_error *err;
};

static int refuse(const struct row *r, const char *expected) {
    return fkv_fail(r->err, "%s: not valid JSON: column %zu: expected %s", r->where,
                    (size_t)(r->at - r->start) + 1, expected);
}

static char next(const struct row *r) { return r->at < r->end ? *r->at : 0; }

static void skip_blanks(struct row *r) {
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at) r->at++;
}

static bool accept(struct row *r, char wanted) {
    skip_blanks(r);
    if (r->at == r->end || *r->at != wanted) return false;
    r->at++;
    return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t hex4(struct row *r) {
    int32_t value = r->end - r->at < 4 ? -1 : fkv_hex(r->at, 4);
    if (value >= 0) r->at += 4;
    return value;
}

/* What stands behind a backslash. */
static int read_escape(struct row *r, char *out, size_t *count) {
    static const char names[] = "\"\\/bfnrt", characters[] = "\"\\/\b\f\n\r\t";
    char name = next(r);
    const char *known = name ? strchr(names, name) : NULL;
    if (known) {
        r->at++;
        out[(*count)++] = characters[known - names];
        return FKV_OK;
    }
    if (name != 'u') return refuse(r, "an escape");
    r->at++;
    int32_t c = hex4(r), low;
    if (c >= 0xd800 && c < 0xdc00 && r->end - r->at > 2 && r->at[0] == '\\' && r->at[1] == 'u') {
        r->at += 2;
        low = hex4(r);
        c = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00)
                                          : 0xd800;
    }
    if (c < 0) return refuse(r, "four hexadecimal digits");
    if (c >= 0xd800 && c < 0xe000)
        return refuse(r, "both halves of a surrogate pair (a half is no character: repair the "
                         "text, or leave the row out)");
    *count += (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out + *count);
    return FKV_OK;
}

/* A string, behind its quote; what it holds is never longer than how it is written. */
static int read_string(struct row *r, char *out, size_t *count) {
    for (*count = 0; r->at < r->end;) {
        char c = *r->at++;
        if (c == '"') return FKV_OK;
        if ((uint8_t)c < 0x20) return refuse(r, "no control character");
        if (c != '\\')
            out[(*count)++] = c;
        else if (read_escape(r, out, count))
            return FKV_FAILED;
    }
    return refuse(r, "the end of a string");
}

static int skip_string(struct row *r) {
    while (r->at < r->end) {
        char c = *r->at++;
        if (c == '"') return FKV_OK;
        if (c == '\\' && r->at < r->end) r->at++;
    }
    return refuse(r, "the end of a string");
}

/* A value of any kind. */
static int skip_value(struct row *r) {
    size_t depth = 0;
    skip_blanks(r);
    do {
        if (r->at == r->end) return refuse(r, depth ? "a closing bracket" : "a value");
        char c = *r->at;
        if (!depth && strchr(",:]}", c)) return refuse(r, "a value");
        r->at++;
        if (c == '"' && skip_string(r)) return FKV_FAILED;
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') depth--;
        if (depth || strchr("\"{}[]", c)) continue;
        while (r->at < r->end && !strchr(",]} \t\r\n", *r->at)) r->at++; /* a number or a word */
    } while (depth);
    return FKV_OK;
}

/* The value of the field: a string, or null for no text. */
static int read_value(struct row *r, char *out, size_t *count, bool *string) {
    skip_blanks(r);
    *string = accept(r, '"');
    if (*string) return read_string(r, out, count);
    *count = 0;
    *string = r->end - r->at >= 4 && !memcmp(r->at, "null", 4);
    return skip_value(r);
}

/* Members of the object, behind its bracket. *found: the last one of the best field is in `text`;
 * `key` is scratch. */
static int read_members(struct row *r, const char *const fields[2], char *key, char *text,
                        size_t *count, bool *found) {
    int best = 2;
    if (accept(r, '}')) return FKV_OK;
    do {
        size_t n;
        if (!accept(r, '"')) return refuse(r, "a name");
        if (read_string(r, key, &n)) return FKV_FAILED;
        if (!accept(r, ':')) return refuse(r, "a colon");
        int field = 0;
        while (field < 2 &&
               (!fields[field] || strlen(fields[field]) != n || memcmp(fields[field], key, n)))
            field++;
        if (field > best || field == 2) {
            if (skip_value(r)) return FKV_FAILED;
            continue;
        }
        best = field;
        if (read_value(r, text, count, found)) return FKV_FAILED;
        if (!*found) return FKV_OK;
    } while (accept(r, ','));
    return accept(r, '}') ? FKV_OK : refuse(r, "a comma or a closing bracket");
}

int fkv_jsonl_text(const char *line, size_t bytes, const char *field, const char *where,
                   char **text, size_t *text_bytes, struct fkv_error *err) {
    struct row r = {line, line, line + bytes, where, err};
    const char *const fields[2] = {field ? field : "text", field ? NULL : "article"};
    bool found = false;
    *text_bytes = 0;
    *text = malloc(bytes + 1);
    char *key = malloc(bytes + 1);
    int status = *text && key
                     ? FKV_OK
                     : fkv_fail(err, "%s: out of memory for %zu bytes of text", where, bytes);
    if (!status && accept(&r, '{')) {
        status = read_members(&r, fields, key, *text, text_bytes, &found);
        if (!status && found) {
            skip_blanks(&r);
            if (r.at < r.end) status = refuse(&r, "the end of the row");
        }
    }
    skip_blanks(&r);
    if (r.at == r.end && status)
        status =
            fkv_fail(err,
                     "%s: the row does not end on its line: a file cut short, or rows of several "
                     "lines (jq -c . FILE)",
                     where);
    if (!status && !found && next(&r) == '[')
        status = fkv_fail(
            err, "%s: expected a row of JSON per line, found a list of them (jq -c '.[]' FILE)",
            where);
    else if (!status && !found)
        status = fkv_fail(err, "%s: expected an object with a string \"%s\"%s", where, fields[0],
                          field ? "" : " or \"article\"; --text-field says which one is the text");
    free(key);
    if (status) {
        free(*text);
        *text = NULL;
        return status;
    }
    (*text)[*text_bytes] = 0;
    return FKV_OK;
}
