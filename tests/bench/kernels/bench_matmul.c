/* Prefill products: what the CPU backend does for a block of rows, from f32, f16 and bf16 weights,
 * against plain cblas_sgemm from float32 weights on the same shapes, threads and run. Shapes are
 * those of a LLaMA-7B layer; the two are timed in turn, medians are printed. */
#include <cblas.h>
#include <omp.h>

#include "tests/bench/kernels/bench.h"

enum { ROWS = 256, ROUNDS = 5 };

static const struct {
    const char *name;
    int32_t out, in;
} shapes[] = {{"attention out", 4096, 4096}, {"gate or up", 11008, 4096}, {"down", 4096, 11008}};

static void compare(const struct fkv_backend_ops *ops, struct fkv_backend *b, int shape,
                    enum fkv_dtype t) {
    int32_t out = shapes[shape].out, in = shapes[shape].in;
    struct fkv_residual_weights w = {
        .w = {.data = bench_buffer(ops, b, t, (size_t)out * (size_t)in, 1),
              .format = (enum fkv_weight_format)t,
              .rows = out,
              .cols = in},
        .multiplier = 1};
    struct fkv_buffer *plain = bench_buffer(ops, b, FKV_F32, (size_t)out * (size_t)in, 1);
    struct fkv_buffer *x = bench_buffer(ops, b, FKV_F32, (size_t)ROWS * (size_t)in, 2);
    struct fkv_buffer *y = bench_buffer(ops, b, FKV_F32, (size_t)ROWS * (size_t)out, 3);
    double ours[ROUNDS], rival[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) { /* round -1 warms up */
        double start = fkv_seconds();
        MUST(ops->project_residual(b, &w, x, ROWS, y, &bench_error));
        double between = fkv_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, ROWS, out, in, 1, ops->address(x), in,
                    ops->address(plain), in, 1, (float *)ops->address(y), out);
        double end = fkv_seconds();
        if (round >= 0) ours[round] = between - start, rival[round] = end - between;
    }
    double flops = 2.0 * ROWS * out * in, a = bench_median(ours, ROUNDS),
           c = bench_median(rival, ROUNDS);
    printf("%-14s %5d x %5d  %-4s  %9.1f %9.1f   %5.2f\n", shapes[shape].name, out, in,
           fkv_dtype_name(t), flops / a * 1e-9, flops / c * 1e-9, c / a);
    ops->buffer_release(b, w.w.data);
    ops->buffer_release(b, plain);
    ops->buffer_release(b, x);
    ops->buffer_release(b, y);
}

int main(void) {
    const struct fkv_backend_ops *ops = &fkv_cpu_backend;
    struct fkv_backend *b;
    struct fkv_device_info info;
    struct fkv_limits limits = {.rows = ROWS, .dim = 4096, .hidden = 11008};
    MUST(ops->open(&(struct fkv_backend_options){0}, &b, &bench_error));
    MUST(ops->reserve(b, &limits, &bench_error));
    MUST(ops->info(b, &info, &bench_error));
    printf("%s, blocks of %d rows\n", info.name, ROWS);
    printf("%-14s %13s  %-4s  %9s %9s   %5s\n", "GFLOP/s", "out x in", "", "ours", "sgemm",
           "ratio");
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        for (int s = 0; s < 3; s++) compare(ops, b, s, (enum fkv_dtype)t);
    ops->close(b);
    return 0;
}
