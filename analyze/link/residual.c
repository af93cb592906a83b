/* Owns residuals by class of token (residual.h). A pass over the capture per state: every head of
 * every layer is low-passed segment by segment, and what is left adds to its token's number; tokens
 * are then added up by class per segment, which is all that means and their bootstrap need. */
#include "analyze/link/residual.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "capture/store/capture_reader.h"
#include "kernels/dct.h"

/* The residuals of tokens, and what it takes to measure them. */
struct tokens {
    struct fkv_measurement *m;
    int32_t n, heads, head_dim, retained, threads;
    const struct fkv_dct *dct;
    float *x;                 /* [heads, n, head_dim] */
    float *rest, *scratch;    /* [threads, n, head_dim]; [threads, fkv_dct_scratch] */
    double *ratio, *variance; /* [heads, n] each: of a token, with DC and without */
    double *token;            /* [2, segments, n]: means over layers and heads */
    uint8_t *classes;         /* [segments, n] */
    struct fkv_memory memory;
};

static int tokens_make(struct tokens *t, struct fkv_error *err) {
    size_t n = (size_t)t->n, head = n * (size_t)t->head_dim, heads = (size_t)t->heads,
           threads = (size_t)t->threads;
    size_t segments = (size_t)t->m->plan->segments;
    t->x = fkv_memory_take(&t->memory, heads * head, sizeof(float));
    t->rest = fkv_memory_take(&t->memory, threads * head, sizeof(float));
    t->scratch = fkv_memory_take(&t->memory, threads * fkv_dct_scratch(t->dct), sizeof(float));
    t->ratio = fkv_memory_take(&t->memory, heads * n, sizeof(double));
    t->variance = fkv_memory_take(&t->memory, heads * n, sizeof(double));
    t->token = fkv_memory_take(&t->memory, 2 * segments * n, sizeof(double));
    t->classes = fkv_memory_take(&t->memory, segments * n, 1);
    if (!t->memory.failed) return FKV_OK;
    return fkv_fail(err, "out of memory for the residuals of %zu segments of %d tokens", segments,
                    t->n);
}

/* One head: ratio [n], variance [n] */
static void measure_head(struct tokens *t, int32_t head) {
    size_t d = (size_t)t->head_dim, n = (size_t)t->n, thread = (size_t)omp_get_thread_num();
    const float *x = t->x + (size_t)head * n * d;
    float *rest = t->rest + thread * n * d,
          *scratch = t->scratch + thread * fkv_dct_scratch(t->dct);
    double *ratio = t->ratio + (size_t)head * n, *variance = t->variance + (size_t)head * n,
           spread = 0;
    fkv_dct_forward(t->dct, x, d, t->head_dim, rest, d, scratch);
    for (size_t i = d; i < n * d; i++) spread += (double)rest[i] * rest[i] / (double)n;
    memset(rest, 0, (size_t)t->retained * d * sizeof *rest);
    fkv_dct_inverse(t->dct, rest, d, t->head_dim, rest, d, scratch);
    for (size_t j = 0; j < n; j++) {
        double lost = 0, all = 0;
        for (size_t c = j * d; c < (j + 1) * d; c++)
            lost += (double)rest[c] * rest[c], all += (double)x[c] * x[c];
        ratio[j] = all > 0 ? lost / all : 0;
        variance[j] = spread > 0 ? lost / spread : 0;
    }
}

static int measure_segment(struct tokens *t, enum fkv_state state, int32_t layer, int32_t recording,
                           int64_t start, int64_t number, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(t->m->capture);
    double weight = 1.0 / ((double)t->heads * info->layer_count);
    if (fkv_capture_read_state(t->m->capture, recording, state, layer, 0, t->heads, start, t->n,
                               t->x, err))
        return FKV_FAILED;
#pragma omp parallel for schedule(dynamic) num_threads(t->threads)
    for (int32_t h = 0; h < t->heads; h++) measure_head(t, h);
    double *with = t->token + number * t->n, *without = with + t->m->plan->segments * t->n;
    for (int32_t i = 0; i < t->heads * t->n; i++) {
        with[i % t->n] += weight * t->ratio[i];
        without[i % t->n] += weight * t->variance[i];
    }
    return FKV_OK;
}

/* Classes of a recording's segments. Ids of a stretch that is not the first of its text cannot know
 * what stood before; with classes stored it does not matter. */
static int read_classes(struct tokens *t, const struct fkv_planned_recording *r, bool *by_ids,
                        struct fkv_error *err) {
    int64_t tokens = fkv_capture_recording(t->m->capture, r->recording)->n_tokens;
    struct fkv_memory scratch = {0};
    uint8_t *classes = fkv_memory_take(&scratch, (size_t)tokens, 1);
    int32_t *ids = fkv_memory_take(&scratch, (size_t)tokens, sizeof *ids);
    bool found = false;
    int status = scratch.failed ? fkv_fail(err, "out of memory for the classes of %lld tokens",
                                           (long long)tokens)
                                : FKV_OK;
    if (!status)
        status = fkv_capture_read_token_class(t->m->capture, r->recording, classes, &found, err);
    if (!status && !found) {
        *by_ids = true;
        status = fkv_capture_read_tokens(t->m->capture, r->recording, ids, &found, err);
        if (!status && !found)
            status = fkv_fail(err,
                              "%s: classes of tokens need the dataset tokens or token_class, and "
                              "recording %d has neither",
                              fkv_capture_path(t->m->capture), r->recording);
        if (!status) status = fkv_classes_by_ids(ids, tokens, classes, err);
    }
    if (!status)
        memcpy(t->classes + r->first * t->n, classes + t->m->plan->skip_sinks,
               (size_t)(r->segments * t->n));
    fkv_memory_free(&scratch);
    return status;
}

/* Documents are drawn, and segments within them where documents are few. */
static int units_of(const struct fkv_segment_plan *plan, struct fkv_units *units,
                    struct fkv_error *err) {
    int64_t *segments = calloc((size_t)plan->documents, sizeof *segments);
    if (!segments) return fkv_fail(err, "out of memory for %d documents", plan->documents);
    for (int32_t i = 0; i < plan->recordings; i++)
        segments[plan->recording[i].document] += plan->recording[i].segments;
    int status = fkv_units_make(segments, plan->documents, false, units, err);
    free(segments);
    return status;
}

/* Sums per unit, weighted as its document is -> all [3, units]: sums with DC and without, counts.
 * Returns the tokens. */
static int64_t add_up(const struct tokens *t, int c, const struct fkv_units *units, double *all) {
    const struct fkv_segment_plan *plan = t->m->plan;
    const bool blocks = fkv_units_are_blocks(units);
    int64_t tokens = 0;
    memset(all, 0, 3 * (size_t)units->count * sizeof *all);
    for (int32_t i = 0; i < plan->recordings; i++) {
        const struct fkv_planned_recording *r = &plan->recording[i];
        for (int64_t at = r->first * t->n; at < (r->first + r->segments) * t->n; at++) {
            if (!fkv_class_has(t->classes[at], c)) continue;
            int64_t unit = blocks ? at / t->n : r->document; /* segments are numbered by document */
            all[unit] += r->share * t->token[at];
            all[units->count + unit] += r->share * t->token[plan->segments * t->n + at];
            all[2 * units->count + unit] += r->share;
            tokens++;
        }
    }
    return tokens;
}

static int summarise(const struct tokens *t, struct fkv_residuals *out, struct fkv_error *err) {
    struct fkv_units units;
    if (units_of(t->m->plan, &units, err)) return FKV_FAILED;
    size_t count = (size_t)units.count;
    double *all = malloc(3 * count * sizeof *all), *counts = all + 2 * count;
    if (!all) {
        fkv_units_free(&units);
        return fkv_fail(err, "out of memory for the residuals of %zu segments", count);
    }
    out->se_unit = units.kind, out->documents = units.documents;
    for (int c = 0; c < FKV_CLASSES; c++) {
        bool known = c == 0 || c >= FKV_CLASSES_BY_IDS || !out->by_ids;
        out->tokens[c] = known ? add_up(t, c, &units, all) : 0;
        if (!known) memset(counts, 0, count * sizeof *counts);
        for (size_t i = 0; i < 2; i++)
            out->residual[i][c] =
                fkv_ratio_interval(&units, all + i * count, counts, &out->se[i][c]);
    }
    fkv_units_free(&units);
    free(all);
    return FKV_OK;
}

static int measure_all(struct tokens *t, enum fkv_state state, bool *by_ids,
                       struct fkv_error *err) {
    const struct fkv_segment_plan *plan = t->m->plan;
    const struct fkv_capture_info *info = fkv_capture_info(t->m->capture);
    for (int32_t i = 0; i < plan->recordings; i++) {
        const struct fkv_planned_recording *r = &plan->recording[i];
        if (read_classes(t, r, by_ids, err)) return FKV_FAILED;
        for (int32_t layer = 0; layer < info->layer_count; layer++)
            for (int64_t s = 0; s < r->segments; s++) {
                if (measure_segment(t, state, layer, r->recording, plan->skip_sinks + s * plan->n,
                                    r->first + s, err))
                    return FKV_FAILED;
                if (t->m->progress) fkv_progress_update(t->m->progress, ++t->m->done, "residuals");
            }
    }
    return FKV_OK;
}

int fkv_residuals_measure(struct fkv_measurement *m, enum fkv_state state, int32_t retained,
                          struct fkv_residuals *out, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    *out = (struct fkv_residuals){.n = m->plan->n, .retained = retained};
    if (info->spectra_only || !(info->states >> state & 1))
        return fkv_fail(err, "%s: residuals of tokens need stored states of %s",
                        fkv_capture_path(m->capture), fkv_state_names[state]);
    struct fkv_dct *dct;
    if (fkv_dct_create(m->plan->n, &dct, err)) return FKV_FAILED;
    struct tokens t = {.m = m,
                       .n = m->plan->n,
                       .heads = fkv_capture_heads(m->capture, state),
                       .head_dim = info->head_dim,
                       .retained = retained,
                       .threads = m->workers->device ? omp_get_max_threads() : m->workers->count,
                       .dct = dct};
    int status = tokens_make(&t, err);
    if (!status) status = measure_all(&t, state, &out->by_ids, err);
    if (!status) status = summarise(&t, out, err);
    fkv_memory_free(&t.memory);
    fkv_dct_destroy(dct);
    return status;
}
