/* Text below the level of tokens: the character classes that added tokens ask for, GPT-2's
 * printable bytes. */
#include <string.h>
#include <utf8proc.h>

#include "engine/text/tokenizer/parts.h"

const struct fkv_tok_text fkv_tok_mark = {"\xe2\x96\x81", 3};

int fkv_tok_push(struct fkv_tok_ids *ids, int32_t id, struct fkv_error *err) {
    if (ids->count == ids->capacity) {
        int32_t *grown = fkv_grow(ids->at, &ids->capacity, ids->count + 1, sizeof *grown);
        if (!grown) return fkv_fail(err, "out of memory for %zu token ids", ids->count + 1);
        ids->at = grown;
    }
    ids->at[ids->count++] = id;
    return FKV_OK;
}

bool fkv_tok_space_at(struct fkv_tok_text text, size_t at, size_t *bytes) {
    *bytes = fkv_utf8_bytes(text.at[at]);
    return fkv_is_space(fkv_utf8_at(text.at + at, text.bytes - at));
}

/* Alphabetic, marks, decimal digits, connector punctuation, join controls (UTS 18, annex C).
 * Alphabetic reaches beyond letters and marks by letter numbers and by the circled and squared
 * letters. utf8proc's Unicode decides: letters of later versions are none. */
bool fkv_tok_word_at(struct fkv_tok_text text, size_t at) {
    utf8proc_int32_t c = fkv_utf8_at(text.at + at, text.bytes - at);
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
    for (size_t i = 0; i < text.bytes; i += fkv_utf8_bytes(text.at[i])) {
        int byte = char_byte((uint32_t)fkv_utf8_at(text.at + i, text.bytes - i));
        if (byte < 0) return false;
        out[(*bytes)++] = (char)byte;
    }
    return true;
}

int fkv_tok_replace(struct fkv_tok_text text, struct fkv_tok_text from, struct fkv_tok_text to,
                    struct fkv_bytes *out, struct fkv_error *err) {
    const char *end = text.at + text.bytes;
    for (const char *at = text.at, *hit; at < end; at = hit + from.bytes) {
        hit = memmem(at, (size_t)(end - at), from.at, from.bytes);
        if (!hit) return fkv_bytes_append(out, at, (size_t)(end - at), err);
        if (fkv_bytes_append(out, at, (size_t)(hit - at), err) ||
            fkv_bytes_append(out, to.at, to.bytes, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

bool fkv_tok_starts_with(struct fkv_tok_text text, struct fkv_tok_text prefix) {
    return text.bytes >= prefix.bytes && !memcmp(text.at, prefix.at, prefix.bytes);
}

int fkv_tok_shown(struct fkv_tok_text text) { return text.bytes < 80 ? (int)text.bytes : 80; }
