/* The backend under test ($FKV_TEST_BACKEND, default "cpu") beside the reference, and random shapes, weights and caches that both see alike.
 * The reference keeps its cache in float32 whatever the dtype under test, so that it holds the exact result that 16 bits are measured by. */
#ifndef FKV_TESTS_BACKEND_SUPPORT_H
#define FKV_TESTS_BACKEND_SUPPORT_H

#include "kernels/kernels.h"
#include "tests/unit/support.h"

struct side {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
};

static struct side tested, reference;
static struct fkv_error err;

static inline struct side open_side(const char *name) {
    struct side s;
    assert_ok(fkv_backend_find(name, &s.ops, &err), err);
    assert_ok(s.ops->open(0, 0, &s.b, &err), err);
    return s;
}

static inline int open_both(void **state) {
    (void)state;
    const char *name = getenv("FKV_TEST_BACKEND");
    printf("backend under test: %s\n", name ? name : "cpu");
    tested = open_side(name ? name : "cpu");
    reference = open_side("reference");
    return 0;
}

static inline int close_both(void **state) {
    (void)state;
    tested.ops->close(tested.b);
    reference.ops->close(reference.b);
    return 0;
}

static inline float *numbers(size_t count) {
    float *x = malloc(sizeof *x * (count ? count : 1));
    assert_non_null(x);
    return x;
}

static inline float *random_numbers(size_t count, double mean, double deviation) {
    float *x = numbers(count);
    test_fill(x, count, mean, deviation);
    return x;
}

/* One array on both sides. */
struct both {
    struct fkv_buffer *tested, *reference;
    size_t count; /* float32 */
};

static inline struct fkv_buffer *upload(struct side s, const void *data, size_t bytes) {
    struct fkv_buffer *buffer;
    assert_ok(s.ops->buffer_create(s.b, bytes, &buffer, &err), err);
    assert_ok(s.ops->write(s.b, buffer, 0, data, bytes, &err), err);
    return buffer;
}

static inline struct both upload_both(const float *x, size_t count) {
    return (struct both){upload(tested, x, 4 * count), upload(reference, x, 4 * count), count};
}

/* Takes over random numbers of the asked kind. */
static inline struct both random_both(size_t count, double mean, double deviation) {
    float *x = random_numbers(count, mean, deviation);
    struct both both = upload_both(x, count);
    free(x);
    return both;
}

static inline float *download(struct side s, const struct fkv_buffer *buffer, size_t count) {
    float *x = numbers(count);
    assert_ok(s.ops->read(s.b, buffer, 0, x, 4 * count, &err), err);
    return x;
}

static inline void release(struct both x) {
    tested.ops->buffer_release(tested.b, x.tested);
    reference.ops->buffer_release(reference.b, x.reference);
}

static inline void assert_both_close(struct both x, double absolute, double relative) {
    float *found = download(tested, x.tested, x.count), *expected = download(reference, x.reference, x.count);
    assert_arrays_close(found, expected, x.count, absolute, relative);
    free(found), free(expected);
}

/* A weight in the checkpoint's own dtype, adopted (not copied) at an offset that is a multiple of its element and of nothing more. */
struct weight {
    struct fkv_weight tested, reference;
    char *memory;
};

static inline struct weight random_weight(enum fkv_dtype t, int rows, int cols, double mean, double deviation) {
    size_t count = (size_t)rows * (size_t)cols, offset = fkv_dtype_bytes(t) * (size_t)test_between(0, 40);
    float *x = random_numbers(count, mean, deviation);
    struct weight w = {.memory = malloc(offset + count * fkv_dtype_bytes(t))};
    assert_non_null(w.memory);
    fkv_from_f32(x, t, count, w.memory + offset);
    free(x);
    w.tested = w.reference = (struct fkv_weight){.offset = offset, .dtype = t, .rows = rows, .cols = cols};
    size_t bytes = offset + count * fkv_dtype_bytes(t);
    assert_ok(tested.ops->buffer_adopt(tested.b, w.memory, bytes, &w.tested.data, &err), err);
    assert_ok(reference.ops->buffer_adopt(reference.b, w.memory, bytes, &w.reference.data, &err), err);
    return w;
}

static inline void release_weight(struct weight *w) {
    tested.ops->buffer_release(tested.b, w->tested.data);
    reference.ops->buffer_release(reference.b, w->reference.data);
    free(w->memory);
    *w = (struct weight){0};
}

static inline enum fkv_dtype random_dtype(void) { return (enum fkv_dtype)test_between(FKV_F32, FKV_BF16); }

/* One row, a few, some, or enough for a matrix product. */
static inline int random_rows(void) {
    switch (test_between(0, 3)) {
    case 0: return 1;
    case 1: return test_between(2, 8);
    case 2: return test_between(9, 40);
    default: return test_between(64, 80);
    }
}

static double test_inv_freq[128];

static inline struct fkv_attention_shape random_shape(void) {
    static const int dims[] = {8, 32, 64, 80, 96, 128, 256}, groups[] = {1, 2, 4, 8};
    struct fkv_attention_shape s = {.kv_heads = test_between(1, 3), .head_dim = dims[test_between(0, 6)]};
    s.heads = s.kv_heads * groups[test_between(0, 3)];
    s.dim = test_between(1, 130);
    s.scale = (float)(1 / sqrt(s.head_dim));
    double base = test_between(0, 1) ? 10000 : 500000;
    for (int i = 0; i < s.head_dim / 2; i++) test_inv_freq[i] = pow(base, -2.0 * i / s.head_dim);
    s.inv_freq = test_inv_freq;
    return s;
}

/* Scratch on both sides for shapes up to these; one row of items per head and more. */
static inline void reserve_both(struct fkv_attention_shape shape, int rows, int hidden, int vocab, int slots) {
    struct fkv_limits limits = {.rows = rows,
                                .dim = shape.dim,
                                .hidden = hidden,
                                .vocab = vocab,
                                .slots = slots,
                                .items = 64,
                                .attention = shape};
    assert_ok(tested.ops->reserve(tested.b, &limits, &err), err);
    assert_ok(reference.ops->reserve(reference.b, &limits, &err), err);
}

/* One layer's cache with random contents; element offset `layer` into larger buffers. */
struct cache {
    struct fkv_cache_layer tested, reference;
    size_t count, skip; /* elements of the layer, and before it */
};

static inline void fill_cache_state(enum fkv_dtype t, size_t count, double mean, struct fkv_buffer **a,
                                    struct fkv_buffer **b) {
    float *x = random_numbers(count, mean, 1);
    char *packed = malloc(count * fkv_dtype_bytes(t));
    assert_non_null(packed);
    fkv_from_f32(x, t, count, packed);
    fkv_to_f32(packed, t, count, x);
    *a = upload(tested, packed, count * fkv_dtype_bytes(t));
    *b = upload(reference, x, 4 * count);
    free(x), free(packed);
}

static inline struct cache random_cache(const struct fkv_attention_shape *shape, enum fkv_dtype t, int capacity,
                                        double mean) {
    size_t count = (size_t)shape->kv_heads * (size_t)capacity * (size_t)shape->head_dim;
    struct cache c = {.count = count, .skip = count * (size_t)test_between(0, 1)};
    c.tested = (struct fkv_cache_layer){.offset = c.skip * fkv_dtype_bytes(t), .dtype = t, .capacity = capacity};
    c.reference = (struct fkv_cache_layer){.offset = 4 * c.skip, .dtype = FKV_F32, .capacity = capacity};
    fill_cache_state(t, c.skip + count, mean, &c.tested.key, &c.reference.key);
    fill_cache_state(t, c.skip + count, mean, &c.tested.value, &c.reference.value);
    return c;
}

static inline void release_cache(struct cache *c) {
    tested.ops->buffer_release(tested.b, c->tested.key);
    tested.ops->buffer_release(tested.b, c->tested.value);
    reference.ops->buffer_release(reference.b, c->reference.key);
    reference.ops->buffer_release(reference.b, c->reference.value);
}

/* Keys or values of the layer as float32 [kv_heads, capacity, head_dim]. */
static inline float *cache_contents(struct side s, const struct fkv_cache_layer *layer, const struct fkv_buffer *buffer,
                                    size_t count) {
    size_t bytes = count * fkv_dtype_bytes(layer->dtype);
    char *packed = malloc(bytes);
    float *x = numbers(count);
    assert_ok(s.ops->read(s.b, buffer, layer->offset, packed, bytes, &err), err);
    fkv_to_f32(packed, layer->dtype, count, x);
    free(packed);
    return x;
}

/* Stored against exact results: float32 within `relative` of the largest; 16 bits no more than 1.2 times as far as rounding is,
 * give or take what float32 arithmetic does where the exact result happens to need no rounding. */
static inline void assert_stored(const float *found, const float *exact, size_t count, enum fkv_dtype t,
                                 double relative) {
    if (t == FKV_F32) {
        assert_arrays_close(found, exact, count, 1e-30, relative);
        return;
    }
    double distance = 0, rounding = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        float rounded = exact[i];
        char packed[2];
        fkv_from_f32(&rounded, t, 1, packed);
        fkv_to_f32(packed, t, 1, &rounded);
        distance += pow(found[i] - (double)exact[i], 2);
        rounding += pow(rounded - (double)exact[i], 2);
        size += pow(exact[i], 2);
    }
    if (!(sqrt(distance) <= 1.2 * sqrt(rounding) + relative * sqrt(size)))
        fail_msg("%s: stored %.4g from the exact result, rounding it %.4g (ratio %.3f)", fkv_dtype_name(t),
                 sqrt(distance), sqrt(rounding), sqrt(distance / rounding));
}

#endif
