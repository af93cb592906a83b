/* One layer's pass over its heads' schedules. A block of rows has gone through the projections at once; here every KV head appends and attends
 * up to its own trigger, acts, and goes on, in rounds: each round is at most one call each of compress, gather, append and attend, over
 * all heads that take part in it. Triggers depend only on counters, so nothing waits for the device. */
#include <math.h>
#include <string.h>

#include "engine/session_internal.h"
#include "kernels/base/progress.h"

/* The peak is each head's own, summed: within a block the layers do not fill at the same moment, and the block size must not show. Slots
 * beyond the window wait to be dropped in bulk and no query sees them, so they do not count. */
static void set_slots(struct fkv_session *s, struct fkv_head *head, int32_t slots) {
    int32_t held = s->setup.policy->has_window && slots > s->setup.window ? s->setup.window : slots;
    int32_t *peak = &s->peak_slots[head - s->heads];
    if (held > *peak) {
        s->statistics.cache_bytes_peak += (held - *peak) * 2 * (int64_t)session_slot_bytes(s);
        *peak = held;
    }
    head->slots = slots;
}

/* ---- acting ---- */

static int compress_acting(struct fkv_session *s, int32_t layer, int32_t count, bool measure, struct fkv_error *err) {
    struct round_items *it = &s->items;
    struct fkv_cache_layer cache = session_cache_layer(s, layer);
    for (int32_t m = 0; m < s->map_count; m++) {
        const struct prepared_map *map = &s->maps[m];
        int32_t items = 0;
        for (int32_t i = 0; i < count; i++) {
            const struct fkv_action *a = &it->actions[i];
            if (a->map_n != map->n || a->map_retained != map->retained || a->map_gain != map->gain) continue;
            it->of[items] = i;
            it->compress[items++] = (struct fkv_compress_item){
                .kv_head = it->acting[i]->kv_head, .slot = a->map_slot, .position = a->map_slot};
        }
        if (!items) continue;
        if (s->ops->compress(s->backend, &s->model->attention, map->map, &cache, it->compress, items,
                             measure ? it->measured : NULL, err))
            return FKV_FAILED;
        for (int32_t i = 0; i < items && measure; i++) it->energy[it->of[i]] = it->measured[i];
    }
    return FKV_OK;
}

static int gather_acting(struct fkv_session *s, int32_t layer, int32_t count, bool measure, struct fkv_error *err) {
    struct round_items *it = &s->items;
    struct fkv_cache_layer cache = session_cache_layer(s, layer);
    int32_t items = 0;
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_action *a = &it->actions[i];
        if (!a->gather_count) continue;
        it->of[items] = i;
        it->gather[items++] = (struct fkv_gather_item){.kv_head = it->acting[i]->kv_head,
                                                       .slot = a->gather_slot,
                                                       .count = a->gather_count,
                                                       .from = a->gather_from,
                                                       .shift = a->gather_shift};
    }
    if (!items) return FKV_OK;
    if (s->ops->gather(s->backend, &s->model->attention, &cache, it->gather, items, measure ? it->measured : NULL, err))
        return FKV_FAILED;
    /* A gather after a map moves what the map left alone; the action's energy is then the map's. */
    for (int32_t i = 0; i < items && measure; i++)
        if (!it->actions[it->of[i]].map_n) it->energy[it->of[i]] = it->measured[i];
    return FKV_OK;
}

/* Runs the actions of the first `count` acting heads and tells the tap. */
static int act(struct fkv_session *s, int32_t layer, int32_t count, struct fkv_error *err) {
    if (!count) return FKV_OK;
    struct round_items *it = &s->items;
    const struct tap *tap = &s->taps[FKV_SITE_ACTION];
    bool measure = tap->function && s->options.measure_energy;
    double started = fkv_seconds();
    for (int32_t i = 0; i < count; i++) {
        s->setup.policy->act(&s->setup, it->acting[i], NULL, &it->actions[i]);
        it->energy[i] = (struct fkv_energy){NAN, NAN, NAN, NAN};
    }
    if (compress_acting(s, layer, count, measure, err) || gather_acting(s, layer, count, measure, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < count; i++) {
        struct fkv_head *head = it->acting[i];
        set_slots(s, head, it->actions[i].slots);
        head->rounds++;
        head->since = 0;
        struct fkv_tap_event event = {
            .site = FKV_SITE_ACTION, .layer = layer, .token = head->tokens, .head = head, .energy = &it->energy[i]};
        if (tap->function && tap->function(tap->context, &event, err)) return FKV_FAILED;
    }
    s->statistics.actions += count;
    s->statistics.seconds_acting += fkv_seconds() - started;
    return FKV_OK;
}

int session_act_now(struct fkv_session *s, int32_t layer, struct fkv_error *err) {
    for (int32_t h = 0; h < s->setup.kv_heads; h++) s->items.acting[h] = session_head(s, layer, h);
    return act(s, layer, s->setup.kv_heads, err);
}

/* ---- attending ---- */

/* Slots that row i of an item sees through its spans. */
static int32_t visible_slots(const struct fkv_span *spans, int32_t count, int32_t i) {
    int32_t visible = 0;
    for (int32_t k = 0; k < count; k++) {
        int32_t low = spans[k].from + i, high = spans[k].until + i;
        if (low < spans[k].first) low = spans[k].first;
        if (high > spans[k].end) high = spans[k].end;
        if (high > low) visible += high - low;
    }
    return visible;
}

static void add_attend_items(struct fkv_session *s, const struct fkv_head *head, int32_t row, int32_t rows,
                             int32_t *items, int32_t *spans) {
    const struct fkv_policy *policy = s->setup.policy;
    int32_t group = s->model->config.heads / s->setup.kv_heads, views = policy->per_query_head ? group : 1;
    double share = 1.0 / ((double)s->setup.layers * s->setup.kv_heads);
    for (int32_t i = 0; i < rows; i++) {
        s->row_round[row + i] += share * head->rounds;
        s->row_since[row + i] += share * (head->since - rows + 1 + i);
    }
    for (int32_t g = 0; g < views; g++) {
        int32_t first = head->kv_head * group + g, query_head = policy->per_query_head ? first : -1;
        struct fkv_span *span = &s->items.spans[*spans];
        int32_t count = policy->view(&s->setup, head, query_head, rows, NULL, span);
        s->items.attend[(*items)++] = (struct fkv_attend_item){.kv_head = head->kv_head,
                                                               .head = first,
                                                               .heads = group / views,
                                                               .row = row,
                                                               .rows = rows,
                                                               .span = *spans,
                                                               .spans = count};
        for (int32_t i = 0; i < rows; i++) s->row_slots[row + i] += share / views * visible_slots(span, count, i);
        *spans += count;
    }
}

/* One round of appending and attending; *left is the number of heads that still have rows to go. */
static int append_and_attend(struct fkv_session *s, int32_t layer, int32_t rows, int32_t *left, struct fkv_error *err) {
    struct round_items *it = &s->items;
    struct fkv_cache_layer cache = session_cache_layer(s, layer);
    int32_t appends = 0, attends = 0, spans = 0;
    *left = 0;
    for (int32_t h = 0; h < s->setup.kv_heads; h++) {
        struct fkv_head *head = session_head(s, layer, h);
        int32_t row = it->next_row[h], count = rows - row, room = s->setup.policy->room(&s->setup, head);
        if (!count) continue;
        if (room < 1)
            return fkv_fail(err, "policy %s: layer %d, KV head %d: the cache of %d slots is full at token %lld",
                            s->setup.policy->name, layer, h, s->setup.capacity, (long long)head->tokens);
        if (count > room) count = room;
        it->append[appends++] = (struct fkv_append_item){.kv_head = h,
                                                         .row = row,
                                                         .rows = count,
                                                         .slot = head->slots,
                                                         .position = s->setup.policy->position(&s->setup, head)};
        set_slots(s, head, head->slots + count);
        head->tokens += count;
        head->since += count;
        add_attend_items(s, head, row, count, &attends, &spans);
        it->next_row[h] = row + count;
        *left += row + count < rows;
    }
    const struct fkv_attention_shape *shape = &s->model->attention;
    if (s->ops->append(s->backend, shape, s->k, s->v, &cache, it->append, appends, err)) return FKV_FAILED;
    return s->ops->attend(s->backend, shape, s->q, &cache, it->spans, it->attend, attends, s->attended, err);
}

int session_run_schedule(struct fkv_session *s, int32_t layer, int32_t rows, struct fkv_error *err) {
    memset(s->items.next_row, 0, (size_t)s->setup.kv_heads * sizeof *s->items.next_row);
    int32_t left = s->setup.kv_heads;
    while (left) {
        int32_t acting = 0;
        for (int32_t h = 0; h < s->setup.kv_heads; h++) {
            struct fkv_head *head = session_head(s, layer, h);
            if (s->items.next_row[h] < rows && s->setup.policy->room(&s->setup, head) < 1)
                s->items.acting[acting++] = head;
        }
        if (act(s, layer, acting, err) || append_and_attend(s, layer, rows, &left, err)) return FKV_FAILED;
    }
    return FKV_OK;
}
