/* Threads belong to the CPU backend that was opened with them: not to the process, and not to
 * OpenBLAS.
 *
 * OpenMP keeps the threads that it has made, so the tasks of this process say how many were ever
 * wanted at once. Tests therefore stand in the order of the threads they may make. */
#include <dirent.h>
#include <omp.h>

#include "kernels/base/host.h"
#include "kernels/kernels.h"
#include "tests/unit/support.h"

enum {
    CALLERS = 4, /* more than that, and LLVM's libomp loses memory on a machine of two cores */
    ROWS = 300,
    WIDE = 512
};

static const struct fkv_backend_ops *ops;

static struct fkv_backend *open_with(int threads) {
    struct fkv_backend *b;
    struct fkv_device_info info;
    assert_ok(fkv_backend_find("cpu", &ops, NULL, &err));
    assert_ok(ops->open(&(struct fkv_backend_options){.threads = threads}, &b, &err));
    assert_ok(ops->info(b, &info, &err));
    assert_int_equal(info.threads, threads ? threads : omp_get_max_threads());
    return b;
}

static int tasks(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/task");
    assert_non_null(folder);
    for (const struct dirent *e = readdir(folder); e; e = readdir(folder))
        count += e->d_name[0] != '.';
    closedir(folder);
    return count;
}

static int team(void) {
    int size = 0;
#pragma omp parallel
#pragma omp single
    size = omp_get_num_threads();
    return size;
}

/* Rows through a float32 weight: panels and sgemm. x [ROWS, WIDE] -> out [ROWS, WIDE] */
static void multiply(struct fkv_backend *b, float *weight, const float *x, float *out) {
    const struct fkv_limits limits = {
        .rows = ROWS,
        .dim = WIDE,
        .hidden = WIDE,
        .vocab = 1,
        .slots = 1,
        .items = 1,
        .attention = {.dim = WIDE, .heads = 1, .kv_heads = 1, .head_dim = 16}};
    struct fkv_weight w = {.format = FKV_WEIGHT_F32, .rows = WIDE, .cols = WIDE};
    struct fkv_buffer *in, *sum;
    size_t bytes = sizeof(float) * ROWS * WIDE;
    assert_ok(ops->reserve(b, &limits, &err));
    assert_ok(ops->buffer_adopt(b, weight, sizeof(float) * WIDE * WIDE, &w.data, &err));
    assert_ok(ops->buffer_create(b, bytes, &in, &err));
    assert_ok(ops->buffer_create(b, bytes, &sum, &err));
    assert_ok(ops->write(b, in, 0, x, bytes, &err));
    memset(out, 0, bytes);
    assert_ok(ops->write(b, sum, 0, out, bytes, &err));
    assert_ok(ops->project_residual(b, &(struct fkv_residual_weights){.w = w, .multiplier = 1}, in,
                                    ROWS, sum, &err));
    assert_ok(ops->read(b, sum, 0, out, bytes, &err));
    ops->buffer_release(b, w.data), ops->buffer_release(b, in), ops->buffer_release(b, sum);
}

TEST(a_backend_of_one_thread_stays_on_it) {
    float *weight = state[0], *x = weight + WIDE * WIDE, *out = x + ROWS * WIDE;
    omp_set_num_threads(CALLERS);
    struct fkv_backend *one = open_with(1);
    multiply(one, weight, x, out);
    assert_int_equal(tasks(), 1);
    ops->close(one);
}

TEST(a_short_loop_leaves_a_lent_processor) {
    float *weight = state[0], *x = weight + WIDE * WIDE, *alone = x + ROWS * WIDE,
          *of_two = alone + ROWS * WIDE;
    omp_set_num_threads(2);
    struct fkv_backend *two = open_with(0);
    fkv_host_lend(1);
    multiply(two, weight, x, alone);
    assert_int_equal(tasks(), 1);
    fkv_host_lend(-1);
    multiply(two, weight, x, of_two);
    assert_int_equal(tasks(), 2);
    assert_memory_equal(of_two, alone, sizeof(float) * ROWS * WIDE);
    ops->close(two);
}

TEST(two_backends_keep_their_own_threads) {
    float *weight = state[0], *x = weight + WIDE * WIDE, *of_three = x + ROWS * WIDE,
          *of_one = of_three + ROWS * WIDE;
    struct fkv_backend *three = open_with(3), *one = open_with(1);
    struct fkv_device_info info;
    int before = tasks();
    multiply(one, weight, x, of_one);
    assert_int_equal(tasks(), before);
    multiply(three, weight, x, of_three); /* although it was opened first */
    assert_int_equal(tasks(), 3);
    assert_ok(ops->info(three, &info, &err));
    assert_int_equal(info.threads, 3);
    ops->close(three);
    multiply(one, weight, x, of_three);
    assert_memory_equal(of_three, of_one, sizeof(float) * ROWS * WIDE);
    ops->close(one);
}

TEST(results_do_not_depend_on_the_number_of_threads) {
    float *weight = state[0], *x = weight + WIDE * WIDE, *expected = x + ROWS * WIDE,
          *out = expected + ROWS * WIDE;
    for (int threads = 1; threads <= 4; threads++) {
        struct fkv_backend *b = open_with(threads);
        multiply(b, weight, x, threads == 1 ? expected : out);
        if (threads > 1) assert_memory_equal(out, expected, sizeof(float) * ROWS * WIDE);
        ops->close(b);
    }
}

/* `rows` causal rows of 6 heads, by 2 KV heads, after SLOTS - rows slots. x holds queries, then
 * keys, then values; out [rows, 6, 16]. */
enum { SLOTS = 3000, HEAD_DIM = 16, HEADS = 6, KV_HEADS = 2 };

static void attend(struct fkv_backend *b, const float *x, int32_t rows, float *out) {
    static const double inv_freq[HEAD_DIM / 2] = {1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003};
    const struct fkv_attention_shape shape = {HEADS * HEAD_DIM, HEADS,    KV_HEADS, HEAD_DIM, 0.25f,
                                              inv_freq,         HEAD_DIM, 1,        0};
    const struct fkv_limits limits = {.rows = rows,
                                      .dim = HEADS * HEAD_DIM,
                                      .hidden = 1,
                                      .vocab = 1,
                                      .slots = SLOTS,
                                      .items = KV_HEADS,
                                      .attention = shape};
    const size_t queries = (size_t)rows * HEADS * HEAD_DIM,
                 states = (size_t)KV_HEADS * SLOTS * HEAD_DIM;
    struct fkv_cache cache = {.dtype = FKV_F32, .capacity = SLOTS};
    struct fkv_buffer *q, *found;
    const struct fkv_span span = {
        .end = SLOTS, .from = FKV_NO_LIMIT_BELOW, .until = SLOTS - rows + 1, .position = 5};
    struct fkv_attend_item items[KV_HEADS];
    for (int32_t h = 0; h < KV_HEADS; h++)
        items[h] = (struct fkv_attend_item){
            .cache_head = h, .head = 3 * h, .heads = 3, .rows = rows, .spans = 1};
    assert_ok(ops->reserve(b, &limits, &err));
    assert_ok(ops->buffer_adopt(b, x, 4 * queries, &q, &err));
    assert_ok(ops->buffer_adopt(b, x + queries, 4 * states, &cache.key, &err));
    assert_ok(ops->buffer_adopt(b, x + queries + states, 4 * states, &cache.value, &err));
    assert_ok(ops->buffer_create(b, 4 * queries, &found, &err));
    assert_ok(ops->attend(b, &shape, q, &cache, &span, items, KV_HEADS, found, &err));
    assert_ok(ops->read(b, found, 0, out, 4 * queries, &err));
    ops->buffer_release(b, q), ops->buffer_release(b, found);
    ops->buffer_release(b, cache.key), ops->buffer_release(b, cache.value);
}

/* One row, whose slots are split; rows of one panel; rows of several units. */
TEST(attention_does_not_depend_on_the_number_of_threads) {
    static float expected[ROWS * HEADS * HEAD_DIM], out[ROWS * HEADS * HEAD_DIM];
    const int32_t rows[] = {1, 10, ROWS};
    for (int i = 0; i < 3; i++)
        for (int threads = 1; threads <= 4; threads++) {
            struct fkv_backend *b = open_with(threads);
            attend(b, state[0], rows[i], threads == 1 ? expected : out);
            if (threads > 1)
                assert_memory_equal(out, expected,
                                    sizeof(float) * (size_t)rows[i] * HEADS * HEAD_DIM);
            ops->close(b);
        }
}

TEST(opening_a_backend_leaves_the_callers_threads_alone) {
    for (int threads = 0; threads <= CALLERS; threads++) {
        omp_set_num_threads(CALLERS);
        struct fkv_backend *b = open_with(threads);
        assert_int_equal(omp_get_max_threads(), CALLERS);
        assert_int_equal(team(), CALLERS);
        ops->close(b);
        assert_int_equal(omp_get_max_threads(), CALLERS);
        omp_set_num_threads(2); /* what the caller chooses while a backend is open stays too */
        b = open_with(3);
        multiply(b, state[0], (float *)state[0] + WIDE * WIDE,
                 (float *)state[0] + WIDE * WIDE + ROWS * WIDE);
        assert_int_equal(omp_get_max_threads(), 2);
        assert_int_equal(team(), 2);
        ops->close(b);
    }
}

static int setup(void **state) {
    size_t count = WIDE * WIDE + 3 * ROWS * WIDE;
    float *numbers = malloc(sizeof *numbers * count);
    assert_non_null(numbers);
    test_fill(numbers, count, 0, 1);
    omp_set_dynamic(0);
    state[0] = numbers;
    return 0;
}

static int teardown(void **state) {
    free(state[0]);
    return 0;
}

TEST_GROUP(setup, teardown)
