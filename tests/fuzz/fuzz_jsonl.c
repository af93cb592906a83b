/* Any bytes as a line of .jsonl. */
#include <stdlib.h>

#include "engine/text/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err;
    char *text;
    size_t text_bytes;
    for (int own = 0; own < 2; own++) {
        const char *field = own ? "a" : NULL;
        if (fkv_jsonl_text((const char *)data, bytes, field, "fuzz.jsonl:1", &text, &text_bytes,
                           &err))
            continue;
        if (text_bytes > bytes || text[text_bytes]) abort();
        free(text);
    }
    return 0;
}
