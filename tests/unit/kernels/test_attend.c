/* Attention over the cache against the reference: spans with limits and positions of their own,
 * slots with and without biases, several sequences in a call, every head size and group. */
#include "kernels/reference/reference.h"
#include "tests/unit/kernels/backend_support.h"

enum {
    ROUNDS = 4 * ROW_COUNTS,
    SEQUENCES = 5,
    MOST_ITEMS = SEQUENCES * 3 * 8,
    MOST_SPANS = 6,
    MOST_SLOTS = 5000
};

/* A run of slots [first, end) of any position, cut by any limits. */
static struct fkv_span random_span(int first, int end, int rows) {
    struct fkv_span s = {.first = first,
                         .end = end,
                         .from = FKV_NO_LIMIT_BELOW,
                         .until = FKV_NO_LIMIT_ABOVE,
                         .position = random_position(),
                         .fixed = test_between(0, 1)};
    if (test_between(0, 1)) s.from = test_between(first - rows, end + 3);
    if (test_between(0, 1)) s.until = test_between(first - rows, end + 3);
    return s;
}

/* Up to five runs of slots, some empty, then one that is causal or unlimited, so that every row
 * sees something; earlier ones may be cut by either limit, wholly for some rows. */
static int random_spans(int capacity, int rows, struct fkv_span *spans) {
    int count = 0, slot = test_between(0, 2), last = capacity - rows;
    while (count < MOST_SPANS - 1 && slot + 1 < last && test_between(0, 3)) {
        int end = test_between(0, 3) ? test_between(slot + 1, last) : slot;
        spans[count++] = random_span(slot, end, rows);
        slot = end + test_between(0, 2);
    }
    slot = slot < last ? slot : last;
    spans[count] = (struct fkv_span){.first = slot,
                                     .end = capacity,
                                     .from = FKV_NO_LIMIT_BELOW,
                                     .position = random_position(),
                                     .fixed = test_between(0, 1)};
    spans[count].until = test_between(0, 3) ? last + 1 : FKV_NO_LIMIT_ABOVE;
    if (test_between(0, 1)) spans[count].from = last - test_between(0, 5);
    return count + 1;
}

/* Items of a call: of each sequence, a KV head's query heads in one item or each on its own.
 * Sequence i has rows [i (rows + 1), i (rows + 1) + rows) and asks for some of them. */
struct call {
    struct fkv_attend_item items[MOST_ITEMS];
    struct fkv_span spans[MOST_ITEMS * MOST_SPANS];
    int count, used;
};

static void random_call(const struct fkv_attention_shape *s, int sequences, int rows, int capacity,
                        struct call *c) {
    int group = s->heads / s->kv_heads;
    c->count = c->used = 0;
    for (int sequence = 0; sequence < sequences; sequence++)
        for (int h = 0; h < s->kv_heads; h++) {
            int together = test_between(0, 3) ? group : 1;
            for (int head = h * group; head < (h + 1) * group; head += together) {
                int some = test_between(0, 3) ? rows : test_between(1, rows),
                    skip = test_between(0, rows - some);
                struct fkv_attend_item *item = &c->items[c->count++];
                *item = (struct fkv_attend_item){.cache_head = sequence * s->kv_heads + h,
                                                 .head = head,
                                                 .heads = together,
                                                 .row = sequence * (rows + 1) + skip,
                                                 .rows = some,
                                                 .span = c->used};
                item->spans = random_spans(capacity, some, c->spans + c->used);
                c->used += item->spans;
            }
        }
}

/* ---- how far 16-bit attention of a row may lie from exact attention ----
 *
 * The backend under test rounds queries (rotated and scaled), keys, values and weights (of the
 * softmax) to u, and sums in float32. (bfloat16 has 8 significant bits with the leading one: half a
 * unit of the last is 2^-8 of a number at most.) With p the exact weights, o = sum_s p_s v_s and
 * a_s [head_dim] = scale q * k_s channel by channel (a score is the sum of a_s), to first order
 *
 *   error = sum_s p_s (v_s - o) sum_j a_sj (query_j + key_sj) + sum_s p_s v_s (weight_s + value_s),
 *
 * in which the names stand for relative roundings of mean 0, independent of each other. None is
 * larger than u, and what is rounded is spread evenly over half a unit of the last bit on either
 * side: its variance is u^2 / 3 at most. The one rounding of a query serves all slots, whose values
 * have signs of their own, so it adds as much as the key's. The squared length of the error hence
 * has the mean
 *
 *   M = 2/3 u^2 sum_s p_s^2 (|a_s|^2 |v_s - o|^2 + |v_s|^2)   or less,
 *
 * from the row's own weights: neither the row's result (a few channels may happen to cancel) nor
 * other rows (which see other numbers of slots) tell it. A normal vector of that mean is longer
 * than sqrt(M) (1 + t) with a probability below exp(-t^2/2) (Borell, Tsirelson, Ibragimov and
 * Sudakov), also where all of it is in one direction, and a bounded rounding stays nearer to 0 than
 * a normal number. t^2 = 60 is test_chance's. Over all rows of a call the means add up. What rounds
 * a value is spread over the channels, but what rounds a score moves all of a row's channels
 * together: the common length is 1 + t sqrt(1 / head_dim + largest M / sum of M) times the root of
 * the sum at most. What is wrong by little in many rows shows there. */

/* A buffer of the reference, from byte `offset` on. */
static const float *floats_of(const struct fkv_buffer *buffer, size_t offset) {
    return (const float *)((const char *)reference.ops->address(buffer) + offset);
}

/* M of one row of one head: query q [head_dim], row i of an item, expected result o [head_dim]. */
static double mean_square_error(const struct fkv_attention_shape *s, const struct cache *cache,
                                const struct fkv_attend_item *item, const struct fkv_span *spans,
                                int i, const float *q, const float *o, double u) {
    static struct {
        double score, score_square; /* q.k scale + bias, |a_s|^2 */
        const float *value;
    } seen[MOST_SLOTS];
    const struct fkv_cache *c = &cache->reference;
    const float *key = floats_of(c->key, c->offset), *value = floats_of(c->value, c->offset),
                *bias = c->bias ? floats_of(c->bias, c->bias_offset) : NULL;
    int count = 0, d = s->head_dim;
    double turned[256], largest = -INFINITY, total = 0, sum = 0;
    for (const struct fkv_span *span = spans + item->span; span < spans + item->span + item->spans;
         span++) {
        for (int j = 0; j < d; j++) turned[j] = q[j];
        fkv_reference_turn(s, span->fixed ? span->position : span->position + i, turned);
        for (int slot = span->first; slot < span->end; slot++) {
            if (slot < span->from + i || slot >= span->until + i) continue;
            size_t at = fkv_reference_slot(s, c, item->cache_head, slot);
            double score = bias ? bias[at / (size_t)d] : 0, square = 0;
            for (int j = 0; j < d; j++) {
                double a = s->scale * turned[j] * key[at + (size_t)j];
                score += a, square += a * a;
            }
            seen[count].score = score, seen[count].score_square = square;
            seen[count++].value = value + at;
            largest = fmax(largest, score);
        }
    }
    for (int n = 0; n < count; n++) total += exp(seen[n].score - largest);
    for (int n = 0; n < count; n++) {
        double p = exp(seen[n].score - largest) / total, size = 0, apart = 0;
        for (int j = 0; j < d; j++) {
            double v = seen[n].value[j];
            size += v * v, apart += (v - o[j]) * (v - o[j]);
        }
        sum += p * p * (seen[n].score_square * apart + size);
    }
    return 2. / 3 * u * u * sum;
}

/* Every row of every item against its own bound, then all together; what no item asks for is
 * unchanged. */
static void assert_rows_close(const struct fkv_attention_shape *s, const struct cache *cache,
                              const struct fkv_span *spans, const struct fkv_attend_item *items,
                              int count, struct both q, struct both out, double u) {
    float *query = download(reference, q.reference, q.count),
          *found = download(tested, out.tested, out.count),
          *expected = download(reference, out.reference, out.count);
    const size_t d = (size_t)s->head_dim, heads = (size_t)s->heads;
    const double t = sqrt(60);
    double all = 0, all_mean = 0, largest = 0;
    for (const struct fkv_attend_item *item = items; item < items + count; item++)
        for (int i = 0; i < item->rows; i++)
            for (int h = item->head; h < item->head + item->heads; h++) {
                size_t at = ((size_t)(item->row + i) * heads + (size_t)h) * d;
                double mean =
                    mean_square_error(s, cache, item, spans, i, query + at, expected + at, u);
                subtract(found + at, expected + at, d);
                double error = root_mean_square(found + at, d) * sqrt((double)d);
                if (!(error <= (1 + t) * sqrt(mean)))
                    fail_msg("row %d, head %d: error of length %.4g, allowed %.4g", item->row + i,
                             h, error, (1 + t) * sqrt(mean));
                memcpy(found + at, expected + at, sizeof *found * d);
                all += error * error, all_mean += mean, largest = fmax(largest, mean);
            }
    const double allowed = sqrt(all_mean) + t * sqrt(all_mean / (double)d + largest);
    if (!(sqrt(all) <= allowed))
        fail_msg("all rows: error of length %.4g, allowed %.4g", sqrt(all), allowed);
    assert_memory_equal(found, expected, sizeof *found * out.count);
    free(query), free(found), free(expected);
}

/* Gives most caches biases, somewhere in a larger buffer. */
static void random_bias(struct cache *c) {
    if (test_between(0, 3) == 0) return;
    size_t skip = (size_t)test_between(0, 30),
           count = (size_t)c->heads * (size_t)c->tested.capacity;
    float *bias = random_numbers(skip + count, 0, 3);
    c->tested.bias = upload(tested, bias, 4 * (skip + count));
    c->reference.bias = upload(reference, bias, 4 * (skip + count));
    c->tested.bias_offset = c->reference.bias_offset = 4 * skip;
    free(bias);
}

static void release_biased(struct cache *c) {
    tested.ops->buffer_release(tested.b, c->tested.bias);
    reference.ops->buffer_release(reference.b, c->reference.bias);
    release_cache(c);
}

TEST(attention_over_spans_with_limits_and_positions) {
    static struct call c;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        enum fkv_dtype t = random_dtype();
        double u = unit_of(t);
        if (test_between(0, 3) == 0) s.scale *= u == 0 ? 20 : 4; /* one slot takes it all */
        int rows = affordable(0.5 * s.head_dim * (rows_of(round) + 60), rows_of(round));
        int sequences = rows < 10 ? test_between(1, SEQUENCES) : test_between(1, 2),
            all = sequences * (rows + 1);
        if (rows > 40) s.heads /= s.kv_heads, s.kv_heads = 1;
        int capacity = rows + test_between(0, 150), heads = sequences * s.kv_heads;
        struct cache cache =
            random_cache(&s, heads + test_between(0, 2), t, capacity, u == 0 ? 0.2 : 0);
        random_bias(&cache);
        random_call(&s, sequences, rows, capacity, &c);
        reserve_both(
            (struct fkv_limits){.rows = all, .slots = capacity, .items = c.used, .attention = s});
        struct both q = random_both((size_t)all * (size_t)s.heads * (size_t)s.head_dim, 0, 1);
        float *blank = random_numbers(q.count, 0, 1);
        struct both out = upload_both(blank, q.count);
        assert_ok(tested.ops->attend(tested.b, &s, q.tested, &cache.tested, c.spans, c.items,
                                     c.count, out.tested, &err));
        assert_ok(reference.ops->attend(reference.b, &s, q.reference, &cache.reference, c.spans,
                                        c.items, c.count, out.reference, &err));
        if (u == 0)
            assert_both_close(out, 1e-6, s.scale * sqrt(s.head_dim) > 2 ? 2e-4 : 1e-5);
        else
            assert_rows_close(&s, &cache, c.spans, c.items, c.count, q, out, u);
        free(blank);
        release(q), release(out);
        release_biased(&cache);
    }
}

/* Decoding with a long cache: one row each, thousands of slots, so that a backend splits a head's
 * slots among workers and joins what they found. */
TEST(one_row_over_many_slots) {
    for (int round = 0; round < 12; round++) {
        struct fkv_attention_shape s = shape_of(round);
        enum fkv_dtype t = (enum fkv_dtype)(round % 3);
        double u = unit_of(t);
        s.heads /= s.kv_heads, s.kv_heads = 1;
        int sequences = test_between(1, 2),
            capacity = small_sizes() ? test_between(100, 400) : test_between(500, MOST_SLOTS);
        struct cache cache = random_cache(&s, sequences, t, capacity, u == 0 ? 0.2 : 0);
        random_bias(&cache);
        struct fkv_attend_item items[2];
        struct fkv_span spans[6];
        for (int i = 0; i < sequences; i++) {
            int end = test_between(10, capacity), sinks = test_between(0, 4),
                from = test_between(sinks, end - 1);
            spans[3 * i] = (struct fkv_span){
                0, sinks, FKV_NO_LIMIT_BELOW, FKV_NO_LIMIT_ABOVE, random_position(), true};
            spans[3 * i + 1] = (struct fkv_span){
                from, from, FKV_NO_LIMIT_BELOW, FKV_NO_LIMIT_ABOVE, random_position(), false};
            spans[3 * i + 2] =
                (struct fkv_span){from, end, FKV_NO_LIMIT_BELOW, end, random_position(), false};
            items[i] = (struct fkv_attend_item){i, 0, s.heads, i, 1, 3 * i, 3};
        }
        reserve_both(
            (struct fkv_limits){.rows = sequences, .slots = capacity, .items = 6, .attention = s});
        struct both q = random_both((size_t)(sequences * s.heads * s.head_dim), 0, 1),
                    out = random_both(q.count, 0, 1);
        assert_ok(tested.ops->attend(tested.b, &s, q.tested, &cache.tested, spans, items, sequences,
                                     out.tested, &err));
        assert_ok(reference.ops->attend(reference.b, &s, q.reference, &cache.reference, spans,
                                        items, sequences, out.reference, &err));
        if (u == 0)
            assert_both_close(out, 1e-6, 1e-5);
        else
            assert_rows_close(&s, &cache, spans, items, sequences, q, out, u);
        release(q), release(out);
        release_biased(&cache);
    }
}

/* A slot that stands for m tokens: the log of m as its bias counts it m times. Where the host
 * multiplies in 16 bits, a weight of m and m weights are rounded differently, each by u at most:
 * both results are averages of values of up to 4, so they differ by 8 u at most. */
TEST(a_bias_of_log_m_counts_a_slot_m_times) {
    const double u = tested_space == FKV_HOST ? unit_of(FKV_F32) : 0;
    for (int round = 0; round < 12; round++) {
        struct fkv_attention_shape s = shape_of(round);
        s.heads /= s.kv_heads, s.kv_heads = 1;
        int distinct = test_between(1, 40), d = s.head_dim, slots = 0, of[400];
        float *bias = numbers(400);
        for (int i = 0; i < distinct; i++) {
            int times = test_between(1, 10);
            bias[i] = logf((float)times);
            for (int k = 0; k < times; k++) of[slots++] = i;
        }
        float *once[2], *repeated[2];
        struct fkv_buffer *few[2], *many[2];
        for (int state_of = 0; state_of < 2; state_of++) {
            once[state_of] = random_numbers((size_t)(distinct * d), 0, 1);
            repeated[state_of] = numbers((size_t)(slots * d));
            for (int i = 0; i < slots; i++)
                memcpy(repeated[state_of] + i * d, once[state_of] + of[i] * d, 4 * (size_t)d);
            few[state_of] = upload(tested, once[state_of], 4 * (size_t)(distinct * d));
            many[state_of] = upload(tested, repeated[state_of], 4 * (size_t)(slots * d));
            free(once[state_of]), free(repeated[state_of]);
        }
        struct fkv_cache light = {.key = few[0],
                                  .value = few[1],
                                  .capacity = distinct,
                                  .bias = upload(tested, bias, 4 * (size_t)distinct)};
        struct fkv_cache full = {.key = many[0], .value = many[1], .capacity = slots};
        struct fkv_span span = {.end = distinct,
                                .from = FKV_NO_LIMIT_BELOW,
                                .until = FKV_NO_LIMIT_ABOVE,
                                .position = 3,
                                .fixed = true};
        struct fkv_attend_item item = {.heads = s.heads, .rows = test_between(1, 20), .spans = 1};
        reserve_both(
            (struct fkv_limits){.rows = item.rows, .slots = slots, .items = 1, .attention = s});
        size_t count = (size_t)(item.rows * s.heads * d);
        struct both q = random_both(count, 0, 1), a = random_both(count, 0, 1),
                    b = random_both(count, 0, 1);
        assert_ok(
            tested.ops->attend(tested.b, &s, q.tested, &light, &span, &item, 1, a.tested, &err));
        span.end = slots;
        assert_ok(
            tested.ops->attend(tested.b, &s, q.tested, &full, &span, &item, 1, b.tested, &err));
        float *found = download(tested, a.tested, count),
              *expected = download(tested, b.tested, count);
        assert_arrays_close(found, expected, count, 1e-5 + 8 * u, 1e-4);
        free(found), free(expected), free(bias);
        release(q), release(a), release(b);
        tested.ops->buffer_release(tested.b, light.bias);
        for (int i = 0; i < 2; i++)
            tested.ops->buffer_release(tested.b, few[i]),
                tested.ops->buffer_release(tested.b, many[i]);
    }
}

/* One item per cache head, as the operation wants it; slots beyond the spans keep what they had. */
TEST(attention_paid_adds_the_weights_of_rows_and_heads) {
    static struct fkv_attend_item items[MOST_ITEMS];
    static struct fkv_span spans[MOST_ITEMS * MOST_SPANS];
    for (int round = 0; round < ROUNDS / 2; round++) {
        struct fkv_attention_shape s = shape_of(round);
        enum fkv_dtype t = random_dtype();
        int rows = affordable(2.0 * s.head_dim * s.heads * 60, test_between(1, 40)),
            sequences = test_between(1, 3), capacity = rows + test_between(0, 150),
            heads = sequences * s.kv_heads, used = 0;
        struct cache cache = random_cache(&s, heads, t, capacity, 0);
        random_bias(&cache);
        for (int h = 0; h < heads; h++) {
            int group = s.heads / s.kv_heads;
            items[h] = (struct fkv_attend_item){.cache_head = h,
                                                .head = h % s.kv_heads * group,
                                                .heads = group,
                                                .row = h / s.kv_heads * rows,
                                                .rows = test_between(1, rows),
                                                .span = used};
            items[h].spans = random_spans(capacity, items[h].rows, spans + used);
            used += items[h].spans;
        }
        reserve_both((struct fkv_limits){
            .rows = sequences * rows, .slots = capacity, .items = used, .attention = s});
        struct both q =
            random_both((size_t)(sequences * rows) * (size_t)s.heads * (size_t)s.head_dim, 0, 1);
        size_t skip = (size_t)test_between(0, 20);
        struct both paid = random_both(skip + (size_t)heads * (size_t)capacity, 1, 0.1);
        assert_ok(tested.ops->attention_paid(tested.b, &s, q.tested, &cache.tested, spans, items,
                                             heads, paid.tested, 4 * skip, &err));
        assert_ok(reference.ops->attention_paid(reference.b, &s, q.reference, &cache.reference,
                                                spans, items, heads, paid.reference, 4 * skip,
                                                &err));
        assert_both_close(paid, 1e-5, 5e-5);
        release(q), release(paid);
        release_biased(&cache);
    }
}

TEST_GROUP(open_both, close_both)
