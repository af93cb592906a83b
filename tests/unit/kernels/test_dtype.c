/* float16 and bfloat16: exact where they can be, nearest-even where not; the bulk conversions agree
 * with the single ones to the bit. */
#include "kernels/dtype.h"

#include "tests/unit/support.h"

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The value of a 16-bit pattern from the definition: `bits` of mantissa, exponents biased by
 * `bias`. */
static double value_of(uint16_t x, int bits, int bias) {
    int exponent = (x & 0x7fff) >> bits, mantissa = x & ((1 << bits) - 1);
    double sign = x & 0x8000 ? -1 : 1;
    if (exponent == (1 << (15 - bits)) - 1) return mantissa ? NAN : sign * INFINITY;
    return sign * ldexp(exponent ? mantissa + (1 << bits) : mantissa,
                        (exponent ? exponent : 1) - bias - bits);
}

TEST(every_16_bit_pattern_survives_the_way_to_float32_and_back) {
    for (uint32_t p = 0; p < 65536; p++) {
        uint16_t x = (uint16_t)p;
        double half = value_of(x, 10, 15), brain = value_of(x, 7, 127);
        float h = fkv_f16_to_f32(x), b = fkv_bf16_to_f32(x);
        if (isnan(half))
            assert_true(isnan(h) && isnan(fkv_f16_to_f32(fkv_f32_to_f16(h))));
        else if (h != half || fkv_f32_to_f16(h) != x)
            fail_msg("f16 %04x: %g, expected %g", p, h, half);
        if (isnan(brain))
            assert_true(isnan(b) && isnan(fkv_bf16_to_f32(fkv_f32_to_bf16(b))));
        else if (b != brain || fkv_f32_to_bf16(b) != x)
            fail_msg("bf16 %04x: %g, expected %g", p, b, brain);
    }
}

/* No neighbour of the result is nearer; of two equally near, the result is the even one. */
static void assert_nearest(float x, uint16_t found, int bits, int bias) {
    double value = value_of(found, bits, bias), limit = ldexp(2 - ldexp(1, -bits - 1), bias);
    if (isinf(value)) {
        if (!(fabs((double)x) >= limit)) fail_msg("%.9g overflowed", x);
        return;
    }
    for (int step = -1; step <= 1; step += 2) {
        if (!(found & 0x7fff) && step < 0) continue;
        double other = value_of((uint16_t)(found + step), bits, bias);
        double d = fabs(x - value), e = fabs(x - other);
        if (e < d || (e == d && (found & 1)))
            fail_msg("%.9g became %.9g, but %.9g is better", x, value, other);
    }
}

TEST(rounding_is_to_nearest_even) {
    assert_int_equal(fkv_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(fkv_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(fkv_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(fkv_f32_to_f16(0x1.000002p-25f), 1);
    for (int i = 0; i < 200000; i++) {
        float h = ldexpf((float)test_uniform() * 2 - 1, test_between(-30, 17)),
              b = from_bits((uint32_t)test_random());
        if (i % 3 == 0) { /* half way between two neighbours */
            uint16_t x = (uint16_t)test_between(0, 0x7bfe);
            h = (float)((value_of(x, 10, 15) + value_of((uint16_t)(x + 1), 10, 15)) / 2);
        }
        assert_nearest(h, fkv_f32_to_f16(h), 10, 15);
        if (!isnan(b)) assert_nearest(b, fkv_f32_to_bf16(b), 7, 127);
    }
}

TEST(bulk_conversion_equals_one_by_one_at_any_length_and_alignment) {
    enum { MOST = 300 };
    for (int round = 0; round < 300; round++) {
        size_t n = (size_t)test_between(0, MOST), shift = (size_t)test_between(0, 3);
        float source[MOST], back[MOST + 1];
        char packed[2 * MOST + 8];
        for (size_t i = 0; i < n; i++) source[i] = from_bits((uint32_t)test_random());
        for (enum fkv_dtype t = FKV_F16; t <= FKV_BF16; t++) {
            memset(packed, 0x55, sizeof packed);
            fkv_from_f32(source, t, n, packed + shift);
            for (size_t i = 0; i < n; i++) {
                uint16_t one =
                             t == FKV_F16 ? fkv_f32_to_f16(source[i]) : fkv_f32_to_bf16(source[i]),
                         found;
                memcpy(&found, packed + shift + 2 * i, 2);
                if (found != one)
                    fail_msg("%s of %.9g: %04x in bulk, %04x alone", fkv_dtype_name(t), source[i],
                             found, one);
            }
            assert_int_equal(packed[shift + 2 * n], 0x55);
            back[n] = 7;
            fkv_to_f32(packed + shift, t, n, back);
            for (size_t i = 0; i < n; i++) {
                uint16_t x;
                memcpy(&x, packed + shift + 2 * i, 2);
                float one = t == FKV_F16 ? fkv_f16_to_f32(x) : fkv_bf16_to_f32(x);
                assert_memory_equal(&back[i], &one, 4);
            }
            assert_true(back[n] == 7);
        }
        fkv_from_f32(source, FKV_F32, n, back);
        assert_memory_equal(source, back, 4 * n);
    }
}

/* One number of any pattern among small ones, anywhere. */
TEST(all_are_finite_where_each_is) {
    enum { MOST = 70 };
    uint32_t words[MOST];
    uint16_t halves[MOST];
    for (uint32_t p = 0; p < 65536; p++) {
        const int n = test_between(1, MOST), at = test_between(0, n - 1);
        const uint16_t x = (uint16_t)p;
        const uint32_t wide = p << 16 | (p & 1 ? 0xffff : 0);
        for (int i = 0; i < n; i++) halves[i] = 0x8001, words[i] = 0x80000001;
        halves[at] = x, words[at] = wide;
        assert_int_equal(fkv_all_finite(halves, FKV_F16, (size_t)n),
                         isfinite(value_of(x, 10, 15)) != 0);
        assert_int_equal(fkv_all_finite(halves, FKV_BF16, (size_t)n),
                         isfinite(value_of(x, 7, 127)) != 0);
        assert_int_equal(fkv_all_finite(words, FKV_F32, (size_t)n), isfinite(from_bits(wide)) != 0);
    }
    assert_true(fkv_all_finite(words, FKV_F32, 0));
}

TEST(names_parse_back) {
    for (enum fkv_dtype t = FKV_F32; t <= FKV_BF16; t++) {
        enum fkv_dtype found;
        assert_int_equal(fkv_dtype_parse(fkv_dtype_name(t), &found), FKV_OK);
        assert_int_equal(found, t);
    }
    enum fkv_dtype untouched = FKV_F16;
    assert_int_equal(fkv_dtype_parse("f64", &untouched), FKV_FAILED);
    assert_int_equal(untouched, FKV_F16);
}
