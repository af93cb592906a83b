/* Any bytes as a .npy file: refused, or as many ids as there is room for, none negative. */
#include <stdlib.h>

#include "engine/text/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err;
    int32_t *ids;
    size_t count;
    if (fkv_npy_parse(data, bytes, "fuzz.npy", &ids, &count, &err)) return 0;
    if (count > bytes) abort();
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0) abort();
    free(ids);
    return 0;
}
