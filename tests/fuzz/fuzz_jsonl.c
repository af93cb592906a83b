/* Any bytes as a line of .jsonl. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err;
    char *text;
    size_t text_bytes;
    if (fkv_jsonl_text((const char *)data, bytes, "fuzz.jsonl:1", &text, &text_bytes, &err))
        return 0;
    if (strlen(text) != text_bytes) abort();
    free(text);
    return 0;
}
