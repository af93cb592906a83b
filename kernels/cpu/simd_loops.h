/* The loops of struct fkv_simd, once for every instruction set: included by simd.c, simd_avx2.c and
 * simd_avx512.c, which first define
 *
 *   vec, LANES                      a vector of LANES floats
 *   vec_zero(), vec_set(a)          all lanes 0, all lanes a
 *   vec_load(p, t), vec_part(p, t, n)   LANES (n < LANES, the rest 0) elements of dtype t at any
 *                                       address, as float32
 *   vec_fma_two(p, t, x, sum)       adds to sum[0] and sum[1] the products of 2 LANES elements of
 *                                   dtype t at p with the floats at x, by the widest loads there
 *                                   are; which product goes to which lane is its own affair
 *   vec_store(p, v), vec_store_part(p, v, n)
 *   vec_add(a, b), vec_fma(a, b, c) a + b, a b + c
 *   vec_sum(v)                      the sum of the lanes
 *   vec_sums(v, to)                 that of each of v[DOT_ROWS] to to[DOT_ROWS]
 *   DOT_ROWS                        weight rows of a dot tile: DOT_ROWS x 4 sums must fit the
 *                                   registers
 *   MIX_VECS                        vectors of columns that `mix` holds in registers for each of
 *                                   four rows
 *   vec_max, PANEL_VECS, PANEL_SUMS, PANEL_TABLE   see simd_panel.h
 *   SIMD_TABLE, SIMD_NAME           the table to define
 *   DOT_FEW                         its dot_rows
 *
 * dot: a tile of DOT_ROWS weight rows x 4 input rows keeps its sums in registers, so that a loaded
 * (and converted) vector of weights serves four inputs and a loaded input all its weight rows. One
 * input row alone is bound by reading: there one long weight row at a time is streamed, and 16-bit
 * weights come in by loads of a whole register. One core of an EPYC 9004, bf16 from memory, GB/s:
 * 22; by loads of half a register 16; four weight rows at once 11; a bare sum of the memory 24.
 * dtype and tile sizes are constants in every inlined copy.
 *
 * exp: Cody and Waite's reduction x = k ln 2 + r, |r| <= ln 2 / 2, then exp(r) by a polynomial
 * (Cephes' expf; the Taylor sum of degree 13 in double, remainder 4e-18), then 2^k by its bits. k
 * is had by adding 1.5 * 2^mantissa, whose low bits then hold k. Below the normal range the result
 * is 0, so that a masked score (-inf) gets no weight at all; NaN stays NaN. */

#ifdef __clang__
#pragma clang diagnostic ignored                                                                   \
    "-Wpass-failed" /* unoptimised builds leave `omp simd` loops scalar, as they should */
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE void dot_tile(enum fkv_dtype t, int wn, int xn, const char *w, size_t w_stride,
                     const float *x, size_t x_stride, int32_t cols, float *y, size_t y_stride) {
    size_t bytes = t == FKV_F32 ? 4 : 2, step = w_stride * bytes;
    const char *next = step * DOT_ROWS <= FKV_AHEAD ? w + FKV_AHEAD : NULL;
    vec sum[DOT_ROWS][4];
    for (int i = 0; i < wn; i++)
        for (int j = 0; j < xn; j++) sum[i][j] = vec_zero();
    int32_t c = 0;
    for (; c + LANES <= cols; c += LANES) {
        vec in[4];
        for (int j = 0; j < xn; j++) in[j] = vec_load(x + (size_t)j * x_stride + c, FKV_F32);
        for (int i = 0; next && i < wn; i++, next += LANES * bytes) __builtin_prefetch(next);
        for (int i = 0; i < wn; i++) {
            vec weight = vec_load(w + (size_t)i * step + (size_t)c * bytes, t);
            for (int j = 0; j < xn; j++) sum[i][j] = vec_fma(weight, in[j], sum[i][j]);
        }
    }
    if (c < cols)
        for (int i = 0; i < wn; i++) {
            vec weight = vec_part(w + (size_t)i * step + (size_t)c * bytes, t, cols - c);
            for (int j = 0; j < xn; j++)
                sum[i][j] = vec_fma(
                    weight, vec_part(x + (size_t)j * x_stride + c, FKV_F32, cols - c), sum[i][j]);
        }
    for (int j = 0; j < xn; j++) {
        float *to = y + (size_t)j * y_stride;
        vec column[DOT_ROWS];
        for (int i = 0; i < wn; i++) column[i] = sum[i][j];
        if (wn == DOT_ROWS)
            vec_sums(column, to);
        else
            for (int i = 0; i < wn; i++) to[i] = vec_sum(column[i]);
    }
}

/* One weight row with one input: a single stream, four sums along it to hide the latency of adding.
 * The result is the sum of the lanes. */
INLINE vec dot_one(enum fkv_dtype t, const char *w, const float *x, int32_t cols) {
    size_t bytes = t == FKV_F32 ? 4 : 2;
    vec sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    int32_t c = 0;
    for (; c + 4 * LANES <= cols; c += 4 * LANES) {
        const char *next = w + (size_t)c * bytes + FKV_AHEAD;
        for (size_t l = 0; l < 4 * LANES * bytes; l += 64) __builtin_prefetch(next + l);
        vec_fma_two(w + (size_t)c * bytes, t, x + c, sum);
        vec_fma_two(w + (size_t)(c + 2 * LANES) * bytes, t, x + c + 2 * LANES, sum + 2);
    }
    for (; c + LANES <= cols; c += LANES)
        sum[0] = vec_fma(vec_load(w + (size_t)c * bytes, t), vec_load(x + c, FKV_F32), sum[0]);
    if (c < cols)
        sum[1] = vec_fma(vec_part(w + (size_t)c * bytes, t, cols - c),
                         vec_part(x + c, FKV_F32, cols - c), sum[1]);
    return vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3]));
}

/* wn weight rows (a constant) against all inputs, four at a time. */
INLINE void dot_rows(enum fkv_dtype t, int wn, const char *w, size_t w_stride, const float *x,
                     size_t x_stride, int32_t xn, int32_t cols, float *y, size_t y_stride) {
    int32_t j = 0;
    for (; j + 4 <= xn; j += 4)
        dot_tile(t, wn, 4, w, w_stride, x + (size_t)j * x_stride, x_stride, cols,
                 y + (size_t)j * y_stride, y_stride);
    x += (size_t)j * x_stride, y += (size_t)j * y_stride;
    if (xn - j == 1) dot_tile(t, wn, 1, w, w_stride, x, x_stride, cols, y, y_stride);
    if (xn - j == 2) dot_tile(t, wn, 2, w, w_stride, x, x_stride, cols, y, y_stride);
    if (xn - j == 3) dot_tile(t, wn, 3, w, w_stride, x, x_stride, cols, y, y_stride);
}

INLINE void dot(enum fkv_dtype t, const char *w, size_t w_stride, int32_t wn, const float *x,
                size_t x_stride, int32_t xn, int32_t cols, float *y, size_t y_stride) {
    size_t row = w_stride * fkv_dtype_bytes(t);
    int32_t i = 0;
    for (; xn == 1 && row * DOT_ROWS > FKV_AHEAD && i + DOT_ROWS <= wn; i += DOT_ROWS) {
        vec lanes[DOT_ROWS];
        for (int r = 0; r < DOT_ROWS; r++)
            lanes[r] = dot_one(t, w + (size_t)(i + r) * row, x, cols);
        vec_sums(lanes, y + i);
    }
    for (; i + DOT_ROWS <= wn; i += DOT_ROWS)
        dot_rows(t, DOT_ROWS, w + (size_t)i * row, w_stride, x, x_stride, xn, cols, y + i,
                 y_stride);
    for (; i < wn; i++)
        dot_rows(t, 1, w + (size_t)i * row, w_stride, x, x_stride, xn, cols, y + i, y_stride);
}

/* y (pn, `vecs` vectors at column c) += p w; pn and vecs are constants. `fetch`: whole rows ahead,
 * for the tiles of later columns too. */
INLINE void mix_tile(enum fkv_dtype t, int pn, int vecs, bool fetch, const float *p,
                     size_t p_stride, const char *w, size_t row, int32_t wn, float *y,
                     size_t y_stride) {
    size_t bytes = t == FKV_F32 ? 4 : 2;
    vec sum[4][MIX_VECS];
    for (int j = 0; j < pn; j++)
        for (int v = 0; v < vecs; v++)
            sum[j][v] = vec_load(y + (size_t)j * y_stride + v * LANES, FKV_F32);
    for (int32_t i = 0; i < wn; i++) {
        for (size_t l = 0; fetch && l < row; l += 64)
            __builtin_prefetch(w + (size_t)i * row + FKV_AHEAD + l);
        vec in[MIX_VECS];
        for (int v = 0; v < vecs; v++)
            in[v] = vec_load(w + (size_t)i * row + (size_t)v * LANES * bytes, t);
        for (int j = 0; j < pn; j++) {
            vec factor = vec_set(p[(size_t)j * p_stride + (size_t)i]);
            for (int v = 0; v < vecs; v++) sum[j][v] = vec_fma(factor, in[v], sum[j][v]);
        }
    }
    for (int j = 0; j < pn; j++)
        for (int v = 0; v < vecs; v++) vec_store(y + (size_t)j * y_stride + v * LANES, sum[j][v]);
}

/* The last n < LANES columns. */
INLINE void mix_rest(enum fkv_dtype t, int pn, int32_t n, const float *p, size_t p_stride,
                     const char *w, size_t row, int32_t wn, float *y, size_t y_stride) {
    for (int j = 0; j < pn; j++) {
        vec sum = vec_part(y + (size_t)j * y_stride, FKV_F32, n);
        for (int32_t i = 0; i < wn; i++)
            sum = vec_fma(vec_set(p[(size_t)j * p_stride + (size_t)i]),
                          vec_part(w + (size_t)i * row, t, n), sum);
        vec_store_part(y + (size_t)j * y_stride, sum, n);
    }
}

INLINE void mix_rows(enum fkv_dtype t, int pn, const float *p, size_t p_stride, const char *w,
                     size_t row, int32_t wn, int32_t cols, float *y, size_t y_stride) {
    size_t bytes = t == FKV_F32 ? 4 : 2;
    int32_t c = 0;
    for (; c + MIX_VECS * LANES <= cols; c += MIX_VECS * LANES)
        mix_tile(t, pn, MIX_VECS, c == 0, p, p_stride, w + (size_t)c * bytes, row, wn, y + c,
                 y_stride);
    for (; c + LANES <= cols; c += LANES)
        mix_tile(t, pn, 1, c == 0, p, p_stride, w + (size_t)c * bytes, row, wn, y + c, y_stride);
    if (c < cols)
        mix_rest(t, pn, cols - c, p, p_stride, w + (size_t)c * bytes, row, wn, y + c, y_stride);
}

INLINE void mix(enum fkv_dtype t, const float *p, size_t p_stride, int32_t pn, const char *w,
                size_t w_stride, int32_t wn, int32_t cols, float *y, size_t y_stride) {
    size_t row = w_stride * fkv_dtype_bytes(t);
    int32_t j = 0;
    for (; j + 4 <= pn; j += 4)
        mix_rows(t, 4, p + (size_t)j * p_stride, p_stride, w, row, wn, cols,
                 y + (size_t)j * y_stride, y_stride);
    p += (size_t)j * p_stride, y += (size_t)j * y_stride;
    if (pn - j == 1) mix_rows(t, 1, p, p_stride, w, row, wn, cols, y, y_stride);
    if (pn - j == 2) mix_rows(t, 2, p, p_stride, w, row, wn, cols, y, y_stride);
    if (pn - j == 3) mix_rows(t, 3, p, p_stride, w, row, wn, cols, y, y_stride);
}

#define DOT_AND_MIX(suffix, t)                                                                     \
    static void dot_##suffix(const void *w, size_t w_stride, int32_t wn, const float *x,           \
                             size_t x_stride, int32_t xn, int32_t cols, float *y,                  \
                             size_t y_stride) {                                                    \
        dot(t, w, w_stride, wn, x, x_stride, xn, cols, y, y_stride);                               \
    }                                                                                              \
    static void mix_##suffix(const float *p, size_t p_stride, int32_t pn, const void *w,           \
                             size_t w_stride, int32_t wn, int32_t cols, float *y,                  \
                             size_t y_stride) {                                                    \
        mix(t, p, p_stride, pn, w, w_stride, wn, cols, y, y_stride);                               \
    }
DOT_AND_MIX(f32, FKV_F32)
DOT_AND_MIX(f16, FKV_F16)
DOT_AND_MIX(bf16, FKV_BF16)

INLINE float exp_float(float x) {
    x = x < -88.0f ? -88.0f : x;
    x = x > 88.3f ? 88.3f : x;
    const float magic = 0x1.8p23f;
    float shifted = x * 1.44269504f + magic, k = shifted - magic;
    float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    float e = 1.9875691500e-4f;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * (r * r) + r + 1;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return e * power;
}

INLINE double exp_double(double x) {
    x = x < -709.0 ? -709.0 : x;
    x = x > 709.0 ? 709.0 : x;
    const double magic = 0x1.8p52;
    double shifted = x * 1.4426950408889634 + magic, k = shifted - magic;
    double r = (x - k * 0x1.62e42fefa3800p-1) - k * 0x1.ef35793c76730p-45;
    double e = 1.0 / 6227020800;
    e = e * r + 1.0 / 479001600;
    e = e * r + 1.0 / 39916800;
    e = e * r + 1.0 / 3628800;
    e = e * r + 1.0 / 362880;
    e = e * r + 1.0 / 40320;
    e = e * r + 1.0 / 5040;
    e = e * r + 1.0 / 720;
    e = e * r + 1.0 / 120;
    e = e * r + 1.0 / 24;
    e = e * r + 1.0 / 6;
    e = e * r + 0.5;
    e = e * (r * r) + r + 1;
    uint64_t bits;
    memcpy(&bits, &shifted, 8);
    bits = (bits + 1023) << 52;
    double power;
    memcpy(&power, &bits, 8);
    return e * power;
}

/* Rows of y are far apart, so that no hardware prefetcher finds them: PLACED_AHEAD rows are asked
 * for before they are written. Products of 512 rows in float32 with that, one core of a Xeon
 * (Emerald Rapids), GFLOP/s: weights 1536 x 576 140 -> 151, 576 x 1536 147 -> 157. */
enum { PLACED_AHEAD = 8, LINE_FLOATS = 16 };

static void place(const float *x, const float *bias, int32_t n, int32_t m, bool add, float *y,
                  size_t stride) {
    for (; m > 0; m--, x += n, y += stride) {
        int32_t i = 0;
        for (int32_t c = 0; m > PLACED_AHEAD && c < n; c += LINE_FLOATS)
            __builtin_prefetch(y + PLACED_AHEAD * stride + c, 1);
        for (; i + LANES <= n; i += LANES) {
            vec sum = vec_add(vec_load(x + i, FKV_F32), vec_load(bias + i, FKV_F32));
            if (add) sum = vec_add(vec_load(y + i, FKV_F32), sum);
            vec_store(y + i, sum);
        }
        for (; i < n; i++) y[i] = add ? y[i] + (x[i] + bias[i]) : x[i] + bias[i];
    }
}

/* Sixteen running maxima, which compilers turn into vectors where they leave a reduction to
 * scalars. */
static float largest(const float *x, int32_t n) {
    float top[16];
    for (int l = 0; l < 16; l++) top[l] = -INFINITY;
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    for (; i < n; i++) top[0] = x[i] > top[0] ? x[i] : top[0];
    for (int l = 1; l < 16; l++) top[0] = top[l] > top[0] ? top[l] : top[0];
    return top[0];
}

static float exp_sum(float *x, int32_t n, float shift) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++) {
        x[i] = exp_float(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

static void swish(float *gate, const float *up, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1 + exp_float(-gate[i])) * up[i];
}

/* z (1 + tanh(u)) / 2 = z / (1 + exp(-2 u)) */
static void gelu(float *gate, const float *up, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float z = gate[i], u = 0.797884561f * (z + 0.044715f * z * z * z);
        gate[i] = z / (1 + exp_float(-2 * u)) * up[i];
    }
}

/* tanh(z) = (1 - e) / (1 + e), e = exp(-2 z), for z >= 0; errs by 1e-7 at most */
static void cap_all(float *x, size_t n, float cap) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float z = x[i] / cap, size = z < 0 ? -z : z, e = exp_float(-2 * size),
              t = cap * (1 - e) / (1 + e);
        x[i] = z < 0 ? -t : t;
    }
}

static void turn_by(const float *x, const float *turn, int32_t half, int32_t d, float *y) {
#pragma omp simd
    for (int32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], c = turn[i], s = turn[i + half];
        y[i] = a * c - b * s;
        y[i + half] = b * c + a * s;
    }
    for (int32_t i = 2 * half; i < d; i++) y[i] = x[i];
}

static void turn_back(float *x, const float *turn, int32_t half) {
#pragma omp simd
    for (int32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], c = turn[i], s = turn[i + half];
        x[i] = a * c + b * s;
        x[i + half] = b * c - a * s;
    }
}

/* Four sums: with one, each addition would wait for the one before. */
static double energy(const float *x, size_t n) {
    const size_t part = n / 4;
    const float *y = x + part, *z = y + part, *w = z + part;
    double a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (size_t i = 0; i < part; i++) {
        a += (double)x[i] * x[i];
        b += (double)y[i] * y[i];
        c += (double)z[i] * z[i];
        d += (double)w[i] * w[i];
    }
    for (size_t i = 4 * part; i < n; i++) a += (double)x[i] * x[i];
    return (a + b) + (c + d);
}

static void normalise(const float *x, const float *factors, int32_t n, float eps, float *y) {
    const float factor = (float)(1 / sqrt(energy(x, (size_t)n) / n + (double)eps));
#pragma omp simd
    for (int32_t i = 0; i < n; i++) y[i] = x[i] * factor * factors[i];
}

static double sum_exp(const float *x, int32_t n, double shift) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < n; i++) sum += exp_double((double)x[i] - shift);
    return sum;
}

static double sum_gap(const float *p, const float *q, int32_t n, double shift, double *gap) {
    double sum = 0, weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
    for (int32_t i = 0; i < n; i++) {
        double e = exp_double((double)p[i] - shift);
        sum += e;
        weighted += p[i] > -INFINITY ? e * ((double)p[i] - q[i]) : 0;
    }
    *gap = weighted;
    return sum;
}

#define PANEL_STEP 1
#define PANEL_PACK NULL
#define panel_fold(a, b, c) vec_fma(a, b, c)
#define panel_word(e) (e)[0]
#include "kernels/cpu/simd_panel.h"

const struct fkv_simd SIMD_TABLE = {
    .name = SIMD_NAME,
    .panel = &PANEL_TABLE,
    .dot = {[FKV_F32] = dot_f32, [FKV_F16] = dot_f16, [FKV_BF16] = dot_bf16},
    .mix = {[FKV_F32] = mix_f32, [FKV_F16] = mix_f16, [FKV_BF16] = mix_bf16},
    .dot_rows = DOT_FEW,
    .place = place,
    .largest = largest,
    .exp_sum = exp_sum,
    .swish = swish,
    .gelu = gelu,
    .cap = cap_all,
    .turn = turn_by,
    .turn_back = turn_back,
    .energy = energy,
    .normalise = normalise,
    .sum_exp = sum_exp,
    .sum_gap = sum_gap,
};
