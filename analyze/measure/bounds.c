/* Owns the bounds beside the DCT. Everything is without DC: the mean over tokens is kept by all
 * three, exactly, and counts as one of the L coefficients.
 *
 * KLT. For a stationary sequence the best fixed basis at any L is that of the eigenvectors of its
 * covariance (Karhunen-Loeve), a Toeplitz matrix R_ij = r(|i - j|); for AR(1) with strong
 * correlation the DCT-II comes close to it (Ahmed, Natarajan and Rao 1974), and how close it comes
 * here is the question. r is estimated per (state, layer, head) over channels and segments, each
 * less its mean,
 *
 *     r(tau) = sum_j x_j . x_{j + tau} / n        (divided by n - tau instead, the few noisy far
 *                                                 lags made errors 2% larger on a small model)
 *
 * and the basis is P R P's, P removing the constant vector. It may not be fitted to what it is
 * judged on: documents of even number are rebuilt in the basis of the odd ones and the other way
 * round, and where there is one document only, so are the halves of its segments. R commutes with
 * reversal, so its eigenvectors are symmetric or antisymmetric and come from two matrices of half
 * the size (Cantoni and Butler 1976): a quarter of the time.
 *
 * SVD. The other axis: a segment's n x d matrix, less its means, cut to rank r, with r (n + d)
 * numbers for vectors and values together where the DCT has (L - 1) d. This basis is the segment's
 * own, the best there is for it (Eckart and Young 1936), and it is paid for.
 *
 * Energies are pooled as in `error`: segments within a document, then documents. All segments of
 * a layer's heads are read at once and held in memory, since heads share chunks of a file; of fewer
 * heads where those of all would take more than MOST_BYTES. Threads take a segment each, and a
 * fold's half each where eigenvectors are made, with BLAS on one thread inside: a product on
 * several threads waits for all of them once per segment, and its last bits may depend on their
 * number. What segments give is added up in their order, AT_ONCE at a time, so no result depends on
 * threads. */
#include "analyze/measure/bounds.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "analyze/measure/error.h"
#include "kernels/matrix.h"
#include "kernels/blas.h"
#include "capture/store/capture_reader.h"

enum { FOLDS = 2, AT_ONCE = 64, MOST_BYTES = 256 << 20 };

const struct fkv_basis fkv_bases[FKV_BASES] = {
    {FKV_RELATIVE_ERROR, "dct", "DCT", "DCT, the L lowest"},
    {FKV_KLT_ERROR, "klt", "KLT", "KLT of other data, the L largest"},
    {FKV_SVD_ERROR, "svd", "SVD", "SVD along channels, equal bytes"}};

int fkv_bounds_check(struct fkv_capture *c, const struct fkv_segment_plan *plan,
                     struct fkv_error *err) {
    if (fkv_capture_info(c)->spectra_only)
        return fkv_fail(
            err, "%s: --bounds needs stored states, and this capture holds sums (--spectra-only)",
            fkv_capture_path(c));
    if (plan->segments < 2)
        return fkv_fail(err,
                        "%s: --bounds needs two segments to fit a basis to one and judge it on the "
                        "other, found one of %d tokens",
                        fkv_capture_path(c), plan->n);
    return FKV_OK;
}

static int64_t head_bytes(const struct fkv_segment_plan *plan, int32_t head_dim) {
    return plan->segments * plan->n * head_dim * (int64_t)sizeof(float);
}

/* Heads that are in memory together. */
static int32_t group_of(const struct fkv_segment_plan *plan, int32_t head_dim, int32_t heads) {
    int64_t fit = MOST_BYTES / head_bytes(plan, head_dim);
    return fit < 1 ? 1 : fit < heads ? (int32_t)fit : heads;
}

int64_t fkv_bounds_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan) {
    int64_t n = plan->n, d = fkv_capture_info(c)->head_dim, half = (n + 1) / 2, states = 0;
    for (int i = 0; i < FKV_STATES; i++) {
        int64_t heads = fkv_capture_heads(c, (enum fkv_state)i);
        int64_t bytes = head_bytes(plan, (int32_t)d) * group_of(plan, (int32_t)d, (int32_t)heads);
        if (fkv_capture_info(c)->states >> i & 1 && bytes > states) states = bytes;
    }
    return states +
           (FOLDS * half * half * 5 + 3 * n * d * omp_get_max_threads() + AT_ONCE * (n + d)) *
               (int64_t)sizeof(double);
}

int32_t fkv_bounds_rank(int32_t retained, int32_t n, int32_t head_dim) {
    int64_t rank = (int64_t)(retained - 1) * head_dim / (n + head_dim);
    int32_t most = n < head_dim ? n : head_dim;
    return rank < most ? (int32_t)rank : most;
}

/* ---- one head ---- */

struct segment {
    int32_t fold;
    double weight;           /* in the mean over documents */
    int64_t first, together; /* of its recording: its first segment; how many it has */
};

/* Eigenvectors of one fold's covariance, in coordinates of the symmetric (0) and antisymmetric (1)
 * half. */
struct basis {
    double *vectors[2], *values[2]; /* (half, half), [half]; ascending */
    int32_t *rank[2];               /* [half]: index of each among all n, from the largest value */
};

/* What a thread needs for itself; `centred` begins on a cache line (memory.h), so that vector loops
 * cut it alike in every thread. */
struct scratch {
    double *centred;            /* [n, head_dim] */
    double *folded, *projected; /* (half, head_dim) */
    double *gram, *square;      /* (smaller of n, head_dim)^2; its eigenvalues */
};

struct bounds {
    int32_t n, head_dim, half[2], smaller; /* smaller of n, head_dim */
    int threads;
    int64_t segments;
    struct segment *segment; /* [segments] */
    int32_t group;           /* heads in memory, at most */
    int32_t read, head;      /* heads in memory; the one being measured, among them */
    float *x; /* of each recording after the other [read, its segments, n, head_dim] */
    struct scratch *scratch; /* [threads] */
    double *found;           /* [AT_ONCE, n]: lags, then energies, of the segments in hand */
    double *kept; /* [AT_ONCE, smaller + 1]: energy of each in its r largest singular values */
    double *lags[FOLDS]; /* [n] */
    struct basis basis[FOLDS];
    double *energy;              /* [n] by rank in the basis of the other fold */
    double total, *kept_by_rank; /* [smaller + 1]: `kept`, pooled */
    struct fkv_memory memory;
};

static double *take(struct bounds *w, size_t count) {
    return fkv_memory_take(&w->memory, count, sizeof(double));
}

static int bounds_make(struct bounds *w, const struct fkv_measurement *m, int32_t heads,
                       struct fkv_error *err) {
    int32_t n = m->plan->n, d = fkv_capture_info(m->capture)->head_dim;
    *w = (struct bounds){.n = n,
                         .head_dim = d,
                         .half = {(n + 1) / 2, n / 2},
                         .smaller = n < d ? n : d,
                         .group = group_of(m->plan, d, heads),
                         .threads = omp_get_max_threads(),
                         .segments = m->plan->segments};
    const size_t half = (size_t)w->half[0], small = (size_t)w->smaller, width = (size_t)d;
    w->segment = fkv_memory_take(&w->memory, (size_t)w->segments, sizeof *w->segment);
    w->x = fkv_memory_take(&w->memory, (size_t)head_bytes(m->plan, d), (size_t)w->group);
    w->scratch = fkv_memory_take(&w->memory, (size_t)w->threads, sizeof *w->scratch);
    w->found = take(w, AT_ONCE * (size_t)n);
    w->kept = take(w, AT_ONCE * (small + 1));
    w->energy = take(w, (size_t)n);
    w->kept_by_rank = take(w, small + 1);
    for (int i = 0; w->scratch && i < w->threads; i++)
        w->scratch[i] = (struct scratch){.centred = take(w, (size_t)n * width),
                                         .folded = take(w, half * width),
                                         .projected = take(w, half * width),
                                         .gram = take(w, small * small),
                                         .square = take(w, small)};
    for (int f = 0; f < FOLDS; f++) {
        w->lags[f] = take(w, (size_t)n);
        for (int i = 0; i < 2; i++) {
            w->basis[f].vectors[i] = take(w, half * half);
            w->basis[f].values[i] = take(w, half);
            w->basis[f].rank[i] = fkv_memory_take(&w->memory, half, sizeof(int32_t));
        }
    }
    if (w->memory.failed) {
        fkv_memory_free(&w->memory);
        return fkv_fail(err, "out of memory for the bounds of %lld segments of %d tokens",
                        (long long)m->plan->segments, n);
    }
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        const struct fkv_planned_recording *r = &m->plan->recording[i];
        for (int64_t s = r->first; s < r->first + r->segments; s++)
            w->segment[s] =
                (struct segment){m->plan->documents > 1 ? r->document % 2 : s >= w->segments / 2,
                                 r->share / m->plan->documents, r->first, r->segments};
    }
    return FKV_OK;
}

/* Heads [head, head + group) of a layer. */
static int read_heads(struct bounds *w, const struct fkv_measurement *m, enum fkv_state state,
                      int32_t layer, int32_t head, struct fkv_error *err) {
    int32_t left = fkv_capture_heads(m->capture, state) - head;
    w->read = left < w->group ? left : w->group;
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        const struct fkv_planned_recording *r = &m->plan->recording[i];
        float *to = w->x + (size_t)(r->first * w->read) * (size_t)w->n * (size_t)w->head_dim;
        if (fkv_capture_read_state(m->capture, r->recording, state, layer, head, w->read,
                                   m->plan->skip_sinks, r->segments * w->n, to, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* Segment s less its means -> centred [n, head_dim] */
static void centre(const struct bounds *w, int64_t s, double *centred) {
    const struct segment *segment = &w->segment[s];
    const int64_t number =
        segment->first * w->read + w->head * segment->together + s - segment->first;
    const float *x = w->x + (size_t)number * (size_t)w->n * (size_t)w->head_dim;
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
    for (size_t c = 0; c < d; c++) {
        double mean = 0;
        for (size_t j = 0; j < n; j++) mean += x[j * d + c];
        mean /= (double)n;
        for (size_t j = 0; j < n; j++) centred[j * d + c] = x[j * d + c] - mean;
    }
}

/* centred [n, head_dim] -> lags [n]. Tokens lie one after the other, so lag tau is one inner
 * product of the segment with itself, tau rows on. */
static void find_lags(const struct bounds *w, const double *centred, double *lags) {
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
    for (size_t lag = 0; lag < n; lag++) {
        double sum = 0;
        const double *ahead = centred + lag * d;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < (n - lag) * d; i++) sum += centred[i] * ahead[i];
        lags[lag] = sum;
    }
}

/* ---- KLT ---- */

/* lags [n] -> the (half, half) matrix on vectors that reversal keeps (i = 0) or negates (1); of odd
 * n the middle token is the last of the former */
static void fold_covariance(const struct bounds *w, const double *lags, int i, double *matrix) {
    int32_t n = w->n, half = w->half[i];
    double sign = i ? -1 : 1;
    for (int32_t b = 0; b < half; b++)
        for (int32_t a = 0; a < half; a++) {
            bool middle_a = 2 * a + 1 == n, middle_b = 2 * b + 1 == n;
            double near = lags[a > b ? a - b : b - a], far = lags[n - 1 - a - b];
            matrix[(size_t)b * (size_t)half + (size_t)a] = middle_a && middle_b ? lags[0]
                                                           : middle_a || middle_b
                                                               ? sqrt(2) * near
                                                               : near + sign * far;
        }
}

/* P M P of the symmetric half, P = I - c c' and c the constant vector there */
static void remove_constant(const struct bounds *w, const struct scratch *scratch, double *matrix) {
    int32_t half = w->half[0];
    double *c = scratch->folded, *product = scratch->projected,
           square = 0; /* free until segments are projected */
    for (int32_t a = 0; a < half; a++) c[a] = (2 * a + 1 == w->n ? 1 : sqrt(2)) / sqrt(w->n);
    fkv_matrix_product(matrix, false, c, half, 1, half, product);
    for (int32_t a = 0; a < half; a++) square += c[a] * product[a];
    for (int32_t b = 0; b < half; b++)
        for (int32_t a = 0; a < half; a++)
            matrix[(size_t)b * (size_t)half + (size_t)a] +=
                square * c[a] * c[b] - c[a] * product[b] - product[a] * c[b];
}

/* Places of both halves' values, which ascend, among all n in descending order. */
static void rank_values(const struct bounds *w, struct basis *b) {
    int32_t at[2] = {w->half[0] - 1, w->half[1] - 1};
    for (int32_t place = 0; place < w->n; place++) {
        int i = at[0] < 0 || (at[1] >= 0 && b->values[1][at[1]] > b->values[0][at[0]]);
        b->rank[i][at[i]--] = place;
    }
}

/* One half of a fold's basis. */
static int make_half(const struct bounds *w, const struct scratch *scratch, int fold, int i,
                     struct fkv_error *err) {
    const struct basis *b = &w->basis[fold];
    fold_covariance(w, w->lags[fold], i, b->vectors[i]);
    if (!i) remove_constant(w, scratch, b->vectors[i]);
    return w->half[i] ? fkv_matrix_eigen(b->vectors[i], w->half[i], true, b->values[i], err)
                      : FKV_OK;
}

/* The energy of scratch->centred along each vector of the basis, by rank -> energy [n] */
static void project(const struct bounds *w, const struct scratch *scratch, const struct basis *b,
                    double *energy) {
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
    const double *centred = scratch->centred;
    for (int i = 0; i < 2; i++) {
        size_t half = (size_t)w->half[i];
        double sign = i ? -1 : 1;
        for (size_t c = 0; c < d; c++)
            for (size_t a = 0; a < half; a++)
                scratch->folded[c * half + a] =
                    2 * a + 1 == n
                        ? centred[a * d + c]
                        : (centred[a * d + c] + sign * centred[(n - 1 - a) * d + c]) / sqrt(2);
        if (half)
            fkv_matrix_product(b->vectors[i], true, scratch->folded, w->half[i], w->head_dim,
                               w->half[i], scratch->projected);
        for (size_t a = 0; a < half; a++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++)
                sum += scratch->projected[c * half + a] * scratch->projected[c * half + a];
            energy[b->rank[i][a]] = sum;
        }
    }
}

/* ---- SVD ---- */

/* The energy of scratch->centred in its r largest singular values -> kept [smaller + 1] */
static int find_ranks(const struct bounds *w, const struct scratch *scratch, double *kept,
                      struct fkv_error *err) {
    int32_t small = w->smaller;
    /* centred is [n, d] by rows, so (d, n) to LAPACK */
    fkv_matrix_gram(scratch->centred, w->head_dim, w->n, small == w->head_dim, scratch->gram);
    if (fkv_matrix_eigen(scratch->gram, small, false, scratch->square, err)) return FKV_FAILED;
    kept[0] = 0;
    for (int32_t r = 1; r <= small; r++)
        kept[r] = kept[r - 1] + fmax(scratch->square[small - r], 0);
    return FKV_OK;
}

/* ---- together ---- */

enum pass { FIT, JUDGE };

static int measure_segment(const struct bounds *w, const struct scratch *scratch, enum pass pass,
                           int64_t s, int64_t at, struct fkv_error *err) {
    double *found = w->found + (size_t)at * (size_t)w->n;
    centre(w, s, scratch->centred);
    if (pass == JUDGE) {
        project(w, scratch, &w->basis[1 - w->segment[s].fold], found);
        return FKV_OK;
    }
    find_lags(w, scratch->centred, found);
    return find_ranks(w, scratch, w->kept + (size_t)at * ((size_t)w->smaller + 1), err);
}

static void add_segment(struct bounds *w, enum pass pass, int64_t s, int64_t at) {
    const struct segment *segment = &w->segment[s];
    const double *found = w->found + (size_t)at * (size_t)w->n;
    const double *kept = w->kept + (size_t)at * ((size_t)w->smaller + 1);
    double *sum = pass == FIT ? w->lags[segment->fold] : w->energy;
    for (int32_t i = 0; i < w->n; i++) sum[i] += segment->weight * found[i];
    if (pass == JUDGE) return;
    for (int32_t r = 0; r <= w->smaller; r++) w->kept_by_rank[r] += segment->weight * kept[r];
    w->total += segment->weight * kept[w->smaller];
}

/* All segments, side by side, added up in their order. */
static int pass_over(struct bounds *w, enum pass pass, struct fkv_error *err) {
    int status = FKV_OK;
    for (int64_t first = 0; !status && first < w->segments; first += AT_ONCE) {
        int64_t count = w->segments - first < AT_ONCE ? w->segments - first : AT_ONCE;
#pragma omp parallel for schedule(dynamic) num_threads(w->threads)
        for (int64_t at = 0; at < count; at++) {
            struct fkv_error own;
            if (!measure_segment(w, &w->scratch[omp_get_thread_num()], pass, first + at, at, &own))
                continue;
#pragma omp critical
            {
                status = FKV_FAILED;
                *err = own;
            }
        }
        for (int64_t at = 0; !status && at < count; at++) add_segment(w, pass, first + at, at);
    }
    return status;
}

static int make_bases(struct bounds *w, struct fkv_error *err) {
    int status = FKV_OK;
#pragma omp parallel for schedule(dynamic) num_threads(w->threads)
    for (int unit = 0; unit < 2 * FOLDS; unit++) {
        struct fkv_error own;
        if (!make_half(w, &w->scratch[omp_get_thread_num()], unit / 2, unit % 2, &own)) continue;
#pragma omp critical
        {
            status = FKV_FAILED;
            *err = own;
        }
    }
    for (int f = 0; !status && f < FOLDS; f++) rank_values(w, &w->basis[f]);
    return status;
}

static int measure_head(struct bounds *w, struct fkv_error *err) {
    w->total = 0;
    for (int f = 0; f < FOLDS; f++) memset(w->lags[f], 0, (size_t)w->n * sizeof(double));
    memset(w->energy, 0, (size_t)w->n * sizeof(double));
    memset(w->kept_by_rank, 0, ((size_t)w->smaller + 1) * sizeof(double));
    return pass_over(w, FIT, err) || make_bases(w, err) || pass_over(w, JUDGE, err) ? FKV_FAILED
                                                                                    : FKV_OK;
}

static double error_of(double lost, double total) {
    return total > 0 ? sqrt(fmax(lost, 0) / total) : NAN;
}

/* klt and svd [gammas] of the head that was measured */
static void conclude_head(const struct bounds *w, const struct fkv_error_curves *e, double *klt,
                          double *svd) {
    for (int32_t g = 0; g < e->gammas; g++) {
        int32_t retained = fkv_retained(e->gamma[g], w->n);
        double lost = 0;
        for (int32_t i = w->n - 1; i >= retained - 1; i--) lost += w->energy[i];
        klt[g] = error_of(lost, w->total);
        svd[g] = error_of(w->total - w->kept_by_rank[fkv_bounds_rank(retained, w->n, w->head_dim)],
                          w->total);
    }
}

int fkv_bounds_measure(struct fkv_measurement *m, struct fkv_error_curves *e,
                       struct fkv_error *err) {
    struct bounds w;
    size_t count = (size_t)e->layers * (size_t)e->heads * (size_t)e->gammas;
    char label[48];
    double *klt = fkv_memory_take(&e->memory, count, sizeof *klt),
           *svd = fkv_memory_take(&e->memory, count, sizeof *svd);
    e->curve[2 * FKV_KLT_ERROR + 1] = klt, e->curve[2 * FKV_SVD_ERROR + 1] = svd;
    e->fitted_to = m->plan->documents > 1 ? "other documents" : "the other half of the segments";
    if (!klt || !svd) return fkv_fail(err, "out of memory for bounds");
    if (bounds_make(&w, m, e->heads, err)) return FKV_FAILED;
    int status = fkv_blas_open(w.threads, err);
    const bool opened = !status;
    for (int32_t row = 0; !status && row < e->layers * e->heads; row++) {
        snprintf(label, sizeof label, "%s, layer %d", fkv_state_names[e->state],
                 e->layer_index[row / e->heads]);
        w.head = row % e->heads % w.group;
        if (!w.head) status = read_heads(&w, m, e->state, row / e->heads, row % e->heads, err);
        if (!status) status = measure_head(&w, err);
        if (!status)
            conclude_head(&w, e, klt + (size_t)row * (size_t)e->gammas,
                          svd + (size_t)row * (size_t)e->gammas);
        if (m->progress) fkv_progress_update(m->progress, ++m->done, label);
    }
    if (opened) fkv_blas_close(w.threads);
    fkv_memory_free(&w.memory);
    return status;
}
