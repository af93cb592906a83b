/* Any bytes as tokenizer.json: refused, or a tokenizer that encodes a tricky text and decodes
 * what it made, at once and streamed, as the definition has it
 * (tests/unit/engine/whole_decode.h). */
#include "tests/unit/engine/whole_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* `count` ids behind `split` of them, id by id: the whole text less that of the first ones. */
static void check_stream(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                         size_t split) {
    struct fkv_error err;
    struct fkv_tokenizer_stream *s;
    char *whole, *prompt;
    size_t total, before, bytes, at;
    if (whole_decode(t, ids, split, &prompt, &before, &err) ||
        whole_decode(t, ids, count, &whole, &total, &err))
        abort();
    if (fkv_tokenizer_stream_open(t, ids, split, &s, &err)) abort();
    at = before < total ? before : total;
    for (size_t i = split; i <= count; i++) {
        const char *text;
        if (i < count ? fkv_tokenizer_stream_push(s, ids[i], &text, &bytes, &err)
                      : fkv_tokenizer_stream_finish(s, &text, &bytes, &err))
            abort();
        if (bytes > total - at || (bytes && memcmp(text, whole + at, bytes))) abort();
        at += bytes;
    }
    if (at != total) abort();
    fkv_tokenizer_stream_close(s);
    free(whole);
    free(prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char text[] = "ab <s> abba  \xe2\x96\x81\xe2\x96\x81 it's 1234\r\n\n\tb\xcc\x81 "
                               "e\xcc\x81\xcc\xa3 \xf0\x9f\xa6\x99"
                               "<s><x> a<x>\0b \xe4\xb8\xad\xc2\xa0\xe1\xa0\x8e "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ";
    struct fkv_error err;
    struct fkv_tokenizer *t;
    if (fkv_tokenizer_parse((const char *)data, bytes, "fuzz.json", &t, &err)) return 0;
    for (size_t skip = 0; skip < 2; skip++) {
        int32_t *ids;
        size_t count, decoded_bytes;
        if (fkv_tokenizer_encode(t, text + skip, sizeof text - 1 - skip, skip, &ids, &count,
                                 &err)) {
            if (!strstr(err.message, "a pattern of the tokenizer")) abort();
            continue; /* it takes too many steps */
        }
        char *decoded;
        if (fkv_tokenizer_decode(t, ids, count, &decoded, &decoded_bytes, &err)) abort();
        if (decoded[decoded_bytes]) abort();
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= fkv_tokenizer_vocabulary(t)) abort();
        check_stream(t, ids, count, 0);
        check_stream(t, ids, count, count / 2);
        free(decoded);
        free(ids);
    }
    fkv_tokenizer_close(t);
    return 0;
}
