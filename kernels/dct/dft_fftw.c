/* The DFT of lengths with a large prime factor, through FFTW; the only file that knows of it. Rows
 * hold real and imaginary parts apart, which is FFTW's split format with the lanes as a loop of
 * distance 1.
 *
 * Plans are ESTIMATEd: FFTW_MEASURE wins up to 30%, but plans for 100 to 900 ms, more than a run's
 * compressions cost. */
#include "kernels/dct/core.h"

#if !defined(FKV_PLAIN)

#include <fftw3.h>
#include <pthread.h>
#include <stdlib.h>

struct fkv_dft {
    fftwf_plan plan;
    int32_t lanes;
};

static pthread_mutex_t planner =
    PTHREAD_MUTEX_INITIALIZER; /* FFTW's planner is not thread-safe; running a plan is */

static fftwf_plan make_plan(int32_t n, int32_t lanes) {
    size_t bytes = (size_t)n * 2 * (size_t)lanes * sizeof(float);
    bytes = (bytes + 63) / 64 * 64;
    float *x = aligned_alloc(64, bytes),
          *y = aligned_alloc(64, bytes); /* an estimate looks at their alignment only */
    fftwf_iodim points = {n, 2 * lanes, 2 * lanes}, signals = {lanes, 1, 1};
    fftwf_plan plan = NULL;
    if (x && y) {
        pthread_mutex_lock(&planner);
        plan = fftwf_plan_guru_split_dft(1, &points, 1, &signals, x, x + lanes, y, y + lanes,
                                         FFTW_ESTIMATE | FFTW_DESTROY_INPUT);
        pthread_mutex_unlock(&planner);
    }
    free(x);
    free(y);
    return plan;
}

struct fkv_dft *fkv_dft_create(int32_t n, int32_t lanes) {
    struct fkv_dft *dft = malloc(sizeof *dft);
    if (!dft) return NULL;
    *dft = (struct fkv_dft){make_plan(n, lanes), lanes};
    if (dft->plan) return dft;
    free(dft);
    return NULL;
}

void fkv_dft_destroy(struct fkv_dft *dft) {
    if (!dft) return;
    pthread_mutex_lock(&planner);
    fftwf_destroy_plan(dft->plan);
    pthread_mutex_unlock(&planner);
    free(dft);
}

void fkv_dft_run(const struct fkv_dft *dft, float *x, float *y) {
    fftwf_execute_split_dft(dft->plan, x, x + dft->lanes, y, y + dft->lanes);
}
#endif
