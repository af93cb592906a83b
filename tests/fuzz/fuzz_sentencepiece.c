/* Any bytes as tokenizer.model: refused, or a tokenizer that encodes a tricky text and decodes
 * what it made. */
#include <stdlib.h>

#include "engine/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char text[] = "ab <s> abba  \xe2\x96\x81\xe2\x96\x81 it's 12\n\te\xcc\x81 "
                               "\xf0\x9f\xa6\x99 a\0b \xe4\xb8\xad aaaaaaaaaaaaaaaaaaaaaaaaaaa ";
    struct fkv_error err;
    struct fkv_tokenizer *t;
    if (fkv_tokenizer_parse_sentencepiece(data, bytes, "fuzz.model", &t, &err)) return 0;
    int32_t *ids;
    size_t count, decoded_bytes;
    char *decoded;
    if (fkv_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &count, &err)) abort();
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= fkv_tokenizer_vocabulary(t)) abort();
    if (fkv_tokenizer_decode(t, ids, count, &decoded, &decoded_bytes, &err)) abort();
    free(decoded);
    free(ids);
    fkv_tokenizer_close(t);
    return 0;
}
