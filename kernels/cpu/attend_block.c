/* Attention of many stacked rows (prefill), a panel of them at a time (simd_panel.h).
 *
 * A tile of SLOTS slots is made ready once, for all panels of the unit: a float32 cache is read
 * where it is, one of 16 bits is converted. Products in bfloat16 take keys as a bfloat16 cache has
 * them, and values as the panel packs them. SLOTS: a panel's scores of a tile stay in the
 * first-level cache (24 KB of AVX-512); a unit's queries, sums and tile stay in the second-level
 * cache.
 *
 * The slots of a tile that no row of a panel sees are left out of that panel's products, so that a
 * causal block costs little more than the half that it has to. */
#include "kernels/cpu/attend.h"

enum { SLOTS = 128, ROWS_AHEAD = 4 };

struct block {
    int32_t panels, words; /* words of a query or key */
    size_t panel_floats;   /* head_dim * rows of a panel */
    float *q;              /* [panels, words, rows of a panel] rotated and scaled */
    float *out;            /* [panels, head_dim, rows of a panel] sums of weight x value */
    float *largest;        /* [panels, rows of a panel] */
    float *sum;            /* [panels, rows of a panel] of weights */
    float *score;          /* [SLOTS, rows of a panel] */
    float *key;            /* [SLOTS, words] */
    float *value;          /* [SLOTS, head_dim] numbers, packed */
    float *expanded;       /* [SLOTS, head_dim] a tile on its way from one format to another */
    float *shrink;         /* [rows of a panel] */
    float *turn;           /* [head_dim] */
    int32_t *low, *high;   /* [rows of a panel] slots of a span that a row sees */
};

static int32_t panels_of(const struct fkv_panel *panel, int32_t stacked) {
    return (stacked + panel->rows - 1) / panel->rows;
}

size_t fkv_attend_block_scratch(const struct fkv_panel *panel, int32_t stacked, int32_t head_dim) {
    size_t d = (size_t)head_dim, rows = (size_t)panel->rows,
           panels = (size_t)panels_of(panel, stacked);
    return panels * rows * (2 * d + 2) + SLOTS * rows + 3 * SLOTS * d + 3 * rows + d;
}

static struct block lay_out(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    const size_t d = (size_t)a->shape->head_dim, rows = (size_t)a->panel->rows;
    struct block k = {.panels = panels_of(a->panel, u->stacked),
                      .words = a->shape->head_dim / a->panel->step,
                      .panel_floats = d * rows,
                      .q = u->scratch};
    const size_t panels = (size_t)k.panels;
    k.out = k.q + panels * k.panel_floats;
    k.score = k.out + panels * k.panel_floats;
    k.largest = k.score + SLOTS * rows;
    k.sum = k.largest + panels * rows;
    k.shrink = k.sum + panels * rows;
    k.low = (int32_t *)(void *)(k.shrink + rows);
    k.high = k.low + rows;
    k.key = k.shrink + 3 * rows;
    k.value = k.key + SLOTS * d;
    k.expanded = k.value + SLOTS * d;
    k.turn = k.expanded + SLOTS * d;
    return k;
}

static void start(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    struct block k = lay_out(a, u);
    const int32_t rows = k.panels * a->panel->rows;
    memset(k.out, 0, (size_t)k.panels * k.panel_floats * sizeof *k.out);
    for (int32_t i = 0; i < rows; i++) k.largest[i] = -INFINITY, k.sum[i] = 0;
}

/* The queries of the row that stacked row i belongs to, on their way to the first-level cache:
 * those of a KV head are short pieces far apart, which the processor does not foresee. */
static void fetch_row(const struct fkv_attention *a, const struct fkv_attend_unit *u, int32_t i) {
    const size_t floats = (size_t)u->item->heads * (size_t)a->shape->head_dim;
    if (i >= u->stacked) return;
    const float *row = a->q + fkv_attend_row(a, u, i);
    for (size_t c = 0; c < floats; c += 64 / sizeof *row) __builtin_prefetch(row + c);
}

/* The queries, a lane each. Lanes beyond the last row repeat it and are not stored. */
static void load_queries(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                         const struct fkv_span *span, struct block k) {
    const int32_t rows = a->panel->rows;
    const size_t d = (size_t)a->shape->head_dim;
    const float *turn = NULL;
    float *query = k.expanded;
    for (int32_t i = 0; i < k.panels * rows; i++) {
        float *to = k.q + (size_t)(i / rows) * k.panel_floats + (size_t)(i % rows);
        if (i < u->stacked) {
            if (i % u->item->heads == 0) {
                fetch_row(a, u, i + ROWS_AHEAD * u->item->heads);
                turn = fkv_attend_turn(a, u, span, i, k.turn);
            }
            fkv_attend_query(a, u, i, turn, query);
            if (a->b->widens) a->b->round_wide(query, d, query);
            if (a->panel->step == 2) a->b->round_bf16(query, d, (uint16_t *)(void *)query);
        }
        for (int32_t c = 0; c < k.words; c++) to[(size_t)c * (size_t)rows] = query[c];
    }
}

/* `count` numbers of the cache in the panel's format: the cache itself where it has that, else a
 * copy in `to`. */
static const void *in_format(const struct fkv_attention *a, const char *from, size_t count,
                             float *expanded, float *to) {
    const enum fkv_dtype t = a->panel->step == 1 ? FKV_F32 : FKV_BF16;
    const bool rounds = a->b->widens && a->cache->dtype != FKV_BF16;
    if (a->cache->dtype == t && !rounds) return from;
    if (t == FKV_F32) {
        fkv_to_f32(from, a->cache->dtype, count, to);
        if (rounds) a->b->round_wide(to, count, to);
        return to;
    }
    const float *floats = (const float *)(const void *)from;
    if (a->cache->dtype != FKV_F32) {
        fkv_to_f32(from, a->cache->dtype, count, expanded);
        floats = expanded;
    }
    a->b->round_bf16(floats, count, (uint16_t *)(void *)to);
    return to;
}

/* Values of `slots` slots as the panel takes them. Uses the scratch of the keys, so it comes before
 * them. */
static const void *packed_values(const struct fkv_attention *a, const char *from, int32_t slots,
                                 struct block k) {
    const size_t count = (size_t)slots * (size_t)a->shape->head_dim;
    if (!a->panel->pack_values) return in_format(a, from, count, k.expanded, k.value);
    const uint16_t *value = in_format(a, from, count, k.expanded, k.key);
    a->panel->pack_values(value, slots, a->shape->head_dim, k.value);
    return k.value;
}

/* A tile of keys and values in the panel's format. */
struct tile {
    int32_t slot, end; /* slots [slot, end) of the span */
    const char *key;   /* [end - slot, words] */
    const char *value; /* packed */
};

static struct tile load_tile(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                             int32_t slot, int32_t end, struct block k) {
    const int32_t d = a->shape->head_dim, head = u->item->cache_head, slots = end - slot;
    const char *key = fkv_cpu_slot(a->cache->key, a->cache, d, head, slot),
               *value = fkv_cpu_slot(a->cache->value, a->cache, d, head, slot);
    struct tile t = {.slot = slot, .end = end};
    t.value = packed_values(a, value, slots, k);
    t.key = in_format(a, key, (size_t)slots * (size_t)d, k.expanded, k.key);
    return t;
}

/* Scores of a panel, capped, with the biases of their slots after that. */
static void cap_scores(const struct fkv_attention *a, const float *bias, int32_t slots,
                       float *score) {
    const int32_t rows = a->panel->rows;
    a->b->simd->cap(score, (size_t)slots * (size_t)rows, a->shape->softcap);
    for (int32_t s = 0; bias && s < slots; s++)
        for (int32_t i = 0; i < rows; i++) score[s * rows + i] += bias[s];
}

/* Panel p takes in the slots of a tile that its rows see. */
static void take_tile(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                      const struct fkv_span *span, struct tile t, int32_t p, struct block k) {
    const struct fkv_panel *panel = a->panel;
    const int32_t rows = panel->rows, first = p * rows, heads = u->item->heads,
                  last = fkv_attend_least(first + rows, u->stacked) - 1;
    int32_t low, all_from, all_to, high;
    fkv_attend_limits(span, u->first + first / heads, &low, &all_to);
    fkv_attend_limits(span, u->first + last / heads, &all_from, &high);
    low = fkv_attend_most(low, t.slot), high = fkv_attend_least(high, t.end);
    if (low >= high) return;
    low -= (low - t.slot) % panel->whole; /* the mask takes these slots out again */
    const int32_t slots = high - low, skipped = low - t.slot;
    const size_t word = sizeof(float), at = (size_t)first;
    const float *bias = fkv_attend_bias(a, u, low);
    const bool capped = a->shape->softcap > 0;
    panel->score(t.key + (size_t)skipped * (size_t)k.words * word, slots, k.words,
                 k.q + (size_t)p * k.panel_floats, capped ? NULL : bias, k.score);
    if (capped) cap_scores(a, bias, slots, k.score);
    if (all_from > low || all_to < high) {
        for (int32_t i = 0; i < rows; i++)
            fkv_attend_limits(span, u->first + fkv_attend_least(first + i, last) / heads, &k.low[i],
                              &k.high[i]);
        panel->mask(k.score, slots, low, k.low, k.high);
    }
    panel->soften(k.score, slots, k.largest + at, k.sum + at, k.shrink);
    if (a->b->widens) a->b->round_wide(k.score, (size_t)slots * (size_t)rows, k.score);
    panel->mix(k.score, slots,
               t.value + (size_t)(skipped / panel->step) * (size_t)a->shape->head_dim * word,
               a->shape->head_dim, k.shrink, k.out + (size_t)p * k.panel_floats);
}

static void take(const struct fkv_attention *a, const struct fkv_attend_unit *u,
                 const struct fkv_span *span, int32_t low, int32_t high) {
    struct block k = lay_out(a, u);
    load_queries(a, u, span, k);
    for (int32_t slot = low; slot < high; slot += SLOTS) {
        struct tile t = load_tile(a, u, slot, fkv_attend_least(slot + SLOTS, high), k);
        for (int32_t p = 0; p < k.panels; p++) take_tile(a, u, span, t, p, k);
    }
}

static void finish(const struct fkv_attention *a, const struct fkv_attend_unit *u) {
    struct block k = lay_out(a, u);
    const size_t d = (size_t)a->shape->head_dim, rows = (size_t)a->panel->rows;
    float *row = k.expanded;
    for (int32_t i = 0; i < u->stacked; i++) {
        const float *from = k.out + (size_t)i / rows * k.panel_floats + (size_t)i % rows;
        for (size_t c = 0; c < d; c++) row[c] = from[c * rows];
        fkv_attend_store(a, u, i, row, k.largest[i], k.sum[i]);
    }
}

const struct fkv_attend_way fkv_attend_block = {start, take, finish};
