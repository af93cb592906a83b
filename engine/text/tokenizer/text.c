/* Text below the level of tokens: UTF-8, the character classes that added tokens ask for, GPT-2's
 * printable bytes. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/text/tokenizer/parts.h"

void *fkv_tok_grow(void *old, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return old;
    size_t larger = need < 2 * *capacity ? 2 * *capacity : need < 64 ? 64 : need;
    if (larger > SIZE_MAX / size) return NULL;
    void *grown = realloc(old, larger * size);
    if (grown) *capacity = larger;
    return grown;
}

int fkv_tok_append(struct fkv_tok_bytes *b, const char *at, size_t bytes, struct fkv_error *err) {
    if (bytes >=
        b->capacity -
            b->count) { /* one more than needed, so that even an empty text has an address */
        char *grown = fkv_tok_grow(b->at, &b->capacity, b->count + bytes + 1, 1);
        if (!grown) return fkv_fail(err, "out of memory for %zu bytes of text", b->count + bytes);
        b->at = grown;
    }
    if (bytes) memcpy(b->at + b->count, at, bytes);
    b->count += bytes;
    return FKV_OK;
}

int fkv_tok_push(struct fkv_tok_ids *ids, int32_t id, struct fkv_error *err) {
    if (ids->count == ids->capacity) {
        int32_t *grown = fkv_tok_grow(ids->at, &ids->capacity, ids->count + 1, sizeof *grown);
        if (!grown) return fkv_fail(err, "out of memory for %zu token ids", ids->count + 1);
        ids->at = grown;
    }
    ids->at[ids->count++] = id;
    return FKV_OK;
}

/* Unicode 15, table 3-7: the second byte's range depends on the first, every later byte is 80..BF.
 */
bool fkv_tok_utf8_valid(const char *text, size_t bytes, size_t *bad) {
    const uint8_t *s = (const uint8_t *)text;
    size_t i = 0;
    while (i < bytes) {
        uint64_t eight;
        if (bytes - i >= 8 && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        uint8_t c = s[i];
        size_t more = c < 0x80                ? 0
                      : c >= 0xc2 && c < 0xe0 ? 1
                      : (c & 0xf0) == 0xe0    ? 2
                      : c >= 0xf0 && c < 0xf5 ? 3
                                              : 9;
        uint8_t low = c == 0xe0   ? 0xa0
                      : c == 0xf0 ? 0x90
                                  : 0x80,
                high = c == 0xed   ? 0x9f
                       : c == 0xf4 ? 0x8f
                                   : 0xbf;
        *bad = i;
        if (more >= bytes - i) return false;
        for (size_t k = 1; k <= more; k++, low = 0x80, high = 0xbf)
            if (s[i + k] < low || s[i + k] > high) return false;
        i += more + 1;
    }
    return true;
}

size_t fkv_tok_char_bytes(char lead) {
    uint8_t c = (uint8_t)lead;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

int32_t fkv_tok_char_at(struct fkv_tok_text text, size_t at) {
    utf8proc_int32_t c;
    utf8proc_iterate((const utf8proc_uint8_t *)text.at + at, (utf8proc_ssize_t)(text.bytes - at),
                     &c);
    return c;
}

size_t fkv_tok_before(struct fkv_tok_text text, size_t at) {
    do at--;
    while (at && ((uint8_t)text.at[at] & 0xc0) == 0x80);
    return at;
}

bool fkv_tok_space_at(struct fkv_tok_text text, size_t at, size_t *bytes) {
    utf8proc_int32_t c = fkv_tok_char_at(text, at);
    *bytes = fkv_tok_char_bytes(text.at[at]);
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* Alphabetic, marks, decimal digits, connector punctuation, join controls (UTS 18, annex C).
 * Alphabetic reaches beyond letters and marks by letter numbers and by the circled and squared
 * letters. utf8proc's Unicode decides: letters of later versions are none. */
bool fkv_tok_word_at(struct fkv_tok_text text, size_t at) {
    utf8proc_int32_t c = fkv_tok_char_at(text, at);
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
        (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
        (c >= 0x1f170 && c <= 0x1f189))
        return true;
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

/* Printable Latin-1 stands for itself, the other bytes, in order, for U+0100 onwards. */
static bool printable(uint32_t b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

uint32_t fkv_tok_byte_char(uint8_t byte) {
    if (printable(byte)) return byte;
    return 0x100 + (byte <= ' ' ? byte : byte <= 0xa0 ? byte - 0x7fu + 33 : 67);
}

static int char_byte(uint32_t c) {
    if (c < 0x100) return printable(c) ? (int)c : -1;
    uint32_t n = c - 0x100;
    return n <= 32 ? (int)n : n <= 66 ? (int)(n - 33 + 0x7f) : n == 67 ? 0xad : -1;
}

bool fkv_tok_to_raw(struct fkv_tok_text text, char *out, size_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < text.bytes; i += fkv_tok_char_bytes(text.at[i])) {
        int byte = char_byte((uint32_t)fkv_tok_char_at(text, i));
        if (byte < 0) return false;
        out[(*bytes)++] = (char)byte;
    }
    return true;
}

int fkv_tok_replace(struct fkv_tok_text text, struct fkv_tok_text from, struct fkv_tok_text to,
                    struct fkv_tok_bytes *out, struct fkv_error *err) {
    const char *end = text.at + text.bytes;
    for (const char *at = text.at, *hit; at < end; at = hit + from.bytes) {
        hit = memmem(at, (size_t)(end - at), from.at, from.bytes);
        if (!hit) return fkv_tok_append(out, at, (size_t)(end - at), err);
        if (fkv_tok_append(out, at, (size_t)(hit - at), err) ||
            fkv_tok_append(out, to.at, to.bytes, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

bool fkv_tok_starts_with(struct fkv_tok_text text, struct fkv_tok_text prefix) {
    return text.bytes >= prefix.bytes && !memcmp(text.at, prefix.at, prefix.bytes);
}
