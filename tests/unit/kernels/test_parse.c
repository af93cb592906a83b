/* What users type: ranges give the decimals they name, and nothing but a whole number passes for
 * one. */
#include "kernels/base/parse.h"
#include "tests/unit/support.h"

static void assert_values(const char *text, const double *expected, int count) {
    double *values;
    int found;
    assert_ok(fkv_parse_range(text, "--x", &values, &found, &err));
    assert_int_equal(found, count);
    for (int i = 0; i < count; i++)
        if (values[i] != expected[i])
            fail_msg("%s: value %d is %.17g, expected %.17g", text, i, values[i], expected[i]);
    free(values);
}

TEST(tenths_from_a_tenth_are_nine_decimal_literals) {
    assert_values("0.1:0.9:0.1", (double[]){0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}, 9);
    assert_values("0.05:0.2:.05", (double[]){0.05, 0.1, 0.15, 0.2}, 4);
    assert_values("-0.1:0.1:0.1", (double[]){-0.1, 0, 0.1}, 3);
    assert_values("1:3:1", (double[]){1, 2, 3}, 3);
    assert_values("0.5:0.5:0.1", (double[]){0.5}, 1);
    assert_values("0.7", (double[]){0.7}, 1);
    assert_values("0.25,0.5,1e-3", (double[]){0.25, 0.5, 1e-3}, 3);
}

TEST(every_value_of_a_random_range_is_the_nearest_double) {
    for (int round = 0; round < 200; round++) {
        int places = test_between(0, 6), step = test_between(1, 5000),
            from = test_between(0, 100000);
        int count = test_between(1, 50), scale = 1;
        for (int i = 0; i < places; i++) scale *= 10;
        char text[128], literal[64];
        snprintf(text, sizeof text, "%d.%0*d:%d.%0*d:%d.%0*d", from / scale, places, from % scale,
                 (from + (count - 1) * step) / scale, places, (from + (count - 1) * step) % scale,
                 step / scale, places, step % scale);
        double *values;
        int found;
        assert_ok(fkv_parse_range(text, "--x", &values, &found, &err));
        assert_int_equal(found, count);
        for (int i = 0; i < count; i++) {
            snprintf(literal, sizeof literal, "%d.%0*d", (from + i * step) / scale, places,
                     (from + i * step) % scale);
            if (places && values[i] != strtod(literal, NULL))
                fail_msg("%s: %.17g, expected %s", text, values[i], literal);
        }
        free(values);
    }
}

TEST(ranges_that_mean_nothing_are_refused_by_name) {
    static const char *const bad[] = {"",
                                      "0.1:0.9",
                                      "0.1:0.9:0",
                                      "0.9:0.1:0.1",
                                      "0.1:0.95:0.1",
                                      "a:b:c",
                                      "1:2:3:4",
                                      "0.1,,2",
                                      "nan",
                                      "0:1:0.00001",
                                      "0x1",
                                      "1e999",
                                      " 1",
                                      "0.1:0.9:-0.1",
                                      "1:2:1 ",
                                      "::",
                                      "0.1234567890123456:1:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double *values = (double *)1;
        int count = 7;
        assert_refused(fkv_parse_range(bad[i], "--gamma", &values, &count, &err), "--gamma");
        assert_null(values);
        assert_int_equal(count, 0);
    }
}

TEST(integers_are_whole_decimal_and_in_range) {
    int64_t x = 0;
    assert_ok(fkv_parse_int("4096", "--window", 1, 1 << 20, &x, &err));
    assert_int_equal(x, 4096);
    assert_ok(fkv_parse_int("-9223372036854775808", "--x", INT64_MIN, INT64_MAX, &x, &err));
    assert_true(x == INT64_MIN);
    static const char *const bad[] = {
        "12x", "", "0", "-1", "1048577", "1e3", " 5", "99999999999999999999", "0x10", "-", "1.0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(fkv_parse_int(bad[i], "--window", 1, 1 << 20, &x, &err), "--window");
}

TEST(numbers_are_finite_decimal_and_in_range) {
    double x = 0;
    assert_ok(fkv_parse_double("0.5", "--gamma", 0, 1, &x, &err));
    assert_true(x == 0.5);
    assert_ok(fkv_parse_double("1e-3", "--gamma", 0, 1, &x, &err));
    assert_true(x == 1e-3);
    static const char *const bad[] = {"nan",  "inf",     "1.5",  "0.5x", "",
                                      " 0.5", "0x0.8p0", "-0.1", "--1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(fkv_parse_double(bad[i], "--gamma", 0, 1, &x, &err), "--gamma");
}

TEST(indices_come_out_ascending_without_repeats) {
    int *values, count;
    assert_ok(fkv_parse_indices("7,0-3,2", "--layers", 8, &values, &count, &err));
    assert_int_equal(count, 5);
    assert_memory_equal(values, ((int[]){0, 1, 2, 3, 7}), 5 * sizeof(int));
    free(values);
    static const char *const bad[] = {"8", "3-1", "", "1,", "-1", "1-", "0-8", "a", "1--2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_refused(fkv_parse_indices(bad[i], "--layers", 8, &values, &count, &err), "--layers");
        assert_null(values);
    }
}
