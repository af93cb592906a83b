/* From captures to spectra: known signals, weights, the null, the floor, user's files, refusals. */
#include <omp.h>

#include "analyze/measure/spectrum.h"
#include "capture/store/h5.h"
#include "tests/unit/analyze/made_folder.h"

TEST_WITH(power_is_that_of_the_plain_sum_in_double, made_folder, remove_folder) {
    struct made m = {.layers = 2,
                     .heads = 2,
                     .query_group = 3,
                     .head_dim = 4,
                     .recordings = 1,
                     .tokens = {47},
                     .states = 1 << FKV_STATE_KEY | 1 << FKV_STATE_QUERY,
                     .value = made_white};
    made_write(&m, path);
    const enum fkv_state states[] = {FKV_STATE_KEY, FKV_STATE_QUERY};
    for (int i = 0; i < 2; i++) {
        struct fkv_spectrum s;
        int n = 20, heads = made_heads(&m, states[i]);
        assert_ok(made_measure(path, states[i], n, 5, false, &s, &err));
        assert_int_equal(s.segments, 2);
        assert_int_equal(s.tokens_left_out, 2);
        assert_int_equal(s.heads, heads);
        assert_int_equal(s.head_index[heads - 1], heads - 1);
        assert_null(s.null);
        double x[20];
        for (int layer = 0; layer < 2; layer++)
            for (int h = 0; h < heads; h++)
                for (int t = 0; t < n; t++) {
                    double power = 0;
                    for (int segment = 0; segment < 2; segment++)
                        for (int c = 0; c < 4; c++) {
                            for (int j = 0; j < n; j++)
                                x[j] = (float)made_white(0, states[i], layer, 5 + segment * n + j,
                                                         h, c);
                            power += pow(dct_coefficient(x, n, t), 2) / 8;
                        }
                    assert_close(s.power[(layer * heads + h) * n + t], power, 1e-6, 1e-5);
                }
        fkv_spectrum_free(&s);
        fkv_spectrum_free(&s);
    }
}

static int wave;

static double cosine(int recording, enum fkv_state state, int layer, int64_t t, int head,
                     int channel) {
    (void)recording, (void)state, (void)layer, (void)head;
    return (channel + 1) * cos(acos(-1) * wave * ((double)t + 0.5) / 50);
}

TEST_WITH(a_cosine_at_a_dct_frequency_puts_its_energy_there, made_folder, remove_folder) {
    struct fkv_spectrum s;
    struct made m = made_keys(1, 1, 3, 50, cosine);
    wave = test_between(1, 49);
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 50, 0, false, &s, &err));
    for (int t = 0; t < 50; t++)
        assert_close(s.power[t], t == wave ? 25 * 14.0 / 3 : 0, 1e-8, 1e-5);
    fkv_spectrum_free(&s);
}

/* Mean of excess over 1 <= t < n, and its standard error from the scatter over t. */
static double mean_excess(const struct fkv_spectrum *s, int row, double *se) {
    double sum = 0, squares = 0, count = s->n - 1;
    for (int t = 1; t < s->n; t++) {
        double excess = s->power[row * s->n + t] / s->null[row * s->n + t];
        sum += excess, squares += excess * excess;
    }
    *se = sqrt((squares / count - pow(sum / count, 2)) / count);
    return sum / count;
}

static void check_excess_is_one(struct made *m) {
    struct fkv_spectrum s;
    made_write(m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 128, 0, true, &s, &err));
    assert_string_equal(s.null_kind, "permute");
    for (int row = 0; row < m->layers * m->heads; row++) {
        double se, excess = mean_excess(&s, row, &se);
        assert_close(excess, 1, 5 * se + 0.005, 0);
        assert_close(s.null[row * 128], s.power[row * 128], 0,
                     1e-6); /* a permutation leaves DC as it is */
        double low = 0, low_null = 0;
        for (int t = 1; t < 32; t++)
            low += s.power[row * 128 + t], low_null += s.null[row * 128 + t];
        assert_close(low / low_null, 1, 0.12,
                     0); /* seven standard errors of 31 t, 16 channels, 14 segments */
    }
    fkv_spectrum_free(&s);
}

TEST_WITH(white_noise_has_excess_one, made_folder, remove_folder) {
    struct made m = made_keys(2, 2, 16, 1024, made_white);
    m.recordings = 2, m.tokens[1] = 800, m.document[1] = 1;
    check_excess_is_one(&m);
}

static int32_t shuffled[256];

static double permuted_drift(int recording, enum fkv_state state, int layer, int64_t t, int head,
                             int channel) {
    return made_drift(recording, state, layer, t / 128 * 128 + shuffled[t % 256] % 128, head,
                      channel);
}

TEST_WITH(a_permuted_capture_has_excess_one_and_an_ordered_one_does_not, made_folder,
          remove_folder) {
    struct fkv_spectrum s;
    char ordered[300];
    struct made m = made_keys(1, 1, 32, 256, made_drift);
    snprintf(ordered, sizeof ordered, "%s/ordered", folder);
    made_write(&m, ordered);
    assert_ok(made_measure(ordered, FKV_STATE_KEY, 128, 0, true, &s, &err));
    assert_true(s.power[1] / s.null[1] > 20);
    fkv_spectrum_free(&s);
    /* Every channel is ordered alike here, so one permutation moves a whole spectrum: many segments
     * are needed for a close mean. */
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 128; i++) shuffled[half * 128 + i] = half * 128 + i;
    for (int half = 0; half < 2; half++)
        for (int i = 127; i > 0; i--) {
            int j = test_between(0, i), moved = shuffled[half * 128 + i];
            shuffled[half * 128 + i] = shuffled[half * 128 + j];
            shuffled[half * 128 + j] = moved;
        }
    m.value = permuted_drift;
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 128, 0, true, &s, &err));
    double total = 0, null_total = 0, se, excess = mean_excess(&s, 0, &se);
    for (int t = 1; t < 128; t++) total += s.power[t], null_total += s.null[t];
    assert_close(total, null_total, 0, 1e-5); /* Parseval: a permutation keeps the energy */
    assert_close(excess, 1, 6 * se, 0.1);
    fkv_spectrum_free(&s);
}

static double by_recording(int recording, enum fkv_state state, int layer, int64_t t, int head,
                           int channel) {
    (void)state, (void)layer, (void)head, (void)channel;
    static const double values[] = {1, 2, 3};
    return values[recording] * (t < 8 ? 1 : 2);
}

/* Two recordings of one document and a document of its own. Segments of 8 constants v have power 8
 * v^2 at t = 0. Document 0: v = 1, 2 | 3; document 1: v = 2. */
TEST_WITH(documents_weigh_equally_over_recordings, made_folder, remove_folder) {
    struct fkv_spectrum s;
    struct made m = {.layers = 1,
                     .heads = 1,
                     .query_group = 1,
                     .head_dim = 2,
                     .recordings = 3,
                     .tokens = {16, 8, 8},
                     .document = {0, 1, 0},
                     .offset = {0, 0, 16},
                     .states = 1,
                     .value = by_recording};
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 8, 0, false, &s, &err));
    assert_int_equal(s.documents, 2);
    assert_int_equal(s.segments, 4);
    assert_close(s.power[0], 8 * ((1.0 + 4 + 9) / 3 + 4) / 2, 0, 1e-6);
    assert_string_equal(s.se_kind, "bootstrap");
    assert_int_equal(s.se_unit, FKV_SE_DOCUMENTS_AND_BLOCKS);
    fkv_spectrum_free(&s);
}

TEST_WITH(normalised_power_does_not_see_the_scale_of_channels, made_folder, remove_folder) {
    struct fkv_spectrum s;
    struct made m = made_keys(1, 2, 8, 64, made_drift);
    made_write(&m, path);
    assert_ok(made_measure(path, FKV_STATE_KEY, 64, 0, false, &s, &err));
    double sum = 0;
    for (int t = 1; t < 64; t++) sum += s.normalised[t];
    assert_close(sum, 64, 0, 1e-5); /* each channel: its energy without DC over its variance = n */
    fkv_spectrum_free(&s);
}

/* The floor is what rounding to 16 bits does to a sample, on average. */
TEST_WITH(rounding_floor_is_the_energy_that_rounding_adds, made_folder, remove_folder) {
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x), *back = malloc(N * sizeof *back);
    uint16_t *stored = malloc(N * sizeof *stored);
    test_fill(x, N, 0.5, 3);
    for (int dtype = FKV_F16; dtype <= FKV_BF16; dtype++) {
        double energy = 0;
        fkv_from_f32(x, (enum fkv_dtype)dtype, N, stored);
        fkv_to_f32(stored, (enum fkv_dtype)dtype, N, back);
        for (int i = 0; i < N; i++)
            energy += ((double)x[i] - back[i]) * ((double)x[i] - back[i]) / N;
        assert_close(fkv_rounding_energy(stored, N, (enum fkv_dtype)dtype), energy, 0, 0.03);
    }
    const uint16_t tiny[] = {0, 0x0010}; /* 2^-20, subnormal in f16: spacing 2^-24 */
    assert_close(fkv_rounding_energy(tiny, 2, FKV_F16), 0x1p-48 / 12, 0, 1e-12);
    const float two[] = {2};
    assert_close(fkv_rounding_energy(two, 1, FKV_F32), 0x1p-44 / 12, 0, 1e-12);
    free(x), free(back), free(stored);
}

/* A user's own file: four numbers and one array, written as anybody would. */
static void write_minimal(const char *file, const float *value, int64_t tokens, bool context) {
    struct fkv_h5_writer *w;
    const int64_t dims[] = {1, 2, tokens, 4};
    assert_ok(fkv_h5_create(file, &w, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_layers", 1, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_kv_heads", 2, &err));
    assert_ok(fkv_h5_put_int(w, "/", "head_dim", 4, &err));
    if (context) assert_ok(fkv_h5_put_int(w, "/", "trained_context", 36, &err));
    assert_ok(fkv_h5_put(w, "/value", FKV_H5_F32, 4, dims, value, &err));
    assert_ok(fkv_h5_commit(w, &err));
}

TEST_WITH(a_minimal_file_with_one_state_is_measured, made_folder, remove_folder) {
    struct fkv_spectrum s;
    float value[2 * 40 * 4];
    char own[300];
    test_fill(value, 320, 0, 1);
    snprintf(own, sizeof own, "%s/own.h5", folder);
    write_minimal(own, value, 40, false);
    assert_refused(made_measure(own, FKV_STATE_VALUE, 0, -1, false, &s, &err), "trained_context");
    assert_ok(made_measure(own, FKV_STATE_VALUE, 40, 0, true, &s, &err));
    double energy = 0, power = 0;
    for (int i = 0; i < 320; i++) energy += (double)value[i] * value[i];
    for (int i = 0; i < 80; i++) power += s.power[i] * 4;
    assert_close(power, energy, 0, 1e-5);
    assert_true(isnan(s.power_se[5])); /* one segment */
    fkv_spectrum_free(&s);
    snprintf(own, sizeof own, "%s/context.h5", folder);
    write_minimal(own, value, 40, true);
    assert_ok(made_measure(own, FKV_STATE_VALUE, 0, -1, false, &s, &err)); /* 36 - 4 = 32 */
    assert_int_equal(s.n, 32);
    assert_int_equal(s.tokens_left_out, 4);
    fkv_spectrum_free(&s);
}

TEST_WITH(too_short_recordings_nan_and_empty_folders_are_refused, made_folder, remove_folder) {
    struct fkv_spectrum s;
    float value[2 * 40 * 4];
    char own[300], empty[300];
    test_fill(value, 320, 0, 1);
    value[4 * 17 + 2] = NAN;
    snprintf(own, sizeof own, "%s/own.h5", folder);
    snprintf(empty, sizeof empty, "%s/empty", folder);
    write_minimal(own, value, 40, false);
    assert_refused(made_measure(own, FKV_STATE_VALUE, 100, 4, false, &s, &err),
                   "no segment of 100 tokens");
    assert_refused(made_measure(own, FKV_STATE_VALUE, 100, 4, false, &s, &err), "own.h5");
    assert_refused(made_measure(own, FKV_STATE_VALUE, 30, 4, false, &s, &err), "token 17");
    assert_refused(made_measure(empty, FKV_STATE_VALUE, 30, 4, false, &s, &err), "empty");
    char command[400];
    snprintf(command, sizeof command, "mkdir '%s'", empty);
    assert_int_equal(system(command), 0);
    assert_refused(made_measure(empty, FKV_STATE_VALUE, 30, 4, false, &s, &err), "empty");
}

TEST_WITH(the_null_does_not_depend_on_the_order_of_recordings, made_folder, remove_folder) {
    struct fkv_spectrum a, b;
    char other[300];
    struct made m = made_keys(1, 2, 4, 64, made_white);
    m.recordings = 2, m.tokens[1] = 64, m.document[1] = 1;
    snprintf(other, sizeof other, "%s/other", folder);
    made_write(&m, path);
    made_write(&m, other);
    char swap[1600];
    snprintf(swap, sizeof swap,
             "cd '%s/documents' && mv 000000.h5 x && mv 000001.h5 000000.h5 && mv x 000001.h5 && "
             "rm ../capture.h5",
             other);
    assert_int_equal(system(swap), 0);
    assert_ok(made_measure(path, FKV_STATE_KEY, 16, 0, true, &a, &err));
    assert_ok(made_measure(other, FKV_STATE_KEY, 16, 0, true, &b, &err));
    for (int i = 0; i < 32; i++) assert_close(a.null[i], b.null[i], 0, 1e-12);
    fkv_spectrum_free(&a);
    fkv_spectrum_free(&b);
}

/* The rest of a command (bounds, bootstraps) runs on what OpenMP gives the caller, while workers of
 * one thread are open and after. */
TEST_WITH(workers_leave_the_callers_threads_alone, made_folder, remove_folder) {
    struct fkv_workers workers;
    const int callers = omp_get_max_threads();
    for (int threads = 0; threads <= 3; threads++) {
        int team = 0;
        omp_set_num_threads(3);
        assert_ok(fkv_workers_open(&workers, "cpu", 0, threads, NULL, &err));
        assert_int_equal(workers.count, threads ? threads : 3);
#pragma omp parallel
#pragma omp single
        team = omp_get_num_threads();
        assert_int_equal(team, 3);
        fkv_workers_close(&workers);
        assert_int_equal(omp_get_max_threads(), 3);
    }
    omp_set_num_threads(callers);
}
