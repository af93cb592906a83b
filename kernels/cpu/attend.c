/* Attention over the cache: softmax(scale q.k + bias) v, by tiles, with a running softmax (Milakov
 * and Gimelshein, arXiv 1805.02867; the tiling is FlashAttention's, arXiv 2205.14135).
 *
 * A unit of work is a tile of query rows of one item, and one thread's from start to end, so the
 * result does not depend on the number of threads. The query heads of an item share a KV head, so
 * their rows are stacked, head by head, into one matrix Q of m rows: a tile of keys is then loaded
 * (and, from a 16-bit cache, converted) once for the group. For every tile of keys: S = Q K^T; a
 * row that gets a new largest score scales down what it has; P = exp(S - largest); O += P V. Slots
 * that a row does not see get the score -inf, which is weight 0; a tile that no row sees is not
 * visited.
 *
 * Each span asks for its own rotation of the queries, so Q is made anew per span. The scale is put
 * on Q, where it costs least.
 *
 * Up to FEW_STACKED stacked rows (decoding) use the dot and mix kernels of simd.h straight on the
 * cache; more use sgemm on tiles converted to float32. One core of an EPYC 9004, head_dim 128, 2048
 * slots, bf16 cache, GFLOP/s of the kernels / of sgemm: 1 row 46/17, 16 rows 77/60, 512 rows 85/87;
 * the narrower sets lose their lead at 8 to 16. */
#ifndef FKV_PLAIN
#include <cblas.h>
#endif
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { STACKED = 128, KEYS = 256, FEW_STACKED = 16 };

/* One thread's scratch for a unit. */
struct unit {
    const struct fkv_attend_item *item;
    int32_t first, rows,
        m;          /* query rows [first, first+rows) of the item; m = rows * heads stacked ones */
    float *q, *out; /* [m, head_dim] */
    float *score;   /* [m, KEYS] */
    float *tile;    /* [KEYS, head_dim] */
    float *largest, *sum; /* [m] */
    float *turn;          /* [head_dim] cos and sin of a position */
};

/* What all units of a call share. */
struct attention {
    struct fkv_backend *b;
    const struct fkv_attention_shape *shape;
    const struct fkv_cache *cache;
    const struct fkv_span *spans;
    const float *q;
    float *out;
    struct fkv_rotation rotation;
};

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

/* Query rows per unit. */
static int32_t unit_rows(int32_t heads) { return most(1, STACKED / heads); }

size_t fkv_cpu_attend_scratch(const struct fkv_limits *l) {
    size_t d = (size_t)l->attention.head_dim, m = (size_t)most(STACKED, l->attention.heads);
    return m * (2 * d + KEYS + 2) + KEYS * d + d;
}

static struct unit take_unit(const struct attention *a, const struct fkv_attend_item *item,
                             int32_t index) {
    struct unit u = {.item = item, .first = index * unit_rows(item->heads)};
    u.rows = least(item->rows - u.first, unit_rows(item->heads));
    u.m = u.rows * item->heads;
    size_t d = (size_t)a->shape->head_dim, m = (size_t)u.m;
    u.q = fkv_cpu_scratch(a->b);
    u.out = u.q + m * d;
    u.score = u.out + m * d;
    u.tile = u.score + m * KEYS;
    u.largest = u.tile + KEYS * d;
    u.sum = u.largest + m;
    u.turn = u.sum + m;
    return u;
}

/* The item's queries, stacked, rotated to the positions of the span, and scaled. */
static void load_queries(const struct attention *a, const struct fkv_span *span, struct unit *u) {
    size_t d = (size_t)a->shape->head_dim, row = d * (size_t)a->shape->heads;
    for (int32_t r = 0; r < u->rows; r++) {
        double position = span->position + (span->fixed ? 0 : u->first + r);
        const float *turn = fkv_cpu_turn(&a->rotation, position, u->turn);
        for (int32_t h = 0; h < u->item->heads; h++) {
            const float *from = a->q + (size_t)(u->item->row + u->first + r) * row +
                                (size_t)(u->item->head + h) * d;
            float *to = u->q + (size_t)(h * u->rows + r) * d;
            fkv_cpu_turn_by(from, turn, a->rotation.half, to);
            for (size_t i = 0; i < d; i++) to[i] *= a->shape->scale;
        }
    }
}

#ifndef FKV_PLAIN
/* The tile of keys or values at `from` as float32. */
static const float *expand_tile(const struct attention *a, const struct unit *u, const char *from,
                                int32_t keys) {
    if (a->cache->dtype == FKV_F32) return (const float *)(const void *)from;
    fkv_to_f32(from, a->cache->dtype, (size_t)keys * (size_t)a->shape->head_dim, u->tile);
    return u->tile;
}

static void score_many(const struct attention *a, const struct unit *u, const char *key,
                       int32_t keys) {
    int32_t d = a->shape->head_dim;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, u->m, keys, d, 1, u->q, d,
                expand_tile(a, u, key, keys), d, 0, u->score, KEYS);
}

static void add_many(const struct attention *a, const struct unit *u, const char *value,
                     int32_t keys) {
    int32_t d = a->shape->head_dim;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, u->m, d, keys, 1, u->score, KEYS,
                expand_tile(a, u, value, keys), d, 1, u->out, d);
}
#endif

/* score [m, keys] = Q K^T */
static void score_tile(const struct attention *a, const struct unit *u, const char *key,
                       int32_t keys) {
#ifndef FKV_PLAIN
    if (u->m > FEW_STACKED) {
        score_many(a, u, key, keys);
        return;
    }
#endif
    size_t d = (size_t)a->shape->head_dim;
    a->b->simd->dot[a->cache->dtype](key, d, keys, u->q, d, u->m, a->shape->head_dim, u->score,
                                     KEYS);
}

/* out [m, head_dim] += P V */
static void add_values(const struct attention *a, const struct unit *u, const char *value,
                       int32_t keys) {
#ifndef FKV_PLAIN
    if (u->m > FEW_STACKED) {
        add_many(a, u, value, keys);
        return;
    }
#endif
    size_t d = (size_t)a->shape->head_dim;
    a->b->simd->mix[a->cache->dtype](u->score, KEYS, u->m, value, d, keys, a->shape->head_dim,
                                     u->out, d);
}

/* Row r (of the item) sees slots [*low, *high) of the span. */
static void limits_of(const struct fkv_span *span, int32_t r, int32_t *low, int32_t *high) {
    *low = most(span->first, span->from + r);
    *high = least(span->end, span->until + r);
}

/* Adds what the cache has for slots [slot, slot+keys) to every row's scores. */
static void add_bias(const struct attention *a, const struct unit *u, int32_t slot, int32_t keys) {
    size_t at = (size_t)u->item->cache_head * (size_t)a->cache->capacity + (size_t)slot;
    const float *bias = fkv_cpu_floats(a->cache->bias) + a->cache->bias_offset / sizeof(float) + at;
    for (int32_t i = 0; i < u->m; i++)
        for (int32_t s = 0; s < keys; s++) u->score[(size_t)i * KEYS + (size_t)s] += bias[s];
}

/* Scores of slots [slot, slot+keys) -> weights, with what each row has so far scaled to the new
 * largest score. */
static void soften_tile(const struct attention *a, const struct fkv_span *span, struct unit *u,
                        int32_t slot, int32_t keys) {
    size_t d = (size_t)a->shape->head_dim;
    for (int32_t i = 0; i < u->m; i++) {
        float *score = u->score + (size_t)i * KEYS;
        int32_t low, high;
        limits_of(span, u->first + i % u->rows, &low, &high);
        for (int32_t s = 0; s < least(low - slot, keys); s++) score[s] = -INFINITY;
        for (int32_t s = most(high - slot, 0); s < keys; s++) score[s] = -INFINITY;
        float top = a->b->simd->largest(score, keys);
        if (top > u->largest[i]) {
            float shrink = expf(u->largest[i] - top);
            u->sum[i] *= shrink;
            for (size_t c = 0; c < d; c++) u->out[(size_t)i * d + c] *= shrink;
            u->largest[i] = top;
        }
        /* A row that has seen nothing yet: any finite shift gives weight 0 to every -inf (and keeps
         * a NaN). */
        u->sum[i] +=
            a->b->simd->exp_sum(score, keys, u->largest[i] == -INFINITY ? 0 : u->largest[i]);
    }
}

static void attend_span(const struct attention *a, const struct fkv_span *span, struct unit *u) {
    int32_t low, high, unused;
    limits_of(span, u->first, &low, &unused);
    limits_of(span, u->first + u->rows - 1, &unused, &high);
    if (low >= high) return;
    load_queries(a, span, u);
    for (int32_t slot = low; slot < high; slot += KEYS) {
        int32_t keys = least(KEYS, high - slot);
        score_tile(
            a, u,
            fkv_cpu_slot(a->cache->key, a->cache, a->shape->head_dim, u->item->cache_head, slot),
            keys);
        if (a->cache->bias) add_bias(a, u, slot, keys);
        soften_tile(a, span, u, slot, keys);
        add_values(
            a, u,
            fkv_cpu_slot(a->cache->value, a->cache, a->shape->head_dim, u->item->cache_head, slot),
            keys);
    }
}

static void attend_unit(const struct attention *a, struct unit u) {
    size_t d = (size_t)a->shape->head_dim, row = d * (size_t)a->shape->heads;
    memset(u.out, 0, (size_t)u.m * d * sizeof *u.out);
    for (int32_t i = 0; i < u.m; i++) u.largest[i] = -INFINITY, u.sum[i] = 0;
    for (int32_t s = 0; s < u.item->spans; s++) attend_span(a, &a->spans[u.item->span + s], &u);
    for (int32_t i = 0; i < u.m; i++) {
        int32_t h = i / u.rows, r = i % u.rows;
        float *to =
            a->out + (size_t)(u.item->row + u.first + r) * row + (size_t)(u.item->head + h) * d;
        for (size_t c = 0; c < d; c++) to[c] = u.out[(size_t)i * d + c] / u.sum[i];
    }
}

/* Multiplications of a call, were every row to see all of its spans. */
static int64_t operations_of(const struct attention *a, const struct fkv_attend_item *items,
                             int32_t count) {
    int64_t operations = 0;
    for (int32_t n = 0; n < count; n++)
        for (int32_t s = 0; s < items[n].spans; s++) {
            const struct fkv_span *span = &a->spans[items[n].span + s];
            operations += 2 * (int64_t)items[n].rows * items[n].heads * a->shape->head_dim *
                          (span->end - span->first);
        }
    return operations;
}

int fkv_cpu_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                   const struct fkv_buffer *q, const struct fkv_cache *cache,
                   const struct fkv_span *spans, const struct fkv_attend_item *items, int32_t count,
                   struct fkv_buffer *out, struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct attention a = {.b = b,
                          .shape = shape,
                          .cache = cache,
                          .spans = spans,
                          .q = fkv_cpu_floats(q),
                          .out = fkv_cpu_floats(out),
                          .rotation = fkv_cpu_rotation(b, shape)};
#pragma omp parallel num_threads(fkv_cpu_threads(b, operations_of(&a, items, count)))
    {
        fkv_cpu_products_alone();
        for (int32_t n = 0; n < count; n++) {
            int32_t units =
                (items[n].rows + unit_rows(items[n].heads) - 1) / unit_rows(items[n].heads);
            /* Later rows of a causal block see more: a dynamic schedule evens that out. */
#pragma omp for schedule(dynamic) nowait
            for (int32_t i = 0; i < units; i++) attend_unit(&a, take_unit(&a, &items[n], i));
        }
    }
    return FKV_OK;
}
