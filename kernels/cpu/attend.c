/* Attention over the cache: softmax(cap(scale q.k) + bias) v, by tiles of slots, with a running
 * softmax (Milakov and Gimelshein, arXiv 1805.02867; the tiling is FlashAttention's, arXiv
 * 2205.14135).
 *
 * The query heads of an item share a KV head, so their rows are stacked: a tile of keys is loaded
 * once for the group. For every tile of keys: S = Q K^T; a row that gets a new largest score scales
 * down what it has; P = exp(S - largest); O += P V. Slots that a row does not see get the score
 * -inf, which is weight 0; slots that no row sees are not visited. Each span asks for its own
 * rotation of the queries, so Q is made anew per span. Few stacked rows (attend_few.c) and many
 * (attend_block.c) differ in what computes S and P V.
 *
 * A unit of work is one thread's from start to end, and the units depend on the call's shapes
 * alone, so the result does not depend on the number of threads. Many rows: a unit is a run of rows
 * with all slots that they see. Rows that fit one unit (decoding): their slots are split in parts,
 * at most PARTS and of PART_SLOTS slots or more, so that many threads help with one KV head. What a
 * part has (sum of weight x value, largest score, sum of weights) goes to the backend's `partial`,
 * and the thread that ends an item's last part joins all of them, in the order of the slots. */
#include "kernels/cpu/attend.h"
#include "kernels/cpu/meet.h"

enum { PARTS = 8, PART_SLOTS = 256 };

static int32_t unit_rows(int32_t heads) { return fkv_attend_most(1, FKV_ATTEND_STACKED / heads); }

size_t fkv_cpu_attend_scratch(const struct fkv_backend *b, const struct fkv_limits *l) {
    const int32_t d = l->attention.head_dim, stacked = fkv_attend_most_stacked(l);
    size_t few = fkv_attend_few_scratch(b->panel, d),
           block = fkv_attend_block_scratch(b->panel, stacked, d);
    return few > block ? few : block;
}

size_t fkv_cpu_attend_partial(const struct fkv_limits *l) {
    if (l->slots < 2 * PART_SLOTS) return 0;
    return (size_t)PARTS * (size_t)fkv_attend_most_stacked(l) * ((size_t)l->attention.head_dim + 2);
}

/* How an item is cut in units: runs of rows, or parts of the slots of all rows. */
struct cut {
    int32_t runs, parts;
    int32_t slots;       /* that the rows see, of all spans; of the only run */
    size_t partial_each; /* floats of a part's result, 0 without parts */
};

static struct cut cut_item(const struct fkv_attention *a, const struct fkv_attend_item *item) {
    const int32_t rows = unit_rows(item->heads);
    struct cut cut = {.runs = (item->rows + rows - 1) / rows, .parts = 1};
    if (cut.runs > 1 || !a->b->partial_floats) return cut;
    for (int32_t s = 0; s < item->spans; s++) {
        int32_t low, high, unused;
        fkv_attend_limits(&a->spans[item->span + s], 0, &low, &unused);
        fkv_attend_limits(&a->spans[item->span + s], item->rows - 1, &unused, &high);
        cut.slots += fkv_attend_most(high - low, 0);
    }
    cut.parts = fkv_attend_most(1, fkv_attend_least(cut.slots / PART_SLOTS, PARTS));
    if (cut.parts > 1)
        cut.partial_each =
            (size_t)item->rows * (size_t)item->heads * ((size_t)a->shape->head_dim + 2);
    return cut;
}

/* Unit `index` of an item. The last rows of a causal block see the most slots: they come first, so
 * that no thread begins a long unit when the others end. */
static struct fkv_attend_unit take_unit(const struct fkv_attention *a,
                                        const struct fkv_attend_item *item, struct cut cut,
                                        int32_t index, float *partial) {
    struct fkv_attend_unit u = {
        .item = item, .end = INT32_MAX, .scratch = fkv_cpu_scratch(a->b), .rows = item->rows};
    if (cut.runs > 1) {
        u.first = (cut.runs - 1 - index) * unit_rows(item->heads);
        u.rows = fkv_attend_least(item->rows - u.first, unit_rows(item->heads));
    } else if (cut.parts > 1) {
        u.begin = (int32_t)((int64_t)cut.slots * index / cut.parts);
        u.end = (int32_t)((int64_t)cut.slots * (index + 1) / cut.parts);
        u.partial = partial + (size_t)index * cut.partial_each;
    }
    u.stacked = u.rows * item->heads;
    return u;
}

static void attend_unit(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    const struct fkv_attend_way *way =
        u->stacked <= fkv_attend_few_stacked(a->panel) ? &fkv_attend_few : &fkv_attend_block;
    int32_t seen = 0; /* slots of earlier spans */
    way->start(a, u);
    for (int32_t s = 0; s < u->item->spans; s++) {
        const struct fkv_span *span = &a->spans[u->item->span + s];
        int32_t low, high, unused;
        fkv_attend_limits(span, u->first, &low, &unused);
        fkv_attend_limits(span, u->first + u->rows - 1, &unused, &high);
        if (low >= high) continue;
        int32_t from = fkv_attend_most(u->begin - seen, 0),
                until = fkv_attend_least(u->end - seen, high - low);
        seen += high - low;
        if (from < until) way->take(a, u, span, low + from, low + until);
    }
    way->finish(a, u);
}

/* Joins the parts of an item. A part in which a row saw nothing has the largest score -inf and
 * counts nothing. */
static void join_parts(const struct fkv_attention *a, const struct fkv_attend_item *item,
                       struct cut cut, const float *partial) {
    const size_t d = (size_t)a->shape->head_dim, each = cut.partial_each;
    const struct fkv_attend_unit u = {
        .item = item, .rows = item->rows, .stacked = item->rows * item->heads};
    for (int32_t i = 0; i < u.stacked; i++) {
        const float *largest = partial + (size_t)u.stacked * d + (size_t)i,
                    *sum = largest + u.stacked, *row = partial + (size_t)i * d;
        float *to = a->out + fkv_attend_row(a, &u, i), top = -INFINITY, total = 0;
        for (int32_t p = 0; p < cut.parts; p++)
            if (largest[(size_t)p * each] > top) top = largest[(size_t)p * each];
        for (size_t c = 0; c < d; c++) to[c] = 0;
        for (int32_t p = 0; p < cut.parts; p++) {
            float share =
                largest[(size_t)p * each] == -INFINITY ? 0 : expf(largest[(size_t)p * each] - top);
            total += sum[(size_t)p * each] * share;
            for (size_t c = 0; c < d; c++) to[c] += row[(size_t)p * each + c] * share;
        }
        for (size_t c = 0; c < d; c++) to[c] /= total;
    }
}

int64_t fkv_attend_operations(const struct fkv_attention *a, const struct fkv_attend_item *items,
                              int32_t count) {
    int64_t operations = 0;
    for (int32_t n = 0; n < count; n++)
        for (int32_t s = 0; s < items[n].spans; s++) {
            const struct fkv_span *span = &a->spans[items[n].span + s];
            const int64_t stacked = (int64_t)items[n].rows * items[n].heads;
            operations +=
                2 * (stacked + FKV_READING) * a->shape->head_dim * (span->end - span->first);
        }
    return operations;
}

/* Every thread's share of a call. Items that are split use `partial` one after the other; where it
 * is full, all threads end what they have before it is used again. */
static void attend_items(const struct fkv_attention *a, const struct fkv_attend_item *items,
                         int32_t count) {
    struct fkv_backend *b = a->b;
    size_t used = 0;
    int32_t split = 0; /* items whose parts are in `partial` */
    for (int32_t n = 0; n < count; n++) {
        const struct cut cut = cut_item(a, &items[n]);
        const int32_t units = cut.runs * cut.parts;
        const size_t need = (size_t)cut.parts * cut.partial_each;
        if (cut.parts > 1 && (used + need > b->partial_floats || split == FKV_CPU_MOST_SPLIT)) {
#pragma omp barrier
            used = 0, split = 0;
        }
        float *partial = b->partial + used;
#pragma omp for schedule(dynamic) nowait
        for (int32_t i = 0; i < units; i++) {
            const struct fkv_attend_unit u = take_unit(a, &items[n], cut, i, partial);
            attend_unit(a, &u);
            if (cut.parts == 1) continue;
            if (atomic_fetch_add(&b->parts_done[split], 1) + 1 < cut.parts) continue;
            atomic_store(&b->parts_done[split], 0);
            join_parts(a, &items[n], cut, partial);
        }
        used += need, split += cut.parts > 1;
    }
}

int fkv_cpu_attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                   const struct fkv_buffer *q, const struct fkv_cache *cache,
                   const struct fkv_span *spans, const struct fkv_attend_item *items, int32_t count,
                   struct fkv_buffer *out, struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct fkv_attention a = {.b = b,
                              .shape = shape,
                              .cache = cache,
                              .spans = spans,
                              .q = fkv_cpu_floats(q),
                              .out = fkv_cpu_floats(out),
                              .rotation = fkv_cpu_rotation(b, shape),
                              .panel = b->panel};
    const int64_t operations = fkv_attend_operations(&a, items, count);
    atomic_int arrived = 0;
#pragma omp parallel num_threads(fkv_cpu_threads(b, operations))
    {
        attend_items(&a, items, count);
        fkv_cpu_meet(b, &arrived, operations);
    }
    return FKV_OK;
}
