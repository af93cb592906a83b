/* The CUDA backend's three ways to compress, each forced, against the reference; other backends
 * have one way and skip this. */
#include "tests/cuda_methods.h"
#include "tests/unit/kernels/backend_support.h"

enum { MOST_HEADS = 4 };
static struct cuda_methods methods;

static int open_methods(void **state) {
    if (open_both(state)) return -1;
    if (cuda_methods_of(tested.ops, &methods)) return 0;
    printf("skipped: %s has no methods to choose from\n", tested.ops->name);
    return 0;
}

static void need_methods(void) {
    if (!methods.map_dct_by) skip();
}

/* Every radix of the fused kernel, alone, beside others, in both transforms; lengths with padding
 * between rows and without. */
static const int fused_lengths[][2] = {
    {1, 1},      {2, 1},       {16, 16},     {60, 30},     {62, 31},    {99, 45},
    {128, 96},   {143, 63},    {209, 77},    {221, 110},   {255, 187},  {256, 256},
    {323, 60},   {420, 105},   {437, 207},   {480, 200},   {512, 128},  {558, 279},
    {713, 667},  {667, 116},   {960, 64},    {4096, 4096}, {1020, 255}, {1023, 31},
    {1188, 594}, {2046, 1023}, {4092, 2046}, {4096, 3072}, {5120, 64},
};
static const int other_lengths[][2] = {
    {1, 1},  {2, 2},    {3, 2},     {7, 5},     {8, 3},     {31, 31},   {37, 11},
    {60, 7}, {127, 64}, {202, 101}, {254, 127}, {409, 100}, {508, 254}, {1111, 555},
};
enum {
    FUSED = sizeof fused_lengths / sizeof *fused_lengths,
    OTHERS = sizeof other_lengths / sizeof *other_lengths,
};

/* Lengths whose exact operator an emulated round can afford; n L numbers by their kernel alone. */
static bool too_long(int n, int retained) {
    return small_sizes() && (double)n * retained > 1e6 && n != 4092;
}

static struct fkv_attention_shape narrow_shape(int n, int retained) {
    static const int dims[] = {2, 6, 8, 10, 16, 20, 32, 64, 80, 96, 128, 256};
    int d = dims[test_between(0, 11)], most = affordable(2.0 * n * retained, 256);
    while (d > 2 && d > most) d = dims[test_between(0, 11)];
    struct fkv_attention_shape s = {
        .heads = 1, .kv_heads = 1, .head_dim = d, .dim = d, .scale = 1, .rotary = d, .gain = 1};
    for (int i = 0; i < d / 2; i++) test_inv_freq[i] = pow(10000, -2.0 * i / d);
    s.inv_freq = test_inv_freq;
    return s;
}

static void assert_energies(const struct fkv_energy *found, const struct fkv_energy *expected,
                            int count, double kept) {
    for (int i = 0; i < count; i++) {
        assert_close(found[i].key_before, expected[i].key_before, 0, 1e-5);
        assert_close(found[i].key_kept, expected[i].key_kept, 0, kept);
        assert_close(found[i].value_before, expected[i].value_before, 0, 1e-5);
        assert_close(found[i].value_kept, expected[i].value_kept, 0, kept);
    }
}

/* Operands in TF32 are off by 2^-12 on average, bfloat16 in two parts by 2^-17. Rows of the
 * operator resemble each other where n is a multiple of L, so a mean's rounding is the same in all
 * of them and does not average out: twice that for the square. */
static double energy_tolerance(enum fkv_cuda_method method, enum fkv_dtype dtype, int n) {
    if (method != FKV_CUDA_PRODUCT || dtype == FKV_F32 || n < 256) return 1e-5;
    return dtype == FKV_BF16 && n >= 1024 ? 0x1p-11 : 3e-5;
}

/* A transform's rounding grows with the logarithm of n, a sum of n products with its root. */
static double tolerance(enum fkv_cuda_method method, int n) {
    return method == FKV_CUDA_PRODUCT ? 3e-6 + 1e-7 * sqrt(n) : 3e-6;
}

static void compare(enum fkv_cuda_method method, enum fkv_dtype dtype, int n, int retained) {
    static const double means[] = {0, 0.5, 30};
    struct fkv_attention_shape s = narrow_shape(n, retained);
    int heads = affordable(4.0 * n * retained * s.head_dim, MOST_HEADS),
        capacity = n + test_between(0, 9), count = 0;
    int slot[MOST_HEADS] = {0}, rows[MOST_HEADS] = {0}, touched[MOST_HEADS] = {0};
    double gain = test_between(0, 2) ? sqrt((double)retained / n) : 1,
           mean = means[test_between(0, 2)];
    struct cache cache = random_cache(&s, heads, dtype, capacity, mean);
    reserve_both((struct fkv_limits){.slots = capacity, .items = heads, .attention = s});
    float *keys = cache_contents(tested, &cache.tested, false, cache.count),
          *values = cache_contents(tested, &cache.tested, true, cache.count);
    struct fkv_compress_item items[MOST_HEADS];
    for (int h = heads - 1; h >= 0; h--) {
        if (count && test_between(0, 4) == 0) continue;
        slot[h] = test_between(0, capacity - n), rows[h] = retained, touched[h] = n;
        items[count++] = (struct fkv_compress_item){h, slot[h],
                                                    test_between(0, 1)   ? slot[h]
                                                    : test_between(0, 1) ? 1e6 * test_uniform()
                                                                         : -3.5};
    }
    printf("%s, %s: n = %d, L = %d, head_dim %d, %d heads, mean %g\n", cuda_method_names[method],
           fkv_dtype_name(dtype), n, retained, s.head_dim, count, mean);
    struct fkv_map *map, *exact;
    struct fkv_energy found[MOST_HEADS], expected[MOST_HEADS];
    bool measured = test_between(0, 2);
    assert_ok(methods.map_dct_by(tested.b, n, retained, gain, method, &map, &err));
    assert_int_equal(methods.map_method(map, dtype), method);
    assert_ok(reference.ops->map_dct(reference.b, n, retained, gain, &exact, &err));
    assert_ok(tested.ops->compress(tested.b, &s, map, &cache.tested, items, count,
                                   measured ? found : NULL, &err));
    assert_ok(reference.ops->compress(reference.b, &s, exact, &cache.reference, items, count,
                                      expected, &err));
    assert_cache(&cache, (size_t)s.head_dim, false, keys, slot, rows, touched,
                 tolerance(method, n));
    assert_cache(&cache, (size_t)s.head_dim, true, values, slot, rows, touched,
                 tolerance(method, n));
    if (measured) assert_energies(found, expected, count, energy_tolerance(method, dtype, n));
    tested.ops->map_release(tested.b, map);
    reference.ops->map_release(reference.b, exact);
    release_cache(&cache);
    free(keys), free(values);
}

TEST(the_fused_kernel_equals_the_reference) {
    need_methods();
    for (int i = 0; i < FUSED; i++)
        if (!too_long(fused_lengths[i][0], fused_lengths[i][1]))
            compare(FKV_CUDA_FUSED, (enum fkv_dtype)((i + first_round) % 3), fused_lengths[i][0],
                    fused_lengths[i][1]);
}

TEST(products_equal_the_reference) {
    need_methods();
    for (int i = 0; i < 2 * OTHERS; i++)
        compare(FKV_CUDA_PRODUCT, (enum fkv_dtype)((i + first_round) % 3),
                other_lengths[i % OTHERS][0], other_lengths[i % OTHERS][1]);
    compare(FKV_CUDA_PRODUCT, FKV_BF16, 1111, 555); /* long enough for TF32 */
}

TEST(cufft_equals_the_reference) {
    need_methods();
    for (int i = 0; i < 2 * OTHERS; i++)
        compare(FKV_CUDA_FFT, (enum fkv_dtype)((i + first_round) % 3), other_lengths[i % OTHERS][0],
                other_lengths[i % OTHERS][1]);
}

TEST(all_methods_agree_at_the_default_window) {
    need_methods();
    for (int m = 0; m < FKV_CUDA_METHODS; m++)
        compare((enum fkv_cuda_method)m, (enum fkv_dtype)((m + first_round) % 3), 4092, 2046);
}

TEST(a_large_prime_factor_has_no_fused_kernel) {
    need_methods();
    struct fkv_map *map;
    assert_refused(methods.map_dct_by(tested.b, 8188, 4094, 1, FKV_CUDA_FUSED, &map, &err), "8188");
    assert_null(map);
    assert_ok(tested.ops->map_dct(tested.b, 508, 127, 1, &map, &err));
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        assert_int_not_equal(methods.map_method(map, (enum fkv_dtype)t), FKV_CUDA_FUSED);
    tested.ops->map_release(tested.b, map);
}

TEST_GROUP(open_methods, close_both)
