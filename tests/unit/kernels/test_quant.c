/* Rounding of cached states: the grids themselves, and that append, compress and gather of the
 * backend under test and of the reference leave states on them. Keys are turned in float32 by one
 * and in double by the other, so a code next to a boundary may differ: each side is held to the
 * grid and to the exact state, not to the other. */
#include "tests/unit/kernels/backend_support.h"

enum { ROUNDS = 12, MOST_HEADS = 12 };

static int rounds(void) { return small_sizes() ? ROUNDS / 3 : ROUNDS; }

TEST(grids_are_those_of_ggml) {
    /* q8 has steps of 2/127, q4 of 0.25. */
    const float x[] = {-2, 1.01F, 0.124F, 0.126F, 1.99F, 0, -0.001F, 0.875F};
    const float q4[] = {-2,    1, 0, 0.25F,
                        1.75F, 0, 0, 1}; /* 1.99 rounds to 8, 0.875 is half way to 4 */
    const size_t n = sizeof x / sizeof *x;
    float y[sizeof x / sizeof *x];
    fkv_quant_round(FKV_QUANT_Q4, x, n, y);
    for (size_t i = 0; i < n; i++) assert_true(y[i] == q4[i]);
    const float scale = fkv_f16_to_f32(fkv_f32_to_f16(2.0F / 127));
    const float codes[] = {-127, 64, 8, 8, 126, 0, 0, 56};
    fkv_quant_round(FKV_QUANT_Q8, x, n, y);
    for (size_t i = 0; i < n; i++) assert_true(y[i] == scale * codes[i]);
    const float zeros[3] = {0, 0, 1e-12F};
    fkv_quant_round(FKV_QUANT_Q8, zeros, 3, y);
    for (int i = 0; i < 3; i++) assert_true(y[i] == 0);
}

TEST(groups_are_rounded_by_themselves_and_counted) {
    assert_int_equal(fkv_quant_bytes(FKV_QUANT_Q8, 64), 68);
    assert_int_equal(fkv_quant_bytes(FKV_QUANT_Q4, 128), 72);
    assert_int_equal(fkv_quant_bytes(FKV_QUANT_Q8, 80), 34 + 34 + 18);
    assert_int_equal(fkv_quant_bytes(FKV_QUANT_Q4, 80), 18 + 18 + 10);
    for (int round = 0; round < 20; round++) {
        const enum fkv_quant quant = round % 2 ? FKV_QUANT_Q8 : FKV_QUANT_Q4;
        const size_t n = (size_t)test_between(1, 200);
        float *x = random_numbers(n, 0, 1), *y = numbers(n), *z = numbers(n);
        fkv_quant_round(quant, x, n, y);
        fkv_quant_round(quant, y, n, z);
        assert_memory_equal(z, y, 4 * n);
        for (size_t i = 0; i < n; i += FKV_QUANT_GROUP)
            fkv_quant_round(quant, x + i, n - i < 32 ? n - i : 32, z + i);
        assert_memory_equal(z, y, 4 * n);
        free(x), free(y), free(z);
    }
}

/* ---- states in a cache ---- */

/* x [d] turned by position times `direction`. */
static void turn(const struct fkv_attention_shape *s, double position, float *x) {
    const int half = s->rotary / 2;
    for (int i = 0; i < half; i++) {
        const double angle = position * s->inv_freq[i], a = x[i], b = x[i + half];
        x[i] = (float)(a * cos(angle) - b * sin(angle));
        x[i + half] = (float)(b * cos(angle) + a * sin(angle));
    }
}

/* The row `found` [d] is on its grid, but for rounding to `t` and by `slack` of a group's largest,
 * and not further from `exact` [d] than its grid's step. */
static void assert_on_grid(const float *found, const float *exact, int d, enum fkv_quant quant,
                           enum fkv_dtype t, double slack) {
    const double stored = t == FKV_F32 ? 0 : t == FKV_F16 ? 1e-3 : 8e-3;
    float grid[512];
    fkv_quant_round(quant, found, (size_t)d, grid);
    for (int first = 0; first < d; first += FKV_QUANT_GROUP) {
        const int end = first + FKV_QUANT_GROUP < d ? first + FKV_QUANT_GROUP : d;
        double largest = 0;
        for (int i = first; i < end; i++) largest = fmax(largest, fabs(exact[i]));
        const double step = quant == FKV_QUANT_Q8 ? 0.58 * largest / 127 : 1.02 * largest / 8;
        for (int i = first; i < end; i++) {
            if (!(fabs(found[i] - (double)exact[i]) <= step + (stored + slack) * largest))
                fail_msg("%s, channel %d of %d: expected %.7g, found %.7g, steps of %.3g",
                         fkv_quant_name(quant), i, d, exact[i], found[i], step);
            if (t == FKV_F32 && !(fabs(found[i] - (double)grid[i]) <= slack * largest))
                fail_msg("%s, channel %d of %d: expected %.7g on the grid, found %.7g",
                         fkv_quant_name(quant), i, d, grid[i], found[i]);
        }
    }
}

/* A key as the cache has it, at `position`, against the exact one, not turned. */
static void assert_key(const struct fkv_cache *cache, const struct fkv_attention_shape *s,
                       double position, const float *found, const float *exact) {
    float x[512], y[512];
    memcpy(x, found, 4 * (size_t)s->head_dim);
    memcpy(y, exact, 4 * (size_t)s->head_dim);
    if (cache->quant_before)
        turn(s, -position, x);
    else
        turn(s, position, y);
    assert_on_grid(x, y, s->head_dim, cache->quant, cache->dtype,
                   cache->quant_before ? 2e-6 : 1e-6);
}

static struct cache rounding_cache(const struct fkv_attention_shape *s, int round, int heads,
                                   int capacity) {
    struct cache c = random_cache(s, heads, (enum fkv_dtype)(round / 4 % 3), capacity, 0);
    c.tested.quant = c.reference.quant = round % 2 ? FKV_QUANT_Q8 : FKV_QUANT_Q4;
    c.tested.quant_before = c.reference.quant_before = round / 2 % 2;
    return c;
}

TEST(appended_states_are_on_the_grid) {
    for (int round = 0; round < rounds(); round++) {
        const struct fkv_attention_shape s = shape_of(round);
        const int rows = test_between(1, 9), capacity = rows + 2, slot = test_between(0, 2);
        const double position = random_position();
        struct cache c = rounding_cache(&s, round, s.kv_heads, capacity);
        reserve_both((struct fkv_limits){
            .rows = rows, .slots = capacity, .items = s.kv_heads, .attention = s});
        const size_t d = (size_t)s.head_dim, width = d * (size_t)s.kv_heads,
                     count = (size_t)rows * width;
        struct both k = random_both(count, 0.3, 1), v = random_both(count, 0.3, 1);
        float *keys = download(tested, k.tested, count),
              *values = download(tested, v.tested, count), *rounded = numbers(d);
        struct fkv_append_item items[MOST_HEADS];
        for (int h = 0; h < s.kv_heads; h++)
            items[h] = (struct fkv_append_item){h, h, 0, rows, slot, position};
        assert_ok(tested.ops->append(tested.b, &s, k.tested, v.tested, &c.tested, items, s.kv_heads,
                                     &err));
        assert_ok(reference.ops->append(reference.b, &s, k.reference, v.reference, &c.reference,
                                        items, s.kv_heads, &err));
        for (int side = 0; side < 2; side++) {
            const struct fkv_cache *cache = side ? &c.reference : &c.tested;
            float *key = cache_contents(side ? reference : tested, cache, false, c.count),
                  *value = cache_contents(side ? reference : tested, cache, true, c.count);
            for (int i = 0; i < rows * s.kv_heads; i++) {
                const int row = i / s.kv_heads, h = i % s.kv_heads;
                const size_t from = (size_t)row * width + (size_t)h * d,
                             to = (size_t)(h * capacity + slot + row) * d;
                assert_key(cache, &s, position + row, key + to, keys + from);
                fkv_quant_round(cache->quant, values + from, d, rounded);
                char packed[4];
                for (size_t j = 0; j < d; j++) { /* values are not turned: exactly that */
                    fkv_from_f32(rounded + j, cache->dtype, 1, packed);
                    fkv_to_f32(packed, cache->dtype, 1, rounded + j);
                    assert_true(value[to + j] == rounded[j]);
                }
            }
            free(key), free(value);
        }
        free(keys), free(values), free(rounded);
        release(k), release(v);
        release_cache(&c);
    }
}

/* What the reference makes of the same cache without a grid, in float32, is the exact result. */
TEST(compressed_states_are_on_the_grid) {
    for (int round = 0; round < rounds(); round++) {
        const struct fkv_attention_shape s = shape_of(round);
        const int n = test_between(2, 40), retained = test_between(1, n), slot = test_between(0, 3),
                  capacity = slot + n;
        const size_t d = (size_t)s.head_dim;
        struct cache c = rounding_cache(&s, round, 1, capacity);
        reserve_both((struct fkv_limits){.slots = capacity, .attention = s});
        struct fkv_map *map[2];
        assert_ok(tested.ops->map_dct(tested.b, n, retained, 1, &map[0], &err));
        assert_ok(reference.ops->map_dct(reference.b, n, retained, 1, &map[1], &err));
        const struct fkv_compress_item item = {0, slot, slot};
        c.reference.quant = FKV_NO_QUANT;
        assert_ok(tested.ops->compress(tested.b, &s, map[0], &c.tested, &item, 1, NULL, &err));
        assert_ok(
            reference.ops->compress(reference.b, &s, map[1], &c.reference, &item, 1, NULL, &err));
        float *key = cache_contents(tested, &c.tested, false, c.count),
              *value = cache_contents(tested, &c.tested, true, c.count),
              *exact_key = cache_contents(reference, &c.reference, false, c.count),
              *exact_value = cache_contents(reference, &c.reference, true, c.count);
        for (int j = slot; j < slot + retained; j++) {
            turn(&s, -j, exact_key + (size_t)j * d);
            assert_key(&c.tested, &s, j, key + (size_t)j * d, exact_key + (size_t)j * d);
            assert_on_grid(value + (size_t)j * d, exact_value + (size_t)j * d, s.head_dim,
                           c.tested.quant, c.tested.dtype, 1e-5);
        }
        free(key), free(value), free(exact_key), free(exact_value);
        tested.ops->map_release(tested.b, map[0]);
        reference.ops->map_release(reference.b, map[1]);
        release_cache(&c);
    }
}

/* Keys that a gather turns are rounded again; what it does not turn stays bit for bit, and so do
 * values and, rounded before their rotation, keys but for the turn. */
TEST(gathered_keys_are_on_the_grid) {
    for (int round = 0; round < rounds(); round++) {
        const struct fkv_attention_shape s = shape_of(round);
        const int slots = test_between(2, 20), count = test_between(1, slots - 1),
                  from_slot = slots - count;
        const double shift = test_between(0, 3) ? -from_slot : 0;
        const size_t d = (size_t)s.head_dim;
        struct cache c = rounding_cache(&s, round, 1, slots);
        reserve_both((struct fkv_limits){.slots = slots, .attention = s});
        float *key_before = cache_contents(tested, &c.tested, false, c.count),
              *value_before = cache_contents(tested, &c.tested, true, c.count);
        int32_t from[20];
        for (int j = 0; j < count; j++) from[j] = from_slot + j;
        const struct fkv_gather_item item = {0, 0, count, from, shift};
        assert_ok(tested.ops->gather(tested.b, &s, &c.tested, &item, 1, NULL, &err));
        float *key = cache_contents(tested, &c.tested, false, c.count),
              *value = cache_contents(tested, &c.tested, true, c.count);
        for (int j = 0; j < count; j++) {
            float *expected = key_before + (size_t)(from_slot + j) * d,
                  *found = key + (size_t)j * d;
            turn(&s, shift, expected);
            if (shift == 0)
                assert_memory_equal(found, expected, 4 * d);
            else if (c.tested.quant_before)
                assert_arrays_close(found, expected, d, 1e-30, c.tested.dtype ? 8e-3 : 1e-6);
            else
                assert_on_grid(found, expected, s.head_dim, c.tested.quant, c.tested.dtype, 1e-6);
        }
        assert_memory_equal(value, value_before + (size_t)from_slot * d, 4 * (size_t)count * d);
        free(key_before), free(value_before), free(key), free(value);
        release_cache(&c);
    }
}

TEST_GROUP(open_both, close_both)
