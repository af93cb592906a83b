/* Likelihoods and divergences from logits, in double.
 *
 *   nll = A + log Z - z_target,   A the largest logit, Z = sum_v e^(z_v - A)
 *   KL(P || Q) = (1/Z_p) sum_v e^(z_v - A) (z_v - y_v) - (A + log Z_p) + (B + log Z_q)
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
 * Results are written straight to pinned host memory, a row's 12 bytes by one thread, in groups of
 * as many rows as that holds. */
#include <math.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

enum {
    THREADS = 512,
    AT_ONCE = 4,
    GROUP = FKV_CUDA_RESULTS / 16
}; /* rows of a double and an int32_t */

/* ---- what a thread, and then a block, knows of a row ---- */
struct likelihood {
    double largest, sum; /* sum of e^(z - largest) */
    int32_t at;          /* the first `largest` */
};

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

/* The four logits of a thread's turn that starts at `first`, THREADS apart; -inf beyond the row. */
static __device__ inline void load(const float *row, int32_t first, int32_t vocab,
                                   float z[AT_ONCE]) {
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++)
        z[j] = first + j * THREADS < vocab ? row[first + j * THREADS] : -INFINITY;
}

static __global__ void __launch_bounds__(THREADS)
    score_kernel(const float *__restrict__ logits, const int32_t *__restrict__ targets,
                 int32_t vocab, double *nll, int32_t *top1) {
    const float *row = logits + (size_t)blockIdx.x * (size_t)vocab;
    struct likelihood mine = {-INFINITY, 0, INT32_MAX};
    for (int32_t first = (int32_t)threadIdx.x; first < vocab; first += AT_ONCE * THREADS) {
        float z[AT_ONCE];
        load(row, first, vocab, z);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (z[j] > mine.largest) {
                mine.sum *= exp(mine.largest - z[j]);
                mine.largest = z[j];
                mine.at = first + j * THREADS;
            }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) mine.sum += exp_below(z[j], mine.largest);
    }
    double largest = block_largest(mine.largest);
    double sum = fkv_cuda_block_sum(mine.sum * exp_below(mine.largest, largest));
    int32_t at = block_smallest(mine.largest == largest ? mine.at : INT32_MAX);
    if (threadIdx.x) return;
    nll[blockIdx.x] = largest == -INFINITY ? NAN : largest + log(sum) - row[targets[blockIdx.x]];
    top1[blockIdx.x] = at < vocab ? at : 0;
}

static __global__ void __launch_bounds__(THREADS)
    divergence_kernel(const float *__restrict__ p, const float *__restrict__ q, int32_t vocab,
                      double *kl) {
    const float *p_row = p + (size_t)blockIdx.x * (size_t)vocab,
                *q_row = q + (size_t)blockIdx.x * (size_t)vocab;
    double p_largest = -INFINITY, p_sum = 0, gap = 0; /* gap: sum of e^(z - p_largest) (z - y) */
    double q_largest = -INFINITY, q_sum = 0;
    for (int32_t first = (int32_t)threadIdx.x; first < vocab; first += AT_ONCE * THREADS) {
        float z[AT_ONCE], y[AT_ONCE];
        load(p_row, first, vocab, z);
        load(q_row, first, vocab, y);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            if (z[j] > p_largest) {
                double factor = exp(p_largest - z[j]);
                p_sum *= factor;
                gap = scaled(gap, factor);
                p_largest = z[j];
            }
            if (y[j] > q_largest) {
                q_sum *= exp(q_largest - y[j]);
                q_largest = y[j];
            }
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            double weight = exp_below(z[j], p_largest);
            p_sum += weight;
            if (weight != 0) gap += weight * ((double)z[j] - (double)y[j]);
            q_sum += exp_below(y[j], q_largest);
        }
    }
    double p_top = block_largest(p_largest), q_top = block_largest(q_largest);
    double factor = exp_below(p_largest, p_top);
    p_sum = fkv_cuda_block_sum(p_sum * factor);
    gap = fkv_cuda_block_sum(scaled(gap, factor));
    q_sum = fkv_cuda_block_sum(q_sum * exp_below(q_largest, q_top));
    if (threadIdx.x) return;
    kl[blockIdx.x] = p_top == -INFINITY || q_top == -INFINITY
                         ? NAN
                         : gap / p_sum - (p_top + log(p_sum)) + (q_top + log(q_sum));
}

/* ---- the operations ---- */
static const float *rows_from(const struct fkv_buffer *logits, int32_t row, int32_t vocab) {
    return (const float *)logits->data + (size_t)row * (size_t)vocab;
}

int fkv_cuda_score(struct fkv_backend *b, const struct fkv_buffer *logits, const int32_t *targets,
                   int32_t rows, int32_t vocab, double *nll, int32_t *top1, struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "score", err)) return FKV_FAILED;
    for (int32_t r = 0; r < rows; r++)
        if (targets[r] < 0 || targets[r] >= vocab)
            return fkv_fail(err, "target %d: expected an id in [0, %d), found %d", r, vocab,
                            targets[r]);
    const int32_t *staged;
    double *likelihoods = (double *)b->results;
    int32_t *tops = (int32_t *)(likelihoods + GROUP);
    if (fkv_cuda_stage(b, targets, rows, &staged, err)) return FKV_FAILED;
    for (int32_t row = 0; row < rows; row += GROUP) {
        int32_t count = rows - row < GROUP ? rows - row : GROUP;
        if (fkv_cuda_launch(b, "score", score_kernel, dim3((unsigned)count), dim3(THREADS), 0, err,
                            rows_from(logits, row, vocab), staged + row, vocab, likelihoods,
                            tops) ||
            fkv_cuda_wait(b, "score", err))
            return FKV_FAILED;
        memcpy(nll + row, likelihoods, (size_t)count * sizeof *nll);
        if (top1) memcpy(top1 + row, tops, (size_t)count * sizeof *top1);
    }
    return FKV_OK;
}

int fkv_cuda_divergence(struct fkv_backend *b, const struct fkv_buffer *p,
                        const struct fkv_buffer *q, int32_t rows, int32_t vocab, double *kl,
                        struct fkv_error *err) {
    if (fkv_cuda_outside_step(b, "divergence", err)) return FKV_FAILED;
    double *divergences = (double *)b->results;
    for (int32_t row = 0; row < rows; row += GROUP) {
        int32_t count = rows - row < GROUP ? rows - row : GROUP;
        if (fkv_cuda_launch(b, "divergence", divergence_kernel, dim3((unsigned)count),
                            dim3(THREADS), 0, err, rows_from(p, row, vocab),
                            rows_from(q, row, vocab), vocab, divergences) ||
            fkv_cuda_wait(b, "divergence", err))
            return FKV_FAILED;
        memcpy(kl + row, divergences, (size_t)count * sizeof *kl);
    }
    return FKV_OK;
}
