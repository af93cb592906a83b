/* The DCT by way of a complex DFT.
 *
 * Makhoul 1980, "A fast cosine transform in one and two dimensions": with v the even tokens followed by the odd ones reversed, and V its
 * DFT, P + iQ = V_t exp(-i pi t / 2n) holds two coefficients, y_t = P and y_(n-t) = -Q (up to scale). Two real channels a, b travel as one
 * complex one, V = A + iB, and come apart by A_t = (V_t + conj V_(n-t)) / 2, B_t = (V_t - conj V_(n-t)) / 2i. The inverse runs the same steps
 * backwards on the same plan: exchanging real and imaginary parts before and after turns a DFT into its inverse (times n).
 *
 * A block is 16 channels, one cache line of each row: the first eight become real parts, the others imaginary, so that going in and out of
 * the DFT's rows is a copy. A pair shares one transform's rounding: beside a channel 1000 times as large, the smaller keeps three digits less.
 *
 * Dropped, for 4092 tokens x 1024 channels on one core of an EPYC 9004: FFTW's REDFT10, which is scalar (65 to 100 ms); FFTW's complex
 * DFT for every size, strided or transposed (28 ms in all); scipy's pocketfft (17 ms). This way takes 16 ms over rows of 1024 channels, of which
 * the transform itself is 4 and the rest waits for memory, and 11 ms as eight heads of 128; 2046: 7.8 and 5.7, 1020: 3.1 and 1.9, 508: 2.0
 * and 1.6, 8188: 47 and 33 (FFTW for all: 12, 5.8, 3.1, 114). Prefetching rows and AVX2 for packing changed nothing.
 */
#include "kernels/dct.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dft.h"

enum { WIDTH = FKV_DFT_ROW, LANES = FKV_DFT_LANES, ALIGNMENT = 64 };

struct fkv_dct {
    int32_t n;
    struct fkv_dft_radix *radix; /* one of the two */
    struct fkv_dft_any *any;
    float *turn; /* [n/2 + 1][2]: sqrt(2/n)/2 times cos and sin of pi t / 2n; sqrt(1/n), 0 at t = 0 */
};

int fkv_dct_create(int32_t n, struct fkv_dct **out, struct fkv_error *err) {
    *out = NULL;
    if (n < 1) return fkv_fail(err, "a DCT needs at least one token, found %d", n);
    struct fkv_dct *d = calloc(1, sizeof *d);
    if (d) {
        d->n = n;
        if (fkv_dft_radix_suits(n))
            d->radix = fkv_dft_radix_create(n);
        else
            d->any = fkv_dft_any_create(n);
        d->turn = malloc(sizeof *d->turn * ((size_t)n / 2 + 1) * 2);
    }
    if (!d || !(d->radix || d->any) || !d->turn) {
        fkv_dct_destroy(d);
        return fkv_fail(err, "no memory for a DCT of %d tokens", n);
    }
    double step = acos(-1) / (2.0 * n), scale = sqrt(0.5 / n);
    for (int32_t t = 1; t <= n / 2; t++) {
        d->turn[2 * t] = (float)(scale * cos(t * step));
        d->turn[2 * t + 1] = (float)(scale * sin(t * step));
    }
    d->turn[0] = (float)sqrt(1.0 / n);
    d->turn[1] = 0;
    *out = d;
    return FKV_OK;
}

void fkv_dct_destroy(struct fkv_dct *d) {
    if (!d) return;
    fkv_dft_radix_destroy(d->radix);
    fkv_dft_any_destroy(d->any);
    free(d->turn);
    free(d);
}

size_t fkv_dct_scratch(const struct fkv_dct *d) { return 2 * (size_t)d->n * WIDTH + ALIGNMENT / sizeof(float); }

static float *align(float *at) { return (float *)(((uintptr_t)at + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1)); }

static float *run_dft(const struct fkv_dct *d, float *x, float *other) {
    return d->radix ? fkv_dft_radix_run(d->radix, x, other) : fkv_dft_any_run(d->any, x, other);
}

/* Row of the token that stands at place j of Makhoul's order */
static int32_t token_at(int32_t j, int32_t n) { return j < (n + 1) / 2 ? 2 * j : 2 * (n - j) - 1; }

/* One row piece of a block; a last block of fewer channels is filled up with zeros. */
static inline void load(const float *restrict from, int32_t width, float *restrict to) {
    if (width < WIDTH) memset(to, 0, WIDTH * sizeof *to);
    memcpy(to, from, (width < WIDTH ? (size_t)width : WIDTH) * sizeof *to);
}

static inline void store(const float *restrict from, int32_t width, float *restrict to) {
    memcpy(to, from, (width < WIDTH ? (size_t)width : WIDTH) * sizeof *to);
}

/* Spectrum rows t and u = n - t of packed channels -> coefficients t and u */
static inline void unpack(const float *restrict vt, const float *restrict vu, float c, float s, float *restrict yt,
                          float *restrict yu) {
    for (int i = 0; i < LANES; i++) {
        float ar = vt[i] + vu[i], ai = vt[i + LANES] - vu[i + LANES];
        float br = vt[i + LANES] + vu[i + LANES], bi = vu[i] - vt[i];
        yt[i] = c * ar + s * ai, yu[i] = s * ar - c * ai;
        yt[i + LANES] = c * br + s * bi, yu[i + LANES] = s * br - c * bi;
    }
}

/* The reverse, with real and imaginary parts exchanged */
static inline void pack(const float *restrict yt, const float *restrict yu, float c, float s, float *restrict vt,
                        float *restrict vu) {
    for (int i = 0; i < LANES; i++) {
        float ar = c * yt[i] + s * yu[i], ai = s * yt[i] - c * yu[i];
        float br = c * yt[i + LANES] + s * yu[i + LANES], bi = s * yt[i + LANES] - c * yu[i + LANES];
        vt[i + LANES] = ar - bi, vt[i] = ai + br;
        vu[i + LANES] = ar + bi, vu[i] = br - ai;
    }
}

void fkv_dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels, float *y,
                     size_t y_stride, float *scratch) {
    int32_t n = d->n;
    float *from = align(scratch), *other = from + (size_t)n * WIDTH;
    for (int32_t first = 0; first < channels; first += WIDTH, x += WIDTH, y += WIDTH) {
        int32_t width = channels - first;
        for (int32_t j = 0; j < n; j++) load(x + (size_t)token_at(j, n) * x_stride, width, from + (size_t)j * WIDTH);
        const float *v = run_dft(d, from, other);
        float row[2][WIDTH];
        for (int i = 0; i < WIDTH; i++) row[0][i] = d->turn[0] * v[i];
        store(row[0], width, y);
        for (int32_t t = 1, u = n - 1; t <= u; t++, u--) {
            unpack(v + (size_t)t * WIDTH, v + (size_t)u * WIDTH, d->turn[2 * t], d->turn[2 * t + 1], row[0], row[1]);
            store(row[0], width, y + (size_t)t * y_stride);
            store(row[1], width, y + (size_t)u * y_stride);
        }
    }
}

void fkv_dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels, float *x,
                     size_t x_stride, float *scratch) {
    int32_t n = d->n;
    float *from = align(scratch), *other = from + (size_t)n * WIDTH;
    for (int32_t first = 0; first < channels; first += WIDTH, x += WIDTH, y += WIDTH) {
        int32_t width = channels - first;
        float row[2][WIDTH];
        load(y, width, row[0]);
        for (int i = 0; i < WIDTH; i++) from[i ^ LANES] = d->turn[0] * row[0][i];
        for (int32_t t = 1, u = n - 1; t <= u; t++, u--) {
            load(y + (size_t)t * y_stride, width, row[0]);
            load(y + (size_t)u * y_stride, width, row[1]);
            pack(row[0], row[1], d->turn[2 * t], d->turn[2 * t + 1], from + (size_t)t * WIDTH,
                 from + (size_t)u * WIDTH);
        }
        const float *v = run_dft(d, from, other);
        for (int32_t j = 0; j < n; j++) {
            for (int i = 0; i < WIDTH; i++) row[0][i] = v[(size_t)j * WIDTH + (size_t)(i ^ LANES)];
            store(row[0], width, x + (size_t)token_at(j, n) * x_stride);
        }
    }
}
