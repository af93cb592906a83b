/* The attention that rows pay to slots, in float32. Two kernels: the largest score and the sum of
 * weights of every query, then, of every slot, the weights of all queries, added up in their order
 * by one thread. So no two threads add to a number, and the sum does not depend on timing.
 *
 * Plain: every thread reads whole keys by itself. A policy asks for few rows (the last 32 of a
 * block), and what it costs beside a prefill is small; H2O's policy asks for all of them and pays
 * about what attention does without tensor cores. */
#include "kernels/cuda/attend.cuh"

#include <ptx/exp2.cuh>
#include <ptx/shared.cuh>

enum { THREADS = 128 };

/* Stacked row m of an item for a span -> q [head_dim] in shared memory, rotated and scaled. Holds
 * the block's threads together. */
static __device__ void load_query(const struct fkv_cuda_attention *a,
                                  const struct fkv_attend_item *item, int32_t m,
                                  const struct fkv_span *span, float *q) {
    const int half = a->head_dim / 2;
    const float *from = a->q + fkv_cuda_stacked_at(a, item, m);
    __syncthreads(); /* the query before has been read */
    for (int c = (int)threadIdx.x; c < half; c += THREADS) {
        float cosine, sine;
        fkv_cuda_turn(span->position + (span->fixed ? 0 : m / item->heads), a->inv_freq[c], &cosine,
                      &sine);
        q[c] = a->scale * (from[c] * cosine - from[c + half] * sine);
        q[c + half] = a->scale * (from[c + half] * cosine + from[c] * sine);
    }
    __syncthreads();
}

/* The score of a slot, times log2 e. */
template <typename T>
static __device__ float score(const struct fkv_cuda_attention *a,
                              const struct fkv_attend_item *item, int32_t slot, const float *q) {
    const size_t at = (size_t)item->cache_head * (size_t)a->cache.capacity + (size_t)slot;
    const T *key = (const T *)a->cache.key + at * (size_t)a->head_dim;
    const float *bias = fkv_cuda_biases(a, item->cache_head);
    float sum = 0;
    for (int c = 0; c < a->head_dim; c++) sum = fmaf(q[c], fkv_cuda_to_float(key[c]), sum);
    sum = fkv_cuda_capped(sum, a->cap);
    return bias ? fmaf(FKV_CUDA_LOG2_E, bias[slot], sum) : sum;
}

/* Where the two numbers of a stacked row are in softmax [rows, heads, 2]. */
static __device__ size_t softmax_at(const struct fkv_cuda_attention *a,
                                    const struct fkv_attend_item *item, int32_t m) {
    return fkv_cuda_stacked_at(a, item, m) / (size_t)a->head_dim * 2;
}

/* Block (item, stacked row) -> its largest score and sum of weights. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    softmax_kernel(struct fkv_cuda_attention a, float *softmax) {
    const struct fkv_attend_item *item = a.items + (int32_t)blockIdx.x % a.count;
    const int32_t m = (int32_t)blockIdx.x / a.count;
    float *q = (float *)ptx_dynamic_shared(), largest = -INFINITY, sum = 0;
    if (m >= item->rows * item->heads) return;
    for (int32_t i = 0; i < item->spans; i++) {
        const struct fkv_span *span = a.spans + item->span + i;
        int32_t low, high;
        fkv_cuda_seen(span, m / item->heads, m / item->heads, &low, &high);
        load_query(&a, item, m, span, q);
        for (int32_t slot = low + (int32_t)threadIdx.x; slot < high; slot += THREADS) {
            const float s = score<T>(&a, item, slot, q), top = fmaxf(largest, s);
            sum = sum * ptx_exp2(largest - fkv_cuda_pivot(top)) + ptx_exp2(s - fkv_cuda_pivot(top));
            largest = top;
        }
    }
    const float top = fkv_cuda_block_max(largest);
    sum = fkv_cuda_block_sum(sum * ptx_exp2(largest - fkv_cuda_pivot(top)));
    if (threadIdx.x) return;
    softmax[softmax_at(&a, item, m)] = top;
    softmax[softmax_at(&a, item, m) + 1] = sum;
}

/* Block (item, THREADS slots): each thread adds what all queries pay to its slot. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    paid_kernel(struct fkv_cuda_attention a, const float *softmax, float *paid) {
    const struct fkv_attend_item *item = a.items + (int32_t)blockIdx.x % a.count;
    const int32_t slot = (int32_t)blockIdx.x / a.count * THREADS + (int32_t)threadIdx.x;
    float *q = (float *)ptx_dynamic_shared(), sum = 0;
    for (int32_t m = 0; m < item->rows * item->heads; m++) {
        const float *row = softmax + softmax_at(&a, item, m);
        for (int32_t i = 0; i < item->spans; i++) {
            const struct fkv_span *span = a.spans + item->span + i;
            int32_t low, high;
            fkv_cuda_seen(span, m / item->heads, m / item->heads, &low, &high);
            load_query(&a, item, m, span, q);
            if (slot < low || slot >= high) continue;
            sum += ptx_exp2(score<T>(&a, item, slot, q) - row[0]) / row[1];
        }
    }
    if (sum > 0)
        paid[(size_t)item->cache_head * (size_t)a.cache.capacity + (size_t)slot] +=
            sum / (float)item->heads;
}

size_t fkv_cuda_attention_paid_scratch(const struct fkv_limits *limits) {
    return 2 * sizeof(float) * (size_t)limits->rows * (size_t)limits->attention.heads;
}

int fkv_cuda_attention_paid(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                            const struct fkv_buffer *q, const struct fkv_cache *cache,
                            const struct fkv_span *spans, const struct fkv_attend_item *items,
                            int32_t count, struct fkv_buffer *paid, size_t paid_offset,
                            struct fkv_error *err) {
    struct fkv_cuda_attention a;
    int32_t stacked;
    if (fkv_cuda_attention_of(b, shape, q, cache, spans, items, count, &a, &stacked, err))
        return FKV_FAILED;
    if (!stacked) return FKV_OK;
    float *softmax = (float *)b->scratch;
    const size_t shared = (size_t)a.head_dim * sizeof(float);
    const int32_t tiles = (cache->capacity + THREADS - 1) / THREADS;
    if (fkv_cuda_launch(b, "attention paid",
                        fkv_cuda_pick(cache->dtype, softmax_kernel<float>, softmax_kernel<__half>,
                                      softmax_kernel<__nv_bfloat16>),
                        dim3((unsigned)(stacked * count)), dim3(THREADS), shared, err, a, softmax))
        return FKV_FAILED;
    return fkv_cuda_launch(b, "attention paid",
                           fkv_cuda_pick(cache->dtype, paid_kernel<float>, paid_kernel<__half>,
                                         paid_kernel<__nv_bfloat16>),
                           dim3((unsigned)(tiles * count)), dim3(THREADS), shared, err, a,
                           (const float *)softmax, (float *)(paid->data + paid_offset));
}
