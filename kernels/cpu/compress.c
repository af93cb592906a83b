/* FreqKV's operator on the cache (kernels.h, map_dct and compress).
 *
 * A unit of work is the keys, or the values, of one head: n slots are converted to float32 in the
 * thread's scratch (keys un-rotated), transformed in place, the first L rows scaled and transformed
 * back, rotated to their new positions and stored, so that a 16-bit cache is rounded once. */
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/dct.h"

/* Scratch: the rotation of a row, the states, the transform's own. */
size_t fkv_cpu_compress_scratch(const struct fkv_backend *b, const struct fkv_limits *l) {
    size_t d = (size_t)l->attention.head_dim;
    return d + ((size_t)b->map_rows * d + 15) / 16 * 16 + b->map_scratch;
}

int fkv_cpu_map_dct(struct fkv_backend *b, int32_t n, int32_t retained, double gain,
                    struct fkv_map **out, struct fkv_error *err) {
    *out = NULL;
    if (retained < 1 || retained > n)
        return fkv_fail(err, "expected 1 <= L <= n, found L = %d, n = %d", retained, n);
    struct fkv_map *map = malloc(sizeof *map);
    if (!map) return fkv_fail(err, "out of memory");
    *map = (struct fkv_map){.n = n, .retained = retained, .gain = (float)gain};
    if (fkv_dct_create(n, &map->forward, err) || fkv_dct_create(retained, &map->inverse, err)) {
        fkv_cpu_map_release(b, map);
        return FKV_FAILED;
    }
    size_t scratch[] = {b->map_scratch, fkv_dct_scratch(map->forward),
                        fkv_dct_scratch(map->inverse)};
    for (int i = 0; i < 3; i++)
        if (scratch[i] > b->map_scratch) b->map_scratch = scratch[i];
    if (n > b->map_rows) b->map_rows = n;
    if (fkv_cpu_grow_scratch(b, fkv_cpu_compress_scratch(b, &b->limits), err)) {
        fkv_cpu_map_release(b, map);
        return FKV_FAILED;
    }
    *out = map;
    return FKV_OK;
}

void fkv_cpu_map_release(struct fkv_backend *b, struct fkv_map *map) {
    (void)b;
    if (!map) return;
    fkv_dct_destroy(map->forward);
    fkv_dct_destroy(map->inverse);
    free(map);
}

static double energy_of(const float *x, size_t count) {
    double sums[8] = {0}; /* separate sums, so that the loop can be vectorised */
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int l = 0; l < 8; l++) sums[l] += (double)x[i + (size_t)l] * x[i + (size_t)l];
    for (; i < count; i++) sums[0] += (double)x[i] * x[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* One head's keys or values, states [n, d], in place; `rotation` is NULL for values. */
static void compress_states(const struct fkv_map *map, char *states, enum fkv_dtype dtype,
                            int32_t d, const struct fkv_rotation *rotation, double position,
                            float *scratch, double *before, double *kept) {
    size_t width = (size_t)d, bytes = width * fkv_dtype_bytes(dtype);
    float *turn = scratch, *x = scratch + width,
          *transform = x + ((size_t)map->n * width + 15) / 16 * 16;
    fkv_to_f32(states, dtype, (size_t)map->n * width, x);
    for (int32_t i = 0; rotation && i < map->n; i++) {
        float *row = x + (size_t)i * width;
        fkv_cpu_turn_back(row, fkv_cpu_turn(rotation, position + i, turn), rotation->half);
    }
    if (before) *before = energy_of(x, (size_t)map->n * width);
    fkv_dct_forward(map->forward, x, width, d, x, width, transform);
    if (kept) *kept = energy_of(x, (size_t)map->retained * width);
    for (size_t i = 0; i < (size_t)map->retained * width; i++) x[i] *= map->gain;
    fkv_dct_inverse(map->inverse, x, width, d, x, width, transform);
    for (int32_t i = 0; i < map->retained; i++) {
        float *row = x + (size_t)i * width;
        if (rotation)
            fkv_cpu_turn_by(row, fkv_cpu_turn(rotation, position + i, turn), rotation->half, d,
                            row);
        fkv_from_f32(row, dtype, width, states + (size_t)i * bytes);
    }
}

int fkv_cpu_compress(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                     const struct fkv_map *map, const struct fkv_cache *cache,
                     const struct fkv_compress_item *items, int32_t count,
                     struct fkv_energy *energy, struct fkv_error *err) {
    int32_t d = shape->head_dim;
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct fkv_rotation rotation = fkv_cpu_rotation(b, shape);
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(fkv_cpu_threads(b, 64 * (int64_t)count * map->n * d))
    for (int32_t unit = 0; unit < 2 * count; unit++) {
        const struct fkv_compress_item *item = &items[unit / 2];
        struct fkv_energy *e = energy ? &energy[unit / 2] : NULL;
        if (unit % 2 == 0)
            compress_states(map, fkv_cpu_slot(cache->key, cache, d, item->cache_head, item->slot),
                            cache->dtype, d, &rotation, item->position, fkv_cpu_scratch(b),
                            e ? &e->key_before : NULL, e ? &e->key_kept : NULL);
        else
            compress_states(map, fkv_cpu_slot(cache->value, cache, d, item->cache_head, item->slot),
                            cache->dtype, d, NULL, 0, fkv_cpu_scratch(b),
                            e ? &e->value_before : NULL, e ? &e->value_kept : NULL);
    }
    return FKV_OK;
}
