/* A session's life: how large it is, opening it (everything is allocated here), its counters. On
 * a device, the bytes needed are compared with the bytes free before anything is allocated. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session/kept_logits.h"
#include "engine/session/session_internal.h"
#include "kernels/base/host.h"
#include "kernels/device_memory.h"

enum { DEFAULT_BLOCK = 512 };

/* ---- sizes ---- */

static void default_options(struct fkv_session_options *o, const struct fkv_config *c) {
    if (!o->sequences) o->sequences = 1;
    if (!o->block) o->block = o->sequences > DEFAULT_BLOCK ? o->sequences : DEFAULT_BLOCK;
    if (!o->max_tokens) o->max_tokens = c->trained_context;
    if (o->block > o->max_tokens * o->sequences) o->block = (int32_t)(o->max_tokens * o->sequences);
}

/* Bytes of keys (or values) of the whole cache. */
static size_t cache_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                          int32_t capacity) {
    size_t heads = (size_t)c->layers * (size_t)o->sequences * (size_t)c->kv_heads;
    return heads * (size_t)capacity * (size_t)c->head_dim * fkv_dtype_bytes(o->cache_dtype);
}

static bool has_biases(const struct fkv_session_options *o, const struct fkv_policy_setup *setup) {
    return o->biases || setup->mass_bias;
}

static size_t bias_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                         int32_t capacity) {
    return (size_t)c->layers * (size_t)o->sequences * (size_t)c->kv_heads * (size_t)capacity *
           sizeof(float);
}

/* Bytes of the attention sums of a selecting policy, as many numbers as biases. */
static size_t paid_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                         const struct fkv_policy_setup *setup) {
    return setup->policy->scores == FKV_SCORE_ATTENTION ? bias_bytes(c, o, setup->capacity) : 0;
}

/* Activations, logits, biases, attention sums and what choosing takes. */
static int64_t scratch_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                             const struct fkv_policy_setup *setup) {
    int64_t width = c->dim + 2 * (int64_t)c->heads * c->head_dim +
                    3 * (int64_t)c->kv_heads * c->head_dim + c->hidden;
    int64_t biases = has_biases(o, setup) ? (int64_t)bias_bytes(c, o, setup->capacity) : 0;
    return (int64_t)sizeof(float) * (width * o->block + session_logits(c, o->block)) + biases +
           (int64_t)paid_bytes(c, o, setup) + session_choosing_bytes(c, o, setup);
}

int64_t fkv_kept_logits_bytes(const struct fkv_config *config,
                              const struct fkv_session_options *options, int32_t rows) {
    struct fkv_session_options o = *options;
    default_options(&o, config);
    return ((int64_t)rows * config->dim + session_logits(config, o.block)) * (int64_t)sizeof(float);
}

/* Items of a layer's call to attend, spans among them, at most. */
static int32_t most_spans(const struct fkv_config *c, const struct fkv_session_options *o,
                          const struct fkv_policy_setup *setup) {
    return session_attend_items(c, o, setup) * setup->max_spans;
}

/* Most spans of a layer's call, or most heads that act at once. */
static struct fkv_limits limits_of(const struct fkv_model *model,
                                   const struct fkv_session_options *o,
                                   const struct fkv_policy_setup *setup) {
    const struct fkv_config *c = &model->config;
    const int32_t spans = most_spans(c, o, setup),
                  heads_acting = setup->layers * o->sequences * setup->kv_heads;
    return (struct fkv_limits){.rows = o->block > setup->chunk ? o->block : setup->chunk,
                               .dim = c->dim,
                               .hidden = c->hidden,
                               .vocab = c->vocab,
                               .slots = setup->capacity,
                               .items = spans > heads_acting ? spans : heads_acting,
                               .attention = model->attention};
}

/* The maps that the policy's heads will need, each once: asks it what a full one would do. `maps`
 * [layers, kv_heads], from [capacity]. */
static int32_t list_maps(const struct fkv_policy_setup *setup, int32_t *from,
                         struct prepared_map *maps) {
    int32_t count = 0;
    for (int32_t i = 0; setup->policy->maps_slots && i < setup->layers * setup->kv_heads; i++) {
        const struct fkv_head full = {
            .layer = i / setup->kv_heads, .kv_head = i % setup->kv_heads, .slots = setup->capacity};
        struct fkv_action a = {.gather_from = from, .slots = full.slots};
        if (fkv_policy_of_layer(setup, full.layer) != setup->policy) continue;
        setup->policy->act(setup, &full, &a);
        int32_t k = 0;
        while (k < count && !session_map_is(&maps[k], &a)) k++;
        if (a.map_n && k == count)
            maps[count++] = (struct prepared_map){.n = a.map_n,
                                                  .retained = a.map_retained,
                                                  .gain = a.map_gain,
                                                  .matrices = a.map_matrices,
                                                  .id = a.map_id,
                                                  .layer = full.layer,
                                                  .kv_head = full.kv_head};
    }
    return count;
}

/* Adds what the backend takes for a session: one demand for all but the maps, then one per map. */
static int add_demands(const struct fkv_model *model, const struct fkv_session_options *o,
                       const struct fkv_policy_setup *setup, struct fkv_backend_needs *own,
                       struct fkv_error *err) {
    const size_t heads = (size_t)setup->layers * (size_t)setup->kv_heads;
    int32_t *from = malloc((size_t)setup->capacity * sizeof *from);
    struct prepared_map *maps = malloc(heads * sizeof *maps);
    struct fkv_demand demand = {.limits = limits_of(model, o, setup)};
    if (!setup->chunk) /* else there are no steps */
        demand.step_items = (int64_t)setup->layers * most_spans(&model->config, o, setup);
    int status = from && maps ? model->ops->add_needs(model->backend, &demand, own, err)
                              : fkv_fail(err, "session: out of memory");
    const int32_t count = status ? 0 : list_maps(setup, from, maps);
    for (int32_t i = 0; i < count && !status; i++) {
        demand = (struct fkv_demand){.limits = demand.limits,
                                     .map_n = maps[i].n,
                                     .map_retained = maps[i].retained,
                                     .map_matrices = maps[i].matrices};
        status = model->ops->add_needs(model->backend, &demand, own, err);
    }
    free(from);
    free(maps);
    return status;
}

int fkv_session_add_needs(const struct fkv_model *model, const struct fkv_policy_options *policy,
                          const struct fkv_session_options *options,
                          struct fkv_session_needs *needs, struct fkv_error *err) {
    const struct fkv_config *config = &model->config;
    struct fkv_session_options o = *options;
    struct fkv_policy_setup setup;
    default_options(&o, config);
    if (fkv_policy_setup(policy, config, o.max_tokens, &setup, err)) return FKV_FAILED;
    needs->cache += 2 * (int64_t)cache_bytes(config, &o, setup.capacity);
    needs->scratch += scratch_bytes(config, &o, &setup);
    int status = add_demands(model, &o, &setup, &needs->own, err);
    fkv_policy_setup_free(&setup);
    return status;
}

struct fkv_cache session_cache(const struct fkv_session *s, int32_t layer) {
    size_t slots = (size_t)layer * (size_t)session_layer_heads(s) * (size_t)s->setup.capacity;
    return (struct fkv_cache){.key = s->key,
                              .value = s->value,
                              .offset = slots * session_slot_bytes(s),
                              .dtype = s->options.cache_dtype,
                              .capacity = s->setup.capacity,
                              .bias = s->biases,
                              .bias_offset = slots * sizeof(float),
                              .quant = s->setup.quant,
                              .quant_before = s->setup.quant_before};
}

/* ---- opening ---- */

/* Sets s->space, and refuses a session that does not fit the memory there. */
static int check_memory(struct fkv_session *s, struct fkv_error *err) {
    const struct fkv_session_options *o = &s->options;
    struct fkv_device_info info;
    if (s->ops->info(s->backend, &info, err)) return FKV_FAILED;
    s->space = info.space;
    struct fkv_backend_needs own = {0};
    if (s->space == FKV_DEVICE && add_demands(s->model, o, &s->setup, &own, err)) return FKV_FAILED;
    int64_t cache = 2 * (int64_t)cache_bytes(&s->model->config, o, s->setup.capacity),
            scratch = scratch_bytes(&s->model->config, o, &s->setup) + own.shared + own.kept;
    char a[16], b[16], needs[384], remedy[96];
    fkv_format_bytes(a, cache);
    fkv_format_bytes(b, scratch);
    snprintf(needs, sizeof needs, "%s: the cache needs %s and scratch %s", s->model->name, a, b);
    snprintf(remedy, sizeof remedy, ": %s%s%s may fit",
             s->setup.policy->takes_window && !s->setup.policy->keeps_every_token
                 ? "a smaller --window"
                 : "fewer tokens",
             o->sequences > 1 ? ", a smaller --batch" : "",
             o->cache_dtype == FKV_F32 ? " or --cache-dtype bf16" : "");
    return fkv_check_device_memory(&info, cache + scratch, needs, remedy, err);
}

static int create_buffers(struct fkv_session *s, struct fkv_error *err) {
    const struct fkv_config *c = &s->model->config;
    size_t row = sizeof(float) * (size_t)s->options.block, heads = (size_t)(c->heads * c->head_dim),
           kv = (size_t)(c->kv_heads * c->head_dim);
    const size_t cache = s->cache_bytes = cache_bytes(c, &s->options, s->setup.capacity);
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
        {&s->logits, sizeof(float) * (size_t)session_logits(c, s->options.block)},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (s->ops->buffer_create(s->backend, wanted[i].bytes, wanted[i].buffer, err))
            return fkv_error_prefix(err, i < 2 ? "the cache" : "activations");
    if (has_biases(&s->options, &s->setup) &&
        s->ops->buffer_create(s->backend, bias_bytes(c, &s->options, s->setup.capacity), &s->biases,
                              err))
        return fkv_error_prefix(err, "biases of the cache");
    const size_t paid = paid_bytes(c, &s->options, &s->setup);
    if (paid && s->ops->buffer_create(s->backend, paid, &s->selecting.paid, err))
        return fkv_error_prefix(err, "attention sums of the cache");
    struct fkv_limits limits = limits_of(s->model, &s->options, &s->setup);
    if (s->ops->reserve(s->backend, &limits, err)) return FKV_FAILED;
    for (int32_t r = 0; r < c->rotation_count; r++) { /* angles of each */
        limits.attention = s->attention[r];
        if (s->ops->reserve(s->backend, &limits, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int create_items(struct fkv_session *s, struct fkv_error *err) {
    const size_t sequences = (size_t)s->options.sequences, block = (size_t)s->options.block,
                 heads = (size_t)session_head_count(s), kv_heads = (size_t)session_layer_heads(s),
                 attending =
                     (size_t)session_attend_items(&s->model->config, &s->options, &s->setup),
                 capacity = (size_t)s->setup.capacity;
    struct round_items *it = &s->items;
    it->append = calloc(kv_heads, sizeof *it->append);
    it->attend = calloc(attending, sizeof *it->attend);
    it->spans = calloc(attending * (size_t)s->setup.max_spans, sizeof *it->spans);
    it->next_row = calloc(kv_heads, sizeof *it->next_row);
    it->actions = calloc(heads, sizeof *it->actions);
    it->acting = calloc(heads, sizeof *it->acting);
    it->compress = calloc(heads, sizeof *it->compress);
    it->gather = calloc(heads, sizeof *it->gather);
    it->energy = calloc(heads, sizeof *it->energy);
    it->measured = calloc(heads, sizeof *it->measured);
    it->item_head = calloc(heads, sizeof *it->item_head);
    s->heads = calloc(heads, sizeof *s->heads);
    s->peak_slots = calloc(heads, sizeof *s->peak_slots);
    s->peak_bytes = calloc(sequences, sizeof *s->peak_bytes);
    s->fed = calloc(sequences, sizeof *s->fed);
    s->tokens = calloc(block, sizeof *s->tokens);
    s->row_state = calloc(block, sizeof *s->row_state);
    /* As many numbers as the cache has slots, but only touched where a policy gathers. */
    int32_t *from = calloc(heads * capacity, sizeof *from);
    if (!it->append || !it->attend || !it->spans || !it->next_row || !it->actions || !it->acting ||
        !it->compress || !it->gather || !it->energy || !it->measured || !it->item_head ||
        !s->heads || !s->peak_slots || !s->peak_bytes || !s->fed || !s->tokens || !s->row_state ||
        !from) {
        free(from);
        return fkv_fail(err, "session: out of memory");
    }
    for (size_t h = 0; h < heads; h++) it->actions[h].gather_from = from + h * capacity;
    return FKV_OK;
}

static int create_scores(struct fkv_session *s, struct fkv_error *err) {
    const size_t block = (size_t)s->options.block;
    struct scores *to = &s->scores;
    to->p = calloc(4 * block, sizeof *to->p);
    to->gap = calloc(2 * block, sizeof *to->gap);
    if (!to->p || !to->gap) return fkv_fail(err, "session: out of memory");
    to->q = to->p + block, to->panel_p = to->q + block, to->panel_q = to->panel_p + block;
    to->panel_gap = to->gap + block;
    return FKV_OK;
}

static int create_biases(struct fkv_session *s, struct fkv_error *err) {
    size_t heads = (size_t)session_head_count(s), capacity = (size_t)s->setup.capacity;
    if (!s->biases) return FKV_OK;
    s->bias = calloc(heads * capacity, sizeof *s->bias);
    s->bias_stale = calloc(heads, sizeof *s->bias_stale);
    s->bias_scratch = calloc(2 * capacity, sizeof *s->bias_scratch);
    s->bias_row = calloc(capacity, sizeof *s->bias_row);
    if (!s->bias || !s->bias_stale || !s->bias_scratch || !s->bias_row)
        return fkv_fail(err, "session: out of memory");
    return FKV_OK;
}

static int create_matrix_map(struct fkv_session *s, struct prepared_map *m, struct fkv_error *err) {
    const struct fkv_head head = {.layer = m->layer, .kv_head = m->kv_head};
    const size_t count = (size_t)m->n * (size_t)m->retained;
    float *key = malloc((size_t)m->matrices * count * sizeof *key),
          *value = m->matrices > 1 ? key + count : key;
    if (!key) return fkv_fail(err, "session: out of memory for a map of %d slots", m->n);
    int status =
        s->setup.policy->fill_map(&s->setup, &head, key, m->matrices > 1 ? value : NULL, err);
    if (!status)
        status = s->ops->map_matrix(s->backend, m->n, m->retained, key, value, &m->map, err);
    free(key);
    return status;
}

static int create_selecting(struct fkv_session *s, struct fkv_error *err) {
    const size_t capacity = (size_t)s->setup.capacity;
    struct selecting *to = &s->selecting;
    if (!s->setup.policy->select) return FKV_OK;
    to->summed = calloc((size_t)session_head_count(s), sizeof *to->summed);
    to->zeros = calloc(capacity, sizeof *to->zeros);
    to->numbers = calloc(capacity, sizeof *to->numbers);
    to->score = calloc(capacity, sizeof *to->score);
    to->scratch = calloc(capacity, sizeof *to->scratch);
    to->keys = malloc(capacity * session_slot_bytes(s));
    return to->summed && to->zeros && to->numbers && to->score && to->scratch && to->keys
               ? FKV_OK
               : fkv_fail(err, "session: out of memory");
}

static int create_maps(struct fkv_session *s, struct fkv_error *err) {
    if (!s->setup.policy->maps_slots) return FKV_OK;
    s->maps = calloc((size_t)s->setup.layers * (size_t)s->setup.kv_heads, sizeof *s->maps);
    if (!s->maps) return fkv_fail(err, "session: out of memory");
    s->map_count = list_maps(&s->setup, s->items.actions[0].gather_from, s->maps);
    for (int32_t i = 0; i < s->map_count; i++) {
        struct prepared_map *m = &s->maps[i];
        if (m->matrices ? create_matrix_map(s, m, err)
                        : s->ops->map_dct(s->backend, m->n, m->retained, m->gain, &m->map, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_session_open(const struct fkv_model *model, const struct fkv_policy_options *policy,
                     const struct fkv_session_options *options, struct fkv_session **out,
                     struct fkv_error *err) {
    *out = NULL;
    struct fkv_session *s = calloc(1, sizeof *s);
    if (!s) return fkv_fail(err, "session: out of memory");
    s->model = model;
    s->ops = model->ops;
    s->backend = model->backend;
    s->options = *options;
    default_options(&s->options, &model->config);
    if (fkv_policy_setup(policy, &model->config, s->options.max_tokens, &s->setup, err)) {
        free(s);
        return FKV_FAILED;
    }
    session_choose_rotations(s);
    if (check_memory(s, err) || create_buffers(s, err) || create_items(s, err) ||
        create_scores(s, err) || create_biases(s, err) || create_selecting(s, err) ||
        session_create_choosing(s, err))
        goto failed;
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    if (create_maps(s, err)) goto failed;
    *out = s;
    return FKV_OK;
failed:
    fkv_session_close(s);
    return FKV_FAILED;
}

void fkv_session_close(struct fkv_session *s) {
    if (!s) return;
    session_free_choosing(s);
    struct selecting *selecting = &s->selecting;
    struct fkv_buffer *buffers[] = {
        selecting->paid, s->key,      s->value,  s->x,      s->q,     s->k, s->v,
        s->rotated,      s->attended, s->hidden, s->logits, s->biases};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        s->ops->buffer_release(s->backend, buffers[i]);
    for (int32_t i = 0; i < s->map_count; i++) s->ops->map_release(s->backend, s->maps[i].map);
    s->ops->step_release(s->backend, s->step);
    struct round_items *it = &s->items;
    if (it->actions) free(it->actions[0].gather_from);
    void *owned[] = {selecting->summed, selecting->zeros,   selecting->numbers,
                     selecting->score,  selecting->scratch, selecting->keys,
                     it->append,        it->attend,         it->spans,
                     it->next_row,      it->actions,        it->acting,
                     it->compress,      it->gather,         it->energy,
                     it->measured,      it->item_head,      s->heads,
                     s->peak_slots,     s->peak_bytes,      s->fed,
                     s->tokens,         s->row_state,       s->maps,
                     s->bias,           s->bias_stale,      s->bias_scratch,
                     s->bias_row,       s->scores.p,        s->scores.gap};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    fkv_policy_setup_free(&s->setup);
    free(s);
}

void fkv_session_reset(struct fkv_session *s, int32_t sequence) {
    for (int32_t i = 0; i < session_head_count(s); i++) {
        int32_t kv_head = i % s->setup.kv_heads, of = i / s->setup.kv_heads % s->options.sequences;
        if (sequence != of && sequence != FKV_ALL_SEQUENCES) continue;
        if (s->bias) session_clear_biases(s, i);
        if (s->selecting.summed) s->selecting.summed[i] = 0;
        s->heads[i] = (struct fkv_head){
            .layer = i / session_layer_heads(s), .sequence = of, .kv_head = kv_head};
    }
}

/* ---- where it stands ---- */

const struct fkv_policy_setup *fkv_session_setup(const struct fkv_session *s) { return &s->setup; }

const struct fkv_model *fkv_session_model(const struct fkv_session *s) { return s->model; }

int32_t fkv_session_block(const struct fkv_session *s) { return s->options.block; }

/* The last layer's heads are behind until a feed is through, so that a tap sees the tokens before
 * it. */
int64_t fkv_session_tokens(const struct fkv_session *s, int32_t sequence) {
    return session_head(s, s->setup.layers - 1, sequence, 0)->tokens;
}

void fkv_session_row_state(const struct fkv_session *s, int32_t row, int32_t rows,
                           struct fkv_row_state *state) {
    memcpy(state, s->row_state + row, (size_t)rows * sizeof *state);
}

void fkv_session_slots(const struct fkv_session *s, int32_t sequence, int32_t *now, int32_t *most) {
    const int32_t kv_heads = s->setup.kv_heads;
    for (int32_t i = 0; i < s->setup.layers * kv_heads; i++) {
        const struct fkv_head *head = session_head(s, i / kv_heads, sequence, i % kv_heads);
        if (now) now[i] = session_held_slots(s, head, head->slots);
        if (most) most[i] = s->peak_slots[head - s->heads];
    }
}

int64_t fkv_session_allocated(const struct fkv_session *s) {
    return 2 * (int64_t)s->cache_bytes / s->options.sequences;
}

void fkv_session_statistics(const struct fkv_session *s, struct fkv_session_statistics *out) {
    *out = s->statistics;
}

void fkv_session_tap(struct fkv_session *s, enum fkv_site site, fkv_tap_function *tap,
                     void *context) {
    s->taps[site] = (struct tap){tap, context};
}
