/* Tick placement: round numbers inside the axis, never too many, labels that say what the tick is.
 */
#include "../support.h"

#include "analyze/figure/ticks.h"

static int labelled(const struct fkv_ticks *t) {
    int n = 0;
    for (int i = 0; i < t->count; i++) n += t->label[i][0] != 0;
    return n;
}

/* What a label says, read back: "−2.5×10^{−3}" -> -0.0025. */
static double read_label(const char *label) {
    char plain[64];
    size_t n = 0;
    for (const char *p = label; *p;) {
        if (!strncmp(p, "\u2212", 3))
            plain[n++] = '-', p += 3;
        else
            plain[n++] = *p++;
    }
    plain[n] = 0;
    char *power = strstr(plain, "10^{"), *times = strstr(plain, "\u00d7");
    double mantissa = power && !times ? 1 : strtod(plain, NULL);
    return power ? mantissa * pow(10, atoi(power + 4)) : mantissa;
}

static void check(const struct fkv_ticks *t, double low, double high, int most) {
    double slack = (high - low) * 1e-6;
    int limit = most + 1 > 5 ? most + 1 : 5;
    if (labelled(t) < 2 || labelled(t) > limit)
        fail_msg("[%.17g, %.17g]: expected 2 to %d labels, found %d", low, high, limit,
                 labelled(t));
    for (int i = 0; i < t->count; i++) {
        if (!(t->at[i] >= low - slack && t->at[i] <= high + slack))
            fail_msg("[%.17g, %.17g]: tick at %.17g", low, high, t->at[i]);
        if (i && !(t->at[i] > t->at[i - 1]))
            fail_msg("ticks %g, %g do not rise", t->at[i - 1], t->at[i]);
        if (t->label[i][0]) assert_close(read_label(t->label[i]), t->at[i], slack, 1e-9);
    }
}

TEST(linear_ticks_are_round_inside_and_say_their_value) {
    static struct fkv_ticks t;
    for (int trial = 0; trial < 5000; trial++) {
        double size = pow(10, test_between(-12, 12)), low = (test_uniform() - 0.5) * size;
        double high = low + size * (0.01 + test_uniform());
        int most = test_between(2, 12);
        fkv_ticks_linear(low, high, most, 0, &t);
        check(&t, low, high, most);
        if (t.count < 3) continue;
        double step = t.at[1] - t.at[0], digit = step / pow(10, floor(log10(step) + 1e-6));
        if (fabs(digit - 1) > 1e-3 && fabs(digit - 2) > 1e-3 && fabs(digit - 5) > 1e-3)
            fail_msg("[%g, %g]: step %.12g is not 1, 2 or 5 times a power of ten", low, high, step);
        for (int i = 2; i < t.count; i++)
            assert_close(t.at[i] - t.at[i - 1], step, size * 1e-9, 1e-6);
    }
}

TEST(the_third_tick_reads_0_3) {
    static struct fkv_ticks t;
    fkv_ticks_linear(0.1, 0.5, 4, 0, &t);
    assert_int_equal(t.count, 5);
    assert_string_equal(t.label[2], "0.3");
    assert_true(t.at[2] == 0.3);
    fkv_ticks_linear(-1, 1, 4, 0, &t);
    assert_string_equal(t.label[0], "\u22121.0");
    assert_string_equal(t.label[2], "0");
}

TEST(whole_numbers_stay_whole) {
    static struct fkv_ticks t;
    fkv_ticks_linear(0, 2, 10, 1, &t);
    assert_int_equal(t.count, 3);
    assert_string_equal(t.label[1], "1");
}

TEST(decades_have_minor_ticks_and_superscripts) {
    static struct fkv_ticks t;
    fkv_ticks_log(1e-3, 1e2, 8, &t);
    assert_int_equal(labelled(&t), 6);
    assert_int_equal(t.count, 5 * 9 + 1);
    assert_string_equal(t.label[0], "10^{\u22123}");
    assert_string_equal(t.label[1], "");
    assert_true(t.at[1] == 2e-3);
}

TEST(log_ticks_are_inside_whatever_the_span) {
    static struct fkv_ticks t;
    for (int trial = 0; trial < 5000; trial++) {
        double low = pow(10, 40 * (test_uniform() - 0.5)),
               span = pow(10, pow(10, 3 * test_uniform() - 2) * 2);
        int most = test_between(2, 10);
        fkv_ticks_log(low, low * span, most, &t);
        check(&t, low, low * span, most);
    }
}
