/* Owns spectra from the sums that freqkv-capture --spectra-only wrote: sums over the segments of a
 * recording add up to the same means as stored states do.
 *
 * A capture of sums has no tokens left to permute, but the null's expectation is known exactly: a
 * uniformly random permutation leaves DC as it is and spreads the remaining energy evenly, E P(t) =
 * (|x|^2 - P(0)) / (n - 1) for t > 0, because the covariance of a permuted sequence is constant off
 * the diagonal and every DCT vector with t > 0 sums to zero. Stored states use draws all the same:
 * their scatter shows what n tokens can tell apart.
 *
 * With fewer than 20 documents there are no segments left to resample, and none are needed. What
 * the bootstrap's variance tends to with many resamples is known from sums of squares: with D
 * documents, document d of mean m_d and S_d segments of variance s_d^2 (divided by S_d) about it,
 *
 *     1/D^2 sum_d ((m_d - mean)^2 + s_d^2 / S_d)
 *
 * (drawing documents, then segments within them). With one document it is the plain standard
 * error over its segments, divided by S - 1. */
#include "analyze/measure/spectrum.h"

#include <math.h>
#include <string.h>

#include "analyze/measure/averages.h"
#include "capture/store/capture_reader.h"

static int check_sums(const struct fkv_measurement *m, const struct fkv_spectrum *s,
                      const struct fkv_planned_recording *r, const struct fkv_spectra_sums *sums,
                      struct fkv_error *err) {
    const char *name = fkv_capture_recording(m->capture, r->recording)->name,
               *state = fkv_state_names[s->state];
    if (sums->layers != s->layers || sums->heads != s->heads || sums->n != s->n ||
        sums->skip_sinks != s->skip_sinks)
        return fkv_fail(err,
                        "%s: recording \"%s\", sums of %s: expected %d layers, %d heads, segments "
                        "of %d tokens, %d sinks; "
                        "found %d, %d, %d, %d",
                        fkv_capture_path(m->capture), name, state, s->layers, s->heads, s->n,
                        s->skip_sinks, sums->layers, sums->heads, sums->n, sums->skip_sinks);
    if (sums->segments != r->segments)
        return fkv_fail(err, "%s: recording \"%s\", sums of %s: expected %lld segments, found %lld",
                        fkv_capture_path(m->capture), name, state, (long long)r->segments,
                        (long long)sums->segments);
    return FKV_OK;
}

/* The errors of the equation above, [count] numbers; documents come one after the other. */
struct segment_errors {
    int64_t count, segments;        /* segments: of the document being added */
    int32_t document, finished;     /* being added, or -1; how many are done */
    double *sum, *squares;          /* [count] over the segments of the document being added */
    double *mean, *spread, *within; /* [count] of document means: mean, sum of squared deviations;
                                       sum of s_d^2 / S_d */
};

static void segment_errors_make(struct segment_errors *e, int64_t count, struct fkv_memory *m) {
    *e = (struct segment_errors){.count = count, .document = -1};
    double **const each[] = {&e->sum, &e->squares, &e->mean, &e->spread, &e->within};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        *each[i] = fkv_memory_take(m, (size_t)count, sizeof(double));
}

static void finish_document(struct segment_errors *e) {
    double segments = (double)e->segments;
    if (e->document < 0) return;
    e->finished++;
    for (int64_t i = 0; i < e->count; i++) {
        double own = e->sum[i] / segments, delta = own - e->mean[i];
        e->mean[i] += delta / e->finished;
        e->spread[i] += delta * (own - e->mean[i]);
        e->within[i] += fmax(e->squares[i] / segments - own * own, 0) / segments;
        e->sum[i] = e->squares[i] = 0;
    }
}

static void add_to_errors(struct segment_errors *e, const struct fkv_planned_recording *r,
                          const struct fkv_spectra_sums *sums) {
    if (e->document != r->document) {
        finish_document(e);
        e->document = r->document, e->segments = 0;
    }
    e->segments += r->segments;
    for (int64_t i = 0; i < e->count; i++) {
        e->sum[i] += sums->power_sum[i];
        e->squares[i] += sums->power_sum_of_squares[i];
    }
}

/* se [count]; all has been added. */
static void conclude_errors(struct segment_errors *e, double *se) {
    finish_document(e);
    double documents = e->finished, segments = (double)e->segments;
    for (int64_t i = 0; i < e->count; i++) {
        double one = segments < 2 ? NAN : sqrt(e->within[i] * segments / (segments - 1));
        se[i] = e->finished > 1 ? sqrt(e->spread[i] + e->within[i]) / documents : one;
    }
}

/* The exact expectation of the permutation null; see the top of the file. */
static void expected_null(const double *power, int64_t rows, int32_t n, double *null) {
    for (int64_t r = 0; r < rows; r++) {
        double rest = 0;
        for (int32_t t = 1; t < n; t++) rest += power[r * n + t];
        null[r * n] = power[r * n];
        for (int32_t t = 1; t < n; t++) null[r * n + t] = rest / (n - 1);
    }
}

/* Accumulators over recordings: everything at once, because a recording's sums come at once. */
struct sums_averages {
    struct fkv_error_model model;
    struct fkv_average power, normalised;
    double *columns;              /* [layers * heads * (n + bands)] */
    struct segment_errors errors; /* [layers, heads, n], where documents are few */
    struct fkv_memory memory;     /* of the two above */
};

static void sums_averages_free(struct sums_averages *a) {
    fkv_error_model_free(&a->model);
    fkv_average_free(&a->power);
    fkv_average_free(&a->normalised);
    fkv_memory_free(&a->memory);
}

static int add_sums(struct fkv_measurement *m, struct fkv_spectrum *s,
                    const struct fkv_planned_recording *r, struct sums_averages *a,
                    struct fkv_error *err) {
    int64_t rows = (int64_t)s->layers * s->heads, n = s->n;
    struct fkv_spectra_sums sums = {0};
    if (fkv_capture_read_sums(m->capture, r->recording, s->state, &sums, err)) return FKV_FAILED;
    int status = check_sums(m, s, r, &sums, err);
    if (!status) {
        double segments = (double)r->segments, share = r->share * segments;
        for (int64_t i = 0; i < rows * n; i++) {
            a->columns[i] = sums.power_sum[i] / segments;
            sums.normalised_sum[i] /= segments;
        }
        fkv_band_means(a->columns, rows, s->n, s->bands, s->band_edge, a->columns + rows * n);
        if (a->errors.sum) add_to_errors(&a->errors, r, &sums);
        fkv_average_add(&a->power, r->document, share, r->first, a->columns);
        fkv_average_add(&a->normalised, r->document, share, r->first, sums.normalised_sum);
    }
    fkv_spectra_sums_free(&sums);
    if (m->progress)
        fkv_progress_update(m->progress, m->done += r->segments * s->layers,
                            fkv_state_names[s->state]);
    return status;
}

static void conclude_sums(const struct fkv_measurement *m, struct fkv_spectrum *s,
                          struct sums_averages *a) {
    int64_t rows = (int64_t)s->layers * s->heads, n = s->n;
    memcpy(s->power, a->power.mean, (size_t)(rows * n) * sizeof(double));
    for (int64_t r = 0; r < rows; r++) {
        double *to = s->normalised + r / s->heads * n;
        for (int64_t t = 0; t < n; t++) to[t] += a->normalised.mean[r * n + t] / s->heads;
        s->rounding_floor[r] = NAN; /* never rounded to a file, or unknown to it */
    }
    if (a->power.model) {
#pragma omp parallel
#pragma omp single
        fkv_average_error(&a->power, a->columns);
        memcpy(s->power_se, a->columns, (size_t)(rows * n) * sizeof(double));
        memcpy(s->band_se, a->columns + rows * n, (size_t)(rows * s->bands) * sizeof(double));
    } else {
        s->se_kind = "segments";
        conclude_errors(&a->errors, s->power_se);
        for (int64_t i = 0; i < rows * s->bands; i++)
            s->band_se[i] = NAN; /* sums say nothing of coefficients together */
    }
    if (m->null) {
        s->null_kind = "expected";
        expected_null(s->power, rows, s->n, s->null);
    }
}

int fkv_spectrum_from_sums(struct fkv_measurement *m, struct fkv_spectrum *s,
                           struct fkv_error *err) {
    int64_t rows = (int64_t)s->layers * s->heads, n = s->n;
    struct sums_averages a = {0};
    bool over_documents = s->documents >= FKV_BOOTSTRAP_DOCUMENTS;
    int status = FKV_OK;
    a.columns = fkv_memory_take(&a.memory, (size_t)(rows * (n + s->bands)), sizeof(double));
    if (!over_documents) segment_errors_make(&a.errors, rows * n, &a.memory);
    if (a.memory.failed)
        status = fkv_fail(err, "out of memory for sums of %lld spectra of %lld", (long long)rows,
                          (long long)n);
    if (!status && over_documents) status = fkv_error_model_make(m->plan, &a.model, err);
    if (!status)
        status = fkv_average_begin(&a.power, rows * (n + s->bands), s->documents,
                                   over_documents ? &a.model : NULL, err);
    if (!status) status = fkv_average_begin(&a.normalised, rows * n, s->documents, NULL, err);
    for (int32_t i = 0; !status && i < m->plan->recordings; i++)
        status = add_sums(m, s, &m->plan->recording[i], &a, err);
    if (!status) conclude_sums(m, s, &a);
    sums_averages_free(&a);
    return status;
}
