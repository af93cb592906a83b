/* Stored states on several threads: the same bits, the same errors, a bounded memory. */
#include "tests/unit/analyze/made_folder.h"

static int measure_on(int threads, int length, struct fkv_spectrum *out) {
    struct fkv_capture *capture = NULL;
    struct fkv_segment_plan plan = {0};
    struct fkv_workers workers = {0};
    assert_ok(fkv_capture_open(path, &capture, &err));
    assert_ok(fkv_spectrum_plan(capture, length, 4, &plan, &err));
    assert_ok(fkv_workers_open(&workers, "cpu", 0, threads, NULL, &err));
    struct fkv_measurement m = {
        .capture = capture, .plan = &plan, .workers = &workers, .null = true};
    int status = fkv_spectrum_measure(&m, FKV_STATE_KEY, out, &err);
    fkv_workers_close(&workers);
    fkv_segment_plan_free(&plan);
    fkv_capture_close(capture);
    return status;
}

enum { HEADS = 3 };
static int layers(void) { return small_sizes() ? 1 : 3; }

/* Recordings of several pieces, of one, and of a part of one. */
static void write_uneven(enum fkv_dtype dtype) {
    struct made m = {.layers = layers(),
                     .heads = HEADS,
                     .query_group = 1,
                     .head_dim = 4,
                     .recordings = 4,
                     .tokens = {9000, 700, 70, 3000},
                     .document = {0, 1, 1, 2},
                     .dtype = dtype,
                     .states = 1 << FKV_STATE_KEY,
                     .value = made_drift};
    made_write(&m, path);
}

static void assert_same_bits(const double *a, const double *b, size_t count) {
    assert_memory_equal(a, b, count * sizeof *a);
}

TEST_WITH(the_number_of_threads_changes_no_bit, made_folder, remove_folder) {
    write_uneven((enum fkv_dtype)test_between(FKV_F32, FKV_BF16));
    const size_t all = (size_t)(layers() * HEADS);
    struct fkv_spectrum one;
    assert_ok(measure_on(1, 60, &one));
    for (int threads = 2; threads <= 7; threads += 5) {
        struct fkv_spectrum s;
        assert_ok(measure_on(threads, 60, &s));
        assert_same_bits(s.power, one.power, all * 60);
        assert_same_bits(s.power_se, one.power_se, all * 60);
        assert_same_bits(s.null, one.null, all * 60);
        assert_same_bits(s.normalised, one.normalised, (size_t)layers() * 60);
        assert_same_bits(s.rounding_floor, one.rounding_floor, all);
        assert_same_bits(s.band_se, one.band_se, all * (size_t)one.bands);
        fkv_spectrum_free(&s);
    }
    fkv_spectrum_free(&one);
}

/* A byte in the middle of a file is one of its states. */
TEST_WITH(a_damaged_file_gives_the_same_error_on_any_number_of_threads, made_folder,
          remove_folder) {
    struct fkv_error first;
    struct fkv_spectrum s;
    char file[400];
    write_uneven(FKV_F32);
    snprintf(file, sizeof file, "%s/documents/000003.h5", path);
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long middle = ftell(f) / 2;
    fseek(f, middle, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, middle, SEEK_SET);
    fputc(byte ^ 4, f);
    fclose(f);
    assert_refused(measure_on(1, 60, &s), "000003.h5: key: cannot read");
    first = err;
    for (int i = 0; i < (small_sizes() ? 2 : 5); i++) {
        assert_refused(measure_on(test_between(2, 7), 60, &s), "000003.h5");
        assert_string_equal(err.message, first.message);
    }
}

TEST_WITH(memory_is_bounded_whatever_the_capture, made_folder, remove_folder) {
    static const struct {
        int32_t n, heads, head_dim;
        int64_t segments;
    } captures[] = {{4092, 64, 128, 1000000}, {508, 32, 256, 100000000}, {131068, 8, 128, 300}};
    for (size_t i = 0; i < sizeof captures / sizeof *captures; i++) {
        struct fkv_capture_info info = {.head_dim = captures[i].head_dim, .layer_count = 100};
        struct fkv_planned_recording recording = {.segments = captures[i].segments, .share = 1};
        struct fkv_segment_plan plan = {.n = captures[i].n,
                                        .recordings = 1,
                                        .documents = 1,
                                        .segments = captures[i].segments,
                                        .recording = &recording};
        int64_t bytes = fkv_spectrum_states_bytes(&info, captures[i].heads, true, &plan);
        if (bytes > (int64_t)1 << 30)
            fail_msg("%lld bytes for segments of %d", (long long)bytes, captures[i].n);
    }
}
