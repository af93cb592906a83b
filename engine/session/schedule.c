/* The heads' schedules. What is due before the first row of a feed is done for all layers and
 * sequences together: one call per distinct map and one of gather, however many heads are full
 * (per rotation, where layers turn by several), because on an accelerator a call for one layer
 * leaves most of it idle. With blocks smaller than the distance between two compressions that is
 * nearly all there is, and while decoding all of it. A head that fills up inside the block acts
 * with its layer: there every KV head of every sequence appends and attends up to its own trigger,
 * acts, and goes on, in rounds: each round is at most one call each of append, attend, compress
 * (per map) and gather. Triggers depend only on counters, so nothing waits for the device, but for
 * the scores of a selecting policy (select.c). */
#include <math.h>
#include <string.h>

#include "engine/cache/slots.h"
#include "engine/session/session_internal.h"
#include "engine/session/taps.h"

/* What answers for a head. */
static const struct fkv_policy *policy_of(const struct fkv_session *s,
                                          const struct fkv_head *head) {
    return fkv_policy_of_layer(&s->setup, head->layer);
}

/* What its actions and evictions count as; a layer that slides by itself counts none. */
static const struct fkv_policy *counted_as(const struct fkv_session *s,
                                           const struct fkv_head *head) {
    const struct fkv_policy *policy = policy_of(s, head);
    if (policy != s->setup.policy) return policy;
    return fkv_policy_of_head(&s->setup, head->layer * s->setup.kv_heads + head->kv_head);
}

int32_t session_held_slots(const struct fkv_session *s, const struct fkv_head *head,
                           int32_t slots) {
    const int32_t window = s->setup.layer_windows[head->layer];
    if (s->setup.policy->choose && policy_of(s, head) == s->setup.policy) return slots;
    if (slots > s->setup.most_seen) slots = s->setup.most_seen;
    return window && slots > window ? window : slots;
}

/* The peak of each head counts on its own: within a block the layers do not fill at the same
 * moment, and the block size must not show. */
static void set_slots(struct fkv_session *s, struct fkv_head *head, int32_t slots) {
    const int32_t held = session_held_slots(s, head, slots);
    int32_t *peak = &s->peak_slots[head - s->heads];
    int64_t *bytes = &s->peak_bytes[head->sequence];
    if (held > *peak) {
        *bytes += (held - *peak) * 2 *
                  (int64_t)fkv_policy_state_bytes(&s->setup, s->model->config.head_dim,
                                                  s->options.cache_dtype);
        *peak = held;
        if (*bytes > s->statistics.cache_bytes_peak) s->statistics.cache_bytes_peak = *bytes;
    }
    head->slots = slots;
}

/* ---- acting ---- */

/* The items of heads that turn alike and whose action is this map, one call. */
static int compress_alike(struct fkv_session *s, int32_t count, const struct prepared_map *map,
                          int32_t rotation, bool measure, struct fkv_error *err) {
    struct round_items *it = &s->items;
    struct fkv_cache cache = session_cache(s, 0);
    int32_t items = 0;
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_action *a = &it->actions[i];
        if (!session_map_is(map, a) || session_rotation(s, it->acting[i]->layer) != rotation)
            continue;
        it->item_head[items] = i;
        it->compress[items++] =
            (struct fkv_compress_item){.cache_head = (int32_t)(it->acting[i] - s->heads),
                                       .slot = a->map_slot,
                                       .position = a->map_slot};
    }
    if (!items) return FKV_OK;
    if (s->ops->compress(s->backend, &s->attention[rotation], map->map, &cache, it->compress, items,
                         measure ? it->measured : NULL, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < items && measure; i++) it->energy[it->item_head[i]] = it->measured[i];
    return FKV_OK;
}

/* The gathers of heads that turn alike, one call. */
static int gather_alike(struct fkv_session *s, int32_t count, int32_t rotation, bool measure,
                        struct fkv_error *err) {
    struct round_items *it = &s->items;
    struct fkv_cache cache = session_cache(s, 0);
    int32_t items = 0;
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_action *a = &it->actions[i];
        if (!a->gather_count || session_rotation(s, it->acting[i]->layer) != rotation) continue;
        it->item_head[items] = i;
        it->gather[items++] =
            (struct fkv_gather_item){.cache_head = (int32_t)(it->acting[i] - s->heads),
                                     .slot = a->gather_slot,
                                     .count = a->gather_count,
                                     .from = a->gather_from,
                                     .shift = a->gather_shift};
    }
    if (!items) return FKV_OK;
    if (s->ops->gather(s->backend, &s->attention[rotation], &cache, it->gather, items,
                       measure ? it->measured : NULL, err))
        return FKV_FAILED;
    /* A gather after a map moves what the map left alone; the action's energy is then the map's. */
    for (int32_t i = 0; i < items && measure; i++)
        if (!it->actions[it->item_head[i]].map_n) it->energy[it->item_head[i]] = it->measured[i];
    return FKV_OK;
}

static int act_on_cache(struct fkv_session *s, int32_t count, bool measure, struct fkv_error *err) {
    for (int32_t r = 0; r <= FKV_MOST_ROTATIONS; r++) {
        for (int32_t m = 0; m < s->map_count; m++)
            if (compress_alike(s, count, &s->maps[m], r, measure, err)) return FKV_FAILED;
        if (gather_alike(s, count, r, measure, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* Runs the actions of the first `count` acting heads, on the backend's stopwatch, and tells the
 * tap. The device waits for energies, so they are computed only where a tap reads them. */
static int act(struct fkv_session *s, int32_t count, struct fkv_error *err) {
    if (!count) return FKV_OK;
    struct round_items *it = &s->items;
    const struct tap *tap = &s->taps[FKV_SITE_ACTION];
    bool measure = tap->function && s->options.measure_energy;
    if (s->ops->time_begin(s->backend, err)) return FKV_FAILED;
    for (int32_t i = 0; i < count; i++) {
        it->actions[i] = (struct fkv_action){.gather_from = it->actions[i].gather_from,
                                             .slots = it->acting[i]->slots};
        const struct fkv_policy *policy = policy_of(s, it->acting[i]);
        if (!policy->select)
            policy->act(&s->setup, it->acting[i], &it->actions[i]);
        else if (session_select(s, it->acting[i], &it->actions[i], err))
            return FKV_FAILED;
        it->energy[i] = (struct fkv_energy){NAN, NAN, NAN, NAN};
    }
    if (act_on_cache(s, count, measure, err) || s->ops->time_end(s->backend, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < count; i++) {
        struct fkv_head *head = it->acting[i];
        if (s->bias) session_move_biases(s, head, &it->actions[i]);
        set_slots(s, head, it->actions[i].slots);
        if (policy_of(s, head) != s->setup.policy) continue;
        s->statistics.compressions += counted_as(s, head)->counts_compressions;
        s->statistics.evictions += counted_as(s, head)->counts_evictions;
        head->rounds++;
        head->tokens_since = 0;
        struct fkv_tap_event event = {.site = FKV_SITE_ACTION,
                                      .layer = head->layer,
                                      .sequence = head->sequence,
                                      .token = head->tokens,
                                      .head = head,
                                      .energy = &it->energy[i]};
        if (tap->function && tap->function(tap->context, &event, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static bool is_full(const struct fkv_session *s, const struct fkv_head *head) {
    return policy_of(s, head)->append_limit(&s->setup, head) < 1;
}

static int refuse_full(const struct fkv_session *s, const struct fkv_head *head,
                       struct fkv_error *err) {
    return fkv_fail(
        err,
        "policy %s: sequence %d, layer %d, KV head %d: the cache of %d slots is full at token %lld",
        s->setup.policy->name, head->sequence, head->layer, head->kv_head, s->setup.capacity,
        (long long)head->tokens);
}

int session_act_before(struct fkv_session *s, struct fkv_error *err) {
    int32_t acting = 0;
    for (int32_t l = 0; l < s->setup.layers; l++)
        for (int32_t f = 0; f < s->fed_count; f++)
            for (int32_t h = 0; h < s->setup.kv_heads; h++) {
                struct fkv_head *head = session_head(s, l, s->fed[f].sequence, h);
                if (is_full(s, head)) s->items.acting[acting++] = head;
            }
    if (act(s, acting, err) || session_write_biases(s, err)) return FKV_FAILED;
    for (int32_t i = 0; i < acting; i++)
        if (is_full(s, s->items.acting[i])) return refuse_full(s, s->items.acting[i], err);
    return FKV_OK;
}

/* ---- attending ---- */

/* Adds what the rows of an item see to the means over heads. */
static void count_slots(struct fkv_session *s, const struct fkv_attend_item *item) {
    const double share = (double)item->heads / ((double)s->setup.layers * s->model->config.heads);
    for (int32_t i = 0; i < item->rows; i++)
        s->row_state[item->row + i].slots +=
            share * fkv_visible_slots(s->items.spans + item->span, item->spans, i);
}

/* Adds the state of a head's newest rows to the means over heads. What it does not count has never
 * happened to it. */
static void count_rounds(struct fkv_session *s, const struct fkv_head *head, int32_t row,
                         int32_t rows) {
    const double share = 1.0 / ((double)s->setup.layers * s->setup.kv_heads);
    const struct fkv_policy *policy = counted_as(s, head);
    for (int32_t i = 0; i < rows; i++) {
        struct fkv_row_state *state = &s->row_state[row + i];
        const int64_t tokens = head->tokens - rows + 1 + i, beyond = tokens - s->setup.most_seen;
        const int32_t since = head->tokens_since - rows + 1 + i;
        const bool compresses = policy->counts_compressions, acts = policy->counts_evictions;
        int64_t evictions = acts ? head->rounds : 0, since_eviction = acts ? since : tokens;
        if (policy->evicts_every_token && beyond > 0) evictions = beyond, since_eviction = 1;
        state->compressions += share * (compresses ? head->rounds : 0);
        state->since_compression += share * (double)(compresses ? since : tokens);
        state->evictions += share * (double)evictions;
        state->since_eviction += share * (double)since_eviction;
    }
}

/* Item `item` of a call to attend: the policy's view for `rows` rows from `row` on of the block,
 * with empty spans added, because a decode step has the same counts at every token. */
static void set_attend_item(struct fkv_session *s, const struct fkv_head *head, int32_t row,
                            int32_t rows, int32_t item) {
    const int32_t group = s->model->config.heads / s->setup.kv_heads, most = s->setup.max_spans,
                  first_span = item * most;
    struct fkv_span *spans = &s->items.spans[first_span];
    const int32_t count = policy_of(s, head)->view(&s->setup, head, rows, spans);
    for (int32_t i = count; i < most; i++)
        spans[i] = (struct fkv_span){.from = FKV_NO_LIMIT_BELOW, .until = FKV_NO_LIMIT_ABOVE};
    s->items.attend[item] =
        (struct fkv_attend_item){.cache_head = head->sequence * s->setup.kv_heads + head->kv_head,
                                 .head = head->kv_head * group,
                                 .heads = group,
                                 .row = row,
                                 .rows = rows,
                                 .span = first_span,
                                 .spans = most};
}

/* Of the next `count` tokens of a head, those that drop another from view. */
static int32_t tokens_that_evict(const struct fkv_session *s, const struct fkv_head *head,
                                 int32_t count) {
    const int64_t beyond = head->tokens + count - s->setup.most_seen;
    return beyond < 0 ? 0 : beyond < count ? (int32_t)beyond : count;
}

/* One round of appending and attending; *left is the number of heads that still have rows to go. */
static int append_and_attend(struct fkv_session *s, int32_t layer, int32_t *left,
                             struct fkv_error *err) {
    struct round_items *it = &s->items;
    const int32_t kv_heads = s->setup.kv_heads;
    int32_t items = 0, attending = 0;
    *left = 0;
    for (int32_t i = 0; i < s->fed_count * kv_heads; i++) {
        const struct fed *fed = &s->fed[i / kv_heads];
        struct fkv_head *head = session_head(s, layer, fed->sequence, i % kv_heads);
        int32_t row = fed->row + it->next_row[i], count = fed->rows - it->next_row[i];
        if (!count) continue;
        const struct fkv_policy *policy = policy_of(s, head);
        const int32_t limit = policy->append_limit(&s->setup, head);
        if (limit < 1) return refuse_full(s, head, err);
        if (count > limit) count = limit;
        it->append[items++] =
            (struct fkv_append_item){.cache_head = fed->sequence * kv_heads + head->kv_head,
                                     .kv_head = head->kv_head,
                                     .row = row,
                                     .rows = count,
                                     .slot = head->slots,
                                     .position = policy->position(&s->setup, head)};
        set_slots(s, head, head->slots + count);
        if (counted_as(s, head)->evicts_every_token)
            s->statistics.evictions += tokens_that_evict(s, head, count);
        head->tokens += count;
        head->tokens_since += count;
        count_rounds(s, head, row, count);
        if (session_chooses(s, head))
            attending += session_choose(s, head, row, count, attending);
        else
            set_attend_item(s, head, row, count, attending++);
        it->next_row[i] += count;
        *left += it->next_row[i] < fed->rows;
    }
    for (int32_t i = 0; i < attending; i++) count_slots(s, &it->attend[i]);
    const struct fkv_attention_shape *shape = session_attention(s, layer);
    struct fkv_cache cache = session_cache(s, layer);
    if (s->ops->append(s->backend, shape, s->k, s->v, &cache, it->append, items, err))
        return FKV_FAILED;
    if (s->ops->attend(s->backend, shape, s->q, &cache, it->spans, it->attend, attending,
                       s->attended, err))
        return FKV_FAILED;
    return session_observe(s, layer, attending, err) || session_end_chunks(s, layer, items, err)
               ? FKV_FAILED
               : FKV_OK;
}

int session_run_schedule(struct fkv_session *s, int32_t layer, struct fkv_error *err) {
    const int32_t kv_heads = s->setup.kv_heads;
    memset(s->items.next_row, 0, (size_t)(s->fed_count * kv_heads) * sizeof *s->items.next_row);
    if (session_read_queries(s, layer, err)) return FKV_FAILED;
    for (;;) {
        int32_t left, acting = 0;
        if (append_and_attend(s, layer, &left, err)) return FKV_FAILED;
        if (!left) return FKV_OK;
        for (int32_t i = 0; i < s->fed_count * kv_heads; i++) {
            const struct fed *fed = &s->fed[i / kv_heads];
            struct fkv_head *head = session_head(s, layer, fed->sequence, i % kv_heads);
            if (s->items.next_row[i] < fed->rows && is_full(s, head))
                s->items.acting[acting++] = head;
        }
        if (act(s, acting, err) || session_write_biases(s, err)) return FKV_FAILED;
    }
}
