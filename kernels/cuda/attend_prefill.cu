/* Attention of many query rows, on tensor cores: softmax(scale q.k) v by tiles with a running
 * softmax (Milakov and Gimelshein, arXiv 1805.02867), scores and weights in registers alone, as
 * FlashAttention-2 arranges it (Dao, arXiv 2307.08691). Takes 16-bit caches with a head_dim of 64,
 * 80, 96, 128 or 256 (the last where a block may have 112 KiB of shared memory); refuses nothing,
 * for attend.cu asks fkv_cuda_prefill_takes first.
 *
 * Shape. A block is 128 or 64 stacked rows (attend.cuh) of one item, 4 warps of 32 or 16. The query
 * heads of a group are stacked, so they share every load of K and V, and a short block of rows
 * still fills tensor-core tiles. Per span: the block's queries, rotated in float32 to where the
 * span has them and scaled by scale * log2 e, are rounded into shared memory. Per 64 slots: S = Q
 * K^T; limits, on tiles that some row sees in part; weights 2^(S - largest); O += P V with P
 * rounded in place, because the accumulator of one product has the layout that the next takes
 * its left operand in. Slots that no row of the block sees are not visited: causal work is half.
 * The blocks with the longest rows of all items start first.
 *
 * Memory. K and V have one tile each. V travels while Q K^T is computed, the next K while the
 * softmax and P V are: two barriers per tile, and two or more blocks per multiprocessor fill the
 * gaps. Rows in shared memory are one 16-byte chunk longer than head_dim, an odd number of chunks,
 * so the eight rows that an ldmatrix phase reads are in eight different bank groups; a swizzle
 * would save that 1/16 and does not suit head_dim 80 and 96. Slots beyond the end are filled with
 * zeros: their weight is 0, and 0 times what is there must be 0.
 *
 * Figures (arithmetic; to be measured). 4 head_dim FLOP per row and visible slot against 4 head_dim
 * bytes per slot and block: with 128 rows 128 FLOP per byte from the second-level cache. Memory
 * would need 165 (H200: 790 TFLOP/s, 4.8 TB/s) and sees less, for the blocks of a head that run
 * together share what they read. Shared memory: a B fragment of 256 bytes (2 cycles) feeds two
 * m16n8k16 products with 32 rows per warp; with 16 rows it would be the limit. mma.sync reaches
 * about 60% of the H200's peak; 16K causal rows at 32 heads and head_dim 128 are 2.2 TFLOP, 7.3 ms
 * at the 300 TFLOP/s aimed at. The queries of 128 rows are 64 pairs per thread and span, four at a
 * time: 16 rounds of some 1500 cycles, waiting mostly, which the other block of the multiprocessor
 * fills; a tile is some 1700 cycles of tensor cores, and a block of 4096 rows visits 32 on average.
 * Registers (sm_90): 255 with 32 rows and head_dim 128 (64 bytes spilled, at the edges of the
 * loop), 167 with 16; two blocks per multiprocessor, or three. wgmma and bulk copies would go
 * higher on Hopper alone: one path for compute capability 8.0 and later was preferred. Not done:
 * splitting the cache among blocks for 17 to 64 rows on a long cache.
 */
#include "kernels/cuda/attend.cuh"

#include <ptx/exp2.cuh>
#include <ptx/shared.cuh>
#include <ptx/tensor_core.cuh>

enum { KEYS = 64, WARPS = 4, THREADS = 32 * WARPS, PAIRS = 4 };

/* One block's part: stacked rows [first, first+m) of the item, which belong to rows row..last of
 * it. */
struct tile {
    const struct fkv_attend_item *item;
    int32_t first, m, row, last;
};

/* What a thread holds of its warp's rows: lane 4 g + t has columns 2t, 2t+1 of every eight, of rows
 * g and g + 8 of every 16 (ptx/tensor_core.cuh). */
template <int D, int M> struct state {
    float o[M][D / 8][4];
    float largest[M][2], sum[M][2]; /* sum: of this lane's columns */
};

template <typename T>
__device__ inline void multiply(float d[4], const uint32_t a[4], const uint32_t b[2]);
template <>
__device__ inline void multiply<__half>(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    ptx_mma_f16(d, a, b);
}
template <>
__device__ inline void multiply<__nv_bfloat16>(float d[4], const uint32_t a[4],
                                               const uint32_t b[2]) {
    ptx_mma_bf16(d, a, b);
}

template <typename T> __device__ inline uint32_t pack(float low, float high);
template <> __device__ inline uint32_t pack<__half>(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
template <> __device__ inline uint32_t pack<__nv_bfloat16>(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* Queries -> shared [m, D + 8]. The heads of a row share its angles. A thread has PAIRS pairs of
 * channels in hand, for there are few threads to wait for an angle, which is one chain of some 50
 * instructions, and for memory: one at a time they would take as long as thirty tiles of keys. */
template <typename T, int D>
__device__ inline void load_queries(const struct fkv_cuda_attention *a, const struct tile *tile,
                                    const struct fkv_span *span, T *shared) {
    const int half = D / 2, heads = tile->item->heads, count = (tile->last - tile->row + 1) * half;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < count; i += PAIRS * THREADS) {
        float cosine[PAIRS], sine[PAIRS];
        int row[PAIRS], c[PAIRS];
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            int pair = min(i + p * THREADS, count - 1);
            row[p] = tile->row + pair / half, c[p] = pair % half;
            fkv_cuda_turn(span->position + (span->fixed ? 0 : row[p]), a->inv_freq[c[p]],
                          &cosine[p], &sine[p]);
            cosine[p] *= a->scale, sine[p] *= a->scale;
        }
#pragma unroll 1
        for (int h = 0; h < heads; h++) {
            float x[PAIRS], y[PAIRS];
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                size_t at = (size_t)(tile->item->row + row[p]) * (size_t)a->heads +
                            (size_t)(tile->item->head + h);
                const float *q = a->q + at * D + c[p];
                x[p] = q[0], y[p] = q[half];
            }
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                int m =
                    row[p] * heads + h - tile->first; /* a block may begin and end within a row */
                if (m < 0 || m >= tile->m || i + p * THREADS >= count) continue;
                T *to = shared + m * (D + 8) + c[p];
                to[0] = fkv_cuda_from_float<T>(x[p] * cosine[p] - y[p] * sine[p]);
                to[half] = fkv_cuda_from_float<T>(y[p] * cosine[p] + x[p] * sine[p]);
            }
        }
    }
}

/* Slots from [valid, D] -> shared [KEYS, D + 8], on its way when this returns. */
template <typename T, int D>
__device__ inline void copy_tile(const T *from, int32_t valid, T *shared) {
    const int chunks = D / 8, together = THREADS / chunks; /* slots at a time */
    int slot = (int)threadIdx.x / chunks, c = (int)threadIdx.x % chunks * 8;
    from += slot * D + c, shared += slot * (D + 8) + c;
#pragma unroll
    for (int j = 0; j < KEYS; j += together)
        if ((THREADS % chunks == 0 || slot < together) && (KEYS % together == 0 || slot + j < KEYS))
            ptx_copy_async(shared + j * (D + 8), from + j * D, slot + j < valid);
    ptx_copy_commit();
}

/* s [16 M rows, KEYS] = Q K^T for this warp; q: its rows. */
template <typename T, int D, int M>
__device__ inline void score_tile(const T *q, const T *key, float s[M][KEYS / 8][4]) {
    int lane = (int)threadIdx.x % 32;
    const T *q_row = q + lane % 16 * (D + 8) + lane / 16 * 8;
    const T *key_row = key + (lane % 8 + lane / 16 * 8) * (D + 8) + lane / 8 % 2 * 8;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t left[M][4], right[4];
#pragma unroll
        for (int m = 0; m < M; m++) ptx_ldmatrix(left[m], q_row + m * 16 * (D + 8) + 16 * k);
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            ptx_ldmatrix(right, key_row + n * 16 * (D + 8) + 16 * k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply<T>(s[m][2 * n], left[m], right);
                multiply<T>(s[m][2 * n + 1], left[m], right + 2);
            }
        }
    }
}

/* o += P V, with P = s rounded to T. */
template <typename T, int D, int M>
__device__ inline void add_values(const float s[M][KEYS / 8][4], const T *value,
                                  float o[M][D / 8][4]) {
    int lane = (int)threadIdx.x % 32;
    const T *value_row = value + lane % 16 * (D + 8) + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t left[M][4], right[4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                left[m][i] =
                    pack<T>(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            ptx_ldmatrix_transposed(right, value_row + k * 16 * (D + 8) + 16 * n);
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply<T>(o[m][2 * n], left[m], right);
                multiply<T>(o[m][2 * n + 1], left[m], right + 2);
            }
        }
    }
}

/* This thread's stacked row h * 8 of the 16 with number m of its warp, counted from the block's
 * first. */
template <int M> __device__ inline int32_t own_row(int m, int h) {
    return (int32_t)threadIdx.x / 32 * 16 * M + m * 16 + h * 8 + (int32_t)threadIdx.x % 32 / 4;
}

/* Biases of slots from `slot` on, below `high`. */
template <int M>
__device__ inline void bias_tile(const float *bias, int32_t slot, int32_t high,
                                 float s[M][KEYS / 8][4]) {
    int32_t column = slot + 2 * ((int32_t)threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int32_t at = column + 8 * n + e;
            float added = at < high ? FKV_CUDA_LOG2_E * bias[at] : 0;
#pragma unroll
            for (int m = 0; m < M; m++) s[m][n][e] += added, s[m][n][2 + e] += added;
        }
}

/* -infinity where a row does not see a slot. rows [16 M WARPS]: the row of the item that a stacked
 * row of the block belongs to. */
template <int M>
__device__ inline void limit_tile(const int32_t *rows, const struct fkv_span *span, int32_t slot,
                                  float s[M][KEYS / 8][4]) {
    int32_t column = slot + 2 * ((int32_t)threadIdx.x % 4);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int32_t row = rows[own_row<M>(m, h)], low, high;
            fkv_cuda_seen(span, row, row, &low, &high);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int32_t at = column + 8 * n + e;
                    if (at < low || at >= high) s[m][n][2 * h + e] = -INFINITY;
                }
        }
}

/* Scores -> weights relative to the largest score so far; what a row has is scaled to it. */
template <int D, int M>
__device__ inline void soften_tile(struct state<D, M> *st, float s[M][KEYS / 8][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = st->largest[m][h], sum = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            top = fmaxf(top, __shfl_xor_sync(FKV_CUDA_ALL_LANES, top, 1));
            top = fmaxf(top, __shfl_xor_sync(FKV_CUDA_ALL_LANES, top, 2));
            float pivot = fkv_cuda_pivot(top), shrink = ptx_exp2(st->largest[m][h] - pivot);
            st->largest[m][h] = top;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++)
                    sum += s[m][n][e] = ptx_exp2(s[m][n][e] - pivot);
            st->sum[m][h] = st->sum[m][h] * shrink + sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                st->o[m][n][2 * h] *= shrink, st->o[m][n][2 * h + 1] *= shrink;
        }
}

/* shared: queries, keys, values, each of D + 8 to the row, then the rows of the item that the
 * stacked ones belong to. */
template <typename T, int D, int M>
__device__ inline void attend_span(const struct fkv_cuda_attention *a, const struct tile *tile,
                                   const struct fkv_span *span, T *shared, struct state<D, M> *st) {
    T *key_tile = shared + WARPS * 16 * M * (D + 8), *value_tile = key_tile + KEYS * (D + 8);
    const int32_t *rows = (const int32_t *)(value_tile + KEYS * (D + 8));
    const T *q = shared + (int)threadIdx.x / 32 * 16 * M * (D + 8);
    const size_t head = (size_t)tile->item->cache_head * (size_t)a->cache.capacity * D;
    const T *key = (const T *)a->cache.key + head, *value = (const T *)a->cache.value + head;
    const float *bias = fkv_cuda_biases(a, tile->item->cache_head);
    int32_t low, high;
    fkv_cuda_seen(span, tile->row, tile->last, &low, &high);
    if (low >= high) return;
    const int32_t whole_from = span->from + tile->last,
                  whole_until = min(span->end, span->until + tile->row);
    __syncthreads(); /* the span before this one has read the queries */
    copy_tile<T, D>(key + (size_t)low * D, high - low, key_tile);
    load_queries<T, D>(a, tile, span, shared);
    for (int32_t slot = low; slot < high; slot += KEYS) {
        float s[M][KEYS / 8][4];
        ptx_copy_wait<0>();
        __syncthreads(); /* K is there, and the V before is no longer read */
        copy_tile<T, D>(value + (size_t)slot * D, high - slot, value_tile);
        score_tile<T, D, M>(q, key_tile, s);
        ptx_copy_wait<0>();
        __syncthreads(); /* V is there, and K is no longer read */
        if (slot + KEYS < high)
            copy_tile<T, D>(key + (size_t)(slot + KEYS) * D, high - slot - KEYS, key_tile);
        if (bias) bias_tile<M>(bias, slot, high, s);
        if (slot < whole_from || slot + KEYS > whole_until) limit_tile<M>(rows, span, slot, s);
        soften_tile<D, M>(st, s);
        add_values<T, D, M>(s, value_tile, st->o);
    }
}

template <int D, int M>
__device__ inline void store_rows(const struct fkv_cuda_attention *a, const struct tile *tile,
                                  const struct state<D, M> *st) {
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = st->sum[m][h];
            sum += __shfl_xor_sync(FKV_CUDA_ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(FKV_CUDA_ALL_LANES, sum, 2);
            int32_t stacked = own_row<M>(m, h);
            if (stacked >= tile->m) continue;
            float share = 1 / sum, *to = a->out +
                                         fkv_cuda_stacked_at(a, tile->item, tile->first + stacked) +
                                         lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *(float2 *)(to + 8 * n) =
                    make_float2(st->o[m][n][2 * h] * share, st->o[m][n][2 * h + 1] * share);
        }
}

template <typename T, int D, int M>
static __global__ void __launch_bounds__(THREADS)
    attend_prefill_kernel(struct fkv_cuda_attention a, int32_t tiles) {
    struct tile tile;
    tile.item = a.items + (int32_t)blockIdx.x % a.count;
    tile.first = (tiles - 1 - (int32_t)blockIdx.x / a.count) * WARPS * 16 * M;
    tile.m = min(tile.item->rows * tile.item->heads - tile.first, WARPS * 16 * M);
    if (tile.m <= 0) return;
    tile.row = tile.first / tile.item->heads;
    tile.last = (tile.first + tile.m - 1) / tile.item->heads;
    struct state<D, M> st;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            st.largest[m][h] = -INFINITY, st.sum[m][h] = 0;
#pragma unroll
            for (int n = 0; n < D / 8; n++) st.o[m][n][2 * h] = st.o[m][n][2 * h + 1] = 0;
        }
    /* Barriers of the first span stand between these and their readers. Rows beyond the last are
     * computed and not stored. */
    T *shared = (T *)ptx_dynamic_shared();
    int32_t *rows = (int32_t *)(shared + (WARPS * 16 * M + 2 * KEYS) * (D + 8));
    if ((int32_t)threadIdx.x < WARPS * 16 * M)
        rows[threadIdx.x] = (tile.first + (int32_t)threadIdx.x) / tile.item->heads;
    for (int32_t i = 0; i < tile.item->spans; i++)
        attend_span<T, D, M>(&a, &tile, a.spans + tile.item->span + i, shared, &st);
    store_rows<D, M>(&a, &tile, &st);
}

/* Two instances for a head_dim: with 16 and with 32 rows per warp; 32 rows of 256 channels do not
 * fit the registers. */
struct choice {
    int32_t head_dim;
    void (*bf16[2])(struct fkv_cuda_attention, int32_t);
    void (*f16[2])(struct fkv_cuda_attention, int32_t);
};
#define BOTH(T, D)                                                                                 \
    { attend_prefill_kernel<T, D, 1>, attend_prefill_kernel<T, D, 2> }
static const struct choice choices[] = {
    {64, BOTH(__nv_bfloat16, 64), BOTH(__half, 64)},
    {80, BOTH(__nv_bfloat16, 80), BOTH(__half, 80)},
    {96, BOTH(__nv_bfloat16, 96), BOTH(__half, 96)},
    {128, BOTH(__nv_bfloat16, 128), BOTH(__half, 128)},
    {256,
     {attend_prefill_kernel<__nv_bfloat16, 256, 1>, NULL},
     {attend_prefill_kernel<__half, 256, 1>, NULL}},
};

static const struct choice *find(int32_t head_dim) {
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].head_dim == head_dim) return &choices[i];
    return NULL;
}

static size_t shared_bytes(int32_t rows, int32_t head_dim) {
    return (size_t)(rows + 2 * KEYS) * (size_t)(head_dim + 8) * 2 + (size_t)rows * sizeof(int32_t);
}

bool fkv_cuda_prefill_takes(const struct fkv_backend *b, int32_t head_dim, enum fkv_dtype dtype) {
    return dtype != FKV_F32 && find(head_dim) &&
           shared_bytes(WARPS * 16, head_dim) <= b->shared_limit;
}

int fkv_cuda_attend_prefill(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                            int32_t stacked, struct fkv_error *err) {
    const struct choice *choice = find(a->head_dim);
    /* The larger tile halves the traffic through shared memory, if there are enough of them to give
     * every multiprocessor two. */
    int32_t large = WARPS * 32, blocks = (stacked + large - 1) / large * a->count;
    int wide = choice->bf16[1] && stacked > large / 2 && blocks >= 2 * b->multiprocessors &&
               shared_bytes(large, a->head_dim) <= b->shared_limit;
    int32_t rows = wide ? large : large / 2, tiles = (stacked + rows - 1) / rows;
    return fkv_cuda_launch(b, "attention",
                           a->cache.dtype == FKV_BF16 ? choice->bf16[wide] : choice->f16[wide],
                           dim3((unsigned)(tiles * a->count)), dim3(THREADS),
                           shared_bytes(rows, a->head_dim), err, *a, tiles);
}
