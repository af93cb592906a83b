/* Attention in float32 without tensor cores: the way for --compute f32, for float32 caches, and for
 * head dimensions that the other two do not take (any even one up to 512). Nothing here is tuned
 * beyond the tiling; attend_prefill.cu is the fast way.
 *
 * Shape. A block of 16 x 16 threads has TILE stacked rows (attend.cuh) of an item and goes through
 * its spans TILE slots at a time with a running softmax. Thread (y, x) has rows y, y + 16, .. and
 * slots or channels x, x + 16, ..; the 16 threads of a row are half a warp. Shared memory holds the
 * rotated queries, one tile that is first K and then V, and the weights, all in float32, each row
 * one element longer than head_dim so that 16 rows are in 16 banks.
 *
 * A head_dim beyond 128 takes tiles of 16 x 16, for the largest of 512 must fit the 99 KiB that
 * some GPUs give a block.
 *
 * Figures (arithmetic). 64 x 64: 16 fused multiply-adds per 8 reads of shared memory in Q K^T, 32
 * per 12 in P V; shared memory is the limit, at about a quarter of the float32 peak of 67 TFLOP/s.
 */
#include "kernels/cuda/attend.cuh"

#include <ptx/exp2.cuh>
#include <ptx/shared.cuh>

enum { SIDE = 16, THREADS = SIDE * SIDE, LARGEST_HEAD_DIM = 512 };

/* A block's stacked rows [first, first+m) of the item, of rows row..last of it. */
struct tile {
    const struct fkv_attend_item *item;
    int32_t first, m, row, last;
};

/* What a thread has of its rows. OUT channels. */
template <int EACH, int OUT> struct state { float o[EACH][OUT], largest[EACH], sum[EACH]; };

/* Queries -> q [m, head_dim + 1], rotated and scaled. */
static __device__ void load_queries(const struct fkv_cuda_attention *a, const struct tile *tile,
                                    const struct fkv_span *span, float *q) {
    int half = a->head_dim / 2;
    for (int i = (int)threadIdx.x; i < tile->m * half; i += THREADS) {
        int m = i / half, c = i % half;
        float cosine, sine;
        fkv_cuda_turn(span->position + (span->fixed ? 0 : (tile->first + m) / tile->item->heads),
                      a->inv_freq[c], &cosine, &sine);
        const float *from = a->q + fkv_cuda_stacked_at(a, tile->item, tile->first + m) + c;
        float *to = q + m * (a->head_dim + 1) + c;
        to[0] = a->scale * (from[0] * cosine - from[half] * sine);
        to[half] = a->scale * (from[half] * cosine + from[0] * sine);
    }
}

/* Slots from [valid, head_dim] -> to [TILE, head_dim + 1]; zeros beyond, for their weight is 0. */
template <typename T, int TILE>
static __device__ void load_tile(const struct fkv_cuda_attention *a, const T *from, int32_t valid,
                                 float *to) {
    for (int i = (int)threadIdx.x; i < TILE * a->head_dim; i += THREADS) {
        int slot = i / a->head_dim, c = i % a->head_dim;
        to[slot * (a->head_dim + 1) + c] = slot < valid ? fkv_cuda_to_float(from[i]) : 0;
    }
}

/* Scores of this thread's rows and slots. */
template <int EACH>
__device__ inline void score_tile(const float *q, const float *key, int head_dim,
                                  float s[EACH][EACH]) {
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE, stride = head_dim + 1;
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) s[i][j] = 0;
    for (int c = 0; c < head_dim; c++) {
        float left[EACH], right[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            left[i] = q[(y + SIDE * i) * stride + c];
            right[i] = key[(x + SIDE * i) * stride + c];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) s[i][j] = fmaf(left[i], right[j], s[i][j]);
    }
}

/* Scores -> weights [TILE, TILE + 1], what a row has scaled to its new largest score. */
template <int EACH, int OUT>
__device__ inline void soften_tile(const struct tile *tile, const struct fkv_span *span,
                                   int32_t slot, float cap, const float *bias, float s[EACH][EACH],
                                   float *weights, struct state<EACH, OUT> *st) {
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int32_t row = (tile->first + y + SIDE * i) / tile->item->heads, low, high;
        fkv_cuda_seen(span, row, row, &low, &high);
        float top = st->largest[i], sum = 0;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int32_t at = slot + x + SIDE * j;
            s[i][j] = at < low || at >= high ? -INFINITY : fkv_cuda_capped(s[i][j], cap);
            if (bias && at >= low && at < high) s[i][j] = fmaf(FKV_CUDA_LOG2_E, bias[at], s[i][j]);
            top = fmaxf(top, s[i][j]);
        }
#pragma unroll
        for (int lanes = SIDE / 2; lanes; lanes /= 2)
            top = fmaxf(top, __shfl_xor_sync(FKV_CUDA_ALL_LANES, top, lanes));
        float pivot = fkv_cuda_pivot(top), shrink = ptx_exp2(st->largest[i] - pivot);
        st->largest[i] = top;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            float weight = ptx_exp2(s[i][j] - pivot);
            weights[(y + SIDE * i) * (SIDE * EACH + 1) + x + SIDE * j] = weight;
            sum += weight;
        }
        st->sum[i] = st->sum[i] * shrink + sum;
#pragma unroll
        for (int c = 0; c < OUT; c++) st->o[i][c] *= shrink;
    }
}

template <int EACH, int OUT>
__device__ inline void add_values(const float *weights, const float *value, int head_dim,
                                  struct state<EACH, OUT> *st) {
    int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    for (int slot = 0; slot < SIDE * EACH; slot++) {
        float weight[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            weight[i] = weights[(y + SIDE * i) * (SIDE * EACH + 1) + slot];
#pragma unroll
        for (int c = 0; c < OUT; c++)
            if (x + SIDE * c < head_dim) {
                float v = value[slot * (head_dim + 1) + x + SIDE * c];
#pragma unroll
                for (int i = 0; i < EACH; i++) st->o[i][c] = fmaf(weight[i], v, st->o[i][c]);
            }
    }
}

template <typename T, int EACH, int OUT>
static __global__ void __launch_bounds__(THREADS)
    attend_general_kernel(struct fkv_cuda_attention a, int32_t tiles) {
    const int TILE = SIDE * EACH;
    const int d = a.head_dim, y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    float *q = (float *)ptx_dynamic_shared(), *slots = q + TILE * (d + 1),
          *weights = slots + TILE * (d + 1);
    struct tile tile;
    tile.item = a.items + (int32_t)blockIdx.x % a.count;
    tile.first = (tiles - 1 - (int32_t)blockIdx.x / a.count) * TILE;
    tile.m = min(tile.item->rows * tile.item->heads - tile.first, TILE);
    if (tile.m <= 0) return;
    tile.row = tile.first / tile.item->heads;
    tile.last = (tile.first + tile.m - 1) / tile.item->heads;
    const size_t head = (size_t)tile.item->cache_head * (size_t)a.cache.capacity;
    const float *bias = fkv_cuda_biases(&a, tile.item->cache_head);
    struct state<EACH, OUT> st;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        st.largest[i] = -INFINITY, st.sum[i] = 0;
#pragma unroll
        for (int c = 0; c < OUT; c++) st.o[i][c] = 0;
    }
    for (int32_t i = 0; i < tile.item->spans; i++) {
        const struct fkv_span *span = a.spans + tile.item->span + i;
        int32_t low, high;
        fkv_cuda_seen(span, tile.row, tile.last, &low, &high);
        if (low < high) load_queries(&a, &tile, span, q); /* last read before the latest barriers */
        for (int32_t slot = low; slot < high; slot += TILE) {
            float s[EACH][EACH];
            size_t at = (head + (size_t)slot) * (size_t)d;
            __syncthreads(); /* the values before have been read */
            load_tile<T, TILE>(&a, (const T *)a.cache.key + at, high - slot, slots);
            __syncthreads();
            score_tile<EACH>(q, slots, d, s);
            soften_tile<EACH, OUT>(&tile, span, slot, a.cap, bias, s, weights, &st);
            __syncthreads(); /* the keys have been read, the weights are there */
            load_tile<T, TILE>(&a, (const T *)a.cache.value + at, high - slot, slots);
            __syncthreads();
            add_values<EACH, OUT>(weights, slots, d, &st);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float sum = st.sum[i];
#pragma unroll
        for (int lanes = SIDE / 2; lanes; lanes /= 2)
            sum += __shfl_xor_sync(FKV_CUDA_ALL_LANES, sum, lanes);
        if (y + SIDE * i >= tile.m) continue;
        float *out = a.out + fkv_cuda_stacked_at(&a, tile.item, tile.first + y + SIDE * i);
#pragma unroll
        for (int c = 0; c < OUT; c++)
            if (x + SIDE * c < d) out[x + SIDE * c] = st.o[i][c] / sum;
    }
}

int32_t fkv_cuda_general_head_dim(void) { return LARGEST_HEAD_DIM; }

int fkv_cuda_attend_general(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                            int32_t stacked, struct fkv_error *err) {
    typedef void kernel(struct fkv_cuda_attention, int32_t);
    bool small = a->head_dim <= 128;
    kernel *chosen =
        small ? fkv_cuda_pick<kernel>(a->cache.dtype, attend_general_kernel<float, 4, 8>,
                                      attend_general_kernel<__half, 4, 8>,
                                      attend_general_kernel<__nv_bfloat16, 4, 8>)
              : fkv_cuda_pick<kernel>(a->cache.dtype, attend_general_kernel<float, 1, 32>,
                                      attend_general_kernel<__half, 1, 32>,
                                      attend_general_kernel<__nv_bfloat16, 1, 32>);
    int32_t tile = small ? 64 : 16, tiles = (stacked + tile - 1) / tile;
    size_t shared = (size_t)tile * (size_t)(2 * (a->head_dim + 1) + tile + 1) * sizeof(float);
    return fkv_cuda_launch(b, "attention in float32", chosen, dim3((unsigned)(tiles * a->count)),
                           dim3(THREADS), shared, err, *a, tiles);
}
