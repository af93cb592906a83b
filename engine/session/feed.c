/* Tokens through the layers: the forward pass is `feed_layer`, what happens inside a layer's
 * attention is schedule.c.
 *
 * Rows of several sequences follow one another, so that one matrix product serves them all;
 * only taps and the schedule tell them apart. A pass in which every sequence has one token is a
 * decode step. It comes again with every token, with the same operations on the same buffers in the
 * same counts (what a head sees is data), so it is issued as a step of the backend's, which a
 * device records once and replays. Not while a tap on states is set: a tap may do something else
 * every time; and not where queries choose what they see: they are read first. */
#include <string.h>

#include "engine/session/session_internal.h"
#include "engine/session/taps.h"

/* ---- taps ---- */

static int tap_states(struct fkv_session *s, enum fkv_site site, const struct fkv_buffer *states,
                      int32_t layer, int32_t heads, struct fkv_error *err) {
    const struct tap *tap = &s->taps[site];
    const size_t width = (size_t)heads * (size_t)s->model->config.head_dim * sizeof(float);
    for (int32_t f = 0; f < s->fed_count && tap->function; f++) {
        const struct fed *fed = &s->fed[f];
        size_t offset = (size_t)fed->row * width;
        struct fkv_tap_event event = {.site = site,
                                      .layer = layer,
                                      .sequence = fed->sequence,
                                      .token = session_head(s, layer, fed->sequence, 0)->tokens,
                                      .rows = fed->rows,
                                      .heads = heads,
                                      .head_dim = s->model->config.head_dim,
                                      .states = states,
                                      .offset = offset,
                                      .data = (const char *)s->ops->address(states) + offset,
                                      .space = s->space};
        if (tap->function(tap->context, &event, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int rotate_keys(struct fkv_session *s, int32_t layer, struct fkv_error *err) {
    for (int32_t f = 0; f < s->fed_count; f++) {
        const struct fed *fed = &s->fed[f];
        int64_t token = session_head(s, layer, fed->sequence, 0)->tokens;
        if (s->ops->rotate(s->backend, session_attention(s, layer), s->k, fed->row, fed->rows,
                           s->setup.kv_heads, (double)token, s->rotated, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int tap_layer(struct fkv_session *s, int32_t layer, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    if (tap_states(s, FKV_SITE_KEY, s->k, layer, c->kv_heads, err) ||
        tap_states(s, FKV_SITE_VALUE, s->v, layer, c->kv_heads, err) ||
        tap_states(s, FKV_SITE_QUERY, s->q, layer, c->heads, err))
        return FKV_FAILED;
    if (!s->taps[FKV_SITE_KEY_ROTATED].function) return FKV_OK;
    if (rotate_keys(s, layer, err)) return FKV_FAILED;
    return tap_states(s, FKV_SITE_KEY_ROTATED, s->rotated, layer, c->kv_heads, err);
}

/* ---- the pass ---- */

static int feed_layer(struct fkv_session *s, int32_t layer, int32_t rows, struct fkv_error *err) {
    const struct fkv_layer_weights *w = &s->model->layers[layer];
    const struct fkv_backend_ops *ops = s->ops;
    struct fkv_backend *b = s->backend;
    if (ops->norm_qkv(b, session_attention(s, layer), &w->qkv, s->x, rows, s->q, s->k, s->v, err) ||
        tap_layer(s, layer, err) || session_run_schedule(s, layer, err) ||
        ops->project_residual(b, &w->output, s->attended, rows, s->x, err) ||
        ops->norm_gate_up(b, &w->mlp, s->x, rows, s->hidden, err))
        return FKV_FAILED;
    return ops->project_residual(b, &w->down, s->hidden, rows, s->x, err);
}

static int run_layers(struct fkv_session *s, int32_t rows, struct fkv_error *err) {
    if (s->ops->embed(s->backend, &s->model->embedding, s->model->config.embedding_multiplier,
                      s->tokens, rows, s->x, err))
        return FKV_FAILED;
    for (int32_t l = 0; l < s->setup.layers; l++)
        if (feed_layer(s, l, rows, err)) return FKV_FAILED;
    return FKV_OK;
}

static bool is_step(const struct fkv_session *s, int32_t rows) {
    bool tapped = false;
    for (int site = 0; site < FKV_SITE_ACTION; site++) tapped |= s->taps[site].function != NULL;
    return rows == s->fed_count && !tapped && !session_observes(s) && !s->setup.chunk;
}

static void drop_step(struct fkv_session *s) {
    s->ops->step_release(s->backend, s->step);
    s->step = NULL;
    s->step_feeds = 0;
}

/* A step that failed half-way is ended all the same, so that the backend is not left within it, and
 * recorded afresh next time. */
static int run_step(struct fkv_session *s, int32_t rows, struct fkv_error *err) {
    if (s->step_feeds != s->fed_count) {
        drop_step(s);
        if (s->ops->step_create(s->backend, &s->step, err)) return FKV_FAILED;
        s->step_feeds = s->fed_count;
    }
    if (s->ops->step_begin(s->backend, s->step, err)) return FKV_FAILED;
    int status = run_layers(s, rows, err);
    if (s->ops->step_end(s->backend, s->step, status ? NULL : err)) status = FKV_FAILED;
    if (status) drop_step(s);
    return status;
}

/* ---- feeding ---- */

/* Checks the feeds and puts their tokens one after the other. */
static int take_feeds(struct fkv_session *s, const struct fkv_feed *feeds, int32_t count,
                      int32_t *total, struct fkv_error *err) {
    int64_t rows = 0;
    if (count < 1 || count > s->options.sequences)
        return fkv_fail(err, "feed: expected 1 to %d sequences, found %d", s->options.sequences,
                        count);
    for (int32_t f = 0; f < count; f++) {
        const struct fkv_feed *feed = &feeds[f];
        if (feed->sequence < 0 || feed->sequence >= s->options.sequences)
            return fkv_fail(err, "feed: expected a sequence below %d, found %d",
                            s->options.sequences, feed->sequence);
        for (int32_t g = 0; g < f; g++)
            if (feeds[g].sequence == feed->sequence)
                return fkv_fail(err, "feed: sequence %d: expected once, found twice",
                                feed->sequence);
        if (feed->count < 1)
            return fkv_fail(err, "feed: sequence %d: expected 1 or more tokens, found %d",
                            feed->sequence, feed->count);
        rows += feed->count;
    }
    if (rows > s->options.block)
        return fkv_fail(err, "feed: expected 1 to %d tokens, found %lld", s->options.block,
                        (long long)rows);
    *total = 0;
    for (int32_t f = 0; f < count; f++) {
        const struct fkv_feed *feed = &feeds[f];
        for (int32_t i = 0; i < feed->count; i++)
            if (feed->tokens[i] < 0 || feed->tokens[i] >= s->model->config.vocab)
                return fkv_fail(
                    err, "feed: sequence %d, token %lld: expected an id below %d, found %d",
                    feed->sequence, (long long)(fkv_session_tokens(s, feed->sequence) + i),
                    s->model->config.vocab, feed->tokens[i]);
        s->fed[f] = (struct fed){feed->sequence, *total, feed->count};
        memcpy(s->tokens + *total, feed->tokens, (size_t)feed->count * sizeof *s->tokens);
        *total += feed->count;
    }
    s->fed_count = count;
    return FKV_OK;
}

int fkv_session_feed_batch(struct fkv_session *s, const struct fkv_feed *feeds, int32_t count,
                           struct fkv_error *err) {
    int32_t rows = 0;
    if (take_feeds(s, feeds, count, &rows, err)) return FKV_FAILED;
    s->last_rows = 0;
    memset(s->row_state, 0, (size_t)s->options.block * sizeof *s->row_state);
    if (session_act_before(s, err) ||
        (is_step(s, rows) ? run_step(s, rows, err) : run_layers(s, rows, err)))
        return FKV_FAILED;
    s->last_rows = rows;
    s->statistics.tokens += rows;
    for (int32_t i = 0; i < rows; i++) s->statistics.slots_sum += s->row_state[i].slots;
    return FKV_OK;
}

int fkv_session_feed(struct fkv_session *s, const int32_t *tokens, int32_t count,
                     struct fkv_error *err) {
    return fkv_session_feed_batch(s, &(struct fkv_feed){.tokens = tokens, .count = count}, 1, err);
}
