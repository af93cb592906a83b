/* Owns the estimators declared in measure/averages.h; see there for the equations. */
#include "analyze/measure/averages.h"

#include <math.h>

enum { SEED = 0 };

/* Blocks of each document -> blocks [documents], and the block of each segment. Documents lie
 * side by side in the plan. */
static void lay_out_blocks(const struct fkv_segment_plan *plan, int64_t *blocks,
                           struct fkv_error_model *m) {
    int64_t number = 0;
    for (int32_t i = 0, end; i < plan->recordings; i = end) {
        int64_t first = plan->recording[i].first, segments = 0;
        for (end = i;
             end < plan->recordings && plan->recording[end].document == plan->recording[i].document;
             end++)
            segments += plan->recording[end].segments;
        int64_t count = segments;
        if (plan->segments > FKV_BOOTSTRAP_BLOCKS)
            count = segments * FKV_BOOTSTRAP_BLOCKS / plan->segments;
        if (count < 1) count = 1;
        for (int64_t s = 0; s < segments; s++)
            m->block[first + s] = (int32_t)(number + s * count / segments);
        blocks[plan->recording[i].document] = count;
        number += count;
    }
}

/* weight [resamples, blocks], centred over the resamples */
static void draw_weights(const struct fkv_error_model *m, const struct fkv_units *units,
                         double *weight) {
    struct fkv_random random = {SEED};
    int32_t blocks = m->blocks;
    for (int r = 0; r < FKV_BOOTSTRAP_RESAMPLES; r++) {
        double *w = weight + (size_t)r * (size_t)blocks, total = 0;
        fkv_resample(units, &random, w);
        for (int32_t b = 0; b < blocks; b++) total += w[b] * m->block_weight[b];
        for (int32_t b = 0; b < blocks; b++) w[b] /= total;
    }
    for (int32_t b = 0; b < blocks; b++) {
        double mean = 0;
        for (int r = 0; r < FKV_BOOTSTRAP_RESAMPLES; r++)
            mean += weight[(size_t)r * (size_t)blocks + (size_t)b];
        mean /= FKV_BOOTSTRAP_RESAMPLES;
        for (int r = 0; r < FKV_BOOTSTRAP_RESAMPLES; r++)
            weight[(size_t)r * (size_t)blocks + (size_t)b] -= mean;
    }
}

static void form_covariance(const struct fkv_error_model *m, const double *weight) {
    size_t blocks = (size_t)m->blocks;
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t i = 0; i < blocks; i++) {
        double *row = m->covariance + i * blocks;
        for (size_t r = 0; r < FKV_BOOTSTRAP_RESAMPLES; r++) {
            const double *w = weight + r * blocks;
            double wi = w[i] / (FKV_BOOTSTRAP_RESAMPLES - 1);
            for (size_t j = 0; j < blocks; j++) row[j] += wi * w[j];
        }
    }
}

/* scratch: freed by the caller, like the units. */
static int make_model(const struct fkv_segment_plan *plan, struct fkv_error_model *model,
                      struct fkv_units *units, struct fkv_memory *scratch, struct fkv_error *err) {
    int64_t *documents = fkv_memory_take(scratch, (size_t)plan->documents, sizeof *documents);
    model->block = fkv_memory_take(&model->memory, (size_t)plan->segments, sizeof *model->block);
    if (!documents || !model->block)
        return fkv_fail(err, "out of memory for %lld segments", (long long)plan->segments);
    lay_out_blocks(plan, documents, model);
    if (fkv_units_make(documents, plan->documents, false, units, err)) return FKV_FAILED;
    const size_t blocks = (size_t)units->count;
    model->blocks = (int32_t)blocks;
    double *weight = fkv_memory_take(scratch, FKV_BOOTSTRAP_RESAMPLES * blocks, sizeof *weight);
    model->block_weight = fkv_memory_take(&model->memory, blocks, sizeof *model->block_weight);
    model->covariance = fkv_memory_take(&model->memory, blocks * blocks, sizeof(double));
    if (scratch->failed || model->memory.failed)
        return fkv_fail(err, "out of memory for a bootstrap of %zu blocks", blocks);
    for (int32_t i = 0; i < plan->recordings; i++) {
        const struct fkv_planned_recording *r = &plan->recording[i];
        for (int64_t s = 0; s < r->segments; s++)
            model->block_weight[model->block[r->first + s]] += r->share / plan->documents;
    }
    draw_weights(model, units, weight);
    form_covariance(model, weight);
    return FKV_OK;
}

int fkv_error_model_make(const struct fkv_segment_plan *plan, struct fkv_error_model *model,
                         struct fkv_error *err) {
    *model =
        (struct fkv_error_model){.unit = fkv_se_unit_of(plan->documents, plan->segments, false)};
    if (model->unit == FKV_SE_DOCUMENTS) return FKV_OK;
    struct fkv_units units = {0};
    struct fkv_memory scratch = {0};
    int status = make_model(plan, model, &units, &scratch, err);
    fkv_units_free(&units);
    fkv_memory_free(&scratch);
    if (status) fkv_error_model_free(model);
    return status;
}

void fkv_error_model_free(struct fkv_error_model *model) {
    fkv_memory_free(&model->memory);
    *model = (struct fkv_error_model){0};
}

int fkv_average_begin(struct fkv_average *a, int64_t columns, int32_t documents,
                      const struct fkv_error_model *model, struct fkv_error *err) {
    *a = (struct fkv_average){
        .model = model, .columns = columns, .documents = documents, .document = -1};
    size_t count = (size_t)columns;
    a->mean = fkv_memory_take(&a->memory, count, sizeof(double));
    if (model && !model->blocks) {
        a->document_mean = fkv_memory_take(&a->memory, count, sizeof(double));
        a->running_mean = fkv_memory_take(&a->memory, count, sizeof(double));
        a->squares = fkv_memory_take(&a->memory, count, sizeof(double));
    } else if (model) {
        a->block_sum = fkv_memory_take(&a->memory, (size_t)model->blocks * count, sizeof(double));
    }
    if (!a->memory.failed) return FKV_OK;
    fkv_average_free(a);
    return fkv_fail(err, "out of memory for averages of %lld numbers", (long long)columns);
}

/* Welford's update: no difference of large sums. */
static void finish_document(struct fkv_average *a) {
    if (a->document < 0) return;
    a->finished++;
    for (int64_t i = 0; i < a->columns; i++) {
        double delta = a->document_mean[i] - a->running_mean[i];
        a->running_mean[i] += delta / a->finished;
        a->squares[i] += delta * (a->document_mean[i] - a->running_mean[i]);
        a->document_mean[i] = 0;
    }
}

void fkv_average_add(struct fkv_average *a, int32_t document, double share, int64_t segment,
                     const double *p) {
    double weight = share / a->documents;
    if (document != a->document) {
        if (a->squares) finish_document(a);
        a->document = document;
    }
    for (int64_t i = 0; i < a->columns; i++) a->mean[i] += weight * p[i];
    if (a->squares)
        for (int64_t i = 0; i < a->columns; i++) a->document_mean[i] += share * p[i];
    if (a->block_sum) {
        double *sum = a->block_sum + a->model->block[segment] * a->columns;
        for (int64_t i = 0; i < a->columns; i++) sum[i] += weight * p[i];
    }
}

static void error_over_documents(struct fkv_average *a, double *se) {
    finish_document(a);
    a->document = -1;
    double units = a->finished;
    for (int64_t i = 0; i < a->columns; i++) se[i] = sqrt(a->squares[i] / (units * (units - 1)));
}

enum { STRIP = 256 };

/* Z' C Z of columns [first, first+count). The mean's part is taken out of Z (in place) first: C
 * ignores it, rounding would not. */
static void error_of_strip(struct fkv_average *a, int64_t first, int64_t count, double *se) {
    const struct fkv_error_model *m = a->model;
    double variance[STRIP] = {0};
    for (int32_t b = 0; b < m->blocks; b++)
        for (int64_t i = first; i < first + count; i++)
            a->block_sum[b * a->columns + i] -= m->block_weight[b] * a->mean[i];
    for (int32_t b = 0; b < m->blocks; b++) {
        double product[STRIP] = {0};
        for (int32_t c = 0; c < m->blocks; c++) {
            double weight = m->covariance[(int64_t)b * m->blocks + c];
            const double *z = a->block_sum + c * a->columns + first;
            for (int64_t i = 0; i < count; i++) product[i] += weight * z[i];
        }
        const double *z = a->block_sum + b * a->columns + first;
        for (int64_t i = 0; i < count; i++) variance[i] += z[i] * product[i];
    }
    for (int64_t i = 0; i < count; i++) se[first + i] = sqrt(fmax(variance[i], 0));
}

void fkv_average_error(struct fkv_average *a, double *se) {
    if (a->squares) {
        error_over_documents(a, se);
    } else if (a->model->unit == FKV_SE_NONE) {
        for (int64_t i = 0; i < a->columns; i++) se[i] = NAN;
    } else {
#pragma omp taskloop
        for (int64_t i = 0; i < a->columns; i += STRIP)
            error_of_strip(a, i, a->columns - i < STRIP ? a->columns - i : STRIP, se);
    }
}

void fkv_average_free(struct fkv_average *a) {
    fkv_memory_free(&a->memory);
    *a = (struct fkv_average){0};
}

void fkv_permutation(uint64_t key, int32_t n, int32_t *order) {
    for (int32_t i = 0; i < n; i++) order[i] = i;
    struct fkv_random random = {key};
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = (int32_t)fkv_random_below(&random, (uint64_t)i + 1), moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    }
}

uint64_t fkv_permutation_key(const struct fkv_recording *recording, int64_t start, int32_t draw) {
    uint64_t key =
        0xcbf29ce484222325u ^ (uint64_t)SEED; /* FNV-1a over the names, then the numbers mixed in */
    for (const char *c = recording->name; *c; c++) key = (key ^ (uint8_t)*c) * 0x100000001b3u;
    for (const char *c = recording->text_sha256; *c; c++)
        key = (key ^ (uint8_t)*c) * 0x100000001b3u;
    key = fkv_random_mix(key ^ (uint64_t)(recording->offset + start));
    return fkv_random_mix(key + (uint64_t)draw);
}

int32_t fkv_band_edges(int32_t n, int32_t edge[FKV_BANDS + 1]) {
    int32_t bands = n - 1 < FKV_BANDS ? n - 1 : FKV_BANDS;
    edge[0] = 1;
    for (int32_t b = 0; b < bands; b++) { /* what is left is spread anew, because the lowest bands
                                             cannot be narrower than 1 */
        double wanted = edge[b] * pow((double)n / edge[b], 1.0 / (bands - b));
        int32_t next_edge = (int32_t)lround(wanted), least = edge[b] + 1,
                most = n - (bands - b - 1);
        edge[b + 1] = next_edge < least ? least : next_edge > most ? most : next_edge;
    }
    return bands;
}

void fkv_band_means(const double *power, int64_t rows, int32_t n, int32_t bands,
                    const int32_t *edge, double *mean) {
    for (int64_t r = 0; r < rows; r++)
        for (int32_t b = 0; b < bands; b++) {
            double sum = 0;
            for (int32_t t = edge[b]; t < edge[b + 1]; t++) sum += power[r * n + t];
            mean[r * bands + b] = sum / (edge[b + 1] - edge[b]);
        }
}
