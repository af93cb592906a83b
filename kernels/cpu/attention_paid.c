/* The attention that rows pay to slots: what selecting policies keep slots by.
 *
 * A query's slots are scored a tile at a time, twice: first for the largest score and the sum of
 * weights, then for the weights themselves, which are added up. So scratch does not grow with the
 * cache; keeping a long cache's scores would. An item is one thread's, for no two have a cache
 * head in common, so the order of the sums does not depend on the number of threads. */
#include "kernels/cpu/attend.h"

enum { SLOTS = 512 }; /* of a tile */

/* A query over its item's spans. */
struct query {
    const struct fkv_attention *a;
    const struct fkv_attend_unit *unit; /* all rows of the item */
    int32_t stacked;                    /* which of the item's stacked rows */
    float *q;                           /* [head_dim] rotated and scaled for a span */
    float *turn;                        /* [head_dim] */
    float *score;                       /* [SLOTS] */
};

/* What is done with the scores of slots [slot, slot + slots). */
typedef void take_function(void *context, const struct query *query, int32_t slot, int32_t slots);

static void for_each_tile(const struct query *query, take_function *take, void *context) {
    const struct fkv_attention *a = query->a;
    const struct fkv_attend_item *item = query->unit->item;
    const int32_t d = a->shape->head_dim;
    for (int32_t s = 0; s < item->spans; s++) {
        const struct fkv_span *span = &a->spans[item->span + s];
        int32_t low, high;
        fkv_attend_limits(span, query->stacked / item->heads, &low, &high);
        if (low >= high) continue;
        fkv_attend_query(a, query->unit, query->stacked,
                         fkv_attend_turn(a, query->unit, span, query->stacked, query->turn),
                         query->q);
        for (int32_t slot = low; slot < high; slot += SLOTS) {
            const int32_t slots = fkv_attend_least(SLOTS, high - slot);
            const float *bias = fkv_attend_bias(a, query->unit, slot);
            a->b->simd->dot[a->cache->dtype](
                fkv_cpu_slot(a->cache->key, a->cache, d, item->cache_head, slot), (size_t)d, slots,
                query->q, (size_t)d, 1, d, query->score, SLOTS);
            if (a->shape->softcap > 0)
                a->b->simd->cap(query->score, (size_t)slots, a->shape->softcap);
            for (int32_t i = 0; bias && i < slots; i++) query->score[i] += bias[i];
            take(context, query, slot, slots);
        }
    }
}

struct softmax {
    float largest, sum;
    float share; /* 1 / heads */
    float *paid; /* [capacity] */
};

static void measure(void *context, const struct query *query, int32_t slot, int32_t slots) {
    struct softmax *softmax = context;
    const struct fkv_simd *simd = query->a->b->simd;
    (void)slot;
    const float top = simd->largest(query->score, slots);
    if (top > softmax->largest) {
        softmax->sum *= expf(softmax->largest - top);
        softmax->largest = top;
    }
    softmax->sum += simd->exp_sum(query->score, slots, softmax->largest);
}

static void add(void *context, const struct query *query, int32_t slot, int32_t slots) {
    const struct softmax *softmax = context;
    const float factor = softmax->share / softmax->sum;
    query->a->b->simd->exp_sum(query->score, slots, softmax->largest);
    for (int32_t i = 0; i < slots; i++) softmax->paid[slot + i] += query->score[i] * factor;
}

size_t fkv_cpu_attention_paid_scratch(const struct fkv_limits *l) {
    return 2 * (size_t)l->attention.head_dim + SLOTS;
}

static void add_item(const struct fkv_attention *a, const struct fkv_attend_item *item) {
    const size_t d = (size_t)a->shape->head_dim;
    const struct fkv_attend_unit unit = {
        .item = item, .rows = item->rows, .stacked = item->rows * item->heads};
    float *scratch = fkv_cpu_scratch(a->b);
    struct query query = {
        .a = a, .unit = &unit, .q = scratch, .turn = scratch + d, .score = scratch + 2 * d};
    for (; query.stacked < unit.stacked; query.stacked++) {
        struct softmax softmax = {.largest = -INFINITY,
                                  .share = 1 / (float)item->heads,
                                  .paid = a->out +
                                          (size_t)item->cache_head * (size_t)a->cache->capacity};
        for_each_tile(&query, measure, &softmax);
        for_each_tile(&query, add, &softmax);
    }
}

int fkv_cpu_attention_paid(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                           const struct fkv_buffer *q, const struct fkv_cache *cache,
                           const struct fkv_span *spans, const struct fkv_attend_item *items,
                           int32_t count, struct fkv_buffer *paid, size_t paid_offset,
                           struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    const struct fkv_attention a = {.b = b,
                                    .shape = shape,
                                    .cache = cache,
                                    .spans = spans,
                                    .q = fkv_cpu_floats(q),
                                    .out = fkv_cpu_floats(paid) + paid_offset / sizeof(float),
                                    .rotation = fkv_cpu_rotation(b, shape)};
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(fkv_cpu_threads(b, fkv_attend_operations(&a, items, count)))
    for (int32_t n = 0; n < count; n++) add_item(&a, &items[n]);
    return FKV_OK;
}
