/* Writing keys and values into the cache (append) and moving them inside it (gather).
 *
 * A 16-bit key is rounded once, after its rotation in float32. gather runs through a head's slots
 * in ascending order, which is safe in place because from[j] >= slot + j: what is at slot + j was
 * already moved or is not wanted. Energies are summed in double, before anything moves. */
#include "kernels/cpu/cpu.h"

/* Stores key [d] turned by the angles, and value [d], in a cache with a `quant`. turned [d] and
 * scratch [d] are overwritten; `turn` may be in scratch. */
static void store_rounded(const struct fkv_simd *simd, const struct fkv_cache *cache,
                          const float *key, const float *value, const float *turn, int32_t half,
                          int32_t d, float *turned, float *scratch, char *key_to, char *value_to) {
    const size_t count = (size_t)d;
    if (cache->quant_before) {
        fkv_quant_round(cache->quant, key, count, turned);
        simd->turn(turned, turn, half, d, turned);
    } else {
        simd->turn(key, turn, half, d, turned);
        fkv_quant_round(cache->quant, turned, count, turned);
    }
    fkv_from_f32(turned, cache->dtype, count, key_to);
    fkv_quant_round(cache->quant, value, count, scratch);
    fkv_from_f32(scratch, cache->dtype, count, value_to);
}

size_t fkv_cpu_cache_scratch(const struct fkv_limits *l) {
    return 2 * (size_t)l->attention.head_dim;
}

int fkv_cpu_append(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                   const struct fkv_buffer *k, const struct fkv_buffer *v,
                   const struct fkv_cache *cache, const struct fkv_append_item *items,
                   int32_t count, struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct fkv_rotation r = fkv_cpu_rotation(b, shape);
    size_t d = (size_t)shape->head_dim, stride = d * (size_t)shape->kv_heads,
           bytes = d * fkv_dtype_bytes(cache->dtype);
    int64_t operations = 0;
    for (int32_t n = 0; n < count; n++) operations += 16 * (int64_t)items[n].rows * shape->head_dim;
#pragma omp parallel for schedule(guided) num_threads(fkv_cpu_threads(b, operations))
    for (int32_t n = 0; n < count; n++) {
        const struct fkv_append_item *item = &items[n];
        size_t at = (size_t)item->row * stride + (size_t)item->kv_head * d;
        const float *key = fkv_cpu_floats(k) + at, *value = fkv_cpu_floats(v) + at;
        char *key_to =
            fkv_cpu_slot(cache->key, cache, shape->head_dim, item->cache_head, item->slot);
        char *value_to =
            fkv_cpu_slot(cache->value, cache, shape->head_dim, item->cache_head, item->slot);
        float *scratch = fkv_cpu_scratch(b), *turned = scratch + d;
        for (int32_t i = 0; i < item->rows; i++) {
            const float *turn = fkv_cpu_turn(&r, item->position + i, scratch);
            if (cache->quant) {
                store_rounded(b->simd, cache, key, value, turn, r.half, (int32_t)d, turned, scratch,
                              key_to, value_to);
            } else {
                b->simd->turn(key, turn, r.half, (int32_t)d, turned);
                fkv_from_f32(turned, cache->dtype, d, key_to);
                fkv_from_f32(value, cache->dtype, d, value_to);
            }
            key += stride, value += stride, key_to += bytes, value_to += bytes;
        }
    }
    return FKV_OK;
}

/* Moves the slots of one item; `turn` (or NULL) rotates 2 half channels of them further. */
static void move(const struct fkv_simd *simd, const struct fkv_cache *cache,
                 const struct fkv_gather_item *item, char *head, size_t d, const float *turn,
                 int32_t half, float *scratch) {
    const enum fkv_dtype dtype = cache->dtype;
    const bool rounds = cache->quant && !cache->quant_before;
    size_t bytes = d * fkv_dtype_bytes(dtype);
    for (int32_t j = 0; j < item->count; j++) {
        const char *from = head + (size_t)item->from[j] * bytes;
        char *to = head + (size_t)(item->slot + j) * bytes;
        if (turn) {
            fkv_to_f32(from, dtype, d, scratch);
            simd->turn(scratch, turn, half, (int32_t)d, scratch);
            if (rounds) fkv_quant_round(cache->quant, scratch, d, scratch);
            fkv_from_f32(scratch, dtype, d, to);
        } else if (from != to) {
            memcpy(to, from, bytes);
        }
    }
}

static void measure(const struct fkv_simd *simd, const struct fkv_gather_item *item,
                    const char *head, size_t d, enum fkv_dtype dtype, float *scratch,
                    double *before, double *kept) {
    size_t bytes = d * fkv_dtype_bytes(dtype);
    *before = *kept = 0;
    if (item->count == 0) return;
    for (int32_t s = item->slot, j = 0; s <= item->from[item->count - 1]; s++) {
        fkv_to_f32(head + (size_t)s * bytes, dtype, d, scratch);
        double energy = simd->energy(scratch, d);
        *before += energy;
        if (s == item->from[j]) *kept += energy, j++;
    }
}

int fkv_cpu_gather(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                   const struct fkv_cache *cache, const struct fkv_gather_item *items,
                   int32_t count, struct fkv_energy *energy, struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct fkv_rotation r = fkv_cpu_rotation(b, shape);
    size_t d = (size_t)shape->head_dim;
    int64_t operations = 0;
    for (int32_t n = 0; n < count; n++) operations += 4 * (int64_t)items[n].count * shape->head_dim;
#pragma omp parallel for schedule(guided) num_threads(fkv_cpu_threads(b, operations))
    for (int32_t n = 0; n < count; n++) {
        const struct fkv_gather_item *item = &items[n];
        char *key = fkv_cpu_slot(cache->key, cache, shape->head_dim, item->cache_head, 0);
        char *value = fkv_cpu_slot(cache->value, cache, shape->head_dim, item->cache_head, 0);
        float *scratch = fkv_cpu_scratch(b), *turn = scratch + d;
        if (energy) {
            measure(b->simd, item, key, d, cache->dtype, scratch, &energy[n].key_before,
                    &energy[n].key_kept);
            measure(b->simd, item, value, d, cache->dtype, scratch, &energy[n].value_before,
                    &energy[n].value_kept);
        }
        move(b->simd, cache, item, key, d,
             item->shift != 0 ? fkv_cpu_turn(&r, item->shift, turn) : NULL, r.half, scratch);
        move(b->simd, cache, item, value, d, NULL, 0, scratch);
    }
    return FKV_OK;
}
