/* The taps of a capture. Rows come a block at a time, layer by layer: [rows, heads, head_dim], all heads of the layer; what was not asked for is left out here.
 *
 * For spectra only, each (state, layer) keeps the segment it is in, in a buffer of the backend's, and the kernel `power` runs over it when it is full: a
 * model that makes half a megabyte of states per token writes a few numbers per frequency. Sums are in double. The mean of a
 * channel and the energy of a head are added up per segment and counted when it is whole, so that the rest of a recording leaves no trace. */
#include "capture/collector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The segment one (state, layer) is in. */
struct segment {
    struct fkv_buffer *rows; /* float32 [length, heads, head_dim] */
    double *channel_sum;     /* [heads, head_dim] */
    double *energy;          /* [heads] */
};

struct collected_state {
    struct fkv_collector *collector; /* a tap's context is its state */
    enum fkv_state state;
    int32_t heads, per_captured_head; /* query heads per KV head, else 1 */
    struct segment *segments;         /* [layer_count] */
    struct fkv_spectra_sums sums;
};

struct fkv_collector {
    const struct fkv_capture_info *info;
    const struct fkv_model *model;
    struct fkv_capture_writer *writer;
    int32_t length, skip_sinks;
    int32_t *axis;              /* [n_layers]: place on axis 0, -1 where a layer is not captured */
    float *picked;              /* [block, heads, head_dim] where not all heads are captured */
    double *power, *normalised; /* [heads, length] */
    struct collected_state states[FKV_STATES];
};

static const enum fkv_site sites[FKV_STATES] = {
    [FKV_STATE_KEY] = FKV_SITE_KEY,
    [FKV_STATE_VALUE] = FKV_SITE_VALUE,
    [FKV_STATE_KEY_ROTATED] = FKV_SITE_KEY_ROTATED,
    [FKV_STATE_QUERY] = FKV_SITE_QUERY,
};

static bool wanted(const struct fkv_capture_info *info, int state) { return (info->states >> state) & 1; }

static int32_t group_of(const struct fkv_capture_info *info, int state) {
    return state == FKV_STATE_QUERY ? info->n_heads / info->n_kv_heads : 1;
}

/* ---- spectra ---- */

/* rows [length, heads, head_dim] of one layer are whole: their power joins the sums. */
static int finish_segment(struct fkv_collector *c, struct collected_state *s, int32_t layer, struct fkv_error *err) {
    struct segment *g = &s->segments[layer];
    const struct fkv_backend_ops *ops = c->model->ops;
    const size_t d = (size_t)c->info->head_dim, heads = (size_t)s->heads, n = heads * (size_t)c->length;
    if (ops->power(c->model->backend, g->rows, 0, heads * d, c->length, s->heads, c->info->head_dim, c->power,
                   c->normalised, err))
        return FKV_FAILED;
    double *sum = s->sums.power_sum + (size_t)layer * n, *squares = s->sums.power_sum_of_squares + (size_t)layer * n;
    double *normalised = s->sums.normalised_sum + (size_t)layer * n;
    for (size_t i = 0; i < n; i++) {
        sum[i] += c->power[i];
        squares[i] += c->power[i] * c->power[i];
        normalised[i] += c->normalised[i];
    }
    for (size_t i = 0; i < heads * d; i++)
        s->sums.channel_mean_sum[(size_t)layer * heads * d + i] += g->channel_sum[i] / c->length;
    for (size_t h = 0; h < heads; h++) s->sums.energy_sum[(size_t)layer * heads + h] += g->energy[h];
    if (layer == 0) s->sums.segments++;
    return FKV_OK;
}

/* x [rows, heads, head_dim], tokens from t on -> channel sums and energies; a number that is not finite stops the run here. */
static int add_rows(struct fkv_collector *c, struct collected_state *s, int32_t layer, int64_t t, int64_t rows,
                    const float *x, struct fkv_error *err) {
    struct segment *g = &s->segments[layer];
    const int32_t d = c->info->head_dim;
    for (int64_t r = 0; r < rows; r++)
        for (int32_t h = 0; h < s->heads; h++, x += d) {
            double energy = 0;
            for (int32_t i = 0; i < d; i++) {
                g->channel_sum[h * d + i] += x[i];
                energy += (double)x[i] * x[i];
            }
            if (!isfinite(energy))
                return fkv_fail(err, "%s of layer %d, head %d, token %lld: expected finite numbers, found %g",
                                fkv_state_names[s->state], c->info->layer_index[layer],
                                c->info->head_index[h / s->per_captured_head] * s->per_captured_head +
                                    h % s->per_captured_head,
                                (long long)(t + r), energy);
            g->energy[h] += energy;
        }
    return FKV_OK;
}

static int add_to_segments(struct fkv_collector *c, struct collected_state *s, int32_t layer, int64_t t, int64_t rows,
                           const float *x, struct fkv_error *err) {
    struct segment *g = &s->segments[layer];
    const size_t width = (size_t)s->heads * (size_t)c->info->head_dim;
    if (t < c->skip_sinks) {
        int64_t skip = c->skip_sinks - t < rows ? c->skip_sinks - t : rows;
        t += skip;
        rows -= skip;
        x += (size_t)skip * width;
    }
    while (rows > 0) {
        int64_t at = (t - c->skip_sinks) % c->length, fit = c->length - at < rows ? c->length - at : rows;
        const size_t bytes = width * sizeof *x;
        if (at == 0) {
            memset(g->channel_sum, 0, width * sizeof *g->channel_sum);
            memset(g->energy, 0, (size_t)s->heads * sizeof *g->energy);
        }
        if (c->model->ops->write(c->model->backend, g->rows, (size_t)at * bytes, x, (size_t)fit * bytes, err) ||
            add_rows(c, s, layer, t, fit, x, err))
            return FKV_FAILED;
        if (at + fit == c->length && finish_segment(c, s, layer, err)) return FKV_FAILED;
        t += fit;
        rows -= fit;
        x += (size_t)fit * width;
    }
    return FKV_OK;
}

/* ---- taps ---- */

/* The captured heads of data [rows, all heads, head_dim]. */
static const float *pick_heads(struct fkv_collector *c, const struct collected_state *s,
                               const struct fkv_tap_event *event) {
    const float *all = event->data;
    if (s->heads == event->heads) return all;
    const size_t width = (size_t)s->per_captured_head * (size_t)event->head_dim;
    float *to = c->picked;
    for (int32_t r = 0; r < event->rows; r++, all += (size_t)event->heads * (size_t)event->head_dim)
        for (int32_t h = 0; h < c->info->head_count; h++, to += width)
            memcpy(to, all + (size_t)c->info->head_index[h] * width, width * sizeof *to);
    return c->picked;
}

static int tap(void *context, const struct fkv_tap_event *event, struct fkv_error *err) {
    struct collected_state *s = context;
    struct fkv_collector *c = s->collector;
    const int32_t layer = c->axis[event->layer];
    if (layer < 0) return FKV_OK;
    if (event->space != FKV_HOST) return fkv_fail(err, "states in device memory cannot be captured by this build");
    const float *x = pick_heads(c, s, event);
    if (c->info->spectra_only) return add_to_segments(c, s, layer, event->token, event->rows, x, err);
    return fkv_capture_write_state(c->writer, s->state, layer, event->token, event->rows, x, err);
}

/* ---- life ---- */

static int open_state(struct fkv_collector *c, int state, struct fkv_error *err) {
    const struct fkv_capture_info *info = c->info;
    struct collected_state *s = &c->states[state];
    *s = (struct collected_state){.collector = c, .state = state, .per_captured_head = group_of(info, state)};
    s->heads = info->head_count * s->per_captured_head;
    if (!info->spectra_only) return FKV_OK;
    const size_t d = (size_t)info->head_dim, heads = (size_t)s->heads;
    s->segments = calloc((size_t)info->layer_count, sizeof *s->segments);
    if (!s->segments) return fkv_fail(err, "out of memory for segments");
    for (int32_t i = 0; i < info->layer_count; i++) {
        struct segment *g = &s->segments[i];
        g->channel_sum = calloc(heads * d, sizeof *g->channel_sum);
        g->energy = calloc(heads, sizeof *g->energy);
        if (!g->channel_sum || !g->energy) return fkv_fail(err, "out of memory for segments");
        if (c->model->ops->buffer_create(c->model->backend, (size_t)c->length * heads * d * sizeof(float), &g->rows,
                                         err))
            return FKV_FAILED;
    }
    return fkv_spectra_sums_allocate(&s->sums, info->layer_count, s->heads, c->length, info->head_dim, err);
}

int fkv_collector_open(const struct fkv_capture_info *info, const struct fkv_model *model, int32_t length,
                       int32_t skip_sinks, int32_t block, struct fkv_collector **out, struct fkv_error *err) {
    *out = NULL;
    struct fkv_collector *c = calloc(1, sizeof *c);
    if (!c) return fkv_fail(err, "out of memory");
    c->info = info;
    c->model = model;
    c->length = length;
    c->skip_sinks = skip_sinks;
    const size_t most_heads = (size_t)info->n_heads;
    c->axis = malloc((size_t)info->n_layers * sizeof *c->axis);
    c->picked = malloc((size_t)block * most_heads * (size_t)info->head_dim * sizeof *c->picked);
    if (info->spectra_only) {
        c->power = malloc(most_heads * (size_t)length * sizeof *c->power);
        c->normalised = malloc(most_heads * (size_t)length * sizeof *c->normalised);
    }
    int status = !c->axis || !c->picked || (info->spectra_only && (!c->power || !c->normalised))
                     ? fkv_fail(err, "out of memory")
                     : FKV_OK;
    for (int32_t i = 0; status == FKV_OK && i < info->n_layers; i++) c->axis[i] = -1;
    for (int32_t i = 0; status == FKV_OK && i < info->layer_count; i++) c->axis[info->layer_index[i]] = i;
    for (int state = 0; state < FKV_STATES && status == FKV_OK; state++)
        if (wanted(info, state)) status = open_state(c, state, err);
    if (status) {
        fkv_collector_close(c);
        return status;
    }
    *out = c;
    return FKV_OK;
}

void fkv_collector_close(struct fkv_collector *c) {
    if (!c) return;
    for (int state = 0; state < FKV_STATES; state++) {
        struct collected_state *s = &c->states[state];
        for (int32_t i = 0; s->segments && i < c->info->layer_count; i++) {
            c->model->ops->buffer_release(c->model->backend, s->segments[i].rows);
            free(s->segments[i].channel_sum);
            free(s->segments[i].energy);
        }
        free(s->segments);
        fkv_spectra_sums_free(&s->sums);
    }
    free(c->axis);
    free(c->picked);
    free(c->power);
    free(c->normalised);
    free(c);
}

int64_t fkv_collector_bytes(const struct fkv_capture_info *info, int64_t n_tokens, int32_t length, int32_t block) {
    int64_t row = (int64_t)info->head_dim * (int64_t)sizeof(float), bytes = block * info->n_heads * row;
    for (int state = 0; state < FKV_STATES; state++) {
        if (!wanted(info, state)) continue;
        int64_t heads = (int64_t)info->head_count * group_of(info, state);
        int64_t staged = n_tokens < block ? n_tokens : block; /* the store's rows of chunks */
        bytes += info->layer_count * heads *
                 (info->spectra_only ? length * (row + 3 * (int64_t)sizeof(double))
                                     : staged * info->head_dim * (int64_t)fkv_dtype_bytes(info->dtype));
    }
    return bytes;
}

void fkv_collector_attach(struct fkv_collector *c, struct fkv_session *session) {
    for (int state = 0; state < FKV_STATES; state++)
        if (wanted(c->info, state)) fkv_session_tap(session, sites[state], tap, &c->states[state]);
}

void fkv_collector_begin(struct fkv_collector *c, struct fkv_capture_writer *w) {
    c->writer = w;
    for (int state = 0; state < FKV_STATES; state++) {
        struct fkv_spectra_sums *s = &c->states[state].sums;
        if (!s->power_sum) continue;
        const size_t rows = (size_t)s->layers * (size_t)s->heads, bytes = rows * (size_t)s->n * sizeof(double);
        memset(s->power_sum, 0, bytes);
        memset(s->power_sum_of_squares, 0, bytes);
        memset(s->normalised_sum, 0, bytes);
        memset(s->channel_mean_sum, 0, rows * (size_t)s->head_dim * sizeof(double));
        memset(s->energy_sum, 0, rows * sizeof(double));
        s->segments = 0;
        s->skip_sinks = c->skip_sinks;
    }
}

int fkv_collector_end(struct fkv_collector *c, struct fkv_error *err) {
    for (int state = 0; state < FKV_STATES; state++)
        if (c->info->spectra_only && wanted(c->info, state) &&
            fkv_capture_write_sums(c->writer, state, &c->states[state].sums, err))
            return FKV_FAILED;
    return FKV_OK;
}
