/* Compression by cuFFT: any n and L, primes included (for those cuFFT takes Bluestein's algorithm).
 *
 * Makhoul 1980 as in kernels/dct/dct.c: even slots followed by odd ones reversed turn a DCT-II into
 * a complex DFT, and two real channels travel as one complex column (compress.cuh). Five steps per
 * slab of columns: `load` transposes [slot][channel] into columns in Makhoul's order, keys
 * un-rotated; a forward transform of n in place; `truncate` takes the L lowest coefficients of the
 * n-point spectrum to an L-point one, gain and scales included; a forward transform of L in place
 * (real and imaginary parts are exchanged, which makes it the inverse); `store` transposes back,
 * rotates and rounds.
 *
 * Transposing goes through shared memory, 64 slots by 32 columns per block of 8 warps: lanes are
 * columns on the cache's side (64 bytes of a 16-bit cache at a time) and numbers in Makhoul's order
 * on the columns' side (256 bytes). Complex numbers touched per column: n in, 4 n, 2 L, 2 L and
 * out, 18 (n + L) bytes per channel in all, float32 throughout.
 *
 * A slab is bounded (MOST_COLUMNS, and SLAB_BYTES for long ones), so scratch does not grow with the
 * model. Columns are numbered over all units, and a slab may end within a unit. 1024 columns of
 * 4092 + 2046 are 50 MB, about the second-level cache, in five launches; the size awaits
 * measurement. A plan is for whole slabs; the last one also transforms numbers beyond its columns,
 * which are not read. cuFFT's work area is part of our scratch; otherwise each map would keep its
 * own. */
#include <stdlib.h>

#include "kernels/cuda/compress.cuh"

enum { SLOTS = 64, COLUMNS = 32, THREADS = 256, WARPS = THREADS / 32, MOST_COLUMNS = 1024 };
static const size_t SLAB_BYTES = (size_t)256 << 20;

struct fkv_cuda_fft {
    int32_t n, retained, slab; /* columns */
    cufftHandle plan[2];       /* of n and of L; none for a length of 1 */
    bool planned[2];
    size_t work_area; /* of cuFFT, bytes: the larger of both plans */
    char *tables;
    const float2 *last_n, *last_l; /* [L], [L/2 + 1] */
};

static size_t whole(size_t bytes) { return (bytes + 255) / 256 * 256; }
static size_t column_bytes(const struct fkv_cuda_fft *f, int32_t length) {
    return whole((size_t)f->slab * (size_t)length * sizeof(float2));
}

/* ---- plans ---- */

static int plan(struct fkv_backend *b, struct fkv_cuda_fft *f, int which, int length,
                struct fkv_error *err) {
    size_t work_area = 0;
    if (length == 1) return FKV_OK;
    if (fkv_cuda_check_fft(cufftCreate(&f->plan[which]), "planning a DCT", err)) return FKV_FAILED;
    f->planned[which] = true;
    if (fkv_cuda_check_fft(cufftSetAutoAllocation(f->plan[which], 0), "planning a DCT", err) ||
        fkv_cuda_check_fft(cufftMakePlanMany(f->plan[which], 1, &length, NULL, 1, length, NULL, 1,
                                             length, CUFFT_C2C, f->slab, &work_area),
                           "planning a DCT", err) ||
        fkv_cuda_check_fft(cufftSetStream(f->plan[which], b->stream), "planning a DCT", err))
        return FKV_FAILED;
    if (work_area > f->work_area) f->work_area = work_area;
    return FKV_OK;
}

static int upload_tables(struct fkv_backend *b, struct fkv_cuda_fft *f, double gain,
                         struct fkv_error *err) {
    size_t count = (size_t)f->retained + (size_t)f->retained / 2 + 1;
    float *host = (float *)malloc(count * sizeof(float2));
    if (!host) return fkv_fail(err, "out of memory");
    fkv_cuda_last_turns(f->n, f->retained, gain, 0.5, host);
    fkv_cuda_last_turns(f->retained, f->retained / 2 + 1, 1, 1, host + 2 * (size_t)f->retained);
    int status =
        fkv_cuda_upload(b, host, count * sizeof(float2), "tables of a DCT", &f->tables, err);
    f->last_n = (const float2 *)f->tables;
    f->last_l = f->last_n + f->retained;
    free(host);
    return status;
}

static int32_t slab_columns(const struct fkv_limits *limits, int32_t n, int32_t retained) {
    int64_t most = (int64_t)(SLAB_BYTES / (((size_t)n + (size_t)retained) * sizeof(float2)));
    int64_t needed =
        (int64_t)limits->items * limits->attention.head_dim; /* 2 items of head_dim / 2 columns */
    if (most > MOST_COLUMNS) most = MOST_COLUMNS;
    if (needed > 0 && needed < most) most = needed;
    return most > 0 ? (int32_t)most : 1;
}

int fkv_cuda_fft_create(struct fkv_backend *b, const struct fkv_limits *limits, int32_t n,
                        int32_t retained, double gain, struct fkv_cuda_fft **out,
                        struct fkv_error *err) {
    struct fkv_cuda_fft *f = (struct fkv_cuda_fft *)calloc(1, sizeof *f);
    if (!f) return fkv_fail(err, "out of memory");
    f->n = n;
    f->retained = retained;
    f->slab = slab_columns(limits, n, retained);
    if (plan(b, f, 0, n, err) || plan(b, f, 1, retained, err) || upload_tables(b, f, gain, err)) {
        fkv_cuda_fft_release(f);
        return FKV_FAILED;
    }
    *out = f;
    return FKV_OK;
}

size_t fkv_cuda_fft_table_bytes(const struct fkv_cuda_fft *f) {
    return ((size_t)f->retained + (size_t)f->retained / 2 + 1) * sizeof(float2);
}

void fkv_cuda_fft_release(struct fkv_cuda_fft *f) {
    if (!f) return;
    for (int i = 0; i < 2; i++)
        if (f->planned[i]) cufftDestroy(f->plan[i]);
    cudaFree(f->tables);
    free(f);
}

/* One part per column. */
int32_t fkv_cuda_fft_parts(int32_t head_dim) { return head_dim / 2; }

size_t fkv_cuda_fft_scratch(const struct fkv_cuda_fft *f) {
    return column_bytes(f, f->n) + column_bytes(f, f->retained) + f->work_area;
}

/* ---- kernels ---- */

/* Columns [first, first + count) of all -> to [count][n] */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    load_kernel(struct fkv_cuda_compression c, int32_t first, int32_t count, float2 *to) {
    __shared__ float2 tile[SLOTS][COLUMNS + 1];
    int32_t half = c.head_dim / 2, lane = (int32_t)threadIdx.x % 32,
            warp = (int32_t)threadIdx.x / 32;
    int32_t slot = (int32_t)blockIdx.x * SLOTS, column = (int32_t)blockIdx.y * COLUMNS;
    if (column + lane < count) {
        int32_t unit = (first + column + lane) / half, channel = (first + column + lane) % half;
        const T *states = fkv_cuda_unit_states<T>(c, unit) + channel;
        double position = c.items[unit / 2].position, frequency = c.frequencies[channel];
        for (int32_t j = warp; j < SLOTS && slot + j < c.n; j += WARPS) {
            const T *at = states + (size_t)(slot + j) * (size_t)c.head_dim;
            float2 z = make_float2(fkv_cuda_to_float(at[0]), fkv_cuda_to_float(at[half]));
            if (unit % 2 == 0)
                z = fkv_cuda_times_conjugate(z, fkv_cuda_angle(position + slot + j, frequency));
            tile[j][lane] = z;
        }
    }
    __syncthreads();
    for (int32_t i = warp; i < COLUMNS && column + i < count; i += WARPS) {
        float2 *row = to + (size_t)(column + i) * (size_t)c.n;
        for (int32_t odd = 0; odd < 2; odd++) {
            int32_t j = 2 * lane + odd;
            if (slot + j < c.n) row[fkv_cuda_makhoul_index(slot + j, c.n)] = tile[j][i];
        }
    }
}

/* Spectra [.][n] -> [.][L], a block per column. */
static __global__ void __launch_bounds__(THREADS)
    truncate_kernel(struct fkv_cuda_compression c, int32_t first, const float2 *from,
                    const float2 *last_n, const float2 *last_l, float2 *to) {
    const float2 *v = from + (size_t)blockIdx.x * (size_t)c.n;
    float2 *w = to + (size_t)blockIdx.x * (size_t)c.retained;
    double before = 0, kept = 0;
    for (int32_t t = (int32_t)threadIdx.x; t <= c.retained / 2; t += THREADS) {
        int32_t u = c.retained - t;
        float2 y = fkv_cuda_coefficient(v[t], v[t ? c.n - t : 0], last_n[t]);
        float2 mirror = make_float2(0, 0);
        if (t) mirror = fkv_cuda_coefficient(v[u], v[c.n - u], last_n[u]);
        struct fkv_cuda_two rows = fkv_cuda_pack(y, mirror, last_l[t]);
        w[t] = rows.row;
        if (t && u != t) w[u] = rows.mirror;
        kept += fkv_cuda_square(y) + (t && u != t ? fkv_cuda_square(mirror) : 0);
    }
    if (!c.energy) return;
    for (int32_t t = (int32_t)threadIdx.x; t < c.n; t += THREADS) before += fkv_cuda_square(v[t]);
    before = fkv_cuda_block_sum(before);
    kept = fkv_cuda_block_sum(kept);
    if (threadIdx.x == 0) {
        double *part = c.energy + 2 * ((size_t)first + blockIdx.x);
        part[0] = before / c.n;
        part[1] = kept;
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    store_kernel(struct fkv_cuda_compression c, int32_t first, int32_t count, const float2 *from) {
    __shared__ float2 tile[SLOTS][COLUMNS + 1];
    int32_t half = c.head_dim / 2, lane = (int32_t)threadIdx.x % 32,
            warp = (int32_t)threadIdx.x / 32;
    int32_t slot = (int32_t)blockIdx.x * SLOTS, column = (int32_t)blockIdx.y * COLUMNS;
    for (int32_t i = warp; i < COLUMNS && column + i < count; i += WARPS) {
        const float2 *row = from + (size_t)(column + i) * (size_t)c.retained;
        for (int32_t odd = 0; odd < 2; odd++) {
            int32_t j = 2 * lane + odd;
            if (slot + j < c.retained)
                tile[j][i] = row[fkv_cuda_makhoul_index(slot + j, c.retained)];
        }
    }
    __syncthreads();
    if (column + lane >= count) return;
    int32_t unit = (first + column + lane) / half, channel = (first + column + lane) % half;
    T *states = fkv_cuda_unit_states<T>(c, unit) + channel;
    double position = c.items[unit / 2].position, frequency = c.frequencies[channel];
    for (int32_t j = warp; j < SLOTS && slot + j < c.retained; j += WARPS) {
        float2 z = make_float2(tile[j][lane].y, tile[j][lane].x);
        if (unit % 2 == 0) z = fkv_cuda_times(z, fkv_cuda_angle(position + slot + j, frequency));
        T *at = states + (size_t)(slot + j) * (size_t)c.head_dim;
        at[0] = fkv_cuda_from_float<T>(z.x);
        at[half] = fkv_cuda_from_float<T>(z.y);
    }
}

/* ---- a call ---- */

static int transform(const struct fkv_cuda_fft *f, int which, float2 *columns, char *work_area,
                     struct fkv_error *err) {
    if (!f->planned[which]) return FKV_OK;
    cufftComplex *data = (cufftComplex *)columns;
    return fkv_cuda_check_fft(cufftSetWorkArea(f->plan[which], work_area), "compress", err) ||
                   fkv_cuda_check_fft(cufftExecC2C(f->plan[which], data, data, CUFFT_FORWARD),
                                      "compress", err)
               ? FKV_FAILED
               : FKV_OK;
}

static dim3 tiles(int32_t slots, int32_t columns) {
    return dim3((unsigned)((slots + SLOTS - 1) / SLOTS),
                (unsigned)((columns + COLUMNS - 1) / COLUMNS));
}

static int run_slab(struct fkv_backend *b, const struct fkv_cuda_fft *f,
                    const struct fkv_cuda_compression *c, int32_t first, int32_t count,
                    struct fkv_error *err) {
    typedef void load_function(struct fkv_cuda_compression, int32_t, int32_t, float2 *);
    typedef void store_function(struct fkv_cuda_compression, int32_t, int32_t, const float2 *);
    enum fkv_dtype t = c->cache.dtype;
    load_function *load = fkv_cuda_pick<load_function>(t, load_kernel<float>, load_kernel<__half>,
                                                       load_kernel<__nv_bfloat16>);
    store_function *store = fkv_cuda_pick<store_function>(
        t, store_kernel<float>, store_kernel<__half>, store_kernel<__nv_bfloat16>);
    float2 *long_columns = (float2 *)c->scratch,
           *columns = (float2 *)(c->scratch + column_bytes(f, f->n));
    char *work_area = (char *)columns + column_bytes(f, f->retained);
    if (fkv_cuda_launch(b, "compress", load, tiles(c->n, count), dim3(THREADS), 0, err, *c, first,
                        count, long_columns) ||
        transform(f, 0, long_columns, work_area, err) ||
        fkv_cuda_launch(b, "compress", truncate_kernel, dim3((unsigned)count), dim3(THREADS), 0,
                        err, *c, first, long_columns, f->last_n, f->last_l, columns) ||
        transform(f, 1, columns, work_area, err))
        return FKV_FAILED;
    return fkv_cuda_launch(b, "compress", store, tiles(c->retained, count), dim3(THREADS), 0, err,
                           *c, first, count, columns);
}

int fkv_cuda_fft_run(struct fkv_backend *b, const struct fkv_cuda_fft *f,
                     const struct fkv_cuda_compression *c, struct fkv_error *err) {
    int32_t columns = c->units * (c->head_dim / 2);
    for (int32_t first = 0; first < columns; first += f->slab) {
        int32_t count = columns - first < f->slab ? columns - first : f->slab;
        if (run_slab(b, f, c, first, count, err)) return FKV_FAILED;
    }
    return FKV_OK;
}
