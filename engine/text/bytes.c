/* See bytes.h. */
#include "engine/text/bytes.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void *fkv_grow(void *old, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return old;
    size_t larger = need < 2 * *capacity ? 2 * *capacity : need < 64 ? 64 : need;
    if (larger > SIZE_MAX / size) return NULL;
    void *grown = realloc(old, larger * size);
    if (grown) *capacity = larger;
    return grown;
}

enum { BEHIND = 16 }; /* bytes behind a text, see bytes.h */

int fkv_bytes_append(struct fkv_bytes *b, const char *at, size_t bytes, struct fkv_error *err) {
    const size_t before = b->capacity;
    char *grown = fkv_grow(b->at, &b->capacity, b->count + bytes + BEHIND, 1);
    if (!grown) return fkv_fail(err, "out of memory for %zu bytes of text", b->count + bytes);
    memset(grown + before, 0, b->capacity - before);
    b->at = grown;
    if (bytes) memcpy(b->at + b->count, at, bytes);
    b->count += bytes;
    return FKV_OK;
}

bool fkv_utf8_valid(const char *text, size_t bytes, size_t *bad) {
    const utf8proc_uint8_t *s = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t step;
    utf8proc_int32_t c;
    for (*bad = 0; *bad < bytes; *bad += (size_t)step) {
        uint64_t eight;
        if (bytes - *bad >= sizeof eight) {
            memcpy(&eight, s + *bad, sizeof eight);
            step = sizeof eight;
            if (!(eight & 0x8080808080808080u)) continue;
        }
        step =
            s[*bad] < 0x80 ? 1 : utf8proc_iterate(s + *bad, (utf8proc_ssize_t)(bytes - *bad), &c);
        if (step <= 0) return false;
    }
    return true;
}

size_t fkv_utf8_complete(const char *text, size_t bytes) {
    for (size_t back = 1; back <= 4 && back <= bytes; back++) {
        unsigned char c = (unsigned char)text[bytes - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t length = c >= 0xc0 ? fkv_utf8_bytes((char)c) : 1;
        return length > back ? bytes - back : bytes;
    }
    return bytes;
}

size_t fkv_utf8_bytes(char lead) {
    uint8_t c = (uint8_t)lead;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

int32_t fkv_utf8_at(const char *text, size_t bytes) {
    utf8proc_int32_t c;
    utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &c);
    return c;
}

size_t fkv_utf8_before(const char *text, size_t at) {
    do at--;
    while (at && ((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

bool fkv_is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

int32_t fkv_hex(const char *at, int digits) {
    static const char known[] = "0123456789abcdefABCDEF";
    int32_t value = 0;
    for (int i = 0; i < digits; i++) {
        const char *digit = memchr(known, at[i], sizeof known - 1);
        if (!digit) return -1;
        value = value << 4 | (int32_t)(digit - known - (digit - known > 15 ? 6 : 0));
    }
    return value;
}
