/* Power spectra: DCT along tokens of every channel, squares averaged over the channels of a head (kernels.h, power).
 *
 * Keys have channels whose mean is tens of times their deviation. In a float32 transform the rounding of that mean would lie over the whole
 * spectrum, so each channel's mean (in double) is taken out before the transform and put back as the coefficient t = 0, sqrt(n) * mean. What
 * is left also gives the channel's variance, sum over t > 0 of y_t^2 / n by Parseval, here summed over tokens.
 *
 * Normalised, a channel's power is divided by its variance, so that every channel that varies has power n in t > 0.
 *
 * Lengths whose prime factors are small, as nearly all are, go through lanes.h, which does all of this for a block of channels without leaving the
 * second-level cache; the code below is for the others.
 *
 * The analyzer calls this outside any decode loop with a length of its own, so plan and scratch are made here, for the length seen last. A
 * unit of work is one head, in blocks of CHANNELS so that the transform's input stays in the second-level cache. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/lanes.h"
#include "kernels/dct.h"

enum { CHANNELS = 32 };

/* Plans for n: of lanes.h, or where that declines of dct.h. */
static int make_plans(struct fkv_backend *b, int32_t n, struct fkv_error *err) {
    struct fkv_lane_plan *lanes;
    struct fkv_dct *plan = NULL;
    if (fkv_lane_plan_create(n, &lanes, err) || (!lanes && fkv_dct_create(n, &plan, err))) return FKV_FAILED;
    fkv_lane_plan_destroy(b->power_lanes);
    fkv_dct_destroy(b->power_plan);
    b->power_lanes = lanes;
    b->power_plan = plan;
    b->power_n = n;
    return FKV_OK;
}

static int prepare(struct fkv_backend *b, int32_t n, struct fkv_error *err) {
    if (b->power_n != n && make_plans(b, n, err)) return FKV_FAILED;
    return fkv_cpu_grow_work(b,
                             b->power_lanes ? fkv_lane_scratch(b->power_lanes, fkv_lanes_choose())
                                            : (size_t)n * CHANNELS + fkv_dct_scratch(b->power_plan),
                             err);
}

/* Channels [0, width) of n rows -> y without their means; mean and variance [width]. */
static void take_means(const float *x, size_t stride, int32_t n, int32_t width, float *y, double *mean,
                       double *variance) {
    for (int32_t c = 0; c < width; c++) mean[c] = variance[c] = 0;
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < width; c++) mean[c] += x[(size_t)i * stride + (size_t)c];
    for (int32_t c = 0; c < width; c++) mean[c] /= n;
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < width; c++) {
            double rest = x[(size_t)i * stride + (size_t)c] - mean[c];
            variance[c] += rest * rest;
            y[(size_t)i * CHANNELS + (size_t)c] = (float)rest;
        }
    for (int32_t c = 0; c < width; c++) variance[c] /= n;
}

static bool constant(const float *x, size_t stride, int32_t n) {
    for (int32_t i = 1; i < n; i++)
        if (x[(size_t)i * stride] != x[0]) return false;
    return true;
}

/* Adds the squares of a block of channels to power [n], and to normalised [n] unless it is NULL. */
static void add_block(const struct fkv_dct *plan, const float *x, size_t stride, int32_t n, int32_t width, float *work,
                      double *power, double *normalised) {
    double mean[CHANNELS], variance[CHANNELS], factor[CHANNELS];
    float *y = work, *scratch = work + (size_t)n * CHANNELS;
    take_means(x, stride, n, width, y, mean, variance);
    fkv_dct_forward(plan, y, CHANNELS, width, y, CHANNELS, scratch);
    for (int32_t c = 0; c < width; c++) {
        factor[c] = constant(x + c, stride, n) ? 0 : 1 / variance[c];
        power[0] += n * mean[c] * mean[c];
        if (normalised) normalised[0] += n * mean[c] * mean[c] * factor[c];
    }
    for (int32_t t = 1; t < n; t++) {
        double sum = 0, scaled = 0;
        for (int32_t c = 0; c < width; c++) {
            double square = (double)y[(size_t)t * CHANNELS + (size_t)c] * y[(size_t)t * CHANNELS + (size_t)c];
            sum += factor[c] == 0 ? 0 : square;
            scaled += square * factor[c];
        }
        power[t] += sum;
        if (normalised) normalised[t] += scaled;
    }
}

/* All channels of a head */
static void add_head(const struct fkv_backend *b, const struct fkv_lanes *lanes, const float *x, size_t stride,
                     int32_t n, int32_t head_dim, double *power, double *normalised) {
    if (b->power_lanes) {
        lanes->power(b->power_lanes, x, stride, head_dim, fkv_cpu_work(b), power, normalised);
        return;
    }
    for (int32_t c = 0; c < head_dim; c += CHANNELS)
        add_block(b->power_plan, x + c, stride, n, head_dim - c < CHANNELS ? head_dim - c : CHANNELS, fkv_cpu_work(b),
                  power, normalised);
}

int fkv_cpu_power(struct fkv_backend *b, const struct fkv_buffer *x, size_t offset, size_t stride, int32_t n,
                  int32_t heads, int32_t head_dim, double *power, double *normalised, struct fkv_error *err) {
    if (prepare(b, n, err)) return FKV_FAILED;
    const float *rows = (const float *)(const void *)(x->data + offset);
    const struct fkv_lanes *lanes = fkv_lanes_choose();
#pragma omp parallel for schedule(dynamic) num_threads(fkv_cpu_threads(b, 32 * (int64_t)n * heads * head_dim))
    for (int32_t h = 0; h < heads; h++) {
        double *to = power + (size_t)h * (size_t)n, *scaled = normalised ? normalised + (size_t)h * (size_t)n : NULL;
        for (int32_t t = 0; t < n; t++) to[t] = 0;
        for (int32_t t = 0; scaled && t < n; t++) scaled[t] = 0;
        add_head(b, lanes, rows + (size_t)h * (size_t)head_dim, stride, n, head_dim, to, scaled);
        for (int32_t t = 0; t < n; t++) to[t] /= head_dim;
        for (int32_t t = 0; scaled && t < n; t++) scaled[t] /= head_dim;
    }
    return FKV_OK;
}
