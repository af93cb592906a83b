/* Power spectra along tokens: power hands them to the host, spectra_add adds them to sums that stay
 * on the device (kernels.h).
 *
 * A channel is one real column in Makhoul's order (kernels/dct/dct.c), so its orthonormal DCT-II
 * comes from one real-to-complex transform V:
 *
 *   P + iQ = sqrt(2/n) V_t exp(-i pi t / 2n),  y_t = P,  y_(n-t) = -Q,  t = 1 .. n/2
 *
 * Real columns share no rounding with a neighbour, which pairs of channels in one complex column
 * would.
 *
 * Keys have channels whose mean is tens of times their deviation. The rounding of that mean would
 * cover the whole spectrum, so it is taken out before the transform (rounded to float32; what
 * the rounding leaves is a constant and falls on t = 0 alone) and y_0 = sqrt(n) mean comes from the
 * mean in float64.
 *
 * Steps: `moments` (block: 32 channels, a warp's lanes, by 32 warps that share the rows) sums each
 * channel's mean, squares and variance about the mean, in float64 and in a fixed order, in one
 * pass: deviations are taken from the first row's number, which is as near to the mean as any, and
 * what that is off by comes out of the variance again (it loses 2 log10 of that distance in
 * deviations of 16 digits); per slab of whole heads, `load` transposes into columns through shared
 * memory, cuFFT transforms, `power` (a thread per head and t) goes over the channels of its head in
 * order. Nothing is summed by atomics, so results repeat to the bit.
 *
 * Bytes per number of a segment: 4 for the moments, 4 read and 4 written, 8 to 16 in the transform,
 * 4 read: about 26. A segment of 4092 x 4096 channels (LLaMA-2-7B, keys of a layer; 67 MB) takes
 * 0.11 ms at 4 TB/s, 64 of them 7 ms beside some 0.11 s of prefill. Arithmetic, not measurement.
 *
 * Transforms are planned once per length and kept with the backend; the first segment of a length
 * grows the scratch for them, later ones allocate nothing. A plan is for a whole slab of
 * columns; columns beyond the last head are transformed too and not read. */
#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/device.cuh"

enum { LANES = 32, WARPS = 32, TILE = 64, THREADS = 256, MOST_COLUMNS = 4096 };
static const size_t SLAB_BYTES = (size_t)256 << 20;

/* A segment: n rows of `channels` floats, `stride` apart. */
struct segment {
    const float *x;
    size_t stride;
    int32_t n, heads, head_dim;
};

/* What `moments` leaves of each channel. */
struct moments {
    double mean, squares,
        inverse; /* squares: sum over rows; inverse: 1 / variance, 0 of a constant channel */
};

struct fkv_cuda_spectra {
    struct fkv_cuda_spectra *next;
    int32_t n, columns; /* columns of a slab */
    cufftHandle plan;
    bool planned;     /* not for n = 1 */
    size_t work_area; /* of cuFFT, bytes */
};

static size_t whole(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* ---- plans ---- */

static int make_plan(struct fkv_backend *b, struct fkv_cuda_spectra *s, struct fkv_error *err) {
    int length = s->n;
    if (length == 1) return FKV_OK;
    if (fkv_cuda_check_fft(cufftCreate(&s->plan), "planning a spectrum", err)) return FKV_FAILED;
    s->planned = true;
    if (fkv_cuda_check_fft(cufftSetAutoAllocation(s->plan, 0), "planning a spectrum", err) ||
        fkv_cuda_check_fft(cufftMakePlanMany(s->plan, 1, &length, NULL, 1, length, NULL, 1,
                                             length / 2 + 1, CUFFT_R2C, s->columns, &s->work_area),
                           "planning a spectrum", err) ||
        fkv_cuda_check_fft(cufftSetStream(s->plan, b->stream), "planning a spectrum", err))
        return FKV_FAILED;
    return FKV_OK;
}

static void release(struct fkv_cuda_spectra *s) {
    if (s->planned) cufftDestroy(s->plan);
    free(s);
}

/* As many heads at once as the bound allows, one at least. */
static int32_t slab_columns(const struct segment *g) {
    int64_t most = (int64_t)(SLAB_BYTES / (((size_t)g->n + 1) * 2 * sizeof(float)));
    if (most > MOST_COLUMNS) most = MOST_COLUMNS;
    int64_t heads = most / g->head_dim;
    return (int32_t)(heads < 1 ? 1 : heads > g->heads ? g->heads : heads) * g->head_dim;
}

static int find(struct fkv_backend *b, const struct segment *g, struct fkv_cuda_spectra **out,
                struct fkv_error *err) {
    int32_t columns = slab_columns(g);
    for (struct fkv_cuda_spectra *s = b->spectra; s; s = s->next)
        if (s->n == g->n && s->columns == columns) {
            *out = s;
            return FKV_OK;
        }
    struct fkv_cuda_spectra *s = (struct fkv_cuda_spectra *)calloc(1, sizeof *s);
    if (!s) return fkv_fail(err, "out of memory");
    s->n = g->n;
    s->columns = columns;
    if (make_plan(b, s, err)) {
        release(s);
        return FKV_FAILED;
    }
    s->next = b->spectra;
    b->spectra = s;
    *out = s;
    return FKV_OK;
}

void fkv_cuda_spectra_release(struct fkv_backend *b) {
    while (b->spectra) {
        struct fkv_cuda_spectra *s = b->spectra;
        b->spectra = s->next;
        release(s);
    }
}

/* ---- kernels ---- */

/* Sum over the block's warps, per lane; every warp gets it. */
static __device__ inline double sum_warps(double x, double (*parts)[LANES]) {
    int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    __syncthreads();
    parts[warp][lane] = x;
    __syncthreads();
    double sum = 0;
    for (int w = 0; w < WARPS; w++) sum += parts[w][lane];
    return sum;
}

static __global__ void __launch_bounds__(LANES *WARPS)
    moments_kernel(struct segment g, struct moments *to) {
    __shared__ double parts[WARPS][LANES];
    int32_t channels = g.heads * g.head_dim, lane = (int32_t)threadIdx.x % LANES,
            warp = (int32_t)threadIdx.x / LANES;
    int32_t channel = (int32_t)blockIdx.x * LANES + lane, end = channel < channels ? g.n : 0;
    const float *x = g.x + channel;
    float level = end ? x[0] : 0;
    double sum = 0, squares = 0, deviations = 0,
           differs = 0; /* sum and deviations: from the level */
#pragma unroll 4
    for (int32_t j = warp; j < end; j += WARPS) {
        float value = x[(size_t)j * g.stride];
        double d = (double)value - level;
        sum += d;
        deviations += d * d;
        squares += (double)value * value;
        if (!(value == level)) differs = 1;
    }
    double distance = sum_warps(sum, parts) / g.n;
    squares = sum_warps(squares, parts);
    differs = sum_warps(differs, parts);
    double mean = level + distance,
           variance = fmax(sum_warps(deviations, parts) / g.n - distance * distance, 0.0);
    if (warp == 0 && channel < channels)
        to[channel] = {mean, squares, differs > 0 && variance > 0 ? 1 / variance : 0};
}

/* Channels [first, first + count) less their means -> to [count][n] in Makhoul's order; grid: tiles
 * of rows, tiles of channels */
static __global__ void __launch_bounds__(THREADS)
    load_kernel(struct segment g, const struct moments *moments, int32_t first, int32_t count,
                float *to) {
    __shared__ float tile[TILE][LANES + 1];
    int32_t lane = (int32_t)threadIdx.x % LANES, warp = (int32_t)threadIdx.x / LANES, n = g.n;
    int32_t row = (int32_t)blockIdx.x * TILE, column = (int32_t)blockIdx.y * LANES;
    if (column + lane < count) {
        const float *x = g.x + first + column + lane;
        float level = (float)moments[first + column + lane].mean;
        for (int32_t j = warp; j < TILE && row + j < n; j += THREADS / LANES)
            tile[j][lane] = x[(size_t)(row + j) * g.stride] - level;
    }
    __syncthreads();
    for (int32_t i = warp; i < LANES && column + i < count; i += THREADS / LANES)
        for (int32_t odd = 0; odd < 2; odd++) {
            int32_t j = 2 * lane + odd, token = row + j;
            if (token < n)
                to[(size_t)(column + i) * (size_t)n +
                   (size_t)(odd ? n - 1 - token / 2 : token / 2)] = tile[j][i];
        }
}

/* Where `power_kernel` puts what it finds: added to sums (squares != NULL) or written. normalised
 * may be NULL. */
struct spectra {
    double *power, *squares, *normalised; /* [heads, n] */
};

static __device__ inline void put(const struct spectra &to, size_t at, double power,
                                  double normalised) {
    if (!to.squares) {
        to.power[at] = power;
        if (to.normalised) to.normalised[at] = normalised;
        return;
    }
    to.power[at] += power;
    to.squares[at] += power * power;
    to.normalised[at] += normalised;
}

/* spectra [heads of the slab * head_dim][n/2 + 1]; grid: t, heads of the slab from `head` on. A
 * thread has y_t and y_(n-t). */
static __global__ void __launch_bounds__(THREADS)
    power_kernel(struct segment g, const struct moments *moments, int32_t head,
                 const float2 *spectrum, struct spectra to) {
    int32_t t = (int32_t)(blockIdx.x * THREADS + threadIdx.x), n = g.n, d = g.head_dim;
    if (t > n / 2) return;
    head += (int32_t)blockIdx.y;
    double sine, cosine, scale = 2.0 / n, low = 0, high = 0, low_normalised = 0,
                         high_normalised = 0;
    sincospi(t / (2.0 * n), &sine, &cosine);
    float c = (float)cosine, s = (float)sine;
    const float2 *v = spectrum + (size_t)blockIdx.y * (size_t)d * ((size_t)n / 2 + 1) + t;
#pragma unroll 4
    for (int32_t i = 0; i < d; i++, v += n / 2 + 1) {
        const struct moments *m = &moments[head * d + i];
        double p = t ? (double)(v->x * c + v->y * s) : 0, q = t ? (double)(v->x * s - v->y * c) : 0;
        double p2 = t ? scale * p * p : n * m->mean * m->mean, q2 = scale * q * q;
        low += p2;
        high += q2;
        low_normalised += p2 * m->inverse;
        high_normalised += q2 * m->inverse;
    }
    size_t row = (size_t)head * (size_t)n;
    put(to, row + (size_t)t, low / d, low_normalised / d);
    if (t && n - t != t) put(to, row + (size_t)(n - t), high / d, high_normalised / d);
}

/* A block per head, a thread per channel; energies are summed in an order that depends on head_dim
 * alone. */
static __global__ void __launch_bounds__(THREADS)
    add_moments_kernel(struct segment g, const struct moments *moments, double *means,
                       double *energy) {
    const size_t first = (size_t)blockIdx.x * (size_t)g.head_dim;
    double sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < g.head_dim; i += THREADS) {
        means[first + (size_t)i] += moments[first + (size_t)i].mean;
        sum += moments[first + (size_t)i].squares;
    }
    sum = fkv_cuda_block_sum(sum);
    if (threadIdx.x == 0) energy[blockIdx.x] += sum;
}

/* ---- a segment ---- */

static dim3 blocks(int32_t x, int32_t per_x, int32_t y, int32_t per_y) {
    return dim3((unsigned)((x + per_x - 1) / per_x), (unsigned)((y + per_y - 1) / per_y));
}

/* Scratch: moments of all channels, columns and spectra of a slab, cuFFT's work area; then `extra`
 * bytes for the caller. */
struct scratch {
    struct moments *moments;
    float *columns;
    float2 *spectra;
    char *work_area, *extra;
};

/* Their offsets in bytes from the start of the scratch. */
struct offsets {
    size_t columns, spectra, work_area, extra;
};

static struct offsets offsets_of(const struct segment *g, const struct fkv_cuda_spectra *s) {
    struct offsets at;
    at.columns = whole((size_t)g->heads * (size_t)g->head_dim * sizeof(struct moments));
    at.spectra = at.columns + whole((size_t)s->columns * (size_t)g->n * sizeof(float));
    at.work_area = at.spectra + whole((size_t)s->columns * ((size_t)g->n / 2 + 1) * sizeof(float2));
    at.extra = at.work_area + whole(s->work_area);
    return at;
}

static int take_scratch(struct fkv_backend *b, const struct segment *g,
                        const struct fkv_cuda_spectra *s, size_t extra, struct scratch *scratch,
                        struct fkv_error *err) {
    const struct offsets at = offsets_of(g, s);
    if (fkv_cuda_grow_scratch(b, at.extra + extra, err)) return FKV_FAILED;
    *scratch = {(struct moments *)b->scratch, (float *)(b->scratch + at.columns),
                (float2 *)(b->scratch + at.spectra), b->scratch + at.work_area,
                b->scratch + at.extra};
    return FKV_OK;
}

/* Results of power, before they are copied to the host. */
static size_t result_bytes(const struct segment *g) {
    return 2 * (size_t)g->heads * (size_t)g->n * sizeof(double);
}

int fkv_cuda_spectra_scratch(struct fkv_backend *b, int32_t n, int32_t heads, int32_t head_dim,
                             size_t *scratch, struct fkv_error *err) {
    const struct segment g = {NULL, 0, n, heads, head_dim};
    struct fkv_cuda_spectra *s = NULL;
    if (find(b, &g, &s, err)) return FKV_FAILED;
    *scratch = offsets_of(&g, s).extra + result_bytes(&g);
    return FKV_OK;
}

static int transform(const struct fkv_cuda_spectra *s, const struct scratch *scratch,
                     struct fkv_error *err) {
    if (!s->planned) return FKV_OK; /* one row: its only coefficient is its mean */
    return fkv_cuda_check_fft(cufftSetWorkArea(s->plan, scratch->work_area), "power", err) ||
                   fkv_cuda_check_fft(
                       cufftExecR2C(s->plan, scratch->columns, (cufftComplex *)scratch->spectra),
                       "power", err)
               ? FKV_FAILED
               : FKV_OK;
}

static int measure(struct fkv_backend *b, const struct segment *g, const struct fkv_cuda_spectra *s,
                   const struct scratch *scratch, struct spectra to, struct fkv_error *err) {
    int32_t channels = g->heads * g->head_dim;
    if (fkv_cuda_launch(b, "power", moments_kernel, blocks(channels, LANES, 1, 1),
                        dim3(LANES * WARPS), 0, err, *g, scratch->moments))
        return FKV_FAILED;
    for (int32_t first = 0; first < channels; first += s->columns) {
        int32_t count = channels - first < s->columns ? channels - first : s->columns;
        if (fkv_cuda_launch(b, "power", load_kernel, blocks(g->n, TILE, count, LANES),
                            dim3(THREADS), 0, err, *g, scratch->moments, first, count,
                            scratch->columns) ||
            transform(s, scratch, err) ||
            fkv_cuda_launch(b, "power", power_kernel,
                            blocks(g->n / 2 + 1, THREADS, count / g->head_dim, 1), dim3(THREADS), 0,
                            err, *g, scratch->moments, first / g->head_dim, scratch->spectra, to))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_cuda_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride,
                   int32_t n, int32_t heads, int32_t head_dim, double *power, double *normalised,
                   struct fkv_error *err) {
    struct segment g = {(const float *)(x->data + offset), stride, n, heads, head_dim};
    size_t spectrum = (size_t)heads * (size_t)n, bytes = spectrum * sizeof(double);
    struct fkv_cuda_spectra *s;
    struct scratch scratch;
    if (fkv_cuda_outside_step(b, "power", err) ||
        fkv_cuda_check_rows(x, offset, stride, n, heads * head_dim, "power", err) ||
        find(b, &g, &s, err) || take_scratch(b, &g, s, result_bytes(&g), &scratch, err))
        return FKV_FAILED;
    struct spectra to = {(double *)scratch.extra, NULL,
                         normalised ? (double *)scratch.extra + spectrum : NULL};
    if (measure(b, &g, s, &scratch, to, err) ||
        fkv_cuda_check(cudaMemcpyAsync(power, to.power, bytes, cudaMemcpyDeviceToHost, b->stream),
                       "power", err) ||
        (normalised && fkv_cuda_check(cudaMemcpyAsync(normalised, to.normalised, bytes,
                                                      cudaMemcpyDeviceToHost, b->stream),
                                      "power", err)))
        return FKV_FAILED;
    return fkv_cuda_wait(b, "power", err);
}

int fkv_cuda_spectra_add(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset,
                         size_t stride, int32_t n, int32_t heads, int32_t head_dim,
                         struct fkv_buffer *sums, size_t at, struct fkv_error *err) {
    struct segment g = {(const float *)(x->data + offset), stride, n, heads, head_dim};
    struct fkv_spectra_layout l = fkv_spectra_layout(heads, n, head_dim);
    double *sum = (double *)(sums->data + at);
    struct fkv_cuda_spectra *s;
    struct scratch scratch;
    if (fkv_cuda_outside_step(b, "spectra_add", err) ||
        fkv_cuda_check_rows(x, offset, stride, n, heads * head_dim, "spectra_add", err) ||
        find(b, &g, &s, err) || take_scratch(b, &g, s, 0, &scratch, err) ||
        measure(b, &g, s, &scratch, {sum + l.power, sum + l.squares, sum + l.normalised}, err))
        return FKV_FAILED;
    return fkv_cuda_launch(b, "spectra_add", add_moments_kernel, dim3((unsigned)heads),
                           dim3(THREADS), 0, err, g, scratch.moments, sum + l.means,
                           sum + l.energy);
}
