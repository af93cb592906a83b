/* What tests with several sequences share: the embedded model, random tokens for each sequence,
 * sessions over it, and feeding some sequences their next tokens. */
#ifndef FKV_TESTS_SEQUENCES_H
#define FKV_TESTS_SEQUENCES_H

#include "engine/session/session.h"
#include "tests/unit/engine/embedded_model.h"

enum { TOKENS = 300, VOCAB = 2048, SEQUENCES = 3, LAYERS = 6, KV_HEADS = 2, BLOCK = 96 };

struct fixture {
    struct fkv_model *model;
    int32_t tokens[SEQUENCES][TOKENS];
};

/* `many`, or `few` where the backend is emulated and a step takes tenths of a second. */
static inline int rounds(int many, int few) { return getenv("FKV_TEST_SMALL") ? few : many; }

static inline void open_fixture(struct fixture *f, const struct fkv_backend_ops *ops) {
    f->model = open_embedded_model(ops);
    for (int i = 0; i < SEQUENCES * TOKENS; i++)
        f->tokens[i / TOKENS][i % TOKENS] = test_between(0, VOCAB - 1);
}

static inline void close_fixture(struct fixture *f) {
    close_embedded_model(f->model);
    free(f);
}

static const char *const policies[] = {"full", "freqkv", "local", "streaming", "lm-infinite"};
enum { POLICIES = sizeof policies / sizeof *policies };

static inline struct fkv_session *open_session(struct fixture *f, const char *policy,
                                               int32_t window, int32_t sequences) {
    struct fkv_policy_options p = {.name = policy, .window = window, .sinks = 4, .gamma = "0.4"};
    struct fkv_session_options options = {
        .block = BLOCK / SEQUENCES * sequences, .sequences = sequences, .max_tokens = TOKENS};
    struct fkv_session *s;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    return s;
}

/* Feeds each sequence in `counts` [SEQUENCES] (0: it sits out) its next tokens, in a random order.
 * Returns the number of feeds. */
static inline int32_t feed_some(struct fixture *f, struct fkv_session *s, const int32_t *counts,
                                struct fkv_feed feeds[SEQUENCES]) {
    int32_t feed_count = 0, first = test_between(0, SEQUENCES - 1);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        int32_t q = (first + i) % SEQUENCES;
        if (counts[q])
            feeds[feed_count++] =
                (struct fkv_feed){q, f->tokens[q] + fkv_session_tokens(s, q), counts[q]};
    }
    assert_ok(fkv_session_feed_batch(s, feeds, feed_count, &err));
    return feed_count;
}

#endif
