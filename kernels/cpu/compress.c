/* Linear maps on the cache (cache.h, map_dct, map_matrix and compress).
 *
 * A unit is the keys, or the values, of one head: n slots are converted to float32 in the
 * thread's scratch (keys un-rotated), transformed in place, the first L rows transformed back
 * with the gain, rotated to their new positions and stored, so that a 16-bit cache is rounded once.
 * A matrix is applied out of place, DEPTH slots at a time, so that sums of many float32 stay exact.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/dct.h"

enum { DEPTH = 128, RUN = 16 };

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
    *map = (struct fkv_map){.n = n, .retained = retained, .gain = gain};
    if (fkv_dct_create(n, &map->forward, err) || fkv_dct_create(retained, &map->inverse, err)) {
        fkv_cpu_map_release(b, map);
        return FKV_FAILED;
    }
    fkv_dct_scale(map->inverse, gain);
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

/* One head's keys or values. */
struct unit {
    const struct fkv_simd *simd;
    const struct fkv_cache *cache;
    size_t d;
    char *states;                        /* [n, d]; the results' rows come first */
    const struct fkv_rotation *rotation; /* NULL for values */
    double position;                     /* of the first slot */
    double *before, *kept;               /* NULL where energy is not asked for */
};

static char *state(const struct unit *u, int32_t i) {
    return u->states + (size_t)i * u->d * fkv_dtype_bytes(u->cache->dtype);
}

/* Slots go through all steps RUN at a time, in the first-level cache. */
static void load_states(const struct unit *u, int32_t n, float *turn, float *x) {
    double before = 0;
    for (int32_t i = 0; i < n; i += RUN) {
        const int32_t rows = n - i < RUN ? n - i : RUN;
        const size_t count = (size_t)rows * u->d;
        fkv_to_f32(state(u, i), u->cache->dtype, count, x);
        for (int32_t r = 0; u->rotation && r < rows; r++)
            u->simd->turn_back(x + (size_t)r * u->d,
                               fkv_cpu_turn(u->rotation, u->position + i + r, turn),
                               u->rotation->half);
        if (u->before) before += u->simd->energy(x, count);
        x += count;
    }
    if (u->before) *u->before = before;
}

/* Slot j as the cache is to hold it, but in float32. */
static void finish_state(const struct unit *u, int32_t j, float *turn, float *y) {
    const enum fkv_quant quant = u->cache->quant;
    const bool rounds_after = u->rotation && !u->cache->quant_before;
    if (quant && !rounds_after) fkv_quant_round(quant, y, u->d, y);
    if (u->rotation)
        u->simd->turn(y, fkv_cpu_turn(u->rotation, u->position + j, turn), u->rotation->half,
                      (int32_t)u->d, y);
    if (quant && rounds_after) fkv_quant_round(quant, y, u->d, y);
}

/* x [n, d] -> y [retained, d] = m x. */
static void multiply(const struct unit *u, const struct fkv_map *map, const float *m,
                     const float *x, float *y) {
    const size_t n = (size_t)map->n;
    memset(y, 0, (size_t)map->retained * u->d * sizeof *y);
    for (int32_t i = 0; i < map->n; i += DEPTH) {
        const int32_t rows = map->n - i < DEPTH ? map->n - i : DEPTH;
        u->simd->mix[FKV_F32](m + i, n, map->retained, x + (size_t)i * u->d, u->d, rows,
                              (int32_t)u->d, y, u->d);
    }
}

/* Of results [first, end), y; the rows of the DCT's map are orthonormal but for the gain. */
static double kept_energy(const struct unit *u, const struct fkv_map *map, const float *m,
                          int32_t first, int32_t end, const float *y) {
    const size_t n = (size_t)map->n;
    double kept = 0;
    if (!m) return u->simd->energy(y, (size_t)(end - first) * u->d) / (map->gain * map->gain);
    for (int32_t j = first; j < end; j++, y += u->d) {
        const double length = u->simd->energy(m + (size_t)j * n, n);
        if (length > 0) kept += u->simd->energy(y, u->d) / length;
    }
    return kept;
}

static void store_states(const struct unit *u, const struct fkv_map *map, const float *m,
                         float *turn, float *y) {
    double kept = 0;
    for (int32_t i = 0, end; i < map->retained; i = end) {
        end = map->retained - i < RUN ? map->retained : i + RUN;
        const size_t count = (size_t)(end - i) * u->d;
        if (u->kept) kept += kept_energy(u, map, m, i, end, y);
        for (int32_t j = i; j < end; j++) finish_state(u, j, turn, y + (size_t)(j - i) * u->d);
        fkv_from_f32(y, u->cache->dtype, count, state(u, i));
        y += count;
    }
    if (u->kept) *u->kept = kept;
}

static void compress_unit(const struct unit *u, const struct fkv_map *map, float *scratch) {
    const size_t d = u->d, n = (size_t)map->n;
    const int32_t channels = (int32_t)d;
    const float *m = u->rotation ? map->key : map->value;
    float *turn = scratch, *x = scratch + d, *next = x + (n * d + 15) / 16 * 16, *y = x;
    load_states(u, map->n, turn, x);
    if (m) {
        multiply(u, map, m, x, y = x + n * d);
    } else {
        fkv_dct_forward(map->forward, x, d, channels, x, d, next);
        fkv_dct_inverse(map->inverse, x, d, channels, x, d, next);
    }
    store_states(u, map, m, turn, y);
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
    for (int32_t i = 0; i < 2 * count; i++) {
        const struct fkv_compress_item *item = &items[i / 2];
        const bool key = i % 2 == 0;
        struct fkv_energy *e = energy ? &energy[i / 2] : NULL;
        const struct unit u = {
            .simd = b->simd,
            .cache = cache,
            .d = (size_t)d,
            .states = fkv_cpu_slot(key ? cache->key : cache->value, cache, d, item->cache_head,
                                   item->slot),
            .rotation = key ? &rotation : NULL,
            .position = item->position,
            .before = !e    ? NULL
                      : key ? &e->key_before
                            : &e->value_before,
            .kept = !e    ? NULL
                    : key ? &e->key_kept
                          : &e->value_kept,
        };
        compress_unit(&u, map, fkv_cpu_scratch(b));
    }
    return FKV_OK;
}
