/* Shares of energy per layer and their course over layers. */

#include "analyze/measure/depth.h"

#include "tests/unit/support.h"

TEST(shares_are_pooled_over_heads) {
    /* Two heads of eight coefficients: DC 16 and 0; the rest 1 and 3 in the lower half, 1 above. */
    const double power[2][8] = {{16, 1, 1, 1, 1, 1, 1, 1}, {0, 3, 3, 3, 1, 1, 1, 1}};
    double scratch[8];
    const struct fkv_energy_shares both = fkv_energy_shares_of(power[0], 2, 8, scratch);
    assert_float_equal(both.dc, 16.0 / (16 + 7 + 13), 1e-12);
    assert_float_equal(both.low[FKV_LOW_HALF], 12.0 / 20, 1e-12);
    assert_float_equal(both.low[FKV_LOW_QUARTER], 4.0 / 20, 1e-12);
    assert_true(isnan(fkv_energy_shares_of(NULL, 2, 8, scratch).dc));
}

TEST(the_course_is_put_in_words) {
    const double rising[5] = {0.44, 0.5, 0.62, 0.66, 0.8}, flat[4] = {0.5, 0.5, 0.5, 0.5},
                 falling[4] = {0.9, 0.8, 0.5, 0.45};
    const int32_t index[5] = {0, 5, 10, 15, 20};
    struct fkv_course course;
    char text[FKV_COURSE_WORDS];
    assert_ok(fkv_course_of(rising, 5, &course, &err));
    assert_string_equal(fkv_course_words(&course, rising, index, text),
                        "from 44.0% in layer 0 to 80.0% in layer 20; the largest step, +14.0 "
                        "points, is from layer 15 to 20; rank correlation with depth 1.00");
    assert_ok(fkv_course_of(falling, 4, &course, &err));
    assert_string_equal(fkv_course_words(&course, falling, index, text),
                        "from 90.0% in layer 0 to 45.0% in layer 15; the largest step, \u221230.0 "
                        "points, is from layer 5 to 10; rank correlation with depth \u22121.00");
    assert_ok(fkv_course_of(flat, 4, &course, &err));
    assert_true(isnan(course.spearman));
    assert_string_equal(fkv_course_words(&course, flat, index, text),
                        "from 50.0% to 50.0% over all layers: no course to speak of");
}
