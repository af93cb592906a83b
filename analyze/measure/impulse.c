/* Owns the life of a chunk under repeated compression.
 *
 * One compression is the matrix A (L, n) = sqrt(L/n) IDCT_L [I_L 0] DCT_n. The C = n - L tokens
 * that came last before it stand in slots L .. n-1, so what the cache then holds of them is M_1 =
 * A[:, L:n]; the next compression finds that in slots 0 .. L-1 and new tokens behind, so M_{k+1} =
 * A[:, :L] M_k. Slots of the cache count from the first after the sinks.
 *
 * A column of M_k is a token: what every slot holds of it. Rather than all C, 64 tokens are
 * followed, beside the middle one and the sum of all (they cost a column each in the same
 * transforms). How a token falls between slots decides the shape of its response, and 64 average
 * that out, if they fall differently: evenly spaced ones come to fall alike after a few rounds, so
 * they stand at multiples of the golden ratio (Weyl).
 *
 * The rank needs all of M_k, but only its singular values, and those above 1e-5 of the largest. So
 * W_k with W_k W_k' = M_k M_k' (numerically) is carried in its place: the eigenvectors of the
 * smaller Gram matrix turn W into orthogonal columns, ascending in length, and the short ones are
 * dropped. Columns fall off as slots do, by L/n per round, and all rounds together cost little more
 * than the first. An SVD of M_k each round took ten times as long. Squaring loses nothing here: 1%
 * is 1e-4 in the Gram matrix. */
#include "analyze/measure/impulse.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/measure/error.h"
#include "kernels/matrix.h"
#include "kernels/blas.h"
#include "kernels/dct.h"

enum { TOKENS = 64, FOLLOWED = TOKENS + 2, BLOCK = 32 };

static const double golden = 0.6180339887498949;
static const double
    kept_length = 1e-5,
    counted = 0.01; /* of the largest singular value; transforms in float32 add about 1e-6 */

/* ---- the schedule ---- */

int fkv_schedule_make(int32_t window, int32_t sinks, double gamma, struct fkv_schedule *s,
                      struct fkv_error *err) {
    int32_t n = window - sinks;
    if (n < 3)
        return fkv_fail_option(
            err, "--window: expected %d sinks and at least three slots more, found %d", sinks,
            window);
    int32_t retained = fkv_retained(gamma, n);
    if (retained < 2 || retained >= n)
        return fkv_fail_option(err, "--gamma %g: expected 2 to %d retained slots of %d, found %d",
                               gamma, n - 1, n, retained);
    double rounds = log(retained) / log((double)n / retained);
    *s = (struct fkv_schedule){window,       sinks, n,      retained,
                               n - retained, gamma, rounds, (n - retained) * rounds};
    return FKV_OK;
}

void fkv_impulse_free(struct fkv_impulse *x) {
    fkv_memory_free(&x->memory);
    *x = (struct fkv_impulse){0};
}

/* ---- the operator ---- */

struct operator{
    int32_t n, retained;
    struct fkv_dct *forward, *inverse;
};

/* Column c of the first round's input: a unit at `slot`, or ones in all of the chunk's slots where
 * slot is ALL. */
enum { ALL = -1 };

static void fill_start(const struct operator* a, int32_t slot, float *x, size_t stride) {
    int32_t first = slot == ALL ? a->retained : slot, end = slot == ALL ? a->n : slot + 1;
    for (int32_t i = first; i < end; i++) x[(size_t)i * stride] = 1;
}

/* One thread's block: columns [first, first + width) through x [n, width] and y [L, width] */
static void apply_block(const struct operator* a, const int32_t *start, double *columns,
                        int32_t first, int32_t width, float *x, float *y, float *scratch) {
    size_t stride = (size_t)width, retained = (size_t)a->retained;
    double gain = sqrt((double)a->retained / a->n);
    memset(x, 0, (size_t)a->n * stride * sizeof *x);
    for (int32_t c = 0; c < width; c++) {
        const double *from = columns + (size_t)(first + c) * retained;
        if (start) fill_start(a, start[first + c], x + c, stride);
        for (size_t i = 0; !start && i < retained; i++) x[i * stride + (size_t)c] = (float)from[i];
    }
    fkv_dct_forward(a->forward, x, stride, width, x, stride, scratch);
    fkv_dct_inverse(a->inverse, x, stride, width, y, stride, scratch);
    for (int32_t c = 0; c < width; c++)
        for (size_t i = 0; i < retained; i++)
            columns[(size_t)(first + c) * retained + i] = gain * y[i * stride + (size_t)c];
}

/* columns (L, count) <- what a compression makes of them, standing in slots 0 .. L-1; with start
 * [count], of the first round's input. */
static int apply(const struct operator* a, const int32_t *start, double *columns, int32_t count,
                 struct fkv_error *err) {
    size_t scratch = fkv_dct_scratch(a->forward), other = fkv_dct_scratch(a->inverse);
    size_t x = (size_t)a->n * BLOCK, y = (size_t)a->retained * BLOCK;
    int32_t failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        float *room = malloc((x + y + (other > scratch ? other : scratch)) * sizeof *room);
        failures += !room;
#pragma omp for schedule(dynamic)
        for (int32_t first = 0; first < count; first += BLOCK)
            if (room)
                apply_block(a, start, columns, first, count - first < BLOCK ? count - first : BLOCK,
                            room, room + x, room + x + y);
        free(room);
    }
    return failures ? fkv_fail(err, "out of memory for columns of %d slots", a->n) : FKV_OK;
}

/* ---- responses ---- */

/* m [count] -> its main lobe [*first, *end): the run of one sign about the largest magnitude */
static void main_lobe(const double *m, int32_t count, int32_t *first, int32_t *end) {
    int32_t peak = 0;
    for (int32_t i = 1; i < count; i++)
        if (fabs(m[i]) > fabs(m[peak])) peak = i;
    for (*first = peak; *first > 0 && m[*first - 1] * m[peak] > 0;) --*first;
    for (*end = peak + 1; *end < count && m[*end] * m[peak] > 0;) ++*end;
}

static double centre_of(const double *m, int32_t count) {
    int32_t first, end;
    double weight = 0, moment = 0;
    main_lobe(m, count, &first, &end);
    for (int32_t i = first; i < end; i++) weight += m[i], moment += i * m[i];
    return moment / weight;
}

/* Adds a token's share of width, ringing and negative weight. */
static void add_token(const double *m, int32_t count, struct fkv_impulse_round *r) {
    int32_t first, end;
    double squares = 0, fourths = 0, weight = 0, inside = 0, negative = 0;
    main_lobe(m, count, &first, &end);
    for (int32_t i = 0; i < count; i++) {
        squares += m[i] * m[i], fourths += m[i] * m[i] * m[i] * m[i];
        weight += fabs(m[i]);
        if (i >= first && i < end) inside += fabs(m[i]);
        if (m[i] < 0) negative -= m[i];
    }
    r->width += squares * squares / fourths / TOKENS;
    r->ringing += (1 - inside / weight) / TOKENS;
    r->negative += negative / weight / TOKENS;
}

/* followed (L, FOLLOWED): the chunk of ones, the middle token, the others */
static void measure_round(const struct fkv_schedule *s, const double *followed, int32_t k,
                          struct fkv_impulse *out) {
    struct fkv_impulse_round *r = &out->round[k - 1];
    const double *token = followed + s->retained;
    double shrink = pow((double)s->retained / s->n, k);
    *r = (struct fkv_impulse_round){.tokens_since = (double)k * s->chunk,
                                    .slots_left = s->chunk * shrink,
                                    .centre = centre_of(token, s->retained),
                                    .rank = NAN,
                                    .participation = NAN};
    for (int32_t i = 0; i < s->retained; i++) {
        r->gain = fmax(r->gain, followed[i]);
        out->chunk[(size_t)(k - 1) * (size_t)s->retained + (size_t)i] = (float)followed[i];
        out->token[(size_t)(k - 1) * (size_t)s->retained + (size_t)i] = (float)token[i];
    }
    for (int32_t t = 2; t < FOLLOWED; t++)
        add_token(followed + (size_t)t * (size_t)s->retained, s->retained, r);
    r->width_tokens = r->width / shrink;
}

/* ---- singular values ---- */

struct factor {
    double *w, *next; /* (L, columns), and as much memory again */
    double *gram, *squares;
    int32_t rows, columns;
    int threads; /* that OpenBLAS is open for */
    struct fkv_memory memory;
};

static int factor_make(struct factor *f, const struct fkv_schedule *s, struct fkv_error *err) {
    const size_t rows = (size_t)s->retained, columns = (size_t)s->chunk,
                 size = columns < rows ? columns : rows;
    *f = (struct factor){.rows = s->retained, .columns = s->chunk};
    f->w = fkv_memory_take(&f->memory, rows * columns, sizeof(double));
    f->next = fkv_memory_take(&f->memory, rows * size, sizeof(double));
    f->gram = fkv_memory_take(&f->memory, size * size, sizeof(double));
    f->squares = fkv_memory_take(&f->memory, size, sizeof(double));
    if (f->memory.failed)
        return fkv_fail(err, "out of memory for the singular values of %zu x %zu", rows, columns);
    if (fkv_blas_open(omp_get_max_threads(), err)) return FKV_FAILED;
    f->threads = omp_get_max_threads();
    return FKV_OK;
}

/* Counts what W holds, and leaves as many columns as there are singular values worth carrying. */
static int reduce(struct factor *f, struct fkv_impulse_round *r, struct fkv_error *err) {
    bool by_rows = f->columns > f->rows;
    int32_t size = by_rows ? f->rows : f->columns, first = 0;
    fkv_matrix_gram(f->w, f->rows, f->columns, by_rows, f->gram);
    if (fkv_matrix_eigen(f->gram, size, true, f->squares, err)) return FKV_FAILED;
    double largest = f->squares[size - 1], sum = 0, of_squares = 0;
    r->rank = 0;
    for (int32_t i = 0; i < size; i++) {
        double square = fmax(f->squares[i], 0);
        if (square <= kept_length * kept_length * largest) first = i + 1;
        if (square > counted * counted * largest) r->rank++;
        sum += square, of_squares += square * square;
    }
    r->participation = sum * sum / of_squares;
    double *kept = f->gram + (size_t)first * (size_t)size;
    if (by_rows) /* W W' = V S^2 V' = (V S)(V S)' */
        for (int32_t j = first; j < size; j++)
            for (int32_t i = 0; i < size; i++)
                f->w[(size_t)(j - first) * (size_t)size + (size_t)i] =
                    sqrt(f->squares[j]) * f->gram[(size_t)j * (size_t)size + (size_t)i];
    else {
        fkv_matrix_product(f->w, false, kept, f->rows, size - first, size, f->next);
        memcpy(f->w, f->next, (size_t)f->rows * (size_t)(size - first) * sizeof *f->w);
    }
    f->columns = size - first;
    return FKV_OK;
}

/* ---- rounds ---- */

/* followed (L, FOLLOWED), units [chunk]: scratch */
static int follow(const struct fkv_schedule *s, const struct operator* a, struct factor *f,
                  double *followed, int32_t *units, struct fkv_impulse *out,
                  struct fkv_error *err) {
    int32_t start[FOLLOWED] = {ALL, s->retained + s->chunk / 2};
    for (int32_t c = 0; c < s->chunk; c++) units[c] = s->retained + c;
    for (int32_t t = 0; t < TOKENS; t++) {
        double place = fmod((t + 0.5) * golden, 1);
        start[t + 2] = s->retained + (int32_t)(place * s->chunk);
    }
    int status = FKV_OK;
    for (int32_t k = 1; !status && k <= out->rounds; k++) {
        status = apply(a, k == 1 ? start : NULL, followed, FOLLOWED, err);
        if (!status) measure_round(s, followed, k, out);
        if (!status && f->w) status = apply(a, k == 1 ? units : NULL, f->w, f->columns, err);
        if (!status && f->w) status = reduce(f, &out->round[k - 1], err);
    }
    return status;
}

int fkv_impulse_follow(const struct fkv_schedule *s, int32_t rounds, struct fkv_impulse *out,
                       struct fkv_error *err) {
    struct operator a = {.n = s->n, .retained = s->retained};
    struct factor f = {0};
    struct fkv_memory scratch = {0};
    *out = (struct fkv_impulse){.schedule = *s,
                                .rounds = rounds ? rounds : (int32_t)ceil(s->horizon_rounds)};
    if (out->rounds > FKV_IMPULSE_ROUNDS)
        return fkv_fail_option(
            err,
            "--rounds: expected at most %d, found %d (gamma %g: the horizon is %.0f rounds away)",
            FKV_IMPULSE_ROUNDS, out->rounds, s->gamma, s->horizon_rounds);
    size_t responses = (size_t)out->rounds * (size_t)s->retained;
    double *followed = fkv_memory_take(&scratch, FOLLOWED * (size_t)s->retained, sizeof *followed);
    int32_t *units = fkv_memory_take(&scratch, (size_t)s->chunk, sizeof *units);
    out->round = fkv_memory_take(&out->memory, (size_t)out->rounds, sizeof *out->round);
    out->chunk = fkv_memory_take(&out->memory, responses, sizeof(float));
    out->token = fkv_memory_take(&out->memory, responses, sizeof(float));
    int status = scratch.failed || out->memory.failed
                     ? fkv_fail(err, "out of memory for %d rounds", out->rounds)
                     : FKV_OK;
    if (!status) status = fkv_dct_create(s->n, &a.forward, err);
    if (!status) status = fkv_dct_create(s->retained, &a.inverse, err);
    if (!status && s->chunk <= FKV_IMPULSE_RANK_TOKENS) status = factor_make(&f, s, err);
    if (!status) status = follow(s, &a, &f, followed, units, out, err);
    fkv_blas_close(f.threads);
    fkv_memory_free(&f.memory);
    fkv_memory_free(&scratch);
    fkv_dct_destroy(a.forward);
    fkv_dct_destroy(a.inverse);
    if (status) fkv_impulse_free(out);
    return status;
}
