/* Linear maps on the cache: FreqKV's operator and matrices, the choice of a method, energies
 * (cache.h, map_dct, map_matrix and compress).
 *
 * A matrix is multiplied. For FreqKV's operator three methods give the same numbers within
 * rounding: one fused kernel (compress_fused.cu), matrix products with the folded operator
 * (compress_product.cu), cuFFT (compress_fft.cu). The map chooses one per cache dtype when it is
 * made, by `choose` below and nowhere else.
 *
 * Bytes and FLOPs for LLaMA-2-7B (32 layers of 32 heads of 128, so 2048 units and 262,144
 * channels), n = 4092, gamma = 0.5, 16-bit cache, on an H200 (4.3 TB/s of 4.8 reached by a copy, 60
 * TFLOP/s float32, about 400 TF32, about 790 bf16). Arithmetic, not measurement:
 *
 *   floor    0.75 ms: 2.1 GB read, 1.1 GB written
 *   fused    4 to 5 ms: the same bytes, but in 8-byte pieces of 32-byte sectors, so 8.6 GB from the
 *            second-level cache; 11 times 131 KB through shared memory per block and 90
 *            multiply-adds per complex number, neither fully overlapped
 *   fft      6 to 7 ms: 29 GB to and from memory where slabs exceed the second-level cache
 *   product  5.8 ms: n L = 8.4 million FLOP per channel, 2.2 TFLOP, once as TF32; 9.4 ms as three
 *            bf16 products; 40 ms in float32
 *
 * The rule awaits measurement (tests/bench/kernels/bench_compress_cuda.c).
 *
 * Energies come from the transforms themselves (Parseval; the product sums its results), in parts
 * that the methods' blocks leave behind and one kernel adds up in a fixed order, in float64. */
#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/compress.cuh"

/* ---- the choice ---- */

/* Fused where its factors allow. Otherwise the cheaper of the product and cuFFT: n L floating-point
 * operations per channel at the rate of the precision that the dtype needs, against 18 (n + L)
 * bytes at the rate of memory. The product moves about 11 (n + L). */
static enum fkv_cuda_method choose(const struct fkv_map *map, enum fkv_dtype dtype) {
    static const double rate[] = {50e12, 250e12,
                                  380e12}; /* f32; f16: three bf16 products; bf16: TF32 */
    const double bandwidth = 4e12;
    if (map->fused) return FKV_CUDA_FUSED;
    double n = map->n, l = map->retained;
    double product = n * l / rate[dtype] + 11 * (n + l) / bandwidth, fft = 18 * (n + l) / bandwidth;
    return product < fft ? FKV_CUDA_PRODUCT : FKV_CUDA_FFT;
}

/* ---- maps ---- */

void fkv_cuda_last_turns(int32_t n, int32_t count, double gain, double first, float *table) {
    double scale = gain * sqrt(0.5 / n), step = acos(-1) / (2.0 * n);
    for (int32_t t = 1; t < count; t++) {
        table[2 * t] = (float)(scale * cos(t * step));
        table[2 * t + 1] = (float)(scale * sin(t * step));
    }
    table[0] = (float)(gain * first * sqrt(1.0 / n));
    table[1] = 0;
}

int fkv_cuda_upload(struct fkv_backend *b, const void *host, size_t bytes, const char *what,
                    char **device, struct fkv_error *err) {
    if (fkv_cuda_allocate(bytes, what, device, err)) return FKV_FAILED;
    if (!fkv_cuda_check(cudaMemcpyAsync(*device, host, bytes, cudaMemcpyHostToDevice, b->stream),
                        what, err) &&
        !fkv_cuda_wait(b, what, err))
        return FKV_OK;
    cudaFree(*device);
    *device = NULL;
    return FKV_FAILED;
}

void fkv_cuda_map_release(struct fkv_backend *b, struct fkv_map *map) {
    if (!map) return;
    fkv_cuda_use_device(b);
    cudaStreamSynchronize(b->stream); /* compressions under way read its tables */
    fkv_cuda_fused_release(map->fused);
    fkv_cuda_product_release(map->product);
    fkv_cuda_product_release(map->value_product);
    fkv_cuda_fft_release(map->fft);
    free(map);
}

static bool uses(const struct fkv_map *map, enum fkv_cuda_method method, unsigned *dtypes) {
    *dtypes = 0;
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        if (map->method[t] == method) *dtypes |= 1u << t;
    return *dtypes != 0;
}

static int32_t parts_of(const struct fkv_map *map, enum fkv_cuda_method method, int32_t head_dim) {
    return method == FKV_CUDA_FUSED     ? fkv_cuda_fused_parts(map->fused, head_dim)
           : method == FKV_CUDA_PRODUCT ? fkv_cuda_product_parts(map->product, head_dim)
                                        : fkv_cuda_fft_parts(head_dim);
}

static size_t whole(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* Scratch: totals [units][2], parts [units][parts][2], then the method's own. */
static size_t energy_bytes(int32_t units, int32_t parts) {
    return whole((size_t)units * 2 * sizeof(double)) +
           whole((size_t)units * (size_t)parts * 2 * sizeof(double));
}

static size_t scratch_of(const struct fkv_map *map, enum fkv_cuda_method method, int32_t head_dim,
                         int32_t units) {
    size_t own = method == FKV_CUDA_PRODUCT
                     ? fkv_cuda_product_scratch(map->product, head_dim, units)
                 : method == FKV_CUDA_FFT ? fkv_cuda_fft_scratch(map->fft)
                                          : 0;
    return energy_bytes(units, parts_of(map, method, head_dim)) + own;
}

/* For any dtype of cache. */
static size_t most_scratch(const struct fkv_map *map, const struct fkv_limits *l) {
    size_t most = 0;
    for (int t = FKV_F32; t <= FKV_BF16; t++) {
        size_t bytes = scratch_of(map, map->method[t], l->attention.head_dim, 2 * l->items);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Scratch for a map whose methods are prepared. Where nothing was reserved, the first compression
 * grows it. */
static int grow_for(struct fkv_backend *b, const struct fkv_map *map, struct fkv_error *err) {
    if (!b->limits.items || !b->limits.attention.head_dim) return FKV_OK;
    return fkv_cuda_grow_scratch(b, most_scratch(map, &b->limits), err);
}

/* The rest of a map whose methods are chosen; a method that two dtypes share is prepared once. */
static int prepare(struct fkv_backend *b, struct fkv_map *map, struct fkv_error *err) {
    unsigned dtypes;
    if (uses(map, FKV_CUDA_PRODUCT, &dtypes) &&
        fkv_cuda_product_create(b, map->n, map->retained, map->gain, dtypes, &map->product, err))
        return FKV_FAILED;
    if (uses(map, FKV_CUDA_FFT, &dtypes) &&
        fkv_cuda_fft_create(b, &b->limits, map->n, map->retained, map->gain, &map->fft, err))
        return FKV_FAILED;
    return grow_for(b, map, err);
}

/* Of a map that is made to be measured and not used: a product without its operators. `matrices`:
 * 0 for the DCT. */
static int measure_map(struct fkv_backend *b, const struct fkv_limits *l, int32_t matrices,
                       struct fkv_map *map, size_t *tables, size_t *scratch,
                       struct fkv_error *err) {
    unsigned dtypes;
    if (!matrices && fkv_cuda_fused_create(b, map->n, map->retained, 1, &map->fused, err))
        return FKV_FAILED;
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        map->method[t] = matrices ? FKV_CUDA_PRODUCT : choose(map, (enum fkv_dtype)t);
    *tables = map->fused ? fkv_cuda_fused_table_bytes(map->fused) : 0;
    if (uses(map, FKV_CUDA_PRODUCT, &dtypes)) {
        int status =
            matrices ? fkv_cuda_product_create_matrix(b, map->n, map->retained, NULL, 0,
                                                      &map->product, err)
                     : fkv_cuda_product_create(b, map->n, map->retained, 1, 0, &map->product, err);
        if (status) return FKV_FAILED;
        *tables +=
            (size_t)(matrices ? matrices : 1) * fkv_cuda_product_operator_bytes(map->product);
    }
    if (uses(map, FKV_CUDA_FFT, &dtypes)) {
        if (fkv_cuda_fft_create(b, l, map->n, map->retained, 1, &map->fft, err)) return FKV_FAILED;
        *tables += fkv_cuda_fft_table_bytes(map->fft);
    }
    *scratch = most_scratch(map, l);
    return FKV_OK;
}

static struct fkv_map *new_map(int32_t n, int32_t retained, double gain, struct fkv_error *err) {
    if (retained < 1 || retained > n) {
        fkv_fail(err, "map: expected 1 <= L <= n, found L = %d, n = %d", retained, n);
        return NULL;
    }
    struct fkv_map *map = (struct fkv_map *)calloc(1, sizeof *map);
    if (!map) {
        fkv_fail(err, "out of memory");
        return NULL;
    }
    map->n = n;
    map->retained = retained;
    map->gain = gain;
    return map;
}

int fkv_cuda_map_bytes(struct fkv_backend *b, const struct fkv_limits *limits, int32_t n,
                       int32_t retained, int32_t matrices, size_t *tables, size_t *scratch,
                       struct fkv_error *err) {
    struct fkv_map *map = new_map(n, retained, 1, err);
    if (!map) return FKV_FAILED;
    int status = measure_map(b, limits, matrices, map, tables, scratch, err);
    fkv_cuda_map_release(b, map);
    return status;
}

int fkv_cuda_map_matrix(struct fkv_backend *b, int32_t n, int32_t retained, const float *key,
                        const float *value, struct fkv_map **out, struct fkv_error *err) {
    const unsigned all = 1u << FKV_F32 | 1u << FKV_F16 | 1u << FKV_BF16;
    *out = NULL;
    struct fkv_map *map = new_map(n, retained, 1, err);
    if (!map) return FKV_FAILED;
    for (int t = FKV_F32; t <= FKV_BF16; t++) map->method[t] = FKV_CUDA_PRODUCT;
    if (fkv_cuda_product_create_matrix(b, n, retained, key, all, &map->product, err) ||
        (key != value &&
         fkv_cuda_product_create_matrix(b, n, retained, value, all, &map->value_product, err)) ||
        grow_for(b, map, err)) {
        fkv_cuda_map_release(b, map);
        return FKV_FAILED;
    }
    *out = map;
    return FKV_OK;
}

static int make_map(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                    const enum fkv_cuda_method *forced, struct fkv_map **out,
                    struct fkv_error *err) {
    *out = NULL;
    struct fkv_map *map = new_map(n, retained, gain, err);
    if (!map) return FKV_FAILED;
    bool failed = (!forced || *forced == FKV_CUDA_FUSED) &&
                  fkv_cuda_fused_create(b, n, retained, gain, &map->fused, err) != FKV_OK;
    if (!failed && forced && *forced == FKV_CUDA_FUSED && !map->fused)
        failed =
            fkv_fail(err, "DCT map: no fused kernel for n = %d, L = %d", n, retained) != FKV_OK;
    for (int t = FKV_F32; t <= FKV_BF16; t++)
        map->method[t] = forced ? *forced : choose(map, (enum fkv_dtype)t);
    if (failed || prepare(b, map, err)) {
        fkv_cuda_map_release(b, map);
        return FKV_FAILED;
    }
    *out = map;
    return FKV_OK;
}

int fkv_cuda_map_dct(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                     struct fkv_map **out, struct fkv_error *err) {
    return make_map(b, n, retained, gain, NULL, out, err);
}

extern "C" {
fkv_cuda_map_dct_by_function fkv_cuda_map_dct_by __attribute__((visibility("default")));
fkv_cuda_map_method_function fkv_cuda_map_method __attribute__((visibility("default")));

int fkv_cuda_map_dct_by(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                        enum fkv_cuda_method method, struct fkv_map **out, struct fkv_error *err) {
    fkv_cuda_use_device(b);
    return make_map(b, n, retained, gain, &method, out, err);
}

enum fkv_cuda_method fkv_cuda_map_method(const struct fkv_map *map, enum fkv_dtype dtype) {
    return map->method[dtype];
}
}

/* Scratch of the energies; a method's own scratch belongs to its map. */
size_t fkv_cuda_compress_scratch(const struct fkv_backend *b, const struct fkv_limits *limits) {
    (void)b;
    return energy_bytes(2 * limits->items, fkv_cuda_fft_parts(limits->attention.head_dim));
}

/* ---- compress ---- */

enum { ENERGY_THREADS = 128, ENERGY_WARPS = ENERGY_THREADS / FKV_CUDA_WARP };

/* parts [units][count][2] -> totals [units][2]; a warp per total, which sums in an order that
 * depends on `count` alone */
static __global__ void __launch_bounds__(ENERGY_THREADS)
    energy_kernel(const double *parts, int32_t units, int32_t count, double *totals) {
    int32_t lane = (int32_t)threadIdx.x % FKV_CUDA_WARP;
    int32_t i = (int32_t)blockIdx.x * ENERGY_WARPS + (int32_t)threadIdx.x / FKV_CUDA_WARP;
    if (i >= 2 * units) return;
    const double *from = parts + (size_t)(i / 2) * (size_t)count * 2 + i % 2;
    double sum = 0;
    for (int32_t p = lane; p < count; p += FKV_CUDA_WARP) sum += from[2 * (size_t)p];
    sum = fkv_cuda_warp_sum(sum);
    if (lane == 0) totals[i] = sum;
}

static int read_energies(struct fkv_backend *b, const struct fkv_map *map,
                         const struct fkv_cuda_compression *c, double *totals,
                         struct fkv_energy *energy, struct fkv_error *err) {
    double squared = 1 / (map->gain * map->gain);
    size_t bytes = (size_t)c->units * 2 * sizeof(double);
    double *host = (double *)malloc(bytes);
    if (!host) return fkv_fail(err, "out of memory");
    int status =
        fkv_cuda_launch(b, "energies", energy_kernel,
                        dim3((unsigned)((2 * c->units + ENERGY_WARPS - 1) / ENERGY_WARPS)),
                        dim3(ENERGY_THREADS), 0, err, c->energy, c->units, c->parts, totals) ||
        fkv_cuda_check(cudaMemcpyAsync(host, totals, bytes, cudaMemcpyDeviceToHost, b->stream),
                       "energies", err) ||
        fkv_cuda_wait(b, "compress", err);
    for (int32_t i = 0; !status && i < c->units / 2; i++) {
        const double *e = host + 4 * (size_t)i;
        energy[i] = {e[0], e[1] * squared, e[2], e[3] * squared};
    }
    free(host);
    return status ? FKV_FAILED : FKV_OK;
}

/* A matrix of its own for values: keys, the even units, and values go one after the other. */
static int run_products(struct fkv_backend *b, const struct fkv_map *map,
                        const struct fkv_cuda_compression *c, struct fkv_error *err) {
    if (!map->value_product) return fkv_cuda_product_run(b, map->product, c, 0, 1, err);
    return fkv_cuda_product_run(b, map->product, c, 0, 2, err) ||
                   fkv_cuda_product_run(b, map->value_product, c, 1, 2, err)
               ? FKV_FAILED
               : FKV_OK;
}

int fkv_cuda_compress(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                      const struct fkv_map *map, const struct fkv_cache *cache,
                      const struct fkv_compress_item *items, int32_t count,
                      struct fkv_energy *energy, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "compress", err)) return FKV_FAILED;
    if (count == 0) return FKV_OK;
    enum fkv_cuda_method method = map->method[cache->dtype];
    struct fkv_cuda_compression c = {};
    c.n = map->n;
    c.retained = map->retained;
    c.head_dim = shape->head_dim;
    c.units = 2 * count;
    c.cache = fkv_cuda_cache(cache);
    c.aligned = cache->offset % 16 == 0;
    c.parts = parts_of(map, method, c.head_dim);
    if (fkv_cuda_grow_scratch(b, scratch_of(map, method, c.head_dim, c.units), err) ||
        fkv_cuda_frequencies(b, shape, &c.frequencies, err) ||
        fkv_cuda_stage(b, items, count, &c.items, err))
        return FKV_FAILED;
    double *totals = (double *)b->scratch;
    size_t parts = whole((size_t)c.units * 2 * sizeof(double)),
           all = energy_bytes(c.units, c.parts);
    c.energy = energy ? (double *)(b->scratch + parts) : NULL;
    c.scratch = b->scratch + all;
    if (energy &&
        fkv_cuda_check(cudaMemsetAsync(c.energy, 0, all - parts, b->stream), "compress", err))
        return FKV_FAILED;
    int status = method == FKV_CUDA_FUSED     ? fkv_cuda_fused_run(b, map->fused, &c, err)
                 : method == FKV_CUDA_PRODUCT ? run_products(b, map, &c, err)
                                              : fkv_cuda_fft_run(b, map->fft, &c, err);
    if (!status && cache->quant)
        status = fkv_cuda_round_compressed(b, shape, cache, c.items, count, map->retained,
                                           c.frequencies, err);
    if (status || !energy) return status;
    return read_energies(b, map, &c, totals, energy, err);
}
