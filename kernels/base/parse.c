/* Numbers, ranges and lists as users type them. Refuses what strtol and strtod would let pass:
 * leading blanks, trailing text, hexadecimal, "nan" and "inf". Ranges are kept as decimals,
 * mantissa * 10^-places with a common number of places: adding the step in binary gives
 * 0.30000000000000004 for the third of 0.1:0.9:0.1 and, through the rounded quotient, sometimes
 * eight values for nine. */
#include "kernels/base/parse.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_VALUES = 10000,
    MOST_DIGITS = 15
}; /* 10^15 < 2^53: mantissas and powers of ten are exact as doubles */

int fkv_parse_int(const char *text, const char *what, int64_t low, int64_t high, int64_t *value,
                  struct fkv_error *err) {
    const char *digits = text + (*text == '-' || *text == '+');
    size_t length = strlen(digits);
    if (!length || strspn(digits, "0123456789") != length)
        return fkv_fail_option(err, "%s: expected an integer, found \"%s\"", what, text);
    errno = 0;
    long long x = strtoll(text, NULL, 10);
    if (errno || x < low || x > high)
        return fkv_fail_option(err, "%s: expected an integer in [%lld, %lld], found %s", what,
                               (long long)low, (long long)high, text);
    *value = x;
    return FKV_OK;
}

int fkv_parse_double(const char *text, const char *what, double low, double high, double *value,
                     struct fkv_error *err) {
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || strspn(text, "0123456789+-.eE") != strlen(text))
        return fkv_fail_option(err, "%s: expected a number, found \"%s\"", what, text);
    if (!isfinite(x) || x < low || x > high)
        return fkv_fail_option(err, "%s: expected a number in [%g, %g], found %s", what, low, high,
                               text);
    *value = x;
    return FKV_OK;
}

/* [+-]digits[.digits] of `length` characters = mantissa * 10^-places */
struct decimal {
    int64_t mantissa;
    int places;
};

static bool read_decimal(const char *text, size_t length, struct decimal *out) {
    const char *at = text, *end = text + length;
    bool negative = at < end && *at == '-', point = false;
    if (at < end && (*at == '-' || *at == '+')) at++;
    int digits = 0;
    *out = (struct decimal){0};
    for (; at < end; at++) {
        if (*at == '.' && !point) {
            point = true;
        } else if (*at >= '0' && *at <= '9' && digits < MOST_DIGITS) {
            out->mantissa = out->mantissa * 10 + (*at - '0');
            digits++;
            out->places += point;
        } else {
            return false;
        }
    }
    if (negative) out->mantissa = -out->mantissa;
    return digits > 0;
}

/* The mantissa of x with `places` decimal places, or false where it grows beyond the exact range.
 */
static bool rescale(struct decimal x, int places, int64_t *mantissa) {
    const int64_t limit = 1000000000000000;
    for (*mantissa = x.mantissa; x.places < places; x.places++) {
        *mantissa *= 10;
        if (llabs(*mantissa) > limit) return false;
    }
    return true;
}

static int parse_steps(const char *text, const char *what, double **values, int *count,
                       struct fkv_error *err) {
    const char *middle = strchr(text, ':') + 1, *last = strchr(middle, ':');
    struct decimal a, b, c;
    if (!last || !read_decimal(text, (size_t)(middle - 1 - text), &a) ||
        !read_decimal(middle, (size_t)(last - middle), &b) ||
        !read_decimal(last + 1, strlen(last + 1), &c))
        return fkv_fail_option(
            err, "%s: expected first:last:step in decimals of at most %d digits, found \"%s\"",
            what, MOST_DIGITS, text);
    int places = a.places > b.places ? a.places : b.places;
    if (c.places > places) places = c.places;
    int64_t from, to, step;
    if (!rescale(a, places, &from) || !rescale(b, places, &to) || !rescale(c, places, &step))
        return fkv_fail_option(err, "%s: \"%s\" needs more than %d digits", what, text,
                               MOST_DIGITS);
    if (step <= 0 || to < from)
        return fkv_fail_option(err, "%s: expected first <= last and a step above 0, found \"%s\"",
                               what, text);
    if ((to - from) % step)
        return fkv_fail_option(err, "%s: \"%s\" does not reach its last value in whole steps", what,
                               text);
    if ((to - from) / step >= MOST_VALUES)
        return fkv_fail_option(err, "%s: \"%s\" has more than %d values", what, text, MOST_VALUES);
    *count = (int)((to - from) / step) + 1;
    *values = malloc((size_t)*count * sizeof **values);
    if (!*values) return fkv_fail(err, "%s: out of memory", what);
    double unit = 1;
    for (int i = 0; i < places; i++) unit *= 10;
    for (int i = 0; i < *count; i++)
        (*values)[i] = (double)(from + i * step) /
                       unit; /* both exact, so the quotient is the nearest double */
    return FKV_OK;
}

static int parse_list(const char *text, const char *what, double **values, int *count,
                      struct fkv_error *err) {
    int items = 1;
    for (const char *at = text; *at; at++) items += *at == ',';
    if (items > MOST_VALUES)
        return fkv_fail_option(err, "%s: more than %d values", what, MOST_VALUES);
    char *copy = strdup(text), *rest = copy;
    *values = malloc((size_t)items * sizeof **values);
    int status = copy && *values ? FKV_OK : fkv_fail(err, "%s: out of memory", what);
    for (*count = 0; status == FKV_OK && *count < items; ++*count)
        status = fkv_parse_double(strsep(&rest, ","), what, -HUGE_VAL, HUGE_VAL, &(*values)[*count],
                                  err);
    free(copy);
    if (status == FKV_OK) return FKV_OK;
    free(*values);
    *values = NULL;
    *count = 0;
    return status;
}

int fkv_parse_range(const char *text, const char *what, double **values, int *count,
                    struct fkv_error *err) {
    *values = NULL;
    *count = 0;
    return strchr(text, ':') ? parse_steps(text, what, values, count, err)
                             : parse_list(text, what, values, count, err);
}

/* "7" or "2-5" -> first and last */
static int parse_run(char *text, const char *what, int limit, int64_t *first, int64_t *last,
                     struct fkv_error *err) {
    char *dash = *text ? strchr(text + 1, '-') : NULL;
    if (dash) *dash = 0;
    if (fkv_parse_int(text, what, 0, limit - 1, first, err)) return FKV_FAILED;
    *last = *first;
    return dash ? fkv_parse_int(dash + 1, what, *first, limit - 1, last, err) : FKV_OK;
}

int fkv_parse_indices(const char *text, const char *what, int limit, int **values, int *count,
                      struct fkv_error *err) {
    *values = NULL;
    *count = 0;
    if (limit < 1) return fkv_fail_option(err, "%s: there is nothing to choose from", what);
    char *copy = strdup(text), *rest = copy;
    bool *chosen = calloc((size_t)limit, sizeof *chosen);
    int *found = malloc((size_t)limit * sizeof *found);
    int status = copy && chosen && found ? FKV_OK : fkv_fail(err, "%s: out of memory", what);
    for (char *item; status == FKV_OK && (item = strsep(&rest, ","));) {
        int64_t first, last;
        status = parse_run(item, what, limit, &first, &last, err);
        for (int64_t i = first; status == FKV_OK && i <= last; i++) chosen[i] = true;
    }
    for (int i = 0; status == FKV_OK && i < limit; i++)
        if (chosen[i]) found[(*count)++] = i;
    if (status == FKV_OK)
        *values = found;
    else
        free(found);
    free(chosen);
    free(copy);
    return status;
}
