/* Owns the predictors of damage (predictors.h).
 *
 * Query-visible energy. Keys k_j that lose e_j move the score of a query by attention_scale * q' R
 * e_j, where R rotates by the distance between the two (RoPE). Taking R as the identity, that is,
 * queries and keys both before RoPE, and the head's queries by their second moment Sigma_q = mean q
 * q' (all queries of the segments' tokens, all query heads that share the KV head, documents
 * weighing equally), the variance of the score's change, mean over the n slots, is by Parseval
 *
 *     visible = attention_scale^2 / n * sum over lost t of y_t' Sigma_q y_t           y_t
 *             [head_dim]: DCT coefficients of the segment's keys
 *
 * What is approximated: distances (the rotation mixes the two channels of a pair, and does not
 * change the energy of either pair), and which query meets which key (a layer's window; a cap of
 * scores, whose slope is at most 1). Averaging R over all angles
 * instead was dropped: it makes Sigma_q a multiple of the identity within each pair, and low
 * frequencies of RoPE hardly turn within a segment.
 *
 * Of values, what a lost e_j adds to the residual where a query looks at slot j alone: ||W_O
 * e_j||^2, again the mean over slots,
 *
 *     visible = 1 / n * sum over lost t of y_t' G y_t                y_t: DCT coefficients of the
 *             values, G = mean over the query heads of the group of W' W, W their columns of W_O
 *
 * The heads of a group read the same values, each through columns of its own. Their mean and not
 * their sum: it is what one query head passes on, as Sigma_q is what one asks and as the
 * attention-output error is a mean over them; in one model, where groups are equal, the sum would
 * rank heads alike. What is approximated: weights of attention, which average errors of
 * neighbouring slots and so let low frequencies through before high ones. Captures without the
 * output projection have none: ||y_t||^2 / n instead was dropped, as it is the absolute energy
 * under another name. */
#include "analyze/link/predictors.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "analyze/measure/attention_error.h"
#include "capture/store/capture_reader.h"
#include "kernels/dct.h"

const char *const fkv_predictor_names[FKV_PREDICTORS] = {
    "energy", "energy_no_dc", "absolute", "visible", "attention", "attention_projected"};
const char *const fkv_predictor_words[FKV_PREDICTORS] = {
    "lost share of energy", "lost share of energy without DC", "lost energy per element",
    "visible lost energy",  "attention-output error",          "attention-output error, projected"};

/* ---- visible energy ---- */

/* What it takes to measure the visible energy of one state, a segment of a layer at a time. */
struct visible {
    struct fkv_measurement *m;
    int32_t n, heads, group, head_dim, threads;
    const struct fkv_dct *dct;
    float
        *shared; /* [group * heads, n or d, d]: queries of a segment, or a layer's Gram matrices */
    float *x;    /* [heads, n, d] */
    float *y;    /* [threads, n, d] */
    float *scratch; /* [threads, fkv_dct_scratch] */
    double *moment; /* [heads, d, d]: Sigma_q, or the mean Gram matrix */
    struct fkv_memory memory;
};

static int visible_make(struct visible *v, struct fkv_error *err) {
    size_t d = (size_t)v->head_dim, head = (size_t)v->n * d, heads = (size_t)v->heads,
           threads = (size_t)v->threads;
    const size_t most = v->n > v->head_dim ? head : d * d;
    v->shared = fkv_memory_take(&v->memory, heads * (size_t)v->group * most, sizeof(float));
    v->x = fkv_memory_take(&v->memory, heads * head, sizeof(float));
    v->y = fkv_memory_take(&v->memory, threads * head, sizeof(float));
    v->scratch = fkv_memory_take(&v->memory, threads * fkv_dct_scratch(v->dct), sizeof(float));
    v->moment = fkv_memory_take(&v->memory, heads * d * d, sizeof(double));
    if (!v->memory.failed) return FKV_OK;
    return fkv_fail(err, "out of memory for queries of segments of %d tokens", v->n);
}

/* Adds weight * q q' over x [n, d] to moment [d, d] */
static void add_moment(const float *x, int32_t n, int32_t d, double weight, double *moment) {
    for (int32_t j = 0; j < n; j++, x += d)
        for (int32_t a = 0; a < d; a++)
            for (int32_t b = 0; b < d; b++) moment[a * d + b] += weight * x[a] * x[b];
}

/* Adds weight * y_t' moment y_t to visible [n] */
static void add_visible(const struct visible *v, int32_t head, double weight, double *visible) {
    size_t d = (size_t)v->head_dim, n = (size_t)v->n, thread = (size_t)omp_get_thread_num();
    const double *moment = v->moment + (size_t)head * d * d;
    float *y = v->y + thread * n * d;
    fkv_dct_forward(v->dct, v->x + (size_t)head * n * d, d, v->head_dim, y, d,
                    v->scratch + thread * fkv_dct_scratch(v->dct));
    for (size_t t = 0; t < n; t++, y += d) {
        double sum = 0;
        for (size_t a = 0; a < d; a++) {
            double row = 0;
            for (size_t b = 0; b < d; b++) row += moment[a * d + b] * y[b];
            sum += row * y[a];
        }
        visible[t] += weight * sum;
    }
}

/* Queries x [rows, d] times the factor that attention puts on turned channels, of keys as well. */
static void scale_turned(const struct visible *v, int32_t layer, float *x, size_t rows) {
    const struct fkv_capture_rotation rotation =
        fkv_capture_rotation(fkv_capture_info(v->m->capture), layer);
    const float gain = (float)(rotation.attention_factor * rotation.attention_factor);
    for (size_t r = 0; r < rows && gain != 1; r++, x += v->head_dim)
        for (int32_t c = 0; c < rotation.rotary_dim; c++) x[c] *= gain;
}

enum pass { QUERIES, KEYS, VALUES };

/* All segments of a layer: queries into the moment, or keys or values through it into visible
 * [heads, n]. */
static int pass_over(struct visible *v, enum pass pass, int32_t layer, double *visible,
                     struct fkv_error *err) {
    static const enum fkv_state states[] = {FKV_STATE_QUERY, FKV_STATE_KEY, FKV_STATE_VALUE};
    const struct fkv_segment_plan *plan = v->m->plan;
    const double scale = pass == KEYS ? fkv_capture_info(v->m->capture)->attention_scale : 1;
    int32_t heads = pass == QUERIES ? v->heads * v->group : v->heads;
    float *x = pass == QUERIES ? v->shared : v->x;
    size_t d = (size_t)v->head_dim, head = (size_t)v->n * d;
    for (int32_t i = 0; i < plan->recordings; i++) {
        const struct fkv_planned_recording *r = &plan->recording[i];
        for (int64_t s = 0; s < r->segments; s++) {
            double weight = r->share / plan->documents / v->n;
            if (fkv_capture_read_state(v->m->capture, r->recording, states[pass], layer, 0, heads,
                                       plan->skip_sinks + s * plan->n, v->n, x, err))
                return FKV_FAILED;
            if (pass == QUERIES) scale_turned(v, layer, x, (size_t)heads * (size_t)v->n);
#pragma omp parallel for schedule(dynamic) num_threads(v->threads)
            for (int32_t h = 0; h < v->heads; h++) {
                for (int32_t g = 0; pass == QUERIES && g < v->group; g++)
                    add_moment(x + (size_t)(h * v->group + g) * head, v->n, v->head_dim,
                               weight / v->group, v->moment + (size_t)h * d * d);
                if (pass != QUERIES)
                    add_visible(v, h, weight * scale * scale, visible + (int64_t)h * v->n);
            }
            if (v->m->progress) fkv_progress_update(v->m->progress, ++v->m->done, "visible energy");
        }
    }
    return FKV_OK;
}

static int add_gram(struct visible *v, int32_t layer, struct fkv_error *err) {
    size_t matrix = (size_t)v->head_dim * (size_t)v->head_dim;
    if (fkv_capture_read_output_gram(v->m->capture, layer, v->shared, err)) return FKV_FAILED;
    for (int32_t h = 0; h < v->heads * v->group; h++)
        for (size_t i = 0; i < matrix; i++)
            v->moment[(size_t)(h / v->group) * matrix + i] +=
                (double)v->shared[(size_t)h * matrix + i] / v->group;
    return FKV_OK;
}

/* visible [layers, heads, n] of keys or values */
static int measure_visible(struct fkv_measurement *m, enum fkv_state state, double *visible,
                           struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    struct fkv_dct *dct;
    if (fkv_dct_create(m->plan->n, &dct, err)) return FKV_FAILED;
    int32_t heads = info->head_count, all = fkv_capture_heads(m->capture, FKV_STATE_QUERY);
    struct visible v = {.m = m,
                        .n = m->plan->n,
                        .heads = heads,
                        .group = all / heads,
                        .head_dim = info->head_dim,
                        .threads = m->workers->device ? omp_get_max_threads() : m->workers->count,
                        .dct = dct};
    const bool keys = state == FKV_STATE_KEY;
    int status = visible_make(&v, err);
    for (int32_t layer = 0; !status && layer < info->layer_count; layer++) {
        double *of_layer = visible + (int64_t)layer * heads * v.n;
        memset(v.moment, 0,
               (size_t)heads * (size_t)v.head_dim * (size_t)v.head_dim * sizeof(double));
        status = keys ? pass_over(&v, QUERIES, layer, NULL, err) : add_gram(&v, layer, err);
        if (!status) status = pass_over(&v, keys ? KEYS : VALUES, layer, of_layer, err);
    }
    fkv_memory_free(&v.memory);
    fkv_dct_destroy(dct);
    return status;
}

/* ---- all spectra ---- */

static int measure_power(struct fkv_measurement *m, struct fkv_predictor_spectra *out,
                         struct fkv_error *err) {
    for (int state = 0; state < 2; state++)
        if (fkv_spectrum_measure(m, (enum fkv_state)state, &out->power[state], err))
            return FKV_FAILED;
    const struct fkv_spectrum *keys = &out->power[0];
    out->layers = keys->layers, out->heads = keys->heads;
    out->layer_index = keys->layer_index, out->head_index = keys->head_index;
    return FKV_OK;
}

static int measure_both_visible(struct fkv_measurement *m, struct fkv_predictor_spectra *out,
                                struct fkv_error *err) {
    const size_t numbers = (size_t)out->layers * (size_t)out->heads * (size_t)out->n;
    for (int state = 0; state < 2; state++) {
        if (out->gap[state ? FKV_NO_PROJECTION : FKV_NO_QUERIES][0]) continue;
        out->visible[state] = fkv_memory_take(&out->memory, numbers, sizeof(double));
        if (!out->visible[state]) return fkv_fail(err, "out of memory");
        if (measure_visible(m, (enum fkv_state)state, out->visible[state], err)) return FKV_FAILED;
    }
    return FKV_OK;
}

static int measure_attention(struct fkv_measurement *m, struct fkv_predictor_spectra *out,
                             struct fkv_error *err) {
    const bool projected = !out->gap[FKV_NO_PROJECTION][0];
    const size_t numbers = (size_t)out->layers * (size_t)out->heads * (FKV_RATIO_STEPS + 1);
    if (out->gap[FKV_NO_ATTENTION][0]) return FKV_OK;
    for (int i = 0; i < 1 + projected; i++)
        out->attention[i] = fkv_memory_take(&out->memory, numbers, sizeof(double));
    if (out->memory.failed) return fkv_fail(err, "out of memory");
    return fkv_attention_error_measure(m, out->attention[0], out->attention[1], err);
}

/* What the capture cannot say, in words for people. */
static void find_gaps(struct fkv_measurement *m, struct fkv_predictor_spectra *out) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    struct fkv_error why;
    if (info->spectra_only || !(info->states >> FKV_STATE_QUERY & 1))
        snprintf(out->gap[FKV_NO_QUERIES], sizeof *out->gap,
                 "no visible energy of keys: the capture holds no queries (freqkv-capture --states "
                 "key,value,query)");
    if (info->spectra_only || !fkv_capture_output_gram(m->capture))
        snprintf(out->gap[FKV_NO_PROJECTION], sizeof *out->gap,
                 "no visible energy of values and no projected attention-output error: the capture "
                 "holds %s",
                 info->spectra_only
                     ? "sums of spectra alone"
                     : "no output projection (output_gram; freqkv-capture --resume adds it)");
    if (fkv_attention_error_check(m->capture, m->plan, &why))
        snprintf(out->gap[FKV_NO_ATTENTION], sizeof *out->gap, "no attention-output error: %.400s",
                 why.message);
}

int fkv_predictor_spectra_measure(struct fkv_measurement *m, bool heads,
                                  struct fkv_predictor_spectra *out, struct fkv_error *err) {
    *out = (struct fkv_predictor_spectra){.n = m->plan->n};
    if ((fkv_capture_info(m->capture)->states & 3) != 3)
        return fkv_fail(err, "%s: expected keys and values, found only one of them",
                        fkv_capture_path(m->capture));
    int status = measure_power(m, out, err);
    if (heads) find_gaps(m, out);
    if (!status && heads && (measure_both_visible(m, out, err) || measure_attention(m, out, err)))
        status = FKV_FAILED;
    if (status) fkv_predictor_spectra_free(out);
    return status;
}

void fkv_predictor_spectra_free(struct fkv_predictor_spectra *s) {
    for (int i = 0; i < 2; i++) fkv_spectrum_free(&s->power[i]);
    fkv_memory_free(&s->memory);
    *s = (struct fkv_predictor_spectra){0};
}

/* ---- a value ---- */

struct sums {
    double all, lost, dc, lost_dc;
};

static struct sums sum_of(const double *spectrum, int32_t n, struct fkv_kept kept) {
    struct sums s = {.dc = spectrum[0]};
    for (int32_t t = 0; t < n; t++) {
        bool stays = (t >= kept.low && t < kept.high) != kept.complement;
        s.all += spectrum[t];
        if (stays) continue;
        s.lost += spectrum[t];
        if (!t) s.lost_dc = spectrum[0];
    }
    return s;
}

/* The measured errors are of ratios k/64; between two of them, linear. */
static double attention_value(const double *errors, int32_t n, size_t row, struct fkv_kept kept) {
    if (!errors || kept.low > 0 || kept.complement) return NAN;
    const double *error = errors + row * (FKV_RATIO_STEPS + 1);
    double at = (double)kept.high * FKV_RATIO_STEPS / n;
    int below = (int)fmin(floor(at + 1e-9), FKV_RATIO_STEPS),
        above = below < FKV_RATIO_STEPS ? below + 1 : below;
    double part = fmax(0, at - below);
    return part > 0 ? (1 - part) * error[below] + part * error[above] : error[below];
}

double fkv_predictor_value(const struct fkv_predictor_spectra *s, enum fkv_predictor predictor,
                           int32_t layer, int32_t head, int32_t states, struct fkv_kept kept) {
    size_t row = (size_t)layer * (size_t)s->heads + (size_t)head;
    double total = 0;
    int count = 0;
    if (predictor == FKV_PREDICTOR_ATTENTION || predictor == FKV_PREDICTOR_PROJECTED)
        return attention_value(s->attention[predictor == FKV_PREDICTOR_PROJECTED], s->n, row, kept);
    if (predictor == FKV_PREDICTOR_VISIBLE) {
        const double *visible = states == 1 || states == 2 ? s->visible[states - 1] : NULL;
        return visible ? sum_of(visible + row * (size_t)s->n, s->n, kept).lost : NAN;
    }
    for (int state = 0; state < 2; state++) {
        if (!(states >> state & 1)) continue;
        struct sums sums = sum_of(s->power[state].power + row * (size_t)s->n, s->n, kept);
        count++;
        total += predictor == FKV_PREDICTOR_ENERGY ? sums.lost / sums.all
                 : predictor == FKV_PREDICTOR_ENERGY_NO_DC
                     ? (sums.lost - sums.lost_dc) / (sums.all - sums.dc)
                     : sums.lost / s->n;
    }
    return predictor == FKV_PREDICTOR_ABSOLUTE ? total : total / count;
}
