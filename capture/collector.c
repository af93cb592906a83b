/* The taps of a capture. Rows come a block at a time, layer by layer, [rows, heads, head_dim] with
 * all heads of the layer; what was not asked for is left out here. Captured heads that are
 * neighbours are a part of each row and need no copy; others are first laid side by side.
 *
 * For spectra only, each (state, sequence, layer) keeps the segment it is in, in a buffer of the
 * backend's, and the kernel `spectra_add` adds it to sums there when it is full: a model that makes
 * half a megabyte of states per token is asked for a few numbers per frequency at the end of a
 * recording. A segment that is not whole leaves no trace. Numbers that are not finite show in a
 * head's energy when the sums are read; which token they belong to is not known then. */
#include "capture/collector.h"
#include "engine/session/taps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct collected_state {
    struct fkv_collector *collector; /* a tap's context is its state */
    enum fkv_state state;
    int32_t heads, per_captured_head; /* query heads per KV head, else 1 */
    struct fkv_buffer *segments; /* float32 [sequences, layer_count, length, heads, head_dim] */
    struct fkv_buffer *sums;     /* [sequences, layer_count] of fkv_spectra_layout */
};

struct fkv_collector {
    const struct fkv_capture_info *info;
    const struct fkv_model *model;
    struct fkv_pipeline *pipeline;
    struct fkv_collector_options options;
    int32_t *axis; /* [n_layers]: index on axis 0, -1 where a layer is not captured */
    struct fkv_buffer
        *picked; /* float32 [block, heads, head_dim] where captured heads are no neighbours */
    struct fkv_buffer *zeros; /* as the sums of one layer, of the state with most heads */
    struct collected_state states[FKV_STATES];
};

static const enum fkv_site sites[FKV_STATES] = {
    [FKV_STATE_KEY] = FKV_SITE_KEY,
    [FKV_STATE_VALUE] = FKV_SITE_VALUE,
    [FKV_STATE_KEY_ROTATED] = FKV_SITE_KEY_ROTATED,
    [FKV_STATE_QUERY] = FKV_SITE_QUERY,
};

/* Captured heads of the state with most of them. */
static int32_t most_heads(const struct fkv_capture_info *info) {
    const bool query = fkv_capture_holds(info, FKV_STATE_QUERY);
    return fkv_capture_state_heads(info, query ? FKV_STATE_QUERY : FKV_STATE_KEY);
}

static bool neighbours(const struct fkv_capture_info *info) {
    return info->head_index[info->head_count - 1] - info->head_index[0] == info->head_count - 1;
}

static size_t layer_sums(const struct fkv_collector *c, int32_t heads) {
    return fkv_spectra_layout(heads, c->options.length, c->info->head_dim).count * sizeof(double);
}

/* ---- rows ---- */

/* Copies the captured heads of `count` rows, from row `first` on, to rows [.., heads, head_dim] at
 * byte `at` of `to`: a run of neighbours at a time. */
static int copy_heads(const struct fkv_collector *c, const struct collected_state *s,
                      const struct fkv_tap_event *event, int32_t first, int32_t count,
                      struct fkv_buffer *to, size_t at, struct fkv_error *err) {
    const size_t d = (size_t)event->head_dim, group = d * (size_t)s->per_captured_head;
    const size_t from_stride = d * (size_t)event->heads, to_stride = d * (size_t)s->heads;
    for (int32_t h = 0, next; h < c->info->head_count; h = next) {
        for (next = h + 1; next < c->info->head_count; next++)
            if (c->info->head_index[next] != c->info->head_index[h] + next - h) break;
        const size_t from =
            event->offset +
            sizeof(float) * ((size_t)first * from_stride + (size_t)c->info->head_index[h] * group);
        if (c->model->ops->copy_rows(c->model->backend, to, at + sizeof(float) * (size_t)h * group,
                                     to_stride, event->states, from, from_stride, count,
                                     (int32_t)((size_t)(next - h) * group), err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

static int hand_over(struct fkv_collector *c, const struct collected_state *s, int32_t layer,
                     const struct fkv_tap_event *event, struct fkv_error *err) {
    const size_t d = (size_t)event->head_dim;
    struct fkv_pipeline_rows rows = {.state = s->state,
                                     .layer = layer,
                                     .rows = event->rows,
                                     .width = s->heads * event->head_dim,
                                     .t = event->token,
                                     .states = event->states,
                                     .offset = event->offset,
                                     .stride = d * (size_t)event->heads};
    if (neighbours(c->info)) {
        rows.offset += sizeof(float) * d * (size_t)(c->info->head_index[0] * s->per_captured_head);
    } else {
        if (copy_heads(c, s, event, 0, event->rows, c->picked, 0, err)) return FKV_FAILED;
        rows.states = c->picked;
        rows.offset = 0;
        rows.stride = (size_t)rows.width;
    }
    return fkv_pipeline_rows(c->pipeline, event->sequence, &rows, err);
}

/* ---- spectra ---- */

static int add_to_segments(struct fkv_collector *c, const struct collected_state *s, int32_t layer,
                           const struct fkv_tap_event *event, struct fkv_error *err) {
    const struct fkv_backend_ops *ops = c->model->ops;
    const int32_t length = c->options.length, skip = c->options.skip_sinks;
    const size_t row = sizeof(float) * (size_t)s->heads * (size_t)event->head_dim;
    const size_t which = (size_t)event->sequence * (size_t)c->info->layer_count + (size_t)layer;
    const size_t segment = which * (size_t)length * row;
    int32_t first = event->token < skip ? (int32_t)(skip - event->token) : 0;
    while (first < event->rows) {
        const int32_t at = (int32_t)((event->token + first - skip) % length);
        const int32_t fit = length - at < event->rows - first ? length - at : event->rows - first;
        if (copy_heads(c, s, event, first, fit, s->segments, segment + (size_t)at * row, err))
            return FKV_FAILED;
        if (at + fit == length &&
            ops->spectra_add(c->model->backend, s->segments, segment, row / sizeof(float), length,
                             s->heads, event->head_dim, s->sums, which * layer_sums(c, s->heads),
                             err))
            return FKV_FAILED;
        first += fit;
    }
    return FKV_OK;
}

/* Copies one kind of sums, `count` doubles from index `first` of each layer's on, to `to` [layers,
 * count]. */
static int read_sums(const struct fkv_collector *c, const struct collected_state *s,
                     int32_t sequence, size_t first, size_t count, double *to,
                     struct fkv_error *err) {
    const int32_t layers = c->info->layer_count;
    const size_t bytes = layer_sums(c, s->heads);
    for (int32_t i = 0; i < layers; i++)
        if (c->model->ops->read(c->model->backend, s->sums,
                                (size_t)(sequence * layers + i) * bytes + first * sizeof(double),
                                to + (size_t)i * count, count * sizeof(double), err))
            return FKV_FAILED;
    return FKV_OK;
}

static int check_energies(const struct fkv_collector *c, const struct collected_state *s,
                          const struct fkv_spectra_sums *sums, struct fkv_error *err) {
    for (int32_t i = 0; i < sums->layers; i++)
        for (int32_t h = 0; h < s->heads; h++) {
            const double energy = sums->energy_sum[i * s->heads + h];
            if (isfinite(energy)) continue;
            return fkv_fail(
                err, "%s of layer %d, head %d: expected finite numbers, found an energy of %g",
                fkv_state_names[s->state], c->info->layer_index[i],
                fkv_capture_head_number(c->info, s->state, h), energy);
        }
    return FKV_OK;
}

static int finish_state(struct fkv_collector *c, const struct collected_state *s, int32_t sequence,
                        int64_t n_tokens, struct fkv_error *err) {
    const int32_t length = c->options.length, skip = c->options.skip_sinks, d = c->info->head_dim;
    const struct fkv_spectra_layout l = fkv_spectra_layout(s->heads, length, d);
    const size_t spectrum = (size_t)s->heads * (size_t)length;
    struct fkv_spectra_sums sums;
    if (fkv_spectra_sums_allocate(&sums, c->info->layer_count, s->heads, length, d, err))
        return FKV_FAILED;
    sums.skip_sinks = skip;
    sums.segments = n_tokens > skip ? (n_tokens - skip) / length : 0;
    if (read_sums(c, s, sequence, l.power, spectrum, sums.power_sum, err) ||
        read_sums(c, s, sequence, l.squares, spectrum, sums.power_sum_of_squares, err) ||
        read_sums(c, s, sequence, l.normalised, spectrum, sums.normalised_sum, err) ||
        read_sums(c, s, sequence, l.means, (size_t)s->heads * (size_t)d, sums.channel_mean_sum,
                  err) ||
        read_sums(c, s, sequence, l.energy, (size_t)s->heads, sums.energy_sum, err) ||
        check_energies(c, s, &sums, err)) {
        fkv_spectra_sums_free(&sums);
        return FKV_FAILED;
    }
    return fkv_pipeline_sums(c->pipeline, sequence, s->state, &sums, err);
}

/* ---- recordings ---- */

static int tap(void *context, const struct fkv_tap_event *event, struct fkv_error *err) {
    const struct collected_state *s = context;
    struct fkv_collector *c = s->collector;
    const int32_t layer = c->axis[event->layer];
    if (layer < 0) return FKV_OK;
    return c->info->spectra_only ? add_to_segments(c, s, layer, event, err)
                                 : hand_over(c, s, layer, event, err);
}

void fkv_collector_attach(struct fkv_collector *c, struct fkv_session *session) {
    for (int state = 0; state < FKV_STATES; state++)
        if (fkv_capture_holds(c->info, state))
            fkv_session_tap(session, sites[state], tap, &c->states[state]);
}

int fkv_collector_begin(struct fkv_collector *c, int32_t sequence, struct fkv_error *err) {
    const int32_t layers = c->info->layer_count;
    for (int state = 0; state < FKV_STATES; state++) {
        struct collected_state *s = &c->states[state];
        const size_t bytes = layer_sums(c, s->heads);
        for (int32_t i = 0; s->sums && i < layers; i++)
            if (c->model->ops->copy(c->model->backend, s->sums,
                                    (size_t)(sequence * layers + i) * bytes, c->zeros, 0, bytes,
                                    err))
                return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_collector_end(struct fkv_collector *c, int32_t sequence, int64_t n_tokens,
                      struct fkv_error *err) {
    for (int state = 0; state < FKV_STATES && c->info->spectra_only; state++)
        if (fkv_capture_holds(c->info, state) &&
            finish_state(c, &c->states[state], sequence, n_tokens, err))
            return FKV_FAILED;
    return FKV_OK;
}

/* ---- life ---- */

static int open_state(struct fkv_collector *c, int state, struct fkv_error *err) {
    const struct fkv_capture_info *info = c->info;
    const struct fkv_backend_ops *ops = c->model->ops;
    struct collected_state *s = &c->states[state];
    *s = (struct collected_state){.collector = c, .state = (enum fkv_state)state};
    s->heads = fkv_capture_state_heads(info, s->state);
    s->per_captured_head = s->heads / info->head_count;
    if (!info->spectra_only) return FKV_OK;
    const size_t layers = (size_t)c->options.sequences * (size_t)info->layer_count;
    const size_t segment =
        sizeof(float) * (size_t)c->options.length * (size_t)s->heads * (size_t)info->head_dim;
    return ops->buffer_create(c->model->backend, layers * segment, &s->segments, err) ||
                   ops->buffer_create(c->model->backend, layers * layer_sums(c, s->heads), &s->sums,
                                      err)
               ? FKV_FAILED
               : FKV_OK;
}

static int make_zeros(struct fkv_collector *c, struct fkv_error *err) {
    const size_t bytes = layer_sums(c, most_heads(c->info));
    void *zeros = calloc(bytes, 1);
    int status = zeros ? c->model->ops->buffer_create(c->model->backend, bytes, &c->zeros, err)
                       : fkv_fail(err, "out of memory for sums");
    if (status == FKV_OK)
        status = c->model->ops->write(c->model->backend, c->zeros, 0, zeros, bytes, err);
    free(zeros);
    return status;
}

int fkv_collector_open(const struct fkv_capture_info *info, const struct fkv_model *model,
                       struct fkv_pipeline *pipeline, const struct fkv_collector_options *options,
                       struct fkv_collector **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_collector *c = calloc(1, sizeof *c);
    if (!c) return fkv_fail(err, "out of memory");
    *c = (struct fkv_collector){
        .info = info, .model = model, .pipeline = pipeline, .options = *options};
    c->axis = malloc((size_t)info->n_layers * sizeof *c->axis);
    int status = c->axis ? FKV_OK : fkv_fail(err, "out of memory");
    for (int32_t i = 0; status == FKV_OK && i < info->n_layers; i++) c->axis[i] = -1;
    for (int32_t i = 0; status == FKV_OK && i < info->layer_count; i++)
        c->axis[info->layer_index[i]] = i;
    if (status == FKV_OK && info->spectra_only) status = make_zeros(c, err);
    if (status == FKV_OK && !info->spectra_only && !neighbours(info))
        status = model->ops->buffer_create(model->backend,
                                           sizeof(float) * (size_t)options->block *
                                               (size_t)most_heads(info) * (size_t)info->head_dim,
                                           &c->picked, err);
    for (int state = 0; state < FKV_STATES && status == FKV_OK; state++)
        if (fkv_capture_holds(info, state)) status = open_state(c, state, err);
    if (status) {
        fkv_collector_close(c);
        return fkv_error_prefix(err, info->spectra_only ? "spectra" : "states");
    }
    *out = c;
    return FKV_OK;
}

void fkv_collector_close(struct fkv_collector *c) {
    if (!c) return;
    const struct fkv_model *m = c->model;
    for (int state = 0; state < FKV_STATES; state++) {
        m->ops->buffer_release(m->backend, c->states[state].segments);
        m->ops->buffer_release(m->backend, c->states[state].sums);
    }
    m->ops->buffer_release(m->backend, c->picked);
    m->ops->buffer_release(m->backend, c->zeros);
    free(c->axis);
    free(c);
}

/* ---- sizes ---- */

/* Captured heads of all captured layers and states. */
static int64_t all_heads(const struct fkv_capture_info *info) {
    int64_t heads = 0;
    for (enum fkv_state state = 0; state < FKV_STATES; state++)
        if (fkv_capture_holds(info, state))
            heads += (int64_t)info->layer_count * fkv_capture_state_heads(info, state);
    return heads;
}

static int64_t sums_bytes(const struct fkv_capture_info *info,
                          const struct fkv_collector_options *o) {
    return all_heads(info) * (int64_t)fkv_spectra_layout(1, o->length, info->head_dim).count *
           (int64_t)sizeof(double);
}

int64_t fkv_collector_bytes(const struct fkv_capture_info *info,
                            const struct fkv_collector_options *o) {
    const int64_t d = info->head_dim * (int64_t)sizeof(float);
    if (!info->spectra_only) return neighbours(info) ? 0 : (int64_t)o->block * most_heads(info) * d;
    return o->sequences * (all_heads(info) * o->length * d + sums_bytes(info, o)) +
           (int64_t)(fkv_spectra_layout(most_heads(info), o->length, info->head_dim).count *
                     sizeof(double));
}

struct fkv_demand fkv_collector_demand(const struct fkv_capture_info *info,
                                       const struct fkv_collector_options *o) {
    struct fkv_demand demand = {.fetches = true};
    if (info->spectra_only)
        demand.segment_n = o->length, demand.segment_heads = most_heads(info),
        demand.segment_head_dim = info->head_dim;
    return demand;
}

int64_t fkv_collector_host_bytes(const struct fkv_capture_info *info,
                                 const struct fkv_collector_options *o) {
    return info->spectra_only ? 2 * o->sequences * sums_bytes(info, o) : 0;
}

int64_t fkv_collector_largest_rows(const struct fkv_capture_info *info, int32_t rows) {
    if (info->spectra_only) return 0;
    return (int64_t)rows * most_heads(info) * info->head_dim *
           (int64_t)fkv_dtype_bytes(info->dtype);
}

int64_t fkv_collector_all_rows(const struct fkv_capture_info *info, int64_t n_tokens) {
    if (info->spectra_only) return 0;
    return n_tokens * all_heads(info) * info->head_dim * (int64_t)fkv_dtype_bytes(info->dtype);
}
