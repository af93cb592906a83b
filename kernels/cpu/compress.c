/* Linear maps on the cache (cache.h, map_dct, map_matrix and compress).
 *
 * A unit is the keys, or the values, of one head: n slots are converted to float32 in the
 * thread's scratch (keys un-rotated), transformed in place, the first L rows scaled and transformed
 * back, rotated to their new positions and stored, so that a 16-bit cache is rounded once. A matrix
 * is applied out of place, DEPTH slots at a time, so that sums of many float32 stay exact. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/dct.h"

enum { DEPTH = 128 };

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

static int copy_matrix(const float *from, size_t count, float **to) {
    *to = malloc(count * sizeof *from);
    if (!*to) return FKV_FAILED;
    memcpy(*to, from, count * sizeof *from);
    return FKV_OK;
}

int fkv_cpu_map_matrix(struct fkv_backend *b, int32_t n, int32_t retained, const float *key,
                       const float *value, struct fkv_map **out, struct fkv_error *err) {
    const size_t count = (size_t)n * (size_t)retained;
    *out = NULL;
    if (retained < 1 || retained > n)
        return fkv_fail(err, "expected 1 <= L <= n, found L = %d, n = %d", retained, n);
    struct fkv_map *map = malloc(sizeof *map);
    if (!map) return fkv_fail(err, "out of memory");
    *map = (struct fkv_map){.n = n, .retained = retained};
    int status = copy_matrix(key, count, &map->key);
    if (!status && key != value) status = copy_matrix(value, count, &map->value);
    if (!status && key == value) map->value = map->key;
    if (status) fkv_fail(err, "out of memory for a map of %d x %d", retained, n);
    if (n + retained > b->map_rows) b->map_rows = n + retained;
    if (status || fkv_cpu_grow_scratch(b, fkv_cpu_compress_scratch(b, &b->limits), err)) {
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
    if (map->value != map->key) free(map->value);
    free(map->key);
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

/* x [n, d] -> its first retained rows, by the DCT; `transform` is scratch. */
static void transform_states(const struct fkv_map *map, int32_t d, float *x, float *transform,
                             double *kept) {
    const size_t width = (size_t)d, count = (size_t)map->retained * width;
    fkv_dct_forward(map->forward, x, width, d, x, width, transform);
    if (kept) *kept = energy_of(x, count);
    for (size_t i = 0; i < count; i++) x[i] *= map->gain;
    fkv_dct_inverse(map->inverse, x, width, d, x, width, transform);
}

/* x [n, d] -> y [retained, d] = m x. */
static void multiply_states(const struct fkv_simd *simd, const struct fkv_map *map, const float *m,
                            int32_t d, const float *x, float *y, double *kept) {
    const size_t width = (size_t)d, n = (size_t)map->n;
    memset(y, 0, (size_t)map->retained * width * sizeof *y);
    for (int32_t i = 0; i < map->n; i += DEPTH) {
        const int32_t rows = map->n - i < DEPTH ? map->n - i : DEPTH;
        simd->mix[FKV_F32](m + i, n, map->retained, x + (size_t)i * width, width, rows, d, y,
                           width);
    }
    if (kept) *kept = 0;
    for (size_t j = 0; kept && j < (size_t)map->retained; j++) {
        const double length = energy_of(m + j * n, n);
        if (length > 0) *kept += energy_of(y + j * width, width) / length;
    }
}

/* One head's keys or values, states [n, d], in place; `rotation` is NULL for values. */
static void compress_states(const struct fkv_simd *simd, const struct fkv_map *map,
                            const struct fkv_cache *cache, char *states, int32_t d,
                            const struct fkv_rotation *rotation, double position, float *scratch,
                            double *before, double *kept) {
    const enum fkv_dtype dtype = cache->dtype;
    const bool rounds_after = rotation && !cache->quant_before;
    size_t width = (size_t)d, bytes = width * fkv_dtype_bytes(dtype);
    float *turn = scratch, *x = scratch + width,
          *transform = x + ((size_t)map->n * width + 15) / 16 * 16,
          *y = map->forward ? x : x + (size_t)map->n * width;
    fkv_to_f32(states, dtype, (size_t)map->n * width, x);
    for (int32_t i = 0; rotation && i < map->n; i++) {
        float *row = x + (size_t)i * width;
        fkv_cpu_turn_back(row, fkv_cpu_turn(rotation, position + i, turn), rotation->half);
    }
    if (before) *before = energy_of(x, (size_t)map->n * width);
    if (map->forward)
        transform_states(map, d, x, transform, kept);
    else
        multiply_states(simd, map, rotation ? map->key : map->value, d, x, y, kept);
    for (int32_t i = 0; i < map->retained; i++) {
        float *row = y + (size_t)i * width;
        if (cache->quant && !rounds_after) fkv_quant_round(cache->quant, row, width, row);
        if (rotation)
            fkv_cpu_turn_by(row, fkv_cpu_turn(rotation, position + i, turn), rotation->half, d,
                            row);
        if (cache->quant && rounds_after) fkv_quant_round(cache->quant, row, width, row);
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
#pragma omp parallel for schedule(dynamic) num_threads(                                            \
    fkv_cpu_threads(b, (map->forward ? 64 : map->retained) * (int64_t)count * map->n * d))
    for (int32_t unit = 0; unit < 2 * count; unit++) {
        const struct fkv_compress_item *item = &items[unit / 2];
        struct fkv_energy *e = energy ? &energy[unit / 2] : NULL;
        if (unit % 2 == 0)
            compress_states(b->simd, map, cache,
                            fkv_cpu_slot(cache->key, cache, d, item->cache_head, item->slot), d,
                            &rotation, item->position, fkv_cpu_scratch(b),
                            e ? &e->key_before : NULL, e ? &e->key_kept : NULL);
        else
            compress_states(b->simd, map, cache,
                            fkv_cpu_slot(cache->value, cache, d, item->cache_head, item->slot), d,
                            NULL, 0, fkv_cpu_scratch(b), e ? &e->value_before : NULL,
                            e ? &e->value_kept : NULL);
    }
    return FKV_OK;
}
