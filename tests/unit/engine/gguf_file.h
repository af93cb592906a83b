/* Builds GGUF files for tests and the fuzzer's corpus, right or deliberately wrong. */
#ifndef FKV_TESTS_GGUF_FILE_H
#define FKV_TESTS_GGUF_FILE_H

#include "tests/unit/support.h"

struct gguf_part {
    unsigned char bytes[1 << 18];
    size_t used;
};

struct gguf_file {
    struct gguf_part keys, infos, data;
    uint64_t key_count, tensor_count;
    uint32_t version;
    size_t alignment;
};

static inline void gguf_begin(struct gguf_file *f) {
    memset(f, 0, sizeof *f);
    f->version = 3;
    f->alignment = 32;
}

static inline void gguf_put(struct gguf_part *p, const void *bytes, size_t n) {
    assert_true(p->used + n <= sizeof p->bytes);
    if (n) memcpy(p->bytes + p->used, bytes, n);
    p->used += n;
}

static inline void gguf_put_u32(struct gguf_part *p, uint32_t x) { gguf_put(p, &x, 4); }
static inline void gguf_put_u64(struct gguf_part *p, uint64_t x) { gguf_put(p, &x, 8); }
static inline void gguf_put_string(struct gguf_part *p, const char *text) {
    gguf_put_u64(p, strlen(text));
    gguf_put(p, text, strlen(text));
}

/* A key of type `type` (see enum fkv_gguf_type) with a value of n bytes. */
static inline void gguf_key(struct gguf_file *f, const char *name, uint32_t type, const void *value,
                            size_t n) {
    gguf_put_string(&f->keys, name);
    gguf_put_u32(&f->keys, type);
    gguf_put(&f->keys, value, n);
    f->key_count++;
}

static inline void gguf_key_u32(struct gguf_file *f, const char *name, uint32_t value) {
    gguf_key(f, name, 4, &value, 4);
}

static inline void gguf_key_f32(struct gguf_file *f, const char *name, float value) {
    gguf_key(f, name, 6, &value, 4);
}

static inline void gguf_key_string(struct gguf_file *f, const char *name, const char *value) {
    gguf_key(f, name, 8, NULL, 0);
    gguf_put_string(&f->keys, value);
}

/* What the file says of a tensor; sizes [dims], fastest first. */
static inline void gguf_info(struct gguf_file *f, const char *name, uint32_t dims,
                             const uint64_t *sizes, uint32_t type, uint64_t offset) {
    gguf_put_string(&f->infos, name);
    gguf_put_u32(&f->infos, dims);
    for (uint32_t i = 0; i < dims; i++) gguf_put_u64(&f->infos, sizes[i]);
    gguf_put_u32(&f->infos, type);
    gguf_put_u64(&f->infos, offset);
    f->tensor_count++;
}

/* A tensor (rows, cols), rows 0: a vector, behind the ones before it. */
static inline void gguf_tensor(struct gguf_file *f, const char *name, int rows, int cols,
                               uint32_t type, const void *data, size_t bytes) {
    static const unsigned char zeros[256];
    const size_t odd = f->data.used % f->alignment;
    if (odd) gguf_put(&f->data, zeros, f->alignment - odd);
    gguf_info(f, name, rows ? 2 : 1, (uint64_t[]){(uint64_t)cols, (uint64_t)rows}, type,
              f->data.used);
    gguf_put(&f->data, data, bytes);
}

/* The whole file; the caller frees. */
static inline unsigned char *gguf_assemble(const struct gguf_file *f, size_t *bytes) {
    const size_t header = 4 + 4 + 8 + 8 + f->keys.used + f->infos.used,
                 start = (header + f->alignment - 1) / f->alignment * f->alignment;
    unsigned char *file = calloc(1, start + f->data.used + 1), *p = file;
    assert_non_null(file);
    memcpy(p, "GGUF", 4), p += 4;
    memcpy(p, &f->version, 4), p += 4;
    memcpy(p, &f->tensor_count, 8), p += 8;
    memcpy(p, &f->key_count, 8), p += 8;
    memcpy(p, f->keys.bytes, f->keys.used), p += f->keys.used;
    memcpy(p, f->infos.bytes, f->infos.used);
    memcpy(file + start, f->data.bytes, f->data.used);
    *bytes = start + f->data.used;
    return file;
}

#endif
