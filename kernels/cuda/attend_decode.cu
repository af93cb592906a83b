/* Attention of few query rows (decoding), in float32: memory alone limits it, so the cache is split
 * among enough blocks to fill the GPU at batch 1 (Flash-Decoding; Dao et al. 2023), and every key
 * and value is read once for all query heads that share it. Takes caches of every dtype with a
 * head_dim that is a multiple of 8, up to 256, and up to FEW stacked rows (attend.cuh) per item.
 *
 * Shape. A block is a split of one item's slots and up to 8 stacked rows. How many splits there are
 * depends on counts alone, because a recorded step must fit every length: the spans are on the
 * device, a block adds up the slots they show to its item and takes its share; a share may be
 * empty. Eight channels of a slot belong to a lane, so 8, 16 or 32 lanes make a slot, and each such
 * group of lanes has a running softmax of its own over every so many slots: nothing is exchanged
 * but the dot products until the block is through. Keys and values come through shared memory
 * (cp.async), each lane copying what it alone will read: no barriers, and the first loads are on
 * their way before the queries are rotated. At the end the groups' states are merged in order,
 * then, by a second kernel, those of the splits: the same call gives the same bits. With enough
 * items for one split each, the first kernel writes the result itself.
 *
 * Figures (arithmetic; to be measured). Bytes: 2 head_dim elements per slot and KV head; 4096
 * slots, 32 KV heads, head_dim 128, 16 bits: 67 MB, 14 us at 4.8 TB/s. 32 KiB on their way per
 * block, and four, three (4 rows) or two (8 rows) blocks per multiprocessor by registers: two to
 * four times what latency times bandwidth asks for. Two and three rows run as four, which memory
 * still limits. FLOP: 4 per element and stacked row, so 8 rows need 19 TFLOP/s of float32 at that
 * bandwidth, a third of the peak. Instructions are nearer: with every other one counted
 * (conversion, log2(lanes) shuffles per row and slot, weights) 1 row takes about two fifths of the
 * issue slots at full bandwidth, 4 rows four fifths, and 8 rows more than there are. Tensor cores
 * (16 rows, most of them empty) would be the next step for groups of 4 and more. The last block of
 * an item merging the splits (by a counter) would save the second launch, and needs counters that
 * are zero; not done.
 */
#include "kernels/cuda/attend.cuh"

#include <ptx/exp2.cuh>
#include <ptx/shared.cuh>

enum { THREADS = 128, CHANNELS = 8, STAGES = 2, DEEP = 4, MOST_SPLITS = 128 };

/* Blocks that a multiprocessor holds at once, by registers. */
static constexpr int32_t blocks_at_once(int32_t rows) { return rows < 4 ? 4 : rows < 8 ? 3 : 2; }

/* Scores and values of stacked rows [0, M) as one lane has them. */
template <int M> struct state { float o[M][CHANNELS], largest[M], sum[M]; };

/* Slots [first, end) of a span, and its limits where rows see different slots of it. */
struct piece {
    int32_t first, end, from, until;
    bool limited;
};

/* Where this lane's copies of the keys (0) or values (1) of its slot number `deep` of a stage are.
 */
template <typename T> __device__ inline T *own(char *ring, int stage, int deep, int value) {
    return (T *)ring +
           (((size_t)(stage * DEEP + deep) * 2 + (size_t)value) * THREADS + threadIdx.x) * CHANNELS;
}

/* Group g of lanes has slots first + g, first + g + groups, ... */
template <int LANES>
__device__ inline int32_t own_slot(const struct piece *p, int32_t step, int deep) {
    const int groups = THREADS / LANES;
    return p->first + (step * DEEP + deep) * groups + (int32_t)threadIdx.x / LANES;
}

template <typename T, int LANES>
__device__ inline void copy_step(const struct fkv_cuda_attention *a, const struct piece *p,
                                 int32_t cache_head, int32_t step, char *ring) {
    const int vectors = CHANNELS * (int)sizeof(T) / 16;
    int channel = (int)threadIdx.x % LANES * CHANNELS;
    size_t head = (size_t)cache_head * (size_t)a->cache.capacity;
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
        int32_t slot = own_slot<LANES>(p, step, deep);
        bool valid = slot < p->end && channel < a->head_dim;
        size_t at = valid ? (head + (size_t)slot) * (size_t)a->head_dim + (size_t)channel : 0;
        char *key = (char *)own<T>(ring, step % STAGES, deep, 0),
             *value = (char *)own<T>(ring, step % STAGES, deep, 1);
#pragma unroll
        for (int i = 0; i < vectors; i++) {
            ptx_copy_async(key + 16 * i, a->cache.key + at * sizeof(T) + 16 * i, valid);
            ptx_copy_async(value + 16 * i, a->cache.value + at * sizeof(T) + 16 * i, valid);
        }
    }
    ptx_copy_commit();
}

/* Queries of stacked rows first .. first + M -> turned [M, LANES * CHANNELS], rotated and scaled;
 * zeros where there is none. */
template <int LANES, int M>
__device__ inline void turn_queries(const struct fkv_cuda_attention *a,
                                    const struct fkv_attend_item *item, int32_t first,
                                    const struct fkv_span *span, float *turned) {
    const int wide = LANES * CHANNELS, half = a->head_dim / 2;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < M * wide / 2; i += THREADS) {
        int m = i / (wide / 2), c = i % (wide / 2);
        float *to = turned + m * wide;
        if (c < half && first + m < item->rows * item->heads) {
            float cosine, sine;
            const float *q = a->q + fkv_cuda_stacked_at(a, item, first + m) + c;
            fkv_cuda_turn(span->position + (span->fixed ? 0 : (first + m) / item->heads),
                          a->inv_freq[c], &cosine, &sine);
            to[c] = a->scale * (q[0] * cosine - q[half] * sine);
            to[c + half] = a->scale * (q[half] * cosine + q[0] * sine);
        } else if (c < half) {
            to[c] = to[c + half] = 0;
        } else { /* channels that pad head_dim to whole groups of lanes */
            to[2 * c] = to[2 * c + 1] = 0;
        }
    }
}

/* One step: DEEP slots of every group of lanes. */
template <typename T, int LANES, int M>
__device__ inline void attend_step(const struct piece *p, float cap, const float *bias,
                                   const float q[M][CHANNELS], const int32_t row[M], int32_t step,
                                   char *ring, struct state<M> *st) {
    float s[M][DEEP];
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
        float key[CHANNELS];
        fkv_cuda_load8(own<T>(ring, step % STAGES, deep, 0), key);
        int32_t slot = own_slot<LANES>(p, step, deep);
#pragma unroll
        for (int m = 0; m < M; m++) {
            float dot = 0;
#pragma unroll
            for (int i = 0; i < CHANNELS; i++) dot = fmaf(q[m][i], key[i], dot);
#pragma unroll
            for (int lanes = LANES / 2; lanes; lanes /= 2)
                dot += __shfl_xor_sync(FKV_CUDA_ALL_LANES, dot, lanes);
            s[m][deep] = slot < p->end ? fkv_cuda_capped(dot, cap) : -INFINITY;
        }
        if (bias && slot < p->end) {
            float added = FKV_CUDA_LOG2_E * bias[slot];
#pragma unroll
            for (int m = 0; m < M; m++) s[m][deep] += added;
        }
        if (p->limited)
#pragma unroll
            for (int m = 0; m < M; m++)
                if (slot < p->from + row[m] || slot >= p->until + row[m]) s[m][deep] = -INFINITY;
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        float top = st->largest[m];
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++) top = fmaxf(top, s[m][deep]);
        float pivot = fkv_cuda_pivot(top), shrink = ptx_exp2(st->largest[m] - pivot);
        st->largest[m] = top;
        st->sum[m] *= shrink;
#pragma unroll
        for (int i = 0; i < CHANNELS; i++) st->o[m][i] *= shrink;
#pragma unroll
        for (int deep = 0; deep < DEEP; deep++)
            st->sum[m] += s[m][deep] = ptx_exp2(s[m][deep] - pivot);
    }
#pragma unroll
    for (int deep = 0; deep < DEEP; deep++) {
        float value[CHANNELS];
        fkv_cuda_load8(own<T>(ring, step % STAGES, deep, 1), value);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < CHANNELS; i++)
                st->o[m][i] = fmaf(s[m][deep], value[i], st->o[m][i]);
    }
}

template <typename T, int LANES, int M>
__device__ inline void attend_piece(const struct fkv_cuda_attention *a,
                                    const struct fkv_attend_item *item, int32_t first,
                                    const struct fkv_span *span, const struct piece *p,
                                    float *turned, char *ring, struct state<M> *st) {
    const int groups = THREADS / LANES, lane = (int)threadIdx.x % LANES;
    const float *bias = fkv_cuda_biases(a, item->cache_head);
    int32_t steps = (p->end - p->first + groups * DEEP - 1) / (groups * DEEP);
    for (int32_t step = 0; step < STAGES; step++)
        copy_step<T, LANES>(a, p, item->cache_head, step, ring);
    __syncthreads(); /* the piece before this one has read its queries */
    turn_queries<LANES, M>(a, item, first, span, turned);
    __syncthreads();
    float q[M][CHANNELS];
    int32_t row[M];
#pragma unroll
    for (int m = 0; m < M; m++) {
        row[m] = (first + m) / item->heads;
        fkv_cuda_load8(turned + (m * LANES + lane) * CHANNELS, q[m]);
    }
#pragma unroll 1
    for (int32_t step = 0; step < steps; step++) {
        ptx_copy_wait<STAGES - 1>(); /* of this lane's own copies, which no other lane reads */
        attend_step<T, LANES, M>(p, a->cap, bias, q, row, step, ring, st);
        copy_step<T, LANES>(a, p, item->cache_head, step + STAGES, ring);
    }
    ptx_copy_wait<0>();
}

/* The states of the groups of lanes -> to [M, head_dim] weighted sums, then M largest scores, then
 * M sums; or, with `out`, the result in place. */
template <int LANES, int M>
__device__ inline void merge_groups(const struct fkv_cuda_attention *a,
                                    const struct fkv_attend_item *item, int32_t first,
                                    const struct state<M> *st, float *shared, float *partial) {
    const int groups = THREADS / LANES, wide = LANES * CHANNELS;
    __shared__ float largest[groups][M], sum[groups][M];
    int group = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
#pragma unroll
    for (int m = 0; m < M; m++)
        if (lane == 0) largest[group][m] = st->largest[m];
    __syncthreads(); /* and the ring is free */
#pragma unroll
    for (int m = 0; m < M; m++) {
        float top = largest[0][m];
        for (int g = 1; g < groups; g++) top = fmaxf(top, largest[g][m]);
        float shrink = ptx_exp2(st->largest[m] - fkv_cuda_pivot(top));
        if (lane == 0) sum[group][m] = st->sum[m] * shrink;
#pragma unroll
        for (int i = 0; i < CHANNELS; i++)
            shared[(group * M + m) * wide + lane * CHANNELS + i] = st->o[m][i] * shrink;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < M * a->head_dim; i += THREADS) {
        int m = i / a->head_dim, c = i % a->head_dim;
        float o = 0, total = 0, top = -INFINITY;
        for (int g = 0; g < groups; g++) {
            o += shared[(g * M + m) * wide + c];
            total += sum[g][m];
            top = fmaxf(top, largest[g][m]);
        }
        if (partial) {
            partial[i] = o;
            if (c == 0)
                partial[M * a->head_dim + m] = top, partial[M * a->head_dim + M + m] = total;
        } else if (first + m < item->rows * item->heads) {
            a->out[fkv_cuda_stacked_at(a, item, first + m) + (size_t)c] = o / total;
        }
    }
}

/* Of the slots that the item's spans show, in order: the share of split number `split`. */
template <typename T, int LANES, int M>
static __global__ void __launch_bounds__(THREADS, blocks_at_once(M))
    attend_decode_kernel(struct fkv_cuda_attention a, int32_t chunks, int32_t splits,
                         float *partial) {
    __shared__ __align__(16) float turned[M * LANES * CHANNELS];
    char *ring = ptx_dynamic_shared();
    int32_t unit = (int32_t)blockIdx.x, chunk = unit % chunks, split = unit / chunks % splits;
    const struct fkv_attend_item *item = a.items + unit / chunks / splits;
    if (chunk * M >= item->rows * item->heads) return;
    struct state<M> st;
#pragma unroll
    for (int m = 0; m < M; m++) {
        st.largest[m] = -INFINITY, st.sum[m] = 0;
#pragma unroll
        for (int i = 0; i < CHANNELS; i++) st.o[m][i] = 0;
    }
    int64_t total = 0, passed = 0;
    for (int32_t i = 0; i < item->spans; i++) {
        int32_t low, high;
        fkv_cuda_seen(a.spans + item->span + i, 0, item->rows - 1, &low, &high);
        total += max(high - low, 0);
    }
    int64_t begin = total * split / splits, end = total * (split + 1) / splits;
    for (int32_t i = 0; i < item->spans; i++) {
        const struct fkv_span *span = a.spans + item->span + i;
        int32_t low, high;
        fkv_cuda_seen(span, 0, item->rows - 1, &low, &high);
        if (high <= low) continue;
        struct piece p = {0, 0, span->from, span->until, item->rows > 1};
        p.first = low + (int32_t)min(max(begin - passed, (int64_t)0), (int64_t)(high - low));
        p.end = low + (int32_t)min(max(end - passed, (int64_t)0), (int64_t)(high - low));
        passed += high - low;
        if (p.first < p.end)
            attend_piece<T, LANES, M>(&a, item, chunk * M, span, &p, turned, ring, &st);
    }
    if (partial) partial += (size_t)unit * (size_t)(M * (a.head_dim + 2));
    merge_groups<LANES, M>(&a, item, chunk * M, &st, (float *)ring, partial);
}

/* A block merges the splits of one stacked row; `rows` stacked rows per chunk. */
static __global__ void __launch_bounds__(THREADS)
    merge_splits_kernel(struct fkv_cuda_attention a, int32_t chunks, int32_t splits, int32_t rows,
                        const float *partial) {
    __shared__ float largest[MOST_SPLITS], weight[MOST_SPLITS], share[MOST_SPLITS];
    int32_t m = (int32_t)blockIdx.x % rows, chunk = (int32_t)blockIdx.x / rows % chunks,
            i = (int32_t)threadIdx.x;
    int32_t n = (int32_t)blockIdx.x / rows / chunks, stacked = chunk * rows + m;
    const struct fkv_attend_item *item = a.items + n;
    if (stacked >= item->rows * item->heads) return;
    size_t each = (size_t)(rows * (a.head_dim + 2)), next = each * (size_t)chunks;
    partial += ((size_t)n * (size_t)splits * (size_t)chunks + (size_t)chunk) * each;
    if (i < splits) largest[i] = partial[(size_t)i * next + (size_t)(rows * a.head_dim + m)];
    __syncthreads();
    if (i < splits) {
        float top = largest[0];
        for (int32_t s = 1; s < splits; s++) top = fmaxf(top, largest[s]);
        weight[i] = ptx_exp2(largest[i] - fkv_cuda_pivot(top));
        share[i] = weight[i] * partial[(size_t)i * next + (size_t)(rows * a.head_dim + rows + m)];
    }
    __syncthreads();
    float *out = a.out + fkv_cuda_stacked_at(&a, item, stacked), total = 0;
    for (int32_t s = 0; s < splits; s++) total += share[s];
    for (int32_t c = i; c < a.head_dim; c += THREADS) {
        float o = 0;
#pragma unroll 16
        for (int32_t s = 0; s < splits; s++)
            o = fmaf(weight[s], partial[(size_t)s * next + (size_t)(m * a.head_dim + c)], o);
        out[c] = o / total;
    }
}

/* ---- the launch ---- */
typedef void decode_kernel(struct fkv_cuda_attention, int32_t, int32_t, float *);

template <int LANES, int M> static decode_kernel *pick_dtype(enum fkv_dtype dtype) {
    return fkv_cuda_pick<decode_kernel>(dtype, attend_decode_kernel<float, LANES, M>,
                                        attend_decode_kernel<__half, LANES, M>,
                                        attend_decode_kernel<__nv_bfloat16, LANES, M>);
}

template <int M> static decode_kernel *pick(const struct fkv_cuda_attention *a) {
    return a->head_dim <= 64    ? pick_dtype<8, M>(a->cache.dtype)
           : a->head_dim <= 128 ? pick_dtype<16, M>(a->cache.dtype)
                                : pick_dtype<32, M>(a->cache.dtype);
}

bool fkv_cuda_decode_takes(int32_t head_dim) {
    return head_dim % CHANNELS == 0 && head_dim <= 32 * CHANNELS;
}

/* Splits occur where there are fewer items than blocks that run at once; those times their rows are
 * the most with 8. */
size_t fkv_cuda_decode_scratch(const struct fkv_backend *b, const struct fkv_limits *limits) {
    return (size_t)(blocks_at_once(8) * b->multiprocessors) * 8 *
           (size_t)(limits->attention.head_dim + 2) * sizeof(float);
}

int fkv_cuda_attend_decode(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                           int32_t stacked, struct fkv_error *err) {
    int32_t rows = stacked == 1 ? 1 : stacked <= 4 ? 4 : 8, chunks = (stacked + rows - 1) / rows;
    int32_t splits = min(blocks_at_once(rows) * b->multiprocessors / (a->count * chunks),
                         min(a->cache.capacity / 64 + 1, (int32_t)MOST_SPLITS));
    if (splits < 2) splits = 1;
    decode_kernel *kernel = rows == 1 ? pick<1>(a) : rows == 4 ? pick<4>(a) : pick<8>(a);
    size_t element = fkv_dtype_bytes(a->cache.dtype),
           ring = STAGES * DEEP * 2 * THREADS * CHANNELS * element,
           states = (size_t)THREADS * CHANNELS * (size_t)rows * sizeof(float);
    float *partial = splits > 1 ? (float *)b->scratch : NULL;
    unsigned units = (unsigned)(a->count * chunks);
    if (fkv_cuda_launch(b, "attention of few rows", kernel, dim3(units * (unsigned)splits),
                        dim3(THREADS), ring > states ? ring : states, err, *a, chunks, splits,
                        partial))
        return FKV_FAILED;
    if (!partial) return FKV_OK;
    return fkv_cuda_launch(b, "attention, merging", merge_splits_kernel,
                           dim3(units * (unsigned)rows), dim3(THREADS), 0, err, *a, chunks, splits,
                           rows, (const float *)partial);
}
