/* Owns spectra of stored states: reading, transforming and summing up, overlapped on all threads.
 *
 * States are read in pieces: a few successive segments of one recording and layer, all heads, as
 * they are stored. A piece falls into units, one draw of one head each (draw 0: tokens in order;
 * the others are the null's), which the transform widens and permutes in its first pass. All
 * channels and heads of a segment share a permutation: the null keeps every relation between
 * channels and destroys only the order of tokens.
 *
 * Reading a piece, its units, and adding their results to the layer's averages are tasks. Reading
 * goes in order and one at a time (HDF5 is not thread-safe), and so does adding, so that sums do
 * not depend on the number of threads; units of all pieces in memory run side by side. Layers are
 * added up in sets of as many as fit, and a set takes one recording after the other: opening one
 * costs a tenth of reading a piece. Meanwhile the standard errors of the set before are formed. A
 * fixed number of pieces bounds the memory; a layer whose averages would not fit is measured a few
 * heads at a time. On a device there is one thread, and a unit is one draw of all heads. */
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "analyze/measure/averages.h"
#include "analyze/measure/spectrum.h"
#include "kernels/base/host.h"
#include "kernels/dct.h"

enum {
    PIECE_TOKENS = 8192,
    LEAST_PIECES = 2,
    PIECES = 4,
    SETS = 2, /* of layers: one is added up while another is concluded */
    MOST_LAYERS = 8,
    MOST_BYTES = 400 << 20
};

/* Segments [first, first + count) of a recording, one layer, heads of the group. */
struct piece {
    const struct fkv_planned_recording *recording;
    int32_t layer;
    int64_t first, count;
    enum fkv_dtype dtype;
    void *x;            /* [heads, count * n, head_dim] as stored */
    int32_t *orders;    /* [count, draws, n] */
    double *columns;    /* [count, heads * (n + bands)]: power, then its bands */
    double *normalised; /* [count, heads, n] */
    double *draws;      /* [count, draws, heads, n] */
    double *floor;      /* [heads] mean rounding energy */
};

/* The averages of one layer. */
struct averages {
    struct fkv_average power, null, normalised;
    double *mean; /* [n] */
    double *se;   /* [heads * (n + bands)] */
};

struct sizes {
    int32_t n, head_dim, heads, bands, draws; /* heads: of a group */
    int64_t batch;                            /* segments of a piece, at most */
    int32_t units, pieces;                    /* units of a piece; pieces in memory */
    int32_t layers;                           /* of a set */
};

struct stream {
    struct fkv_measurement *m;
    struct fkv_spectrum *s;
    struct sizes size;
    int32_t head; /* first of the group */
    struct fkv_error_model model;
    struct piece *piece; /* [pieces] */
    struct averages averages[SETS * MOST_LAYERS];
    struct fkv_dct *dct; /* NULL on a device */
    float **scratch;     /* [threads]: what a transform needs; on a device packed [n, heads,
                            head_dim] */
    struct fkv_memory memory;
    atomic_bool failed;
    struct fkv_error *err;
};

/* ---- sizes and memory ---- */

static int64_t piece_bytes(const struct sizes *z) {
    int64_t per_head =
        z->head_dim * (int64_t)sizeof(float) + (z->draws + 2) * (int64_t)sizeof(double);
    return z->batch * z->n * (z->heads * per_head + z->draws * (int64_t)sizeof(int32_t)) +
           z->batch * z->heads * z->bands * (int64_t)sizeof(double);
}

static int64_t averages_bytes(const struct sizes *z, const struct fkv_segment_plan *plan) {
    int64_t blocks = plan->documents >= FKV_BOOTSTRAP_DOCUMENTS ? 3
                     : plan->segments < FKV_BOOTSTRAP_BLOCKS
                         ? plan->segments
                         : FKV_BOOTSTRAP_BLOCKS + plan->documents;
    return (blocks + 4) * z->heads * (z->n + z->bands) * (int64_t)sizeof(double);
}

/* The group's size decides the order in which heads are summed, so it depends on the capture and
 * the plan alone; only the number of pieces depends on the threads. */
static struct sizes choose_sizes(const struct fkv_capture_info *info, int32_t heads, bool null,
                                 bool device, int32_t threads,
                                 const struct fkv_segment_plan *plan) {
    struct sizes z = {.n = plan->n,
                      .head_dim = info->head_dim,
                      .heads = heads,
                      .bands = FKV_BANDS,
                      .draws = null ? FKV_NULL_DRAWS : 0,
                      .batch = PIECE_TOKENS / plan->n};
    int64_t most = 1;
    for (int32_t i = 0; i < plan->recordings; i++)
        if (plan->recording[i].segments > most) most = plan->recording[i].segments;
    z.batch = z.batch < 1 ? 1 : z.batch < most ? z.batch : most;
    while (z.heads > 1 &&
           LEAST_PIECES * piece_bytes(&z) + SETS * averages_bytes(&z, plan) > (int64_t)MOST_BYTES)
        z.heads = (z.heads + 1) / 2;
    const int64_t layers = MOST_BYTES / 4 / (SETS * averages_bytes(&z, plan));
    z.layers = layers < 1 ? 1 : layers < MOST_LAYERS ? (int32_t)layers : MOST_LAYERS;
    z.units = (1 + z.draws) * (device ? 1 : z.heads);
    int64_t fit = ((int64_t)MOST_BYTES - SETS * z.layers * averages_bytes(&z, plan)) /
                  piece_bytes(&z),
            wanted = PIECES + 2 * threads / z.units;
    if (fit > wanted) fit = wanted;
    z.pieces = fit < LEAST_PIECES ? LEAST_PIECES : (int32_t)fit;
    return z;
}

int64_t fkv_spectrum_states_bytes(const struct fkv_capture_info *info, int32_t heads, bool null,
                                  const struct fkv_segment_plan *plan) {
    int32_t threads = omp_get_max_threads();
    struct sizes z = choose_sizes(info, heads, null, false, threads, plan);
    int64_t transform = 4 * 16 * (int64_t)sizeof(float) * z.n; /* two blocks of 32 channels */
    return z.pieces * piece_bytes(&z) + SETS * z.layers * averages_bytes(&z, plan) +
           threads * transform;
}

static void allocate_piece(struct fkv_memory *m, struct piece *p, const struct sizes *z) {
    const size_t tokens = (size_t)z->batch * (size_t)z->n, heads = (size_t)z->heads,
                 draws = (size_t)z->draws, width = (size_t)(z->n + z->bands);
    p->x = fkv_memory_take(m, tokens * heads * (size_t)z->head_dim, sizeof(float));
    p->orders = fkv_memory_take(m, draws * tokens, sizeof *p->orders);
    p->columns = fkv_memory_take(m, (size_t)z->batch * heads * width, sizeof(double));
    p->normalised = fkv_memory_take(m, heads * tokens, sizeof *p->normalised);
    p->draws = fkv_memory_take(m, draws * heads * tokens, sizeof *p->draws);
    p->floor = fkv_memory_take(m, heads, sizeof *p->floor);
}

static void stream_close(struct stream *w) {
    fkv_memory_free(&w->memory);
    fkv_dct_destroy(w->dct);
    fkv_error_model_free(&w->model);
}

static bool allocate(struct stream *w) {
    const struct sizes *z = &w->size;
    const size_t columns = (size_t)z->heads * (size_t)(z->n + z->bands),
                 scratch = w->dct ? fkv_dct_scratch(w->dct)
                                  : (size_t)z->n * (size_t)z->heads * (size_t)z->head_dim;
    struct fkv_memory *m = &w->memory;
    w->piece = fkv_memory_take(m, (size_t)z->pieces, sizeof *w->piece);
    w->scratch = fkv_memory_take(m, (size_t)w->m->workers->count, sizeof *w->scratch);
    for (int32_t i = 0; w->piece && i < z->pieces; i++) allocate_piece(m, &w->piece[i], z);
    for (int32_t i = 0; w->scratch && i < w->m->workers->count; i++)
        w->scratch[i] = fkv_memory_take(m, scratch, sizeof(float));
    for (int i = 0; i < SETS * z->layers; i++) {
        w->averages[i].mean = fkv_memory_take(m, (size_t)z->n, sizeof(double));
        w->averages[i].se = fkv_memory_take(m, columns, sizeof(double));
    }
    return !m->failed;
}

static int stream_open(struct stream *w, struct fkv_measurement *m, struct fkv_spectrum *s,
                       struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    bool device = m->workers->device;
    *w = (struct stream){.m = m, .s = s, .err = err};
    w->size = choose_sizes(info, s->heads, m->null, device, m->workers->count, m->plan);
    w->size.bands = s->bands;
    int status = device ? FKV_OK : fkv_dct_create(s->n, &w->dct, err);
    if (!status && !m->power_only) status = fkv_error_model_make(m->plan, &w->model, err);
    if (!status && !allocate(w))
        status = fkv_fail(err, "out of memory for segments of %d tokens, %d heads of %d channels",
                          s->n, w->size.heads, info->head_dim);
    if (status) stream_close(w);
    return status;
}

/* ---- a piece ---- */

static int32_t group_heads(const struct stream *w) {
    int32_t left = w->s->heads - w->head;
    return left < w->size.heads ? left : w->size.heads;
}

static int64_t first_token(const struct stream *w, const struct piece *p) {
    return w->s->skip_sinks + p->first * w->size.n;
}

static int read_piece(struct stream *w, struct piece *p, struct fkv_error *err) {
    const struct fkv_recording *recording =
        fkv_capture_recording(w->m->capture, p->recording->recording);
    const struct sizes *z = &w->size;
    for (int64_t i = 0; i < p->count * z->draws; i++)
        fkv_permutation(fkv_permutation_key(recording, first_token(w, p) + i / z->draws * z->n,
                                            (int32_t)(i % z->draws)),
                        z->n, p->orders + i * z->n);
    return fkv_capture_read_stored(w->m->capture, p->recording->recording, w->s->state, p->layer,
                                   w->head, group_heads(w), first_token(w, p), p->count * z->n,
                                   p->x, &p->dtype, err);
}

/* Row `first` of a head of the piece's x. */
static const char *rows_of(const struct stream *w, const struct piece *p, int32_t head,
                           int64_t first) {
    int64_t row = head * p->count * w->size.n + first;
    return (const char *)p->x + (size_t)row * (size_t)w->size.head_dim * fkv_dtype_bytes(p->dtype);
}

/* Where `head` puts its normalised power [n] of a segment, NULL where it is not wanted. */
static double *normalised_at(const struct stream *w, const struct piece *p, int64_t segment,
                             int32_t draw, int32_t head) {
    if (draw || w->m->power_only) return NULL;
    return p->normalised + (segment * group_heads(w) + head) * w->size.n;
}

/* Where unit (segment, draw, head) puts its power [n]. */
static double *power_at(const struct stream *w, const struct piece *p, int64_t segment,
                        int32_t draw, int32_t head) {
    const struct sizes *z = &w->size;
    if (!draw)
        return p->columns + segment * group_heads(w) * (z->n + z->bands) + (int64_t)head * z->n;
    return p->draws + ((segment * z->draws + draw - 1) * group_heads(w) + head) * z->n;
}

static const int32_t *order_of(const struct stream *w, const struct piece *p, int64_t segment,
                               int32_t draw) {
    return draw ? p->orders + (segment * w->size.draws + draw - 1) * w->size.n : NULL;
}

static void transform_head(const struct stream *w, const struct piece *p, int32_t draw,
                           int32_t head, float *scratch) {
    const struct sizes *z = &w->size;
    for (int64_t i = 0; i < p->count; i++) {
        const struct fkv_dct_rows rows = {rows_of(w, p, head, i * z->n), p->dtype,
                                          (size_t)z->head_dim, order_of(w, p, i, draw)};
        double *power = power_at(w, p, i, draw, head),
               *normalised = normalised_at(w, p, i, draw, head);
        memset(power, 0, (size_t)z->n * sizeof *power);
        if (normalised) memset(normalised, 0, (size_t)z->n * sizeof *normalised);
        fkv_dct_add_power(w->dct, &rows, z->head_dim, power, normalised, scratch);
        for (int32_t t = 0; t < z->n; t++) power[t] /= z->head_dim;
        for (int32_t t = 0; normalised && t < z->n; t++) normalised[t] /= z->head_dim;
    }
    if (!draw)
        p->floor[head] =
            fkv_rounding_energy(rows_of(w, p, head, 0), p->count * z->n * z->head_dim, p->dtype);
}

/* A device copies what it adopts, so the buffer is adopted anew for each content. */
static int transform_on_device(const struct stream *w, const struct piece *p, int32_t draw,
                               float *packed, struct fkv_error *err) {
    const struct fkv_backend_ops *ops = w->m->workers->ops;
    struct fkv_backend *b = w->m->workers->backend[0];
    const struct sizes *z = &w->size;
    const int32_t heads = group_heads(w);
    const size_t width = (size_t)z->head_dim, stride = (size_t)heads * width;
    int status = FKV_OK;
    for (int64_t i = 0; i < p->count && !status; i++) {
        const int32_t *order = order_of(w, p, i, draw);
        for (int32_t j = 0; j < z->n; j++)
            for (int32_t h = 0; h < heads; h++)
                fkv_to_f32(rows_of(w, p, h, i * z->n + (order ? order[j] : j)), p->dtype, width,
                           packed + (size_t)j * stride + (size_t)h * width);
        struct fkv_buffer *buffer = NULL;
        status = ops->buffer_adopt(b, packed, (size_t)z->n * stride * sizeof(float), &buffer, err);
        if (!status)
            status = ops->power(b, buffer, 0, stride, z->n, heads, z->head_dim,
                                power_at(w, p, i, draw, 0), normalised_at(w, p, i, draw, 0), err);
        ops->buffer_release(b, buffer);
    }
    for (int32_t h = 0; h < heads && !draw; h++)
        p->floor[h] =
            fkv_rounding_energy(rows_of(w, p, h, 0), p->count * z->n * z->head_dim, p->dtype);
    return status;
}

static int transform_unit(const struct stream *w, const struct piece *p, int32_t unit,
                          struct fkv_error *err) {
    float *scratch = w->scratch[omp_get_thread_num()];
    if (!w->dct) return transform_on_device(w, p, unit, scratch, err);
    int32_t draws = 1 + w->size.draws; /* of one head one after another: its rows stay in caches */
    transform_head(w, p, unit % draws, unit / draws, scratch);
    return FKV_OK;
}

static int32_t units_of(const struct stream *w) {
    return (1 + w->size.draws) * (w->dct ? group_heads(w) : 1);
}

/* ---- a layer ---- */

static struct averages *averages_of(struct stream *w, int32_t layer) {
    return &w->averages[layer % (SETS * w->size.layers)];
}

static int averages_begin(const struct stream *w, struct averages *a, struct fkv_error *err) {
    int64_t heads = group_heads(w), n = w->size.n;
    int32_t documents = w->s->documents;
    if (w->m->power_only) return fkv_average_begin(&a->power, heads * n, documents, NULL, err);
    int status =
        fkv_average_begin(&a->power, heads * (n + w->size.bands), documents, &w->model, err);
    if (!status && w->m->null)
        status = fkv_average_begin(&a->null, heads * n, documents, NULL, err);
    if (!status) status = fkv_average_begin(&a->normalised, n, documents, NULL, err);
    return status;
}

static void averages_end(struct averages *a) {
    fkv_average_free(&a->power);
    fkv_average_free(&a->null);
    fkv_average_free(&a->normalised);
}

static void add_segment(const struct stream *w, const struct piece *p, int64_t segment,
                        struct averages *a) {
    const struct sizes *z = &w->size;
    const struct fkv_planned_recording *r = p->recording;
    int64_t heads = group_heads(w), n = z->n, number = r->first + p->first + segment;
    double *power = power_at(w, p, segment, 0, 0);
    const double *normalised = p->normalised + segment * heads * n;
    if (w->m->power_only) {
        fkv_average_add(&a->power, r->document, r->share, number, power);
        return;
    }
    /* Bands are columns of their own, so that they get standard errors of their own. */
    fkv_band_means(power, heads, z->n, z->bands, w->s->band_edge, power + heads * n);
    fkv_average_add(&a->power, r->document, r->share, number, power);
    for (int64_t t = 0; t < n; t++) {
        a->mean[t] = 0;
        for (int64_t i = t; i < heads * n; i += n) a->mean[t] += normalised[i] / w->s->heads;
    }
    fkv_average_add(&a->normalised, r->document, r->share, number, a->mean);
    for (int32_t draw = 1; draw <= z->draws; draw++)
        fkv_average_add(&a->null, r->document, r->share / z->draws, number,
                        power_at(w, p, segment, draw, 0));
}

static void add_piece(const struct stream *w, const struct piece *p, struct averages *a) {
    struct fkv_spectrum *s = w->s;
    double weight = p->recording->share * (double)p->count / s->documents;
    for (int32_t h = 0; h < group_heads(w); h++)
        s->rounding_floor[(size_t)p->layer * (size_t)s->heads + (size_t)(w->head + h)] +=
            weight * p->floor[h];
    for (int64_t i = 0; i < p->count; i++) add_segment(w, p, i, a);
    if (!w->m->progress) return;
    char label[64];
    snprintf(label, sizeof label, "%s, layer %d", fkv_state_names[s->state],
             s->layer_index[p->layer]);
    /* Groups of heads share the count of a segment. */
    if (w->head + group_heads(w) == s->heads)
        fkv_progress_update(w->m->progress, w->m->done += p->count, label);
}

static void averages_conclude(const struct stream *w, struct averages *a, int32_t layer) {
    struct fkv_spectrum *s = w->s;
    size_t heads = (size_t)group_heads(w), n = (size_t)s->n, bands = (size_t)s->bands,
           row = (size_t)layer * (size_t)s->heads + (size_t)w->head,
           bytes = heads * n * sizeof(double);
    memcpy(s->power + row * n, a->power.mean, bytes);
    if (w->m->power_only) {
        averages_end(a);
        return;
    }
    if (w->m->null) memcpy(s->null + row * n, a->null.mean, bytes);
    for (size_t t = 0; t < n; t++) s->normalised[(size_t)layer * n + t] += a->normalised.mean[t];
    fkv_average_error(&a->power, a->se);
    memcpy(s->power_se + row * n, a->se, bytes);
    memcpy(s->band_se + row * bands, a->se + heads * n, heads * bands * sizeof(double));
    averages_end(a);
}

/* ---- tasks ---- */

static void fail(struct stream *w, const struct fkv_error *err) {
#pragma omp critical(fkv_spectrum_failure)
    if (!w->failed) {
        *w->err = *err;
        w->failed = true;
    }
}

/* Segments of recording r, from `first` on, into the piece p. Its fields are set by the task that
 * reads it: before that it may be in use. */
static void read_task(struct stream *w, struct piece *p, int32_t layer,
                      const struct fkv_planned_recording *r, int64_t first) {
    const int64_t left = r->segments - first, count = left < w->size.batch ? left : w->size.batch;
#pragma omp task depend(inout : *p, w->m->capture)
    if (!w->failed) {
        struct fkv_error err;
        p->recording = r, p->layer = layer, p->first = first, p->count = count;
        if (read_piece(w, p, &err)) fail(w, &err);
    }
}

/* From a piece that has been read to its layer's averages; p NULL: nothing. */
static void add_tasks(struct stream *w, struct piece *p, struct averages *a) {
    if (!p) return;
    for (int32_t unit = 0; unit < units_of(w); unit++) {
#pragma omp task depend(in : *p)
        if (!w->failed) {
            struct fkv_error err;
            if (transform_unit(w, p, unit, &err)) fail(w, &err);
        }
    }
#pragma omp task depend(inout : *p, *a, w->m->done)
    if (!w->failed) add_piece(w, p, a);
}

static void begin_task(struct stream *w, struct averages *a) {
#pragma omp task depend(inout : *a)
    if (!w->failed) {
        struct fkv_error err;
        if (averages_begin(w, a, &err)) fail(w, &err);
    }
}

static void conclude_task(struct stream *w, struct averages *a, int32_t layer) {
#pragma omp task depend(inout : *a)
    if (w->failed)
        averages_end(a);
    else
        averages_conclude(w, a, layer);
}

/* The set of layers [from, to), one after the other of each recording, so that it is opened once
 * for all of them. Each piece is read before the one in front of it is transformed: tasks that are
 * ready run in the order in which they were made, so that no thread waits for a reading that has
 * not begun. */
static void set_tasks(struct stream *w, int32_t from, int32_t to, int64_t *number) {
    const struct fkv_segment_plan *plan = w->m->plan;
    struct piece *before = NULL; /* the piece read last, and its averages */
    struct averages *its = NULL;
    for (int32_t layer = from; layer < to; layer++) begin_task(w, averages_of(w, layer));
    for (int32_t i = 0; i < plan->recordings; i++)
        for (int32_t layer = from; layer < to; layer++)
            for (int64_t first = 0; first < plan->recording[i].segments; first += w->size.batch) {
                struct piece *p = &w->piece[(*number)++ % w->size.pieces];
                read_task(w, p, layer, &plan->recording[i], first);
                add_tasks(w, before, its);
                before = p, its = averages_of(w, layer);
            }
    add_tasks(w, before, its);
    for (int32_t layer = from; layer < to; layer++) conclude_task(w, averages_of(w, layer), layer);
}

int fkv_spectrum_from_states(struct fkv_measurement *m, struct fkv_spectrum *s,
                             struct fkv_error *err) {
    struct stream w;
    int64_t number = 0;
    if (stream_open(&w, m, s, err)) return FKV_FAILED;
    for (; w.head < s->heads; w.head += w.size.heads) {
#pragma omp parallel num_threads(m->workers->count)
#pragma omp single
        for (int32_t from = 0, to; from < s->layers; from = to) {
            to = from + w.size.layers < s->layers ? from + w.size.layers : s->layers;
            set_tasks(&w, from, to, &number);
        }
    }
    stream_close(&w);
    return w.failed ? FKV_FAILED : FKV_OK;
}

/* Twice, so that the second time finds file and threads as most pieces will. */
int fkv_spectrum_states_time(struct fkv_measurement *m, struct fkv_spectrum *s, double *seconds,
                             struct fkv_error *err) {
    struct stream w;
    double started = 0;
    if (stream_open(&w, m, s, err)) return FKV_FAILED;
    struct piece *p = &w.piece[0];
    for (int turn = 0; turn < 2 && !w.failed; turn++) {
        started = fkv_seconds();
        p->recording = &m->plan->recording[0], p->count = 1;
        if (read_piece(&w, p, err)) w.failed = true;
#pragma omp parallel for schedule(dynamic) num_threads(m->workers->count)
        for (int32_t unit = 0; unit < units_of(&w); unit++) {
            struct fkv_error own;
            if (!w.failed && transform_unit(&w, p, unit, &own)) fail(&w, &own);
        }
    }
    *seconds = (fkv_seconds() - started) * (double)(m->plan->segments * s->layers) * s->heads /
               group_heads(&w);
    stream_close(&w);
    return w.failed ? FKV_FAILED : FKV_OK;
}
