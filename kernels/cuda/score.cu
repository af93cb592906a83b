/* What a panel of logits says of its rows, in double (kernels/likelihood.h).
 *
 * A block per row. Each thread keeps its own largest logit so far and its sums relative to it, and
 * rescales them when a larger one comes (Milakov and Gimelshein, "Online normalizer calculation for
 * softmax", 2018), so a row is read once: 4 bytes per logit, 2 GB for 4096 rows of 128256, 0.4 ms
 * of 4.8 TB/s. The exponentials are in double, some 25 instructions each: about 0.9 ms on an H200
 * for those 0.5e9, so they and not the memory set the pace, at a hundredth of the product that made
 * the logits. In float they would be free, and leave 1e-7 in each term; measured likelihoods are
 * differences of sums over 1e5 tokens, and double is what the CPU does.
 *
 * Not finite: NaN reaches the sums by itself, and so does +inf, as inf - inf. -inf adds nothing; a
 * row of nothing else gives NaN.
 *
 * Results are written straight to pinned host memory, a row's by one thread, in groups of as many
 * rows as that holds. */
#include <math.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

/* Of a row. */
struct comparison {
    struct fkv_likelihood p, q;
    double gap;
};

enum { THREADS = 512, AT_ONCE = 4, GROUP = FKV_CUDA_RESULTS / sizeof(struct comparison) };

/* ---- sums over a row: of a thread, then of a block ---- */
/* 0 times infinity is 0 here: what a factor that small leaves of a gap is nothing. */
static __device__ inline double scaled(double gap, double factor) {
    return factor == 0 ? 0 : gap * factor;
}

static __device__ inline double exp_below(double x, double largest) {
    return x == -INFINITY ? 0 : exp(x - largest);
}

static __device__ inline double warp_largest(double x) {
#pragma unroll
    for (int distance = FKV_CUDA_WARP / 2; distance; distance /= 2)
        x = fmax(x, __shfl_xor_sync(FKV_CUDA_ALL_LANES, x, distance));
    return x;
}

static __device__ inline double block_largest(double x) {
    __shared__ double parts[FKV_CUDA_WARP];
    int lane = (int)threadIdx.x % FKV_CUDA_WARP, warp = (int)threadIdx.x / FKV_CUDA_WARP;
    x = warp_largest(x);
    __syncthreads(); /* what an earlier call left has been read */
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_largest(lane < THREADS / FKV_CUDA_WARP ? parts[lane] : -INFINITY);
}

/* -1 times the largest of the negatives, which doubles hold exactly. */
static __device__ inline int32_t block_smallest(int32_t x) {
    return (int32_t)-block_largest(-(double)x);
}

/* The four logits of a thread's turn that starts at `from`, THREADS apart; -inf beyond the row. */
static __device__ inline void load(const float *row, int32_t from, int32_t width,
                                   float z[AT_ONCE]) {
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++)
        z[j] = from + j * THREADS < width ? row[from + j * THREADS] : -INFINITY;
}

/* Takes in what load gave. */
static __device__ inline void look(const float z[AT_ONCE], int32_t from,
                                   struct fkv_likelihood *mine, double *gap) {
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++)
        if (z[j] > mine->largest) {
            const double factor = exp(mine->largest - z[j]);
            mine->sum *= factor;
            *gap = scaled(*gap, factor);
            mine->largest = z[j];
            mine->top1 = from + j * THREADS;
        }
}

/* Joins what the threads have of the row; thread 0 writes it. The factor of a thread's own sums. */
static __device__ inline double join(struct fkv_likelihood mine, const float *row, int32_t first,
                                     int32_t width, const int32_t *target,
                                     struct fkv_likelihood *out) {
    const double largest = block_largest(mine.largest), factor = exp_below(mine.largest, largest),
                 sum = fkv_cuda_block_sum(mine.sum * factor);
    const int32_t at = block_smallest(mine.largest == largest ? mine.top1 : INT32_MAX);
    if (threadIdx.x) return factor;
    const bool within = *target >= first && *target - first < width;
    out->largest = largest;
    out->sum = sum;
    out->target = within ? (double)row[*target - first] : NAN;
    out->top1 = first + (at < width ? at : 0);
    return factor;
}

static __device__ inline struct fkv_likelihood nothing(void) {
    struct fkv_likelihood l = {-INFINITY, 0, 0, INT32_MAX};
    return l;
}

static __global__ void __launch_bounds__(THREADS)
    score_kernel(const float *__restrict__ logits, int32_t first, int32_t width,
                 const int32_t *__restrict__ targets, struct fkv_likelihood *out) {
    const float *row = logits + (size_t)blockIdx.x * (size_t)width;
    struct fkv_likelihood mine = nothing();
    double unused = 0;
    for (int32_t from = (int32_t)threadIdx.x; from < width; from += AT_ONCE * THREADS) {
        float z[AT_ONCE];
        load(row, from, width, z);
        look(z, from, &mine, &unused);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) mine.sum += exp_below(z[j], mine.largest);
    }
    join(mine, row, first, width, targets + blockIdx.x, out + blockIdx.x);
}

static __global__ void __launch_bounds__(THREADS)
    compare_kernel(const float *__restrict__ p, const float *__restrict__ q, int32_t first,
                   int32_t width, const int32_t *__restrict__ targets, struct comparison *out) {
    const float *p_row = p + (size_t)blockIdx.x * (size_t)width,
                *q_row = q + (size_t)blockIdx.x * (size_t)width;
    const int32_t *target = targets + blockIdx.x;
    struct fkv_likelihood p_mine = nothing(), q_mine = nothing();
    double gap = 0, unused = 0; /* gap: sum of e^(z - p's largest) (z - y) */
    for (int32_t from = (int32_t)threadIdx.x; from < width; from += AT_ONCE * THREADS) {
        float z[AT_ONCE], y[AT_ONCE];
        load(p_row, from, width, z);
        load(q_row, from, width, y);
        look(z, from, &p_mine, &gap);
        look(y, from, &q_mine, &unused);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            double weight = exp_below(z[j], p_mine.largest);
            p_mine.sum += weight;
            if (weight != 0) gap += weight * ((double)z[j] - (double)y[j]);
            q_mine.sum += exp_below(y[j], q_mine.largest);
        }
    }
    struct comparison *row = out + blockIdx.x;
    const double factor = join(p_mine, p_row, first, width, target, &row->p);
    gap = fkv_cuda_block_sum(scaled(gap, factor));
    join(q_mine, q_row, first, width, target, &row->q);
    if (threadIdx.x == 0) row->gap = gap;
}

/* ---- the operations ---- */
static const float *rows_from(const struct fkv_buffer *logits, int32_t row, int32_t width) {
    return (const float *)logits->data + (size_t)row * (size_t)width;
}

int fkv_cuda_score(struct fkv_backend *b, const struct fkv_buffer *logits, int32_t first,
                   int32_t width, const int32_t *targets, int32_t rows, struct fkv_likelihood *out,
                   struct fkv_error *err) {
    const int32_t *staged;
    struct fkv_likelihood *found = (struct fkv_likelihood *)b->results;
    if (fkv_cuda_outside_step(b, "score", err) || fkv_cuda_stage(b, targets, rows, &staged, err))
        return FKV_FAILED;
    for (int32_t row = 0; row < rows; row += GROUP) {
        int32_t count = rows - row < (int32_t)GROUP ? rows - row : (int32_t)GROUP;
        if (fkv_cuda_launch(b, "score", score_kernel, dim3((unsigned)count), dim3(THREADS), 0, err,
                            rows_from(logits, row, width), first, width, staged + row, found) ||
            fkv_cuda_wait(b, "score", err))
            return FKV_FAILED;
        memcpy(out + row, found, (size_t)count * sizeof *out);
    }
    return FKV_OK;
}

int fkv_cuda_compare(struct fkv_backend *b, const struct fkv_buffer *p, const struct fkv_buffer *q,
                     int32_t first, int32_t width, const int32_t *targets, int32_t rows,
                     struct fkv_likelihood *p_out, struct fkv_likelihood *q_out, double *gap,
                     struct fkv_error *err) {
    const int32_t *staged;
    const struct comparison *found = (const struct comparison *)b->results;
    if (fkv_cuda_outside_step(b, "compare", err) || fkv_cuda_stage(b, targets, rows, &staged, err))
        return FKV_FAILED;
    for (int32_t row = 0; row < rows; row += GROUP) {
        int32_t count = rows - row < (int32_t)GROUP ? rows - row : (int32_t)GROUP;
        if (fkv_cuda_launch(b, "compare", compare_kernel, dim3((unsigned)count), dim3(THREADS), 0,
                            err, rows_from(p, row, width), rows_from(q, row, width), first, width,
                            staged + row, (struct comparison *)b->results) ||
            fkv_cuda_wait(b, "compare", err))
            return FKV_FAILED;
        for (int32_t i = 0; i < count; i++) {
            p_out[row + i] = found[i].p;
            q_out[row + i] = found[i].q;
            gap[row + i] = found[i].gap;
        }
    }
    return FKV_OK;
}
