/* Queries that choose which chunks of their head's slots they see (LongHeads): the vectors of full
 * chunks, the scores of a query, and the items of attend that follow. Which chunks are chosen, and
 * where they stand, is the policy's.
 *
 * A chunk's vector, per query head: the chunk's queries attend to its keys and values without a
 * mask; the mean m of what comes out is a query over the same keys, and those keys, by m's weights,
 * are the vector. Keys count as rotated to positions 0 .. C-1, and m is not rotated. All of that is
 * the backend's attend: rotation counts by differences, so the keys may stay as they are stored, at
 * their token indices, m is turned to the first of them, and the sum is turned back by it. That the
 * keys are mixed instead of the values is a matter of naming them as the cache's values.
 *
 * The scores are formed on the host: a query has one number per chunk, a small part of what it
 * attends to, and the choice is made there, as the schedule is. So queries are read from the device
 * layer by layer, and feeds wait for it: on a device, this costs more than it must. */
#include <string.h>

#include "engine/session/session_internal.h"

/* Floats of a row of queries. */
static size_t row_floats(const struct fkv_config *c) {
    return (size_t)c->heads * (size_t)c->head_dim;
}

/* Full chunks of a head, at most. */
static size_t most_chunks(const struct fkv_policy_setup *setup) {
    return (size_t)setup->capacity / (size_t)setup->chunk;
}

static size_t queries_floats(const struct fkv_config *c, const struct fkv_session_options *o,
                             const struct fkv_policy_setup *setup) {
    return (size_t)c->layers * (size_t)o->sequences * (size_t)setup->chunk * row_floats(c);
}

static size_t vectors_floats(const struct fkv_config *c, const struct fkv_session_options *o,
                             const struct fkv_policy_setup *setup) {
    return (size_t)c->layers * (size_t)o->sequences * row_floats(c) * most_chunks(setup);
}

int64_t session_choosing_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                               const struct fkv_policy_setup *setup) {
    if (!setup->chunk) return 0;
    const size_t rows = (size_t)o->block + 3 * (size_t)setup->chunk;
    return (int64_t)(sizeof(float) * (rows * row_floats(c) + queries_floats(c, o, setup) +
                                      vectors_floats(c, o, setup)));
}

void session_allocate_choosing(struct fkv_session *s) {
    const struct fkv_config *c = &s->model->config;
    const struct fkv_policy_setup *setup = &s->setup;
    struct choosing *to = &s->choosing;
    const size_t row = row_floats(c), chunks = most_chunks(setup) + 1,
                 queries = queries_floats(c, &s->options, setup);
    to->rows = fkv_memory_take(&s->memory, (size_t)s->options.block * row, sizeof *to->rows);
    to->states = fkv_memory_take(&s->memory, (size_t)setup->chunk * row, sizeof *to->states);
    to->kept_floats = queries + vectors_floats(c, &s->options, setup);
    to->kept = fkv_memory_take(&s->memory, to->kept_floats, sizeof *to->kept);
    to->score = fkv_memory_take(&s->memory, chunks, sizeof *to->score);
    to->scratch = fkv_memory_take(&s->memory, chunks, sizeof *to->scratch);
    to->chosen = fkv_memory_take(&s->memory, chunks, sizeof *to->chosen);
    to->queries = to->kept;
    to->vectors = to->kept ? to->kept + queries : NULL;
}

static bool layer_chooses(const struct fkv_session *s, int32_t layer) {
    return s->setup.chunk && fkv_policy_of_layer(&s->setup, layer) == s->setup.policy;
}

bool session_chooses(const struct fkv_session *s, const struct fkv_head *head) {
    return layer_chooses(s, head->layer) && head->tokens > s->setup.window;
}

/* ---- choosing ---- */

int session_read_queries(struct fkv_session *s, int32_t layer, struct fkv_error *err) {
    const struct fed *last = &s->fed[s->fed_count - 1];
    if (!layer_chooses(s, layer)) return FKV_OK;
    return s->ops->read(
        s->backend, s->q, 0, s->choosing.rows,
        (size_t)(last->row + last->rows) * row_floats(&s->model->config) * sizeof(float), err);
}

/* The vectors of a query head [head_dim, chunks]. */
static float *vectors_of(const struct fkv_session *s, int32_t layer, int32_t sequence,
                         int32_t query_head) {
    const struct fkv_config *c = &s->model->config;
    const size_t heads_before =
        ((size_t)layer * (size_t)s->options.sequences + (size_t)sequence) * (size_t)c->heads;
    return s->choosing.vectors +
           (heads_before + (size_t)query_head) * (size_t)c->head_dim * most_chunks(&s->setup);
}

/* A query's score of the first `chunks` chunks -> s->choosing.score. */
static void score_chunks(struct fkv_session *s, const float *query, const float *vectors,
                         int32_t chunks) {
    const size_t stride = most_chunks(&s->setup);
    double *score = s->choosing.score;
    memset(score, 0, (size_t)chunks * sizeof *score);
    for (int32_t i = 0; i < s->model->config.head_dim; i++)
        for (int32_t c = 0; c < chunks; c++)
            score[c] += (double)query[i] * vectors[(size_t)i * stride + (size_t)c];
}

/* Are `next` the spans of the row that follows row `row` - 1 of an item with `spans`? */
static bool continues(const struct fkv_span *spans, const struct fkv_span *next, int32_t count,
                      int32_t row) {
    for (int32_t i = 0; i < count; i++) {
        const bool unlimited = spans[i].until == FKV_NO_LIMIT_ABOVE;
        if (spans[i].first != next[i].first || spans[i].end != next[i].end ||
            spans[i].position + row != next[i].position ||
            spans[i].until + (unlimited ? 0 : row) != next[i].until)
            return false;
    }
    return true;
}

int32_t session_choose(struct fkv_session *s, const struct fkv_head *head, int32_t row,
                       int32_t rows, int32_t item) {
    const struct fkv_config *c = &s->model->config;
    const int32_t group = c->heads / c->kv_heads, most = s->setup.max_spans, first_item = item;
    const struct fkv_chunk_scores scores = {s->choosing.score, s->choosing.scratch,
                                            s->choosing.chosen};
    for (int32_t h = head->kv_head * group; h < (head->kv_head + 1) * group; h++) {
        const float *vectors = vectors_of(s, head->layer, head->sequence, h);
        struct fkv_attend_item *last = NULL;
        for (int32_t i = 0; i < rows; i++) {
            const int64_t token = head->tokens - rows + i;
            const size_t at = (size_t)(row + i) * row_floats(c) + (size_t)(h * c->head_dim);
            struct fkv_span *spans = &s->items.spans[item * most];
            score_chunks(s, s->choosing.rows + at, vectors, (int32_t)(token / s->setup.chunk));
            const int32_t count = s->setup.policy->choose(&s->setup, head, token, &scores, spans);
            if (last && last->spans == count &&
                continues(&s->items.spans[last->span], spans, count, last->rows)) {
                last->rows++;
                continue;
            }
            last = &s->items.attend[item];
            *last = (struct fkv_attend_item){.cache_head =
                                                 head->sequence * s->setup.kv_heads + head->kv_head,
                                             .head = h,
                                             .heads = 1,
                                             .row = row + i,
                                             .rows = 1,
                                             .span = item++ * most,
                                             .spans = count};
        }
    }
    return item - first_item;
}

/* ---- the vectors of chunks ---- */

/* The first `rows` rows of `query` attend to a chunk of a layer's sequence -> `mixed`, the cache's
 * values or its keys mixed. `fixed`: the rows stand at the chunk's first token; else one each at
 * its tokens. */
static int attend_chunk(struct fkv_session *s, const struct fkv_head *head, int32_t first,
                        int32_t rows, bool fixed, bool keys, struct fkv_error *err) {
    const int32_t group = s->model->config.heads / s->setup.kv_heads;
    struct fkv_cache cache = session_cache(s, head->layer);
    const struct fkv_span chunk = {.first = first,
                                   .end = first + s->setup.chunk,
                                   .from = FKV_NO_LIMIT_BELOW,
                                   .until = FKV_NO_LIMIT_ABOVE,
                                   .position = first,
                                   .fixed = fixed};
    if (keys) cache.value = cache.key;
    for (int32_t h = 0; h < s->setup.kv_heads; h++)
        s->items.attend[h] =
            (struct fkv_attend_item){.cache_head = head->sequence * s->setup.kv_heads + h,
                                     .head = h * group,
                                     .heads = group,
                                     .rows = rows,
                                     .spans = 1};
    return s->ops->attend(s->backend, session_attention(s, head->layer), s->choosing.query, &cache,
                          &chunk, s->items.attend, s->setup.kv_heads, s->choosing.mixed, err);
}

/* states [chunk, heads, head_dim] -> their mean, in row 0. Attention puts the gain of queries and
 * keys on a query, and this one is not a turned one: only the keys' stays. */
static void take_mean(const struct fkv_session *s, int32_t layer) {
    const struct fkv_attention_shape *shape = session_attention(s, layer);
    const size_t width = row_floats(&s->model->config);
    float *states = s->choosing.states;
    for (size_t i = 0; i < width; i++) {
        const bool turns = (int32_t)(i % (size_t)shape->head_dim) < shape->rotary;
        double sum = 0;
        for (int32_t r = 0; r < s->setup.chunk; r++) sum += states[(size_t)r * width + i];
        states[i] = (float)(sum / s->setup.chunk / (turns ? shape->gain : 1));
    }
}

/* The vectors of the chunk at token `first`, of all query heads. `head`: any of its layer and
 * sequence; queries [chunk, heads, head_dim] of its tokens. */
static int make_vectors(struct fkv_session *s, const struct fkv_head *head, int32_t first,
                        const float *queries, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    const struct choosing *to = &s->choosing;
    const size_t row = row_floats(c) * sizeof(float), states = row * (size_t)s->setup.chunk,
                 chunk = (size_t)(first / s->setup.chunk), stride = most_chunks(&s->setup);
    if (s->ops->write(s->backend, to->query, 0, queries, states, err) ||
        attend_chunk(s, head, first, s->setup.chunk, false, false, err) ||
        s->ops->read(s->backend, to->mixed, 0, to->states, states, err))
        return FKV_FAILED;
    take_mean(s, head->layer);
    if (s->ops->write(s->backend, to->query, 0, to->states, row, err) ||
        attend_chunk(s, head, first, 1, true, true, err) ||
        s->ops->rotate(s->backend, session_attention(s, head->layer), to->mixed, 0, 1, c->heads,
                       -(double)first, to->mixed, err) ||
        s->ops->read(s->backend, to->mixed, 0, to->states, row, err))
        return FKV_FAILED;
    float *vectors = vectors_of(s, head->layer, head->sequence, 0);
    for (size_t i = 0; i < row_floats(c); i++) vectors[i * stride + chunk] = to->states[i];
    return FKV_OK;
}

int session_end_chunks(struct fkv_session *s, int32_t layer, int32_t count, struct fkv_error *err) {
    const size_t width = row_floats(&s->model->config);
    const int32_t chunk = s->setup.chunk;
    if (!layer_chooses(s, layer)) return FKV_OK;
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_append_item *item = &s->items.append[i];
        const struct fkv_head *head = &s->heads[layer * session_layer_heads(s) + item->cache_head];
        if (head->kv_head) continue; /* a row has the queries of all heads */
        const size_t before = (size_t)(layer * s->options.sequences + head->sequence);
        float *queries = s->choosing.queries + before * (size_t)chunk * width;
        memcpy(queries + (size_t)(item->slot % chunk) * width,
               s->choosing.rows + (size_t)item->row * width,
               (size_t)item->rows * width * sizeof *queries);
        if (head->slots % chunk == 0 && make_vectors(s, head, head->slots - chunk, queries, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}
