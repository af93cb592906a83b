/* The bytes are a safetensors file. Its check must come to a verdict, with a message when it
 * refuses, and read nothing outside. */
#include <stdlib.h>

#include "engine/checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err = {0};
    int status = fkv_safetensors_check(data, bytes, "fuzz.safetensors", &err);
    if ((status == FKV_OK) != (err.message[0] == 0)) abort();
    return 0;
}
