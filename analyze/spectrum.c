/* Owns the way from a capture to power spectra (definitions.md, "Power").
 *
 * One layer is worked on at a time: a few segments of all its heads are read at once, packed token by token as the power operation wants them,
 * and transformed; the null permutes while packing, so a draw costs one pass over the segment and one transform. All channels and heads of a segment share a
 * permutation: the null keeps every relation between channels and destroys only the order of tokens.
 * Captures of sums (--spectra-only) take the other way, in spectrum_sums.c. */
#include "analyze/spectrum.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/statistics.h"

enum { BATCH_BYTES = 64 << 20 };

/* ---- the cut ---- */

static int stored_cut(struct fkv_capture *c, int32_t *length, int32_t *skip_sinks, struct fkv_error *err) {
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
                        "%s: holds sums over segments of %d tokens (--spectra-only); --length %d needs stored states",
                        path, n, *length);
    if (*skip_sinks >= 0 && *skip_sinks != skip)
        return fkv_fail(err, "%s: holds sums made with %d sinks skipped; --skip-sinks %d needs stored states", path,
                        skip, *skip_sinks);
    *length = n;
    *skip_sinks = skip;
    return FKV_OK;
}

int fkv_spectrum_plan(struct fkv_capture *c, int32_t length, int32_t skip_sinks, struct fkv_segment_plan *plan,
                      struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    if (!info->states) return fkv_fail(err, "%s: holds none of key, value, key_rotated, query", fkv_capture_path(c));
    if (info->spectra_only) {
        if (stored_cut(c, &length, &skip_sinks, err)) return FKV_FAILED;
    } else {
        if (skip_sinks < 0) skip_sinks = FKV_DEFAULT_SINKS;
        if (!length && info->trained_context <= 0)
            return fkv_fail(err, "%s: no attribute trained_context to take the segment length from; give --length",
                            fkv_capture_path(c));
        if (!length) length = info->trained_context - skip_sinks;
        if (length < 2)
            return fkv_fail(err,
                            "%s: trained_context %d less %d sinks leaves no segment; expected a length of 2 or more",
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

/* Square of the power of two at or below |x|, at least that of the smallest normal number: below it the spacing stays. */
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
    } formats[] = {[FKV_F32] = {23, 0x1p-126f}, [FKV_F16] = {10, 0x1p-14f}, [FKV_BF16] = {7, 0x1p-126f}};
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

/* x [heads, rows, head_dim], tokens [first, first+n) in `order` (NULL: as they are) -> packed [n, heads, head_dim] */
static void pack(const float *x, int64_t rows, int64_t first, int32_t n, int32_t heads, int32_t head_dim,
                 const int32_t *order, float *packed) {
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        int64_t from = first + (order ? order[j] : j);
        float *row = packed + (size_t)j * (size_t)heads * (size_t)head_dim;
        for (int32_t h = 0; h < heads; h++)
            memcpy(row + (size_t)h * (size_t)head_dim, x + (size_t)(h * rows + from) * (size_t)head_dim,
                   (size_t)head_dim * sizeof(float));
    }
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
    return s->layer_index && s->head_index && s->power && s->power_se && (s->null || !null) && s->normalised &&
           s->rounding_floor && s->band_edge && s->band_se;
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
                               .se_kind = plan->documents >= FKV_DOCUMENTS_FOR_SE ? "documents" : "bootstrap",
                               .null_kind = m->null ? "permute" : "none"};
    if (!allocate(s, m->null)) {
        fkv_spectrum_free(s);
        return fkv_fail(err, "out of memory for the spectra of state %s", fkv_state_names[state]);
    }
    for (int32_t i = 0; i < s->layers; i++) s->layer_index[i] = info->layer_index[i];
    int32_t group = s->heads / info->head_count; /* query heads per KV head, for query; else 1 */
    for (int32_t h = 0; h < s->heads; h++) s->head_index[h] = info->head_index[h / group] * group + h % group;
    s->bands = fkv_band_edges(s->n, s->band_edge);
    return FKV_OK;
}

/* ---- stored states ---- */

/* What one layer needs, made once and used for all layers. */
struct scratch {
    int32_t heads, head_dim, n;
    int64_t batch;             /* segments read at once */
    float *x;                  /* [heads, batch * n, head_dim] */
    float *packed;             /* [n, heads, head_dim] */
    double *columns;           /* [heads * (n + bands)]: power and its bands */
    double *normalised, *mean; /* [heads, n]; [n] */
    int32_t *order;            /* [n] */
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
    free(w->normalised);
    free(w->mean);
    free(w->order);
    fkv_error_model_free(&w->model);
}

static int scratch_make(const struct fkv_measurement *m, const struct fkv_spectrum *s, struct scratch *w,
                        struct fkv_error *err) {
    int32_t head_dim = fkv_capture_info(m->capture)->head_dim;
    size_t n = (size_t)s->n, heads = (size_t)s->heads, segment = n * heads * (size_t)head_dim;
    *w = (struct scratch){.heads = s->heads, .head_dim = head_dim, .n = s->n};
    w->batch = batch_segments((int64_t)(segment * sizeof(float)), m->plan);
    w->x = malloc((size_t)w->batch * segment * sizeof(float));
    w->packed = aligned_alloc(64, (segment * sizeof(float) + 63) / 64 * 64);
    w->columns = malloc(heads * (n + FKV_BANDS) * sizeof(double));
    w->normalised = malloc(heads * n * sizeof(double));
    w->mean = malloc(n * sizeof(double));
    w->order = malloc(n * sizeof(int32_t));
    if (!w->x || !w->packed || !w->columns || !w->normalised || !w->mean || !w->order) {
        scratch_free(w);
        return fkv_fail(err, "out of memory for segments of %d tokens, %d heads of %d channels", s->n, s->heads,
                        head_dim);
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

/* The power of w->packed. A device copies what it adopts, so the buffer is adopted anew for each content; the CPU only wraps it. */
static int transform(const struct fkv_measurement *m, const struct scratch *w, double *power, double *normalised,
                     struct fkv_error *err) {
    size_t stride = (size_t)w->heads * (size_t)w->head_dim;
    struct fkv_buffer *buffer = NULL;
    int status = m->ops->buffer_adopt(m->backend, w->packed, (size_t)w->n * stride * sizeof(float), &buffer, err);
    if (!status)
        status = m->ops->power(m->backend, buffer, 0, stride, w->n, w->heads, w->head_dim, power, normalised, err);
    m->ops->buffer_release(m->backend, buffer);
    return status;
}

/* One segment: tokens [first, first+n) of w->x, which holds `rows` tokens. `number` counts over the plan, `start` is its token in the recording. */
static int add_segment(const struct fkv_measurement *m, struct scratch *w, const struct fkv_spectrum *s,
                       const struct fkv_planned_recording *r, int64_t number, int64_t start, int64_t rows,
                       int64_t first, struct layer_averages *a, struct fkv_error *err) {
    const struct fkv_recording *recording = fkv_capture_recording(m->capture, r->recording);
    pack(w->x, rows, first, w->n, w->heads, w->head_dim, NULL, w->packed);
    if (transform(m, w, w->columns, w->normalised, err)) return FKV_FAILED;
    /* Bands are columns of their own, so that they get standard errors of their own. */
    fkv_band_means(w->columns, w->heads, s->n, s->bands, s->band_edge, w->columns + (size_t)w->heads * (size_t)w->n);
    fkv_average_add(&a->power, r->document, r->share, number, w->columns);
    for (int32_t t = 0; t < w->n; t++) {
        w->mean[t] = 0;
        for (int32_t h = 0; h < w->heads; h++) w->mean[t] += w->normalised[(size_t)h * (size_t)w->n + (size_t)t];
        w->mean[t] /= w->heads;
    }
    fkv_average_add(&a->normalised, r->document, r->share, number, w->mean);
    for (int32_t draw = 0; m->null && draw < FKV_NULL_DRAWS; draw++) {
        fkv_permutation(fkv_permutation_key(recording, start, draw), w->n, w->order);
        pack(w->x, rows, first, w->n, w->heads, w->head_dim, w->order, w->packed);
        if (transform(m, w, w->columns, NULL, err)) return FKV_FAILED;
        fkv_average_add(&a->null, r->document, r->share / FKV_NULL_DRAWS, number, w->columns);
    }
    return FKV_OK;
}

static void add_floor(const struct scratch *w, enum fkv_dtype dtype, double weight, int64_t rows, double *floor) {
#pragma omp parallel for schedule(static)
    for (int32_t h = 0; h < w->heads; h++)
        floor[h] += weight * fkv_rounding_energy(w->x + (size_t)h * (size_t)rows * (size_t)w->head_dim,
                                                 rows * w->head_dim, dtype);
}

static int add_recording(struct fkv_measurement *m, struct scratch *w, struct fkv_spectrum *s, int32_t layer,
                         const struct fkv_planned_recording *r, struct layer_averages *a, struct fkv_error *err) {
    enum fkv_dtype dtype = fkv_capture_info(m->capture)->dtype;
    char label[64];
    snprintf(label, sizeof label, "%s, layer %d", fkv_state_names[s->state], s->layer_index[layer]);
    for (int64_t first = 0; first < r->segments; first += w->batch) {
        int64_t count = r->segments - first < w->batch ? r->segments - first : w->batch;
        int64_t rows = count * w->n, start = s->skip_sinks + first * w->n;
        if (fkv_capture_read_state(m->capture, r->recording, s->state, layer, 0, w->heads, start, rows, w->x, err))
            return FKV_FAILED;
        add_floor(w, dtype, r->share * (double)count / s->documents, rows,
                  s->rounding_floor + (size_t)layer * (size_t)s->heads);
        for (int64_t i = 0; i < count; i++) {
            if (add_segment(m, w, s, r, r->first + first + i, start + i * w->n, rows, i * w->n, a, err))
                return FKV_FAILED;
            if (m->progress) fkv_progress_update(m->progress, ++m->done, label);
        }
    }
    return FKV_OK;
}

static int measure_layer(struct fkv_measurement *m, struct scratch *w, struct fkv_spectrum *s, int32_t layer,
                         struct fkv_error *err) {
    int64_t heads = s->heads, n = s->n, bands = s->bands;
    struct layer_averages a = {0};
    int status = fkv_average_begin(&a.power, heads * (n + bands), s->documents, &w->model, err);
    if (!status && m->null) status = fkv_average_begin(&a.null, heads * n, s->documents, NULL, err);
    if (!status) status = fkv_average_begin(&a.normalised, n, s->documents, NULL, err);
    for (int32_t i = 0; !status && i < m->plan->recordings; i++)
        status = add_recording(m, w, s, layer, &m->plan->recording[i], &a, err);
    if (!status) {
        size_t bytes = (size_t)(heads * n) * sizeof(double), at = (size_t)layer * (size_t)(heads * n);
        memcpy(s->power + at, a.power.mean, bytes);
        if (m->null) memcpy(s->null + at, a.null.mean, bytes);
        memcpy(s->normalised + (size_t)layer * (size_t)n, a.normalised.mean, (size_t)n * sizeof(double));
        fkv_average_error(&a.power, w->columns);
        memcpy(s->power_se + at, w->columns, bytes);
        memcpy(s->band_se + layer * heads * bands, w->columns + heads * n, (size_t)(heads * bands) * sizeof(double));
    }
    layer_averages_free(&a);
    return status;
}

static int measure_states(struct fkv_measurement *m, struct fkv_spectrum *s, struct fkv_error *err) {
    struct scratch w;
    if (scratch_make(m, s, &w, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int32_t layer = 0; !status && layer < s->layers; layer++) status = measure_layer(m, &w, s, layer, err);
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

int64_t fkv_spectrum_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan, enum fkv_state state,
                           bool null) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    int64_t heads = fkv_capture_heads(c, state), row = (int64_t)(plan->n + FKV_BANDS) * (int64_t)sizeof(double);
    int64_t findings = info->layer_count * heads * row * (null ? 3 : 2) + info->layer_count * row;
    if (info->spectra_only) return findings + info->layer_count * heads * row * 10;
    int64_t segment = heads * plan->n * info->head_dim * (int64_t)sizeof(float);
    int64_t blocks = plan->documents >= FKV_DOCUMENTS_FOR_SE ? 3
                     : plan->segments < FKV_BOOTSTRAP_BLOCKS ? plan->segments
                                                             : FKV_BOOTSTRAP_BLOCKS;
    return findings + (batch_segments(segment, plan) + 1) * segment + heads * row * (blocks + 5);
}
