/* Attention of few stacked rows (decoding): the dot and mix kernels of simd.h read the cache where
 * it is, in its own dtype, once for all rows. The time for a long cache is that of reading it.
 *
 * A tile of slots is scored, weighted and added up before the next: its scores stay in the
 * first-level cache. Short tiles cost: each change from keys to values and back is a new stream
 * from memory. One core of an EPYC 9004, 3 rows of head_dim 64 at 4096 slots, float16,
 * microseconds: tiles of 64 slots 310, 256 187, 512 170, 1024 161. */
#include "kernels/cpu/attend.h"

enum { SLOTS = 512 }; /* of a tile */

struct few {
    float *q;       /* [stacked, head_dim] rotated and scaled */
    float *out;     /* [stacked, head_dim] sums of weight x value */
    float *score;   /* [stacked, SLOTS] */
    float *largest; /* [stacked] */
    float *sum;     /* [stacked] of weights */
    float *turn;    /* [head_dim] */
};

size_t fkv_attend_few_scratch(const struct fkv_panel *panel, int32_t head_dim) {
    size_t d = (size_t)head_dim, m = (size_t)fkv_attend_few_stacked(panel);
    return m * (2 * d + SLOTS + 2) + d;
}

static struct few lay_out(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    size_t d = (size_t)a->shape->head_dim, m = (size_t)u->stacked;
    struct few f = {.q = u->scratch};
    f.out = f.q + m * d;
    f.score = f.out + m * d;
    f.largest = f.score + m * SLOTS;
    f.sum = f.largest + m;
    f.turn = f.sum + m;
    return f;
}

static void start(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    struct few f = lay_out(a, u);
    memset(f.out, 0, (size_t)u->stacked * (size_t)a->shape->head_dim * sizeof *f.out);
    for (int32_t i = 0; i < u->stacked; i++) f.largest[i] = -INFINITY, f.sum[i] = 0;
}

/* Scores of slots [slot, slot+slots) -> weights, with what each row has so far scaled to the new
 * largest score. */
static void soften(const struct fkv_attention *a, const struct fkv_attend_unit *u, struct few f,
                   const struct fkv_span *span, int32_t slot, int32_t slots) {
    const size_t d = (size_t)a->shape->head_dim;
    const float *bias = fkv_attend_bias(a, u, slot);
    for (int32_t i = 0; i < u->stacked; i++) {
        float *score = f.score + (size_t)i * SLOTS;
        int32_t low, high;
        fkv_attend_limits(span, u->first + i / u->item->heads, &low, &high);
        if (a->shape->softcap > 0) a->b->simd->cap(score, (size_t)slots, a->shape->softcap);
        for (int32_t s = 0; bias && s < slots; s++) score[s] += bias[s];
        for (int32_t s = 0; s < fkv_attend_least(low - slot, slots); s++) score[s] = -INFINITY;
        for (int32_t s = fkv_attend_most(high - slot, 0); s < slots; s++) score[s] = -INFINITY;
        float top = a->b->simd->largest(score, slots);
        if (top > f.largest[i]) {
            float shrink = expf(f.largest[i] - top);
            f.sum[i] *= shrink;
            for (size_t c = 0; c < d; c++) f.out[(size_t)i * d + c] *= shrink;
            f.largest[i] = top;
        }
        /* A row that has seen nothing yet: any finite shift gives weight 0 to every -inf (and keeps
         * a NaN). */
        f.sum[i] += a->b->simd->exp_sum(score, slots, f.largest[i] == -INFINITY ? 0 : f.largest[i]);
    }
}

static void take(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                 const struct fkv_span *span, int32_t low, int32_t high) {
    const int32_t d = a->shape->head_dim, head = u->item->cache_head;
    const size_t row = (size_t)d;
    struct few f = lay_out(a, u);
    for (int32_t i = 0; i < u->stacked; i++)
        fkv_attend_query(a, u, i, fkv_attend_turn(a, u, span, i, f.turn), f.q + (size_t)i * row);
    for (int32_t slot = low; slot < high; slot += SLOTS) {
        int32_t slots = fkv_attend_least(SLOTS, high - slot);
        a->b->simd->dot[a->cache->dtype](fkv_cpu_slot(a->cache->key, a->cache, d, head, slot), row,
                                         slots, f.q, row, u->stacked, d, f.score, SLOTS);
        soften(a, u, f, span, slot, slots);
        a->b->simd->mix[a->cache->dtype](f.score, SLOTS, u->stacked,
                                         fkv_cpu_slot(a->cache->value, a->cache, d, head, slot),
                                         row, slots, d, f.out, row);
    }
}

static void finish(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    struct few f = lay_out(a, u);
    for (int32_t i = 0; i < u->stacked; i++)
        fkv_attend_store(a, u, i, f.out + (size_t)i * (size_t)a->shape->head_dim, f.largest[i],
                         f.sum[i]);
}

const struct fkv_attend_way fkv_attend_few = {start, take, finish};
