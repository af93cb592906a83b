/* A session's life: opening (everything is allocated here), feeding tokens through the layers, and reading what they predict. The forward pass is
 * `feed_layer`; what happens inside a layer's attention is schedule.c. */
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

#include "engine/session_internal.h"
#include "kernels/base/progress.h"

enum { DEFAULT_BLOCK = 512, LOGIT_BYTES = 64 << 20 };

/* ---- sizes ---- */

static void default_options(struct fkv_session_options *o, const struct fkv_config *c) {
    if (!o->block) o->block = DEFAULT_BLOCK;
    if (!o->max_tokens) o->max_tokens = c->trained_context;
    if (o->block > o->max_tokens) o->block = (int32_t)o->max_tokens;
}

static int32_t logit_rows(const struct fkv_config *c, int32_t block) {
    int64_t rows = LOGIT_BYTES / (4 * (int64_t)c->vocab);
    return rows < 1 ? 1 : rows > block ? block : (int32_t)rows;
}

/* Bytes of keys (or values) of the whole cache. */
static size_t cache_bytes(const struct fkv_config *c, int32_t capacity, enum fkv_dtype dtype) {
    return (size_t)c->layers * (size_t)c->kv_heads * (size_t)capacity * (size_t)c->head_dim * fkv_dtype_bytes(dtype);
}

int fkv_session_bytes(const struct fkv_config *config, const struct fkv_policy_options *policy,
                      const struct fkv_session_options *options, int64_t *cache, int64_t *scratch,
                      struct fkv_error *err) {
    struct fkv_session_options o = *options;
    struct fkv_policy_setup setup;
    default_options(&o, config);
    if (fkv_policy_setup(policy, config, o.block, o.max_tokens, &setup, err)) return FKV_FAILED;
    *cache = 2 * (int64_t)cache_bytes(config, setup.capacity, o.cache_dtype);
    int64_t width = config->dim + 2 * (int64_t)config->heads * config->head_dim +
                    3 * (int64_t)config->kv_heads * config->head_dim + config->hidden;
    *scratch = 4 * (width * o.block + (int64_t)logit_rows(config, o.block) * config->vocab);
    fkv_policy_setup_free(&setup);
    return FKV_OK;
}

struct fkv_cache_layer session_cache_layer(const struct fkv_session *s, int32_t layer) {
    return (struct fkv_cache_layer){.key = s->key,
                                    .value = s->value,
                                    .offset = (size_t)layer * (size_t)s->setup.kv_heads * (size_t)s->setup.capacity *
                                              session_slot_bytes(s),
                                    .dtype = s->options.cache_dtype,
                                    .capacity = s->setup.capacity};
}

/* ---- opening ---- */

static int create_buffers(struct fkv_session *s, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    size_t row = sizeof(float) * (size_t)s->options.block, heads = (size_t)(c->heads * c->head_dim),
           kv = (size_t)(c->kv_heads * c->head_dim);
    size_t cache = cache_bytes(c, s->setup.capacity, s->options.cache_dtype);
    const struct {
        struct fkv_buffer **buffer;
        size_t bytes;
    } wanted[] = {
        {&s->key, cache},
        {&s->value, cache},
        {&s->x, row * (size_t)c->dim},
        {&s->q, row * heads},
        {&s->k, row * kv},
        {&s->v, row * kv},
        {&s->rotated, row * kv},
        {&s->attended, row * heads},
        {&s->hidden, row * (size_t)c->hidden},
        {&s->logits, sizeof(float) * (size_t)s->logit_rows * (size_t)c->vocab},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (s->ops->buffer_create(s->backend, wanted[i].bytes, wanted[i].buffer, err))
            return fkv_error_prefix(err, "session");
    struct fkv_limits limits = {.rows = s->options.block,
                                .dim = c->dim,
                                .hidden = c->hidden,
                                .vocab = c->vocab,
                                .slots = s->setup.capacity,
                                .items = c->heads * FKV_MAX_SPANS,
                                .attention = s->model->attention};
    return s->ops->reserve(s->backend, &limits, err);
}

static int create_items(struct fkv_session *s, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    size_t kv_heads = (size_t)c->kv_heads, heads = (size_t)c->heads, block = (size_t)s->options.block;
    struct round_items *it = &s->items;
    it->append = calloc(kv_heads, sizeof *it->append);
    it->attend = calloc(heads, sizeof *it->attend);
    it->spans = calloc(heads * FKV_MAX_SPANS, sizeof *it->spans);
    it->actions = calloc(kv_heads, sizeof *it->actions);
    it->acting = calloc(kv_heads, sizeof *it->acting);
    it->compress = calloc(kv_heads, sizeof *it->compress);
    it->gather = calloc(kv_heads, sizeof *it->gather);
    it->energy = calloc(kv_heads, sizeof *it->energy);
    it->measured = calloc(kv_heads, sizeof *it->measured);
    it->next_row = calloc(kv_heads, sizeof *it->next_row);
    it->of = calloc(kv_heads, sizeof *it->of);
    s->heads = calloc((size_t)c->layers * kv_heads, sizeof *s->heads);
    s->peak_slots = calloc((size_t)c->layers * kv_heads, sizeof *s->peak_slots);
    s->row_slots = calloc(3 * block, sizeof *s->row_slots);
    int32_t *from = calloc(kv_heads * (size_t)s->setup.capacity, sizeof *from);
    if (!it->append || !it->attend || !it->spans || !it->actions || !it->acting || !it->compress || !it->gather ||
        !it->energy || !it->measured || !it->next_row || !it->of || !s->heads || !s->peak_slots || !s->row_slots ||
        !from) {
        free(from);
        return fkv_fail(err, "session: out of memory");
    }
    for (size_t h = 0; h < kv_heads; h++) it->actions[h].gather_from = from + h * (size_t)s->setup.capacity;
    s->row_round = s->row_slots + block;
    s->row_since = s->row_round + block;
    return FKV_OK;
}

static bool has_map(const struct fkv_session *s, const struct fkv_action *a) {
    for (int32_t i = 0; i < s->map_count; i++)
        if (s->maps[i].n == a->map_n && s->maps[i].retained == a->map_retained && s->maps[i].gain == a->map_gain)
            return true;
    return false;
}

/* Asks the policy what each head will do when it is full, and prepares the maps it will need. */
static int create_maps(struct fkv_session *s, struct fkv_error *err) {
    if (!s->setup.policy->has_gamma) return FKV_OK;
    int32_t heads = s->setup.layers * s->setup.kv_heads;
    if (!(s->maps = calloc((size_t)heads, sizeof *s->maps))) return fkv_fail(err, "session: out of memory");
    for (int32_t i = 0; i < heads; i++) {
        struct fkv_head full = s->heads[i];
        struct fkv_action *a = &s->items.actions[0];
        full.slots = s->setup.capacity;
        s->setup.policy->act(&s->setup, &full, NULL, a);
        if (!a->map_n || has_map(s, a)) continue;
        struct prepared_map *m = &s->maps[s->map_count];
        *m = (struct prepared_map){.n = a->map_n, .retained = a->map_retained, .gain = a->map_gain};
        if (s->ops->map_dct(s->backend, m->n, m->retained, m->gain, &m->map, err)) return FKV_FAILED;
        s->map_count++;
    }
    return FKV_OK;
}

int fkv_session_open(const struct fkv_model *model, const struct fkv_policy_options *policy,
                     const struct fkv_session_options *options, struct fkv_session **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_session *s = calloc(1, sizeof *s);
    if (!s) return fkv_fail(err, "session: out of memory");
    s->model = model;
    s->ops = model->ops;
    s->backend = model->backend;
    s->options = *options;
    default_options(&s->options, &model->config);
    s->logit_rows = logit_rows(&model->config, s->options.block);
    if (fkv_policy_setup(policy, &model->config, s->options.block, s->options.max_tokens, &s->setup, err)) {
        free(s);
        return FKV_FAILED;
    }
    if (create_buffers(s, err) || create_items(s, err)) goto failed;
    fkv_session_reset(s);
    if (create_maps(s, err)) goto failed;
    *out = s;
    return FKV_OK;
failed:
    fkv_session_close(s);
    return FKV_FAILED;
}

void fkv_session_close(struct fkv_session *s) {
    if (!s) return;
    struct fkv_buffer *buffers[] = {s->key, s->value,   s->x,        s->q,      s->k,
                                    s->v,   s->rotated, s->attended, s->hidden, s->logits};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) s->ops->buffer_release(s->backend, buffers[i]);
    for (int32_t i = 0; i < s->map_count; i++) s->ops->map_release(s->backend, s->maps[i].map);
    struct round_items *it = &s->items;
    if (it->actions) free(it->actions[0].gather_from);
    void *owned[] = {it->append,   it->attend, it->spans,     it->actions,  it->acting,
                     it->compress, it->gather, it->energy,    it->measured, it->next_row,
                     it->of,       s->heads,   s->peak_slots, s->row_slots, s->maps};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    fkv_policy_setup_free(&s->setup);
    free(s);
}

void fkv_session_reset(struct fkv_session *s) {
    for (int32_t l = 0; l < s->setup.layers; l++)
        for (int32_t h = 0; h < s->setup.kv_heads; h++)
            *session_head(s, l, h) = (struct fkv_head){.layer = l, .kv_head = h};
    s->tokens = 0;
    s->last_rows = s->logits_count = 0;
}

/* ---- feeding ---- */

static int tap_states(struct fkv_session *s, enum fkv_site site, const struct fkv_buffer *data, int32_t layer,
                      int32_t rows, int32_t heads, struct fkv_error *err) {
    const struct tap *tap = &s->taps[site];
    if (!tap->function) return FKV_OK;
    struct fkv_device_info info;
    if (s->ops->info(s->backend, &info, err)) return FKV_FAILED;
    struct fkv_tap_event event = {.site = site,
                                  .layer = layer,
                                  .token = s->tokens,
                                  .rows = rows,
                                  .heads = heads,
                                  .head_dim = s->model->config.head_dim,
                                  .data = s->ops->address(data),
                                  .space = info.space};
    return tap->function(tap->context, &event, err);
}

static int tap_layer(struct fkv_session *s, int32_t layer, int32_t rows, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    if (s->taps[FKV_SITE_KEY_ROTATED].function &&
        s->ops->rotate(s->backend, &s->model->attention, s->k, rows, c->kv_heads, (double)s->tokens, s->rotated, err))
        return FKV_FAILED;
    if (tap_states(s, FKV_SITE_KEY, s->k, layer, rows, c->kv_heads, err) ||
        tap_states(s, FKV_SITE_VALUE, s->v, layer, rows, c->kv_heads, err) ||
        tap_states(s, FKV_SITE_QUERY, s->q, layer, rows, c->heads, err))
        return FKV_FAILED;
    return tap_states(s, FKV_SITE_KEY_ROTATED, s->rotated, layer, rows, c->kv_heads, err);
}

static int feed_layer(struct fkv_session *s, int32_t layer, int32_t rows, struct fkv_error *err) {
    const struct fkv_layer_weights *w = &s->model->layers[layer];
    const struct fkv_backend_ops *ops = s->ops;
    struct fkv_backend *b = s->backend;
    if (ops->norm_qkv(b, &s->model->attention, &w->qkv, s->x, rows, s->q, s->k, s->v, err) ||
        tap_layer(s, layer, rows, err) || session_run_schedule(s, layer, rows, err) ||
        ops->project_residual(b, &w->wo, s->attended, rows, s->x, err) ||
        ops->norm_gate_up(b, &w->mlp_norm, s->model->config.rms_eps, &w->gate, &w->up, s->x, rows, s->hidden, err))
        return FKV_FAILED;
    return ops->project_residual(b, &w->down, s->hidden, rows, s->x, err);
}

int fkv_session_feed(struct fkv_session *s, const int32_t *tokens, int32_t count, struct fkv_error *err) {
    if (count < 1 || count > s->options.block)
        return fkv_fail(err, "feed: expected 1 to %d tokens, found %d", s->options.block, count);
    for (int32_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab)
            return fkv_fail(err, "feed: token %lld: expected an id below %d, found %d", (long long)(s->tokens + i),
                            s->model->config.vocab, tokens[i]);
    double started = fkv_seconds();
    s->logits_count = 0;
    memset(s->row_slots, 0, 3 * (size_t)s->options.block * sizeof *s->row_slots);
    if (s->ops->embed(s->backend, &s->model->embedding, tokens, count, s->x, err)) return FKV_FAILED;
    for (int32_t l = 0; l < s->setup.layers; l++)
        if (feed_layer(s, l, count, err)) return FKV_FAILED;
    s->tokens += count;
    s->last_rows = count;
    s->statistics.tokens += count;
    for (int32_t i = 0; i < count; i++) s->statistics.slots_sum += s->row_slots[i];
    s->statistics.seconds += fkv_seconds() - started;
    return FKV_OK;
}

int fkv_session_end_block(struct fkv_session *s, struct fkv_error *err) {
    if (!s->setup.policy->acts_at_block_end) return FKV_OK;
    for (int32_t l = 0; l < s->setup.layers; l++)
        if (session_act_now(s, l, err)) return FKV_FAILED;
    return FKV_OK;
}

/* ---- reading ---- */

static int check_rows(const struct fkv_session *s, int32_t row, int32_t rows, struct fkv_error *err) {
    if (row >= 0 && rows >= 0 && row + rows <= s->last_rows) return FKV_OK;
    return fkv_fail(err, "logits: expected rows within the %d of the last feed, found %d to %d", s->last_rows, row,
                    row + rows);
}

/* Logits of rows [row, row+rows), at most logit_rows, into s->logits; kept until another range or feed. */
static int compute_logits(struct fkv_session *s, int32_t row, int32_t rows, struct fkv_error *err) {
    if (s->logits_count == rows && s->logits_row == row) return FKV_OK;
    const struct fkv_model *m = s->model;
    s->logits_count = 0;
    if (s->ops->norm_logits(s->backend, &m->final_norm, m->config.rms_eps, &m->head, s->x, row, rows, s->logits, err))
        return FKV_FAILED;
    s->logits_row = row;
    s->logits_count = rows;
    return FKV_OK;
}

int32_t fkv_session_logit_rows(const struct fkv_session *s) { return s->logit_rows; }

int fkv_session_logits(struct fkv_session *s, int32_t row, int32_t rows, float *logits, struct fkv_error *err) {
    if (check_rows(s, row, rows, err)) return FKV_FAILED;
    size_t width = (size_t)s->model->config.vocab;
    for (int32_t at = 0; at < rows; at += s->logit_rows) {
        int32_t count = rows - at < s->logit_rows ? rows - at : s->logit_rows;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->read(s->backend, s->logits, 0, logits + (size_t)at * width, sizeof(float) * width * (size_t)count,
                         err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_session_score(struct fkv_session *s, struct fkv_session *reference, int32_t row, int32_t rows,
                      const int32_t *targets, double *nll, int32_t *top1, double *kl, struct fkv_error *err) {
    if (check_rows(s, row, rows, err) || (kl && check_rows(reference, row, rows, err))) return FKV_FAILED;
    int32_t vocab = s->model->config.vocab, step = s->logit_rows;
    if (kl && reference->logit_rows < step) step = reference->logit_rows;
    for (int32_t i = 0; i < rows; i++)
        if (targets[i] < 0 || targets[i] >= vocab)
            return fkv_fail(err, "score: row %d: expected a target below %d, found %d", row + i, vocab, targets[i]);
    for (int32_t at = 0; at < rows; at += step) {
        int32_t count = rows - at < step ? rows - at : step;
        if (compute_logits(s, row + at, count, err) ||
            s->ops->score(s->backend, s->logits, targets + at, count, vocab, nll + at, top1 ? top1 + at : NULL, err))
            return FKV_FAILED;
        if (kl && (compute_logits(reference, row + at, count, err) ||
                   s->ops->divergence(s->backend, reference->logits, s->logits, count, vocab, kl + at, err)))
            return FKV_FAILED;
    }
    return FKV_OK;
}

const struct fkv_policy_setup *fkv_session_setup(const struct fkv_session *s) { return &s->setup; }

const struct fkv_model *fkv_session_model(const struct fkv_session *s) { return s->model; }

int64_t fkv_session_tokens(const struct fkv_session *s) { return s->tokens; }

const struct fkv_head *fkv_session_heads(const struct fkv_session *s) { return s->heads; }

void fkv_session_row_state(const struct fkv_session *s, int32_t row, int32_t rows, double *slots_used, double *round,
                           double *since) {
    size_t bytes = (size_t)rows * sizeof(double);
    if (slots_used) memcpy(slots_used, s->row_slots + row, bytes);
    if (round) memcpy(round, s->row_round + row, bytes);
    if (since) memcpy(since, s->row_since + row, bytes);
}

void fkv_session_statistics(const struct fkv_session *s, struct fkv_session_statistics *out) { *out = s->statistics; }

void fkv_session_tap(struct fkv_session *s, enum fkv_site site, fkv_tap_function *tap, void *context) {
    s->taps[site] = (struct tap){tap, context};
}
