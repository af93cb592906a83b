/* What the three ways to attend, and attention_paid.cu, share. attend.cu chooses among them. */
#ifndef FKV_KERNELS_CUDA_ATTEND_CUH
#define FKV_KERNELS_CUDA_ATTEND_CUH

#include "kernels/cuda/device.cuh"

/* A call as kernels see it. The query heads of an item read one cache head, so its queries are
 * stacked, row by row and within a row head by head, into rows * heads rows of one matrix: stacked
 * row m is query head head + m % heads of row m / heads. */
struct fkv_cuda_attention {
    const float *q; /* [.., heads, head_dim] */
    float *out;     /* [.., heads, head_dim] */
    struct fkv_cuda_cache cache;
    const struct fkv_attend_item *items; /* [count] */
    const struct fkv_span *spans;
    const double *inv_freq; /* [head_dim / 2] */
    const float *bias;      /* [cache heads, capacity], or NULL */
    int32_t count, heads, head_dim;
    float scale; /* on the scores, times log2 e: weights are powers of two; biases take LOG2_E of
                    their own */
    float cap;   /* of the scores, times log2 e; 0: none */
};

/* A call's items and spans on the device; `out` is the caller's to set. *stacked: the largest rows
 * * heads of an item; 0: there is nothing to do. */
int fkv_cuda_attention_of(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *q, const struct fkv_cache *cache,
                          const struct fkv_span *spans, const struct fkv_attend_item *items,
                          int32_t count, struct fkv_cuda_attention *a, int32_t *stacked,
                          struct fkv_error *err);

/* The largest rows * heads of an item decides the shape of a launch, and the counts with it; never
 * a span. */
int fkv_cuda_attend_prefill(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                            int32_t stacked, struct fkv_error *err);
int fkv_cuda_attend_general(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                            int32_t stacked, struct fkv_error *err);
int fkv_cuda_attend_decode(struct fkv_backend *b, const struct fkv_cuda_attention *a,
                           int32_t stacked, struct fkv_error *err);
bool fkv_cuda_prefill_takes(const struct fkv_backend *b, int32_t head_dim, enum fkv_dtype dtype);
bool fkv_cuda_decode_takes(int32_t head_dim);
int32_t fkv_cuda_general_head_dim(void); /* the largest it takes */
size_t fkv_cuda_decode_scratch(const struct fkv_backend *b, const struct fkv_limits *limits);

/* Where channel 0 of the query, and of the output, of stacked row m of an item is. */
__device__ inline size_t fkv_cuda_stacked_at(const struct fkv_cuda_attention *a,
                                             const struct fkv_attend_item *item, int32_t m) {
    size_t row = (size_t)(item->row + m / item->heads),
           head = (size_t)(item->head + m % item->heads);
    return (row * (size_t)a->heads + head) * (size_t)a->head_dim;
}

#define FKV_CUDA_LOG2_E 1.44269504f

/* A scaled score under the cap. */
__device__ inline float fkv_cuda_capped(float score, float cap) {
    return cap > 0 ? cap * tanhf(score / cap) : score;
}

/* The biases of a cache head's slots [capacity]; none: NULL. */
__device__ inline const float *fkv_cuda_biases(const struct fkv_cuda_attention *a,
                                               int32_t cache_head) {
    return a->bias ? a->bias + (size_t)cache_head * (size_t)a->cache.capacity : NULL;
}

/* Slots [*low, *high) of a span that some row of [row, last] sees. */
__device__ inline void fkv_cuda_seen(const struct fkv_span *span, int32_t row, int32_t last,
                                     int32_t *low, int32_t *high) {
    *low = max(span->first, span->from + row);
    *high = min(span->end, span->until + last);
}

/* The largest score so far -> what scores are compared with: a row that has seen nothing yet must
 * not subtract infinities. */
__device__ inline float fkv_cuda_pivot(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
}

#endif
