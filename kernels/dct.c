/* The DCT through FFTW, the only file that knows of it (builds without it use dct_plain.c).
 *
 * Makhoul 1980, "A fast cosine transform in one and two dimensions": with v the even tokens followed by the odd ones reversed, and V its
 * DFT, P + iQ = V_t exp(-i pi t / 2n) holds two coefficients, y_t = P and y_(n-t) = -Q (up to scale). Two real channels a, b travel as one
 * complex one, V = A + iB, and come apart by A_t = (V_t + conj V_(n-t)) / 2, B_t = (V_t - conj V_(n-t)) / 2i. Neighbouring channels of
 * [token][channel] data already are such a pair, so packing is a copy of row pieces. The inverse runs the same steps backwards and uses
 * the same plan: exchanging real and imaginary parts before and after turns a DFT into its inverse (times n).
 *
 * A block is WIDTH channels = one cache line of each row, and FFTW transforms its pairs strided (stride WIDTH/2, distance 1), which needs
 * no transposition.
 *
 * Measured (one core of an EPYC 9004, 1024 channels, ms for the DFT alone): strided blocks of 8 pairs against pairs made contiguous first,
 * n = 4092: 23.6 and 24.0, 2046: 7.7 and 8.1, 1020: 3.1 and 2.7, 8188: 79 and 74, 409: 2.0 and 2.0; the transposition eats what the latter
 * wins. FFTW_MEASURE wins up to 30% (4092: 16.7) but plans for 100 to 900 ms, more than a run's compressions cost. FFTW's own REDFT10 is
 * scalar: four times slower. With packing and unpacking, n = 4092: 27 ms.
 */
#include "kernels/dct.h"

#if !defined(FKV_PLAIN)

#include <fftw3.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 16, PAIRS = WIDTH / 2, ALIGNMENT = 64 };

struct fkv_dct {
    int32_t n;
    fftwf_plan plan;
    float *turn; /* [n/2 + 1][2]: sqrt(2/n)/2 times cos and sin of pi t / 2n; sqrt(1/n), 0 at t = 0 */
};

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER; /* FFTW's planner is not thread-safe; running a plan is */

int fkv_dct_create(int32_t n, struct fkv_dct **out, struct fkv_error *err) {
    *out = NULL;
    if (n < 1) return fkv_fail(err, "a DCT needs at least one token, found %d", n);
    struct fkv_dct *d = calloc(1, sizeof *d);
    fftwf_complex *from = fftwf_malloc(sizeof *from * PAIRS * (size_t)n),
                  *to = fftwf_malloc(sizeof *to * PAIRS * (size_t)n);
    if (d) d->turn = malloc(sizeof *d->turn * ((size_t)n / 2 + 1) * 2);
    if (d && from && to && d->turn) {
        d->n = n;
        pthread_mutex_lock(&planner);
        d->plan = fftwf_plan_many_dft(1, &n, PAIRS, from, NULL, PAIRS, 1, to, NULL, PAIRS, 1, FFTW_FORWARD,
                                      FFTW_ESTIMATE | FFTW_DESTROY_INPUT);
        pthread_mutex_unlock(&planner);
    }
    fftwf_free(from);
    fftwf_free(to);
    if (!d || !d->plan) {
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
    pthread_mutex_lock(&planner);
    if (d->plan) fftwf_destroy_plan(d->plan);
    pthread_mutex_unlock(&planner);
    free(d->turn);
    free(d);
}

size_t fkv_dct_scratch(const struct fkv_dct *d) { return 2 * (size_t)d->n * WIDTH + ALIGNMENT / sizeof(float); }

static float *align(float *at) { return (float *)(((uintptr_t)at + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1)); }

/* Row of the token that stands at place j of Makhoul's order */
static int32_t token_at(int32_t j, int32_t n) { return j < (n + 1) / 2 ? 2 * j : 2 * (n - j) - 1; }

/* One row piece of a block; a last block of fewer channels is filled up with zeros. */
static void load(const float *restrict from, int32_t width, float *restrict to) {
    if (width == WIDTH)
        memcpy(to, from, WIDTH * sizeof *to);
    else {
        memset(to, 0, WIDTH * sizeof *to);
        memcpy(to, from, (size_t)width * sizeof *to);
    }
}

static void store(const float *restrict from, int32_t width, float *restrict to) {
    if (width == WIDTH)
        memcpy(to, from, WIDTH * sizeof *to);
    else
        memcpy(to, from, (size_t)width * sizeof *to);
}

/* Spectrum rows t and u = n - t of packed channels -> coefficients t and u */
static void unpack(const float *restrict vt, const float *restrict vu, float c, float s, float *restrict yt,
                   float *restrict yu) {
    for (int i = 0; i < WIDTH; i += 2) {
        float ar = vt[i] + vu[i], ai = vt[i + 1] - vu[i + 1];
        float br = vt[i + 1] + vu[i + 1], bi = vu[i] - vt[i];
        yt[i] = c * ar + s * ai, yu[i] = s * ar - c * ai;
        yt[i + 1] = c * br + s * bi, yu[i + 1] = s * br - c * bi;
    }
}

/* The reverse, with real and imaginary parts exchanged */
static void pack(const float *restrict yt, const float *restrict yu, float c, float s, float *restrict vt,
                 float *restrict vu) {
    for (int i = 0; i < WIDTH; i += 2) {
        float ar = c * yt[i] + s * yu[i], ai = s * yt[i] - c * yu[i];
        float br = c * yt[i + 1] + s * yu[i + 1], bi = s * yt[i + 1] - c * yu[i + 1];
        vt[i + 1] = ar - bi, vt[i] = ai + br;
        vu[i + 1] = ar + bi, vu[i] = br - ai;
    }
}

void fkv_dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels, float *y,
                     size_t y_stride, float *scratch) {
    int32_t n = d->n;
    float *from = align(scratch), *to = from + (size_t)n * WIDTH;
    for (int32_t first = 0; first < channels; first += WIDTH, x += WIDTH, y += WIDTH) {
        int32_t width = channels - first < WIDTH ? channels - first : WIDTH;
        for (int32_t j = 0; j < n; j++) load(x + (size_t)token_at(j, n) * x_stride, width, from + (size_t)j * WIDTH);
        fftwf_execute_dft(d->plan, (fftwf_complex *)from, (fftwf_complex *)to);
        float row[2][WIDTH];
        for (int i = 0; i < WIDTH; i++) row[0][i] = d->turn[0] * to[i];
        store(row[0], width, y);
        for (int32_t t = 1, u = n - 1; t <= u; t++, u--) {
            unpack(to + (size_t)t * WIDTH, to + (size_t)u * WIDTH, d->turn[2 * t], d->turn[2 * t + 1], row[0], row[1]);
            store(row[0], width, y + (size_t)t * y_stride);
            store(row[1], width, y + (size_t)u * y_stride);
        }
    }
}

void fkv_dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels, float *x,
                     size_t x_stride, float *scratch) {
    int32_t n = d->n;
    float *from = align(scratch), *to = from + (size_t)n * WIDTH;
    for (int32_t first = 0; first < channels; first += WIDTH, x += WIDTH, y += WIDTH) {
        int32_t width = channels - first < WIDTH ? channels - first : WIDTH;
        float row[2][WIDTH];
        load(y, width, row[0]);
        for (int i = 0; i < WIDTH; i++) from[i ^ 1] = d->turn[0] * row[0][i];
        for (int32_t t = 1, u = n - 1; t <= u; t++, u--) {
            load(y + (size_t)t * y_stride, width, row[0]);
            load(y + (size_t)u * y_stride, width, row[1]);
            pack(row[0], row[1], d->turn[2 * t], d->turn[2 * t + 1], from + (size_t)t * WIDTH,
                 from + (size_t)u * WIDTH);
        }
        fftwf_execute_dft(d->plan, (fftwf_complex *)from, (fftwf_complex *)to);
        for (int32_t j = 0; j < n; j++) {
            for (int i = 0; i < WIDTH; i++) row[0][i] = to[(size_t)j * WIDTH + (size_t)(i ^ 1)];
            store(row[0], width, x + (size_t)token_at(j, n) * x_stride);
        }
    }
}
#endif
