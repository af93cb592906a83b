/* Jansson with our conventions. Integers beyond 64 bits occur in real files (a tokenizer's
 * model_max_length of 10^30) and jansson refuses them; such a file is read once more with integers
 * as reals, and those that are exact become integers again. */
#include "kernels/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/atomic_file.h"

json_t *fkv_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *fkv_json_string(const char *text) {
    json_t *string = json_string(text);
    return string ? string : json_string("(a name that is not UTF-8)");
}

/* Back to integers what an integer of 53 bits was read from, in every object and list. */
static json_t *restore_integers(json_t *value) {
    const double real = json_real_value(value);
    if (json_is_real(value) && real == floor(real) && fabs(real) <= 0x1p53)
        return json_integer((json_int_t)real);
    const char *key;
    json_t *member;
    size_t i;
    json_object_foreach(value, key, member)
        json_object_set_new_nocheck(value, key, restore_integers(member));
    json_array_foreach(value, i, member) json_array_set_new(value, i, restore_integers(member));
    return json_incref(value);
}

static json_t *parse(const char *text, size_t bytes, size_t flags, const char *where,
                     struct fkv_error *err) {
    json_error_t why;
    flags |= JSON_REJECT_DUPLICATES;
    json_t *root = json_loadb(text, bytes, flags, &why);
    if (!root && json_error_code(&why) == json_error_numeric_overflow) {
        json_t *reals = json_loadb(text, bytes, flags | JSON_DECODE_INT_AS_REAL, &why);
        if (reals) root = restore_integers(reals);
        json_decref(reals);
    }
    if (!root)
        fkv_fail(err, "%s: not valid JSON: line %d, column %d: %s", where, why.line, why.column,
                 why.text);
    return root;
}

json_t *fkv_json_parse(const char *text, size_t bytes, const char *where, struct fkv_error *err) {
    return parse(text, bytes, 0, where, err);
}

json_t *fkv_json_parse_with_nul(const char *text, size_t bytes, const char *where,
                                struct fkv_error *err) {
    return parse(text, bytes, JSON_ALLOW_NUL, where, err);
}

json_t *fkv_json_load(const char *path, size_t limit, struct fkv_error *err) {
    char *text;
    size_t bytes;
    if (fkv_read_file(path, limit, &text, &bytes, err)) return NULL;
    const size_t mark = bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0; /* of byte order */
    json_t *root = fkv_json_parse(text + mark, bytes - mark, path, err);
    free(text);
    return root;
}

/* "where: field "f": expected E, found V", V cut short */
static int refuse(const char *where, const char *field, const char *expected, const json_t *found,
                  struct fkv_error *err) {
    char *text =
        found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    fkv_fail(err, "%s: field \"%s\": expected %s, found %.80s", where, field, expected,
             !found ? "nothing"
             : text ? text
                    : "something unprintable");
    free(text);
    return FKV_FAILED;
}

/* FKV_OK with *found NULL where an optional field is missing or null. */
static int find(const json_t *object, const char *where, const char *field, bool required,
                const char *expected, const json_t **found, struct fkv_error *err) {
    if (!json_is_object(object))
        return fkv_fail(err, "%s: expected a JSON object around \"%s\"", where, field);
    *found = json_object_get(object, field);
    if (*found && !json_is_null(*found)) return FKV_OK;
    if (required) return refuse(where, field, expected, *found, err);
    *found = NULL;
    return FKV_OK;
}

int fkv_json_get_int(const json_t *object, const char *where, const char *field, bool required,
                     int64_t low, int64_t high, int64_t *value, struct fkv_error *err) {
    char expected[96];
    snprintf(expected, sizeof expected, "an integer in [%lld, %lld]", (long long)low,
             (long long)high);
    const json_t *found;
    if (find(object, where, field, required, expected, &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    double real = json_real_value(found);
    int64_t x;
    if (json_is_integer(found))
        x = json_integer_value(found);
    else if (json_is_real(found) && real == floor(real) && fabs(real) <= 0x1p53)
        x = (int64_t)real;
    else
        return refuse(where, field, expected, found, err);
    if (x < low || x > high) return refuse(where, field, expected, found, err);
    *value = x;
    return FKV_OK;
}

int fkv_json_get_double(const json_t *object, const char *where, const char *field, bool required,
                        double low, double high, double *value, struct fkv_error *err) {
    char expected[96];
    snprintf(expected, sizeof expected, "a number in [%g, %g]", low, high);
    const json_t *found;
    if (find(object, where, field, required, expected, &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    double x = json_number_value(found);
    if (!json_is_number(found) || x < low || x > high)
        return refuse(where, field, expected, found, err);
    *value = x;
    return FKV_OK;
}

int fkv_json_get_bool(const json_t *object, const char *where, const char *field, bool required,
                      bool *value, struct fkv_error *err) {
    const json_t *found;
    if (find(object, where, field, required, "true or false", &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    if (!json_is_boolean(found)) return refuse(where, field, "true or false", found, err);
    *value = json_is_true(found);
    return FKV_OK;
}

int fkv_json_get_string(const json_t *object, const char *where, const char *field, bool required,
                        const char **value, struct fkv_error *err) {
    const json_t *found;
    if (find(object, where, field, required, "a string", &found, err)) return FKV_FAILED;
    if (!found) return FKV_OK;
    if (!json_is_string(found)) return refuse(where, field, "a string", found, err);
    *value = json_string_value(found);
    return FKV_OK;
}

int fkv_json_refuse_null(const json_t *object, const char *where, const char *const *fields,
                         struct fkv_error *err) {
    for (; *fields; fields++) {
        const json_t *found = json_object_get(object, *fields);
        if (json_is_null(found)) return refuse(where, *fields, "a value", found, err);
    }
    return FKV_OK;
}

int fkv_json_print(json_t *object, struct fkv_error *err) {
    bool written = json_dumpf(object, stdout, JSON_REAL_PRECISION(17)) == 0 && putchar('\n') != EOF;
    json_decref(object);
    if (!written || fflush(stdout)) return fkv_fail_errno(err, "standard output: cannot write");
    return FKV_OK;
}
