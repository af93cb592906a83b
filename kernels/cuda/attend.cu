/* The operation `attend`: stages items and spans and chooses how to compute (attend.cuh). The
 * choice rests on counts, dtypes and the head dimension, never on a span, so that a recorded decode
 * step stays true for every length:
 *
 *   few stacked rows per item (rows * heads <= FEW): attend_decode.cu, float32 arithmetic, the
 * cache split among blocks 16-bit cache, computing in 16 bits, usual head_dim, no cap on scores:
 * attend_prefill.cu, tensor cores, where a block has the shared memory everything else:
 * attend_general.cu, float32 arithmetic
 *
 * Refused: a head dimension beyond all of them. The contract's promises (spans that do not overlap,
 * every row sees a slot) are not checked here: the reference and the CPU do. */
#include "kernels/cuda/attend.cuh"

enum { FEW = 16 };

size_t fkv_cuda_attend_scratch(const struct fkv_backend *b, const struct fkv_limits *limits) {
    return fkv_cuda_decode_scratch(b, limits);
}

/* The 16-byte loads of the fast ways need a cache that starts on 16 bytes. */
static bool aligned(const struct fkv_cuda_cache *cache) {
    return ((uintptr_t)cache->key | (uintptr_t)cache->value) % 16 == 0;
}

int fkv_cuda_attention_of(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                          const struct fkv_buffer *q, const struct fkv_cache *cache,
                          const struct fkv_span *spans, const struct fkv_attend_item *items,
                          int32_t count, struct fkv_cuda_attention *a, int32_t *stacked,
                          struct fkv_error *err) {
    int32_t span_count = 0;
    *a = {};
    *stacked = 0;
    for (int32_t i = 0; i < count; i++) {
        *stacked = max(*stacked, items[i].rows * items[i].heads);
        span_count = max(span_count, items[i].span + items[i].spans);
    }
    if (!*stacked) return FKV_OK;
    if (shape->head_dim > fkv_cuda_general_head_dim())
        return fkv_fail(err, "attention: head_dim: expected at most %d, found %d",
                        fkv_cuda_general_head_dim(), shape->head_dim);
    a->q = (const float *)q->data;
    a->cache = fkv_cuda_cache(cache);
    a->count = count, a->heads = shape->heads, a->head_dim = shape->head_dim;
    a->scale = shape->scale * shape->gain * shape->gain * FKV_CUDA_LOG2_E;
    if (!shape->rotary)
        a->scale = shape->scale * FKV_CUDA_LOG2_E; /* the gain is of channels that turn */
    a->cap = shape->softcap * FKV_CUDA_LOG2_E;
    if (cache->bias) a->bias = (const float *)(cache->bias->data + cache->bias_offset);
    if (fkv_cuda_stage(b, items, count, &a->items, err) ||
        fkv_cuda_stage(b, spans, span_count, &a->spans, err))
        return FKV_FAILED;
    return fkv_cuda_frequencies(b, shape, &a->inv_freq, err);
}

int fkv_cuda_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                    const struct fkv_buffer *q, const struct fkv_cache *cache,
                    const struct fkv_span *spans, const struct fkv_attend_item *items,
                    int32_t count, struct fkv_buffer *out, struct fkv_error *err) {
    struct fkv_cuda_attention a;
    int32_t stacked;
    if (fkv_cuda_attention_of(b, shape, q, cache, spans, items, count, &a, &stacked, err))
        return FKV_FAILED;
    if (!stacked) return FKV_OK;
    a.out = (float *)out->data;
    if (stacked <= FEW && fkv_cuda_decode_takes(a.head_dim) && aligned(&a.cache))
        return fkv_cuda_attend_decode(b, &a, stacked, err);
    if (b->compute != FKV_COMPUTE_F32 && a.cap == 0 &&
        fkv_cuda_prefill_takes(b, a.head_dim, a.cache.dtype) && aligned(&a.cache))
        return fkv_cuda_attend_prefill(b, &a, stacked, err);
    return fkv_cuda_attend_general(b, &a, stacked, err);
}
