/* Owns the bounds beside the DCT. Everything is without DC: the mean over tokens is kept by all three, exactly, and counts as one of the L coefficients.
 *
 * KLT. For a stationary sequence the best fixed basis at any L is that of the eigenvectors of its covariance (Karhunen-Loeve), a Toeplitz matrix R_ij = r(|i - j|); for AR(1) with strong correlation
 * the DCT-II comes close to it (Ahmed, Natarajan and Rao 1974), and how close it comes here is the question. r is estimated per (state, layer, head) over channels and segments, each less its mean,
 *
 *     r(tau) = sum_j x_j . x_{j + tau} / n        (divided by n - tau instead, the few noisy far lags made errors 2% larger on a small model)
 *
 * and the basis is P R P's, P removing the constant vector. It may not be fitted to what it is judged on: documents of even number are rebuilt in the basis of the odd ones and the other way round, and where
 * there is one document only, so are the halves of its segments. R commutes with reversal, so its eigenvectors are symmetric or antisymmetric and come from two matrices of half the size
 * (Cantoni and Butler 1976): a quarter of the time.
 *
 * SVD. The other axis: a segment's n x d matrix, less its means, cut to rank r, with r (n + d) numbers for vectors and values together where the DCT has (L - 1) d. This basis is the segment's own, the best
 * there is for it (Eckart and Young 1936), and it is paid for.
 *
 * Energies are pooled as in `error`: segments within a document, then documents. All segments of one head are held in memory; the work inside (lags, eigenvectors, products) runs on all threads. */
#include "analyze/bounds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/error.h"
#include "analyze/matrix.h"
#include "kernels/base/atomic_file.h"

enum { FOLDS = 2 };

int fkv_bounds_check(struct fkv_capture *c, const struct fkv_segment_plan *plan, struct fkv_error *err) {
    if (fkv_capture_info(c)->spectra_only)
        return fkv_fail(err, "%s: --bounds needs stored states, and this capture holds sums (--spectra-only)",
                        fkv_capture_path(c));
    if (plan->segments < 2)
        return fkv_fail(
            err,
            "%s: --bounds needs two segments to fit a basis to one and judge it on the other, found one of %d tokens",
            fkv_capture_path(c), plan->n);
    return FKV_OK;
}

int64_t fkv_bounds_bytes(struct fkv_capture *c, const struct fkv_segment_plan *plan) {
    int64_t n = plan->n, d = fkv_capture_info(c)->head_dim, half = (n + 1) / 2;
    return plan->segments * n * d * (int64_t)sizeof(float) +
           (FOLDS * half * half * 5 + 3 * n * d) * (int64_t)sizeof(double);
}

int32_t fkv_bounds_rank(int32_t retained, int32_t n, int32_t head_dim) {
    int64_t rank = (int64_t)(retained - 1) * head_dim / (n + head_dim);
    int32_t most = n < head_dim ? n : head_dim;
    return rank < most ? (int32_t)rank : most;
}

/* ---- one head ---- */

struct segment {
    int32_t fold;
    double weight; /* in the mean over documents */
};

/* Eigenvectors of one fold's covariance, in coordinates of the symmetric (0) and antisymmetric (1) half. */
struct basis {
    double *vectors[2], *values[2]; /* (half, half), [half]; ascending */
    int32_t *rank[2];               /* [half]: place of each among all n, from the largest value */
};

struct work {
    int32_t n, head_dim, half[2];
    int64_t segments;
    struct segment *segment;    /* [segments] */
    float *x;                   /* [segments, n, head_dim] of one head */
    double *centred;            /* [n, head_dim] */
    double *folded, *projected; /* (half, head_dim) */
    double *lags[FOLDS];        /* [n] */
    struct basis basis[FOLDS];
    double *energy;              /* [n] by rank in the basis of the other fold */
    double *gram, *square;       /* (smaller of n, head_dim)^2; its eigenvalues */
    double total, *kept_by_rank; /* [smaller + 1]: energy in the r largest singular values, pooled */
};

static void work_free(struct work *w) {
    free(w->segment), free(w->x), free(w->centred), free(w->folded), free(w->projected);
    for (int f = 0; f < FOLDS; f++) {
        free(w->lags[f]);
        for (int i = 0; i < 2; i++)
            free(w->basis[f].vectors[i]), free(w->basis[f].values[i]), free(w->basis[f].rank[i]);
    }
    free(w->energy), free(w->gram), free(w->square), free(w->kept_by_rank);
}

static int work_make(struct work *w, const struct fkv_measurement *m, struct fkv_error *err) {
    int32_t n = m->plan->n, d = fkv_capture_info(m->capture)->head_dim, small = n < d ? n : d;
    *w = (struct work){.n = n, .head_dim = d, .half = {(n + 1) / 2, n / 2}, .segments = m->plan->segments};
    size_t size = (size_t)n * (size_t)d, half = (size_t)w->half[0];
    w->segment = malloc((size_t)w->segments * sizeof *w->segment);
    w->x = malloc((size_t)w->segments * size * sizeof(float));
    w->centred = malloc(size * sizeof(double));
    w->folded = malloc(half * (size_t)d * sizeof(double));
    w->projected = malloc(half * (size_t)d * sizeof(double));
    w->energy = malloc((size_t)n * sizeof(double));
    w->gram = malloc((size_t)small * (size_t)small * sizeof(double));
    w->square = malloc((size_t)small * sizeof(double));
    w->kept_by_rank = malloc((size_t)(small + 1) * sizeof(double));
    bool whole = w->segment && w->x && w->centred && w->folded && w->projected && w->energy && w->gram && w->square &&
                 w->kept_by_rank;
    for (int f = 0; f < FOLDS; f++) {
        whole = (w->lags[f] = malloc((size_t)n * sizeof(double))) && whole;
        for (int i = 0; i < 2; i++) {
            struct basis *b = &w->basis[f];
            b->vectors[i] = malloc(half * half * sizeof(double));
            b->values[i] = malloc(half * sizeof(double));
            b->rank[i] = malloc(half * sizeof(int32_t));
            whole = whole && b->vectors[i] && b->values[i] && b->rank[i];
        }
    }
    if (!whole) {
        work_free(w);
        return fkv_fail(err, "out of memory for the bounds of %lld segments of %d tokens", (long long)m->plan->segments,
                        n);
    }
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        const struct fkv_planned_recording *r = &m->plan->recording[i];
        for (int64_t s = r->first; s < r->first + r->segments; s++)
            w->segment[s] = (struct segment){m->plan->documents > 1 ? r->document % 2 : s >= w->segments / 2,
                                             r->share / m->plan->documents};
    }
    return FKV_OK;
}

static int read_head(struct work *w, const struct fkv_measurement *m, enum fkv_state state, int32_t layer, int32_t head,
                     struct fkv_error *err) {
    for (int32_t i = 0; i < m->plan->recordings; i++) {
        const struct fkv_planned_recording *r = &m->plan->recording[i];
        float *to = w->x + (size_t)r->first * (size_t)w->n * (size_t)w->head_dim;
        if (fkv_capture_read_state(m->capture, r->recording, state, layer, head, 1, m->plan->skip_sinks,
                                   r->segments * w->n, to, err))
            return FKV_FAILED;
    }
    return FKV_OK;
}

/* Segment s less its means -> w->centred */
static void centre(struct work *w, int64_t s) {
    const float *x = w->x + (size_t)s * (size_t)w->n * (size_t)w->head_dim;
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
    for (size_t c = 0; c < d; c++) {
        double mean = 0;
        for (size_t j = 0; j < n; j++) mean += x[j * d + c];
        mean /= (double)n;
        for (size_t j = 0; j < n; j++) w->centred[j * d + c] = x[j * d + c] - mean;
    }
}

/* Tokens lie one after the other, so lag tau is one inner product of the segment with itself, tau rows on. */
static void add_lags(const struct work *w, double weight, double *lags) {
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t lag = 0; lag < n; lag++) {
        double sum = 0;
        const double *ahead = w->centred + lag * d;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < (n - lag) * d; i++) sum += w->centred[i] * ahead[i];
        lags[lag] += weight * sum;
    }
}

/* ---- KLT ---- */

/* lags [n] -> the (half, half) matrix on vectors that reversal keeps (i = 0) or negates (1); of odd n the middle token is the last of the former */
static void fold_covariance(const struct work *w, const double *lags, int i, double *matrix) {
    int32_t n = w->n, half = w->half[i];
    double sign = i ? -1 : 1;
    for (int32_t b = 0; b < half; b++)
        for (int32_t a = 0; a < half; a++) {
            bool middle_a = 2 * a + 1 == n, middle_b = 2 * b + 1 == n;
            double near = lags[a > b ? a - b : b - a], far = lags[n - 1 - a - b];
            matrix[(size_t)b * (size_t)half + (size_t)a] = middle_a && middle_b   ? lags[0]
                                                           : middle_a || middle_b ? sqrt(2) * near
                                                                                  : near + sign * far;
        }
}

/* P M P of the symmetric half, P = I - c c' and c the constant vector there */
static void remove_constant(const struct work *w, double *matrix) {
    int32_t half = w->half[0];
    double *c = w->folded, *product = w->projected, square = 0; /* free until segments are projected */
    for (int32_t a = 0; a < half; a++) c[a] = (2 * a + 1 == w->n ? 1 : sqrt(2)) / sqrt(w->n);
    fkv_matrix_product(matrix, false, c, half, 1, half, product);
    for (int32_t a = 0; a < half; a++) square += c[a] * product[a];
    for (int32_t b = 0; b < half; b++)
        for (int32_t a = 0; a < half; a++)
            matrix[(size_t)b * (size_t)half + (size_t)a] +=
                square * c[a] * c[b] - c[a] * product[b] - product[a] * c[b];
}

/* Places of both halves' values, which ascend, among all n in descending order. */
static void rank_values(const struct work *w, struct basis *b) {
    int32_t at[2] = {w->half[0] - 1, w->half[1] - 1};
    for (int32_t place = 0; place < w->n; place++) {
        int i = at[0] < 0 || (at[1] >= 0 && b->values[1][at[1]] > b->values[0][at[0]]);
        b->rank[i][at[i]--] = place;
    }
}

static int make_basis(struct work *w, int fold, struct fkv_error *err) {
    struct basis *b = &w->basis[fold];
    for (int i = 0; i < 2; i++) {
        fold_covariance(w, w->lags[fold], i, b->vectors[i]);
        if (!i) remove_constant(w, b->vectors[i]);
        if (w->half[i] && fkv_matrix_eigen(b->vectors[i], w->half[i], true, b->values[i], err)) return FKV_FAILED;
    }
    rank_values(w, b);
    return FKV_OK;
}

/* Adds the energy of w->centred along each vector of the basis, by rank. */
static void add_projection(struct work *w, const struct basis *b, double weight) {
    size_t d = (size_t)w->head_dim, n = (size_t)w->n;
    for (int i = 0; i < 2; i++) {
        size_t half = (size_t)w->half[i];
        double sign = i ? -1 : 1;
        for (size_t c = 0; c < d; c++)
            for (size_t a = 0; a < half; a++)
                w->folded[c * half + a] =
                    2 * a + 1 == n ? w->centred[a * d + c]
                                   : (w->centred[a * d + c] + sign * w->centred[(n - 1 - a) * d + c]) / sqrt(2);
        if (half) fkv_matrix_product(b->vectors[i], true, w->folded, w->half[i], w->head_dim, w->half[i], w->projected);
        for (size_t a = 0; a < half; a++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++) sum += w->projected[c * half + a] * w->projected[c * half + a];
            w->energy[b->rank[i][a]] += weight * sum;
        }
    }
}

/* ---- SVD ---- */

static int add_ranks(struct work *w, double weight, struct fkv_error *err) {
    int32_t small = w->n < w->head_dim ? w->n : w->head_dim;
    /* centred is [n, d] by rows, so (d, n) to LAPACK */
    fkv_matrix_gram(w->centred, w->head_dim, w->n, small == w->head_dim, w->gram);
    if (fkv_matrix_eigen(w->gram, small, false, w->square, err)) return FKV_FAILED;
    double kept = 0;
    for (int32_t r = 1; r <= small; r++) {
        kept += fmax(w->square[small - r], 0);
        w->kept_by_rank[r] += weight * kept;
    }
    w->total += weight * kept;
    return FKV_OK;
}

/* ---- together ---- */

static int measure_head(struct work *w, struct fkv_error *err) {
    int32_t small = w->n < w->head_dim ? w->n : w->head_dim;
    w->total = 0;
    for (int f = 0; f < FOLDS; f++) memset(w->lags[f], 0, (size_t)w->n * sizeof(double));
    memset(w->energy, 0, (size_t)w->n * sizeof(double));
    memset(w->kept_by_rank, 0, (size_t)(small + 1) * sizeof(double));
    for (int64_t s = 0; s < w->segments; s++) {
        centre(w, s);
        add_lags(w, w->segment[s].weight, w->lags[w->segment[s].fold]);
        if (add_ranks(w, w->segment[s].weight, err)) return FKV_FAILED;
    }
    for (int f = 0; f < FOLDS; f++)
        if (make_basis(w, f, err)) return FKV_FAILED;
    for (int64_t s = 0; s < w->segments; s++) {
        centre(w, s);
        add_projection(w, &w->basis[1 - w->segment[s].fold], w->segment[s].weight);
    }
    return FKV_OK;
}

static double error_of(double lost, double total) { return total > 0 ? sqrt(fmax(lost, 0) / total) : NAN; }

/* klt and svd [gammas] of the head that was measured */
static void conclude_head(const struct work *w, const struct fkv_error_curves *e, double *klt, double *svd) {
    for (int32_t g = 0; g < e->gammas; g++) {
        int32_t retained = fkv_retained(e->gamma[g], w->n);
        double lost = 0;
        for (int32_t i = w->n - 1; i >= retained - 1; i--) lost += w->energy[i];
        klt[g] = error_of(lost, w->total);
        svd[g] = error_of(w->total - w->kept_by_rank[fkv_bounds_rank(retained, w->n, w->head_dim)], w->total);
    }
}

int fkv_bounds_measure(struct fkv_measurement *m, struct fkv_error_curves *e, struct fkv_error *err) {
    struct work w;
    size_t count = (size_t)e->layers * (size_t)e->heads * (size_t)e->gammas;
    char label[48];
    e->klt_error = malloc(count * sizeof(double));
    e->svd_error = malloc(count * sizeof(double));
    e->fitted_to = m->plan->documents > 1 ? "other documents" : "the other half of the segments";
    if (!e->klt_error || !e->svd_error) return fkv_fail(err, "out of memory for bounds");
    if (work_make(&w, m, err)) return FKV_FAILED;
    int status = FKV_OK;
    for (int32_t row = 0; !status && row < e->layers * e->heads; row++) {
        snprintf(label, sizeof label, "%s, layer %d", fkv_state_names[e->state], e->layer_index[row / e->heads]);
        status = read_head(&w, m, e->state, row / e->heads, row % e->heads, err);
        if (!status) status = measure_head(&w, err);
        if (!status)
            conclude_head(&w, e, e->klt_error + (size_t)row * (size_t)e->gammas,
                          e->svd_error + (size_t)row * (size_t)e->gammas);
        if (m->progress) fkv_progress_update(m->progress, ++m->done, label);
    }
    work_free(&w);
    return status;
}

int fkv_bounds_csv(const char *folder, const struct fkv_error_curves *curves, int32_t count, int32_t head_dim,
                   struct fkv_error *err) {
    struct fkv_atomic_file f;
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/error_bounds.csv", folder) >= sizeof path)
        return fkv_fail(err, "%s: the path is too long", folder);
    if (fkv_atomic_open(&f, path, err)) return FKV_FAILED;
    fputs("state,layer,head,gamma,retained,dct,klt,svd,svd_rank\n", f.stream);
    for (int32_t i = 0; i < count; i++) {
        const struct fkv_error_curves *e = &curves[i];
        for (int32_t at = 0; at < e->layers * e->heads * e->gammas; at++) {
            int32_t g = at % e->gammas, head = at / e->gammas % e->heads, layer = at / e->gammas / e->heads;
            int32_t retained = fkv_retained(e->gamma[g], e->n);
            fprintf(f.stream, "%s,%d,%d,%.9g,%d", fkv_state_names[e->state], e->layer_index[layer], e->head_index[head],
                    e->gamma[g], retained);
            const double values[] = {e->relative_error[1][at], e->klt_error[at], e->svd_error[at]};
            for (int k = 0; k < 3; k++) {
                fputc(',', f.stream);
                if (isfinite(values[k])) fprintf(f.stream, "%.9g", values[k]);
            }
            fprintf(f.stream, ",%d\n", fkv_bounds_rank(retained, e->n, head_dim));
        }
    }
    return fkv_atomic_commit(&f, err);
}
