/* The bytes are a safetensors file. Reading its header must come to a verdict, with a message when
 * it refuses, and read nothing outside. */
#include <stdlib.h>

#include "engine/checkpoint/safetensors_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err = {0};
    struct fkv_tensor_table table = {0};
    int status = fkv_tensor_table_read(data, bytes, "fuzz.safetensors", &table, &err);
    fkv_tensor_table_free(&table);
    if ((status == FKV_OK) != (err.message[0] == 0)) abort();
    return 0;
}
