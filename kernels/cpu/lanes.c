/* Owns plans of the transform across channels (lanes.h), the choice of an instruction set, and the set that every processor has. */
#include "kernels/cpu/lanes.h"

#include <math.h>
#include <stdlib.h>

/* ---- plans ---- */

/* Factors of n: fours first (their strides are largest where butterflies are cheapest), then ascending primes. Returns their number, 0 for a prime too large. */
static int factorise(int32_t n, int32_t factor[FKV_LANE_STAGES]) {
    int count = 0;
    while (n % 4 == 0) factor[count++] = 4, n /= 4;
    for (int32_t p = 2; n > 1 && p <= FKV_LANE_PRIME; p++)
        while (n % p == 0) factor[count++] = p, n /= p;
    return n > 1 ? 0 : count;
}

/* Angles in exact fractions of a turn: k mod n before the division, so that large products lose nothing. */
static void set_angle(float *to, int64_t k, int64_t n, double sign) {
    double angle = 2 * acos(-1) * (double)(k % n) / (double)n;
    to[0] = (float)cos(angle);
    to[1] = (float)(sign * sin(angle));
}

static void fill_stage(struct fkv_lane_stage *g, float **table) {
    int32_t h = (g->p - 1) / 2;
    g->turn = *table;
    for (int32_t q = 0; q < g->m; q++)
        for (int32_t k = 1; k < g->p; k++, *table += 2) set_angle(*table, (int64_t)q * k, (int64_t)g->p * g->m, -1);
    g->root = *table;
    for (int32_t k = 1; g->p % 2 && k <= h; k++)
        for (int32_t r = 1; r <= h; r++, *table += 2) set_angle(*table, (int64_t)r * k, g->p, 1);
}

int fkv_lane_plan_create(int32_t n, struct fkv_lane_plan **out, struct fkv_error *err) {
    int32_t factor[FKV_LANE_STAGES], count = factorise(n, factor), rest = n;
    *out = NULL;
    if (n > 1 && !count) return FKV_OK;
    struct fkv_lane_plan *plan = calloc(1, sizeof *plan);
    size_t floats = 0;
    for (int i = 0; i < count; i++) {
        size_t p = (size_t)factor[i];
        floats += 2 * ((size_t)rest / p * (p - 1) + (p - 1) / 2 * ((p - 1) / 2));
        rest /= factor[i];
    }
    float *table = malloc((floats + 1) * sizeof *table);
    if (plan) plan->last = malloc(2 * ((size_t)n / 2 + 1) * sizeof *plan->last);
    if (!plan || !table || !plan->last) {
        free(table);
        fkv_lane_plan_destroy(plan);
        return fkv_fail(err, "no memory for a DCT of %d tokens", n);
    }
    plan->n = n;
    plan->stages = count;
    plan->tables = table;
    for (int32_t i = 0, s = 1; i < count; s *= factor[i], i++) {
        plan->stage[i] = (struct fkv_lane_stage){.p = factor[i], .m = n / s / factor[i], .s = s};
        fill_stage(&plan->stage[i], &table);
    }
    double scale = sqrt(0.5 / n), step = acos(-1) / (2.0 * n);
    for (int32_t t = 0; t <= n / 2; t++) {
        plan->last[2 * t] = (float)(scale * cos(t * step));
        plan->last[2 * t + 1] = (float)(scale * sin(t * step));
    }
    *out = plan;
    return FKV_OK;
}

void fkv_lane_plan_destroy(struct fkv_lane_plan *plan) {
    if (!plan) return;
    free(plan->last);
    free(plan->tables);
    free(plan);
}

/* ---- sets ---- */

typedef float vec __attribute__((vector_size(16)));
enum { LANES = 4, AT_ONCE = 1 };

static inline vec vec_set(float a) { return (vec){a, a, a, a}; }
static inline vec vec_zero(void) { return vec_set(0); }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
static inline vec vec_fnma(vec a, vec b, vec c) { return c - a * b; }
static inline float vec_sum(vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
static inline vec vec_load(const float *p) {
    vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline void vec_store(float *p, vec v) { __builtin_memcpy(p, &v, sizeof v); }

#define LANES_TABLE fkv_lanes_plain
#define LANES_NAME "plain"
#include "kernels/cpu/lanes_loops.h"

int fkv_lanes_available(const struct fkv_lanes *sets[3]) {
    int n = 0;
    sets[n++] = &fkv_lanes_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets[n++] = &fkv_lanes_avx2;
    if (__builtin_cpu_supports("avx512f")) sets[n++] = &fkv_lanes_avx512;
#endif
    return n;
}

const struct fkv_lanes *fkv_lanes_choose(void) {
    const struct fkv_lanes *sets[3];
    return sets[fkv_lanes_available(sets) - 1];
}
