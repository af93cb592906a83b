/* Layers that slide by themselves, under every policy (engine/cache/policies/sliding.c): a layer
 * whose window is below the policy's is left alone, one whose window is not behaves as any other.
 */
#include "engine/session/session.h"
#include "engine/session/taps.h"
#include "tests/unit/support.h"

enum { TOKENS = 61, VOCAB = 96, LAYERS = 3, WIDTH = 10 };

static const struct fkv_backend_ops *ops;
static struct fkv_backend *processor;
static struct fkv_model *model; /* layers 0 and 2 slide over 6 tokens, layer 1 does not */
static int32_t tokens[TOKENS];

static int open_model(void **state) {
    (void)state;
    const char *name = getenv("FKV_TEST_BACKEND");
    assert_ok(fkv_backend_find(name ? name : "cpu", &ops, NULL, &err));
    assert_ok(ops->open(&(struct fkv_backend_options){.threads = 2, .compute = FKV_COMPUTE_F32},
                        &processor, &err));
    assert_ok(fkv_model_open("tests/golden/gemma3", ops, processor, &(struct fkv_model_options){0},
                             &model, &err));
    assert_int_equal(model->config.layer[0].window, 6);
    assert_int_equal(model->config.layer[1].window, 0);
    assert_int_equal(model->config.layer[2].window, 6);
    for (int i = 0; i < TOKENS; i++) tokens[i] = test_between(0, VOCAB - 1);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    fkv_model_close(model);
    ops->close(processor);
    return 0;
}

/* What a run shows: keys of every layer, logits, and what was counted. */
struct run {
    float keys[LAYERS][TOKENS * WIDTH];
    float logits[TOKENS * VOCAB];
    int64_t actions[LAYERS];
    struct fkv_session_statistics statistics;
};

static int see_keys(void *context, const struct fkv_tap_event *e, struct fkv_error *error) {
    struct run *run = context;
    return ops->read(processor, e->states, e->offset, run->keys[e->layer] + e->token * WIDTH,
                     sizeof(float) * WIDTH * (size_t)e->rows, error);
}

static int see_action(void *context, const struct fkv_tap_event *e, struct fkv_error *error) {
    (void)error;
    ((struct run *)context)->actions[e->layer]++;
    return FKV_OK;
}

static void feed(const char *policy, int window, int block, bool tapped, struct run *run) {
    struct fkv_session *s;
    const struct fkv_policy_options p = {
        .name = policy, .window = window, .sinks = 2, .gamma = NULL};
    const struct fkv_session_options o = {
        .block = block, .max_tokens = TOKENS, .cache_dtype = FKV_F32};
    memset(run, 0, sizeof *run);
    assert_ok(fkv_session_open(model, &p, &o, &s, &err));
    if (tapped) fkv_session_tap(s, FKV_SITE_KEY, see_keys, run);
    fkv_session_tap(s, FKV_SITE_ACTION, see_action, run);
    for (int at = 0; at < TOKENS; at += block) {
        const int rows = TOKENS - at < block ? TOKENS - at : block;
        assert_ok(fkv_session_feed(s, tokens + at, rows, &err));
        assert_ok(fkv_session_logits(s, 0, rows, run->logits + at * VOCAB, &err));
    }
    fkv_session_statistics(s, &run->statistics);
    fkv_session_close(s);
}

static const char *const policies[] = {"freqkv", "linear", "local", "streaming", "lm-infinite"};
enum { POLICIES = sizeof policies / sizeof policies[0] };

/* Keys of layer 1 are made of what layer 0 gave, which no policy touches; from layer 1 on they
 * differ. */
TEST(a_layer_that_slides_over_less_than_the_window_is_left_alone) {
    static struct run full, run;
    feed("full", 0, 7, true, &full);
    for (int p = 0; p < POLICIES; p++) {
        feed(policies[p], 16, 7, true, &run);
        assert_arrays_close(run.keys[0], full.keys[0], TOKENS * WIDTH, 1e-5, 0);
        assert_arrays_close(run.keys[1], full.keys[1], TOKENS * WIDTH, 1e-5, 0);
        double largest = 0;
        for (int i = 0; i < TOKENS * WIDTH; i++)
            largest = fmax(largest, fabs((double)run.keys[2][i] - full.keys[2][i]));
        assert_true(largest > 1e-2);
        assert_int_equal(run.actions[0], 0);
        assert_true(run.actions[1] > 0);
        assert_int_equal(run.actions[2], 0);
    }
}

/* One KV head, N = 16, S = 2: one layer acts, by the schedule. */
TEST(only_layers_that_the_policy_acts_on_are_counted) {
    static struct run run;
    feed("freqkv", 16, 61, false, &run);
    assert_int_equal(run.statistics.compressions, (TOKENS - 16 + 6) / 7);
    feed("streaming", 16, 61, false, &run);
    assert_int_equal(run.statistics.evictions, TOKENS - 16);
    feed("full", 0, 61, false, &run);
    assert_int_equal(run.statistics.cache_bytes_peak, 2 * 4 * WIDTH * (TOKENS + 2 * 6));
}

TEST(decoding_equals_prefill_at_every_block) {
    static struct run whole, blocks;
    static const int windows[] = {4, 6, 7, 16, 40}, sizes[] = {1, 5, 23};
    for (int p = 0; p < POLICIES; p++)
        for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
            feed(policies[p], windows[w], TOKENS, false, &whole);
            for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
                feed(policies[p], windows[w], sizes[b], false, &blocks);
                assert_arrays_close(blocks.logits, whole.logits, TOKENS * VOCAB, 2e-4, 0);
            }
        }
}

TEST(up_to_the_window_a_policy_is_full_attention) {
    static struct run full, run;
    feed("full", 0, 11, false, &full);
    for (int p = 0; p < POLICIES; p++) {
        feed(policies[p], 33, 11, false, &run);
        assert_arrays_close(run.logits, full.logits, 33 * VOCAB, 1e-5, 0);
    }
}

/* Six slots are all that a layer's window of 6 lets through. */
TEST(a_window_that_the_policy_never_reaches_does_not_matter) {
    static struct run with, without;
    for (int p = 0; p < POLICIES; p++) {
        feed(policies[p], 6, 9, false, &with);
        model->config.layer[0].window = model->config.layer[2].window = 0;
        feed(policies[p], 6, 9, false, &without);
        model->config.layer[0].window = model->config.layer[2].window = 6;
        assert_arrays_close(with.logits, without.logits, TOKENS * VOCAB, 0, 0);
    }
}

TEST(a_policy_that_would_change_nothing_is_refused) {
    struct fkv_policy_setup setup;
    const struct fkv_policy_options options = {.name = "freqkv", .window = 7, .sinks = 2};
    model->config.layer[1].window = 5;
    assert_refused(fkv_policy_setup(&options, &model->config, TOKENS, &setup, &err),
                   "--window: expected at most 6, the window that every layer of the model has");
    model->config.layer[1].window = 0;
}

TEST_GROUP(open_model, close_model)
