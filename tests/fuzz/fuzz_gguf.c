/* The bytes are a GGUF file. Opening it must come to a verdict, with a message when it refuses; of
 * what is accepted every value of the metadata can be read, and every role's tensor to its end. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/gguf.h"
#include "engine/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A tokenizer that is accepted encodes a tricky text and decodes what it made. */
static void use_tokenizer(const struct fkv_gguf *g) {
    static const char text[] = "ab <s> abba  \xe2\x96\x81\xe2\x96\x81 it's 12\n\te\xcc\x81 "
                               "\xf0\x9f\xa6\x99 a\0b \xe4\xb8\xad aaaaaaaaaaaaaaaaaaaaaaaaaaa ";
    struct fkv_error err = {0};
    struct fkv_tokenizer *t;
    int32_t *ids;
    size_t count, decoded_bytes;
    char *decoded;
    if (fkv_tokenizer_of_gguf(g, &t, &err)) {
        if (!err.message[0]) abort();
        return;
    }
    if (fkv_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &count, &err)) abort();
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= fkv_tokenizer_vocabulary(t)) abort();
    if (fkv_tokenizer_decode(t, ids, count, &decoded, &decoded_bytes, &err)) abort();
    free(decoded);
    free(ids);
    fkv_tokenizer_close(t);
}

static void read_tensor(const struct fkv_checkpoint *c, enum fkv_role role, int32_t layer) {
    struct fkv_tensor t;
    struct fkv_error err;
    void *copy;
    float values[FKV_WEIGHT_MOST_BLOCK];
    int32_t rows, cols;
    fkv_role_shape(fkv_checkpoint_config(c), role, &rows, &cols);
    if (!fkv_role_present(fkv_checkpoint_config(c), role) ||
        fkv_checkpoint_find(c, role, layer, &t, &err) || t.dims != (rows ? 2 : 1) ||
        t.shape[0] != (rows ? rows : cols) || (rows && t.shape[1] != cols))
        return;
    if (fkv_role_tensor_arrange(&t, fkv_checkpoint_config(c)->head_dim, &copy, &err)) return;
    const size_t block = fkv_weight_block(t.format), n = (size_t)(rows ? rows : 1) * (size_t)cols;
    for (size_t at = 0; at < n; at += block)
        fkv_weight_expand(t.format, (const char *)t.data + fkv_weight_bytes(t.format, at), block,
                          values);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err = {0};
    struct fkv_gguf *g;
    struct fkv_checkpoint *c;
    char path[64];
    if (fkv_gguf_parse(data, bytes, "fuzz.gguf", &g, &err)) {
        if (!err.message[0]) abort();
        return 0;
    }
    use_tokenizer(g);
    fkv_gguf_close(g);
    const int file = memfd_create("fuzz", 0);
    if (file < 0 || write(file, data, bytes) != (ssize_t)bytes) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (fkv_checkpoint_open(path, 0, &c, &err) == FKV_OK) {
        const int32_t layers = fkv_checkpoint_config(c)->layers;
        for (int role = 0; role < FKV_ROLES; role++)
            for (int32_t layer = 0; layer < (role < FKV_ATTENTION_NORM ? 1 : layers); layer++)
                read_tensor(c, (enum fkv_role)role, layer);
        fkv_checkpoint_close(c);
    } else if (!err.message[0]) {
        abort();
    }
    close(file);
    return 0;
}
