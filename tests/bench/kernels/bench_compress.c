/* FreqKV's operator on a layer's cache: n = 4092 slots of 128 channels to half of them, keys and
 * values of 8 heads, for each cache dtype, against the bare transforms done with FFTW's own DCT
 * (REDFT10 of n, REDFT01 of L, every channel strided, float32, one plan each, threads over heads):
 * no rotation, no scaling, no conversion. Both are timed in turn in the same run. */
#include <fftw3.h>
#include <math.h>
#include <omp.h>

#include "tests/bench/kernels/bench.h"

enum { N = 4092, KEPT = 2046, CHANNELS = 128, HEADS = 8, ROUNDS = 5 };

static fftwf_plan plan_dct(int n, float *x, fftwf_r2r_kind kind) {
    return fftwf_plan_many_r2r(1, &n, CHANNELS, x, NULL, CHANNELS, 1, x, NULL, CHANNELS, 1, &kind,
                               FFTW_ESTIMATE);
}

static double seconds_fftw(fftwf_plan forward, fftwf_plan inverse, float *states, int threads) {
    double start = fkv_seconds();
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int unit = 0; unit < 2 * HEADS; unit++) {
        float *x = states + (size_t)unit * N * CHANNELS;
        fftwf_execute_r2r(forward, x, x);
        fftwf_execute_r2r(inverse, x, x);
        for (size_t i = 0; i < (size_t)KEPT * CHANNELS; i++)
            x[i] *= 1e-4f; /* keeps repeated transforms finite */
    }
    return fkv_seconds() - start;
}

static double seconds_ours(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                           const struct fkv_attention_shape *shape, const struct fkv_map *map,
                           const struct fkv_cache *cache) {
    struct fkv_compress_item items[HEADS];
    for (int32_t h = 0; h < HEADS; h++) items[h] = (struct fkv_compress_item){.cache_head = h};
    double start = fkv_seconds();
    MUST(ops->compress(b, shape, map, cache, items, HEADS, NULL, &bench_error));
    return fkv_seconds() - start;
}

int main(void) {
    const struct fkv_backend_ops *ops = &fkv_cpu_backend;
    struct fkv_backend *b;
    struct fkv_map *map;
    struct fkv_device_info info;
    double inv_freq[CHANNELS / 2];
    for (int i = 0; i < CHANNELS / 2; i++) inv_freq[i] = pow(1e4, -2.0 * i / CHANNELS);
    struct fkv_attention_shape shape = {HEADS * CHANNELS, HEADS,    HEADS, CHANNELS, 1,
                                        inv_freq,         CHANNELS, 1};
    struct fkv_limits limits = {
        .rows = 1, .dim = 1, .slots = N, .items = HEADS, .attention = shape};
    MUST(ops->open(&(struct fkv_backend_options){0}, &b, &bench_error));
    MUST(ops->reserve(b, &limits, &bench_error));
    MUST(ops->map_dct(b, N, KEPT, sqrt((double)KEPT / N), &map, &bench_error));
    MUST(ops->info(b, &info, &bench_error));
    size_t count = (size_t)HEADS * N * CHANNELS;
    struct fkv_buffer *plain = bench_buffer(ops, b, FKV_F32, 2 * count, 3);
    float *states = (float *)ops->address(plain);
    fftwf_plan forward = plan_dct(N, states, FFTW_REDFT10),
               inverse = plan_dct(KEPT, states, FFTW_REDFT01);
    printf("%s, %d heads, %d slots -> %d, %d channels, keys and values\n", info.name, HEADS, N,
           KEPT, CHANNELS);
    printf("%-5s  %8s  %14s  %5s\n", "cache", "ours ms", "FFTW's DCT ms", "ratio");
    for (int t = FKV_F32; t <= FKV_BF16; t++) {
        double ours[ROUNDS], rival[ROUNDS];
        struct fkv_cache cache = {.key = bench_buffer(ops, b, (enum fkv_dtype)t, count, 1),
                                  .value = bench_buffer(ops, b, (enum fkv_dtype)t, count, 2),
                                  .dtype = (enum fkv_dtype)t,
                                  .capacity = N};
        for (int round = 0; round < ROUNDS; round++) {
            ours[round] = seconds_ours(ops, b, &shape, map, &cache);
            rival[round] = seconds_fftw(forward, inverse, states, omp_get_max_threads());
        }
        double a = bench_median(ours, ROUNDS), c = bench_median(rival, ROUNDS);
        printf("%-5s  %8.1f  %14.1f  %5.2f\n", fkv_dtype_name((enum fkv_dtype)t), a * 1e3, c * 1e3,
               c / a);
        ops->buffer_release(b, cache.key);
        ops->buffer_release(b, cache.value);
    }
    fftwf_destroy_plan(forward);
    fftwf_destroy_plan(inverse);
    ops->buffer_release(b, plain);
    ops->map_release(b, map);
    ops->close(b);
    return 0;
}
