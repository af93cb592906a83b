/* What the kernel benchmarks share: medians of repeated runs, random input, giving up with a
 * message. */
#ifndef FKV_TESTS_BENCH_H
#define FKV_TESTS_BENCH_H

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ahead.h"
#include "kernels/base/progress.h"
#include "kernels/kernels.h"

/* Stops the program with the message of a call that failed. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != FKV_OK) {                                                                    \
            fprintf(stderr, "%s: %s\n", #call, bench_error.message);                               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
static struct fkv_error bench_error;

static inline int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double bench_median(double *seconds, int n) {
    qsort(seconds, (size_t)n, sizeof *seconds, bench_compare);
    return n % 2 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2;
}

/* What memory gives when it is read once: the sum of the calling thread's share of n words, fetched
 * ahead as the kernels do. */
static inline uint64_t bench_read_share(const uint64_t *words, size_t n) {
    enum { LINE = 8 };
    const size_t t = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads(),
                 until = n * (t + 1) / threads;
    uint64_t sum = 0;
    for (size_t i = n * t / threads; i < until; i += LINE) {
        __builtin_prefetch((const char *)(words + i) + FKV_AHEAD);
        for (size_t j = i; j < i + LINE && j < until; j++) sum += words[j];
    }
    return sum;
}

/* The same by all threads. Returns the sum, so that no read is left out. */
static inline uint64_t bench_read(const uint64_t *words, size_t n) {
    uint64_t sum = 0;
#pragma omp parallel reduction(+ : sum)
    sum += bench_read_share(words, n);
    return sum;
}

/* Uniform in [-1, 1): xorshift, for large arrays. */
static inline float bench_random(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return (float)(*state >> 40) * 0x1p-23f - 1;
}

/* n random elements of dtype t in a buffer of its own. */
static inline struct fkv_buffer *bench_buffer(const struct fkv_backend_ops *ops,
                                              struct fkv_backend *b, enum fkv_dtype t, size_t n,
                                              uint64_t seed) {
    enum { PIECE = 4096 };
    float piece[PIECE];
    char packed[PIECE * sizeof(float)];
    struct fkv_buffer *buffer;
    MUST(ops->buffer_create(b, n * fkv_dtype_bytes(t), &buffer, &bench_error));
    for (size_t i = 0; i < n; i += PIECE) {
        size_t count = n - i < PIECE ? n - i : PIECE;
        for (size_t j = 0; j < count; j++) piece[j] = bench_random(&seed);
        fkv_from_f32(piece, t, count, packed);
        MUST(ops->write(b, buffer, i * fkv_dtype_bytes(t), packed, count * fkv_dtype_bytes(t),
                        &bench_error));
    }
    return buffer;
}

#endif
