/* Estimators on plain arrays. */
#include "analyze/measure/averages.h"
#include "tests/unit/support.h"

/* Documents with the given numbers of segments. */
static void make_plan(const int *segments, int documents, struct fkv_segment_plan *plan) {
    struct fkv_recording *r = calloc((size_t)documents, sizeof *r);
    const struct fkv_recording **all = calloc((size_t)documents, sizeof *all);
    for (int d = 0; d < documents; d++) {
        r[d].n_tokens = 10 * segments[d];
        snprintf(r[d].name, sizeof r[d].name, "%d", d);
        all[d] = &r[d];
    }
    assert_ok(fkv_segment_plan_make(all, documents, 10, 0, plan, &err));
    free(r);
    free(all);
}

/* Mean and standard error of values [segments, columns] under the plan. */
static void estimate(const struct fkv_segment_plan *plan, int columns, const double *values,
                     double *mean, double *se) {
    struct fkv_error_model model;
    struct fkv_average a;
    assert_ok(fkv_error_model_make(plan, &model, &err));
    assert_ok(fkv_average_begin(&a, columns, plan->documents, &model, &err));
    for (int i = 0; i < plan->recordings; i++)
        for (int64_t s = 0; s < plan->recording[i].segments; s++) {
            int64_t number = plan->recording[i].first + s;
            fkv_average_add(&a, plan->recording[i].document, plan->recording[i].share, number,
                            values + number * columns);
        }
    memcpy(mean, a.mean, (size_t)columns * sizeof *mean);
    fkv_average_error(&a, se);
    fkv_average_free(&a);
    fkv_average_free(&a);
    fkv_error_model_free(&model);
    fkv_error_model_free(&model);
}

TEST(documents_weigh_equally_whatever_their_length) {
    const int segments[] = {3, 1};
    const double values[] = {1, 2, 6, 11}; /* document means 3 and 11 */
    struct fkv_segment_plan plan;
    double mean, se;
    make_plan(segments, 2, &plan);
    estimate(&plan, 1, values, &mean, &se);
    assert_close(mean, 7, 1e-14, 0);
    fkv_segment_plan_free(&plan);
}

TEST(from_twenty_documents_on_the_error_is_over_document_means) {
    int segments[24], total = 0;
    double values[24 * 3], means[24] = {0}, mean, se, average = 0, squares = 0;
    struct fkv_segment_plan plan;
    for (int d = 0; d < 24; d++) {
        segments[d] = test_between(1, 3);
        for (int s = 0; s < segments[d]; s++) means[d] += values[total++] = 1e6 + test_normal();
        means[d] /= segments[d];
        average += means[d] / 24;
    }
    for (int d = 0; d < 24; d++) squares += (means[d] - average) * (means[d] - average);
    make_plan(segments, 24, &plan);
    estimate(&plan, 1, values, &mean, &se);
    assert_close(mean, average, 0, 1e-14);
    assert_close(se, sqrt(squares / (24 * 23)), 0, 1e-6);
    fkv_segment_plan_free(&plan);
}

/* The bootstrap's standard error of a plain mean tends to sqrt(sum (x - mean)^2) / S. With 1,000
 * resamples its own relative spread is 1/sqrt(2000) = 2.2%. */
TEST(bootstrap_error_of_one_document_is_the_analytic_one) {
    enum { MOST = 300 };
    const int columns = small_sizes() ? 30 : MOST;
    int segments = test_between(10, 60);
    double *values = malloc((size_t)(segments * columns) * sizeof *values), mean[MOST], se[MOST],
           ratio = 0;
    struct fkv_segment_plan plan;
    for (int i = 0; i < segments * columns; i++) values[i] = 100 + test_normal();
    make_plan(&segments, 1, &plan);
    estimate(&plan, columns, values, mean, se);
    for (int c = 0; c < columns; c++) {
        double squares = 0;
        for (int s = 0; s < segments; s++) squares += pow(values[s * columns + c] - mean[c], 2);
        double analytic = sqrt(squares) / segments;
        assert_close(se[c], analytic, 0, 0.15);
        ratio += se[c] / analytic / columns;
    }
    assert_close(ratio, 1, 0.03, 0);
    free(values);
    fkv_segment_plan_free(&plan);
}

/* The variance that the two-stage bootstrap tends to: 1/D^2 sum_d ((m_d - mean)^2 + s_d^2 / S_d);
 * its own relative spread is 2.2% of the deviation. */
TEST(error_of_a_few_documents_is_that_of_documents_and_segments) {
    enum { MOST = 200, DOCUMENTS = 6 };
    const int columns = small_sizes() ? 20 : MOST;
    int segments[DOCUMENTS], total = 0;
    double mean[MOST], se[MOST], ratio = 0;
    struct fkv_segment_plan plan;
    for (int d = 0; d < DOCUMENTS; d++) total += segments[d] = test_between(2, 12);
    double *values = malloc((size_t)(total * columns) * sizeof *values);
    for (int d = 0, s = 0; d < DOCUMENTS; d++)
        for (int k = 0; k < segments[d]; k++, s++)
            for (int c = 0; c < columns; c++)
                values[s * columns + c] = 5 + 0.5 * (d % 3) + test_normal();
    make_plan(segments, DOCUMENTS, &plan);
    estimate(&plan, columns, values, mean, se);
    for (int c = 0; c < columns; c++) {
        double variance = 0;
        for (int d = 0, s = 0; d < DOCUMENTS; s += segments[d++]) {
            double own = 0, squares = 0;
            for (int k = 0; k < segments[d]; k++)
                own += values[(s + k) * columns + c] / segments[d];
            for (int k = 0; k < segments[d]; k++)
                squares += pow(values[(s + k) * columns + c] - own, 2);
            variance += pow(own - mean[c], 2) + squares / segments[d] / segments[d];
        }
        double analytic = sqrt(variance) / DOCUMENTS;
        assert_close(se[c], analytic, 0, 0.15);
        ratio += se[c] / analytic / columns;
    }
    assert_close(ratio, 1, 0.03, 0);
    free(values);
    fkv_segment_plan_free(&plan);
}

/* 2,500 segments of three documents: blocks never hold segments of two. */
TEST(joined_segments_stay_within_their_document) {
    const int segments[] = {1, 2400, 99};
    struct fkv_segment_plan plan;
    struct fkv_error_model model;
    make_plan(segments, 3, &plan);
    assert_ok(fkv_error_model_make(&plan, &model, &err));
    assert_int_equal(model.unit, FKV_SE_DOCUMENTS_AND_BLOCKS);
    assert_in_range(model.blocks, 990, 1003);
    assert_int_equal(model.block[0], 0);
    assert_int_equal(model.block[1], 1);
    assert_int_equal(model.block[2401], model.block[2400] + 1);
    assert_int_equal(model.block[2499], model.blocks - 1);
    fkv_error_model_free(&model);
    fkv_segment_plan_free(&plan);
}

/* Between documents that differ by far more than their segments do, the error must be of the order
 * of that difference. */
TEST(bootstrap_error_sees_the_spread_between_documents) {
    const int segments[] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2};
    double values[20], mean, se;
    struct fkv_segment_plan plan;
    for (int s = 0; s < 20; s++) values[s] = s / 2 % 2;
    make_plan(segments, 10, &plan);
    estimate(&plan, 1, values, &mean, &se);
    assert_close(mean, 0.5, 1e-14, 0);
    assert_close(se, 0.5 / sqrt(10), 0, 0.1); /* ten documents, whose segments say nothing more */
    fkv_segment_plan_free(&plan);
}

TEST(many_segments_are_joined_into_blocks_without_changing_mean_or_error) {
    int segments = 2500;
    if (small_sizes()) return; /* long, and of the code that the test of joined segments runs */
    double *values = malloc(2500 * sizeof *values), mean, se, expected = 0;
    struct fkv_segment_plan plan;
    for (int s = 0; s < segments; s++) expected += (values[s] = test_normal()) / segments;
    make_plan(&segments, 1, &plan);
    estimate(&plan, 1, values, &mean, &se);
    assert_close(mean, expected, 1e-12, 0);
    assert_close(se, 1 / sqrt(2500), 0, 0.2);
    free(values);
    fkv_segment_plan_free(&plan);
}

TEST(a_single_segment_has_no_error_and_a_constant_has_none_at_all) {
    struct fkv_segment_plan plan;
    double one = 5, mean, se, same[7];
    int segments = 1;
    make_plan(&segments, 1, &plan);
    estimate(&plan, 1, &one, &mean, &se);
    assert_close(mean, 5, 0, 0);
    assert_true(isnan(se));
    fkv_segment_plan_free(&plan);
    segments = 7;
    for (int i = 0; i < 7; i++) same[i] = 1e9 / 3;
    make_plan(&segments, 1, &plan);
    estimate(&plan, 1, same, &mean, &se);
    assert_close(se, 0, 1e-6, 0);
    fkv_segment_plan_free(&plan);
}

TEST(a_permutation_holds_every_index_and_depends_on_its_key_alone) {
    int32_t n = test_between(2, 500), *a = malloc((size_t)n * sizeof *a),
            *b = malloc((size_t)n * sizeof *b);
    struct fkv_recording r = {.name = "x", .offset = 7};
    uint64_t key = fkv_permutation_key(&r, 4, 0);
    fkv_permutation(key, n, a);
    fkv_permutation(key, n, b);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    char *seen = calloc((size_t)n, 1);
    for (int i = 0; i < n; i++) seen[a[i]]++;
    for (int i = 0; i < n; i++) assert_int_equal(seen[i], 1);
    struct fkv_recording other = {.name = "y", .offset = 7};
    assert_true(key != fkv_permutation_key(&r, 4, 1));
    assert_true(key != fkv_permutation_key(&r, 5, 0));
    assert_true(key != fkv_permutation_key(&other, 4, 0));
    free(seen);
    free(a);
    free(b);
}

/* Over many draws every place holds every index equally often. */
TEST(permutations_are_uniform) {
    enum { N = 5, DRAWS = 40000 };
    int count[N][N] = {{0}};
    int32_t order[N];
    for (int d = 0; d < DRAWS; d++) {
        fkv_permutation(test_random(), N, order);
        for (int i = 0; i < N; i++) count[i][order[i]]++;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) assert_frequency(count[i][j], DRAWS, 1.0 / N);
}

TEST(bands_cover_every_coefficient_but_dc_once) {
    const int sizes[] = {2, 3, 17, 64, 65, 66, 100, 508, 1020, 4092, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int32_t n = sizes[i], edge[FKV_BANDS + 1], bands = fkv_band_edges(n, edge);
        assert_int_equal(bands, n - 1 < FKV_BANDS ? n - 1 : FKV_BANDS);
        assert_int_equal(edge[0], 1);
        assert_int_equal(edge[bands], n);
        for (int32_t b = 0; b < bands; b++) assert_true(edge[b] < edge[b + 1]);
    }
    int32_t edge[FKV_BANDS + 1];
    fkv_band_edges(4092, edge);
    assert_close((double)edge[64] / edge[63], (double)edge[50] / edge[49], 0,
                 0.05); /* log-spaced where there is room */
}
