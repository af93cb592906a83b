/* The DFT of sizes with a large prime factor in builds without FFTW (FKV_PLAIN): the O(n^2) sum, accumulated in double precision. */
#include "kernels/dft.h"

#if defined(FKV_PLAIN)

#include <math.h>
#include <stdlib.h>

struct fkv_dft_any {
    int32_t n;
    double turn[][2]; /* [n]: cos, sin of 2 pi m / n */
};

struct fkv_dft_any *fkv_dft_any_create(int32_t n) {
    struct fkv_dft_any *any = malloc(sizeof *any + sizeof *any->turn * (size_t)n);
    if (!any) return NULL;
    any->n = n;
    for (int32_t m = 0; m < n; m++) {
        any->turn[m][0] = cos(2 * acos(-1) * m / n);
        any->turn[m][1] = sin(2 * acos(-1) * m / n);
    }
    return any;
}

void fkv_dft_any_destroy(struct fkv_dft_any *any) { free(any); }

float *fkv_dft_any_run(const struct fkv_dft_any *any, float *x, float *other) {
    for (int32_t t = 0; t < any->n; t++) {
        double re[FKV_DFT_LANES] = {0}, im[FKV_DFT_LANES] = {0};
        int64_t m = 0; /* t j mod n */
        for (int32_t j = 0; j < any->n; j++, m = (m + t) % any->n) {
            const float *row = x + (size_t)j * FKV_DFT_ROW;
            double c = any->turn[m][0], s = any->turn[m][1];
            for (int i = 0; i < FKV_DFT_LANES; i++) {
                re[i] += c * row[i] + s * row[i + FKV_DFT_LANES];
                im[i] += c * row[i + FKV_DFT_LANES] - s * row[i];
            }
        }
        for (int i = 0; i < FKV_DFT_LANES; i++) {
            other[(size_t)t * FKV_DFT_ROW + (size_t)i] = (float)re[i];
            other[(size_t)t * FKV_DFT_ROW + (size_t)(i + FKV_DFT_LANES)] = (float)im[i];
        }
    }
    return other;
}
#endif
