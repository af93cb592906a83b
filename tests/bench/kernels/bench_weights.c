/* Decode products by weight format: bytes of stored weights read per second by products with one
 * row, over 256 MiB of weights, against the read bandwidth that all threads reach on the
 * same memory in the same run. Each product is timed by itself and takes a millisecond at most; the
 * least counts, because a machine that does something else too only makes it longer. */
#include <math.h>

#include "tests/bench/kernels/bench.h"

enum { DIM = 4096, HIDDEN = 1024, ROUNDS = 3 };

static double seconds_reading(const uint64_t *words, size_t n) {
    double start = fkv_seconds();
    volatile uint64_t sink = bench_read(words, n);
    (void)sink;
    return fkv_seconds() - start;
}

int main(void) {
    const struct fkv_backend_ops *ops = &fkv_cpu_backend;
    struct fkv_backend *b;
    struct fkv_device_info info;
    struct fkv_limits limits = {.rows = 1, .dim = DIM, .hidden = HIDDEN};
    MUST(ops->open(&(struct fkv_backend_options){0}, &b, &bench_error));
    MUST(ops->reserve(b, &limits, &bench_error));
    MUST(ops->info(b, &info, &bench_error));
    struct fkv_buffer *x = bench_buffer(ops, b, FKV_F32, DIM, 2);
    struct fkv_buffer *y = bench_buffer(ops, b, FKV_F32, HIDDEN, 3);
    /* any bytes are blocks of any format, and as fast to expand as others */
    struct fkv_buffer *weights = bench_buffer(ops, b, FKV_BF16, (size_t)128 << 20, 1);
    const size_t bytes = (size_t)256 << 20;
    printf("%s, %d x %d, one row\n", info.name, HIDDEN, DIM);
    printf("%-5s  %9s  %9s  %9s  %5s\n", "", "ours GB/s", "Gvalues/s", "read GB/s", "ratio");
    for (int f = 0; f < FKV_WEIGHT_FORMATS; f++) {
        struct fkv_weight w = {
            .data = weights, .format = (enum fkv_weight_format)f, .rows = HIDDEN, .cols = DIM};
        const size_t each = fkv_weight_bytes(w.format, (size_t)HIDDEN * DIM), count = bytes / each;
        double ours = INFINITY, rival = INFINITY;
        for (int round = 0; round < ROUNDS; round++) {
            for (size_t i = 0; i < count; i++) {
                w.offset = i * each;
                const struct fkv_residual_weights residual = {.w = w, .multiplier = 1};
                const double start = fkv_seconds();
                MUST(ops->project_residual(b, &residual, x, 1, y, &bench_error));
                ours = fmin(ours, fkv_seconds() - start);
            }
            for (size_t i = 0; i < count; i++)
                rival = fmin(
                    rival,
                    seconds_reading((const void *)((const char *)ops->address(weights) + i * each),
                                    each / 8));
        }
        const double stored = (double)each * 1e-9;
        printf("%-5s  %9.1f  %9.1f  %9.1f  %5.2f\n", fkv_weight_name(f), stored / ours,
               (double)HIDDEN * DIM * 1e-9 / ours, stored / rival, rival / ours);
    }
    ops->buffer_release(b, x), ops->buffer_release(b, y), ops->buffer_release(b, weights);
    ops->close(b);
    return 0;
}
