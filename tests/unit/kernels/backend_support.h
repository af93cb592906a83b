/* The backend under test ($FKV_TEST_BACKEND, default "cpu"; $FKV_TEST_COMPUTE, "native", "f32" or
 * "bf16", is what its products compute in) beside the reference, and random shapes, weights and
 * caches that both see alike. The reference keeps its cache in float32 whatever the dtype under
 * test, so that it holds the exact result that 16 bits are measured by. FKV_TEST_SMALL=1 makes
 * shapes smaller, for a backend that is emulated: as odd as before, and every head size. */
#ifndef FKV_TESTS_BACKEND_SUPPORT_H
#define FKV_TESTS_BACKEND_SUPPORT_H

#include "kernels/kernels.h"
#include "tests/unit/support.h"

struct side {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
};

static struct side tested, reference;
static enum fkv_compute tested_compute;
static enum fkv_space tested_space;
static int first_round; /* where this run's walks through the lists below begin */

static inline struct side open_side(const char *name, enum fkv_compute compute) {
    struct side s;
    assert_ok(fkv_backend_find(name, &s.ops, NULL, &err));
    assert_ok(s.ops->open(&(struct fkv_backend_options){.compute = compute}, &s.b, &err));
    return s;
}

static inline enum fkv_compute compute_named(const char *name) {
    if (!name || !strcmp(name, "native")) return FKV_COMPUTE_NATIVE;
    if (!strcmp(name, "f32")) return FKV_COMPUTE_F32;
    if (strcmp(name, "bf16"))
        fail_msg("FKV_TEST_COMPUTE: expected native, f32 or bf16, found %s", name);
    return FKV_COMPUTE_BF16;
}

/* Ends the program with status 77, for "skipped", where this processor has no bfloat16 products. */
static inline void skip_without_bf16(void) {
    struct fkv_backend *b;
    if (fkv_cpu_backend.open(&(struct fkv_backend_options){.compute = FKV_COMPUTE_BF16}, &b,
                             &err)) {
        printf("skipped: %s\n", err.message);
        exit(77);
    }
    fkv_cpu_backend.close(b);
}

static inline int open_both(void **state) {
    (void)state;
    const char *name = getenv("FKV_TEST_BACKEND"), *compute = getenv("FKV_TEST_COMPUTE");
    struct fkv_device_info info;
    tested_compute = compute_named(compute);
    if (tested_compute == FKV_COMPUTE_BF16 && !name) skip_without_bf16();
    tested = open_side(name ? name : "cpu", tested_compute);
    reference = open_side("reference", FKV_COMPUTE_NATIVE);
    assert_ok(tested.ops->info(tested.b, &info, &err));
    tested_space = info.space;
    first_round = test_between(0, 999);
    printf("backend under test: %s (%s), computing in %s\n", tested.ops->name, info.name,
           compute ? compute : "native");
    return 0;
}

static inline int close_both(void **state) {
    (void)state;
    tested.ops->close(tested.b);
    reference.ops->close(reference.b);
    return 0;
}

/* The most units of something, up to `most`, that a round can afford at so many multiplications
 * each; at least one. */
static inline int affordable(double each, int most) {
    double units = (small_sizes() ? 1e6 : 6e6) / each;
    return units < 1 ? 1 : units < most ? (int)units : most;
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
    assert_ok(s.ops->buffer_create(s.b, bytes, &buffer, &err));
    assert_ok(s.ops->write(s.b, buffer, 0, data, bytes, &err));
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
    assert_ok(s.ops->read(s.b, buffer, 0, x, 4 * count, &err));
    return x;
}

static inline void release(struct both x) {
    tested.ops->buffer_release(tested.b, x.tested);
    reference.ops->buffer_release(reference.b, x.reference);
}

static inline void assert_both_close(struct both x, double absolute, double relative) {
    float *found = download(tested, x.tested, x.count),
          *expected = download(reference, x.reference, x.count);
    assert_arrays_close(found, expected, x.count, absolute, relative);
    free(found), free(expected);
}

/* A weight in the checkpoint's own dtype, adopted. On the host it lies where the file has it, at a
 * multiple of its element and of nothing more; a device has copied it to where a buffer of its own
 * may begin. */
struct weight {
    struct fkv_weight tested, reference;
    char *memory;
};

static inline struct weight random_weight(enum fkv_dtype t, int rows, int cols, double mean,
                                          double deviation) {
    size_t count = (size_t)rows * (size_t)cols, offset = (size_t)test_between(0, 40);
    offset *= tested_space == FKV_HOST ? fkv_dtype_bytes(t) : 256;
    float *x = random_numbers(count, mean, deviation);
    struct weight w = {.memory = malloc(offset + count * fkv_dtype_bytes(t))};
    assert_non_null(w.memory);
    fkv_from_f32(x, t, count, w.memory + offset);
    free(x);
    w.tested = w.reference = (struct fkv_weight){
        .offset = offset, .format = (enum fkv_weight_format)t, .rows = rows, .cols = cols};
    size_t bytes = offset + count * fkv_dtype_bytes(t);
    assert_ok(tested.ops->buffer_adopt(tested.b, w.memory, bytes, &w.tested.data, &err));
    assert_ok(reference.ops->buffer_adopt(reference.b, w.memory, bytes, &w.reference.data, &err));
    return w;
}

static inline void release_weight(struct weight *w) {
    tested.ops->buffer_release(tested.b, w->tested.data);
    reference.ops->buffer_release(reference.b, w->reference.data);
    free(w->memory);
    *w = (struct weight){0};
}

static inline enum fkv_dtype random_dtype(void) {
    return (enum fkv_dtype)test_between(FKV_F32, FKV_BF16);
}

/* Round by round through both sides of every size at which a backend might change its ways, and
 * beyond; 0 stands for some more than all of them. */
static const int row_counts[] = {1, 2, 3, 8, 9, 16, 17, 33, 64, 65, 129, 0};
enum { ROW_COUNTS = sizeof row_counts / sizeof *row_counts };

static inline int rows_of(int round) {
    int rows = row_counts[(round + first_round) % ROW_COUNTS];
    return rows ? rows : small_sizes() ? test_between(18, 60) : test_between(130, 300);
}

/* A width of up to `most`: of whole tiles, of whole vectors, or any. */
static inline int random_width(int most) {
    int unit = (int[]){64, 8, 1}[test_between(0, 2)];
    return most < unit ? test_between(1, most) : unit * test_between(1, most / unit);
}

static double test_inv_freq[128];

/* Channels that turn: all of them mostly, a part of them, none. A device refuses a part. */
static inline int32_t rotary_of(int32_t head_dim) {
    switch (test_between(tested_space == FKV_DEVICE, 5)) {
    case 0: return 2 * test_between(1, head_dim / 2);
    case 1: return 0;
    default: return head_dim;
    }
}

/* Every head size that models have, and an odd one out, by rounds; with every number of query heads
 * per KV head. */
static inline struct fkv_attention_shape shape_of(int round) {
    const int dims[] = {64, 80, 96, 128, 256, 2 * test_between(1, 100)}, groups[] = {1, 4, 8, 2, 3};
    struct fkv_attention_shape s = {.kv_heads = test_between(1, 3),
                                    .head_dim = dims[(round + first_round) % 6]};
    s.heads = s.kv_heads * groups[(round + first_round / 7) % 5];
    s.dim = test_between(1, 130);
    s.scale = (float)(1 / sqrt(s.head_dim));
    double base = test_between(0, 1) ? 10000 : 500000;
    s.rotary = rotary_of(s.head_dim);
    s.gain = test_between(0, 2) ? 1 : 1.25f;
    s.softcap = test_between(0, 2) ? 0 : 2.5f;
    for (int i = 0; i < s.rotary / 2; i++) test_inv_freq[i] = pow(base, -2.0 * i / s.rotary);
    s.inv_freq = test_inv_freq;
    return s;
}

/* Whole positions beyond any table as well as halves: a run compressed to slot centres starts
 * between two. */
static inline double random_position(void) {
    switch (test_between(0, 3)) {
    case 0: return 0;
    case 1: return test_between(0, 5000);
    case 2: return test_between(0, 2000000);
    default: return test_between(0, 100000) / 2.0;
    }
}

/* Scratch on both sides for these; sizes left out are 1, the width is the attention's. */
static inline void reserve_both(struct fkv_limits limits) {
    int32_t *sizes[] = {&limits.rows, &limits.hidden, &limits.vocab, &limits.slots, &limits.items};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (*sizes[i] == 0) *sizes[i] = 1;
    limits.dim = limits.attention.dim;
    assert_ok(tested.ops->reserve(tested.b, &limits, &err));
    assert_ok(reference.ops->reserve(reference.b, &limits, &err));
}

/* Cache heads with random contents, somewhere in larger buffers. */
struct cache {
    struct fkv_cache tested, reference;
    int heads;
    size_t count; /* elements of all heads */
};

static inline void fill_cache_state(enum fkv_dtype t, size_t count, double mean,
                                    struct fkv_buffer **a, struct fkv_buffer **b) {
    float *x = random_numbers(count, mean, 1);
    char *packed = malloc(count * fkv_dtype_bytes(t));
    assert_non_null(packed);
    fkv_from_f32(x, t, count, packed);
    fkv_to_f32(packed, t, count, x);
    *a = upload(tested, packed, count * fkv_dtype_bytes(t));
    *b = upload(reference, x, 4 * count);
    free(x), free(packed);
}

static inline struct cache random_cache(const struct fkv_attention_shape *shape, int heads,
                                        enum fkv_dtype t, int capacity, double mean) {
    struct cache c = {.heads = heads,
                      .count = (size_t)heads * (size_t)capacity * (size_t)shape->head_dim};
    size_t skip = test_between(0, 1) ? c.count : 0;
    c.tested =
        (struct fkv_cache){.offset = skip * fkv_dtype_bytes(t), .dtype = t, .capacity = capacity};
    c.reference = (struct fkv_cache){.offset = 4 * skip, .dtype = FKV_F32, .capacity = capacity};
    fill_cache_state(t, skip + c.count, mean, &c.tested.key, &c.reference.key);
    fill_cache_state(t, skip + c.count, mean, &c.tested.value, &c.reference.value);
    return c;
}

static inline void release_cache(struct cache *c) {
    tested.ops->buffer_release(tested.b, c->tested.key);
    tested.ops->buffer_release(tested.b, c->tested.value);
    reference.ops->buffer_release(reference.b, c->reference.key);
    reference.ops->buffer_release(reference.b, c->reference.value);
}

/* Keys or values of all heads as float32 [heads, capacity, head_dim]. */
static inline float *cache_contents(struct side s, const struct fkv_cache *cache, bool values,
                                    size_t count) {
    size_t bytes = count * fkv_dtype_bytes(cache->dtype);
    char *packed = malloc(bytes);
    float *x = numbers(count);
    assert_non_null(packed);
    assert_ok(
        s.ops->read(s.b, values ? cache->value : cache->key, cache->offset, packed, bytes, &err));
    fkv_to_f32(packed, cache->dtype, count, x);
    free(packed);
    return x;
}

/* Stored against exact results: float32 within `relative` of the largest; 16 bits no more than 1.2
 * times as far as rounding is, give or take what float32 arithmetic does where the exact result
 * happens to need no rounding. */
static inline void assert_stored(const float *found, const float *exact, size_t count,
                                 enum fkv_dtype t, double relative) {
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
        fail_msg("%s: stored %.4g from the exact result, rounding it %.4g (ratio %.3f)",
                 fkv_dtype_name(t), sqrt(distance), sqrt(rounding), sqrt(distance / rounding));
}

/* Head by head: slots [slot, slot+rows) as results stored against exact ones, everything outside of
 * [slot, slot+touched) as it was `before`. */
static inline void assert_cache(const struct cache *c, size_t head_dim, bool values,
                                const float *before, const int *slot, const int *rows,
                                const int *touched, double relative) {
    float *found = cache_contents(tested, &c->tested, values, c->count);
    float *exact = cache_contents(reference, &c->reference, values, c->count);
    for (int h = 0; h < c->heads; h++) {
        size_t at = ((size_t)h * (size_t)c->tested.capacity + (size_t)slot[h]) * head_dim;
        assert_stored(found + at, exact + at, (size_t)rows[h] * head_dim, c->tested.dtype,
                      relative);
        memcpy(found + at, before + at, 4 * head_dim * (size_t)touched[h]);
    }
    assert_memory_equal(found, before, 4 * c->count);
    free(found), free(exact);
}

/* ---- how far 16-bit products may lie from exact ones ----
 *
 * The backend under test rounds the operands of a product to u = 2^-8 (bfloat16) or 2^-11 (half)
 * and sums in float32. For y = sum_k w_k x_k of random numbers of mean 0 the rounding errors e =
 * sum_k w_k x_k (d_k + d'_k), |d| <= u, are independent, and a uniformly spread mantissa gives d
 * the deviation 0.42 u: e deviates by 0.6 u sqrt(k) dev(w) dev(x), which is 0.6 u times the
 * deviation of y itself (`size`). So the largest of a million errors stays below 5 * 0.6 u size,
 * and the root mean square of N of them, once N averages, near 0.6 u size. Where k is 1 or 2
 * nothing averages, but then |e| <= 2 u |y|. Hence
 *
 *   max |e| <= u (8 size + 4 max |y|),   rms(e) <= u ((1 + 4 / sqrt(N)) size + rms(y)):
 *
 * a term that is missing from a sum of a few hundred, or a row
 * that came from elsewhere, is far outside. In float32 the largest error may be 1e-5 of the largest
 * result: sums of some hundred terms in any order, at 6e-8 each. */

/* u of products with weights or a cache stored in `t`; 0 where they are float32's. */
static inline double unit_of(enum fkv_dtype t) {
    if (tested_compute == FKV_COMPUTE_BF16) return 0x1p-8;
    if (tested_space == FKV_HOST || tested_compute == FKV_COMPUTE_F32) return 0;
    return t == FKV_F32 ? 0 : t == FKV_F16 ? 0x1p-11 : 0x1p-8;
}

static inline double root_mean_square(const float *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return sqrt(sum / (double)(count ? count : 1));
}

/* found - expected, in place of found */
static inline void subtract(float *found, const float *expected, size_t count) {
    for (size_t i = 0; i < count; i++) found[i] -= expected[i];
}

static inline void assert_product_close(struct both y, enum fkv_dtype t, double size) {
    double u = unit_of(t);
    if (u == 0) {
        assert_both_close(y, 1e-6, 1e-5);
        return;
    }
    assert_both_close(y, 8 * u * size, 4 * u);
    float *found = download(tested, y.tested, y.count),
          *expected = download(reference, y.reference, y.count);
    subtract(found, expected, y.count);
    double error = root_mean_square(found, y.count), level = root_mean_square(expected, y.count);
    double allowed = u * ((1 + 4 / sqrt((double)y.count)) * size + level);
    if (!(error <= allowed))
        fail_msg("%zu numbers in %s: root mean square error %.4g, allowed %.4g", y.count,
                 fkv_dtype_name(t), error, allowed);
    free(found), free(expected);
}

#endif
