/* The DFT of lengths with a large prime factor in builds without FFTW (FKV_PLAIN): the O(n^2) sum,
 * accumulated in double precision. */
#include "kernels/dct/core.h"

#if defined(FKV_PLAIN)

#include <math.h>
#include <stdlib.h>

struct fkv_dft {
    int32_t n, lanes;
    double turn[][2]; /* [n]: cos, sin of 2 pi m / n */
};

struct fkv_dft *fkv_dft_create(int32_t n, int32_t lanes) {
    struct fkv_dft *dft = malloc(sizeof *dft + sizeof *dft->turn * (size_t)n);
    if (!dft) return NULL;
    dft->n = n;
    dft->lanes = lanes;
    for (int32_t m = 0; m < n; m++) {
        dft->turn[m][0] = cos(2 * acos(-1) * m / n);
        dft->turn[m][1] = sin(2 * acos(-1) * m / n);
    }
    return dft;
}

void fkv_dft_destroy(struct fkv_dft *dft) { free(dft); }

enum { MOST_LANES = 16 };

void fkv_dft_run(const struct fkv_dft *dft, float *x, float *y) {
    size_t lanes = (size_t)dft->lanes;
    for (int32_t t = 0; t < dft->n; t++, y += 2 * lanes) {
        double re[MOST_LANES] = {0}, im[MOST_LANES] = {0};
        const float *row = x;
        int64_t m = 0; /* t j mod n */
        for (int32_t j = 0; j < dft->n; j++, m = (m + t) % dft->n, row += 2 * lanes) {
            double c = dft->turn[m][0], s = dft->turn[m][1];
            for (size_t i = 0; i < lanes; i++) {
                re[i] += c * row[i] + s * row[i + lanes];
                im[i] += c * row[i + lanes] - s * row[i];
            }
        }
        for (size_t i = 0; i < lanes; i++) y[i] = (float)re[i], y[i + lanes] = (float)im[i];
    }
}
#endif
