/* The butterflies of one stage of the DFT, included by loops.h, which says what the instruction set
 * supplies. */
#include <stdbool.h>

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

/* One butterfly of a stage; p: g's own, known to the compiler, or 0 */
INLINE void butterfly(const struct fkv_dct_stage *g, int32_t p, const struct pair *x, size_t in,
                      struct pair *y, size_t out, const float *turn, bool turned) {
    if (p == 4)
        butterfly_4(x, in, y, out, turn, turned);
    else if (p == 2)
        butterfly_2(x, in, y, out, turn, turned);
    else if (p)
        butterfly_odd(p, g->root, x, in, y, out, turn, turned);
    else if (g->power[0])
        butterfly_split(g, x, in, y, out, turn, turned);
    else
        butterfly_odd(g->p, g->root, x, in, y, out, turn, turned);
}

INLINE void butterflies(const struct fkv_dct_stage *g, int32_t p, int32_t column,
                        const struct pair *x, size_t step, struct pair *y) {
    const size_t m = (size_t)g->m, s = (size_t)g->s, in = m * s * step,
                 turns = 2 * (size_t)(g->p - 1);
    const float *turn = g->turn + turns * m * (size_t)column;
    size_t q = 0;
    if (!column) {
        for (size_t i = 0; i < s; i++) butterfly(g, p, x + i, in, y + i, s, turn, false);
        q = 1;
    }
    for (turn += q * turns, x += q * s * step, y += q * s * (size_t)g->p; q < m;
         q++, turn += turns, x += s * step, y += s * (size_t)g->p)
        for (size_t i = 0; i < s; i++) butterfly(g, p, x + i, in, y + i, s, turn, true);
}

/* One stage of one column: rows x[step * r] -> y */
static void run_stage(const struct fkv_dct_stage *g, int32_t column, const struct pair *x,
                      size_t step, struct pair *y) {
    switch (g->p) {
    case 2: butterflies(g, 2, column, x, step, y); break;
    case 3: butterflies(g, 3, column, x, step, y); break;
    case 4: butterflies(g, 4, column, x, step, y); break;
    case 5: butterflies(g, 5, column, x, step, y); break;
    case 7: butterflies(g, 7, column, x, step, y); break;
    default: butterflies(g, 0, column, x, step, y); break;
    }
}
