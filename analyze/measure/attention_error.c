/* Owns the attention-output error (definitions.md).
 *
 * Of each segment [s, s + n) keys and values are replaced by x_L, together; the queries are the
 * next min(n, 256) tokens, at true positions, causal, and see everything before them: sinks,
 * earlier segments and the tokens after the segment stay exact. Per query head, with squares summed
 * over queries (queries of a document weigh equally, then documents),
 *
 *     E(L) = sqrt( sum_q ||o'_q - o_q||^2 / sum_q ||o_q||^2 )
 *
 * and a KV head's error is the mean over the query heads that share it. Projected, lengths are
 * those after the output projection: ||W d||^2 = d' G d with W the columns of W_O that belong to
 * the query head, G = W' W as the capture keeps it. Channels that W_O does not read then do not
 * count. It is each head's own part of what W_O adds up; that errors of several heads may cancel
 * there, no number per head can show.
 *
 * A layer with a window of w: query q sees tokens q - w + 1 to q, of the segment as of the rest. A
 * segment is replaced whole all the same, and the queries are the same min(n, 256) in every layer.
 * One that sees nothing of the segment any more has o'_q = o_q: it adds no error, and ||o_q||^2 to
 * the sum below. So E is small where a layer forgets the segment soon, which is what low-passing it
 * costs there; and layers stay comparable, because their sums are over the same queries. Leaving
 * such queries out was dropped: E would be the error of fewer and fewer queries as w shrinks, and a
 * budget would go to heads that hardly use it.
 *
 * Attention itself is the kernels' (append, attend): they rotate keys and queries by the capture's
 * inv_freq, each layer by its own, cap scores by its attention_softcap, and they do the same on a
 * device.
 *
 * All 64 steps are computed. Each costs an inverse DCT of K and V and one attention of 256 queries
 * over the recording so far, which dominates: 4 * 256 * tokens * head_dim flops per query head.
 * Scoring only the segment and adding the exact rest was dropped: the softmax joins them, and the
 * rest is usually short. */
#include "analyze/measure/attention_error.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "capture/store/capture_reader.h"
#include "kernels/base/ratio.h"
#include "kernels/dct.h"

enum { K = FKV_RATIO_STEPS };

/* ---- which queries ---- */

static int32_t queries_after(const struct fkv_recording *r, const struct fkv_segment_plan *plan,
                             int64_t segment) {
    int64_t most = plan->n < FKV_ATTENTION_QUERIES ? plan->n : FKV_ATTENTION_QUERIES;
    int64_t left = r->n_tokens - plan->skip_sinks - (segment + 1) * plan->n;
    return (int32_t)(left < most ? left : most);
}

static int64_t queries_of(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                          const struct fkv_planned_recording *r) {
    int64_t queries = 0;
    for (int64_t i = 0; i < r->segments; i++)
        queries += queries_after(fkv_capture_recording(c, r->recording), plan, i);
    return queries;
}

int fkv_attention_error_check(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                              struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(c);
    const uint32_t needed = 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE | 1u << FKV_STATE_QUERY;
    const char *path = fkv_capture_path(c);
    if (info->spectra_only || (info->states & needed) != needed)
        return fkv_fail(
            err,
            "%s: --objective attention needs stored key, value and query states; capture them with "
            "freqkv-capture --states key,value,query",
            path);
    if (!info->inv_freq)
        return fkv_fail(
            err,
            "%s: --objective attention needs the attribute inv_freq [head_dim/2] to rotate keys by",
            path);
    int64_t longest = 0;
    for (int32_t i = 0; i < plan->recordings; i++) {
        if (queries_of(c, plan, &plan->recording[i])) return FKV_OK;
        int64_t tokens = fkv_capture_recording(c, plan->recording[i].recording)->n_tokens;
        if (tokens > longest) longest = tokens;
    }
    longest -= plan->skip_sinks;
    return fkv_fail(err,
                    "%s: --objective attention needs tokens after a segment of %d; the longest "
                    "recording has %lld after the "
                    "sinks: --length %lld leaves some",
                    path, plan->n, (long long)longest,
                    (long long)(longest > 512 ? longest - FKV_ATTENTION_QUERIES : longest / 2));
}

/* ---- one worker: a backend with a cache of one head ---- */

struct shape {
    int32_t n, head_dim, group; /* group: query heads per KV head */
    int32_t columns; /* 1, or 2 with the projected error; a column is K + 2 sums: errors over k,
                        then exact */
    int64_t tokens;  /* most of a recording */
    int32_t window;  /* of the layer, 0: none */
    struct fkv_attention_shape attention;
    const struct fkv_dct *dct;
};

struct worker {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *b;
    struct fkv_cache cache;            /* of one head, a slot per token; owns its buffers */
    struct fkv_buffer *q, *out;        /* [queries, group, head_dim] each */
    struct fkv_buffer *states[2];      /* [tokens, head_dim] each */
    float *coefficient[2], *low, *cut; /* [n, head_dim] each */
    float *exact, *found, *packed;     /* [queries, group, head_dim] */
    float *scratch, *vectors;          /* vectors [2, head_dim] */
    struct fkv_memory memory;
};

static void worker_close(struct worker *w) {
    struct fkv_buffer *buffers[] = {w->cache.key, w->cache.value, w->states[0],
                                    w->states[1], w->q,           w->out};
    for (size_t i = 0; w->ops && i < sizeof buffers / sizeof *buffers; i++)
        w->ops->buffer_release(w->b, buffers[i]);
    fkv_memory_free(&w->memory);
}

static struct fkv_limits limits_of(const struct shape *s) {
    return (struct fkv_limits){.rows = (int32_t)s->tokens,
                               .dim = s->attention.dim,
                               .hidden = s->attention.dim,
                               .vocab = 1,
                               .slots = (int32_t)s->tokens,
                               .items = 1,
                               .attention = s->attention};
}

static int worker_open(struct worker *w, const struct fkv_backend_ops *ops, struct fkv_backend *b,
                       const struct shape *s, struct fkv_error *err) {
    const struct fkv_limits limits = limits_of(s);
    const size_t dim = (size_t)s->head_dim, segment = (size_t)s->n * dim,
                 queries = (size_t)FKV_ATTENTION_QUERIES * (size_t)s->group * dim;
    *w = (struct worker){
        .ops = ops, .b = b, .cache = {.dtype = FKV_F32, .capacity = (int32_t)s->tokens}};
    float **const host[] = {&w->coefficient[0], &w->coefficient[1], &w->low,   &w->cut,
                            &w->exact,          &w->found,          &w->packed};
    for (int i = 0; i < 7; i++)
        *host[i] = fkv_memory_take(&w->memory, i < 4 ? segment : queries, sizeof(float));
    w->scratch = fkv_memory_take(&w->memory, fkv_dct_scratch(s->dct), sizeof(float));
    w->vectors = fkv_memory_take(&w->memory, 2 * dim, sizeof(float));
    if (w->memory.failed) return fkv_fail(err, "out of memory for attention");
    struct fkv_buffer **const buffers[] = {&w->cache.key, &w->cache.value, &w->states[0],
                                           &w->states[1], &w->q,           &w->out};
    int status = ops->reserve(b, &limits, err);
    for (int i = 0; !status && i < 6; i++)
        status = ops->buffer_create(b, (i < 4 ? (size_t)s->tokens * dim : queries) * sizeof(float),
                                    buffers[i], err);
    return status;
}

/* ---- one segment of one KV head ---- */

struct piece {
    const float *
        state[2]; /* key, value [tokens, head_dim] of this head, from the recording's first token */
    const float *query;    /* [group, tokens, head_dim] */
    const float *gram;     /* [group, head_dim, head_dim]; NULL with one column */
    int64_t tokens, first; /* of the recording; the segment's first */
    int32_t queries;
};

/* key and value [rows, head_dim] -> the cache's slots from `slot` on, rotated to their positions,
 * which are the slots' */
static int append(struct worker *w, const struct shape *s, const float *key, const float *value,
                  int64_t slot, int64_t rows, struct fkv_error *err) {
    size_t bytes = (size_t)rows * (size_t)s->head_dim * sizeof(float);
    const struct fkv_append_item item = {0, 0, 0, (int32_t)rows, (int32_t)slot, (double)slot};
    if (w->ops->write(w->b, w->states[0], 0, key, bytes, err) ||
        w->ops->write(w->b, w->states[1], 0, value, bytes, err))
        return FKV_FAILED;
    return w->ops->append(w->b, &s->attention, w->states[0], w->states[1], &w->cache, &item, 1,
                          err);
}

static int attend(struct worker *w, const struct shape *s, const struct piece *p, float *out,
                  struct fkv_error *err) {
    const int32_t start = (int32_t)p->first + s->n;
    const int32_t from = s->window ? start + 1 - s->window : FKV_NO_LIMIT_BELOW;
    const struct fkv_span span = {.first = from > 0 ? from : 0,
                                  .end = start + p->queries,
                                  .from = from,
                                  .until = start + 1,
                                  .position = start};
    const struct fkv_attend_item item = {0, 0, s->group, 0, p->queries, 0, 1};
    size_t bytes = (size_t)p->queries * (size_t)(s->group * s->head_dim) * sizeof(float);
    if (w->ops->attend(w->b, &s->attention, w->q, &w->cache, &span, &item, 1, w->out, err))
        return FKV_FAILED;
    return w->ops->read(w->b, w->out, 0, out, bytes, err);
}

/* The segment with coefficients from L on set to zero -> low [n, head_dim] */
static void low_pass(struct worker *w, const struct shape *s, int state, int32_t retained,
                     float *low) {
    size_t dim = (size_t)s->head_dim, kept = (size_t)retained * dim;
    memcpy(w->cut, w->coefficient[state], kept * sizeof(float));
    memset(w->cut + kept, 0, ((size_t)s->n * dim - kept) * sizeof(float));
    fkv_dct_inverse(s->dct, w->cut, dim, s->head_dim, low, dim, w->scratch);
}

static double dot(const float *x, const float *y, int32_t d) {
    double sum = 0;
    for (int32_t c = 0; c < d; c++) sum += (double)x[c] * y[c];
    return sum;
}

/* x' G x, gram [d, d]; product [d] is scratch. By rows of G, so that the inner loop vectorises. */
static double projected_square(const float *restrict gram, const float *restrict x, int32_t d,
                               float *restrict product) {
    memset(product, 0, (size_t)d * sizeof *product);
    for (int32_t a = 0; a < d; a++, gram += d)
        for (int32_t b = 0; b < d; b++) product[b] += x[a] * gram[b];
    return dot(x, product, d);
}

/* Adds the squares of found - exact (exact alone where found is NULL) per query head and column:
 * sum [group, columns], K + 2 apart. */
static void add_squares(const struct worker *w, const struct shape *s, const struct piece *p,
                        const float *found, double *sum) {
    const size_t d = (size_t)s->head_dim;
    float *x = w->vectors;
    for (int32_t q = 0; q < p->queries; q++)
        for (int32_t h = 0; h < s->group; h++) {
            const size_t at = (size_t)(q * s->group + h) * d;
            for (size_t c = 0; c < d; c++)
                x[c] = found ? found[at + c] - w->exact[at + c] : w->exact[at + c];
            double *to = sum + h * s->columns * (K + 2);
            *to += dot(x, x, s->head_dim);
            if (p->gram)
                to[K + 2] += projected_square(p->gram + (size_t)h * d * d, x, s->head_dim, x + d);
        }
}

/* sums [group, columns, K + 2] <- squared errors over k, then the squares of the exact output. */
static int measure_piece(struct worker *w, const struct shape *s, const struct piece *p,
                         double *sums, struct fkv_error *err) {
    size_t dim = (size_t)s->head_dim, from = (size_t)p->first * dim;
    for (int32_t q = 0; q < p->queries; q++)
        for (int32_t h = 0; h < s->group; h++)
            memcpy(w->packed + (size_t)(q * s->group + h) * dim,
                   p->query + ((size_t)h * (size_t)p->tokens + (size_t)(p->first + s->n + q)) * dim,
                   dim * sizeof(float));
    memset(sums, 0, (size_t)(s->group * s->columns) * (K + 2) * sizeof *sums);
    if (w->ops->write(w->b, w->q, 0, w->packed,
                      (size_t)p->queries * (size_t)s->group * dim * sizeof(float), err) ||
        append(w, s, p->state[0], p->state[1], 0, p->first + s->n + p->queries, err) ||
        attend(w, s, p, w->exact, err))
        return FKV_FAILED;
    add_squares(w, s, p, NULL, sums + K + 1);
    for (int i = 0; i < 2; i++)
        fkv_dct_forward(s->dct, p->state[i] + from, dim, s->head_dim, w->coefficient[i], dim,
                        w->scratch);
    for (int32_t k = 1; k < K; k++) {
        int32_t retained = fkv_retained((double)k / K, s->n);
        if (!retained) continue;
        low_pass(w, s, 0, retained, w->low);
        low_pass(w, s, 1, retained, w->cut); /* in place: the keys are done with it */
        if (append(w, s, w->low, w->cut, p->first, s->n, err) || attend(w, s, p, w->found, err))
            return FKV_FAILED;
        add_squares(w, s, p, w->found, sums + k);
    }
    return FKV_OK;
}

/* ---- a layer ---- */

static const enum fkv_state measured[] = {FKV_STATE_KEY, FKV_STATE_VALUE, FKV_STATE_QUERY};

struct layer_work {
    const struct fkv_measurement *m;
    struct shape shape;
    struct worker *workers;
    float *state[3]; /* [heads of the state, tokens, head_dim] keys, values, queries of one
                        recording */
    float *gram;     /* [heads, head_dim, head_dim] of a layer, or NULL */
    double *sums;    /* [segments of a recording * kv_heads, group, columns, K + 2] */
    double *total;   /* [heads, columns, K + 2] of a layer */
    double *weight;  /* [documents] of a query */
    struct fkv_memory memory;
};

/* Of the query heads of one KV head. */
static const float *gram_of(const struct layer_work *w, int32_t head) {
    size_t d = (size_t)w->shape.head_dim;
    return w->gram ? w->gram + (size_t)(head * w->shape.group) * d * d : NULL;
}

static int measure_recording(struct layer_work *w, const struct fkv_planned_recording *r,
                             struct fkv_error *err) {
    const struct fkv_measurement *m = w->m;
    const struct fkv_recording *recording = fkv_capture_recording(m->capture, r->recording);
    int32_t kv_heads = fkv_capture_info(m->capture)->head_count,
            units = (int32_t)r->segments * kv_heads;
    int status = FKV_OK;
#pragma omp parallel for schedule(dynamic) num_threads(m->workers->count)
    for (int32_t unit = 0; unit < units; unit++) {
        int32_t segment = unit / kv_heads, head = unit % kv_heads;
        size_t stride = (size_t)recording->n_tokens * (size_t)w->shape.head_dim;
        struct fkv_error own;
        struct piece p = {
            .state = {w->state[0] + (size_t)head * stride, w->state[1] + (size_t)head * stride},
            .query = w->state[2] + (size_t)(head * w->shape.group) * stride,
            .gram = gram_of(w, head),
            .tokens = recording->n_tokens,
            .first = m->plan->skip_sinks + (int64_t)segment * m->plan->n,
            .queries = queries_after(recording, m->plan, segment)};
        double *sums =
            w->sums + (size_t)unit * (size_t)(w->shape.group * w->shape.columns) * (K + 2);
        if (!p.queries ||
            !measure_piece(&w->workers[omp_get_thread_num()], &w->shape, &p, sums, &own))
            continue;
#pragma omp critical
        {
            status = FKV_FAILED;
            *err = own;
        }
    }
    for (int32_t unit = 0; !status && unit < units; unit++) { /* in order, whoever computed it */
        if (!queries_after(recording, m->plan, unit / kv_heads)) continue;
        size_t count = (size_t)(w->shape.group * w->shape.columns) * (K + 2);
        const double *sums = w->sums + (size_t)unit * count;
        double *total = w->total + (size_t)(unit % kv_heads) * count;
        for (size_t i = 0; i < count; i++) total[i] += w->weight[r->document] * sums[i];
    }
    return status;
}

/* error [kv_heads, K + 1] <- one column of the layer's totals */
static void conclude(const struct layer_work *w, int32_t column, double *error) {
    const struct shape *s = &w->shape;
    const int32_t kv_heads = fkv_capture_info(w->m->capture)->head_count;
    for (int32_t head = 0; head < kv_heads; head++)
        for (int32_t k = 0; k <= K; k++) {
            double mean = 0;
            for (int32_t h = head * s->group; h < (head + 1) * s->group; h++) {
                const double *total = w->total + (size_t)(h * s->columns + column) * (K + 2);
                mean += (total[K + 1] > 0 ? sqrt(fmax(0, total[k]) / total[K + 1]) : 0) / s->group;
            }
            error[head * (K + 1) + k] = fkv_retained((double)k / K, s->n) > 0 ? mean : NAN;
        }
}

/* Attention as this layer computes it: its rotation and its window. Tables of the angles of an
 * earlier layer are replaced. */
static int attend_as_layer(struct layer_work *w, int32_t layer, struct fkv_error *err) {
    const struct fkv_measurement *m = w->m;
    const struct fkv_capture_rotation rotation =
        fkv_capture_rotation(fkv_capture_info(m->capture), layer);
    struct fkv_attention_shape *attention = &w->shape.attention;
    attention->inv_freq = rotation.inv_freq;
    attention->rotary = rotation.rotary_dim;
    attention->gain = (float)rotation.attention_factor;
    w->shape.window = fkv_capture_window(fkv_capture_info(m->capture), layer);
    const struct fkv_limits limits = limits_of(&w->shape);
    for (int32_t i = 0; i < m->workers->count; i++)
        if (m->workers->ops->reserve(m->workers->backend[i], &limits, err)) return FKV_FAILED;
    return FKV_OK;
}

static int measure_layer(struct layer_work *w, int32_t layer, struct fkv_measurement *m,
                         struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    int32_t heads = fkv_capture_heads(m->capture, FKV_STATE_QUERY);
    char label[48];
    snprintf(label, sizeof label, "attention, layer %d", info->layer_index[layer]);
    memset(w->total, 0, (size_t)(heads * w->shape.columns) * (K + 2) * sizeof(double));
    if (attend_as_layer(w, layer, err) ||
        (w->gram && fkv_capture_read_output_gram(m->capture, layer, w->gram, err)))
        return FKV_FAILED;
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        const struct fkv_planned_recording *r = &m->plan->recording[i];
        int64_t tokens = fkv_capture_recording(m->capture, r->recording)->n_tokens;
        for (int i = 0; i < 3; i++)
            if (fkv_capture_read_state(m->capture, r->recording, measured[i], layer, 0,
                                       fkv_capture_heads(m->capture, measured[i]), 0, tokens,
                                       w->state[i], err))
                return FKV_FAILED;
        if (measure_recording(w, r, err)) return FKV_FAILED;
        if (m->progress) fkv_progress_update(m->progress, m->done += r->segments, label);
    }
    return FKV_OK;
}

/* ---- all of it ---- */

static void weigh_documents(struct layer_work *w) {
    const struct fkv_segment_plan *plan = w->m->plan;
    for (int32_t i = 0; i < plan->recordings; i++)
        w->weight[plan->recording[i].document] +=
            (double)queries_of(w->m->capture, plan, &plan->recording[i]);
    for (int32_t d = 0; d < plan->documents; d++)
        if (w->weight[d] > 0) w->weight[d] = 1 / w->weight[d];
}

static int prepare(struct layer_work *w, struct fkv_dct *dct, bool projected,
                   struct fkv_error *err) {
    const struct fkv_measurement *m = w->m;
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    int32_t heads = fkv_capture_heads(m->capture, FKV_STATE_QUERY),
            group = heads / info->head_count;
    int64_t tokens = 0, segments = 0;
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        int64_t t = fkv_capture_recording(m->capture, m->plan->recording[i].recording)->n_tokens;
        if (t > tokens) tokens = t;
        if (m->plan->recording[i].segments > segments) segments = m->plan->recording[i].segments;
    }
    double scale = info->attention_scale > 0 ? info->attention_scale : 1 / sqrt(info->head_dim);
    w->shape = (struct shape){.n = m->plan->n,
                              .head_dim = info->head_dim,
                              .group = group,
                              .columns = projected ? 2 : 1,
                              .tokens = tokens,
                              .attention = {.dim = group * info->head_dim,
                                            .heads = group,
                                            .kv_heads = 1,
                                            .head_dim = info->head_dim,
                                            .scale = (float)scale,
                                            .softcap = (float)info->attention_softcap},
                              .dct = dct};
    const size_t d = (size_t)info->head_dim, head = (size_t)tokens * d,
                 sums = (size_t)(heads * w->shape.columns) * (K + 2);
    struct fkv_memory *memory = &w->memory;
    for (int i = 0; i < 3; i++)
        w->state[i] = fkv_memory_take(
            memory, (size_t)fkv_capture_heads(m->capture, measured[i]) * head, sizeof(float));
    if (projected) w->gram = fkv_memory_take(memory, (size_t)heads * d * d, sizeof(float));
    w->sums = fkv_memory_take(memory, (size_t)segments * sums, sizeof(double));
    w->total = fkv_memory_take(memory, sums, sizeof(double));
    w->weight = fkv_memory_take(memory, (size_t)m->plan->documents, sizeof(double));
    w->workers = fkv_memory_take(memory, (size_t)m->workers->count, sizeof *w->workers);
    if (memory->failed)
        return fkv_fail(err, "out of memory for recordings of %lld tokens of %d heads",
                        (long long)tokens, heads);
    for (int32_t i = 0; i < m->workers->count; i++)
        if (worker_open(&w->workers[i], m->workers->ops, m->workers->backend[i], &w->shape, err))
            return FKV_FAILED;
    weigh_documents(w);
    return FKV_OK;
}

int fkv_attention_error_measure(struct fkv_measurement *m, double *error, double *projected,
                                struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    struct layer_work w = {.m = m};
    struct fkv_dct *dct;
    if (fkv_dct_create(m->plan->n, &dct, err)) return FKV_FAILED;
    int status = prepare(&w, dct, projected != NULL, err);
    for (int32_t layer = 0; !status && layer < info->layer_count; layer++) {
        size_t at = (size_t)layer * (size_t)info->head_count * (K + 1);
        status = measure_layer(&w, layer, m, err);
        if (!status) conclude(&w, 0, error + at);
        if (!status && projected) conclude(&w, 1, projected + at);
    }
    for (int32_t i = 0; w.workers && i < m->workers->count; i++) worker_close(&w.workers[i]);
    fkv_memory_free(&w.memory);
    fkv_dct_destroy(dct);
    return status;
}
