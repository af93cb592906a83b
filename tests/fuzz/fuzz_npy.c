/* Any bytes as .npy and as raw ids. */
#include <stdlib.h>

#include "engine/text/documents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err;
    int32_t *ids;
    size_t count;
    for (size_t width = 0; width <= 4; width += 2) {
        if (fkv_raw_parse(data, bytes, width, 3000, "fuzz.bin", &ids, &count, &err)) continue;
        if (count != bytes / (width ? width : 2)) abort();
        free(ids);
    }
    if (fkv_npy_parse(data, bytes, "fuzz.npy", &ids, &count, &err)) return 0;
    if (count > bytes) abort();
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0) abort();
    free(ids);
    return 0;
}
