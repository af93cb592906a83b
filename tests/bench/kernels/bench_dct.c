/* The DCT in every instruction set: milliseconds of CPU time for 1024 channels, as rows of 1024 and
 * as eight heads of 128, forward, inverse, and both sums of power; beside them FFTW's own forward
 * DCT of the rows. Each is the least of several rounds: what else runs on the machine takes caches
 * away and only ever adds. */
#include <fftw3.h>
#include <math.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/dct/core.h"
#include "tests/bench/kernels/bench.h"

enum { CHANNELS = 1024, HEAD = 128, ROUNDS = 9 };

static const int lengths[] = {508, 1020, 2044, 2046, 4092, 4093, 8188};

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* In huge pages where there are any, as a backend's buffers and numpy's arrays are. */
static float *large_array(size_t floats) {
    enum { HUGE_PAGE = 2 << 20 };
    const size_t bytes = (floats * sizeof(float) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    float *x = aligned_alloc(HUGE_PAGE, bytes);
    if (x) madvise(x, bytes, MADV_HUGEPAGE);
    return x;
}

struct data {
    float *x, *y, *scratch; /* x, y [n, CHANNELS] */
    double *sums;           /* [2, n] */
};

/* What is timed: CHANNELS / width heads, one after another, each n rows of `width` channels */
typedef void operation(const struct fkv_dct *plan, int n, int width, struct data d);

static void forward(const struct fkv_dct *plan, int n, int width, struct data d) {
    for (int c = 0; c < CHANNELS; c += width, d.x += n * width, d.y += n * width)
        fkv_dct_forward(plan, d.x, (size_t)width, width, d.y, (size_t)width, d.scratch);
}

static void inverse(const struct fkv_dct *plan, int n, int width, struct data d) {
    for (int c = 0; c < CHANNELS; c += width, d.x += n * width, d.y += n * width)
        fkv_dct_inverse(plan, d.x, (size_t)width, width, d.y, (size_t)width, d.scratch);
}

static void power(const struct fkv_dct *plan, int n, int width, struct data d) {
    for (int c = 0; c < CHANNELS; c += width, d.x += n * width) {
        const struct fkv_dct_rows rows = {d.x, FKV_F32, (size_t)width, NULL};
        fkv_dct_add_power(plan, &rows, width, d.sums, d.sums + n, d.scratch);
    }
}

static double milliseconds(operation *run, const struct fkv_dct *plan, int n, int width,
                           struct data d) {
    double least = INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        double start = cpu_seconds();
        run(plan, n, width, d);
        least = fmin(least, cpu_seconds() - start);
    }
    return 1e3 * least;
}

static double milliseconds_fftw(int n, struct data d) {
    fftwf_r2r_kind kind = FFTW_REDFT10;
    fftwf_plan plan = fftwf_plan_many_r2r(1, &n, CHANNELS, d.x, NULL, CHANNELS, 1, d.y, NULL,
                                          CHANNELS, 1, &kind, FFTW_ESTIMATE | FFTW_PRESERVE_INPUT);
    double least = INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        double start = cpu_seconds();
        fftwf_execute(plan);
        least = fmin(least, cpu_seconds() - start);
    }
    fftwf_destroy_plan(plan);
    return 1e3 * least;
}

static void bench_length(const struct fkv_dct_set *set, int n) {
    static operation *const operations[] = {forward, inverse, power};
    struct fkv_dct *plan;
    MUST(fkv_dct_create_for(set, n, &plan, &bench_error));
    size_t count = (size_t)n * CHANNELS;
    struct data d = {large_array(count), large_array(count),
                     malloc(fkv_dct_scratch(plan) * sizeof *d.scratch),
                     calloc(2 * (size_t)n, sizeof *d.sums)};
    uint64_t seed = 1;
    for (size_t i = 0; i < count; i++) d.x[i] = bench_random(&seed), d.y[i] = 0;
    printf("%-6s  %5d", set->name, n);
    for (int width = CHANNELS; width >= HEAD; width -= CHANNELS - HEAD)
        for (int i = 0; i < 3; i++)
            printf("  %7.2f", milliseconds(operations[i], plan, n, width, d));
    printf("  %7.1f\n", milliseconds_fftw(n, d));
    free(d.x), free(d.y), free(d.scratch), free(d.sums);
    fkv_dct_destroy(plan);
}

int main(void) {
    const struct fkv_dct_set *sets[3];
    int count = fkv_dct_sets(sets);
    printf("%-6s  %5s  %25s  %25s\n", "ms", "", "rows of 1024", "8 heads of 128");
    printf("%-6s  %5s  %7s  %7s  %7s  %7s  %7s  %7s  %7s\n", "set", "n", "forward", "inverse",
           "power", "forward", "inverse", "power", "FFTW");
    for (int i = count - 1; i >= 0; i--)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
            bench_length(sets[i], lengths[k]);
    return 0;
}
