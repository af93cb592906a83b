/* The DCT with nothing but C, for builds without FFTW (FKV_PLAIN): the O(n^2) sum in double precision over blocks of channels. The angles
 * pi t (2j + 1) / 2n repeat with 4n, so one table of 4n cosines serves every coefficient and t (2j + 1) mod 4n is its exact index. */
#include "kernels/dct.h"

#if defined(FKV_PLAIN)

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 16 };

struct fkv_dct {
    int32_t n;
    double *cosine; /* [4n]: sqrt(2/n) cos(pi m / 2n) */
};

int fkv_dct_create(int32_t n, struct fkv_dct **out, struct fkv_error *err) {
    *out = NULL;
    if (n < 1) return fkv_fail(err, "a DCT needs at least one token, found %d", n);
    struct fkv_dct *d = calloc(1, sizeof *d);
    if (d) d->cosine = malloc(sizeof *d->cosine * 4 * (size_t)n);
    if (!d || !d->cosine) {
        fkv_dct_destroy(d);
        return fkv_fail(err, "no memory for a DCT of %d tokens", n);
    }
    d->n = n;
    for (int32_t m = 0; m < 4 * n; m++) d->cosine[m] = sqrt(2.0 / n) * cos(acos(-1) * m / (2.0 * n));
    *out = d;
    return FKV_OK;
}

void fkv_dct_destroy(struct fkv_dct *d) {
    if (!d) return;
    free(d->cosine);
    free(d);
}

size_t fkv_dct_scratch(const struct fkv_dct *d) { return (size_t)d->n * WIDTH; }

/* Sums over `row` what `weight(row)` = table[(first + row * step) mod 4n] gives: one output row of a block of channels. */
static void weighted_sum(const struct fkv_dct *d, const float *rows, int64_t first, int64_t step, bool halve_first,
                         float *out, int32_t width) {
    double sum[WIDTH] = {0};
    int64_t period = 4 * (int64_t)d->n, at = first % period;
    step %= period;
    for (int32_t row = 0; row < d->n; row++, at = (at + step) % period) {
        double weight = d->cosine[at] * (halve_first && row == 0 ? sqrt(0.5) : 1);
        for (int i = 0; i < WIDTH; i++) sum[i] += weight * rows[(size_t)row * WIDTH + i];
    }
    for (int i = 0; i < width; i++) out[i] = (float)sum[i];
}

/* y_t = sum_j x_j table[t (2j + 1)], x_j = sum_t y_t table[t (2j + 1)], with coefficient 0 times 1/sqrt(2) */
static void transform(const struct fkv_dct *d, bool forward, const float *x, size_t x_stride, int32_t channels,
                      float *y, size_t y_stride, float *scratch) {
    for (int32_t first = 0; first < channels; first += WIDTH, x += WIDTH, y += WIDTH) {
        int32_t width = channels - first < WIDTH ? channels - first : WIDTH;
        memset(scratch, 0, sizeof *scratch * WIDTH * (size_t)d->n);
        for (int32_t j = 0; j < d->n; j++)
            memcpy(scratch + (size_t)j * WIDTH, x + (size_t)j * x_stride, sizeof *x * (size_t)width);
        for (int32_t t = 0; t < d->n; t++) {
            float *out = y + (size_t)t * y_stride;
            if (forward)
                weighted_sum(d, scratch, t, 2 * (int64_t)t, false, out, width);
            else
                weighted_sum(d, scratch, 0, 2 * (int64_t)t + 1, true, out, width);
            if (forward && t == 0)
                for (int i = 0; i < width; i++) out[i] *= (float)sqrt(0.5);
        }
    }
}

void fkv_dct_forward(const struct fkv_dct *d, const float *x, size_t x_stride, int32_t channels, float *y,
                     size_t y_stride, float *scratch) {
    transform(d, true, x, x_stride, channels, y, y_stride, scratch);
}

void fkv_dct_inverse(const struct fkv_dct *d, const float *y, size_t y_stride, int32_t channels, float *x,
                     size_t x_stride, float *scratch) {
    transform(d, false, y, y_stride, channels, x, x_stride, scratch);
}
#endif
