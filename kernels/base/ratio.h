/* Shares of a count of slots or coefficients, as a user types them in decimals: 0.29 * 100 is
 * 28.999999999999996 in binary and means 29. */
#ifndef FKV_BASE_RATIO_H
#define FKV_BASE_RATIO_H

#include <math.h>
#include <stdint.h>

/* L = floor(gamma n + 1e-9): how many of n slots or coefficients a ratio keeps. */
static inline int32_t fkv_retained(double gamma, int32_t n) {
    return (int32_t)floor(gamma * n + 1e-9);
}

/* ceil(share n - 1e-9): the first of n coefficients at or above a band's edge. */
static inline int32_t fkv_band_edge(double share, int32_t n) {
    return (int32_t)ceil(share * n - 1e-9);
}

#endif
