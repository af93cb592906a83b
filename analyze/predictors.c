/* Owns the predictors of damage (predictors.h).
 *
 * Query-visible energy. Keys k_j that lose e_j move the score of a query by attention_scale * q' R e_j, where R rotates by the distance between the two (RoPE). Taking R as the
 * identity, that is, queries and keys both before RoPE, and the head's queries by their second moment Sigma_q = mean q q' (all queries of the segments' tokens, all query heads that
 * share the KV head, documents weighing equally), the variance of the score's change, mean over the n slots, is by Parseval
 *
 *     visible = attention_scale^2 / n * sum over lost t of y_t' Sigma_q y_t           y_t [head_dim]: DCT coefficients of the segment's keys
 *
 * What is approximated: distances (the rotation mixes the two channels of a pair, and does not change the energy of either pair), and which query meets which key. Averaging R over all angles instead was
 * dropped: it makes Sigma_q a multiple of the identity within each pair, and low frequencies of RoPE hardly turn within a segment.
 *
 * Of values, ||W_O y_t||^2 / n: captures hold no output projection so far, and without it this is ||y_t||^2 / n, head_dim times the absolute energy, which ranks heads of one model
 * exactly as that does. */
#include "analyze/predictors.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/attention_error.h"
#include "kernels/dct.h"

const char *const fkv_predictor_names[FKV_PREDICTORS] = {"energy", "energy_no_dc", "absolute", "visible", "attention"};
const char *const fkv_predictor_words[FKV_PREDICTORS] = {"lost share of energy", "lost share of energy without DC",
                                                         "lost energy per element", "query-visible lost energy",
                                                         "attention-output error"};

/* ---- query-visible energy of keys ---- */

struct work {
    struct fkv_measurement *m;
    int32_t n, heads, group, head_dim, threads;
    const struct fkv_dct *dct;
    float *query, *key, *y, *scratch; /* [group * heads, n, d]; [heads, n, d]; [threads, n, d]; [threads, ...] */
    double *moment;                   /* [heads, d, d] */
};

static void work_free(struct work *w) { free(w->query), free(w->key), free(w->y), free(w->scratch), free(w->moment); }

static int work_make(struct work *w, struct fkv_error *err) {
    size_t head = (size_t)w->n * (size_t)w->head_dim, heads = (size_t)w->heads, threads = (size_t)w->threads;
    w->query = malloc(heads * (size_t)w->group * head * sizeof(float));
    w->key = malloc(heads * head * sizeof(float));
    w->y = malloc(threads * head * sizeof(float));
    w->scratch = malloc((threads * fkv_dct_scratch(w->dct) + 1) * sizeof(float));
    w->moment = malloc(heads * (size_t)w->head_dim * (size_t)w->head_dim * sizeof(double));
    if (w->query && w->key && w->y && w->scratch && w->moment) return FKV_OK;
    return fkv_fail(err, "out of memory for queries of segments of %d tokens", w->n);
}

/* Adds weight * q q' over x [n, d] to moment [d, d] */
static void add_moment(const float *x, int32_t n, int32_t d, double weight, double *moment) {
    for (int32_t j = 0; j < n; j++, x += d)
        for (int32_t a = 0; a < d; a++)
            for (int32_t b = 0; b < d; b++) moment[a * d + b] += weight * x[a] * x[b];
}

/* Adds weight * y_t' moment y_t to visible [n] */
static void add_visible(const struct work *w, int32_t head, double weight, double *visible) {
    size_t d = (size_t)w->head_dim, n = (size_t)w->n, thread = (size_t)omp_get_thread_num();
    const double *moment = w->moment + (size_t)head * d * d;
    float *y = w->y + thread * n * d;
    fkv_dct_forward(w->dct, w->key + (size_t)head * n * d, d, w->head_dim, y, d,
                    w->scratch + thread * fkv_dct_scratch(w->dct));
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

enum pass { MOMENTS, VISIBLE };

static int pass_over(struct work *w, enum pass pass, int32_t layer, double *visible, struct fkv_error *err) {
    const struct fkv_segment_plan *plan = w->m->plan;
    const struct fkv_capture_info *info = fkv_capture_info(w->m->capture);
    enum fkv_state state = pass == MOMENTS ? FKV_STATE_QUERY : FKV_STATE_KEY;
    int32_t heads = pass == MOMENTS ? w->heads * w->group : w->heads;
    float *x = pass == MOMENTS ? w->query : w->key;
    size_t d = (size_t)w->head_dim, head = (size_t)w->n * d;
    double scale = info->attention_scale;
    for (int32_t i = 0; i < plan->recordings; i++) {
        const struct fkv_planned_recording *r = &plan->recording[i];
        for (int64_t s = 0; s < r->segments; s++) {
            double weight = r->share / plan->documents / w->n;
            if (fkv_capture_read_state(w->m->capture, r->recording, state, layer, 0, heads,
                                       plan->skip_sinks + s * plan->n, w->n, x, err))
                return FKV_FAILED;
#pragma omp parallel for schedule(dynamic) num_threads(w->threads)
            for (int32_t h = 0; h < w->heads; h++) {
                for (int32_t g = 0; pass == MOMENTS && g < w->group; g++)
                    add_moment(x + (size_t)(h * w->group + g) * head, w->n, w->head_dim, weight / w->group,
                               w->moment + (size_t)h * d * d);
                if (pass == VISIBLE) add_visible(w, h, weight * scale * scale, visible + (int64_t)h * w->n);
            }
            if (w->m->progress) fkv_progress_update(w->m->progress, ++w->m->done, "queries");
        }
    }
    return FKV_OK;
}

static int measure_visible(struct fkv_measurement *m, double *visible, struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    struct fkv_dct *dct;
    if (fkv_dct_create(m->plan->n, &dct, err)) return FKV_FAILED;
    int32_t heads = info->head_count, all = fkv_capture_heads(m->capture, FKV_STATE_QUERY);
    struct work w = {.m = m,
                     .n = m->plan->n,
                     .heads = heads,
                     .group = all / heads,
                     .head_dim = info->head_dim,
                     .threads = m->workers->device ? omp_get_max_threads() : m->workers->count,
                     .dct = dct};
    int status = work_make(&w, err);
    for (int32_t layer = 0; !status && layer < info->layer_count; layer++) {
        double *of_layer = visible + (int64_t)layer * heads * w.n;
        memset(w.moment, 0, (size_t)heads * (size_t)w.head_dim * (size_t)w.head_dim * sizeof(double));
        status = pass_over(&w, MOMENTS, layer, NULL, err);
        if (!status) status = pass_over(&w, VISIBLE, layer, of_layer, err);
    }
    work_free(&w);
    fkv_dct_destroy(dct);
    return status;
}

/* ---- all spectra ---- */

static int measure_power(struct fkv_measurement *m, struct fkv_predictor_spectra *out, struct fkv_error *err) {
    for (int state = 0; state < 2; state++) {
        struct fkv_spectrum s;
        if (fkv_spectrum_measure(m, (enum fkv_state)state, &s, err)) return FKV_FAILED;
        out->layers = s.layers, out->heads = s.heads;
        out->power[state] = s.power, s.power = NULL;
        if (!state) {
            out->layer_index = s.layer_index, out->head_index = s.head_index;
            s.layer_index = NULL, s.head_index = NULL;
        }
        fkv_spectrum_free(&s);
    }
    return FKV_OK;
}

int fkv_predictor_spectra_measure(struct fkv_measurement *m, bool heads, struct fkv_predictor_spectra *out,
                                  struct fkv_error *err) {
    const struct fkv_capture_info *info = fkv_capture_info(m->capture);
    *out = (struct fkv_predictor_spectra){.n = m->plan->n, .head_dim = info->head_dim};
    if ((info->states & 3) != 3)
        return fkv_fail(err, "%s: expected keys and values, found only one of them", fkv_capture_path(m->capture));
    int status = measure_power(m, out, err);
    size_t rows = (size_t)out->layers * (size_t)out->heads;
    struct fkv_error why = {0};
    if (!status && heads && (info->spectra_only || !(info->states >> FKV_STATE_QUERY & 1)))
        snprintf(out->why_not[0], sizeof out->why_not[0],
                 "no query-visible energy: the capture holds no queries (freqkv-capture --states key,value,query)");
    else if (!status && heads) {
        out->visible = calloc(rows * (size_t)out->n, sizeof(double));
        status = out->visible ? measure_visible(m, out->visible, err) : fkv_fail(err, "out of memory");
    }
    if (!status && heads && fkv_attention_error_check(m->capture, m->plan, &why))
        snprintf(out->why_not[1], sizeof out->why_not[1], "no attention-output error: %.400s", why.message);
    else if (!status && heads) {
        out->attention = malloc(rows * (FKV_RATIO_STEPS + 1) * sizeof(double));
        status = out->attention ? fkv_attention_error_measure(m, out->attention, err) : fkv_fail(err, "out of memory");
    }
    if (status) fkv_predictor_spectra_free(out);
    return status;
}

void fkv_predictor_spectra_free(struct fkv_predictor_spectra *s) {
    free(s->layer_index), free(s->head_index), free(s->power[0]), free(s->power[1]), free(s->visible);
    free(s->attention);
    memset(s, 0, sizeof *s);
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
static double attention_value(const struct fkv_predictor_spectra *s, size_t row, struct fkv_kept kept) {
    if (!s->attention || kept.low > 0 || kept.complement) return NAN;
    const double *error = s->attention + row * (FKV_RATIO_STEPS + 1);
    double at = (double)kept.high * FKV_RATIO_STEPS / s->n;
    int below = (int)fmin(floor(at + 1e-9), FKV_RATIO_STEPS), above = below < FKV_RATIO_STEPS ? below + 1 : below;
    double part = fmax(0, at - below);
    return part > 0 ? (1 - part) * error[below] + part * error[above] : error[below];
}

double fkv_predictor_value(const struct fkv_predictor_spectra *s, enum fkv_predictor predictor, int32_t layer,
                           int32_t head, int32_t states, struct fkv_kept kept) {
    size_t row = (size_t)layer * (size_t)s->heads + (size_t)head;
    double total = 0;
    int count = 0;
    if (predictor == FKV_PREDICTOR_ATTENTION) return attention_value(s, row, kept);
    if (predictor == FKV_PREDICTOR_VISIBLE) {
        if (states == 1) return s->visible ? sum_of(s->visible + row * (size_t)s->n, s->n, kept).lost : NAN;
        return states == 2 ? sum_of(s->power[1] + row * (size_t)s->n, s->n, kept).lost * s->head_dim / s->n : NAN;
    }
    for (int state = 0; state < 2; state++) {
        if (!(states >> state & 1)) continue;
        struct sums sums = sum_of(s->power[state] + row * (size_t)s->n, s->n, kept);
        count++;
        total += predictor == FKV_PREDICTOR_ENERGY         ? sums.lost / sums.all
                 : predictor == FKV_PREDICTOR_ENERGY_NO_DC ? (sums.lost - sums.lost_dc) / (sums.all - sums.dc)
                                                           : sums.lost / s->n;
    }
    return predictor == FKV_PREDICTOR_ABSOLUTE ? total : total / count;
}
