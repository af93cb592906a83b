/* Owns the way from a capture to power spectra (definitions.md, "Power").
 *
 * One layer is worked on at a time: a few segments of all its heads are read at once, then draws
 * and heads of a segment are packed, token by token as the power operation wants them, and
 * transformed, side by side; the null permutes while packing, so a draw costs one pass and one
 * transform. All channels and heads of a segment share a permutation: the null keeps every relation
 * between channels and destroys only the order of tokens. Captures of sums (--spectra-only) take
 * the other way, in spectrum_sums.c. */
#include "analyze/measure/spectrum.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/averages.h"
#include "capture/store/capture_reader.h"

enum { BATCH_BYTES = 64 << 20 };

/* ---- the cut ---- */

static int stored_cut(struct fkv_capture *c, int32_t *length, int32_t *skip_sinks,
                      struct fkv_error *err) {
    const char *path = fkv_capture_path(c);
    uint32_t states = fkv_capture_info(c)->states;
    enum fkv_state state = FKV_STATE_KEY;
    while (state < FKV_STATES - 1 && !(states >> state & 1)) state++;
    if (!fkv_capture_count(c)) return fkv_fail(err, "%s: holds no recording", path);
    struct fkv_spectra_sums sums = {0};
    if (fkv_capture_read_sums(c, 0, state, &sums, err)) return FKV_FAILED;
    int32_t n = sums.n, skip = sums.skip_sinks;
    fkv_spectra_sums_free(&sums);
    if (*length && *length != n)
        return fkv_fail(err,
                        "%s: holds sums over segments of %d tokens (--spectra-only); --length %d "
                        "needs stored states",
                        path, n, *length);
    if (*skip_sinks >= 0 && *skip_sinks != skip)
        return fkv_fail(
            err, "%s: holds sums made with %d sinks skipped; --skip-sinks %d needs stored states",
            path, skip, *skip_sinks);
    *length = n;
    *skip_sinks = skip;
    return FKV_OK;
}

int fkv_spectrum_plan(struct fkv_capture *c, int32_t length, int32_t skip_sinks,
                      struct fkv_segment_plan *plan, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    if (!info->states)
        return fkv_fail(err, "%s: holds none of key, value, key_rotated, query",
                        fkv_capture_path(c));
    if (info->spectra_only) {
        if (stored_cut(c, &length, &skip_sinks, err)) return FKV_FAILED;
    } else {
        if (skip_sinks < 0) skip_sinks = FKV_DEFAULT_SINKS;
        if (!length && info->trained_context <= 0)
            return fkv_fail(
                err,
                "%s: no attribute trained_context to take the segment length from; give --length",
                fkv_capture_path(c));
        if (!length) length = info->trained_context - skip_sinks;
        if (length < 2)
            return fkv_fail(err,
                            "%s: trained_context %d less %d sinks leaves no segment; expected a "
                            "length of 2 or more",
                            fkv_capture_path(c), info->trained_context, skip_sinks);
    }
    int32_t count = fkv_capture_count(c);
    const struct fkv_recording **recordings = malloc((size_t)(count + 1) * sizeof *recordings);
    if (!recordings) return fkv_fail(err, "out of memory for %d recordings", count);
    for (int32_t i = 0; i < count; i++) recordings[i] = fkv_capture_recording(c, i);
    int status = fkv_segment_plan_make(recordings, count, length, skip_sinks, plan, err);
    free(recordings);
    return status ? fkv_error_prefix(err, "%s", fkv_capture_path(c)) : FKV_OK;
}

/* ---- small pieces ---- */

/* Square of the power of two at or below |x|, at least that of the smallest normal number: below it
 * the spacing stays. */
static double squared_scale(float x, float smallest) {
    uint32_t bits;
    float scale;
    memcpy(&bits, &x, 4);
    bits &= 0x7f800000u;
    memcpy(&scale, &bits, 4);
    double larger = scale > smallest ? scale : smallest;
    return larger * larger;
}

double fkv_rounding_energy(const float *x, int64_t n, enum fkv_dtype dtype) {
    /* per dtype: significand bits after the leading one, and the smallest normal number */
    static const struct {
        int bits;
        float smallest;
    } formats[] = {
        [FKV_F32] = {23, 0x1p-126f}, [FKV_F16] = {10, 0x1p-14f}, [FKV_BF16] = {7, 0x1p-126f}};
    enum { SUMS = 8 }; /* side by side, so that additions do not wait for each other */
    float smallest = formats[dtype].smallest;
    double part[SUMS] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int k = 0; k < SUMS; k++) part[k] += squared_scale(x[i + k], smallest);
    for (; i < n; i++) sum += squared_scale(x[i], smallest);
    for (int k = 0; k < SUMS; k++) sum += part[k];
    return ldexp(sum / (double)n, -2 * formats[dtype].bits) / 12;
}

static bool allocate(struct fkv_spectrum *s, bool null) {
    size_t rows = (size_t)s->layers * (size_t)s->heads, n = (size_t)s->n;
    s->layer_index = calloc((size_t)s->layers, sizeof(int32_t));
    s->head_index = calloc((size_t)s->heads, sizeof(int32_t));
    s->power = calloc(rows * n, sizeof(double));
    s->power_se = calloc(rows * n, sizeof(double));
    s->null = null ? calloc(rows * n, sizeof(double)) : NULL;
    s->normalised = calloc((size_t)s->layers * n, sizeof(double));
    s->rounding_floor = calloc(rows, sizeof(double));
    s->band_edge = calloc(FKV_BANDS + 1, sizeof(int32_t));
    s->band_se = calloc(rows * FKV_BANDS, sizeof(double));
    return s->layer_index && s->head_index && s->power && s->power_se && (s->null || !null) &&
           s->normalised && s->rounding_floor && s->band_edge && s->band_se;
}

/* Sizes, names of axes and counts; memory for the rest. */
static int prepare(const struct fkv_measurement *m, enum fkv_state state, struct fkv_spectrum *s,
                   struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    const struct fkv_segment_plan *plan = m->plan;
    *s = (struct fkv_spectrum){.state = state,
                               .layers = info->layer_count,
                               .heads = fkv_capture_heads(m->capture, state),
                               .n = plan->n,
                               .skip_sinks = plan->skip_sinks,
                               .documents = plan->documents,
                               .trained_context = info->trained_context,
                               .segments = plan->segments,
                               .tokens_left_out = plan->tokens_left_out,
                               .se_kind = plan->documents >= FKV_BOOTSTRAP_DOCUMENTS ? "documents"
                                                                                     : "bootstrap",
                               .se_unit = fkv_segments_se_unit(plan),
                               .null_kind = m->null ? "permute" : "none"};
    if (!allocate(s, m->null)) {
        fkv_spectrum_free(s);
        return fkv_fail(err, "out of memory for the spectra of state %s", fkv_state_names[state]);
    }
    for (int32_t i = 0; i < s->layers; i++) s->layer_index[i] = info->layer_index[i];
    int32_t group = s->heads / info->head_count; /* query heads per KV head, for query; else 1 */
    for (int32_t h = 0; h < s->heads; h++)
        s->head_index[h] = info->head_index[h / group] * group + h % group;
    s->bands = fkv_band_edges(s->n, s->band_edge);
    return FKV_OK;
}

/* ---- stored states ---- */

/* What one layer needs, made once and used for all layers. Transforms run in units of one draw of
 * `group` heads (one head on the CPU, all on a device), a thread each. */
struct scratch {
    int32_t heads, head_dim, n, group;
    int64_t batch;             /* segments read at once */
    float *x;                  /* [heads, batch * n, head_dim] */
    float *packed;             /* [workers, n, group, head_dim] */
    double *columns;           /* [heads * (n + bands)]: power and its bands */
    double *draws;             /* [draws, heads, n] */
    double *normalised, *mean; /* [heads, n]; [n] */
    int32_t *orders;           /* [draws, n] */
    struct fkv_error_model model;
};

static int64_t batch_segments(int64_t segment_bytes, const struct fkv_segment_plan *plan) {
    int64_t most = 1, batch = BATCH_BYTES / segment_bytes;
    for (int32_t i = 0; i < plan->recordings; i++)
        if (plan->recording[i].segments > most) most = plan->recording[i].segments;
    return batch < 1 ? 1 : batch < most ? batch : most;
}

static void scratch_free(struct scratch *w) {
    free(w->x);
    free(w->packed);
    free(w->columns);
    free(w->draws);
    free(w->normalised);
    free(w->mean);
    free(w->orders);
    fkv_error_model_free(&w->model);
}

static int scratch_make(const struct fkv_measurement *m, const struct fkv_spectrum *s,
                        struct scratch *w, struct fkv_error *err) {
    int32_t head_dim = fkv_capture_info(m->capture)->head_dim;
    size_t n = (size_t)s->n, heads = (size_t)s->heads, segment = n * heads * (size_t)head_dim;
    *w = (struct scratch){.heads = s->heads, .head_dim = head_dim, .n = s->n};
    w->group = m->workers->device ? s->heads : 1;
    w->batch = batch_segments((int64_t)(segment * sizeof(float)), m->plan);
    size_t packed = (size_t)m->workers->count * n * (size_t)(w->group * head_dim),
           draws = m->null ? FKV_NULL_DRAWS : 0;
    w->x = malloc((size_t)w->batch * segment * sizeof(float));
    w->packed = malloc(packed * sizeof(float));
    w->columns = malloc(heads * (n + FKV_BANDS) * sizeof(double));
    w->draws = malloc((draws * heads * n + 1) * sizeof(double));
    w->normalised = malloc(heads * n * sizeof(double));
    w->mean = malloc(n * sizeof(double));
    w->orders = malloc((draws * n + 1) * sizeof(int32_t));
    if (!w->x || !w->packed || !w->columns || !w->draws || !w->normalised || !w->mean ||
        !w->orders) {
        scratch_free(w);
        return fkv_fail(err, "out of memory for segments of %d tokens, %d heads of %d channels",
                        s->n, s->heads, head_dim);
    }
    if (fkv_error_model_make(m->plan, &w->model, err)) {
        scratch_free(w);
        return FKV_FAILED;
    }
    return FKV_OK;
}

/* The averages of one layer. */
struct layer_averages {
    struct fkv_average power, null, normalised;
};

static void layer_averages_free(struct layer_averages *a) {
    fkv_average_free(&a->power);
    fkv_average_free(&a->null);
    fkv_average_free(&a->normalised);
}

/* Tokens [first, first+n) of a recording, of which w->x holds `rows`. */
struct span {
    int64_t rows, first;
};

/* Heads [head, head+group) of w->x, tokens in `order` (NULL: as they are) -> packed [n, group,
 * head_dim] */
static void pack(const struct scratch *w, struct span span, int32_t head, const int32_t *order,
                 float *packed) {
    size_t dim = (size_t)w->head_dim;
    for (int32_t j = 0; j < w->n; j++)
        for (int32_t h = 0; h < w->group; h++, packed += dim) {
            int64_t from = (head + h) * span.rows + span.first + (order ? order[j] : j);
            memcpy(packed, w->x + (size_t)from * dim, dim * sizeof(float));
        }
}

/* Unit `unit` of a segment: draw unit / groups (0: tokens in order), a group of heads. A device
 * copies what it adopts, so the buffer is adopted anew for each content; the CPU only wraps it. */
static int transform(const struct fkv_measurement *m, const struct scratch *w, struct span span,
                     int32_t unit, int32_t worker, struct fkv_error *err) {
    const struct fkv_backend_ops *ops = m->workers->ops;
    struct fkv_backend *b = m->workers->backend[worker];
    int32_t groups = w->heads / w->group, draw = unit / groups - 1, head = unit % groups * w->group;
    size_t stride = (size_t)w->group * (size_t)w->head_dim, size = (size_t)w->n * stride,
           n = (size_t)w->n;
    size_t at = (size_t)head * n;
    float *packed = w->packed + (size_t)worker * size;
    double *power =
        draw < 0 ? w->columns + at : w->draws + (size_t)draw * (size_t)w->heads * n + at;
    struct fkv_buffer *buffer = NULL;
    pack(w, span, head, draw < 0 ? NULL : w->orders + (size_t)draw * n, packed);
    int status = ops->buffer_adopt(b, packed, size * sizeof(float), &buffer, err);
    if (!status)
        status = ops->power(b, buffer, 0, stride, w->n, w->group, w->head_dim, power,
                            draw < 0 ? w->normalised + at : NULL, err);
    ops->buffer_release(b, buffer);
    return status;
}

/* All units of a segment -> w->columns, w->normalised, w->draws */
static int transform_all(const struct fkv_measurement *m, const struct scratch *w, struct span span,
                         struct fkv_error *err) {
    int32_t units = (1 + (m->null ? FKV_NULL_DRAWS : 0)) * (w->heads / w->group);
    int status = FKV_OK;
#pragma omp parallel for schedule(dynamic) num_threads(m->workers->count)
    for (int32_t unit = 0; unit < units; unit++) {
        struct fkv_error own;
        if (!transform(m, w, span, unit, omp_get_thread_num(), &own)) continue;
#pragma omp critical
        {
            status = FKV_FAILED;
            *err = own;
        }
    }
    return status;
}

/* One segment; `number` counts over the plan, `start` is its first token in the recording. */
static int add_segment(const struct fkv_measurement *m, struct scratch *w,
                       const struct fkv_spectrum *s, const struct fkv_planned_recording *r,
                       int64_t number, int64_t start, struct span span, struct layer_averages *a,
                       struct fkv_error *err) {
    const struct fkv_recording *recording = fkv_capture_recording(m->capture, r->recording);
    size_t n = (size_t)w->n, size = (size_t)w->heads * n;
    int32_t draws = m->null ? FKV_NULL_DRAWS : 0;
    for (int32_t draw = 0; draw < draws; draw++)
        fkv_permutation(fkv_permutation_key(recording, start, draw), w->n,
                        w->orders + (size_t)draw * n);
    if (transform_all(m, w, span, err)) return FKV_FAILED;
    /* Bands are columns of their own, so that they get standard errors of their own. */
    fkv_band_means(w->columns, w->heads, s->n, s->bands, s->band_edge, w->columns + size);
    fkv_average_add(&a->power, r->document, r->share, number, w->columns);
    for (size_t t = 0; t < n; t++) {
        w->mean[t] = 0;
        for (size_t i = t; i < size; i += n) w->mean[t] += w->normalised[i] / w->heads;
    }
    fkv_average_add(&a->normalised, r->document, r->share, number, w->mean);
    for (int32_t draw = 0; draw < draws; draw++)
        fkv_average_add(&a->null, r->document, r->share / draws, number,
                        w->draws + (size_t)draw * size);
    return FKV_OK;
}

static void add_floor(const struct scratch *w, enum fkv_dtype dtype, double weight, int64_t rows,
                      double *floor) {
#pragma omp parallel for schedule(static)
    for (int32_t h = 0; h < w->heads; h++)
        floor[h] +=
            weight * fkv_rounding_energy(w->x + (size_t)h * (size_t)rows * (size_t)w->head_dim,
                                         rows * w->head_dim, dtype);
}

static int add_recording(struct fkv_measurement *m, struct scratch *w, struct fkv_spectrum *s,
                         int32_t layer, const struct fkv_planned_recording *r,
                         struct layer_averages *a, struct fkv_error *err) {
    enum fkv_dtype dtype = fkv_capture_info(m->capture)->dtype;
    char label[64];
    snprintf(label, sizeof label, "%s, layer %d", fkv_state_names[s->state], s->layer_index[layer]);
    for (int64_t first = 0; first < r->segments; first += w->batch) {
        int64_t count = r->segments - first < w->batch ? r->segments - first : w->batch;
        int64_t rows = count * w->n, start = s->skip_sinks + first * w->n;
        if (fkv_capture_read_state(m->capture, r->recording, s->state, layer, 0, w->heads, start,
                                   rows, w->x, err))
            return FKV_FAILED;
        add_floor(w, dtype, r->share * (double)count / s->documents, rows,
                  s->rounding_floor + (size_t)layer * (size_t)s->heads);
        for (int64_t i = 0; i < count; i++) {
            if (add_segment(m, w, s, r, r->first + first + i, start + i * w->n,
                            (struct span){rows, i * w->n}, a, err))
                return FKV_FAILED;
            if (m->progress) fkv_progress_update(m->progress, ++m->done, label);
        }
    }
    return FKV_OK;
}

static int measure_layer(struct fkv_measurement *m, struct scratch *w, struct fkv_spectrum *s,
                         int32_t layer, struct fkv_error *err) {
    int64_t heads = s->heads, n = s->n, bands = s->bands;
    struct layer_averages a = {0};
    int status = fkv_average_begin(&a.power, heads * (n + bands), s->documents, &w->model, err);
    if (!status && m->null) status = fkv_average_begin(&a.null, heads * n, s->documents, NULL, err);
    if (!status) status = fkv_average_begin(&a.normalised, n, s->documents, NULL, err);
    for (int32_t i = 0; !status && i < m->plan->recordings; i++)
        status = add_recording(m, w, s, layer, &m->plan->recording[i], &a, err);
    if (!status) {
        size_t bytes = (size_t)(heads * n) * sizeof(double),
               at = (size_t)layer * (size_t)(heads * n);
        memcpy(s->power + at, a.power.mean, bytes);
        if (m->null) memcpy(s->null + at, a.null.mean, bytes);
        memcpy(s->normalised + (size_t)layer * (size_t)n, a.normalised.mean,
               (size_t)n * sizeof(double));
        fkv_average_error(&a.power, w->columns);
        memcpy(s->power_se + at, w->columns, bytes);
        memcpy(s->band_se + layer * heads * bands, w->columns + heads * n,
               (size_t)(heads * bands) * sizeof(double));
    }
    layer_averages_free(&a);
    return status;
}

static int measure_states(struct fkv_measurement *m, struct fkv_spectrum *s,
                          struct fkv_error *err) {
    struct scratch w;
    if (scratch_make(m, s, &w, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int32_t layer = 0; !status && layer < s->layers; layer++)
        status = measure_layer(m, &w, s, layer, err);
    scratch_free(&w);
    return status;
}

int fkv_spectrum_measure(struct fkv_measurement *m, enum fkv_state state, struct fkv_spectrum *out,
                         struct fkv_error *err) {
    if (prepare(m, state, out, err)) return FKV_FAILED;
    bool sums = fkv_capture_info(m->capture)->spectra_only;
    int status = sums ? fkv_spectrum_from_sums(m, out, err) : measure_states(m, out, err);
    if (status) fkv_spectrum_free(out);
    return status;
}

/* Twice, so that the second time finds file and threads as most segments will. */
int fkv_spectrum_time(struct fkv_measurement *m, enum fkv_state state, double *seconds,
                      struct fkv_error *err) {
    struct fkv_spectrum s;
    struct scratch w;
    double started = 0;
    *seconds = 0;
    if (fkv_capture_info(m->capture)->spectra_only) return FKV_OK; /* nothing but reading sums */
    if (prepare(m, state, &s, err)) return FKV_FAILED;
    int status = scratch_make(m, &s, &w, err);
    if (status) goto done;
    for (int turn = 0; turn < 2 && !status; turn++) {
        started = fkv_seconds();
        for (int32_t draw = 0; draw < (m->null ? FKV_NULL_DRAWS : 0); draw++)
            fkv_permutation((uint64_t)draw, w.n, w.orders + (size_t)draw * (size_t)w.n);
        status = fkv_capture_read_state(m->capture, m->plan->recording[0].recording, state, 0, 0,
                                        s.heads, s.skip_sinks, s.n, w.x, err) ||
                 transform_all(m, &w, (struct span){s.n, 0}, err);
    }
    *seconds = (fkv_seconds() - started) * (double)m->plan->segments * s.layers;
    scratch_free(&w);
done:
    fkv_spectrum_free(&s);
    return status ? FKV_FAILED : FKV_OK;
}

int64_t fkv_spectrum_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                           enum fkv_state state, bool null) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    int64_t heads = fkv_capture_heads(c, state),
            row = (int64_t)(plan->n + FKV_BANDS) * (int64_t)sizeof(double);
    int64_t findings = info->layer_count * heads * row * (null ? 3 : 2) + info->layer_count * row;
    if (info->spectra_only) return findings + info->layer_count * heads * row * 10;
    int64_t segment = heads * plan->n * info->head_dim * (int64_t)sizeof(float);
    int64_t blocks = plan->documents >= FKV_BOOTSTRAP_DOCUMENTS ? 3
                     : plan->segments < FKV_BOOTSTRAP_BLOCKS
                         ? plan->segments
                         : FKV_BOOTSTRAP_BLOCKS + plan->documents;
    /* per thread: a packed head and the transform's two blocks of 32 channels */
    int64_t packed =
        omp_get_max_threads() * (int64_t)plan->n * (info->head_dim + 64) * (int64_t)sizeof(float);
    return findings + batch_segments(segment, plan) * segment + packed +
           heads * row * (blocks + 5 + (null ? FKV_NULL_DRAWS : 0));
}

/* One segment of all heads at a time. Of a capture of spectra nothing is computed. */
int fkv_spectrum_device_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                              const struct fkv_workers *workers, enum fkv_state state,
                              int64_t *bytes, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    struct fkv_backend_needs own = {0};
    *bytes = 0;
    if (!workers->device || info->spectra_only) return FKV_OK;
    const struct fkv_demand demand = {.segment_n = plan->n,
                                      .segment_heads = fkv_capture_heads(c, state),
                                      .segment_head_dim = info->head_dim};
    if (workers->ops->add_needs(workers->backend[0], &demand, &own, err)) return FKV_FAILED;
    *bytes =
        own.shared + own.kept +
        (int64_t)sizeof(float) * demand.segment_heads * demand.segment_n * demand.segment_head_dim;
    return FKV_OK;
}
