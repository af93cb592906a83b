/* The one generator of the toolkit: splitmix64 (Steele, Lea, Flood 2014). Chosen because a reader
 * can repeat it in three lines of any language (tests/e2e/check_protocols.py does, to the last
 * draw) and because bootstrap, permutations and sampling need no more. */
#ifndef FKV_STATISTICS_RANDOM_H
#define FKV_STATISTICS_RANDOM_H

#include <stdint.h>

struct fkv_random {
    uint64_t state; /* start it with the seed */
};

/* Its finaliser: a bijection that spreads every bit of z over all of them. */
static inline uint64_t fkv_random_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint64_t fkv_random_next(struct fkv_random *r) {
    return fkv_random_mix(r->state += 0x9e3779b97f4a7c15u);
}

/* An integer in [0, n), n <= 2^32: the high 32 bits times n, high part. Its bias, below n / 2^32,
 * is nothing to a bootstrap. */
static inline uint64_t fkv_random_below(struct fkv_random *r, uint64_t n) {
    return (fkv_random_next(r) >> 32) * n >> 32;
}

/* A number in [0, 1) from the high 53 bits. */
static inline double fkv_random_uniform(struct fkv_random *r) {
    return (double)(fkv_random_next(r) >> 11) * 0x1p-53;
}

#endif
