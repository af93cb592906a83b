/* One measurement of `bench`: what a prefill and decoding after it take under a cache policy.
 *
 * Of `length` tokens the last `decoded` are fed one at a time, each with the scores of the whole
 * vocabulary and the best of them, as a greedy decoder does; which tokens come is given, so that
 * all policies decode the same. The tokens before them are the prefill. Its last one is fed alone:
 * what a policy does at the end of a prefill block it does when another token arrives, and that
 * time belongs to the prefill. A selecting policy takes the tokens before that one as one block. */
#ifndef FKV_REPLAY_BENCH_MEASURE_H
#define FKV_REPLAY_BENCH_MEASURE_H

#include "engine/session/session.h"

struct fkv_bench_task {
    const int32_t *tokens; /* [length] */
    int64_t length;        /* at least decoded + 2 */
    int32_t decoded;       /* at least 1 */
};

/* Tokens of the prefill block of a selecting policy. */
static inline int64_t fkv_bench_block(int64_t length, int32_t decoded) {
    return length - decoded - 1;
}

struct fkv_bench_times {
    double prefill;           /* seconds */
    double decode;            /* seconds of all decoded tokens */
    double compressing;       /* seconds of both that compressions took; 0 where there are none */
    double compressions;      /* in all `length` tokens, mean over heads */
    double slots;             /* that the last token saw, mean over heads */
    int64_t cache_bytes_peak; /* most that keys and values in use held */
};

/* Runs a task in a session that was just opened with max_tokens = length. A block of tokens and two
 * steps go before it and are not timed: they make what the first use of a shape makes. */
int fkv_bench_measure(struct fkv_session *s, const struct fkv_bench_task *task,
                      struct fkv_bench_times *times, struct fkv_error *err);

#endif
