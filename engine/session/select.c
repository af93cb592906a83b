/* Selecting policies: the scores of slots, kept up while a prefill block is fed, and the choice at
 * its end. How slots are scored and how many stay is the policy's (selecting.h).
 *
 * Attention is summed on the backend, slot by slot, as the rows of a block pass their layer: their
 * queries are gone afterwards, and only the rows that count are looked at twice. The sums of a head
 * are read when it acts, and the choice is made on the host, where the schedule is: some thousand
 * numbers per head and block. Scores of keys are made there from the cache itself. */
#include <math.h>
#include <string.h>

#include "engine/session/session_internal.h"

static bool selects(const struct fkv_session *s, int32_t layer) {
    const struct fkv_policy *policy = s->setup.policy;
    return policy->select && fkv_policy_of_layer(&s->setup, layer) == policy;
}

void fkv_session_set_prefill(struct fkv_session *s, int32_t sequence, int32_t block,
                             int64_t tokens) {
    for (int32_t l = 0; l < s->setup.layers; l++)
        for (int32_t h = 0; h < s->setup.kv_heads; h++) {
            struct fkv_head *head = session_head(s, l, sequence, h);
            head->block = block;
            head->prefill = tokens;
        }
}

/* ---- attention ---- */

/* Of a head's newest `rows` rows, those whose attention counts: the newest so many. A round does
 * not reach beyond a block. *first: they are the block's first to count, and sums start afresh. */
static int32_t rows_observed(const struct fkv_session *s, const struct fkv_head *head, int32_t rows,
                             bool *first) {
    struct fkv_selection selection;
    *first = false;
    if (!head->block) return 0;
    const int64_t end = (head->tokens + head->block - 1) / head->block * head->block;
    if (end > head->prefill) return 0;
    s->setup.policy->select(&s->setup, head, &selection);
    if (!selection.observe) return rows;
    const int32_t counted = selection.observe < head->block ? selection.observe : head->block;
    const int64_t begin = end - counted;
    if (head->tokens <= begin) return 0;
    *first = head->tokens - rows <= begin;
    return *first ? (int32_t)(head->tokens - begin) : rows;
}

static size_t paid_offset(const struct fkv_session *s, const struct fkv_head *head) {
    return (size_t)(head - s->heads) * (size_t)s->setup.capacity * sizeof(float);
}

/* Sums of slots that have none yet become 0. */
static int clear_new_sums(struct fkv_session *s, const struct fkv_head *head,
                          struct fkv_error *err) {
    int32_t *summed = &s->selecting.summed[head - s->heads];
    const int32_t fresh = head->slots - *summed;
    if (fresh <= 0) return FKV_OK;
    const size_t offset = paid_offset(s, head) + (size_t)*summed * sizeof(float);
    *summed = head->slots;
    return s->ops->write(s->backend, s->selecting.paid, offset, s->selecting.zeros,
                         (size_t)fresh * sizeof(float), err);
}

int session_observe(struct fkv_session *s, int32_t layer, int32_t count, struct fkv_error *err) {
    struct round_items *it = &s->items;
    const struct fkv_policy *policy = s->setup.policy;
    int32_t items = 0;
    if (policy->scores != FKV_SCORE_ATTENTION || !selects(s, layer)) return FKV_OK;
    for (int32_t i = 0; i < count; i++) {
        struct fkv_attend_item item = it->attend[i];
        struct fkv_head *head = &s->heads[layer * session_layer_heads(s) + item.cache_head];
        bool first;
        const int32_t rows = rows_observed(s, head, item.rows, &first);
        if (!rows) continue;
        if (first) s->selecting.summed[head - s->heads] = 0;
        if (clear_new_sums(s, head, err)) return FKV_FAILED;
        item.row += item.rows - rows;
        item.rows = rows;
        item.span = items * s->setup.max_spans;
        item.spans = policy->view(&s->setup, head, rows, it->spans + item.span);
        it->attend[items++] = item;
    }
    if (!items) return FKV_OK;
    const struct fkv_cache cache = session_cache(s, layer);
    return s->ops->attention_paid(s->backend, session_attention(s, layer), s->q, &cache, it->spans,
                                  it->attend, items, s->selecting.paid,
                                  paid_offset(s, session_head(s, layer, 0, 0)), err);
}

bool session_observes(const struct fkv_session *s) {
    for (int32_t f = 0; f < s->fed_count && s->selecting.paid; f++)
        if (session_head(s, 0, s->fed[f].sequence, 0)->tokens <
            session_head(s, 0, s->fed[f].sequence, 0)->prefill)
            return true;
    return false;
}

/* ---- scores ---- */

static int read_sums(struct fkv_session *s, const struct fkv_head *head, double *score,
                     struct fkv_error *err) {
    float *sums = s->selecting.numbers;
    if (s->ops->read(s->backend, s->selecting.paid, paid_offset(s, head), sums,
                     (size_t)head->slots * sizeof *sums, err))
        return FKV_FAILED;
    for (int32_t i = 0; i < head->slots; i++) score[i] = sums[i];
    return FKV_OK;
}

/* Slots that were kept take their sums along. */
static int move_sums(struct fkv_session *s, const struct fkv_head *head,
                     const struct fkv_action *action, const double *score, struct fkv_error *err) {
    float *sums = s->selecting.numbers;
    for (int32_t j = 0; j < action->slots; j++) sums[j] = (float)score[action->gather_from[j]];
    s->selecting.summed[head - s->heads] = action->slots;
    return s->ops->write(s->backend, s->selecting.paid, paid_offset(s, head), sums,
                         (size_t)action->slots * sizeof *sums, err);
}

/* Key `slot` of those read, as queries meet it: with the gain on its turned channels -> key
 * [head_dim]. Returns its length. */
static double load_key(const struct fkv_session *s, const struct fkv_head *head, int32_t slot,
                       float *key) {
    const struct fkv_attention_shape *shape = session_attention(s, head->layer);
    const size_t d = (size_t)shape->head_dim;
    double squares = 0;
    fkv_to_f32(s->selecting.keys + (size_t)slot * session_slot_bytes(s), s->options.cache_dtype, d,
               key);
    for (int32_t c = 0; c < shape->rotary; c++) key[c] *= shape->gain;
    for (size_t c = 0; c < d; c++) squares += (double)key[c] * key[c];
    return sqrt(squares);
}

/* Rotation leaves a length as it is, but not a direction: keys are taken as the cache holds them.
 */
static int score_keys(struct fkv_session *s, const struct fkv_head *head, double *score,
                      struct fkv_error *err) {
    const size_t d = (size_t)s->model->config.head_dim, slot = session_slot_bytes(s);
    const size_t offset = (size_t)(head - s->heads) * (size_t)s->setup.capacity * slot;
    float key[FKV_MAX_HEAD_DIM];
    double mean[FKV_MAX_HEAD_DIM] = {0}, length = 0;
    if (s->ops->read(s->backend, s->key, offset, s->selecting.keys, (size_t)head->slots * slot,
                     err))
        return FKV_FAILED;
    for (int32_t i = 0; i < head->slots; i++) {
        const double norm = load_key(s, head, i, key);
        score[i] = -norm;
        for (size_t c = 0; c < d && norm > 0; c++) mean[c] += key[c] / norm;
    }
    if (s->setup.policy->scores == FKV_SCORE_KEY_NORM) return FKV_OK;
    for (size_t c = 0; c < d; c++) length += mean[c] * mean[c];
    length = sqrt(length);
    for (int32_t i = 0; i < head->slots; i++) {
        const double norm = load_key(s, head, i, key);
        score[i] = 0;
        for (size_t c = 0; c < d && norm > 0 && length > 0; c++)
            score[i] -= key[c] / norm * mean[c] / length;
    }
    return FKV_OK;
}

/* ---- the choice ---- */

int session_select(struct fkv_session *s, const struct fkv_head *head, struct fkv_action *action,
                   struct fkv_error *err) {
    const bool attention = s->setup.policy->scores == FKV_SCORE_ATTENTION;
    double *score = s->selecting.score;
    struct fkv_selection selection;
    s->setup.policy->select(&s->setup, head, &selection);
    if (attention ? read_sums(s, head, score, err) : score_keys(s, head, score, err))
        return FKV_FAILED;
    fkv_select_slots(&selection, score, head->slots, s->selecting.scratch, action->gather_from);
    action->gather_count = action->slots = selection.budget;
    s->statistics.selections++;
    s->statistics.slots_kept += selection.budget;
    return attention && !selection.observe ? move_sums(s, head, action, score, err) : FKV_OK;
}
