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

/* Slots of the whole cache. */
static size_t all_slots(const struct fkv_config *c, const struct fkv_session_options *o,
                        const struct fkv_policy_setup *setup) {
    return (size_t)c->layers * (size_t)o->sequences * (size_t)c->kv_heads * (size_t)setup->capacity;
}

/* Bytes of keys (or values) of the whole cache. */
static size_t cache_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                          const struct fkv_policy_setup *setup) {
    return all_slots(c, o, setup) * (size_t)c->head_dim * fkv_dtype_bytes(o->cache_dtype);
}

static size_t bias_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                         const struct fkv_policy_setup *setup) {
    return o->biases || setup->mass_bias ? all_slots(c, o, setup) * sizeof(float) : 0;
}

/* Bytes of the attention sums of a selecting policy. */
static size_t paid_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                         const struct fkv_policy_setup *setup) {
    return setup->policy->scores == FKV_SCORE_ATTENTION ? all_slots(c, o, setup) * sizeof(float)
                                                        : 0;
}

/* Activations, logits, biases, attention sums and what choosing takes. */
static int64_t scratch_bytes(const struct fkv_config *c, const struct fkv_session_options *o,
                             const struct fkv_policy_setup *setup) {
    int64_t width = c->dim + 2 * (int64_t)c->heads * c->head_dim +
                    3 * (int64_t)c->kv_heads * c->head_dim + c->hidden;
    return (int64_t)sizeof(float) * (width * o->block + session_logits(c, o->block)) +
           (int64_t)(bias_bytes(c, o, setup) + paid_bytes(c, o, setup)) +
           session_choosing_bytes(c, o, setup);
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
    needs->cache += 2 * (int64_t)cache_bytes(config, &o, &setup);
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
    int64_t cache = 2 * (int64_t)cache_bytes(&s->model->config, o, &s->setup),
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
    const struct fkv_session_options *o = &s->options;
    const struct fkv_policy_setup *setup = &s->setup;
    const size_t row = sizeof(float) * (size_t)o->block, heads = (size_t)(c->heads * c->head_dim),
                 kv = (size_t)(c->kv_heads * c->head_dim),
                 chunk = sizeof(float) * (size_t)setup->chunk * heads;
    const size_t cache = s->cache_bytes = cache_bytes(c, o, setup);
    const struct {
        struct fkv_buffer **buffer;
        size_t bytes; /* 0: not needed */
        const char *what;
    } wanted[] = {
        {&s->key, cache, "the cache"},
        {&s->value, cache, "the cache"},
        {&s->x, row * (size_t)c->dim, "activations"},
        {&s->q, row * heads, "activations"},
        {&s->k, row * kv, "activations"},
        {&s->v, row * kv, "activations"},
        {&s->rotated, row * kv, "activations"},
        {&s->attended, row * heads, "activations"},
        {&s->hidden, row * (size_t)c->hidden, "activations"},
        {&s->logits, sizeof(float) * (size_t)session_logits(c, o->block), "activations"},
        {&s->biases, bias_bytes(c, o, setup), "biases of the cache"},
        {&s->selecting.paid, paid_bytes(c, o, setup), "attention sums of the cache"},
        {&s->choosing.query, chunk, "states of a chunk"},
        {&s->choosing.mixed, chunk, "states of a chunk"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (!wanted[i].bytes) continue;
        if (s->ops->buffer_create(s->backend, wanted[i].bytes, wanted[i].buffer, err))
            return fkv_error_prefix(err, "%s", wanted[i].what);
        s->buffers[s->buffer_count++] = *wanted[i].buffer;
    }
    struct fkv_limits limits = limits_of(s->model, o, setup);
    if (s->ops->reserve(s->backend, &limits, err)) return FKV_FAILED;
    for (int32_t r = 0; r < c->rotation_count; r++) { /* angles of each */
        limits.attention = s->attention[r];
        if (s->ops->reserve(s->backend, &limits, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static void allocate_items(struct fkv_session *s) {
    const size_t heads = (size_t)session_head_count(s), kv_heads = (size_t)session_layer_heads(s),
                 attending =
                     (size_t)session_attend_items(&s->model->config, &s->options, &s->setup),
                 capacity = (size_t)s->setup.capacity;
    struct round_items *it = &s->items;
    it->append = fkv_memory_take(&s->memory, kv_heads, sizeof *it->append);
    it->attend = fkv_memory_take(&s->memory, attending, sizeof *it->attend);
    it->spans =
        fkv_memory_take(&s->memory, attending * (size_t)s->setup.max_spans, sizeof *it->spans);
    it->next_row = fkv_memory_take(&s->memory, kv_heads, sizeof *it->next_row);
    it->actions = fkv_memory_take(&s->memory, heads, sizeof *it->actions);
    it->acting = fkv_memory_take(&s->memory, heads, sizeof *it->acting);
    it->compress = fkv_memory_take(&s->memory, heads, sizeof *it->compress);
    it->gather = fkv_memory_take(&s->memory, heads, sizeof *it->gather);
    it->energy = fkv_memory_take(&s->memory, heads, sizeof *it->energy);
    it->measured = fkv_memory_take(&s->memory, heads, sizeof *it->measured);
    it->item_head = fkv_memory_take(&s->memory, heads, sizeof *it->item_head);
    /* As many numbers as the cache has slots, but only touched where a policy gathers. */
    int32_t *from = fkv_memory_take(&s->memory, heads * capacity, sizeof *from);
    for (size_t h = 0; h < heads && it->actions && from; h++)
        it->actions[h].gather_from = from + h * capacity;
}

static void allocate_biases(struct fkv_session *s) {
    const size_t heads = (size_t)session_head_count(s), capacity = (size_t)s->setup.capacity;
    s->bias = fkv_memory_take(&s->memory, heads * capacity, sizeof *s->bias);
    s->bias_stale = fkv_memory_take(&s->memory, heads, sizeof *s->bias_stale);
    s->bias_scratch = fkv_memory_take(&s->memory, 2 * capacity, sizeof *s->bias_scratch);
    s->bias_row = fkv_memory_take(&s->memory, capacity, sizeof *s->bias_row);
}

static void allocate_selecting(struct fkv_session *s) {
    const size_t capacity = (size_t)s->setup.capacity;
    struct selecting *to = &s->selecting;
    to->summed = fkv_memory_take(&s->memory, (size_t)session_head_count(s), sizeof *to->summed);
    to->zeros = fkv_memory_take(&s->memory, capacity, sizeof *to->zeros);
    to->numbers = fkv_memory_take(&s->memory, capacity, sizeof *to->numbers);
    to->score = fkv_memory_take(&s->memory, capacity, sizeof *to->score);
    to->scratch = fkv_memory_take(&s->memory, capacity, sizeof *to->scratch);
    to->keys = fkv_memory_take(&s->memory, capacity, session_slot_bytes(s));
}

static int allocate(struct fkv_session *s, struct fkv_error *err) {
    const size_t sequences = (size_t)s->options.sequences, block = (size_t)s->options.block,
                 heads = (size_t)session_head_count(s);
    struct scores *scores = &s->scores;
    s->heads = fkv_memory_take(&s->memory, heads, sizeof *s->heads);
    s->peak_slots = fkv_memory_take(&s->memory, heads, sizeof *s->peak_slots);
    s->peak_bytes = fkv_memory_take(&s->memory, sequences, sizeof *s->peak_bytes);
    s->fed = fkv_memory_take(&s->memory, sequences, sizeof *s->fed);
    s->tokens = fkv_memory_take(&s->memory, block, sizeof *s->tokens);
    s->row_state = fkv_memory_take(&s->memory, block, sizeof *s->row_state);
    if (s->setup.policy->maps_slots)
        s->maps = fkv_memory_take(&s->memory, (size_t)(s->setup.layers * s->setup.kv_heads),
                                  sizeof *s->maps);
    scores->p = fkv_memory_take(&s->memory, block, sizeof *scores->p);
    scores->q = fkv_memory_take(&s->memory, block, sizeof *scores->q);
    scores->panel_p = fkv_memory_take(&s->memory, block, sizeof *scores->panel_p);
    scores->panel_q = fkv_memory_take(&s->memory, block, sizeof *scores->panel_q);
    scores->gap = fkv_memory_take(&s->memory, block, sizeof *scores->gap);
    scores->panel_gap = fkv_memory_take(&s->memory, block, sizeof *scores->panel_gap);
    allocate_items(s);
    if (s->biases) allocate_biases(s);
    if (s->setup.policy->select) allocate_selecting(s);
    if (s->setup.chunk) session_allocate_choosing(s);
    return s->memory.failed ? fkv_fail(err, "session: out of memory") : FKV_OK;
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

static int create_maps(struct fkv_session *s, struct fkv_error *err) {
    if (!s->setup.policy->maps_slots) return FKV_OK;
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
    if (check_memory(s, err) || create_buffers(s, err) || allocate(s, err)) goto failed;
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
    for (int i = 0; i < s->buffer_count; i++) s->ops->buffer_release(s->backend, s->buffers[i]);
    for (int32_t i = 0; i < s->map_count; i++) s->ops->map_release(s->backend, s->maps[i].map);
    s->ops->step_release(s->backend, s->step);
    fkv_memory_free(&s->memory);
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
