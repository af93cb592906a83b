/* Jansson with our conventions: numbers that do not exist are null (never NaN or Infinity),
 * duplicates are refused, and lookups name file and field in their messages. */
#ifndef FKV_BASE_JSON_H
#define FKV_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"

json_t *fkv_json_number(double value);     /* null when not finite */
json_t *fkv_json_string(const char *text); /* a name: where it is no UTF-8, words that say so */

/* Parses `bytes` of text with JSON_REJECT_DUPLICATES; `where` names the file in messages. A new
 * reference, or NULL and a message. */
json_t *fkv_json_parse(const char *text, size_t bytes, const char *where, struct fkv_error *err);
/* The same where strings may hold NUL (\u0000), which fkv_json_parse refuses: C strings of theirs
 * would be cut. */
json_t *fkv_json_parse_with_nul(const char *text, size_t bytes, const char *where,
                                struct fkv_error *err);
json_t *fkv_json_load(const char *path, size_t limit, struct fkv_error *err);

/* Fields of an object. `required` false: a missing or null field leaves *value as it is. Out of
 * range or of another type: an error. */
int fkv_json_get_int(const json_t *object, const char *where, const char *field, bool required,
                     int64_t low, int64_t high, int64_t *value, struct fkv_error *err);
int fkv_json_get_double(const json_t *object, const char *where, const char *field, bool required,
                        double low, double high, double *value, struct fkv_error *err);
int fkv_json_get_bool(const json_t *object, const char *where, const char *field, bool required,
                      bool *value, struct fkv_error *err);
/* A borrowed string that lives as long as the object; NULL stays NULL when missing and not
 * required. */
int fkv_json_get_string(const json_t *object, const char *where, const char *field, bool required,
                        const char **value, struct fkv_error *err);

/* An error if one of `fields` (NULL ends them) is there and null: where null does not count as
 * silent. */
int fkv_json_refuse_null(const json_t *object, const char *where, const char *const *fields,
                         struct fkv_error *err);

/* One object to stdout, numbers with 17 significant digits, and a newline. Consumes the reference.
 */
int fkv_json_print(json_t *object, struct fkv_error *err);

#endif
