/* Bytes of text below tokens and templates: buffers that grow, UTF-8, hexadecimal digits. */
#ifndef FKV_ENGINE_TEXT_BYTES_H
#define FKV_ENGINE_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/error.h"

struct fkv_bytes {
    char *at; /* [count], malloc'd, the owner's */
    size_t count, capacity;
};

/* Memory for `need` elements of `size` bytes, at least doubled when it grows; NULL when out of
 * memory or beyond size_t (the old block stays). */
void *fkv_grow(void *old, size_t *capacity, size_t need, size_t size);
/* Even an empty text has an address then. The sixteen bytes behind a text are there, and zeros or
 * older text: PCRE2's compiled patterns look at whole vectors, though no match depends on what is
 * behind. */
int fkv_bytes_append(struct fkv_bytes *b, const char *at, size_t bytes, struct fkv_error *err);

/* *bad: where the first character that is none begins. */
bool fkv_utf8_valid(const char *text, size_t bytes, size_t *bad);
/* How much of text [bytes] is left without a last UTF-8 character that is not complete. */
size_t fkv_utf8_complete(const char *text, size_t bytes);

/* The character at the start of text [bytes]; -1: it is none. */
int32_t fkv_utf8_at(const char *text, size_t bytes);
size_t fkv_utf8_bytes(char lead);                    /* of the valid character that begins so */
size_t fkv_utf8_before(const char *text, size_t at); /* start of the character before `at` > 0 */
bool fkv_is_space(int32_t character);                /* White_Space */

/* The value of so many hexadecimal digits, 7 at most; -1: others are among them. Reads no further
 * than the first other one. */
int32_t fkv_hex(const char *at, int digits);

#endif
