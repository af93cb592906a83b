/* Builds safetensors files for tests, right or deliberately wrong, and folders around them. */
#ifndef FKV_TESTS_WEIGHTS_FILE_H
#define FKV_TESTS_WEIGHTS_FILE_H

#include "tests/unit/support.h"

struct weights_file {
    char header[1 << 14];
    size_t used; /* of the header */
    unsigned char *data;
    size_t bytes;
};

/* Appends a tensor behind the ones before it; data NULL: zeros. */
static inline void weights_add(struct weights_file *w, const char *name, const char *format,
                               const char *shape, const void *data, size_t bytes) {
    w->used +=
        (size_t)snprintf(w->header + w->used, sizeof w->header - w->used,
                         "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                         w->used ? "," : "{", name, format, shape, w->bytes, w->bytes + bytes);
    assert_true(w->used < sizeof w->header - 2);
    w->data = realloc(w->data, w->bytes + bytes + 1);
    assert_non_null(w->data);
    if (data)
        memcpy(w->data + w->bytes, data, bytes);
    else
        memset(w->data + w->bytes, 0, bytes);
    w->bytes += bytes;
}

/* A whole file in memory from a header's text, padded to 8 bytes, and data; the caller frees. */
static inline unsigned char *weights_assemble(const char *header, const void *data, size_t bytes,
                                              size_t *total) {
    size_t length = strlen(header), padded = (length + 7) / 8 * 8;
    unsigned char *file = malloc(8 + padded + bytes + 1);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    memset(file + 8, ' ', padded);
    memcpy(file + 8, header, length);
    if (data)
        memcpy(file + 8 + padded, data, bytes);
    else
        memset(file + 8 + padded, 0, bytes);
    *total = 8 + padded + bytes;
    return file;
}

/* Writes the file and frees what the builder holds. */
static inline void weights_write(struct weights_file *w, const char *folder, const char *name) {
    if (!w->used) w->header[w->used++] = '{';
    memcpy(w->header + w->used, "}", 2);
    size_t total;
    unsigned char *file = weights_assemble(w->header, w->data, w->bytes, &total);
    test_write_file(test_path(folder, name), file, total);
    free(file);
    free(w->data);
    *w = (struct weights_file){0};
}

#endif
