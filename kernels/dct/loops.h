/* The loops of the transform, included once per instruction set, which supplies: vec of LANES
 * floats; vec_set, vec_zero, vec_load, vec_load_f16, vec_load_bf16, vec_store, vec_fma (a b + c),
 * vec_fnma (c - a b), vec_sum; AT_ONCE, how many outputs of an odd butterfly are formed from one
 * reading of its inputs (as many as have room in registers); DCT_TABLE and DCT_NAME. */
#include <stdbool.h>
#include <string.h>

enum { WIDTH = 2 * LANES };

struct pair { /* two channels per lane, one the real part, one the imaginary */
    vec re, im;
};

#define INLINE static inline __attribute__((always_inline))

INLINE struct pair pair_add(struct pair a, struct pair b) {
    return (struct pair){a.re + b.re, a.im + b.im};
}
INLINE struct pair pair_sub(struct pair a, struct pair b) {
    return (struct pair){a.re - b.re, a.im - b.im};
}
/* a - i b, a + i b */
INLINE struct pair pair_minus_i(struct pair a, struct pair b) {
    return (struct pair){a.re + b.im, a.im - b.re};
}
INLINE struct pair pair_plus_i(struct pair a, struct pair b) {
    return (struct pair){a.re - b.im, a.im + b.re};
}

INLINE void put(struct pair *to, struct pair a, const float *turn, bool turned) {
    if (!turned) {
        *to = a;
        return;
    }
    vec c = vec_set(turn[0]), s = vec_set(turn[1]);
    to->re = vec_fnma(a.im, s, a.re * c);
    to->im = vec_fma(a.im, c, a.re * s);
}

/* Butterflies: inputs x[r * in], outputs y[k * out] turned by turn[k-1]. */
INLINE void butterfly_2(const struct pair *x, size_t in, struct pair *y, size_t out,
                        const float *turn, bool turned) {
    struct pair a = x[0], b = x[in];
    y[0] = pair_add(a, b);
    put(y + out, pair_sub(a, b), turn, turned);
}

INLINE void butterfly_4(const struct pair *x, size_t in, struct pair *y, size_t out,
                        const float *turn, bool turned) {
    struct pair a = x[0], b = x[in], c = x[2 * in], d = x[3 * in];
    struct pair even = pair_add(a, c), odd = pair_add(b, d), u = pair_sub(a, c), v = pair_sub(b, d);
    y[0] = pair_add(even, odd);
    put(y + out, pair_minus_i(u, v), turn, turned);
    put(y + 2 * out, pair_sub(even, odd), turn + 2, turned);
    put(y + 3 * out, pair_plus_i(u, v), turn + 4, turned);
}

/* Outputs k .. k+count-1 and p-k .. : C_k = x_0 + sum_r u_r cos, S_k = sum_r v_r sin; X_k = C_k - i
 * S_k, X_(p-k) = C_k + i S_k */
INLINE void odd_outputs(int32_t p, int32_t k, int count, struct pair first, const struct pair *u,
                        const struct pair *v, const float *root, struct pair *y, size_t out,
                        const float *turn, bool turned) {
    int32_t h = (p - 1) / 2;
    struct pair c[AT_ONCE], s[AT_ONCE];
    for (int j = 0; j < count; j++) c[j] = first, s[j] = (struct pair){vec_zero(), vec_zero()};
    for (int32_t r = 0; r < h; r++)
        for (int j = 0; j < count; j++) {
            const float *angle = root + 2 * ((size_t)(k - 1 + j) * (size_t)h + (size_t)r);
            vec cosine = vec_set(angle[0]), sine = vec_set(angle[1]);
            c[j].re = vec_fma(u[r].re, cosine, c[j].re);
            c[j].im = vec_fma(u[r].im, cosine, c[j].im);
            s[j].re = vec_fma(v[r].re, sine, s[j].re);
            s[j].im = vec_fma(v[r].im, sine, s[j].im);
        }
    for (int j = 0; j < count; j++) {
        size_t low = (size_t)(k + j), high = (size_t)(p - k - j);
        put(y + low * out, pair_minus_i(c[j], s[j]), turn + 2 * (low - 1), turned);
        put(y + high * out, pair_plus_i(c[j], s[j]), turn + 2 * (high - 1), turned);
    }
}

INLINE void butterfly_odd(int32_t p, const float *root, const struct pair *x, size_t in,
                          struct pair *y, size_t out, const float *turn, bool turned) {
    int32_t h = (p - 1) / 2, k = 1;
    struct pair u[FKV_DCT_PRIME / 2], v[FKV_DCT_PRIME / 2], first = x[0], sum = first;
    for (int32_t r = 1; r <= h; r++) {
        struct pair a = x[(size_t)r * in], b = x[(size_t)(p - r) * in];
        u[r - 1] = pair_add(a, b);
        v[r - 1] = pair_sub(a, b);
        sum = pair_add(sum, u[r - 1]);
    }
    y[0] = sum;
    for (; k + AT_ONCE - 1 <= h; k += AT_ONCE)
        odd_outputs(p, k, AT_ONCE, first, u, v, root, y, out, turn, turned);
    for (; k <= h; k++) odd_outputs(p, k, 1, first, u, v, root, y, out, turn, turned);
}

/* sum[j] = sum_e m[e][j] x[e], e < k, j < count; m [k, k] */
INLINE void some_products(const float *m, int32_t k, int count, const struct pair *x,
                          struct pair *sum) {
    struct pair s[2 * AT_ONCE];
    for (int j = 0; j < count; j++) s[j] = (struct pair){vec_zero(), vec_zero()};
    for (int32_t e = 0; e < k; e++, m += k)
        for (int j = 0; j < count; j++) {
            vec factor = vec_set(m[j]);
            s[j].re = vec_fma(x[e].re, factor, s[j].re);
            s[j].im = vec_fma(x[e].im, factor, s[j].im);
        }
    for (int j = 0; j < count; j++) sum[j] = s[j];
}

/* The same for j < k, as many at once as have room in registers. */
INLINE void products(const float *m, int32_t k, const struct pair *x, struct pair *sum) {
    int32_t j = 0;
    for (; j + 2 * AT_ONCE - 1 <= k; j += 2 * AT_ONCE - 1)
        some_products(m + j, k, 2 * AT_ONCE - 1, x, sum + j);
    for (; j + AT_ONCE <= k; j += AT_ONCE) some_products(m + j, k, AT_ONCE, x, sum + j);
    for (; j < k; j++) some_products(m + j, k, 1, x, sum + j);
}

/* sum[f] = sum_e m_(e+f) x_e, e and f < k, by three products of half the size where k is even: see
 * dct.c */
INLINE void split_products(const float *m, int32_t k, const struct pair *x, struct pair *sum) {
    enum { MOST = FKV_DCT_PRIME / 8 };
    const int32_t j = k / 2;
    struct pair both[MOST], part[MOST];
    if (k % 2) {
        products(m, k, x, sum);
        return;
    }
    for (int32_t e = 0; e < j; e++) both[e] = pair_add(x[e], x[e + j]);
    products(m, j, x, sum);
    products(m + j * j, j, both, part);
    products(m + 2 * j * j, j, x + j, sum + j);
    for (int32_t f = 0; f < j; f++) {
        sum[f] = pair_add(sum[f], part[f]);
        sum[f + j] = pair_add(sum[f + j], part[f]);
    }
}

/* An odd butterfly that is split: see dct.c. */
INLINE void butterfly_split(const struct fkv_dct_stage *g, const struct pair *x, size_t in,
                            struct pair *y, size_t out, const float *turn, bool turned) {
    enum { MOST = FKV_DCT_PRIME / 4 };
    const int32_t p = g->p, k = (p - 1) / 4;
    struct pair of[FKV_DCT_HALVES][MOST], sum[FKV_DCT_HALVES][MOST], first = x[0], all = first;
    for (int32_t e = 0; e < k; e++) {
        const size_t low = g->power[e], high = g->power[e + k];
        const struct pair a = x[low * in], b = x[((size_t)p - low) * in], c = x[high * in],
                          d = x[((size_t)p - high) * in], u = pair_add(a, b), w = pair_add(c, d);
        of[0][e] = pair_add(u, w);
        of[1][e] = pair_sub(u, w);
        of[2][e] = pair_sub(a, b);
        of[4][e] = pair_sub(c, d);
        of[3][e] = pair_add(of[2][e], of[4][e]);
        all = pair_add(all, of[0][e]);
    }
    y[0] = all;
    for (int i = 0; i < FKV_DCT_HALVES; i++)
        split_products(g->halves + i * fkv_dct_products(k), k, of[i], sum[i]);
    for (int32_t f = 0; f < k; f++) {
        const struct pair level = pair_add(first, sum[0][f]),
                          c[2] = {pair_add(level, sum[1][f]), pair_sub(level, sum[1][f])},
                          s[2] = {pair_add(sum[2][f], sum[3][f]), pair_sub(sum[3][f], sum[4][f])};
        for (int i = 0; i < 2; i++) {
            const size_t low = g->power[f + i * k], high = (size_t)p - low;
            put(y + low * out, pair_minus_i(c[i], s[i]), turn + 2 * (low - 1), turned);
            put(y + high * out, pair_plus_i(c[i], s[i]), turn + 2 * (high - 1), turned);
        }
    }
}

/* x[i + r * in], y[i + k * out] for i < count */
INLINE void butterflies(const struct fkv_dct_stage *g, const struct pair *x, size_t in,
                        struct pair *y, size_t out, size_t count, const float *turn, bool turned) {
    if (g->p == 4)
        for (size_t i = 0; i < count; i++) butterfly_4(x + i, in, y + i, out, turn, turned);
    else if (g->p == 2)
        for (size_t i = 0; i < count; i++) butterfly_2(x + i, in, y + i, out, turn, turned);
    else if (g->p == 3)
        for (size_t i = 0; i < count; i++)
            butterfly_odd(3, g->root, x + i, in, y + i, out, turn, turned);
    else if (g->p == 5)
        for (size_t i = 0; i < count; i++)
            butterfly_odd(5, g->root, x + i, in, y + i, out, turn, turned);
    else if (g->p == 7)
        for (size_t i = 0; i < count; i++)
            butterfly_odd(7, g->root, x + i, in, y + i, out, turn, turned);
    else if (g->power[0])
        for (size_t i = 0; i < count; i++) butterfly_split(g, x + i, in, y + i, out, turn, turned);
    else
        for (size_t i = 0; i < count; i++)
            butterfly_odd(g->p, g->root, x + i, in, y + i, out, turn, turned);
}

INLINE void run_q(const struct fkv_dct_stage *g, const struct pair *x, struct pair *y, int32_t q,
                  bool turned) {
    size_t s = (size_t)g->s, in = (size_t)g->m * s;
    const float *turn = g->turn + 2 * (size_t)q * (size_t)(g->p - 1);
    butterflies(g, x + (size_t)q * s, in, y + (size_t)q * (size_t)g->p * s, s, s, turn, turned);
}

/* a [n] -> its DFT from stage `first` on, in a or b (returned); the other one is overwritten. */
static struct pair *transform_from(const struct fkv_dct *d, int32_t first, struct pair *a,
                                   struct pair *b) {
    if (d->awkward) {
        fkv_dft_run(d->awkward, (float *)a, (float *)b);
        return b;
    }
    for (int32_t i = first; i < d->stages; i++) {
        const struct fkv_dct_stage *g = &d->stage[i];
        run_q(g, a, b, 0, false);
        for (int32_t q = 1; q < g->m; q++) run_q(g, a, b, q, true);
        struct pair *swap = a;
        a = b;
        b = swap;
    }
    return a;
}

static struct pair *transform(const struct fkv_dct *d, struct pair *a, struct pair *b) {
    return transform_from(d, 0, a, b);
}

/* The first stage of the DFT of a less `level`: a -> b */
static void first_stage(const struct fkv_dct_stage *g, const struct pair *a, struct pair level,
                        struct pair *b) {
    struct pair x[FKV_DCT_PRIME];
    size_t p = (size_t)g->p, m = (size_t)g->m;
    for (size_t q = 0; q < m; q++) {
        for (size_t r = 0; r < p; r++) x[r] = pair_sub(a[q + m * r], level);
        butterflies(g, x, 1, b + q * p, 1, 1, g->turn + 2 * q * (p - 1), q > 0);
    }
}

/* a [n] less `level` -> its DFT, as above. */
static struct pair *transform_less(const struct fkv_dct *d, struct pair level, struct pair *a,
                                   struct pair *b) {
    if (d->stages) {
        first_stage(&d->stage[0], a, level, b);
        return transform_from(d, 1, b, a);
    }
    for (int32_t j = 0; j < d->n; j++) a[j] = pair_sub(a[j], level);
    return transform(d, a, b);
}

/* ---- in and out ---- */

INLINE struct pair load_row(const float *x, int32_t width) {
    if (width >= WIDTH) return (struct pair){vec_load(x), vec_load(x + LANES)};
    float row[WIDTH] = {0};
    memcpy(row, x, (size_t)width * sizeof *row);
    return (struct pair){vec_load(row), vec_load(row + LANES)};
}

INLINE void store_row(float *x, int32_t width, struct pair a) {
    float row[WIDTH], *to = width < WIDTH ? row : x;
    vec_store(to, a.re);
    vec_store(to + LANES, a.im);
    if (width < WIDTH) memcpy(x, row, (size_t)width * sizeof *row);
}

/* Where Makhoul's order puts token j */
INLINE int32_t place_of(int32_t j, int32_t n) { return j % 2 ? n - 1 - j / 2 : j / 2; }

/* Coefficients t and u = n - t of both channels */
struct four {
    struct pair t, u;
};

/* From rows t and u of the spectrum */
INLINE struct four unpack(struct pair vt, struct pair vu, const float *last) {
    vec c = vec_set(last[0]), s = vec_set(last[1]);
    vec ar = vt.re + vu.re, ai = vt.im - vu.im, br = vt.im + vu.im, bi = vu.re - vt.re;
    return (struct four){{vec_fma(s, ai, c * ar), vec_fma(s, bi, c * br)},
                         {vec_fnma(c, ai, s * ar), vec_fnma(c, bi, s * br)}};
}

/* Back to rows t and u of the spectrum, with real and imaginary parts exchanged */
INLINE struct four pack(struct pair yt, struct pair yu, const float *last) {
    vec c = vec_set(last[0]), s = vec_set(last[1]);
    vec ar = vec_fma(s, yu.re, c * yt.re), ai = vec_fnma(c, yu.re, s * yt.re);
    vec br = vec_fma(s, yu.im, c * yt.im), bi = vec_fnma(c, yu.im, s * yt.im);
    return (struct four){{ai + br, ar - bi}, {br - ai, ar + bi}};
}

/* ---- forward and inverse ---- */

static void dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels,
                        float *y, size_t y_stride, float *scratch) {
    vec first = vec_set(d->last[0]);
    struct pair *a = (struct pair *)(void *)scratch;
    for (int32_t width = channels; width > 0; width -= WIDTH, x += WIDTH, y += WIDTH) {
        for (int32_t j = 0; j < d->n; j++)
            a[place_of(j, d->n)] = load_row(x + (size_t)j * x_stride, width);
        const struct pair *v = transform(d, a, a + d->n);
        store_row(y, width, (struct pair){first * v[0].re, first * v[0].im});
        for (int32_t t = 1, u = d->n - 1; t <= u; t++, u--) {
            struct four out = unpack(v[t], v[u], d->last + 2 * (size_t)t);
            store_row(y + (size_t)t * y_stride, width, out.t);
            store_row(y + (size_t)u * y_stride, width, out.u);
        }
    }
}

static void dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels,
                        float *x, size_t x_stride, float *scratch) {
    vec first = vec_set(d->last[0]);
    struct pair *a = (struct pair *)(void *)scratch;
    for (int32_t width = channels; width > 0; width -= WIDTH, x += WIDTH, y += WIDTH) {
        struct pair mean = load_row(y, width);
        a[0] = (struct pair){first * mean.im, first * mean.re};
        for (int32_t t = 1, u = d->n - 1; t <= u; t++, u--) {
            struct four in =
                pack(load_row(y + (size_t)t * y_stride, width),
                     load_row(y + (size_t)u * y_stride, width), d->last + 2 * (size_t)t);
            a[t] = in.t;
            a[u] = in.u;
        }
        const struct pair *v = transform(d, a, a + d->n);
        for (int32_t j = 0; j < d->n; j++) {
            struct pair row = v[place_of(j, d->n)];
            store_row(x + (size_t)j * x_stride, width, (struct pair){row.im, row.re});
        }
    }
}

/* ---- power ---- */

enum {
    RUN = 64,  /* rows summed in float before they go to the sum in double */
    AHEAD = 16 /* rows between asking for one and reading it */
};

/* Channels [channel, channel + width) of row j, widened */
INLINE struct pair load_stored(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t j,
                               size_t channel, int32_t width) {
    size_t at = (size_t)(rows->order ? rows->order[j] : j) * rows->stride + channel;
    if (dtype == FKV_F32) return load_row((const float *)rows->x + at, width);
    const uint16_t *x = (const uint16_t *)rows->x + at;
    uint16_t row[WIDTH] = {0};
    if (width < WIDTH) x = memcpy(row, x, (size_t)width * sizeof *row);
    if (dtype == FKV_F16) return (struct pair){vec_load_f16(x), vec_load_f16(x + LANES)};
    return (struct pair){vec_load_bf16(x), vec_load_bf16(x + LANES)};
}

/* Rows in any order are found by no hardware prefetcher. */
INLINE void prefetch_row(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t j,
                         size_t channel) {
    enum { LINE = 64 };
    size_t bytes = fkv_dtype_bytes(dtype);
    const char *row =
        (const char *)rows->x + ((size_t)rows->order[j] * rows->stride + channel) * bytes;
    for (size_t at = 0; at < WIDTH * bytes; at += LINE) __builtin_prefetch(row + at);
}

/* The rows in Makhoul's order -> a [n], and their sums over tokens -> sum */
INLINE void take_rows_of(const struct fkv_dct_rows *rows, enum fkv_dtype dtype, int32_t n,
                         size_t channel, int32_t width, struct pair *a, double sum[WIDTH]) {
    float part[WIDTH];
    memset(sum, 0, WIDTH * sizeof *sum);
    for (int32_t j = 0; j < n;) {
        int32_t end = n - j < RUN ? n : j + RUN;
        struct pair run = load_stored(rows, dtype, j, channel, width);
        a[place_of(j, n)] = run;
        for (j++; j < end; j++) {
            if (rows->order && j + AHEAD < n) prefetch_row(rows, dtype, j + AHEAD, channel);
            struct pair x = load_stored(rows, dtype, j, channel, width);
            a[place_of(j, n)] = x;
            run = pair_add(run, x);
        }
        vec_store(part, run.re);
        vec_store(part + LANES, run.im);
        for (int i = 0; i < WIDTH; i++) sum[i] += part[i];
    }
}

static void take_rows(const struct fkv_dct_rows *rows, int32_t n, size_t channel, int32_t width,
                      struct pair *a, double sum[WIDTH]) {
    if (rows->dtype == FKV_F32)
        take_rows_of(rows, FKV_F32, n, channel, width, a, sum);
    else if (rows->dtype == FKV_F16)
        take_rows_of(rows, FKV_F16, n, channel, width, a, sum);
    else
        take_rows_of(rows, FKV_BF16, n, channel, width, a, sum);
}

static bool is_constant(const struct fkv_dct_rows *rows, int32_t n, size_t channel) {
    size_t bytes = fkv_dtype_bytes(rows->dtype);
    const char *x = (const char *)rows->x + channel * bytes;
    float first, other;
    fkv_to_f32(x, rows->dtype, 1, &first);
    for (int32_t j = 0; j < n; j++) {
        fkv_to_f32(x + (size_t)(rows->order ? rows->order[j] : j) * rows->stride * bytes,
                   rows->dtype, 1, &other);
        if (other != first) return false;
    }
    return true;
}

/* factor: per channel, NULL for 1 */
INLINE float sum_of_squares(struct pair y, const struct pair *factor) {
    if (factor) return vec_sum(vec_fma(y.re * y.re, factor->re, y.im * y.im * factor->im));
    return vec_sum(vec_fma(y.re, y.re, y.im * y.im));
}

static void add_squares(const struct fkv_dct *d, const struct pair *v, const struct pair *factor,
                        double *power) {
    int32_t n = d->n, t = 1, u = n - 1;
    for (; t < u; t++, u--) {
        struct four y = unpack(v[t], v[u], d->last + 2 * (size_t)t);
        power[t] += (double)sum_of_squares(y.t, factor);
        power[u] += (double)sum_of_squares(y.u, factor);
    }
    if (t == u)
        power[t] += (double)sum_of_squares(unpack(v[t], v[t], d->last + 2 * (size_t)t).t, factor);
}

/* 1 / variance of each channel, from the energy of its coefficients but the first (Parseval); 0
 * where it is constant */
static struct pair variance_factors(const struct fkv_dct *d, const struct pair *v,
                                    const struct fkv_dct_rows *rows, size_t channel, int32_t width,
                                    float factor[WIDTH]) {
    int32_t n = d->n, t = 1, u = n - 1;
    struct pair sum = {vec_zero(), vec_zero()};
    for (; t <= u; t++, u--) {
        struct four y = unpack(v[t], v[u], d->last + 2 * (size_t)t);
        sum = (struct pair){vec_fma(y.t.re, y.t.re, sum.re), vec_fma(y.t.im, y.t.im, sum.im)};
        if (t < u)
            sum = (struct pair){vec_fma(y.u.re, y.u.re, sum.re), vec_fma(y.u.im, y.u.im, sum.im)};
    }
    vec_store(factor, sum.re);
    vec_store(factor + LANES, sum.im);
    for (int32_t c = 0; c < WIDTH; c++) {
        bool varies = c < width && !is_constant(rows, n, channel + (size_t)c);
        factor[c] = varies && factor[c] > 0 ? (float)n / factor[c] : 0;
    }
    return (struct pair){vec_load(factor), vec_load(factor + LANES)};
}

/* Channels [channel, channel + width) of the rows */
static void add_block(const struct fkv_dct *d, const struct fkv_dct_rows *rows, size_t channel,
                      int32_t width, double *power, double *normalised, float *scratch) {
    int32_t n = d->n;
    struct pair *a = (struct pair *)(void *)scratch;
    double mean[WIDTH];
    float rounded[WIDTH], factor[WIDTH];
    take_rows(rows, n, channel, width, a, mean);
    for (int i = 0; i < WIDTH; i++) mean[i] /= n, rounded[i] = (float)mean[i];
    /* What rounding the mean leaves is a constant, which falls on t = 0 alone, and that coefficient
     * comes from the mean in double. */
    struct pair level = {vec_load(rounded), vec_load(rounded + LANES)};
    const struct pair *v = transform_less(d, level, a, a + n);
    add_squares(d, v, NULL, power);
    for (int32_t c = 0; c < width; c++) power[0] += n * mean[c] * mean[c];
    if (!normalised) return;
    struct pair factors = variance_factors(d, v, rows, channel, width, factor);
    add_squares(d, v, &factors, normalised);
    for (int32_t c = 0; c < width; c++) normalised[0] += n * mean[c] * mean[c] * (double)factor[c];
}

static void dct_add_power(const struct fkv_dct *d, const struct fkv_dct_rows *rows,
                          int32_t channels, double *power, double *normalised, float *scratch) {
    for (int32_t c = 0; c < channels; c += WIDTH)
        add_block(d, rows, (size_t)c, channels - c < WIDTH ? channels - c : WIDTH, power,
                  normalised, scratch);
}

const struct fkv_dct_set DCT_TABLE = {DCT_NAME, LANES, dct_forward, dct_inverse, dct_add_power};
