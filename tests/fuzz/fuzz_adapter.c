/* The bytes are a byte of choices, an adapter_config.json, a NUL, and a line for each tensor of an
 * adapter: its name, rows and columns (0: a vector). Opening the adapter must come to a verdict,
 * with a message when it refuses; of what is accepted every role's weights can be formed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/checkpoint/adapter.h"
#include "kernels/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { MOST = 64, TENSORS = 64 };

static char folder[64];

static void remove_folder(void) {
    char path[128];
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

static void make_folder(void) {
    if (*folder) return;
    strcpy(folder, access("/dev/shm", W_OK) ? "/tmp/fuzz-XXXXXX" : "/dev/shm/fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    atexit(remove_folder);
}

static void put_file(const char *name, const void *first, size_t n, const void *second, size_t m) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(first, 1, n, f) != n || fwrite(second, 1, m, f) != m || fclose(f)) abort();
}

/* The lines as a safetensors file. */
static void put_tensors(const char *lines) {
    static const float values[TENSORS * MOST * MOST] = {0};
    char *copy = strdup(lines), *rest = copy, *line;
    json_t *header = json_object();
    size_t at = 0;
    for (int i = 0; i < TENSORS && (line = strsep(&rest, "\n")); i++) {
        char name[300];
        unsigned rows = 0, cols = 0;
        if (sscanf(line, "%299s %u %u", name, &rows, &cols) < 2 || rows > MOST || cols > MOST ||
            json_object_get(header, name))
            continue;
        const size_t size = sizeof(float) * rows * (cols ? cols : 1);
        json_t *shape =
            cols ? json_pack("[i, i]", (int)rows, (int)cols) : json_pack("[i]", (int)rows);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape,
                                  "data_offsets", (json_int_t)at, (json_int_t)(at + size));
        if (!entry || json_object_set_new(header, name, entry)) continue; /* no UTF-8 */
        at += size;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    const size_t length = strlen(text);
    char *start = malloc(8 + length);
    for (int i = 0; i < 8; i++) start[i] = (char)(length >> (8 * i));
    memcpy(start + 8, text, length);
    put_file("adapter_model.safetensors", start, 8 + length, values, at);
    free(start);
    free(text);
    free(copy);
    json_decref(header);
}

static void form(const struct fkv_adapter *a, const struct fkv_config *base, enum fkv_role role,
                 int32_t layer) {
    struct fkv_config config = *base;
    struct fkv_tensor whole;
    struct fkv_error err = {0};
    int32_t rows, cols;
    config.vocab = fkv_adapter_vocab(a);
    fkv_role_shape(&config, role, &rows, &cols);
    const size_t n = (size_t)(rows ? rows : 1) * (size_t)cols;
    float *values = calloc(n, sizeof *values);
    if (fkv_adapter_find(a, role, layer, &whole) && whole.dims == (rows ? 2 : 1) &&
        whole.shape[0] == (rows ? rows : cols) && (!rows || whole.shape[1] == cols))
        memcpy(values, whole.data, n * sizeof *values);
    if (fkv_adapter_adds(a, role, layer) &&
        fkv_adapter_add(a, role, layer, rows, cols, values, &err))
        abort();
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fkv_error err = {0};
    struct fkv_adapter *a;
    if (bytes < 2) return 0;
    struct fkv_config base = {.model_type = "llama",
                              .layers = 2,
                              .dim = 8,
                              .hidden = 12,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_dim = 4,
                              .vocab = 10,
                              .tied = data[0] & 1,
                              .qkv_bias = data[0] & 2,
                              .qk_norm = data[0] & 4};
    char *text = strndup((const char *)data + 1, bytes - 1);
    const size_t length = strlen(text);
    char *lines = length + 2 < bytes ? strndup((const char *)data + length + 2, bytes - length - 2)
                                     : strdup("");
    make_folder();
    put_file("adapter_config.json", text, length, "", 0);
    put_tensors(lines);
    if (fkv_adapter_open(folder, &base, &a, &err) == FKV_OK) {
        for (int role = 0; role < FKV_ROLES; role++)
            for (int32_t layer = 0; layer < (role < FKV_ATTENTION_NORM ? 1 : base.layers); layer++)
                form(a, &base, (enum fkv_role)role, layer);
        fkv_adapter_close(a);
    } else if (!err.message[0]) {
        abort();
    }
    free(lines);
    free(text);
    return 0;
}
