/* The DCT by way of a complex DFT, many channels at once: plans, the public functions, and the
 * instruction set that every processor has. The loops are in butterflies.h and loops.h.
 *
 * Makhoul 1980, "A fast cosine transform in one and two dimensions": with v the even tokens
 * followed by the odd ones reversed, and V its DFT, P + iQ = V_t exp(-i pi t / 2n) holds two
 * coefficients, y_t = P and y_(n-t) = -Q (up to scale). Two real channels a, b travel as one
 * complex one, V = A + iB, and come apart by A_t = (V_t + conj V_(n-t)) / 2, B_t = (V_t - conj
 * V_(n-t)) / 2i. The inverse runs the same steps backwards on the same plan: exchanging real and
 * imaginary parts before and after turns a DFT into its inverse (times n).
 *
 * Data are laid out [token][channel], so a vector's lanes are channels: no transposition, no
 * shuffle, no odd size that is special. A block is two vectors of channels, the first the real
 * parts and the second the imaginary ones. A pair shares one transform's rounding: next to a
 * channel 1000 times as large, the smaller keeps three digits less.
 *
 * The DFT is Stockham's, which sorts itself (mixed radix, decimation in frequency; Van Loan 1992,
 * section 1.7). With p m of n left and s done, a stage computes, for q < m and i < s,
 *
 *   y[i + s (p q + k)] = w^(q k) sum_r x[i + s (q + m r)] exp(-2 pi i r k / p),
 *   w = exp(-2 pi i / (p m)).
 *
 * Factors 4 and 2 are written out; an odd prime pairs x_r with x_(p-r): sums meet only cosines and
 * differences only sines, (p-1)^2 multiply-adds instead of four times as many. Primes up to 251 are
 * worth that, larger ones are FFTW's, in the same layout.
 *
 * Where h = (p-1)/2 is even and p not small, those sums are split once more. By Rader (1968), with
 * a primitive root g and inputs and outputs in the order of g^e, e < h, the matrices depend on e +
 * f alone: c_(e+f) = cos(2 pi g^(e+f) / p), of period h, and s_(e+f) likewise with sines, which
 * change their sign after h. In blocks of k = h/2, lo and hi,
 *
 *   C_lo, C_hi = P (u_lo + u_hi) +- M (u_lo - u_hi),  P, M = (c_m +- c_(m+k)) / 2,
 *   S_lo = (A - B) v_lo + B (v_lo + v_hi),  S_hi = B (v_lo + v_hi) - (A + B) v_hi,
 *   A, B = s_m, s_(m+k),
 *
 * five products of k x k in the place of eight. Where k is even, each is three of half the size: of
 * the matrix H_(e+f) with quarters H_0, H_1 and H_2 from e + f = 0, k/2 and k on,
 *
 *   Y_lo = H_1 (x_lo + x_hi) + (H_0 - H_1) x_lo,  Y_hi = H_1 (x_lo + x_hi) + (H_2 - H_1) x_hi.
 *
 * n = 2044, the slots of a window of 2048, is 4 7 73.
 *
 * A block, two vectors of channels, is n rows long: with a copy it outgrows a second-level cache of
 * 1 MB from n = 4092 on. The factors are therefore dealt out to two parts whose lengths P Q = n are
 * as near to each other as they come. Stages of the first part connect rows q + Q r alone, those of
 * the second rows i + P r: so each column q runs through all stages of the first part in the first-
 * level cache, and is read from the caller's rows as it comes; then so does each i through the
 * second part, and goes to the caller's rows from there. The inverse does the same. The caller's
 * rows are read once and written once, what is between them stays in the second level. Coefficients
 * t and n - t lie in the rows of i and P - i, columns q and Q - q: these go side by side. The
 * caller's rows may lie kilobytes apart; unless they are asked for a column ahead they take longer
 * than the arithmetic (7.7 instead of 5.1 ms for 4092 x 1024). Stores that pass the caches are as
 * fast as those to rows asked for, but take small results out of the caches, and are not used.
 *
 * The power of a spectrum is summed from the same rows and never written out. Keys have channels
 * whose mean is tens of times their deviation; the rounding of that mean would spread over the
 * whole spectrum. So the mean of 64 rows is taken out as rows are read; what it leaves of the mean
 * falls on t = 0 alone, and that coefficient is sqrt(n) times the mean over all rows. 64 rows of n
 * differ from the mean by at most sqrt(n / 64) deviations, mostly by an eighth, so that variances
 * come from the squares of what is left. Rows are widened, put in their order and summed up in one
 * pass. Sums over rows go to double every 64 rows or so, and squares over a block are taken in
 * float: that costs no digit that a float32 transform has.
 *
 * tests/bench/kernels/bench_dct.c times every instruction set beside FFTW's own DCT (REDFT10,
 * strided), and the row `dct` of tests/bench/bench.py beside scipy and a copy of the array.
 *
 * Signal to noise is 138 to 139 dB at 4092 and 133 at 4093. */
#include <math.h>
#include <stdlib.h>

#include "kernels/dct/core.h"
#include "kernels/isa.h"

enum { ALIGNMENT = 64 };

/* ---- plans ---- */

/* Factors of n: fours first (their strides are largest where butterflies are cheapest), then
 * ascending primes. Returns their number, 0 for a prime too large. */
static int factorise(int32_t n, int32_t factor[FKV_DCT_STAGES]) {
    int count = 0;
    while (n % 4 == 0) factor[count++] = 4, n /= 4;
    for (int32_t p = 2; n > 1 && p <= FKV_DCT_PRIME; p++)
        while (n % p == 0) factor[count++] = p, n /= p;
    return n > 1 ? 0 : count;
}

static bool is_split(int32_t p) { return p >= FKV_DCT_SPLIT && p % 4 == 1; }

/* The product of the factors in `mask`. */
static int32_t product_of(const int32_t *factor, int count, uint32_t mask) {
    int32_t product = 1;
    for (int i = 0; i < count; i++)
        if (mask >> i & 1) product *= factor[i];
    return product;
}

/* The factors whose product is the least at or above the square root of n. */
static uint32_t choose_first(int32_t n, const int32_t *factor, int count) {
    uint32_t best = (1u << count) - 1;
    int32_t least = n;
    for (uint32_t mask = 0; mask < 1u << count; mask++) {
        int32_t product = product_of(factor, count, mask);
        if ((int64_t)product * product >= n && product < least) best = mask, least = product;
    }
    return best;
}

/* A part without its tables; returns how many floats those take. */
static size_t lay_out_part(struct fkv_dct_part *part, int32_t length, int32_t columns,
                           const int32_t *factor, int count, uint32_t mask) {
    size_t floats = 0;
    int32_t s = 1;
    *part = (struct fkv_dct_part){.length = length, .columns = columns};
    for (int i = 0; i < count; i++) {
        if (!(mask >> i & 1)) continue;
        const int32_t p = factor[i], h = (p - 1) / 2, m = length / s / p;
        part->stage[part->stages++] = (struct fkv_dct_stage){.p = p, .m = m, .s = s};
        floats += 2 * (size_t)columns * (size_t)m * (size_t)(p - 1);
        floats += is_split(p) ? FKV_DCT_HALVES * (size_t)fkv_dct_products(h / 2)
                              : 2 * (size_t)h * (size_t)h;
        s *= p;
    }
    return floats;
}

/* The parts without their tables; returns how many floats those take. */
static size_t lay_out(struct fkv_dct *d) {
    int32_t factor[FKV_DCT_STAGES];
    const int count = factorise(d->n, factor);
    const uint32_t first = count ? choose_first(d->n, factor, count) : 0;
    const int32_t length = product_of(factor, count, first);
    return lay_out_part(&d->part[0], length, d->n / length, factor, count, first) +
           lay_out_part(&d->part[1], d->n / length, 1, factor, count, ~first);
}

int32_t fkv_dct_longer(const struct fkv_dct *d) {
    return d->part[0].length > d->part[1].length ? d->part[0].length : d->part[1].length;
}

/* Angles in exact fractions of a turn: k mod n before the division, so that large products lose
 * nothing. */
static void set_angle(float *to, int64_t k, int64_t n, double sign) {
    double angle = 2 * acos(-1) * (double)(k % n) / (double)n;
    to[0] = (float)cos(angle);
    to[1] = (float)(sign * sin(angle));
}

/* The least number whose powers are all of 1 .. p - 1. */
static int32_t primitive_root(int32_t p) {
    for (int32_t g = 2;; g++) {
        int32_t power = g, order = 1;
        for (; power != 1; order++) power = power * g % p;
        if (order == p - 1) return g;
    }
}

/* The matrix m_(e+f), e and f < k, in the order of split_products (loops.h). */
static float *fill_products(const double *m, int32_t k, float *table) {
    const int32_t j = k / 2;
    if (k % 2) {
        for (int32_t i = 0; i < k * k; i++) *table++ = (float)m[i / k + i % k];
        return table;
    }
    for (int32_t i = 0; i < 3 * j * j; i++) {
        const double *at = m + i % (j * j) / j + i % j; /* its quarters: at 0, j and 2j */
        const double part[3] = {at[0] - at[j], at[j], at[2 * j] - at[j]};
        *table++ = (float)part[i / (j * j)];
    }
    return table;
}

static float *fill_halves(struct fkv_dct_stage *stage, float *table) {
    const int32_t p = stage->p, h = (p - 1) / 2, k = h / 2, g = primitive_root(p);
    const double step = 2 * acos(-1) / p;
    int32_t powers[2 * FKV_DCT_PRIME];
    double m[FKV_DCT_HALVES][FKV_DCT_PRIME];
    for (int32_t e = 0; e < h + k; e++) powers[e] = e ? powers[e - 1] * g % p : 1;
    for (int32_t e = 0; e < h; e++) stage->power[e] = (uint8_t)powers[e];
    for (int32_t e = 0; e < h - 1; e++) {
        const double c = cos(step * powers[e]), d = cos(step * powers[e + k]),
                     a = sin(step * powers[e]), b = sin(step * powers[e + k]);
        m[0][e] = (c + d) / 2, m[1][e] = (c - d) / 2;
        m[2][e] = a - b, m[3][e] = b, m[4][e] = a + b;
    }
    stage->halves = table;
    for (int32_t i = 0; i < FKV_DCT_HALVES; i++) table = fill_products(m[i], k, table);
    return table;
}

static float *fill_stage(struct fkv_dct_stage *g, int32_t columns, float *table) {
    const int32_t h = (g->p - 1) / 2;
    g->turn = table;
    for (int32_t i = 0; i < columns * g->m; i++)
        for (int32_t k = 1; k < g->p; k++, table += 2)
            set_angle(table, (int64_t)(i / g->m + columns * (i % g->m)) * k,
                      (int64_t)g->p * g->m * columns, -1);
    if (is_split(g->p)) return fill_halves(g, table);
    g->root = table;
    for (int32_t k = 1; g->p % 2 && k <= h; k++)
        for (int32_t r = 1; r <= h; r++, table += 2) set_angle(table, (int64_t)r * k, g->p, 1);
    return table;
}

static void fill_last(int32_t n, double gain, float *last) {
    double scale = gain * sqrt(0.5 / n), step = acos(-1) / (2.0 * n);
    for (int32_t t = 1; t < n; t++) {
        last[2 * t] = (float)(scale * cos(t * step));
        last[2 * t + 1] = (float)(scale * sin(t * step));
    }
    last[0] = (float)(gain * sqrt(1.0 / n));
    last[1] = 0;
}

static bool has_awkward_length(const struct fkv_dct *d) {
    return d->n > 1 && !d->part[0].stages && !d->part[1].stages;
}

int fkv_dct_create_for(const struct fkv_dct_set *set, int32_t n, struct fkv_dct **out,
                       struct fkv_error *err) {
    *out = NULL;
    if (n < 1) return fkv_fail(err, "a DCT needs at least one token, found %d", n);
    struct fkv_dct *d = calloc(1, sizeof *d);
    if (d) {
        *d = (struct fkv_dct){.n = n, .set = set};
        d->tables = malloc((lay_out(d) + 2 * (size_t)n) * sizeof *d->tables);
        if (has_awkward_length(d)) d->awkward = fkv_dft_create(n, set->lanes);
    }
    if (!d || !d->tables || (has_awkward_length(d) && !d->awkward)) {
        fkv_dct_destroy(d);
        return fkv_fail(err, "no memory for a DCT of %d tokens", n);
    }
    float *table = d->tables;
    for (struct fkv_dct_part *part = d->part; part < d->part + 2; part++)
        for (int32_t i = 0; i < part->stages; i++)
            table = fill_stage(&part->stage[i], part->columns, table);
    d->last = table;
    fkv_dct_scale(d, 1);
    *out = d;
    return FKV_OK;
}

int fkv_dct_create(int32_t n, struct fkv_dct **out, struct fkv_error *err) {
    const struct fkv_dct_set *sets[3];
    return fkv_dct_create_for(sets[fkv_dct_sets(sets) - 1], n, out, err);
}

void fkv_dct_scale(struct fkv_dct *d, double gain) { fill_last(d->n, gain, d->last); }

void fkv_dct_destroy(struct fkv_dct *d) {
    if (!d) return;
    fkv_dft_destroy(d->awkward);
    free(d->tables);
    free(d);
}

/* ---- the public functions ---- */

size_t fkv_dct_scratch(const struct fkv_dct *d) {
    /* FFTW's part is the whole, and its neighbour a row. */
    const size_t spare = d->awkward ? (size_t)d->n + 1 : 3 * (size_t)fkv_dct_longer(d);
    return 2 * ((size_t)d->n + spare) * (size_t)d->set->lanes + ALIGNMENT / sizeof(float);
}

static float *align(float *at) {
    return (float *)(((uintptr_t)at + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
}

void fkv_dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels,
                     float *y, size_t y_stride, float *scratch) {
    d->set->forward(d, x, x_stride, channels, y, y_stride, align(scratch));
}

void fkv_dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels,
                     float *x, size_t x_stride, float *scratch) {
    d->set->inverse(d, y, y_stride, channels, x, x_stride, align(scratch));
}

void fkv_dct_add_power(const struct fkv_dct *d, const struct fkv_dct_rows *rows, int32_t channels,
                       double *power, double *normalised, float *scratch) {
    d->set->add_power(d, rows, channels, power, normalised, align(scratch));
}

/* ---- sets ---- */

typedef float vec __attribute__((vector_size(16), may_alias));
enum { LANES = 4, AT_ONCE = 1 };

static inline vec vec_set(float a) { return (vec){a, a, a, a}; }
static inline vec vec_zero(void) { return vec_set(0); }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_fnma(vec a, vec b, vec c) { return c - a * b; }
static inline float vec_sum(vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
static inline vec vec_load(const float *p) {
    vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline vec vec_load_f16(const uint16_t *p) {
    return (vec){fkv_f16_to_f32(p[0]), fkv_f16_to_f32(p[1]), fkv_f16_to_f32(p[2]),
                 fkv_f16_to_f32(p[3])};
}
static inline vec vec_load_bf16(const uint16_t *p) {
    return (vec){fkv_bf16_to_f32(p[0]), fkv_bf16_to_f32(p[1]), fkv_bf16_to_f32(p[2]),
                 fkv_bf16_to_f32(p[3])};
}
static inline void vec_store(float *p, vec v) { __builtin_memcpy(p, &v, sizeof v); }

#define DCT_TABLE fkv_dct_plain
#define DCT_NAME "plain"
#include "kernels/dct/loops.h"

int fkv_dct_sets(const struct fkv_dct_set *sets[3]) {
    int n = 0;
    sets[n++] = &fkv_dct_plain;
#if defined(__x86_64__)
    if (fkv_isa() >= FKV_ISA_AVX2) sets[n++] = &fkv_dct_avx2;
    if (fkv_isa() >= FKV_ISA_AVX512) sets[n++] = &fkv_dct_avx512;
#endif
    return n;
}
