/* RoPE's angles on the CPU. Channel i of a head and channel i + rotary/2 form a pair, turned by
 * position * inv_freq[i]; channels from `rotary` on pass.
 *
 * An angle is formed in double and only its cosine and sine are rounded to float, so a key at
 * position 10^6 is as exact as one at 1. A double sincos costs some 20 ns, as much as the rest of a
 * whole head, so whole positions up to MOST_POSITIONS (32 MiB at head_dim 128) are tabulated once
 * in `reserve`, for the few rotations that a model has; a session's
 * positions are slot indices and in that table. Others (fractional,
 * negative, or token indices of a very long text) are computed where they occur. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { MOST_POSITIONS = 1 << 16 };

static void angles(const double *inv_freq, int32_t half, double position, float *turn) {
    for (int32_t i = 0; i < half; i++) {
        double angle = position * inv_freq[i];
        turn[i] = (float)cos(angle);
        turn[half + i] = (float)sin(angle);
    }
}

static int64_t positions_of(const struct fkv_limits *l) {
    const int64_t positions = (int64_t)l->slots + l->rows;
    return positions < MOST_POSITIONS ? positions : MOST_POSITIONS;
}

int64_t fkv_cpu_rotation_bytes(const struct fkv_limits *limits) {
    return positions_of(limits) * limits->attention.rotary * (int64_t)sizeof(float);
}

/* The table's place in b->rotations, or -1. */
static int find_table(const struct fkv_backend *b, const struct fkv_attention_shape *shape) {
    const int32_t half = shape->rotary / 2;
    for (int i = 0; i < FKV_CPU_ROTATIONS; i++)
        if (b->rotations[i].table && b->rotations[i].half == half &&
            !memcmp(b->rotations[i].inv_freq, shape->inv_freq,
                    (size_t)half * sizeof *shape->inv_freq))
            return i;
    return -1;
}

static void free_table(struct fkv_rotation *r) {
    free(r->table);
    free(r->inv_freq);
    *r = (struct fkv_rotation){0};
}

void fkv_cpu_rotations_free(struct fkv_backend *b) {
    for (int i = 0; i < FKV_CPU_ROTATIONS; i++) free_table(&b->rotations[i]);
}

/* Where a new table goes: an unused one, or the oldest. */
static struct fkv_rotation *next_table(struct fkv_backend *b) {
    for (int i = 0; i < FKV_CPU_ROTATIONS; i++)
        if (!b->rotations[i].table) return &b->rotations[i];
    const int32_t oldest = b->oldest_rotation;
    b->oldest_rotation = (oldest + 1) % FKV_CPU_ROTATIONS;
    return &b->rotations[oldest];
}

int fkv_cpu_rotation_reserve(struct fkv_backend *b, const struct fkv_limits *limits,
                             struct fkv_error *err) {
    const struct fkv_attention_shape *shape = &limits->attention;
    const int32_t half = shape->rotary / 2;
    const int64_t positions = positions_of(limits);
    const size_t frequencies = (size_t)half * sizeof *shape->inv_freq;
    if (!shape->inv_freq || half == 0) return FKV_OK;
    const int found = find_table(b, shape);
    if (found >= 0 && b->rotations[found].positions >= positions) return FKV_OK;
    struct fkv_rotation *r = found >= 0 ? &b->rotations[found] : next_table(b);
    free_table(r);
    *r =
        (struct fkv_rotation){.table = malloc((size_t)positions * 2 * (size_t)half * sizeof(float)),
                              .positions = (int32_t)positions,
                              .half = half,
                              .inv_freq = malloc(frequencies)};
    if (!r->table || !r->inv_freq) {
        free_table(r);
        return fkv_fail(err, "out of memory: rotations of %lld positions", (long long)positions);
    }
    memcpy(r->inv_freq, shape->inv_freq, frequencies);
#pragma omp parallel for schedule(static) num_threads(b->threads)
    for (int32_t p = 0; p < r->positions; p++)
        angles(r->inv_freq, half, p, r->table + (size_t)p * 2 * (size_t)half);
    return FKV_OK;
}

struct fkv_rotation fkv_cpu_rotation(const struct fkv_backend *b,
                                     const struct fkv_attention_shape *shape) {
    const int32_t half = shape->rotary / 2;
    const int found = half ? find_table(b, shape) : -1;
    if (found >= 0) return b->rotations[found];
    return (struct fkv_rotation){.half = half, .inv_freq = (double *)shape->inv_freq};
}

const float *fkv_cpu_turn(const struct fkv_rotation *r, double position, float *scratch) {
    if (position >= 0 && position < r->positions && position == (double)(int32_t)position)
        return r->table + (size_t)position * 2 * (size_t)r->half;
    angles(r->inv_freq, r->half, position, scratch);
    return scratch;
}

int fkv_cpu_rotate(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                   const struct fkv_buffer *x, int32_t row, int32_t rows, int32_t heads,
                   double position, struct fkv_buffer *out, struct fkv_error *err) {
    if (fkv_cpu_check_shape(b, shape, err)) return FKV_FAILED;
    struct fkv_rotation r = fkv_cpu_rotation(b, shape);
    size_t d = (size_t)shape->head_dim, width = d * (size_t)heads;
    const float *from = fkv_cpu_floats(x) + (size_t)row * width;
    float *to = fkv_cpu_floats(out) + (size_t)row * width;
#pragma omp parallel for schedule(guided)                                                          \
    num_threads(fkv_cpu_threads(b, 8 * (int64_t)rows * (int64_t)width))
    for (int32_t i = 0; i < rows; i++) {
        const float *turn = fkv_cpu_turn(&r, position + i, fkv_cpu_scratch(b));
        for (int32_t h = 0; h < heads; h++) {
            size_t at = (size_t)i * width + (size_t)h * d;
            b->simd->turn(from + at, turn, r.half, shape->head_dim, to + at);
            for (int32_t c = 0; c < shape->rotary; c++) to[at + (size_t)c] *= shape->gain;
        }
    }
    return FKV_OK;
}
