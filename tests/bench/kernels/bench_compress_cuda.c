/* One compression of a whole model's cache by each of the CUDA backend's three methods, at n =
 * 4092, 2046, 4096 and 8188 with gamma 1/4, 1/2 and 3/4, for every cache dtype, beside the floor:
 * reading n slots and writing L of them once, at the speed of a copy within the device's memory.
 *
 *   bench_compress_cuda [LAYERS HEADS HEAD_DIM]        default 32 32 128, LLaMA-2-7B; 1 2 8 will do
 *                                                      to see that it runs
 *
 * What to expect of an H200 (4.8 TB/s, about 4.3 for a copy) for the default at n = 4092, gamma =
 * 1/2, 16-bit cache; arithmetic, not measurement:
 *
 *   floor    0.75 ms: 2.15 GB read and 1.07 GB written
 *   fused    4 to 5 ms: the same bytes, four times that between second-level cache and
 *            multiprocessors; see kernels/cuda/compress_fused.cu
 *   fft      6 to 7 ms: 18 (n + L) bytes per channel, 262,144 channels: 29 GB
 *   product  6, 9, 40 ms: n L FLOP per channel, 2.2 TFLOP in TF32 (bf16 cache), three times in bf16
 *            (f16), once in float32 (f32)
 *
 * A float32 cache doubles the floor. 8188 has a prime factor 89, for which there is no fused
 * kernel. The rule in kernels/cuda/compress.cu awaits what this prints.
 *
 * A run is timed from an idle device to an idle device (synchronize, monotonic clock); the median
 * of ROUNDS after one to warm up. Compressing again what was compressed is the same work: rows
 * beyond L keep their numbers. `*` marks what map_dct chooses. */
#include <math.h>

#include "tests/bench/kernels/bench.h"
#include "kernels/base/ratio.h"
#include "tests/cuda_methods.h"

enum { ROUNDS = 7 };

struct bench {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
    struct cuda_methods methods;
    struct fkv_attention_shape shape;
    struct fkv_compress_item *items;
    int32_t heads; /* cache heads of all layers */
};

static double median_copy(const struct bench *x, struct fkv_buffer *to,
                          const struct fkv_buffer *from, size_t bytes) {
    double seconds[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) {
        MUST(x->ops->synchronize(x->b, &bench_error));
        double start = fkv_seconds();
        MUST(x->ops->copy(x->b, to, 0, from, 0, bytes, &bench_error));
        MUST(x->ops->synchronize(x->b, &bench_error));
        if (round >= 0) seconds[round] = fkv_seconds() - start;
    }
    return bench_median(seconds, ROUNDS);
}

static double median_compress(const struct bench *x, const struct fkv_map *map,
                              const struct fkv_cache *cache) {
    double seconds[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) {
        MUST(x->ops->synchronize(x->b, &bench_error));
        double start = fkv_seconds();
        MUST(x->ops->compress(x->b, &x->shape, map, cache, x->items, x->heads, NULL, &bench_error));
        MUST(x->ops->synchronize(x->b, &bench_error));
        if (round >= 0) seconds[round] = fkv_seconds() - start;
    }
    return bench_median(seconds, ROUNDS);
}

static void bench_size(const struct bench *x, const struct fkv_cache *cache, int32_t n,
                       double gamma) {
    struct fkv_map *chosen, *map;
    int32_t retained = fkv_retained(gamma, n);
    double gain = sqrt((double)retained / n), ratio[FKV_CUDA_METHODS];
    size_t channels = 2 * (size_t)x->heads * (size_t)x->shape.head_dim;
    size_t moved =
        channels * (size_t)(n + retained) * fkv_dtype_bytes(cache->dtype); /* read + written */
    /* A copy of m bytes reads and writes 2 m; keys into values, as far as they reach. */
    double floor_seconds = median_copy(x, cache->value, cache->key, moved / 4) * 2;
    MUST(x->ops->map_dct(x->b, n, retained, gain, &chosen, &bench_error));
    printf("%-4s %5d %5d  %8.3f", fkv_dtype_name(cache->dtype), n, retained, floor_seconds * 1e3);
    for (int m = 0; m < FKV_CUDA_METHODS; m++) {
        ratio[m] = NAN;
        bool star = x->methods.map_method(chosen, cache->dtype) == (enum fkv_cuda_method)m;
        if (x->methods.map_dct_by(x->b, n, retained, gain, (enum fkv_cuda_method)m, &map,
                                  &bench_error)) {
            printf("  %9s ", "-");
            continue;
        }
        double seconds = median_compress(x, map, cache);
        ratio[m] = seconds / floor_seconds;
        printf("  %9.3f%c", seconds * 1e3, star ? '*' : ' ');
        x->ops->map_release(x->b, map);
    }
    for (int m = 0; m < FKV_CUDA_METHODS; m++) printf("  %6.2f", ratio[m]);
    printf("\n");
    fflush(stdout);
    x->ops->map_release(x->b, chosen);
}

/* Random numbers once, then copied on: filling gigabytes through the host would take longer than
 * the benchmark. */
static struct fkv_buffer *big_buffer(const struct bench *x, enum fkv_dtype t, size_t count) {
    size_t piece = count < (1u << 22) ? count : 1u << 22, bytes = fkv_dtype_bytes(t);
    struct fkv_buffer *random = bench_buffer(x->ops, x->b, t, piece, 1), *all;
    MUST(x->ops->buffer_create(x->b, count * bytes, &all, &bench_error));
    for (size_t i = 0; i < count; i += piece)
        MUST(x->ops->copy(x->b, all, i * bytes, random, 0,
                          (count - i < piece ? count - i : piece) * bytes, &bench_error));
    x->ops->buffer_release(x->b, random);
    return all;
}

int main(int argc, char **argv) {
    static const int32_t sizes[] = {4092, 2046, 4096, 8188};
    static const double gammas[] = {0.25, 0.5, 0.75};
    int32_t layers = argc == 4 ? atoi(argv[1]) : 32, heads = argc == 4 ? atoi(argv[2]) : 32,
            head_dim = argc == 4 ? atoi(argv[3]) : 128;
    double inv_freq[512];
    if (layers < 1 || heads < 1 || head_dim < 2 || head_dim > 1024 || head_dim % 2 ||
        (argc != 1 && argc != 4)) {
        fprintf(stderr, "usage: %s [LAYERS HEADS HEAD_DIM]\n", argv[0]);
        return 1;
    }
    struct bench x = {.heads = layers * heads};
    struct fkv_device_info info;
    if (fkv_backend_find("cuda", &x.ops, NULL, &bench_error)) {
        printf("skipped: %s\n", bench_error.message);
        return 0;
    }
    if (!cuda_methods_of(x.ops, &x.methods)) {
        fprintf(stderr, "the CUDA module does not let its methods be chosen\n");
        return 1;
    }
    for (int i = 0; i < head_dim / 2; i++) inv_freq[i] = pow(1e4, -2.0 * i / head_dim);
    x.shape = (struct fkv_attention_shape){heads * head_dim, heads,    heads, head_dim, 1,
                                           inv_freq,         head_dim, 1};
    x.items = calloc((size_t)x.heads, sizeof *x.items);
    for (int32_t h = 0; x.items && h < x.heads; h++)
        x.items[h] = (struct fkv_compress_item){.cache_head = h, .slot = 4, .position = 4};
    MUST(x.ops->open(&(struct fkv_backend_options){0}, &x.b, &bench_error));
    struct fkv_limits limits = {
        .rows = 1, .dim = 1, .slots = 8192, .items = x.heads, .attention = x.shape};
    MUST(x.ops->reserve(x.b, &limits, &bench_error));
    MUST(x.ops->info(x.b, &info, &bench_error));
    printf("%s: %d layers x %d heads x %d channels, keys and values; ms, and times the floor\n",
           info.name, layers, heads, head_dim);
    printf("%-4s %5s %5s  %8s", "", "n", "L", "floor");
    for (int m = 0; m < FKV_CUDA_METHODS; m++) printf("  %9s ", cuda_method_names[m]);
    for (int m = 0; m < FKV_CUDA_METHODS; m++) printf("  %6.6s", cuda_method_names[m]);
    printf("\n");
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            int32_t capacity = sizes[s] + 4;
            size_t count = (size_t)x.heads * (size_t)capacity * (size_t)head_dim;
            struct fkv_cache cache = {.key = big_buffer(&x, (enum fkv_dtype)t, count),
                                      .value = big_buffer(&x, (enum fkv_dtype)t, count),
                                      .dtype = (enum fkv_dtype)t,
                                      .capacity = capacity};
            for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++)
                bench_size(&x, &cache, sizes[s], gammas[g]);
            x.ops->buffer_release(x.b, cache.key);
            x.ops->buffer_release(x.b, cache.value);
        }
    free(x.items);
    x.ops->close(x.b);
    return 0;
}
