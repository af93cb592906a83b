/* LongHeads on a small model of random weights: the tested backend against the reference, blocks of
 * any size, sequences side by side, snapshots, and what it comes to within the window.
 *
 * Where two chunks have almost the same score, rounding may choose: what differs then is drawn
 * again, once. */
#include "engine/session/session.h"
#include "tests/unit/support.h"

#include "kernels/kernels.h"

enum { VOCAB = 96, LAYERS = 2, KV_HEADS = 2, HEAD_DIM = 8, TOKENS = 80, SEQUENCES = 2 };

/* Few where the backend is emulated. */
static int rounds(void) { return getenv("FKV_TEST_SMALL") ? 1 : 3; }

struct side {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    struct fkv_model *model;
};

static struct side open_side(const char *backend) {
    struct side side;
    const struct fkv_backend_options options = {.compute = FKV_COMPUTE_F32};
    assert_ok(fkv_backend_find(backend, &side.ops, NULL, &err));
    assert_ok(side.ops->open(&options, &side.backend, &err));
    assert_ok(fkv_model_open("tests/golden/llama-gqa-tied", side.ops, side.backend,
                             &(struct fkv_model_options){.check_values = true}, &side.model, &err));
    return side;
}

static void close_side(struct side side) {
    fkv_model_close(side.model);
    side.ops->close(side.backend);
}

static struct side tested(void) {
    const char *name = getenv("FKV_TEST_BACKEND");
    return open_side(name ? name : "cpu");
}

/* A window of `chunks` chunks; 0: full attention. */
static struct fkv_session *open_session(struct side side, int32_t chunk, int32_t chunks,
                                        int32_t sequences) {
    struct fkv_policy_options policy = {.name = "longheads",
                                        .window = chunk * chunks,
                                        .sinks = -1,
                                        .own = {{.name = "chunk", .value = chunk}}};
    const struct fkv_session_options options = {
        .block = TOKENS, .sequences = sequences, .max_tokens = TOKENS};
    struct fkv_session *s;
    assert_ok(
        fkv_session_open(side.model, chunks ? &policy : &fkv_full_attention, &options, &s, &err));
    return s;
}

/* Feeds tokens [from, until) of a sequence in blocks of 1 to `most` -> logits [until, VOCAB]. */
static void feed(struct fkv_session *s, const int32_t *tokens, int32_t from, int32_t until,
                 int32_t most, float *logits) {
    for (int32_t at = from, rows; at < until; at += rows) {
        rows = test_between(1, most);
        if (rows > until - at) rows = until - at;
        assert_ok(fkv_session_feed(s, tokens + at, rows, &err));
        assert_ok(fkv_session_logits(s, 0, rows, logits + at * VOCAB, &err));
    }
}

/* No id twice: where a chunk is one token, equal tokens would have equal scores in layer 0. */
static void draw_tokens(int32_t tokens[TOKENS]) {
    int32_t ids[VOCAB];
    for (int32_t i = 0; i < VOCAB; i++) ids[i] = i;
    for (int32_t i = 0; i < TOKENS; i++) {
        const int32_t at = test_between(i, VOCAB - 1);
        tokens[i] = ids[at];
        ids[at] = ids[i];
    }
}

static double distance(const float *a, const float *b, int32_t from, int32_t until) {
    double most = 0;
    for (int32_t i = from * VOCAB; i < until * VOCAB; i++)
        if (!(fabs((double)a[i] - b[i]) <= most)) most = fabs((double)a[i] - b[i]);
    return most;
}

static const double rounding = 2e-4; /* of logits up to 12 */

/* Runs a comparison that draws its input and returns the largest difference. */
static void assert_near(double (*compare)(void)) {
    double found = compare();
    if (!(found <= rounding)) found = compare();
    assert_close(found, 0, rounding, 0);
}

/* ---- what must be equal ---- */

static float one[TOKENS * VOCAB], other[TOKENS * VOCAB]; /* logits */

static double backends_differ(void) {
    int32_t tokens[TOKENS];
    const int32_t chunk = test_between(1, 7), chunks = test_between(3, 6);
    float *const logits[] = {one, other};
    struct side sides[] = {tested(), open_side("reference")};
    draw_tokens(tokens);
    for (int i = 0; i < 2; i++) {
        struct fkv_session *s = open_session(sides[i], chunk, chunks, 1);
        feed(s, tokens, 0, TOKENS, TOKENS, logits[i]);
        fkv_session_close(s);
        close_side(sides[i]);
    }
    return distance(one, other, 0, TOKENS);
}

TEST(the_backend_equals_the_reference) {
    for (int i = 0; i < rounds(); i++) assert_near(backends_differ);
}

static double blocks_differ(void) {
    int32_t tokens[TOKENS];
    const int32_t chunk = test_between(1, 7), chunks = test_between(3, 6);
    struct side side = tested();
    draw_tokens(tokens);
    struct fkv_session *s = open_session(side, chunk, chunks, 1);
    feed(s, tokens, 0, TOKENS, 50, one);
    fkv_session_reset(s, 0);
    feed(s, tokens, 0, TOKENS, test_between(1, 5), other);
    fkv_session_close(s);
    close_side(side);
    return distance(one, other, 0, TOKENS);
}

TEST(blocks_of_any_size_change_nothing) {
    for (int i = 0; i < rounds(); i++) assert_near(blocks_differ);
}

static double sequences_differ(void) {
    int32_t tokens[SEQUENCES][TOKENS], fed[SEQUENCES] = {0};
    struct side side = tested();
    struct fkv_session *s = open_session(side, 5, 4, SEQUENCES);
    static float together[SEQUENCES][TOKENS * VOCAB];
    double most = 0;
    for (int q = 0; q < SEQUENCES; q++) draw_tokens(tokens[q]);
    while (fed[0] < TOKENS && fed[1] < TOKENS) {
        struct fkv_feed feeds[SEQUENCES];
        for (int q = 0; q < SEQUENCES; q++) {
            const int32_t left = TOKENS - fed[q], rows = test_between(1, 17);
            feeds[q] = (struct fkv_feed){q, tokens[q] + fed[q], rows < left ? rows : left};
        }
        assert_ok(fkv_session_feed_batch(s, feeds, SEQUENCES, &err));
        for (int q = 0, row = 0; q < SEQUENCES; row += feeds[q++].count) {
            assert_ok(
                fkv_session_logits(s, row, feeds[q].count, together[q] + fed[q] * VOCAB, &err));
            fed[q] += feeds[q].count;
        }
    }
    fkv_session_close(s);
    for (int q = 0; q < SEQUENCES; q++) {
        s = open_session(side, 5, 4, 1);
        feed(s, tokens[q], 0, fed[q], TOKENS, one);
        most = fmax(most, distance(together[q], one, 0, fed[q]));
        fkv_session_close(s);
    }
    close_side(side);
    return most;
}

TEST(sequences_side_by_side_equal_each_alone) { assert_near(sequences_differ); }

static double restored_differs(void) {
    int32_t tokens[TOKENS], others[TOKENS];
    struct fkv_snapshot *snapshot;
    struct side side = tested();
    struct fkv_session *s = open_session(side, 6, 3 + test_between(0, 2), 1);
    const int32_t at = test_between(30, 60);
    draw_tokens(tokens);
    draw_tokens(others);
    feed(s, tokens, 0, at, 20, one);
    assert_ok(fkv_session_snapshot(s, &snapshot, &err));
    feed(s, others, at, TOKENS, 20, other);
    assert_ok(fkv_session_restore(s, snapshot, &err));
    feed(s, tokens, at, TOKENS, 20, one);
    fkv_session_reset(s, 0);
    feed(s, tokens, 0, TOKENS, 20, other);
    fkv_snapshot_free(snapshot);
    fkv_session_close(s);
    close_side(side);
    return distance(one, other, 0, TOKENS);
}

TEST(a_restored_session_goes_on_as_before) { assert_near(restored_differs); }

TEST(up_to_the_window_it_is_full_attention) {
    int32_t tokens[TOKENS];
    struct side side = tested();
    float *const logits[] = {one, other};
    draw_tokens(tokens);
    for (int i = 0; i < 2; i++) {
        struct fkv_session *s = open_session(side, 20, i ? 0 : 4, 1);
        feed(s, tokens, 0, TOKENS, TOKENS, logits[i]);
        fkv_session_close(s);
    }
    close_side(side);
    assert_close(distance(one, other, 0, TOKENS), 0, rounding, 0);
}

/* ---- what it counts ---- */

TEST(every_token_is_held_and_k_chunks_are_seen) {
    enum { CHUNK = 7, CHUNKS = 4 };
    int32_t tokens[TOKENS];
    struct fkv_row_state rows[TOKENS];
    struct fkv_session_statistics found;
    struct side side = tested();
    struct fkv_session *s = open_session(side, CHUNK, CHUNKS, 1);
    draw_tokens(tokens);
    assert_ok(fkv_session_feed(s, tokens, TOKENS, &err));
    fkv_session_row_state(s, 0, TOKENS, rows);
    for (int t = 0; t < TOKENS; t++)
        assert_close(rows[t].slots,
                     t < CHUNK * CHUNKS ? t + 1 : CHUNK * (CHUNKS - 1) + t % CHUNK + 1, 1e-9, 0);
    fkv_session_statistics(s, &found);
    assert_int_equal(found.cache_bytes_peak,
                     2 * TOKENS * LAYERS * KV_HEADS * HEAD_DIM * (int)sizeof(float));
    assert_int_equal(found.compressions + found.evictions, 0);
    fkv_session_close(s);
    close_side(side);
}

static void refused(int32_t window, int32_t chunk, const char *message) {
    const struct fkv_policy_options policy = {.name = "longheads",
                                              .window = window,
                                              .sinks = -1,
                                              .own = {{.name = "chunk", .value = chunk}}};
    const struct fkv_config config = {
        .layers = 2, .kv_heads = 2, .trained_context = 600, .head_dim = 8};
    struct fkv_policy_setup setup;
    assert_refused(fkv_policy_setup(&policy, &config, 1000, &setup, &err), message);
    assert_int_equal(fkv_exit_status(&err), FKV_EXIT_USAGE);
}

TEST(windows_that_are_no_chunks_are_refused) {
    refused(64, 24, "--window: expected at least 3 chunks of 24 slots (--chunk), found 64");
    refused(64, 20, "--window: expected a multiple of the 20 slots of --chunk, found 64");
    refused(0, 256, "--window: expected at least 3 chunks of 256 slots (--chunk), found 600");
    refused(64, 0, "--chunk: expected a number from 1");
}
