/* Products of a decode step: one to eight rows of x with matrices that are read once, y = W x. The
 * time is that of reading W.
 *
 * Shape. A warp makes OUT outputs of all rows: it walks OUT rows of W side by side, 16 bytes per
 * lane and load, DEPTH steps at once, so that 8 loads (4 KiB per warp; 4 for eight rows, where
 * registers end) are under way before the first is used. Nothing is staged: x and the norm come
 * through the first-level cache, which the weights, read once, do not enter. RMSNorm is part of the
 * walk. With n_i = x_i g_i / rms(x) and g the norm's weight,
 *
 *   sum_i W_oi n_i = (sum_i W_oi g_i x_i) / rms(x),
 *
 * so each warp sums the squares of x beside its products and divides at the end: no pass
 * before, no barrier until the sums meet. Weights become float32 in registers, x is float32
 * throughout and sums are float32: a decode step is at least as exact as the same rows in prefill,
 * which round x to the weights' dtype.
 *
 * Few outputs do not make enough warps to keep memory busy (about 3.5 MB must be on its way on an
 * H200: 4.3 TB/s x 0.8 us; 16 warps per multiprocessor ask for 8.6 MB). Then `split` warps of a
 * block share an output, every split-th step each, and the first adds their sums in a fixed order.
 * The split depends on the shape alone, there are no atomics, and which warp makes an output does
 * not show in it: the same call gives the same bits, on any number of multiprocessors.
 *
 * Rows 3, 5, 6, 7 run as 4 and 8 with rows repeated and not written (without vectors, all but one
 * row as 8). Matrices that share their input (q, k, v; gate, up) are one launch; for gate and up a
 * warp holds both halves of its pair and ends in the activation. Widths or addresses
 * that are no multiple of 16 bytes go one element at a time, after a norm of its own (correct,
 * slow, and met by no released model).
 *
 * Cost per launch: bytes out * cols * size of W, plus rows * cols * 4 of x per multiprocessor from
 * the second-level cache; FLOPs 2 * rows * out * cols. W (4096, 4096) bf16: 33.6 MB, 7.8 us at 4.3
 * TB/s; gate and up of (11008, 4096): 180 MB, 42 us. Per lane and 16 bytes of bf16, one row: 8
 * conversions, 4 products with the norm, 8 FMA: a fifth of what the processors issue in that time.
 * Through the first-level cache, per byte of weights: 2.5 bytes for 1 row (OUT 2), 5.25 for 8 (OUT
 * 4), of 6.9 that it can give at 4.3 TB/s.
 *
 * Registers: 72 to 128; with 128, sixteen warps fit a multiprocessor. Four and eight normed rows of
 * 16 bits spill 4 to 20 bytes: addresses, reloaded once per round.
 *
 * Considered and not done: x * norm staged in shared memory by each block (a barrier and 16 KiB per
 * row before the first product, and eight rows of width 11008 do not fit); persistent blocks (a
 * last, part-filled round over 22016 rows costs 13%, fresh blocks fill it); tensor cores for 3 rows
 * and more (x would be rounded, or split in three); bulk copies through shared memory. Figures are
 * arithmetic until measured on a GPU. */
#include <limits.h>

#include "kernels/cuda/matmul.cuh"
#include <ptx/stream.cuh>

enum { MOST_WARPS = 8, WARPS = 4, ENOUGH_WARPS = 2048, MOST_ROWS = FKV_CUDA_FEW_ROWS };

/* What a warp holds for one number of rows: outputs, and steps on their way. */
template <int ROWS> struct tile {
    static constexpr int out = ROWS <= 2 ? 2 : 4, depth = ROWS <= 4 ? 8 / out : 1;
};

struct matrix {
    const void *w, *bias; /* (rows, cols), [rows] or NULL */
    float *out;           /* [.., rows] */
    enum fkv_dtype bias_dtype;
    int32_t rows,
        first; /* first: the group of OUT outputs that is this matrix's first; INT_MAX: not there */
};

struct gemv_arguments {
    struct matrix matrix[FKV_CUDA_MOST_MATRICES];
    const float *x;   /* [rows, cols] */
    const void *norm; /* [cols] in the matrices' dtype */
    float eps;
    int32_t cols, rows, groups;
    int32_t split; /* log2 of the warps that share an output */
    enum fkv_cuda_gemv_end end;
    enum fkv_activation activation;
};

/* ---- numbers by the packet (16 bytes of a matrix, or one number) and, in registers, by up to four
 * ---- */
template <typename T, int VEC> struct packet { uint4 raw; };
template <typename T> struct packet<T, 1> { T raw; };

template <typename T, int VEC>
static __device__ inline void fetch(packet<T, VEC> *to, const T *from) {
    to->raw = ptx_load_streamed(from);
}
template <typename T> static __device__ inline void fetch(packet<T, 1> *to, const T *from) {
    to->raw = *from;
}

static __device__ inline void widen(uint32_t pair, const __nv_bfloat16 *, float to[2]) {
    to[0] = __uint_as_float(pair << 16);
    to[1] = __uint_as_float(pair & 0xffff0000u);
}
static __device__ inline void widen(uint32_t pair, const __half *, float to[2]) {
    float2 v = __half22float2(*(const __half2 *)&pair);
    to[0] = v.x, to[1] = v.y;
}

/* Numbers [4 part, 4 part + 4) of a packet. */
template <typename T>
static __device__ inline void unpack(const packet<T, 8> &p, int part, float to[4]) {
    widen(part ? p.raw.z : p.raw.x, (const T *)nullptr, to);
    widen(part ? p.raw.w : p.raw.y, (const T *)nullptr, to + 2);
}
static __device__ inline void unpack(const packet<float, 4> &p, int, float to[4]) {
    to[0] = __uint_as_float(p.raw.x), to[1] = __uint_as_float(p.raw.y);
    to[2] = __uint_as_float(p.raw.z), to[3] = __uint_as_float(p.raw.w);
}
template <typename T>
static __device__ inline void unpack(const packet<T, 1> &p, int, float to[1]) {
    to[0] = fkv_cuda_to_float(p.raw);
}

/* What every warp reads: the norm's weight by the packet, x by COUNT numbers. */
template <typename T, int VEC>
static __device__ inline void fetch_cached(packet<T, VEC> *to, const T *from) {
    to->raw = *(const uint4 *)from;
}
template <typename T> static __device__ inline void fetch_cached(packet<T, 1> *to, const T *from) {
    to->raw = *from;
}

template <int COUNT> static __device__ inline void load(const float *from, float to[COUNT]) {
    if constexpr (COUNT == 4) {
        float4 v = *(const float4 *)from;
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
        to[0] = *from;
    }
}

/* ---- the walk ---- */
/* The sums of one lane over its part of the rows. */
template <int ROWS> struct sums { float dot[tile<ROWS>::out][ROWS], square[ROWS]; };

/* DEPTH steps from packet `at` on, `step` packets apart; GUARDED where some may be beyond the end.
 *
 * Eight numbers of x are two loads of 16 bytes, 32 bytes apart from lane to lane: every second
 * group of four lanes takes the upper half first, or lanes i and i + 4 would meet in the same banks
 * and x would cost twice its bytes. */
template <typename T, int VEC, int ROWS, bool NORM, bool GUARDED>
static __device__ inline void walk(const struct gemv_arguments &c,
                                   const T *const w[tile<ROWS>::out], int32_t at, int32_t step,
                                   int32_t end, struct sums<ROWS> *sum) {
    constexpr int OUT = tile<ROWS>::out, DEPTH = tile<ROWS>::depth, COUNT = VEC < 4 ? VEC : 4,
                  PARTS = VEC / COUNT;
    packet<T, VEC> raw[DEPTH][OUT];
    const int flip = PARTS == 2 ? at / 4 % 2 : 0;
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
#pragma unroll
        for (int o = 0; o < OUT; o++)
            if (!GUARDED || at + d * step < end) fetch(&raw[d][o], w[o] + (at + d * step) * VEC);
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        if (GUARDED && at + d * step >= end) break;
        const int32_t column = (at + d * step) * VEC;
        packet<T, VEC> raw_gain;
        if constexpr (NORM) fetch_cached(&raw_gain, (const T *)c.norm + column);
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const int part = p ^ flip;
            float weight[OUT][COUNT], gain[COUNT], x[COUNT];
            if constexpr (NORM) unpack(raw_gain, part, gain);
#pragma unroll
            for (int o = 0; o < OUT; o++) {
                unpack(raw[d][o], part, weight[o]);
#pragma unroll
                for (int i = 0; NORM && i < COUNT; i++) weight[o][i] *= gain[i];
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                load<COUNT>(c.x + min(r, c.rows - 1) * c.cols + column + part * COUNT, x);
#pragma unroll
                for (int i = 0; i < COUNT; i++) {
#pragma unroll
                    for (int o = 0; o < OUT; o++)
                        sum->dot[o][r] = fmaf(weight[o][i], x[i], sum->dot[o][r]);
                    if (NORM) sum->square[r] = fmaf(x[i], x[i], sum->square[r]);
                }
            }
        }
    }
}

static __device__ inline struct matrix matrix_of(const struct gemv_arguments &c, int32_t group) {
    if (group >= c.matrix[2].first) return c.matrix[2];
    return group >= c.matrix[1].first ? c.matrix[1] : c.matrix[0];
}

/* Row of W that is output `o` of a group, and the address of its first number. Beyond the last
 * output: the last, whose sum is not written. */
template <typename T, int OUT>
static __device__ inline const T *row_of(const struct gemv_arguments &c, int32_t group, int o) {
    struct matrix m = matrix_of(c, group);
    bool paired = c.end == FKV_CUDA_GATE;
    const void *w = paired && o >= OUT / 2 ? c.matrix[1].w : m.w;
    int32_t row = paired ? group * (OUT / 2) + o % (OUT / 2) : (group - m.first) * OUT + o;
    return (const T *)w + (int64_t)min(row, m.rows - 1) * c.cols;
}

/* The sums of 2^split warps, in their order. */
static __device__ inline float total(const float *partial, int32_t stride, int32_t split) {
    float sum = 0;
    for (int32_t s = 0; s < 1 << split; s++) sum += partial[s * stride];
    return sum;
}

/* Output `o` of row r of a group from its warps' sums [2^split, stride]: dots [OUT, ROWS], then
 * squares [ROWS]. */
template <int ROWS>
static __device__ inline void finish(const struct gemv_arguments &c, int32_t group, int o, int r,
                                     const float *partial, int32_t stride) {
    struct matrix m = matrix_of(c, group);
    constexpr int OUT = tile<ROWS>::out;
    bool paired = c.end == FKV_CUDA_GATE;
    int32_t row = paired ? group * (OUT / 2) + o : (group - m.first) * OUT + o;
    if (r >= c.rows || row >= m.rows || (paired && o >= OUT / 2)) return;
    float scale =
        c.norm ? rsqrtf(total(partial + OUT * ROWS + r, stride, c.split) / (float)c.cols + c.eps)
               : 1;
    float value = scale * total(partial + o * ROWS + r, stride, c.split);
    float *out = m.out + (int64_t)r * m.rows + row;
    if (paired) {
        float up = scale * total(partial + (o + OUT / 2) * ROWS + r, stride, c.split);
        *out = fkv_cuda_activate(c.activation, value) * up;
    } else if (c.end == FKV_CUDA_ADD) {
        *out += value;
    } else {
        *out = m.bias ? value + fkv_cuda_number(m.bias, m.bias_dtype, row) : value;
    }
}

template <typename T, int VEC, int ROWS, bool NORM>
static __global__ void __launch_bounds__(MOST_WARPS *FKV_CUDA_WARP, 2)
    gemv_kernel(struct gemv_arguments c) {
    constexpr int OUT = tile<ROWS>::out, DEPTH = tile<ROWS>::depth, SUMS = OUT * ROWS + ROWS;
    __shared__ float partial[MOST_WARPS][SUMS];
    int lane = (int)threadIdx.x % FKV_CUDA_WARP, warp = (int)threadIdx.x / FKV_CUDA_WARP;
    int32_t warps = (int32_t)blockDim.x / FKV_CUDA_WARP, part = warp & ((1 << c.split) - 1);
    int32_t group = (int32_t)blockIdx.x * (warps >> c.split) + (warp >> c.split);
    bool live = group < c.groups;
    group = min(group, c.groups - 1);
    const T *w[OUT];
#pragma unroll
    for (int o = 0; o < OUT; o++) w[o] = row_of<T, OUT>(c, group, o);
    struct sums<ROWS> sum = {};
    int32_t packets = c.cols / VEC, step = FKV_CUDA_WARP << c.split, at = part * FKV_CUDA_WARP;
    for (; at + FKV_CUDA_WARP + (DEPTH - 1) * step <= packets; at += DEPTH * step)
        walk<T, VEC, ROWS, NORM, false>(c, w, at + lane, step, packets, &sum);
    if (at < packets) walk<T, VEC, ROWS, NORM, true>(c, w, at + lane, step, packets, &sum);

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUT; o++) {
            float dot = fkv_cuda_warp_sum(sum.dot[o][r]);
            if (lane == 0) partial[warp][o * ROWS + r] = dot;
        }
        float square = NORM ? fkv_cuda_warp_sum(sum.square[r]) : 0;
        if (lane == 0) partial[warp][OUT * ROWS + r] = square;
    }
    __syncthreads();
    if (live && part == 0 && lane < OUT * ROWS)
        finish<ROWS>(c, group, lane % OUT, lane / OUT, partial[warp], SUMS);
}

/* ---- launches ---- */
static int32_t groups_of(int32_t rows, int32_t out) { return (rows + out - 1) / out; }

/* Lays the matrices' outputs out in groups of `out`; a pair counts once. */
static void lay_out(const struct fkv_cuda_gemv *call, int32_t out, struct gemv_arguments *c) {
    if (call->end == FKV_CUDA_GATE) out /= 2;
    c->groups = 0;
    for (int i = 0; i < FKV_CUDA_MOST_MATRICES; i++) {
        struct matrix *m = &c->matrix[i];
        *m = {};
        m->first = INT_MAX;
        if (i >= call->count) continue;
        m->w = fkv_cuda_weight(call->w[i]);
        m->rows = call->w[i]->rows;
        m->out = call->out[i];
        if (call->bias[i] && call->bias[i]->data) {
            m->bias = fkv_cuda_weight(call->bias[i]);
            m->bias_dtype = fkv_weight_dtype(call->bias[i]);
        }
        if (call->end == FKV_CUDA_GATE && i) continue;
        m->first = c->groups;
        c->groups += groups_of(m->rows, out);
    }
}

/* Twice as many warps on an output while there are too few and each keeps four packets or more per
 * lane. */
static int32_t split_of(int32_t groups, int32_t packets) {
    int32_t split = 0;
    while (2 << split <= MOST_WARPS && groups << split < ENOUGH_WARPS &&
           packets >= 2 * 4 * FKV_CUDA_WARP << split)
        split++;
    return split;
}

template <typename T, int VEC, int ROWS, bool NORM>
static int launch(struct fkv_backend *b, const struct fkv_cuda_gemv *call, struct gemv_arguments *c,
                  struct fkv_error *err) {
    lay_out(call, tile<ROWS>::out, c);
    c->split = split_of(c->groups, c->cols / VEC);
    int32_t warps = 1 << c->split > WARPS ? 1 << c->split : WARPS, together = warps >> c->split;
    return fkv_cuda_launch(b, "matrix-vector product", gemv_kernel<T, VEC, ROWS, NORM>,
                           dim3((unsigned)groups_of(c->groups, together)),
                           dim3((unsigned)(warps * FKV_CUDA_WARP)), 0, err, *c);
}

template <typename T, int VEC, bool NORM>
static int launch_rows(struct fkv_backend *b, const struct fkv_cuda_gemv *call,
                       struct gemv_arguments *c, struct fkv_error *err) {
    if (c->rows == 1) return launch<T, VEC, 1, NORM>(b, call, c, err);
    if constexpr (VEC > 1) {
        if (c->rows == 2) return launch<T, VEC, 2, NORM>(b, call, c, err);
        if (c->rows <= 4) return launch<T, VEC, 4, NORM>(b, call, c, err);
    }
    return launch<T, VEC, MOST_ROWS, NORM>(b, call, c, err);
}

template <typename T>
static int launch_dtype(struct fkv_backend *b, const struct fkv_cuda_gemv *call, bool aligned,
                        struct gemv_arguments *c, struct fkv_error *err) {
    constexpr int VEC = 16 / sizeof(T);
    if (!aligned) return launch_rows<T, 1, false>(b, call, c, err);
    return c->norm ? launch_rows<T, VEC, true>(b, call, c, err)
                   : launch_rows<T, VEC, false>(b, call, c, err);
}

static bool aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

int fkv_cuda_gemv(struct fkv_backend *b, const struct fkv_cuda_gemv *call, struct fkv_error *err) {
    const struct fkv_weight *first = call->w[0];
    struct gemv_arguments c = {};
    c.x = call->x;
    c.eps = call->eps;
    c.cols = first->cols;
    c.rows = call->rows;
    c.end = call->end;
    c.activation = call->activation;
    bool vectors =
        (size_t)c.cols * fkv_dtype_bytes(fkv_weight_dtype(first)) % 16 == 0 && aligned(c.x);
    for (int i = 0; i < call->count; i++) vectors = vectors && aligned(fkv_cuda_weight(call->w[i]));
    if (call->norm) {
        c.norm = fkv_cuda_weight(call->norm);
        if (!vectors || call->norm->format != first->format || !aligned(c.norm)) {
            struct fkv_cuda_carving scratch = {b, 0};
            void *normed;
            if (fkv_cuda_carve(&scratch, (size_t)c.rows * (size_t)c.cols * sizeof(float), &normed,
                               err) ||
                fkv_cuda_norm_rows(b, call->norm, call->eps, c.x, c.rows, FKV_F32, normed, NULL,
                                   err))
                return FKV_FAILED;
            c.norm = NULL;
            c.x = (const float *)normed;
        }
    }
    switch (fkv_weight_dtype(first)) {
    case FKV_F32: return launch_dtype<float>(b, call, vectors, &c, err);
    case FKV_F16: return launch_dtype<__half>(b, call, vectors, &c, err);
    default: return launch_dtype<__nv_bfloat16>(b, call, vectors, &c, err);
    }
}
