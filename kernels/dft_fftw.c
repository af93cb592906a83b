/* The DFT of sizes with a large prime factor, through FFTW; the only file that knows of it. Rows hold real and imaginary parts apart, which is
 * FFTW's split format with stride 16 and the eight lanes as a loop of distance 1.
 *
 * Plans are ESTIMATEd: FFTW_MEASURE wins up to 30%, but plans for 100 to 900 ms, more than a run's compressions cost. */
#include "kernels/dft.h"

#if !defined(FKV_PLAIN)

#include <fftw3.h>
#include <pthread.h>
#include <stdlib.h>

struct fkv_dft_any {
    fftwf_plan plan;
};

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER; /* FFTW's planner is not thread-safe; running a plan is */

struct fkv_dft_any *fkv_dft_any_create(int32_t n) {
    size_t bytes = sizeof(float) * FKV_DFT_ROW * (size_t)n;
    struct fkv_dft_any *any = calloc(1, sizeof *any);
    float *x = aligned_alloc(64, bytes),
          *y = aligned_alloc(64, bytes); /* their alignment is all that an estimate looks at */
    if (any && x && y) {
        fftwf_iodim points = {n, FKV_DFT_ROW, FKV_DFT_ROW}, lanes = {FKV_DFT_LANES, 1, 1};
        pthread_mutex_lock(&planner);
        any->plan = fftwf_plan_guru_split_dft(1, &points, 1, &lanes, x, x + FKV_DFT_LANES, y, y + FKV_DFT_LANES,
                                              FFTW_ESTIMATE | FFTW_DESTROY_INPUT);
        pthread_mutex_unlock(&planner);
    }
    free(x);
    free(y);
    if (any && any->plan) return any;
    free(any);
    return NULL;
}

void fkv_dft_any_destroy(struct fkv_dft_any *any) {
    if (!any) return;
    pthread_mutex_lock(&planner);
    fftwf_destroy_plan(any->plan);
    pthread_mutex_unlock(&planner);
    free(any);
}

float *fkv_dft_any_run(const struct fkv_dft_any *any, float *x, float *other) {
    fftwf_execute_split_dft(any->plan, x, x + FKV_DFT_LANES, other, other + FKV_DFT_LANES);
    return other;
}
#endif
