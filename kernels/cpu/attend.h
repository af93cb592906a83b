/* What the files of attention share: attend.c, attend_few.c, attend_block.c,
 * attention_paid.c. */
#ifndef FKV_KERNELS_CPU_ATTEND_H
#define FKV_KERNELS_CPU_ATTEND_H

#include <math.h>

#include "kernels/cpu/cpu.h"

/* A call. */
struct fkv_attention {
    struct fkv_backend *b;
    const struct fkv_attention_shape *shape;
    const struct fkv_cache *cache;
    const struct fkv_span *spans;
    const float *q;
    float *out;
    struct fkv_rotation rotation;
    const struct fkv_panel *panel; /* of the call's number format */
};

/* What one thread computes from start to end: query rows [first, first+rows) of an item against the
 * slots [begin, end) of those that they see, counted through the item's spans. The item's heads
 * share a cache head, so the rows of all are stacked: stacked row i is row first + i / heads of
 * head i % heads. */
struct fkv_attend_unit {
    const struct fkv_attend_item *item;
    int32_t first, rows;
    int32_t stacked; /* rows * heads */
    int32_t begin, end;
    float *scratch; /* the thread's */
    float
        *partial; /* [stacked, head_dim] sums of weight x value, then [stacked] largest score, then
                     [stacked] sum of weights; NULL where the unit has all slots and divides */
};

/* A way to compute a unit. */
struct fkv_attend_way {
    /* No slot seen so far. */
    void (*start)(const struct fkv_attention *a, const struct fkv_attend_unit *u);
    /* Takes in slots [low, high) of a span. */
    void (*take)(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                 const struct fkv_span *span, int32_t low, int32_t high);
    /* Writes the result. */
    void (*finish)(const struct fkv_attention *a, const struct fkv_attend_unit *u);
};

extern const struct fkv_attend_way fkv_attend_few, fkv_attend_block;

/* Stacked rows of a unit, unless one row has more heads. */
enum { FKV_ATTEND_STACKED = 192 };

/* Most stacked rows of a unit. */
static inline int32_t fkv_attend_most_stacked(const struct fkv_limits *l) {
    return l->attention.heads > FKV_ATTEND_STACKED ? l->attention.heads : FKV_ATTEND_STACKED;
}
/* Most stacked rows that are `few`: half a panel, which costs the same however many of its rows are
 * used. */
static inline int32_t fkv_attend_few_stacked(const struct fkv_panel *panel) {
    return panel->rows / 2;
}

/* Floats of scratch. */
size_t fkv_attend_few_scratch(const struct fkv_panel *panel, int32_t head_dim);
size_t fkv_attend_block_scratch(const struct fkv_panel *panel, int32_t stacked, int32_t head_dim);

/* Multiplications of a call, were every row to see all of its spans, with those that its reading is
 * worth. */
int64_t fkv_attend_operations(const struct fkv_attention *a, const struct fkv_attend_item *items,
                              int32_t count);

static inline int32_t fkv_attend_least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t fkv_attend_most(int32_t a, int32_t b) { return a > b ? a : b; }

/* Row r of an item sees slots [*low, *high) of the span. */
static inline void fkv_attend_limits(const struct fkv_span *span, int32_t r, int32_t *low,
                                     int32_t *high) {
    *low = fkv_attend_most(span->first, span->from + r);
    *high = fkv_attend_least(span->end, span->until + r);
}

/* The angle by which the query of stacked row i is rotated for a span: [cos, sin], rotary/2 each,
 * a row of the table or computed into `scratch` [head_dim]. */
static inline const float *fkv_attend_turn(const struct fkv_attention *a,
                                           const struct fkv_attend_unit *u,
                                           const struct fkv_span *span, int32_t i, float *scratch) {
    int32_t moved = span->fixed ? 0 : u->first + i / u->item->heads;
    return fkv_cpu_turn(&a->rotation, span->position + moved, scratch);
}

/* The offset in floats of stacked row i in the call's q and out. */
static inline size_t fkv_attend_row(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                                    int32_t i) {
    const struct fkv_attend_item *item = u->item;
    size_t row = (size_t)(item->row + u->first + i / item->heads),
           head = (size_t)(item->head + i % item->heads);
    return (row * (size_t)a->shape->heads + head) * (size_t)a->shape->head_dim;
}

/* The query of stacked row i, rotated and scaled, to [head_dim]. The scale costs least here, and
 * the gain of keys as well as queries is taken here (cache.h). */
static inline void fkv_attend_query(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                                    int32_t i, const float *turn, float *to) {
    const struct fkv_attention_shape *s = a->shape;
    const float turned_scale = s->scale * s->gain * s->gain;
    a->b->simd->turn(a->q + fkv_attend_row(a, u, i), turn, a->rotation.half, s->head_dim, to);
    for (int32_t c = 0; c < s->rotary; c++) to[c] *= turned_scale;
    for (int32_t c = s->rotary; c < s->head_dim; c++) to[c] *= s->scale;
}

/* Biases of the unit's cache head from `slot` on, or NULL. */
static inline const float *fkv_attend_bias(const struct fkv_attention *a,
                                           const struct fkv_attend_unit *u, int32_t slot) {
    if (!a->cache->bias) return NULL;
    size_t at = (size_t)u->item->cache_head * (size_t)a->cache->capacity + (size_t)slot;
    return fkv_cpu_floats(a->cache->bias) + a->cache->bias_offset / sizeof(float) + at;
}

/* Stacked row i: sum of weight x value [head_dim], largest score, sum of weights. */
static inline void fkv_attend_store(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                                    int32_t i, const float *row, float largest, float sum) {
    const size_t d = (size_t)a->shape->head_dim, stacked = (size_t)u->stacked;
    if (u->partial) {
        memcpy(u->partial + (size_t)i * d, row, d * sizeof *row);
        u->partial[stacked * d + (size_t)i] = largest;
        u->partial[stacked * (d + 1) + (size_t)i] = sum;
        return;
    }
    float *to = a->out + fkv_attend_row(a, u, i);
    for (size_t c = 0; c < d; c++) to[c] = row[c] / sum;
}

#endif
