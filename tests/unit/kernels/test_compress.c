/* The linear maps of the backend under test: FreqKV's operator by its properties and against its
 * matrix, gathering against the reference. */
#include "tests/unit/kernels/backend_support.h"

enum { ROUNDS = 16, MOST_HEADS = 24 };

/* Emulated backends get fewer rounds of everything. */
static int rounds(int many) { return small_sizes() ? many / 4 : many; }

static double basis(int t, int j, int n) {
    return sqrt((t ? 2.0 : 1.0) / n) *
           cos(acos(-1) * (double)((int64_t)t * (2 * j + 1) % (4 * (int64_t)n)) / (2.0 * n));
}

static struct fkv_attention_shape one_head(int round) {
    struct fkv_attention_shape s = shape_of(round);
    s.kv_heads = s.heads = 1;
    return s;
}

/* x [rows, head_dim]: row i turned by (position + i) times `direction` */
static void turn(const struct fkv_attention_shape *s, double position, int direction, int rows,
                 float *x) {
    int half = s->rotary / 2;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < half; i++) {
            double angle = direction * (position + r) * s->inv_freq[i];
            float *a = x + r * s->head_dim + i, *b = a + half, was = *a;
            *a = (float)(was * cos(angle) - *b * sin(angle));
            *b = (float)(*b * cos(angle) + was * sin(angle));
        }
}

/* Keys and values [n, head_dim], not rotated -> what a float32 cache holds after compression
 * [retained, head_dim], likewise. */
static void compress(const struct fkv_attention_shape *s, int n, int retained, double gain,
                     const float *key, const float *value, float *key_out, float *value_out,
                     struct fkv_energy *energy) {
    size_t d = (size_t)s->head_dim, in = (size_t)n * d, out = (size_t)retained * d;
    int slot = test_between(0, 5);
    double position = test_between(0, 1) ? slot : test_between(0, 100000);
    struct fkv_cache layer = {.dtype = FKV_F32, .capacity = slot + n + test_between(0, 3)};
    size_t bytes = 4 * d * (size_t)layer.capacity, offset = 4 * d * (size_t)slot;
    float *rotated = numbers(in);
    memcpy(rotated, key, 4 * in);
    turn(s, position, 1, n, rotated);
    assert_ok(tested.ops->buffer_create(tested.b, bytes, &layer.key, &err));
    assert_ok(tested.ops->buffer_create(tested.b, bytes, &layer.value, &err));
    assert_ok(tested.ops->write(tested.b, layer.key, offset, rotated, 4 * in, &err));
    assert_ok(tested.ops->write(tested.b, layer.value, offset, value, 4 * in, &err));
    reserve_both((struct fkv_limits){.slots = layer.capacity, .attention = *s});
    struct fkv_map *map;
    assert_ok(tested.ops->map_dct(tested.b, n, retained, gain, &map, &err));
    struct fkv_compress_item item = {0, slot, position};
    assert_ok(tested.ops->compress(tested.b, s, map, &layer, &item, 1, energy, &err));
    assert_ok(tested.ops->read(tested.b, layer.key, offset, key_out, 4 * out, &err));
    assert_ok(tested.ops->read(tested.b, layer.value, offset, value_out, 4 * out, &err));
    turn(s, position, -1, retained, key_out);
    tested.ops->map_release(tested.b, map);
    tested.ops->buffer_release(tested.b, layer.key);
    tested.ops->buffer_release(tested.b, layer.value);
    free(rotated);
}

static int random_length(void) {
    static const int lengths[] = {1, 2, 60, 127, 409, 508, 1020};
    if (small_sizes())
        return test_between(0, 1) ? test_between(1, 90) : lengths[test_between(0, 3)];
    return test_between(0, 2) ? test_between(1, 300) : lengths[test_between(0, 6)];
}

TEST(keeping_every_coefficient_is_the_identity) {
    for (int round = 0; round < rounds(ROUNDS); round++) {
        struct fkv_attention_shape s = one_head(round);
        int n = random_length();
        size_t count = (size_t)(n * s.head_dim);
        float *key = random_numbers(count, 0.5, 1), *value = random_numbers(count, 0.5, 1),
              *k = numbers(count), *v = numbers(count);
        compress(&s, n, n, 1, key, value, k, v, NULL);
        assert_arrays_close(k, key, count, 0, 3e-6);
        assert_arrays_close(v, value, count, 0, 3e-6);
        free(key), free(value), free(k), free(v);
    }
}

TEST(a_constant_sequence_stays_that_constant) {
    for (int round = 0; round < rounds(ROUNDS); round++) {
        struct fkv_attention_shape s = one_head(round);
        int n = random_length(), retained = test_between(1, n), d = s.head_dim;
        float *level = random_numbers((size_t)d, 0, 2), *x = numbers((size_t)(n * d)),
              *k = numbers((size_t)(n * d)), *v = numbers((size_t)(n * d));
        for (int i = 0; i < n * d; i++) x[i] = level[i % d];
        compress(&s, n, retained, sqrt((double)retained / n), x, x, k, v, NULL);
        assert_arrays_close(k, x, (size_t)(retained * d), 0, 3e-6);
        assert_arrays_close(v, x, (size_t)(retained * d), 0, 3e-6);
        free(level), free(x), free(k), free(v);
    }
}

TEST(compression_is_linear) {
    for (int round = 0; round < rounds(ROUNDS); round++) {
        struct fkv_attention_shape s = one_head(round);
        int n = random_length(), retained = test_between(1, n);
        size_t in = (size_t)(n * s.head_dim), out = (size_t)(retained * s.head_dim);
        double gain = sqrt((double)retained / n);
        float *x = random_numbers(in, 0, 1), *y = random_numbers(in, 0, 1), *z = numbers(in),
              a = (float)test_normal(), b = (float)test_normal();
        float *kx = numbers(out), *ky = numbers(out), *kz = numbers(out), *vx = numbers(out),
              *vy = numbers(out), *vz = numbers(out);
        for (size_t i = 0; i < in; i++) z[i] = a * x[i] + b * y[i];
        compress(&s, n, retained, gain, x, x, kx, vx, NULL);
        compress(&s, n, retained, gain, y, y, ky, vy, NULL);
        compress(&s, n, retained, gain, z, z, kz, vz, NULL);
        for (size_t i = 0; i < out; i++)
            kx[i] = a * kx[i] + b * ky[i], vx[i] = a * vx[i] + b * vy[i];
        double size = fabs((double)a) + fabs((double)b);
        assert_arrays_close(kz, kx, out, 3e-5 * size, 0);
        assert_arrays_close(vz, vx, out, 3e-5 * size, 0);
        free(x), free(y), free(z), free(kx), free(ky), free(kz), free(vx), free(vy), free(vz);
    }
}

/* gain IDCT_L [I_L 0] DCT_n, multiplied out, and the energies it keeps. */
TEST(compression_equals_its_dense_matrix) {
    for (int round = 0; round < rounds(ROUNDS); round++) {
        struct fkv_attention_shape s = one_head(round);
        int n = random_length(), retained = test_between(1, n), d = s.head_dim;
        double gain = test_between(0, 1) ? sqrt((double)retained / n) : 1;
        size_t in = (size_t)(n * d), out = (size_t)(retained * d);
        float *x = random_numbers(in, 0.3, 1), *k = numbers(out), *v = numbers(out),
              *expected = numbers(out);
        struct fkv_energy energy;
        compress(&s, n, retained, gain, x, x, k, v, &energy);
        double *y = calloc(out, sizeof *y), before = 0, kept = 0;
        for (int t = 0; t < retained; t++)
            for (int j = 0; j < n; j++) {
                double weight = basis(t, j, n);
                for (int c = 0; c < d; c++) y[t * d + c] += weight * x[j * d + c];
            }
        for (int j = 0; j < retained; j++)
            for (int c = 0; c < d; c++) {
                double sum = 0;
                for (int t = 0; t < retained; t++) sum += basis(t, j, retained) * y[t * d + c];
                expected[j * d + c] = (float)(gain * sum);
            }
        assert_arrays_close(k, expected, out, 0, 3e-6);
        assert_arrays_close(v, expected, out, 0, 3e-6);
        for (size_t i = 0; i < in; i++) before += (double)x[i] * x[i];
        for (size_t i = 0; i < out; i++) kept += y[i] * y[i];
        assert_close(energy.key_before, before, 0, 1e-5);
        assert_close(energy.value_before, before, 0, 1e-5);
        assert_close(energy.key_kept, kept, 0, 1e-5);
        assert_close(energy.value_kept, kept, 0, 1e-5);
        free(x), free(k), free(v), free(expected), free(y);
    }
}

TEST(reversing_time_before_is_reversing_it_after) {
    for (int round = 0; round < rounds(ROUNDS); round++) {
        struct fkv_attention_shape s = one_head(round);
        int n = random_length(), retained = test_between(1, n), d = s.head_dim;
        size_t in = (size_t)(n * d), out = (size_t)(retained * d);
        float *x = random_numbers(in, 0, 1), *r = numbers(in), *kx = numbers(out),
              *vx = numbers(out), *kr = numbers(out), *vr = numbers(out), *back = numbers(out);
        for (int i = 0; i < n * d; i++) r[i] = x[(n - 1 - i / d) * d + i % d];
        compress(&s, n, retained, 1, x, x, kx, vx, NULL);
        compress(&s, n, retained, 1, r, r, kr, vr, NULL);
        for (int i = 0; i < retained * d; i++) back[i] = kr[(retained - 1 - i / d) * d + i % d];
        assert_arrays_close(back, kx, out, 0, 3e-6);
        for (int i = 0; i < retained * d; i++) back[i] = vr[(retained - 1 - i / d) * d + i % d];
        assert_arrays_close(back, vx, out, 0, 3e-6);
        free(x), free(r), free(kx), free(vx), free(kr), free(vr), free(back);
    }
}

static void assert_energies(const struct fkv_energy *found, const struct fkv_energy *expected,
                            int count) {
    for (int i = 0; i < count; i++) {
        assert_close(found[i].key_before, expected[i].key_before, 0, 1e-5);
        assert_close(found[i].key_kept, expected[i].key_kept, 0, 1e-5);
        assert_close(found[i].value_before, expected[i].value_before, 0, 1e-5);
        assert_close(found[i].value_kept, expected[i].value_kept, 0, 1e-5);
    }
}

/* In 16 bits the stored result is at most 1.2 times as far from the exact one as rounding is; in
 * every dtype nothing outside a head's slots changes. Cache heads of all layers and sequences go in
 * one call; those that are not due are not named. */
TEST(stored_results_are_as_near_as_their_dtype_allows) {
    for (int round = 0; round < rounds(3 * ROUNDS); round++) {
        struct fkv_attention_shape s = shape_of(round);
        int n = random_length(), heads = affordable(2.0 * n * n * s.head_dim, MOST_HEADS),
            retained = test_between(1, n), capacity = n + test_between(0, 9), count = 0;
        int slot[MOST_HEADS] = {0}, rows[MOST_HEADS] = {0}, touched[MOST_HEADS] = {0};
        double gain = sqrt((double)retained / n);
        struct cache cache = random_cache(&s, heads, (enum fkv_dtype)(round % 3), capacity, 0.5);
        reserve_both((struct fkv_limits){.slots = capacity, .items = heads, .attention = s});
        float *keys = cache_contents(tested, &cache.tested, false, cache.count),
              *values = cache_contents(tested, &cache.tested, true, cache.count);
        struct fkv_compress_item items[MOST_HEADS];
        for (int h = heads - 1; h >= 0; h--) {
            if (test_between(0, 4) == 0) continue;
            slot[h] = test_between(0, capacity - n), rows[h] = retained, touched[h] = n;
            items[count++] = (struct fkv_compress_item){
                h, slot[h], test_between(0, 1) ? slot[h] : test_between(0, 50000)};
        }
        struct fkv_map *map, *exact;
        struct fkv_energy found[MOST_HEADS], expected[MOST_HEADS];
        bool measured = test_between(0, 2);
        assert_ok(tested.ops->map_dct(tested.b, n, retained, gain, &map, &err));
        assert_ok(reference.ops->map_dct(reference.b, n, retained, gain, &exact, &err));
        assert_ok(tested.ops->compress(tested.b, &s, map, &cache.tested, items, count,
                                       measured ? found : NULL, &err));
        assert_ok(reference.ops->compress(reference.b, &s, exact, &cache.reference, items, count,
                                          expected, &err));
        assert_cache(&cache, (size_t)s.head_dim, false, keys, slot, rows, touched, 3e-6);
        assert_cache(&cache, (size_t)s.head_dim, true, values, slot, rows, touched, 3e-6);
        if (measured) assert_energies(found, expected, count);
        tested.ops->map_release(tested.b, map);
        reference.ops->map_release(reference.b, exact);
        release_cache(&cache);
        free(keys), free(values);
    }
}

/* Rows of unequal length, one of zeros now and then, one matrix for both or one each: in 16 bits as
 * near as above; nothing outside a head's slots changes. */
TEST(any_matrix_is_multiplied) {
    for (int round = 0; round < rounds(3 * ROUNDS); round++) {
        struct fkv_attention_shape s = shape_of(round);
        int n = random_length(), heads = affordable(2.0 * n * n * s.head_dim, MOST_HEADS),
            retained = test_between(1, n), capacity = n + test_between(0, 9);
        int slot[MOST_HEADS] = {0}, rows[MOST_HEADS] = {0}, touched[MOST_HEADS] = {0};
        struct cache cache = random_cache(&s, heads, (enum fkv_dtype)(round % 3), capacity, 0.5);
        reserve_both((struct fkv_limits){.slots = capacity, .items = heads, .attention = s});
        float *keys = cache_contents(tested, &cache.tested, false, cache.count),
              *values = cache_contents(tested, &cache.tested, true, cache.count);
        struct fkv_compress_item items[MOST_HEADS];
        for (int h = 0; h < heads; h++) {
            slot[h] = test_between(0, capacity - n), rows[h] = retained, touched[h] = n;
            items[h] = (struct fkv_compress_item){h, slot[h], slot[h]};
        }
        const size_t count = (size_t)n * (size_t)retained;
        float *key = random_numbers(count, 0, 1 / sqrt(n)),
              *other = random_numbers(count, 0.5 / n, 1 / sqrt(n)),
              *value = test_between(0, 1) ? key : other;
        if (test_between(0, 2) == 0) memset(key, 0, (size_t)n * sizeof *key);
        struct fkv_map *map, *exact;
        struct fkv_energy found[MOST_HEADS], expected[MOST_HEADS];
        assert_ok(tested.ops->map_matrix(tested.b, n, retained, key, value, &map, &err));
        assert_ok(reference.ops->map_matrix(reference.b, n, retained, key, value, &exact, &err));
        memset(key, 0xff, count * sizeof *key); /* ours again */
        assert_ok(
            tested.ops->compress(tested.b, &s, map, &cache.tested, items, heads, found, &err));
        assert_ok(reference.ops->compress(reference.b, &s, exact, &cache.reference, items, heads,
                                          expected, &err));
        assert_cache(&cache, (size_t)s.head_dim, false, keys, slot, rows, touched, 3e-6);
        assert_cache(&cache, (size_t)s.head_dim, true, values, slot, rows, touched, 3e-6);
        assert_energies(found, expected, heads);
        tested.ops->map_release(tested.b, map);
        reference.ops->map_release(reference.b, exact);
        release_cache(&cache);
        free(keys), free(values), free(key), free(other);
    }
}

/* Every sixth round has as many heads as all layers and sequences of a model do. */
TEST(gathering_moves_slots_and_turns_keys_by_the_shift) {
    enum { MOST_GATHERED = 150 };
    for (int round = 0; round < rounds(3 * ROUNDS); round++) {
        struct fkv_attention_shape s = shape_of(round);
        int capacity = test_between(1, small_sizes() ? 70 : 400),
            heads = test_between(1, MOST_HEADS);
        if (round % 6 == 5) capacity = capacity % 40 + 1, heads = test_between(65, MOST_GATHERED);
        int slot[MOST_GATHERED], rows[MOST_GATHERED], touched[MOST_GATHERED];
        struct cache cache = random_cache(&s, heads, (enum fkv_dtype)(round % 3), capacity, 0.5);
        reserve_both((struct fkv_limits){.slots = capacity, .items = heads, .attention = s});
        float *keys = cache_contents(tested, &cache.tested, false, cache.count),
              *values = cache_contents(tested, &cache.tested, true, cache.count);
        int32_t *from = malloc(sizeof *from * MOST_GATHERED * (size_t)capacity);
        struct fkv_gather_item items[MOST_GATHERED];
        for (int h = 0; h < heads; h++) {
            int32_t *list = from + h * capacity, count = 0;
            slot[h] = test_between(0, capacity - 1);
            for (int i = slot[h]; i < capacity; i++)
                if (test_between(0, 2) == 0) list[count++] = i;
            if (!count) list[count++] = capacity - 1;
            rows[h] = count, touched[h] = list[count - 1] - slot[h] + 1;
            items[h] = (struct fkv_gather_item){h, slot[h], count, list,
                                                test_between(0, 1) ? 0 : -test_between(1, 3000)};
        }
        struct fkv_energy found[MOST_GATHERED], expected[MOST_GATHERED];
        bool measured = test_between(0, 2);
        assert_ok(tested.ops->gather(tested.b, &s, &cache.tested, items, heads,
                                     measured ? found : NULL, &err));
        assert_ok(
            reference.ops->gather(reference.b, &s, &cache.reference, items, heads, expected, &err));
        memset(from, 0xff,
               sizeof *from * MOST_GATHERED * (size_t)capacity); /* ours again, read or not */
        assert_cache(&cache, (size_t)s.head_dim, false, keys, slot, rows, touched, 3e-6);
        assert_cache(&cache, (size_t)s.head_dim, true, values, slot, rows, touched, 0);
        if (measured) assert_energies(found, expected, heads);
        release_cache(&cache);
        free(keys), free(values), free(from);
    }
}

TEST(maps_of_no_size_are_refused) {
    struct fkv_map *map;
    int n = test_between(2, 100);
    if (tested.ops->map_dct(tested.b, n, 0, 1, &map, &err) == FKV_OK) fail_msg("L = 0 accepted");
    if (tested.ops->map_dct(tested.b, n, n + 1, 1, &map, &err) == FKV_OK)
        fail_msg("L > n accepted");
    float *m = numbers((size_t)n * (size_t)(n + 1));
    if (tested.ops->map_matrix(tested.b, n, 0, m, m, &map, &err) == FKV_OK)
        fail_msg("a matrix of L = 0 accepted");
    if (tested.ops->map_matrix(tested.b, n, n + 1, m, m, &map, &err) == FKV_OK)
        fail_msg("a matrix of L > n accepted");
    free(m);
}

TEST_GROUP(open_both, close_both)
