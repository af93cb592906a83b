/* Every instruction set that this processor has against sums in double: odd sizes, all dtypes,
 * matrices at odd addresses with gaps between rows. */
#include "kernels/cpu/gemm_amx.h"
#include "kernels/cpu/simd.h"
#include "kernels/isa.h"
#include "tests/unit/support.h"

enum { ROUNDS = 300 };

/* A matrix of some dtype, two bytes off any alignment, with NaN in the gaps that nobody may read.
 */
struct matrix {
    char *memory;
    const void *at;
    float *values; /* [rows, cols], as rounded to the dtype */
    enum fkv_dtype dtype;
    int32_t rows, cols;
    size_t stride;
};

static struct matrix random_matrix(int32_t rows, int32_t cols) {
    struct matrix m = {
        .dtype = (enum fkv_dtype)test_between(FKV_F32, FKV_BF16), .rows = rows, .cols = cols};
    m.stride = (size_t)cols + (size_t)test_between(0, 5);
    size_t bytes = fkv_dtype_bytes(m.dtype),
           used = ((size_t)(rows - 1) * m.stride + (size_t)cols) * bytes;
    m.memory = malloc(used + 2);
    memset(m.memory, 0xff, used + 2); /* NaN in all three */
    m.values = malloc(sizeof *m.values * (size_t)rows * (size_t)cols);
    m.at = m.memory + 2;
    for (int32_t i = 0; i < rows; i++) {
        float *row = m.values + (size_t)i * (size_t)cols;
        char *to = m.memory + 2 + (size_t)i * m.stride * bytes;
        test_fill(row, (size_t)cols, 0.1, 1);
        fkv_from_f32(row, m.dtype, (size_t)cols, to);
        fkv_to_f32(to, m.dtype, (size_t)cols, row);
    }
    return m;
}

static void free_matrix(struct matrix *m) {
    free(m->memory);
    free(m->values);
}

static float *random_floats(size_t n, double deviation) {
    float *x = malloc(sizeof *x * n);
    test_fill(x, n, 0, deviation);
    return x;
}

/* A sum of so many products, whose absolute values add up to `size`: in whatever order, each goes
 * through at most as many roundings as there are terms, its product's and those of the additions
 * after it, by at most 2^-24 each. */
static void assert_sum(float found, double expected, int terms, double size,
                       const struct fkv_simd *set) {
    double allowed = 1.001 * terms * 0x1p-24 * size;
    if (!(fabs(found - expected) <= allowed))
        fail_msg("%s: %d terms: found %.9g, expected %.9g, allowed %.3g", set->name, terms, found,
                 expected, allowed);
}

TEST(dots_equal_sums_in_double) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        struct matrix w = random_matrix(test_between(1, 11), test_between(1, 150));
        int32_t xn = test_between(1, 9), cols = w.cols;
        size_t x_stride = (size_t)cols + (size_t)test_between(0, 3), y_stride = (size_t)w.rows + 2;
        float *x = random_floats((size_t)xn * x_stride, 1),
              *y = random_floats((size_t)xn * y_stride, 1);
        for (int s = 0; s < count; s++) {
            sets[s]->dot[w.dtype](w.at, w.stride, w.rows, x, x_stride, xn, cols, y, y_stride);
            for (int32_t j = 0; j < xn; j++)
                for (int32_t i = 0; i < w.rows; i++) {
                    double sum = 0, size = 0;
                    for (int32_t c = 0; c < cols; c++) {
                        double term =
                            (double)w.values[i * cols + c] * x[(size_t)j * x_stride + (size_t)c];
                        sum += term, size += fabs(term);
                    }
                    assert_sum(y[(size_t)j * y_stride + (size_t)i], sum, cols, size, sets[s]);
                }
        }
        free_matrix(&w);
        free(x), free(y);
    }
}

/* n bfloat16 numbers, two bytes off any alignment: *values holds them as float32. */
static uint16_t *random_bf16(size_t n, float **values) {
    uint16_t *memory = malloc(2 * (n + 1));
    *values = random_floats(n, 1);
    fkv_from_f32(*values, FKV_BF16, n, memory + 1);
    fkv_to_f32(memory + 1, FKV_BF16, n, *values);
    return memory;
}

TEST(bf16_dots_equal_sums_in_double) {
    if (fkv_isa() < FKV_ISA_AVX512_BF16) {
        printf("skipped: this processor has no AVX512-BF16\n");
        return;
    }
    const struct fkv_simd named = {.name = "avx512_bf16"};
    for (int round = 0; round < ROUNDS; round++) {
        const int32_t wn = test_between(1, 9), xn = test_between(1, 18),
                      cols = test_between(1, 300);
        const size_t stride = (size_t)cols + (size_t)test_between(0, 5);
        float *w, *x, *y = malloc(sizeof *y * (size_t)(wn * xn));
        uint16_t *w16 = random_bf16(stride * (size_t)wn, &w),
                 *x16 = random_bf16(stride * (size_t)xn, &x);
        fkv_dot_bf16_avx512(w16 + 1, stride, wn, x16 + 1, stride, xn, cols, y, (size_t)wn);
        for (int32_t i = 0; i < wn; i++)
            for (int32_t j = 0; j < xn; j++) {
                double sum = 0, size = 0;
                for (int32_t c = 0; c < cols; c++) {
                    double term = (double)w[(size_t)i * stride + (size_t)c] *
                                  (double)x[(size_t)j * stride + (size_t)c];
                    sum += term, size += fabs(term);
                }
                assert_sum(y[j * wn + i], sum, cols + 1, size, &named);
            }
        free(w), free(x), free(y), free(w16), free(x16);
    }
}

/* Unused tiles and scratch hold NaN, which must not get into a sum; between the rows of the output
 * nothing is written. */
TEST(products_by_tiles_equal_sums_in_double) {
    if (fkv_isa() < FKV_ISA_AMX) {
        printf("skipped: this processor has no AMX\n");
        return;
    }
    const struct fkv_simd named = {.name = "amx"};
    for (int round = 0; round < ROUNDS; round++) {
        const int32_t n = test_between(1, FKV_AMX_PANEL), rows = test_between(1, 70),
                      cols = round % 20 ? test_between(1, 300) : test_between(1500, 3200);
        const size_t stride = (size_t)n + (size_t)test_between(0, 5),
                     packed_bytes = fkv_amx_packed_bytes(rows, cols),
                     scratch_bytes = fkv_amx_scratch_bytes(n, cols);
        const bool add = test_between(0, 1);
        float *w, *x, *before = random_floats((size_t)rows * stride, 1),
                      *y = malloc(sizeof *y * (size_t)rows * stride);
        uint16_t *w16 = random_bf16((size_t)n * (size_t)cols, &w),
                 *x16 = random_bf16((size_t)rows * (size_t)cols, &x);
        char *packed = aligned_alloc(64, packed_bytes), *scratch = aligned_alloc(64, scratch_bytes);
        memset(packed, 0xff, packed_bytes), memset(scratch, 0xff, scratch_bytes);
        memcpy(y, before, sizeof *y * (size_t)rows * stride);
        for (int32_t r = 0; r < rows; r += FKV_AMX_ROWS)
            fkv_amx_pack_rows(x + (size_t)r * (size_t)cols,
                              rows - r < FKV_AMX_ROWS ? rows - r : FKV_AMX_ROWS, cols, r, packed);
        fkv_amx_multiply(packed, rows, w16 + 1, n, cols, add, y, stride, scratch);
        for (int32_t j = 0; j < rows; j++)
            for (int32_t i = 0; i < (int32_t)stride; i++) {
                const size_t at = (size_t)j * stride + (size_t)i;
                double sum = add || i >= n ? before[at] : 0, size = fabs(sum);
                for (int32_t c = 0; i < n && c < cols; c++) {
                    double term = (double)w[i * cols + c] * (double)x[j * cols + c];
                    sum += term, size += fabs(term);
                }
                assert_sum(y[at], sum, i < n ? cols + 2 : 0, size, &named);
            }
        free(w), free(x), free(y), free(before), free(w16), free(x16), free(packed), free(scratch);
    }
}

TEST(rounding_to_bf16_is_to_nearest_even) {
    if (fkv_isa() < FKV_ISA_AVX512_BF16) {
        printf("skipped: this processor has no AVX512-BF16\n");
        return;
    }
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = (size_t)test_between(1, 100);
        float *x = random_floats(n, 1), *wide = malloc(sizeof *wide * (n + 1));
        uint16_t *y = malloc(2 * (n + 1));
        y[n] = 0x1234, wide[n] = 7;
        fkv_round_bf16_avx512(x, n, y);
        for (size_t i = 0; i < n; i++) assert_int_equal(y[i], fkv_f32_to_bf16(x[i]));
        memcpy(wide, x, n * sizeof *x);
        fkv_round_bf16_avx512(wide, n, (uint16_t *)(void *)wide);
        assert_memory_equal(wide, y, n * sizeof *y);
        fkv_round_wide_avx512(x, n, wide);
        fkv_round_wide_avx512(x, n, x);
        for (size_t i = 0; i < n; i++)
            assert_true(wide[i] == fkv_bf16_to_f32(y[i]) && x[i] == wide[i]);
        assert_int_equal(y[n], 0x1234);
        assert_true(wide[n] == 7);
        free(x), free(y), free(wide);
    }
}

TEST(mixes_equal_sums_in_double) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        struct matrix w = random_matrix(test_between(1, 40), test_between(1, 150));
        int32_t pn = test_between(1, 9), cols = w.cols;
        size_t p_stride = (size_t)w.rows + (size_t)test_between(0, 3), y_stride = (size_t)cols;
        float *p = random_floats((size_t)pn * p_stride, 1),
              *before = random_floats((size_t)pn * y_stride, 1);
        float *y = malloc(sizeof *y * (size_t)pn * y_stride);
        for (int s = 0; s < count; s++) {
            memcpy(y, before, sizeof *y * (size_t)pn * y_stride);
            sets[s]->mix[w.dtype](p, p_stride, pn, w.at, w.stride, w.rows, cols, y, y_stride);
            for (int32_t j = 0; j < pn; j++)
                for (int32_t c = 0; c < cols; c++) {
                    double sum = before[(size_t)j * y_stride + (size_t)c], size = fabs(sum);
                    for (int32_t i = 0; i < w.rows; i++) {
                        double term =
                            (double)p[(size_t)j * p_stride + (size_t)i] * w.values[i * cols + c];
                        sum += term, size += fabs(term);
                    }
                    assert_sum(y[(size_t)j * y_stride + (size_t)c], sum, w.rows + 1, size, sets[s]);
                }
        }
        free_matrix(&w);
        free(p), free(before), free(y);
    }
}

TEST(exponentials_are_exact_to_float) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t n = test_between(1, 100);
        float *x = random_floats((size_t)n, 20), *e = malloc(sizeof *e * (size_t)n);
        x[test_between(0, n - 1)] = -INFINITY;
        for (int s = 0; s < count; s++) {
            float top = sets[s]->largest(x, n);
            double sum = 0, exact = 0;
            for (int32_t i = 0; i < n; i++) assert_true(x[i] <= top);
            if (top == -INFINITY) continue;
            memcpy(e, x, sizeof *e * (size_t)n);
            float found = sets[s]->exp_sum(e, n, top);
            for (int32_t i = 0; i < n; i++) {
                double expected = exp((double)(x[i] - top));
                assert_close(e[i], expected, 1e-37, 2e-7);
                if (x[i] == -INFINITY) assert_true(e[i] == 0);
                sum += expected, exact += exp((double)x[i] - top);
            }
            assert_close(found, sum, 0, 1e-6);
            assert_close(sets[s]->sum_exp(x, n, top), exact, 0, 1e-14);
            double gap, expected_gap = 0, size = 0;
            for (int32_t i = 0; i < n; i++) {
                double term =
                    x[i] == -INFINITY ? 0 : exp((double)x[i] - top) * ((double)x[i] - e[i]);
                expected_gap += term, size += fabs(term);
            }
            assert_close(sets[s]->sum_gap(x, e, n, top, &gap), exact, 0, 1e-14);
            assert_close(gap, expected_gap, 1e-14 * size, 0);
        }
        free(x), free(e);
    }
}

TEST(nan_stays_nan) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int s = 0; s < count; s++)
        for (int32_t n = 1; n < 70; n++) {
            float x[70] = {0}, up[70] = {0};
            x[n - 1] = NAN;
            assert_true(isnan(sets[s]->sum_exp(x, n, 0)));
            sets[s]->swish(x, up, (size_t)n);
            assert_true(isnan(x[n - 1]));
            assert_true(isnan(sets[s]->exp_sum(x, n, 0)) && isnan(x[n - 1]));
        }
}

/* Row 0 sees nothing, row 1 holds a NaN, the others are random with a masked slot here and there.
 */
static void soften_rows(const struct fkv_panel *panel, int32_t keys) {
    enum { MOST = 64 };
    const int32_t rows = panel->rows, words = (keys + panel->step - 1) / panel->step;
    const double of_sum = panel->step == 1 ? 1e-6 : 2e-4,
                 of_weight = panel->step == 1 ? 1e-6 : 0x1p-8 + 2e-4;
    float *score = random_floats((size_t)(keys + 1) * (size_t)rows, 30), before[MOST],
          largest[MOST], sum[MOST], shrink[MOST];
    assert_true(rows <= MOST);
    for (int32_t r = 0; r < rows; r++) {
        score[test_between(0, keys - 1) * rows + r] = r == 1 ? NAN : -INFINITY;
        for (int32_t k = 0; r == 0 && k < keys; k++) score[k * rows] = -INFINITY;
        before[r] = largest[r] = r % 2 ? (float)test_between(-20, 20) : -INFINITY;
        sum[r] = r % 2 ? 1 : 0;
    }
    float *given = malloc(sizeof *given * (size_t)keys * (size_t)rows);
    memcpy(given, score, sizeof *given * (size_t)keys * (size_t)rows);
    panel->soften(score, keys, largest, sum, shrink);
    for (int32_t r = 0; r < rows; r++) {
        double top = before[r], total;
        for (int32_t k = 0; k < keys; k++) top = fmax(top, given[k * rows + r]);
        if (r == 1) {
            assert_true(isnan(sum[r]));
            continue;
        }
        assert_true(largest[r] == (float)top);
        total = r % 2 ? exp((double)(before[r] - (float)top)) : 0;
        assert_close(shrink[r], total, 1e-37, of_sum);
        for (int32_t k = 0; k < words * panel->step; k++) {
            const float *word = &score[k / panel->step * rows + r];
            uint16_t half[2];
            memcpy(half, word, sizeof half);
            const float found = panel->step == 1 ? *word : fkv_bf16_to_f32(half[k % 2]);
            const double expected =
                k >= keys || top == -INFINITY ? 0 : exp((double)(given[k * rows + r] - (float)top));
            assert_close(found, expected, 1e-37, of_weight);
            total += expected;
        }
        assert_close(sum[r], total, 0, of_sum);
    }
    free(score), free(given);
}

TEST(panels_soften_scores_to_weights) {
    const struct fkv_simd *sets[3];
    const int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        const int32_t keys = test_between(1, 40);
        for (int s = 0; s < count; s++) soften_rows(sets[s]->panel, keys);
        if (fkv_simd_bf16_panel()) soften_rows(fkv_simd_bf16_panel(), keys);
    }
}

TEST(swish_is_z_over_one_plus_exp) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        size_t n = (size_t)test_between(1, 100);
        float *z = random_floats(n, round % 2 ? 3 : 60), *up = random_floats(n, 1),
              *found = malloc(sizeof *found * n);
        for (int s = 0; s < count; s++) {
            memcpy(found, z, sizeof *found * n);
            sets[s]->swish(found, up, n);
            for (size_t i = 0; i < n; i++)
                assert_close(found[i], z[i] / (1 + exp(-(double)z[i])) * up[i], 1e-35, 5e-7);
        }
        free(z), free(up), free(found);
    }
}

/* x [d] turned in double, then rounded */
static void turn_in_double(const float *x, const float *turn, int32_t half, int32_t d, float *y) {
    for (int32_t i = 0; i < d; i++) y[i] = x[i];
    for (int32_t i = 0; i < half; i++) {
        const double a = x[i], b = x[i + half], c = turn[i], s = turn[half + i];
        y[i] = (float)(a * c - b * s);
        y[i + half] = (float)(b * c + a * s);
    }
}

TEST(turns_are_rotations_of_pairs) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        const int32_t half = test_between(0, 70), d = 2 * half + test_between(half ? 0 : 1, 20);
        float *x = random_floats((size_t)d, 1),
              *turn = malloc(sizeof *turn * (size_t)(2 * half + 1)),
              *expected = malloc(sizeof *expected * (size_t)d),
              *found = malloc(sizeof *found * (size_t)d);
        for (int32_t i = 0; i < half; i++) {
            const double angle = test_between(0, 10000) / 100.0;
            turn[i] = (float)cos(angle), turn[half + i] = (float)sin(angle);
        }
        turn_in_double(x, turn, half, d, expected);
        for (int s = 0; s < count; s++) {
            sets[s]->turn(x, turn, half, d, found);
            assert_arrays_close(found, expected, (size_t)d, 1e-6, 0);
            memcpy(found, x, sizeof *found * (size_t)d);
            sets[s]->turn(found, turn, half, d, found);
            assert_arrays_close(found, expected, (size_t)d, 1e-6, 0);
            sets[s]->turn_back(found, turn, half);
            assert_arrays_close(found, x, (size_t)d, 2e-6, 0);
        }
        free(x), free(turn), free(expected), free(found);
    }
}

TEST(energies_are_sums_in_double) {
    const struct fkv_simd *sets[3];
    int count = fkv_simd_available(sets);
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = (size_t)test_between(0, 3000);
        float *x = random_floats(n + 1, round % 2 ? 1 : 1e25); /* squares beyond float32 */
        double expected = 0;
        for (size_t i = 0; i < n; i++) expected += (double)x[i] * x[i];
        for (int s = 0; s < count; s++) assert_close(sets[s]->energy(x, n), expected, 0, 1e-12);
        if (n) x[test_between(0, (int)n - 1)] = NAN;
        for (int s = 0; s < count && n; s++) assert_true(isnan(sets[s]->energy(x, n)));
        free(x);
    }
}

static int print_sets(void **state) {
    (void)state;
    const struct fkv_simd *sets[3];
    for (int i = fkv_simd_available(sets); i-- > 0;) printf("testing %s\n", sets[i]->name);
    return 0;
}

TEST_GROUP(print_sets, NULL)
