/* The operators that have a name (operators.h). g = sqrt(L/n), FreqKV's gain, by which a constant
 * stays that constant; "stretch j" is [j n/L, (j+1) n/L) of the old slots.
 *
 *   dct          FreqKV's: g IDCT_L [I_L 0] DCT_n.
 *   dct-band:a   Coefficients a .. a+L-1 instead of 0 .. L-1, taken for the L of the short inverse:
 *                g IDCT_L [0 I_L 0] DCT_n. A constant becomes 0 where a > 0.
 *   meanpool     Slot j is the mean over stretch j; a slot that two stretches share counts to each
 *                by its overlap. A constant stays.
 *   decimate     Slot j is the old slot in the middle of stretch j, floor((j + 1/2) n / L). A
 *                constant stays.
 *   random:SEED  g times orthonormal rows: a random subspace that holds the constant, turned so
 *                that a constant stays. Rows of normal numbers by Box and Muller from splitmix64
 *                are made orthogonal to the constant and to each other (Gram and Schmidt), and the
 *                L rows, the constant's first, are reflected (Householder) so that the constant has
 *                an equal share in each result.
 *   haar         The L coarsest functions of the Haar basis of n, back to L slots. With n no power
 *                of two a stretch of m slots splits into its first ceil(m/2) and the rest, level by
 *                level; of the level that is kept in part, the latest stretches are split. Those L
 *                functions span what is constant on each of L stretches, so slot j is the mean over
 *                the j-th of them. A constant stays. With n and L powers of two: meanpool.
 *
 * A gain is no option: what keeps constants is part of each definition. */
#include "engine/cache/operators.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/parse.h"
#include "kernels/statistics/random.h"

static const double pi = 3.14159265358979323846;

/* ---- names ---- */

static const struct {
    const char *name;
    enum fkv_operator_kind kind;
    bool parameter; /* may follow, after ":" */
    bool required;
} names[] = {
    {"dct", FKV_OPERATOR_DCT_BAND, false, false},
    {"dct-band", FKV_OPERATOR_DCT_BAND, true, true},
    {"meanpool", FKV_OPERATOR_MEANPOOL, false, false},
    {"decimate", FKV_OPERATOR_DECIMATE, false, false},
    {"random", FKV_OPERATOR_RANDOM, true, false},
    {"haar", FKV_OPERATOR_HAAR, false, false},
};

int fkv_operator_parse(const char *text, struct fkv_operator *out, struct fkv_error *err) {
    const size_t length = strcspn(text, ":");
    const char *parameter = text[length] ? text + length + 1 : NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i].name) != length || strncmp(names[i].name, text, length)) continue;
        if (parameter ? !names[i].parameter : names[i].required) break;
        *out = (struct fkv_operator){.kind = names[i].kind};
        if (!parameter) return FKV_OK;
        return fkv_parse_int(parameter, "--operator", 0, INT32_MAX, &out->parameter, err);
    }
    return fkv_fail_option(err,
                           "--operator: expected dct, dct-band:A, meanpool, decimate, "
                           "random[:SEED], haar, klt:CAPTURE or a file OP.h5, found \"%s\"",
                           text);
}

/* ---- dct-band ---- */

/* sum_(s=0)^(count-1) cos(s theta + phase), theta = pi numerator / (2 n L), no multiple of 2 pi but
 * 0, which a whole numerator shows exactly. */
static double cosines(int64_t numerator, int32_t n, int32_t count, double phase) {
    const double theta = pi * (double)numerator / (2.0 * n * count);
    if (!numerator) return count * cos(phase);
    return cos(phase + (count - 1) * theta / 2) * sin(count * theta / 2) / sin(theta / 2);
}

/* With alpha = pi (j + 1/2) / L and beta = pi (i + 1/2) / n, and w_s the product of both bases'
 * factors at s, 1 but at s = 0:
 *
 *   m[j][i] = g 2/sqrt(n L) sum_s w_s cos(s alpha) cos((a+s) beta)
 *   cos(s alpha) cos((a+s) beta) = (cos(s (beta+alpha) + a beta) + cos(s (beta-alpha) + a beta))/2
 */
static void fill_band(int32_t n, int32_t count, int64_t first, float *matrix) {
    const double gain = 2.0 / n, /* g 2/sqrt(n L) */
        at_zero = first ? sqrt(0.5) : 0.5;
    for (int32_t j = 0; j < count; j++)
        for (int32_t i = 0; i < n; i++) {
            const int64_t alpha = (2 * (int64_t)j + 1) * n, beta = (2 * (int64_t)i + 1) * count;
            const double phase = pi * (double)first * (i + 0.5) / n;
            const double sum =
                (cosines(beta + alpha, n, count, phase) + cosines(beta - alpha, n, count, phase)) /
                    2 +
                (at_zero - 1) * cos(phase);
            matrix[(size_t)j * (size_t)n + (size_t)i] = (float)(gain * sum);
        }
}

/* ---- means ---- */

static void fill_meanpool(int32_t n, int32_t count, float *matrix) {
    for (int32_t j = 0; j < count; j++) { /* in units of 1/L of a slot */
        const int64_t from = (int64_t)j * n, until = from + n;
        for (int32_t i = 0; i < n; i++) {
            const int64_t low = (int64_t)i * count, high = low + count,
                          overlap = (high < until ? high : until) - (low > from ? low : from);
            matrix[(size_t)j * (size_t)n + (size_t)i] = overlap > 0 ? (float)overlap / (float)n : 0;
        }
    }
}

static void fill_decimate(int32_t n, int32_t count, float *matrix) {
    memset(matrix, 0, (size_t)n * (size_t)count * sizeof *matrix);
    for (int64_t j = 0; j < count; j++) matrix[j * n + (2 * j + 1) * n / (2 * (int64_t)count)] = 1;
}

/* edges [count + 1] of the stretches; whole levels first, then the latest of the next one. */
static int split(int32_t n, int32_t count, int32_t *edges, struct fkv_error *err) {
    int32_t *finer = malloc(((size_t)count + 1) * sizeof *finer), have = 1;
    if (!finer) return fkv_fail(err, "out of memory for an operator of %d slots", n);
    edges[0] = 0, edges[1] = n;
    while (have < count) {
        int32_t possible = 0, at = 0;
        for (int32_t k = 0; k < have; k++) possible += edges[k + 1] - edges[k] > 1;
        int32_t skipped = possible - (count - have); /* that stay whole, the earliest */
        for (int32_t k = 0; k < have; k++) {
            const int32_t size = edges[k + 1] - edges[k];
            finer[at++] = edges[k];
            if (size > 1 && skipped-- <= 0) finer[at++] = edges[k] + (size + 1) / 2;
        }
        finer[at] = n;
        memcpy(edges, finer, ((size_t)at + 1) * sizeof *edges);
        have = at;
    }
    free(finer);
    return FKV_OK;
}

static int fill_haar(int32_t n, int32_t count, float *matrix, struct fkv_error *err) {
    int32_t *edges = malloc(((size_t)count + 1) * sizeof *edges);
    if (!edges) return fkv_fail(err, "out of memory for an operator of %d slots", n);
    int status = split(n, count, edges, err);
    memset(matrix, 0, (size_t)n * (size_t)count * sizeof *matrix);
    for (int32_t j = 0; j < count && !status; j++)
        for (int32_t i = edges[j]; i < edges[j + 1]; i++)
            matrix[(size_t)j * (size_t)n + (size_t)i] = 1 / (float)(edges[j + 1] - edges[j]);
    free(edges);
    return status;
}

/* ---- random ---- */

static double dot(const double *a, const double *b, int32_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Takes the rows before it out of row k, twice, since once leaves what rounding left; then scales
 * it to 1. */
static void make_orthonormal(double *rows, int32_t k, int32_t n) {
    double *row = rows + (size_t)k * (size_t)n;
    for (int pass = 0; pass < 2; pass++)
        for (int32_t j = 0; j < k; j++) {
            const double *other = rows + (size_t)j * (size_t)n, share = dot(row, other, n);
            for (int32_t i = 0; i < n; i++) row[i] -= share * other[i];
        }
    const double length = sqrt(dot(row, row, n));
    for (int32_t i = 0; i < n; i++) row[i] /= length;
}

static int fill_random(int32_t n, int32_t count, int64_t seed, float *matrix,
                       struct fkv_error *err) {
    struct fkv_random random = {(uint64_t)seed};
    double *rows = malloc((size_t)n * (size_t)count * sizeof *rows);
    if (!rows) return fkv_fail(err, "out of memory for an operator of %d slots", n);
    for (int32_t k = 0; k < count; k++) {
        for (int32_t i = 0; i < n; i++) {
            const double u = k ? 1 - fkv_random_uniform(&random) : 0,
                         v = k ? fkv_random_uniform(&random) : 0;
            rows[(size_t)k * (size_t)n + (size_t)i] = k ? sqrt(-2 * log(u)) * cos(2 * pi * v) : 1;
        }
        make_orthonormal(rows, k, n);
    }
    /* I - 2 h h' / |h|^2 with h = e_0 - (1, ..., 1)/sqrt(L) takes e_0 to that. */
    const double each = 1 / sqrt(count), gain = sqrt((double)count / n),
                 half_square = 1 - each; /* |h|^2 / 2 */
    for (int32_t i = 0; i < n; i++) {
        double along = rows[i];
        for (int32_t k = 0; k < count; k++) along -= each * rows[(size_t)k * (size_t)n + (size_t)i];
        for (int32_t k = 0; k < count; k++) {
            const size_t at = (size_t)k * (size_t)n + (size_t)i;
            const double h = (k ? 0 : 1) - each;
            matrix[at] = (float)(gain * (rows[at] - (count > 1 ? h * along / half_square : 0)));
        }
    }
    free(rows);
    return FKV_OK;
}

int fkv_operator_fill(const struct fkv_operator *o, int32_t n, int32_t retained, float *matrix,
                      struct fkv_error *err) {
    switch (o->kind) {
    case FKV_OPERATOR_DCT_BAND: fill_band(n, retained, o->parameter, matrix); return FKV_OK;
    case FKV_OPERATOR_MEANPOOL: fill_meanpool(n, retained, matrix); return FKV_OK;
    case FKV_OPERATOR_DECIMATE: fill_decimate(n, retained, matrix); return FKV_OK;
    case FKV_OPERATOR_RANDOM: return fill_random(n, retained, o->parameter, matrix, err);
    case FKV_OPERATOR_HAAR: return fill_haar(n, retained, matrix, err);
    }
    return fkv_fail(err, "an operator of unknown kind");
}
