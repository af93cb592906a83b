/* p-values and false discovery rates, against scipy, printed tables and the paper's own example. */
#include "kernels/statistics/significance.h"

#include "tests/unit/support.h"

TEST(q_values_are_those_of_benjamini_and_hochberg) {
    /* scipy.stats.false_discovery_control */
    const double p[] = {0.01, NAN, 0.04, 0.03, 0.005, 0.9},
                 expected[] = {0.025, NAN, 0.05, 0.05, 0.025, 0.9};
    double q[6];
    int32_t order[6];
    fkv_benjamini_hochberg(p, 6, q, order);
    for (int i = 0; i < 6; i++) {
        if (isnan(expected[i]))
            assert_true(isnan(q[i]));
        else
            assert_close(q[i], expected[i], 1e-15, 0);
    }
}

TEST(p_values_are_those_of_student) {
    /* 2 * scipy.stats.t.sf(t, freedom) */
    assert_close(fkv_student_p(2.262157162740992, 9), 0.0500000000046757, 1e-12, 0);
    assert_close(fkv_student_p(-1, 1), 0.5, 1e-12, 0);
    assert_close(fkv_student_p(12, 500), 0, 1e-27, 0);
    assert_close(fkv_student_p(0.1, 31), 0.92098824540796, 1e-10, 0);
    assert_true(isnan(fkv_student_p(1, 0)));
}

TEST(p_values_are_uniform_where_nothing_is_and_known_where_tables_know) {
    enum { TRIALS = 12000 };
    int below = 0;
    for (int t = 0; t < TRIALS; t++) {
        double x[7];
        for (int i = 0; i < 7; i++) x[i] = test_normal();
        below += fkv_t_test(x, 7) < 0.1;
    }
    assert_frequency(below, TRIALS, 0.1);
    /* Mean m, standard error 1: the quantiles of Student's table. */
    const struct {
        int n;
        double t, p;
    } table[] = {{3, 4.302653, 0.05},
                 {5, 2.776445, 0.05},
                 {5, 4.604095, 0.01},
                 {11, 2.228139, 0.05},
                 {31, 2.749996, 0.01}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double x[31], spread = 0;
        for (int j = 0; j < table[i].n; j++)
            x[j] = j - (table[i].n - 1) / 2.0, spread += x[j] * x[j];
        double scale = sqrt(table[i].n * (table[i].n - 1) / spread);
        for (int j = 0; j < table[i].n; j++) x[j] = x[j] * scale + table[i].t;
        assert_close(fkv_t_test(x, table[i].n), table[i].p, 0, 1e-5);
    }
    assert_true(isnan(fkv_t_test((double[]){1}, 1)) && isnan(fkv_t_test((double[]){2, 2}, 2)));
}

TEST(a_one_sided_p_is_small_above_zero_only) {
    for (int t = 0; t < 100; t++) {
        double x[9], below[9], mean = 0;
        int n = test_between(2, 9);
        for (int i = 0; i < n; i++) x[i] = test_normal(), below[i] = -x[i], mean += x[i];
        double two_sided = fkv_t_test(x, n), p = fkv_t_test_above(x, n);
        assert_close(p, mean > 0 ? two_sided / 2 : 1 - two_sided / 2, 1e-14, 0);
        assert_close(p + fkv_t_test_above(below, n), 1, 1e-12, 0);
    }
    assert_true(fkv_t_test_above((double[]){-1, -2, -1.5, -1.7}, 4) > 0.99);
    assert_true(isnan(fkv_t_test_above((double[]){1}, 1)) &&
                isnan(fkv_t_test_above((double[]){2, 2}, 2)));
}

TEST(false_discoveries_are_controlled_as_the_paper_computes) {
    /* Benjamini and Hochberg (1995), section 3.1: at 0.05 the four smallest of these fifteen are
     * called. */
    const double p[] = {0.0344, 0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298,
                        0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
    double q[15], with_hole[16], q_with_hole[16];
    int32_t order[16];
    fkv_benjamini_hochberg(p, 15, q, order);
    for (int i = 0; i < 15; i++) assert_int_equal(q[i] < 0.05, p[i] <= 0.0095);
    assert_close(q[1], 0.0015, 1e-12, 0);
    memcpy(with_hole, p, sizeof p);
    with_hole[15] = NAN;
    fkv_benjamini_hochberg(with_hole, 16, q_with_hole, order);
    assert_memory_equal(q_with_hole, q, sizeof q);
    assert_true(isnan(q_with_hole[15]));
}
