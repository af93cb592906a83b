/* Rounding of cached states to the grid of cache->quant (kernels/quant.h, cache.h). What the CPU
 * does while it stores a row is done here by kernels of their own, so that a cache without a grid
 * pays nothing: append has one that takes the place of its own, compress and gather are followed by
 * one that rounds their slots in place.
 *
 * A block per row of a head's keys or values, a thread per channel; the row is in shared memory,
 * because groups of 32 channels and pairs of channels that turn together overlap. Not made for
 * speed: it measures what a grid costs a model. */
#include "kernels/cuda/device.cuh"

enum { MOST_CHANNELS = 512 };

/* What a call rounds. */
struct rounding {
    struct fkv_cuda_cache cache;
    enum fkv_quant quant;
    bool before;    /* keys before their rotation */
    int32_t rows;   /* the most of an item */
    int32_t states; /* 1: keys; 2: values, too */
    int32_t kv_heads, head_dim;
    const double *inv_freq;
};

/* Slots [slot, slot + count) of a cache head, whose first key is rotated to `position`. Of an
 * append: row `source` of [rows, kv_heads] is the first that goes there. */
struct slots {
    int32_t cache_head, slot, count;
    double position;
    size_t source;
};
static __device__ struct slots slots_of(const struct fkv_append_item *item,
                                        const struct rounding *r) {
    struct slots s = {item->cache_head, item->slot, item->rows, item->position,
                      (size_t)item->row * (size_t)r->kv_heads + (size_t)item->kv_head};
    return s;
}
static __device__ struct slots slots_of(const struct fkv_compress_item *item,
                                        const struct rounding *r) {
    struct slots s = {item->cache_head, item->slot, r->rows, item->position, 0};
    return s;
}
/* Rounded after their rotation: no position is needed. */
static __device__ struct slots slots_of(const struct fkv_gather_item *item,
                                        const struct rounding *) {
    struct slots s = {item->cache_head, item->slot, item->shift != 0 ? item->count : 0, 0, 0};
    return s;
}

/* x [head_dim] turned by an angle, in place; all threads of the block. */
static __device__ void turn(const struct rounding *r, double position, float *x) {
    const int c = (int)threadIdx.x, half = r->head_dim / 2;
    if (c < half) {
        float cosine, sine, low = x[c], high = x[c + half];
        fkv_cuda_turn(position, r->inv_freq[c], &cosine, &sine);
        x[c] = low * cosine - high * sine;
        x[c + half] = high * cosine + low * sine;
    }
    __syncthreads();
}

/* x [head_dim] to the grid, in place; all threads of the block. The products must not become parts
 * of fused operations: codes are those of the CPU. */
static __device__ void round_groups(const struct rounding *r, float *x) {
    const int c = (int)threadIdx.x, d = r->head_dim, first = c / FKV_QUANT_GROUP * FKV_QUANT_GROUP;
    float largest = 0, y = 0;
    if (c < d) {
        for (int i = first; i < d && i < first + FKV_QUANT_GROUP; i++)
            if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
        const float step = r->quant == FKV_QUANT_Q8 ? fabsf(largest) / 127 : largest / -8,
                    scale = __half2float(__float2half_rn(step)),
                    inverse = scale != 0 ? 1 / step : 0, ratio = __fmul_rn(x[c], inverse);
        float code = r->quant == FKV_QUANT_Q8 ? roundf(ratio) : floorf(ratio + 8.5f) - 8;
        if (r->quant == FKV_QUANT_Q4 && code > 7) code = 7;
        y = __fmul_rn(scale, code);
    }
    __syncthreads();
    if (c < d) x[c] = y;
    __syncthreads();
}

/* Rows come from k and v, not rotated; where those are NULL, from the cache, rotated. */
template <typename T, typename Item>
static __global__ void __launch_bounds__(MOST_CHANNELS)
    round_kernel(struct rounding r, const Item *items, const float *k, const float *v) {
    __shared__ float x[MOST_CHANNELS];
    const uint32_t block = blockIdx.x / (uint32_t)r.rows;
    const int c = (int)threadIdx.x, row = (int)(blockIdx.x % (uint32_t)r.rows);
    const bool key = block % (uint32_t)r.states == 0;
    const struct slots s = slots_of(items + block / (uint32_t)r.states, &r);
    if (row >= s.count) return;
    const size_t d = (size_t)r.head_dim, from = (s.source + (size_t)row * (size_t)r.kv_heads) * d;
    const double position = s.position + row;
    T *to = (T *)(key ? r.cache.key : r.cache.value) +
            ((size_t)s.cache_head * (size_t)r.cache.capacity + (size_t)(s.slot + row)) * d;
    if (c < r.head_dim) x[c] = k ? (key ? k : v)[from + (size_t)c] : fkv_cuda_to_float(to[c]);
    __syncthreads();
    if (key && r.before == (k == NULL)) turn(&r, k ? position : -position, x);
    round_groups(&r, x);
    if (key && r.before) turn(&r, position, x);
    if (c < r.head_dim) to[c] = fkv_cuda_from_float<T>(x[c]);
}

template <typename Item>
static int round_items(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                       const struct fkv_cache *cache, const Item *items, int32_t count,
                       int32_t rows, int32_t states, const double *inv_freq,
                       const struct fkv_buffer *k, const struct fkv_buffer *v,
                       struct fkv_error *err) {
    const struct rounding r = {
        fkv_cuda_cache(cache), cache->quant, cache->quant_before, rows, states, shape->kv_heads,
        shape->head_dim,       inv_freq};
    const unsigned threads =
        (unsigned)((shape->head_dim + FKV_CUDA_WARP - 1) / FKV_CUDA_WARP * FKV_CUDA_WARP);
    if (threads > MOST_CHANNELS)
        return fkv_fail(err, "quantised cache: expected heads of at most %d channels, found %d",
                        MOST_CHANNELS, shape->head_dim);
    return fkv_cuda_launch(
        b, "rounding of cached states",
        fkv_cuda_pick(cache->dtype, round_kernel<float, Item>, round_kernel<__half, Item>,
                      round_kernel<__nv_bfloat16, Item>),
        dim3((unsigned)count * (unsigned)states * (unsigned)rows), dim3(threads), 0, err, r, items,
        k ? (const float *)k->data : NULL, v ? (const float *)v->data : NULL);
}

int fkv_cuda_append_rounded(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_buffer *k, const struct fkv_buffer *v,
                            const struct fkv_cache *cache, const struct fkv_append_item *items,
                            int32_t count, int32_t rows, const double *inv_freq,
                            struct fkv_error *err) {
    return round_items(b, shape, cache, items, count, rows, 2, inv_freq, k, v, err);
}

int fkv_cuda_round_compressed(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                              const struct fkv_cache *cache, const struct fkv_compress_item *items,
                              int32_t count, int32_t retained, const double *inv_freq,
                              struct fkv_error *err) {
    return round_items(b, shape, cache, items, count, retained, 2, inv_freq, NULL, NULL, err);
}

int fkv_cuda_round_gathered(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_cache *cache, const struct fkv_gather_item *items,
                            int32_t count, int32_t slots, struct fkv_error *err) {
    return round_items(b, shape, cache, items, count, slots, 1, NULL, NULL, NULL, err);
}
