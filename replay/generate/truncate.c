/* Decoding halves and joining them; a half may begin or end inside of a character. */
#include "replay/generate/truncate.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Length of the valid character at the start of text [bytes]; 0: there is none. */
static size_t valid_character(const char *text, size_t bytes) {
    utf8proc_int32_t c;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &c);
    return n > 0 ? (size_t)n : 0;
}

/* Appends text [bytes] to `out`, which holds 3 bytes for each. Returns what was appended. */
static size_t append_valid(char *out, const char *text, size_t bytes) {
    static const char replacement[] = "\xef\xbf\xbd";
    size_t count = 0;
    for (size_t i = 0; i < bytes;) {
        const size_t length = valid_character(text + i, bytes - i);
        if (length) {
            memcpy(out + count, text + i, length);
            count += length;
            i += length;
            continue;
        }
        memcpy(out + count, replacement, 3);
        count += 3;
        const bool lead = (unsigned char)text[i++] >= 0xc0; /* of one that is cut off */
        while (lead && i < bytes && (text[i] & 0xc0) == 0x80) i++;
    }
    return count;
}

static int join_halves(const struct fkv_tokenizer *tokenizer, const int32_t *ids, size_t count,
                       size_t half, char **out, struct fkv_error *err) {
    char *parts[2] = {NULL, NULL};
    size_t bytes[2];
    int status = fkv_tokenizer_decode(tokenizer, ids, half, &parts[0], &bytes[0], err);
    if (!status)
        status =
            fkv_tokenizer_decode(tokenizer, ids + count - half, half, &parts[1], &bytes[1], err);
    if (!status && !(*out = malloc(3 * (bytes[0] + bytes[1]) + 1)))
        status = fkv_fail(err, "out of memory for a prompt of %zu tokens", count);
    if (!status) {
        size_t at = append_valid(*out, parts[0], bytes[0]);
        at += append_valid(*out + at, parts[1], bytes[1]);
        (*out)[at] = 0;
    }
    free(parts[0]);
    free(parts[1]);
    return status;
}

int fkv_truncate_middle(const struct fkv_tokenizer *tokenizer, const char *text, int64_t most,
                        char **out, struct fkv_error *err) {
    int32_t *ids;
    size_t count;
    *out = NULL;
    if (fkv_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &count, err))
        return FKV_FAILED;
    int status = FKV_OK;
    if (count > (size_t)most)
        status = join_halves(tokenizer, ids, count, (size_t)most / 2, out, err);
    else if (!(*out = strdup(text)))
        status = fkv_fail(err, "out of memory for a prompt of %zu tokens", count);
    free(ids);
    return status;
}
