/* Decode products: bytes of weights read per second by products with one row (and with a few), over
 * more than 1 GB of bf16 weights, against the read bandwidth that all threads reach on the same
 * memory in the same run. */

#include "tests/bench/kernels/bench.h"

enum { LAYERS = 8, DIM = 4096, HIDDEN = 11008, ROUNDS = 5, MOST_ROWS = 16 };

static double seconds_reading(const void *memory, size_t bytes) {
    double start = fkv_seconds();
    volatile uint64_t sink = bench_read(memory, bytes / 8);
    (void)sink;
    return fkv_seconds() - start;
}

static double seconds_decoding(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                               struct fkv_buffer *weights, struct fkv_buffer *x, int32_t rows,
                               struct fkv_buffer *y) {
    double start = fkv_seconds();
    for (int layer = 0; layer < 2 * LAYERS; layer++) {
        struct fkv_weight w = {.data = weights,
                               .offset = (size_t)layer * HIDDEN * DIM * 2,
                               .format = FKV_WEIGHT_BF16,
                               .rows = HIDDEN,
                               .cols = DIM};
        MUST(ops->project_residual(b, &(struct fkv_residual_weights){.w = w, .multiplier = 1}, x,
                                   rows, y, &bench_error));
    }
    return fkv_seconds() - start;
}

int main(void) {
    const struct fkv_backend_ops *ops = &fkv_cpu_backend;
    struct fkv_backend *b;
    struct fkv_device_info info;
    struct fkv_limits limits = {.rows = MOST_ROWS, .dim = DIM, .hidden = HIDDEN};
    MUST(ops->open(&(struct fkv_backend_options){0}, &b, &bench_error));
    MUST(ops->reserve(b, &limits, &bench_error));
    MUST(ops->info(b, &info, &bench_error));
    size_t count = (size_t)2 * LAYERS * HIDDEN * DIM, bytes = count * 2;
    struct fkv_buffer *weights = bench_buffer(ops, b, FKV_BF16, count, 1);
    struct fkv_buffer *x = bench_buffer(ops, b, FKV_F32, (size_t)MOST_ROWS * DIM, 2);
    struct fkv_buffer *y = bench_buffer(ops, b, FKV_F32, (size_t)MOST_ROWS * HIDDEN, 3);
    printf("%s, %.2f GB of bf16 weights, %d x %d each\n", info.name, (double)bytes * 1e-9, HIDDEN,
           DIM);
    printf("%4s  %9s  %9s  %5s\n", "rows", "ours GB/s", "read GB/s", "ratio");
    for (int32_t rows = 1; rows <= MOST_ROWS; rows *= 2) {
        double ours[ROUNDS], rival[ROUNDS];
        for (int round = 0; round < ROUNDS;
             round++) { /* in turn, so that both see the same machine */
            ours[round] = seconds_decoding(ops, b, weights, x, rows, y);
            rival[round] = seconds_reading(ops->address(weights), bytes);
        }
        double a = bench_median(ours, ROUNDS), c = bench_median(rival, ROUNDS);
        printf("%4d  %9.1f  %9.1f  %5.2f\n", rows, (double)bytes * 1e-9 / a,
               (double)bytes * 1e-9 / c, c / a);
    }
    ops->buffer_release(b, x);
    ops->buffer_release(b, y);
    ops->buffer_release(b, weights);
    ops->close(b);
    return 0;
}
