/* How many rows the tools feed at once, and what that must not change. */
#include "tests/unit/support.h"

#include <malloc.h>

#include "engine/command_line.h"

static struct fkv_engine engine;
static struct fkv_backend_ops ops;
static struct fkv_device_info device; /* what the pretended backend says of itself */

static int info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *e) {
    (void)b, (void)e;
    *out = device;
    return FKV_OK;
}

static int set_up(void **state) {
    (void)state;
    static struct fkv_engine_options options;
    fkv_engine_options_default(&options);
    options.model = "data/litbank-1m";
    options.backend = "cpu";
    options.threads = 1;
    if (fkv_engine_open(&options, &engine, &err)) {
        printf("%s\n", err.message);
        return -1;
    }
    ops = *engine.ops;
    ops.info = info;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fkv_engine_close(&engine);
    return 0;
}

/* Of so many sessions of one backend, which takes its own once. */
static int64_t bytes_of(const struct fkv_session_options *options, int sessions) {
    struct fkv_session_needs needs = {0};
    assert_ok(fkv_session_add_needs(engine.model, &fkv_full_attention, options, &needs, &err));
    return sessions * (needs.cache + needs.scratch) + needs.own.shared + needs.own.kept;
}

/* The backend's own rows are among it: run it first, for they are kept. */
TEST(a_session_takes_little_more_memory_than_was_said) {
    const struct fkv_session_options options = {.block = 4096, .max_tokens = 4096};
    struct fkv_session *s;
    const int64_t said = bytes_of(&options, 1);
    const struct mallinfo2 before = mallinfo2();
    assert_ok(fkv_session_open(engine.model, &fkv_full_attention, &options, &s, &err));
    const struct mallinfo2 after = mallinfo2();
    const double taken =
        (double)(after.uordblks + after.hblkhd) - (double)(before.uordblks + before.hblkhd);
    if (taken > 1.03 * (double)said + (1 << 20)) /* tables of positions, a row's counts */
        fail_msg("%.0f bytes were taken, %.0f were said", taken, (double)said);
    fkv_session_close(s);
}

static int32_t block_of(enum fkv_space space, int64_t memory, bool baseline, int32_t sequences,
                        int32_t shares, int64_t beside, int64_t max_tokens) {
    struct fkv_engine pretended = engine;
    pretended.ops = &ops;
    device =
        (struct fkv_device_info){.space = space, .memory_free = memory, .memory_total = memory};
    struct fkv_session_options options = {.sequences = sequences, .max_tokens = max_tokens};
    assert_ok(fkv_engine_block(&pretended, &fkv_full_attention, baseline, shares, beside, &options,
                               &err));
    return options.block;
}

TEST(a_host_is_fed_512_rows_and_a_device_4096) {
    const int64_t much = 1ll << 40;
    assert_int_equal(block_of(FKV_HOST, much, false, 1, 1, 0, 100000), 512);
    assert_int_equal(block_of(FKV_HOST, 1, false, 1, 1, 0, 100000), 512);
    assert_int_equal(block_of(FKV_HOST, much, false, 5, 5, 0, 100000), 5 * 512);
    assert_int_equal(block_of(FKV_DEVICE, much, true, 1, 1, 0, 100000), 4096);
    assert_int_equal(block_of(FKV_DEVICE, much, true, 4, 4, 0, 100000), 4096);
    assert_int_equal(block_of(FKV_DEVICE, much, true, 20, 20, 0, 100000), 20 * 512);
    assert_int_equal(block_of(FKV_DEVICE, much, false, 20, 1, 0, 100000),
                     4096); /* prompts: one after the other */
    assert_int_equal(block_of(FKV_DEVICE, much, false, 1, 1, 0, 700),
                     700); /* no more than there will be */
    assert_int_equal(block_of(FKV_HOST, much, false, 600, 1, 0, 700),
                     600); /* a decode step must fit */
}

TEST(a_device_with_little_memory_is_fed_fewer_rows) {
    struct fkv_session_options options = {.max_tokens = 100000};
    const int64_t beside = test_between(0, 1 << 30);
    for (int baseline = 0; baseline < 2; baseline++) {
        for (int i = 0; i < 3; i++) {
            options.block = 4096 >> i;
            const int64_t least =
                (bytes_of(&options, 1 + baseline) + beside) / 7 * 8; /* an eighth stays free */
            const int32_t enough = block_of(FKV_DEVICE, least + 16, baseline, 1, 1, beside, 100000);
            const int32_t too_little =
                block_of(FKV_DEVICE, least - 16, baseline, 1, 1, beside, 100000);
            assert_int_equal(enough, 4096 >> i);
            assert_int_equal(too_little, 2048 >> i);
        }
    }
    assert_int_equal(block_of(FKV_DEVICE, 1, false, 1, 1, 0, 100000),
                     512); /* refused later, with numbers */
}

TEST(what_a_policy_stores_does_not_depend_on_the_block) {
    static const char *const policies[] = {"full",  "freqkv",    "linear",
                                           "local", "streaming", "lm-infinite"};
    enum { TOKENS = 700 };
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    for (size_t p = 0; p < sizeof policies / sizeof *policies; p++) {
        struct fkv_session_statistics first = {0};
        const struct fkv_policy_options policy = {
            .name = policies[p], .window = test_between(24, 80), .sinks = test_between(0, 4)};
        const int32_t blocks[] = {TOKENS, 512, test_between(2, 60)};
        for (int b = 0; b < 3; b++) {
            struct fkv_session_options options = {.block = blocks[b], .max_tokens = TOKENS};
            struct fkv_session_statistics found;
            struct fkv_session *s;
            assert_ok(fkv_session_open(engine.model, &policy, &options, &s, &err));
            for (int32_t at = 0, n; at < TOKENS; at += n) {
                n = TOKENS - at < blocks[b] ? TOKENS - at : blocks[b];
                assert_ok(fkv_session_feed(s, tokens + at, n, &err));
            }
            fkv_session_statistics(s, &found);
            if (!b) first = found;
            assert_int_equal(found.cache_bytes_peak, first.cache_bytes_peak);
            assert_int_equal(found.compressions, first.compressions);
            assert_int_equal(found.evictions, first.evictions);
            assert_close(found.slots_sum, first.slots_sum, 0, 1e-9);
            /* Estimates count with whole rounds; a timeline that is long beside them comes close.
             */
            assert_close(fkv_policy_slots(fkv_session_setup(s), TOKENS), found.slots_sum, 0, 0.05);
            fkv_session_close(s);
        }
    }
}

TEST(a_rehearsal_leaves_no_trace) {
    enum { TOKENS = 300 };
    int32_t tokens[TOKENS];
    double nll[2][TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    static const char *const policies[] = {"full", "freqkv", "streaming"};
    for (int p = 0; p < 3; p++) {
        const struct fkv_policy_options policy = {.name = policies[p], .window = 64, .sinks = 4};
        struct fkv_session_options options = {
            .block = TOKENS, .max_tokens = TOKENS, .biases = p == 0};
        struct fkv_session_statistics found[2];
        for (int rehearsed = 0; rehearsed < 2; rehearsed++) {
            struct fkv_session *s;
            struct fkv_cost cost = {-1, -1};
            assert_ok(fkv_session_open(engine.model, &policy, &options, &s, &err));
            if (rehearsed) {
                assert_ok(fkv_session_rehearse(s, 1, TOKENS / 3, TOKENS, FKV_SCORED_WITH_KL, &cost,
                                               &err));
                assert_true(cost.token >= 0 && cost.slot >= 0 && fkv_cost_seconds(&cost, 1, 1) > 0);
            }
            assert_ok(fkv_session_feed(s, tokens, TOKENS, &err));
            assert_ok(fkv_session_score(s, 0, TOKENS - 1, tokens + 1, nll[rehearsed], NULL, &err));
            fkv_session_statistics(s, &found[rehearsed]);
            fkv_session_close(s);
        }
        assert_memory_equal(nll[0], nll[1], (TOKENS - 1) * sizeof **nll);
        assert_int_equal(found[0].tokens, found[1].tokens);
        assert_int_equal(found[0].compressions, found[1].compressions);
        assert_int_equal(found[0].evictions, found[1].evictions);
        assert_int_equal(found[0].cache_bytes_peak, found[1].cache_bytes_peak);
        assert_close(found[0].slots_sum, found[1].slots_sum, 0, 0);
    }
}

TEST_GROUP(set_up, tear_down)
