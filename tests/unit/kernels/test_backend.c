/* What a backend owns beside its arithmetic: its options, its memory, states on their way out, its
 * stopwatch. The arithmetic is tested by test_layer, test_attend, test_step, test_score,
 * test_compress and test_power. */
#include <pthread.h>
#include <semaphore.h>

#include "kernels/base/progress.h"
#include "kernels/isa.h"
#include "tests/unit/kernels/backend_support.h"

TEST(options_that_cannot_be_met_are_refused) {
    struct fkv_backend *b = NULL;
    assert_int_equal(tested.ops->abi, FKV_BACKEND_ABI);
    assert_ok(tested.ops->probe(&err));
    if (tested_space == FKV_DEVICE) {
        struct fkv_backend_options far = {.device = 1000000};
        assert_refused(tested.ops->open(&far, &b, &err), "1000000");
    } else {
        struct fkv_backend_options bf16 = {.compute = FKV_COMPUTE_BF16}, negative = {.threads = -1};
        if (strcmp(tested.ops->name, "cpu") || fkv_isa() < FKV_ISA_AVX512_BF16)
            assert_refused(tested.ops->open(&bf16, &b, &err), "bfloat16");
        assert_refused(tested.ops->open(&negative, &b, &err),
                       "threads: expected 0 (all cores) or more, found -1");
    }
    struct fkv_backend_options exact = {
        .compute = FKV_COMPUTE_F32, .threads = 1, .device = FKV_ANY_DEVICE};
    assert_ok(tested.ops->open(&exact, &b, &err));
    tested.ops->close(b);
}

/* Limits, a map, a spectrum and a fetch, asked about at once and in parts: what they take is within
 * what add_needs said, less the 128 MiB that it puts aside for CUDA itself. Only on the stand-in,
 * where nobody else takes memory meanwhile. */
TEST(a_demand_is_what_a_device_loses) {
    static const int lengths[][2] = {{12, 6}, {1020, 510}, {1018, 509}, {600, 409}, {2040, 1024}};
    struct fkv_device_info before, after;
    assert_ok(tested.ops->info(tested.b, &before, &err));
    if (!strstr(before.name, "shim")) return;
    for (int round = 0; round < 2 * (int)(sizeof lengths / sizeof *lengths); round++) {
        const int n = lengths[round / 2][0], retained = lengths[round / 2][1], in_parts = round % 2;
        struct fkv_attention_shape s = shape_of(round);
        const struct fkv_limits limits = {.rows = test_between(1, 200),
                                          .dim = s.dim,
                                          .hidden = test_between(1, 4000),
                                          .vocab = 300,
                                          .slots = n + 4,
                                          .items = s.kv_heads * test_between(1, 8),
                                          .attention = s};
        const struct fkv_demand all = {.limits = limits,
                                       .map_n = n,
                                       .map_retained = retained,
                                       .segment_n = n,
                                       .segment_heads = s.kv_heads,
                                       .segment_head_dim = s.head_dim,
                                       .fetches = true},
                                one = {.limits = limits},
                                two = {.limits = limits, .map_n = n, .map_retained = retained};
        struct fkv_backend *b;
        struct fkv_backend_needs own = {0};
        struct fkv_map *map;
        struct fkv_buffer *x;
        void *host;
        size_t bytes = sizeof(float) * (size_t)(n * s.kv_heads * s.head_dim);
        double *power = malloc(sizeof *power * (size_t)(n * s.kv_heads));
        assert_ok(
            tested.ops->open(&(struct fkv_backend_options){.device = FKV_ANY_DEVICE}, &b, &err));
        if (in_parts) {
            assert_ok(tested.ops->add_needs(b, &one, &own, &err));
            assert_ok(tested.ops->add_needs(b, &two, &own, &err));
        }
        assert_ok(tested.ops->add_needs(b, &all, &own, &err));
        assert_ok(tested.ops->info(b, &before, &err));
        assert_ok(tested.ops->reserve(b, &limits, &err));
        assert_ok(tested.ops->map_dct(b, n, retained, 1, &map, &err));
        assert_ok(tested.ops->host_create(b, 1000, &host, &err));
        assert_ok(tested.ops->buffer_create(b, bytes, &x, &err));
        assert_ok(tested.ops->power(b, x, 0, (size_t)(s.kv_heads * s.head_dim), n, s.kv_heads,
                                    s.head_dim, power, NULL, &err));
        assert_ok(tested.ops->info(b, &after, &err));
        int64_t lost = before.memory_free - after.memory_free - (int64_t)bytes,
                said = own.shared + own.kept - (128 << 20);
        if (lost > said)
            fail_msg("n = %d: lost %lld bytes, said %lld", n, (long long)lost, (long long)said);
        tested.ops->host_release(b, host);
        tested.ops->buffer_release(b, x);
        tested.ops->map_release(b, map);
        tested.ops->close(b);
        free(power);
    }
}

TEST(memory_keeps_what_was_written) {
    size_t count = (size_t)test_between(100, 5000), cut = (size_t)test_between(1, 99);
    float *x = random_numbers(count, 0, 1), *found;
    struct fkv_buffer *a = upload(tested, x, 4 * count), *b, *adopted;
    assert_ok(tested.ops->buffer_create(tested.b, 4 * count, &b, &err));
    assert_ok(tested.ops->copy(tested.b, b, 0, a, 4 * cut, 4 * (count - cut), &err));
    assert_ok(tested.ops->copy(tested.b, b, 4 * (count - cut), a, 0, 4 * cut, &err));
    found = download(tested, b, count);
    assert_memory_equal(found, x + cut, 4 * (count - cut));
    assert_memory_equal(found + count - cut, x, 4 * cut);
    assert_ok(tested.ops->write(tested.b, a, 4 * cut, found, 4 * (count - cut), &err));
    assert_ok(tested.ops->read(tested.b, a, 4 * cut, x, 4 * (count - cut), &err));
    assert_memory_equal(found, x, 4 * (count - cut));
    free(found);
    assert_ok(tested.ops->buffer_adopt(tested.b, x, 4 * count, &adopted, &err));
    found = download(tested, adopted, count);
    assert_memory_equal(found, x, 4 * count);
    assert_non_null(tested.ops->address(b));
    struct fkv_device_info info;
    assert_ok(tested.ops->info(tested.b, &info, &err));
    assert_true(info.name[0] && info.memory_total > 0);
    if (info.space == FKV_HOST) assert_int_equal((uintptr_t)tested.ops->address(b) % 64, 0);
    assert_ok(tested.ops->synchronize(tested.b, &err));
    tested.ops->buffer_release(tested.b, a);
    tested.ops->buffer_release(tested.b, b);
    tested.ops->buffer_release(tested.b, adopted);
    tested.ops->buffer_release(tested.b, NULL);
    tested.ops->map_release(tested.b, NULL);
    tested.ops->host_release(tested.b, NULL);
    tested.ops->step_release(tested.b, NULL);
    tested.ops->close(NULL);
    free(found), free(x);
}

/* What is written may be overwritten at once by the caller, however large it is. */
TEST(a_write_has_taken_its_source_when_it_returns) {
    for (int round = 0; round < 8; round++) {
        size_t count = (size_t)test_between(1, small_sizes() ? 5000 : 2000000);
        float *x = random_numbers(count, 0, 1), *kept = numbers(count);
        struct fkv_buffer *buffer = upload(tested, x, 4 * count);
        memcpy(kept, x, 4 * count);
        memset(x, 0xff, 4 * count);
        float *found = download(tested, buffer, count);
        assert_memory_equal(found, kept, 4 * count);
        tested.ops->buffer_release(tested.b, buffer);
        free(x), free(kept), free(found);
    }
}

TEST(rows_are_copied_between_strides) {
    for (int round = 0; round < 16; round++) {
        int rows = rows_of(round), width = random_width(300);
        size_t from_stride = (size_t)(width + test_between(0, 9)),
               to_stride = (size_t)(width + test_between(0, 9));
        size_t from_at = (size_t)test_between(0, 9), to_at = (size_t)test_between(0, 9);
        size_t from_count = from_at + (size_t)rows * from_stride,
               to_count = to_at + (size_t)rows * to_stride;
        float *x = random_numbers(from_count, 0, 1), *expected = random_numbers(to_count, 0, 1);
        struct fkv_buffer *from = upload(tested, x, 4 * from_count),
                          *to = upload(tested, expected, 4 * to_count);
        assert_ok(tested.ops->copy_rows(tested.b, to, 4 * to_at, to_stride, from, 4 * from_at,
                                        from_stride, rows, width, &err));
        for (size_t r = 0; r < (size_t)rows; r++)
            memcpy(expected + to_at + r * to_stride, x + from_at + r * from_stride,
                   4 * (size_t)width);
        float *found = download(tested, to, to_count);
        assert_memory_equal(found, expected, 4 * to_count);
        tested.ops->buffer_release(tested.b, from);
        tested.ops->buffer_release(tested.b, to);
        free(x), free(expected), free(found);
    }
}

/* ---- fetch ---- */

enum { FETCHES = 5 };

/* Rows under way to the host, and what they must become. */
struct flight {
    size_t bytes;
    void *to, *expected;
    uint64_t ticket;
};

/* Numbers of all sizes: what float16 keeps, flushes, rounds to infinity, and halves that go to
 * even. */
static float *numbers_of_all_sizes(size_t count) {
    float *x = random_numbers(count, 0, 1);
    for (size_t i = 0; i < count; i++) {
        int kind = test_between(0, 7);
        if (kind == 0) x[i] = ldexpf(x[i], test_between(-140, 120));
        if (kind == 1) x[i] = ldexpf(x[i], test_between(-26, -12));
        if (kind == 2) x[i] = (float)(2048 + test_between(0, 4096)) / 2048 + 0x1p-12f;
        if (kind == 3) x[i] = (float)(128 + test_between(0, 128)) / 128 + 0x1p-8f;
        if (kind == 4 && i % 31 == 0) x[i] = INFINITY;
    }
    return x;
}

/* Sets out and overwrites its source at once. */
static struct flight set_out(enum fkv_dtype t, struct fkv_buffer *source,
                             const struct fkv_buffer *noise, int rows) {
    int width = random_width(200);
    size_t stride = (size_t)(width + test_between(0, 20)), at = (size_t)test_between(0, 9);
    size_t count = at + (size_t)rows * stride, wide = (size_t)width,
           row_bytes = wide * fkv_dtype_bytes(t);
    struct flight f = {.bytes = (size_t)rows * row_bytes,
                       .expected = malloc((size_t)rows * row_bytes)};
    float *x = numbers_of_all_sizes(count);
    assert_ok(tested.ops->host_create(tested.b, f.bytes, &f.to, &err));
    assert_int_equal((uintptr_t)f.to % 64, 0);
    assert_ok(tested.ops->write(tested.b, source, 0, x, 4 * count, &err));
    assert_ok(
        tested.ops->fetch(tested.b, source, 4 * at, stride, rows, width, t, f.to, &f.ticket, &err));
    assert_ok(tested.ops->copy(tested.b, source, 0, noise, 0, 4 * count, &err));
    for (size_t r = 0; r < (size_t)rows; r++)
        fkv_from_f32(x + at + r * stride, t, wide, (char *)f.expected + r * row_bytes);
    free(x);
    return f;
}

static void land(struct flight *f) {
    tested.ops->host_release(tested.b, f->to);
    free(f->expected);
}

TEST(fetched_rows_are_those_of_the_moment_rounded_to_nearest) {
    size_t most = 400 * 220;
    float *x = random_numbers(most, 0, 1);
    struct fkv_buffer *source = upload(tested, x, 4 * most), *noise = upload(tested, x, 4 * most);
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct flight flights[FETCHES];
        for (int i = 0; i < FETCHES; i++)
            flights[i] = set_out((enum fkv_dtype)((round + i) % 3), source, noise, rows_of(round));
        assert_ok(tested.ops->fetch_wait(tested.b, flights[FETCHES - 1].ticket,
                                         &err)); /* for all before it too */
        for (int i = 0; i < FETCHES; i++)
            assert_memory_equal(flights[i].to, flights[i].expected, flights[i].bytes);
        for (int i = 0; i < FETCHES; i++) land(&flights[i]);
    }
    tested.ops->buffer_release(tested.b, source);
    tested.ops->buffer_release(tested.b, noise);
    free(x);
}

/* The second thread: waits for each flight that was announced, and compares. */
struct receiver {
    struct flight flights[64];
    sem_t announced;
    int failed, different;
};

static void *receive(void *context) {
    struct receiver *r = context;
    struct fkv_error unused;
    for (size_t i = 0; i < sizeof r->flights / sizeof *r->flights; i++) {
        sem_wait(&r->announced);
        struct flight *f = &r->flights[i];
        r->failed += tested.ops->fetch_wait(tested.b, f->ticket, &unused) != FKV_OK;
        r->different += memcmp(f->to, f->expected, f->bytes) != 0;
    }
    return NULL;
}

TEST(a_second_thread_waits_while_the_first_goes_on) {
    static struct receiver r;
    pthread_t thread;
    size_t most = 400 * 220, flights = sizeof r.flights / sizeof *r.flights;
    float *x = random_numbers(most, 0, 1);
    struct fkv_buffer *source = upload(tested, x, 4 * most), *noise = upload(tested, x, 4 * most);
    assert_int_equal(sem_init(&r.announced, 0, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, receive, &r), 0);
    for (size_t i = 0; i < flights; i++) {
        r.flights[i] = set_out((enum fkv_dtype)(i % 3), source, noise, test_between(1, 40));
        sem_post(&r.announced);
    }
    pthread_join(thread, NULL);
    assert_int_equal(r.failed, 0);
    assert_int_equal(r.different, 0);
    for (size_t i = 0; i < flights; i++) land(&r.flights[i]);
    sem_destroy(&r.announced);
    tested.ops->buffer_release(tested.b, source);
    tested.ops->buffer_release(tested.b, noise);
    free(x);
}

static double time_on(struct fkv_backend *b) {
    double seconds = NAN;
    assert_ok(tested.ops->time_read(b, &seconds, &err));
    return seconds;
}

/* A backend of its own, for a stopwatch is never set back. More stretches than a device keeps
 * events for. */
TEST(the_stopwatch_counts_what_stands_between_begin_and_end) {
    enum { STRETCHES = 200, BYTES = 100000 };
    struct fkv_backend *b;
    struct fkv_buffer *from, *to;
    assert_ok(tested.ops->open(&(struct fkv_backend_options){.device = FKV_ANY_DEVICE}, &b, &err));
    assert_ok(tested.ops->buffer_create(b, BYTES, &from, &err));
    assert_ok(tested.ops->buffer_create(b, BYTES, &to, &err));
    assert_true(time_on(b) == 0);
    assert_refused(tested.ops->time_end(b, &err), "an end without a begin");
    double started = fkv_seconds(), before = 0;
    for (int i = 0; i < STRETCHES; i++) {
        assert_ok(tested.ops->time_begin(b, &err));
        assert_ok(tested.ops->copy(b, to, 0, from, 0, BYTES, &err));
        assert_ok(tested.ops->time_end(b, &err));
        if (test_between(0, 49)) continue;
        double now = time_on(b);
        assert_true(now >= before);
        before = now;
    }
    double sum = time_on(b), elapsed = fkv_seconds() - started;
    /* A device's events stand on its own clock, which tells no less than half a microsecond. */
    double fuzz = tested_space == FKV_DEVICE ? 1e-6 * STRETCHES : 0;
    if (!(sum > 0 && sum >= before && sum <= elapsed + fuzz))
        fail_msg("%g s in stretches of %g s in all, %g before", sum, elapsed, before);
    assert_ok(tested.ops->copy(b, to, 0, from, 0, BYTES, &err)); /* in none */
    assert_ok(tested.ops->time_begin(b, &err));                  /* without an end */
    assert_true(time_on(b) == sum);
    if (tested_space == FKV_DEVICE) {
        struct fkv_step *step;
        assert_ok(tested.ops->step_create(b, &step, &err));
        assert_ok(tested.ops->step_begin(b, step, &err));
        assert_refused(tested.ops->time_begin(b, &err), "not within a step");
        tested.ops->step_release(b, step);
    }
    tested.ops->buffer_release(b, from);
    tested.ops->buffer_release(b, to);
    tested.ops->close(b);
}

TEST_GROUP(open_both, close_both)
