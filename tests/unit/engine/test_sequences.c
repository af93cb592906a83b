/* Several sequences side by side on the embedded model: each as if it were alone, whatever the
 * others do. */
#include "engine/session/session_internal.h"
#include "tests/unit/engine/sequences.h"

static const struct fkv_backend_ops *ops;
static float one[BLOCK * VOCAB], other[BLOCK * VOCAB]; /* logits */

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    ops = tested_backend();
    open_fixture(f, ops);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    close_fixture(*state);
    return 0;
}

/* Decode steps half of the time, else blocks of any size; at least one sequence, none beyond its
 * tokens. False when there is none left. */
static bool draw_counts(const struct fkv_session *s, int32_t counts[SEQUENCES]) {
    bool decode = test_between(0, 1);
    int32_t drawn = 0, left = 0;
    for (int32_t q = 0; q < SEQUENCES; q++) {
        int32_t rest = TOKENS - (int32_t)fkv_session_tokens(s, q),
                most = decode ? 1 : BLOCK / SEQUENCES;
        counts[q] = test_between(0, 3) ? test_between(1, most) : 0;
        if (counts[q] > rest) counts[q] = rest;
        drawn += counts[q];
        left += rest;
    }
    return left && (drawn || draw_counts(s, counts));
}

/* ---- what a sequence sees ---- */

static void compare_rows(struct fkv_session *together, int32_t row, struct fkv_session *alone,
                         int32_t rows) {
    struct fkv_row_state a[BLOCK], b[BLOCK];
    assert_ok(fkv_session_logits(together, row, rows, one, &err));
    assert_ok(fkv_session_logits(alone, 0, rows, other, &err));
    assert_arrays_close(one, other, (size_t)rows * VOCAB, 0, 2e-5);
    fkv_session_row_state(together, row, rows, a);
    fkv_session_row_state(alone, 0, rows, b);
    for (int i = 0; i < rows; i++) {
        assert_close(a[i].slots, b[i].slots, 1e-12, 0);
        assert_close(a[i].compressions, b[i].compressions, 1e-12, 0);
        assert_close(a[i].since_compression, b[i].since_compression, 1e-12, 0);
        assert_close(a[i].evictions, b[i].evictions, 1e-12, 0);
        assert_close(a[i].since_eviction, b[i].since_eviction, 1e-12, 0);
    }
}

TEST(sequences_side_by_side_equal_each_alone) {
    struct fixture *f = *state;
    for (int p = 0; p < POLICIES; p++) {
        int32_t window = test_between(20, 70), counts[SEQUENCES];
        struct fkv_session *together = open_session(f, policies[p], window, SEQUENCES),
                           *alone[SEQUENCES];
        for (int q = 0; q < SEQUENCES; q++) alone[q] = open_session(f, policies[p], window, 1);
        for (int turn = 0; turn < rounds(60, 4) && draw_counts(together, counts); turn++) {
            struct fkv_feed feeds[SEQUENCES];
            int32_t feed_count = feed_some(f, together, counts, feeds);
            for (int32_t i = 0, row = 0; i < feed_count; row += feeds[i++].count) {
                struct fkv_session *own = alone[feeds[i].sequence];
                assert_ok(fkv_session_feed(own, feeds[i].tokens, feeds[i].count, &err));
                compare_rows(together, row, own, feeds[i].count);
            }
            int32_t q = test_between(0, 6 * SEQUENCES);
            if (q >= SEQUENCES) continue;
            fkv_session_reset(together, q);
            fkv_session_reset(alone[q], 0);
            assert_int_equal(fkv_session_tokens(together, q), 0);
        }
        struct fkv_session_statistics all, own;
        int64_t tokens = 0, actions = 0, peak = 0;
        double slots = 0;
        for (int q = 0; q < SEQUENCES; q++) {
            assert_int_equal(fkv_session_tokens(together, q), fkv_session_tokens(alone[q], 0));
            fkv_session_statistics(alone[q], &own);
            tokens += own.tokens, actions += own.compressions + own.evictions,
                slots += own.slots_sum;
            if (own.cache_bytes_peak > peak) peak = own.cache_bytes_peak;
            fkv_session_close(alone[q]);
        }
        fkv_session_statistics(together, &all);
        assert_int_equal(all.tokens, tokens);
        assert_int_equal(all.compressions + all.evictions, actions);
        assert_int_equal(all.cache_bytes_peak, peak);
        assert_close(all.slots_sum, slots, 0, 1e-12);
        fkv_session_close(together);
    }
}

TEST(heads_are_numbered_by_layer_then_sequence_then_head) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "freqkv", 40, SEQUENCES);
    const int32_t counts[SEQUENCES] = {7, 0, 61};
    struct fkv_feed feeds[SEQUENCES];
    feed_some(f, s, counts, feeds);
    const struct fkv_head *heads = s->heads;
    for (int i = 0; i < LAYERS * SEQUENCES * KV_HEADS; i++) {
        assert_int_equal(heads[i].layer, i / (SEQUENCES * KV_HEADS));
        assert_int_equal(heads[i].sequence, i / KV_HEADS % SEQUENCES);
        assert_int_equal(heads[i].kv_head, i % KV_HEADS);
        assert_int_equal(heads[i].tokens, counts[heads[i].sequence]);
    }
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    for (int i = 0; i < LAYERS * SEQUENCES * KV_HEADS; i++) assert_int_equal(heads[i].slots, 0);
    fkv_session_close(s);
}

TEST(a_snapshot_holds_all_sequences) {
    struct fixture *f = *state;
    for (int p = 0; p < rounds(POLICIES, 2); p++) {
        struct fkv_session *s = open_session(f, policies[p], 33, SEQUENCES);
        struct fkv_snapshot *snapshot;
        struct fkv_feed feeds[SEQUENCES];
        const int32_t before[SEQUENCES] = {test_between(1, 32), test_between(1, 32), 32};
        for (int i = 0; i < 3; i++) feed_some(f, s, before, feeds);
        assert_ok(fkv_session_snapshot(s, &snapshot, &err));
        const struct fkv_feed after[] = {{1, f->tokens[0], 50}, {2, f->tokens[1], 46}};
        assert_ok(fkv_session_feed_batch(s, after, 2, &err));
        assert_ok(fkv_session_logits(s, 0, 96, one, &err));
        fkv_session_reset(s, 1);
        assert_ok(fkv_session_restore(s, snapshot, &err));
        for (int q = 0; q < SEQUENCES; q++)
            assert_int_equal(fkv_session_tokens(s, q), 3 * before[q]);
        assert_ok(fkv_session_feed_batch(s, after, 2, &err));
        assert_ok(fkv_session_logits(s, 0, 96, other, &err));
        assert_memory_equal(one, other, sizeof(float) * 96 * VOCAB);
        fkv_snapshot_free(snapshot);
        fkv_session_close(s);
    }
}

/* ---- taps ---- */

enum { SITES = FKV_SITE_ACTION };

struct tapped {
    struct fkv_backend *backend;
    int64_t before[SEQUENCES]; /* tokens of each sequence before the feed */
    float *states[SITES][LAYERS][SEQUENCES];
    int events, actions, last_layer;
};

static int keep_states(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    struct tapped *t = context;
    size_t values = (size_t)event->rows * (size_t)event->heads * (size_t)event->head_dim;
    assert_int_equal(event->token, t->before[event->sequence]);
    assert_ptr_equal(event->data, (const char *)ops->address(event->states) + event->offset);
    float **states = &t->states[event->site][event->layer][event->sequence];
    assert_null(*states); /* one event per (site, layer, sequence) */
    *states = malloc(values * sizeof **states);
    t->events++;
    return ops->read(t->backend, event->states, event->offset, *states, values * sizeof **states,
                     e);
}

static int count_actions(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    (void)e;
    struct tapped *t = context;
    assert_int_equal(event->sequence, event->head->sequence);
    assert_int_equal(event->layer, event->head->layer);
    assert_int_equal(event->token, event->head->tokens);
    assert_int_equal(t->events, 0);             /* all that is due comes before the first state, */
    assert_true(event->layer >= t->last_layer); /* layer by layer */
    t->last_layer = event->layer;
    t->actions++;
    return FKV_OK;
}

static void free_states(struct tapped *t) {
    for (int i = 0; i < SITES * LAYERS * SEQUENCES; i++) free((&t->states[0][0][0])[i]);
}

TEST(taps_see_each_sequence_at_its_own_tokens) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "freqkv", 40, SEQUENCES);
    const int32_t first[SEQUENCES] = {40, 11, 40}, second[SEQUENCES] = {9, 20, 3};
    struct fkv_feed feeds[SEQUENCES];
    struct tapped together = {.backend = f->model->backend, .before = {40, 11, 40}};
    feed_some(f, s, first, feeds);
    for (int site = 0; site < SITES; site++)
        fkv_session_tap(s, (enum fkv_site)site, keep_states, &together);
    fkv_session_tap(s, FKV_SITE_ACTION, count_actions, &together);
    feed_some(f, s, second, feeds);
    assert_int_equal(together.events, SITES * LAYERS * SEQUENCES);
    assert_int_equal(together.actions, 2 * LAYERS * KV_HEADS); /* sequences 0 and 2 were full */
    fkv_session_close(s);
    for (int q = 0; q < SEQUENCES; q++) {
        struct tapped alone = {.backend = f->model->backend, .before = {first[q]}};
        s = open_session(f, "freqkv", 40, SEQUENCES);
        assert_ok(fkv_session_feed(s, f->tokens[q], first[q], &err));
        for (int site = 0; site < SITES; site++)
            fkv_session_tap(s, (enum fkv_site)site, keep_states, &alone);
        assert_ok(fkv_session_feed(s, f->tokens[q] + first[q], second[q], &err));
        for (int site = 0; site < SITES; site++)
            for (int l = 0; l < LAYERS; l++) {
                int heads = site == FKV_SITE_QUERY ? f->model->config.heads : KV_HEADS;
                size_t values = (size_t)(second[q] * heads * f->model->config.head_dim);
                assert_arrays_close(together.states[site][l][q], alone.states[site][l][0], values,
                                    0, 2e-5);
            }
        free_states(&alone);
        fkv_session_close(s);
    }
    free_states(&together);
}

TEST(misuse_is_refused_by_sequence_and_token) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "full", 0, SEQUENCES);
    const int32_t some[] = {1, 2, 3}, bad[] = {4, VOCAB};
    assert_refused(fkv_session_feed_batch(s, NULL, 0, &err), "1 to 3 sequences, found 0");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{3, some, 3}}, 1, &err),
                   "below 3, found 3");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{-1, some, 3}}, 1, &err),
                   "below 3, found -1");
    assert_refused(fkv_session_feed_batch(
                       s, (struct fkv_feed[]){{2, some, 1}, {0, some, 1}, {2, some, 1}}, 3, &err),
                   "sequence 2: expected once, found twice");
    assert_refused(
        fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 0}}, 2, &err),
        "sequence 1: expected 1 or more tokens, found 0");
    assert_refused(
        fkv_session_feed_batch(s, (struct fkv_feed[]){{0, f->tokens[0], 60}, {1, f->tokens[1], 37}},
                               2, &err),
        "1 to 96 tokens, found 97");
    assert_ok(fkv_session_feed_batch(s, (struct fkv_feed[]){{1, some, 3}}, 1, &err));
    assert_refused(
        fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 3}, {1, bad, 2}}, 2, &err),
        "sequence 1, token 4: expected an id below 2048, found 2048");
    assert_int_equal(fkv_session_tokens(s, 0), 0); /* nothing was fed */
    for (int at = 3; at < TOKENS; at += 27)
        assert_ok(
            fkv_session_feed_batch(s, (struct fkv_feed[]){{1, f->tokens[1] + at, 27}}, 1, &err));
    assert_refused(
        fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 1}}, 2, &err),
        "sequence 1, layer 0, KV head 0: the cache of 300 slots is full at token 300");
    assert_int_equal(fkv_session_tokens(s, 0), 0);
    fkv_session_reset(s, 1);
    assert_ok(fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 1}}, 2, &err));
    fkv_session_close(s);
}

TEST_GROUP(set_up, tear_down)
