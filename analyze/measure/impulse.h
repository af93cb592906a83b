/* What becomes of a chunk of tokens in a cache that is compressed again and again. No model, no
 * data: FreqKV's operator is one matrix, and the schedule is known. */
#ifndef FKV_ANALYZE_MEASURE_IMPULSE_H
#define FKV_ANALYZE_MEASURE_IMPULSE_H

#include <stdint.h>

#include "kernels/base/error.h"
#include "kernels/base/memory.h"

enum {
    FKV_IMPULSE_ROUNDS = 1000,
    FKV_IMPULSE_RANK_TOKENS = 4096
}; /* most rounds; the longest chunk whose rank is computed (time grows as its cube) */

/* N slots of which S are sinks; n = N - S, L = floor(gamma n + 1e-9) stay, a chunk is C = n - L
 * tokens. */
struct fkv_schedule {
    int32_t window, sinks, n, retained, chunk;
    double gamma;
    double horizon_rounds, horizon; /* log_{n/L}(L) rounds until nominally one slot is left of all
                                       L; in tokens, times C */
};
int fkv_schedule_make(int32_t window, int32_t sinks, double gamma, struct fkv_schedule *s,
                      struct fkv_error *err);

/* After compression k = 1, 2, ... of a chunk that had just come when the first began. */
struct fkv_impulse_round {
    double tokens_since; /* k C: what has followed when the next compression begins */
    double slots_left;   /* C (L / n)^k, nominally */
    double centre; /* slot, counted from the first after the sinks, about which the middle token's
                      main lobe lies */
    double width;  /* slots that hold a token, sum(m^2)^2 / sum(m^4) of its weights m, mean over the
                      chunk's tokens */
    double width_tokens; /* times (n / L)^k: tokens of the text that share what is left */
    double gain; /* largest slot where every token of the chunk is 1; above 1 it rings, below 1 it
                    fades */
    double ringing;  /* share of |m| outside the main lobe (the run of one sign about the largest),
                        mean over tokens */
    double negative; /* share of |m| in negative weights, mean over tokens */
    double rank;     /* singular values of the chunk's matrix above 1% of the largest; NaN beyond
                        FKV_IMPULSE_RANK_TOKENS */
    double participation; /* sum(sigma^2)^2 / sum(sigma^4); NaN likewise */
};

struct fkv_impulse {
    struct fkv_schedule schedule;
    int32_t rounds;
    struct fkv_impulse_round *round; /* [rounds] */
    float *chunk, *token;            /* [rounds, L]: the chunk of ones; the middle token */
    struct fkv_memory memory;
};
/* rounds 0: until the horizon. */
int fkv_impulse_follow(const struct fkv_schedule *s, int32_t rounds, struct fkv_impulse *out,
                       struct fkv_error *err);
void fkv_impulse_free(struct fkv_impulse *x); /* harmless on a zeroed struct and a second time */

#endif
