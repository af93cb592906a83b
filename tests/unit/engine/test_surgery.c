/* Surgery on a session's cache, and biases of slots, by properties: what moves together stays the
 * same, what is cut off equals what weighs nothing. */
#include "tests/unit/engine/embedded_model.h"

#include "engine/session/kept_logits.h"
#include "engine/session/session_internal.h"
#include "engine/session/surgery.h"
#include "engine/session/taps.h"

enum { TOKENS = 240, VOCAB = 2048, LAYERS = 6, KV_HEADS = 2, WIDTH = 32 };

struct fixture {
    struct fkv_model *model;
    int32_t tokens[TOKENS];
    float logits[2][TOKENS * VOCAB];
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    f->model = open_embedded_model(tested_backend());
    for (int i = 0; i < TOKENS; i++) f->tokens[i] = test_between(0, VOCAB - 1);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    close_embedded_model(f->model);
    free(f);
    return 0;
}

static struct fkv_session *open_full(struct fixture *f, bool biases) {
    const struct fkv_session_options options = {
        .block = TOKENS, .max_tokens = TOKENS, .biases = biases};
    struct fkv_session *s;
    assert_ok(fkv_session_open(f->model, &fkv_full_attention, &options, &s, &err));
    return s;
}

static void feed(struct fixture *f, struct fkv_session *s, int32_t from, int32_t count,
                 float *logits) {
    assert_ok(fkv_session_feed(s, f->tokens + from, count, &err));
    if (logits) assert_ok(fkv_session_logits(s, 0, count, logits, &err));
}

static struct fkv_slots slots_of(int head, int32_t first, int32_t count) {
    return (struct fkv_slots){.layer = head / KV_HEADS,
                              .kv_head = head % KV_HEADS,
                              .first = first,
                              .count = count,
                              .position = first,
                              .step = 1};
}

static int keep_keys(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    (void)e;
    size_t floats = (size_t)event->rows * KV_HEADS * WIDTH;
    if (event->space == FKV_HOST)
        memcpy((float *)context + (size_t)event->layer * floats, event->data, 4 * floats);
    return FKV_OK;
}

TEST(keys_are_read_as_they_were_before_rotation) {
    struct fixture *f = *state;
    struct fkv_session *s = open_full(f, false);
    static float tapped[LAYERS * TOKENS * KV_HEADS * WIDTH];
    float keys[TOKENS * WIDTH], expected[TOKENS * WIDTH];
    fkv_session_tap(s, FKV_SITE_KEY, keep_keys, tapped);
    feed(f, s, 0, TOKENS, NULL);
    for (int h = 0; h < LAYERS * KV_HEADS; h++) {
        int32_t first = test_between(0, 100), count = test_between(0, TOKENS - first);
        struct fkv_slots at = slots_of(h, first, count);
        assert_ok(fkv_session_read_slots(s, &at, keys, NULL, &err));
        for (int j = 0; j < count; j++)
            memcpy(expected + j * WIDTH,
                   tapped + ((at.layer * TOKENS + first + j) * KV_HEADS + at.kv_head) * WIDTH,
                   4 * WIDTH);
        if (!strcmp(f->model->ops->name, "cpu"))
            assert_arrays_close(keys, expected, (size_t)(count * WIDTH), 0, 2e-6);
    }
    fkv_session_close(s);
}

/* Scores depend on differences of positions only. */
TEST(moving_all_keys_and_what_follows_together_changes_nothing) {
    struct fixture *f = *state;
    struct fkv_session *s = open_full(f, false);
    float keys[TOKENS * WIDTH];
    int32_t prefix = test_between(20, 150), rest = TOKENS - prefix;
    double shift = test_between(-40, 40) + 0.5;
    struct fkv_snapshot *snapshot;
    feed(f, s, 0, prefix, NULL);
    assert_ok(fkv_session_snapshot(s, &snapshot, &err));
    feed(f, s, prefix, rest, f->logits[0]);
    assert_ok(fkv_session_restore(s, snapshot, &err));
    for (int h = 0; h < LAYERS * KV_HEADS; h++) {
        struct fkv_slots at = slots_of(h, 0, prefix);
        assert_ok(fkv_session_read_slots(s, &at, keys, NULL, &err));
        at.position += shift;
        assert_ok(fkv_session_write_slots(s, &at, keys, NULL, &err));
        assert_ok(fkv_session_cut(s, &at, shift, &err));
    }
    feed(f, s, prefix, rest, f->logits[1]);
    assert_arrays_close(f->logits[1], f->logits[0], (size_t)rest * VOCAB, 0, 2e-5);
    assert_ok(fkv_session_restore(s, snapshot, &err));
    feed(f, s, prefix, rest, f->logits[1]);
    assert_memory_equal(f->logits[1], f->logits[0], sizeof(float) * (size_t)rest * VOCAB);
    fkv_snapshot_free(snapshot);
    fkv_session_close(s);
}

TEST(cutting_slots_off_equals_giving_them_no_weight) {
    struct fixture *f = *state;
    struct fkv_session *s = open_full(f, true);
    int32_t prefix = test_between(40, 150), kept = test_between(1, prefix - 1),
            rest = TOKENS - prefix;
    struct fkv_snapshot *snapshot;
    feed(f, s, 0, prefix, NULL);
    assert_ok(fkv_session_snapshot(s, &snapshot, &err));
    for (int cut = 0; cut < 2; cut++) {
        assert_ok(fkv_session_restore(s, snapshot, &err));
        for (int h = 0; h < LAYERS * KV_HEADS; h++) {
            struct fkv_slots head = slots_of(h, 0, kept), tail = slots_of(h, kept, prefix - kept);
            if (!cut) assert_ok(fkv_session_set_bias(s, &tail, -1e4, &err));
            if (cut) assert_ok(fkv_session_cut(s, &head, prefix - kept, &err));
        }
        feed(f, s, prefix, rest, f->logits[cut]);
        assert_int_equal(s->heads[3].slots, cut ? kept + rest : TOKENS);
        assert_int_equal(fkv_session_tokens(s, 0), TOKENS);
    }
    assert_arrays_close(f->logits[1], f->logits[0], (size_t)rest * VOCAB, 0, 2e-5);
    /* Neither the restored nor a fresh timeline knows of it. */
    fkv_session_reset(s, 0);
    feed(f, s, 0, TOKENS, f->logits[0]);
    struct fkv_session *plain = open_full(f, false);
    feed(f, plain, 0, TOKENS, f->logits[1]);
    assert_memory_equal(f->logits[1], f->logits[0], sizeof f->logits[0]);
    fkv_snapshot_free(snapshot);
    fkv_session_close(s), fkv_session_close(plain);
}

TEST(written_values_are_read_back_and_no_other_head_changes) {
    struct fixture *f = *state;
    struct fkv_session *s = open_full(f, false);
    float before[TOKENS * WIDTH], values[TOKENS * WIDTH], found[TOKENS * WIDTH];
    int chosen = test_between(0, LAYERS * KV_HEADS - 1), first = test_between(0, 50),
        count = test_between(1, 100);
    feed(f, s, 0, TOKENS, NULL);
    struct fkv_slots at = slots_of(chosen, first, count);
    for (int i = 0; i < count * WIDTH; i++) values[i] = (float)test_normal();
    for (int h = 0; h < LAYERS * KV_HEADS; h++) {
        struct fkv_slots all = slots_of(h, 0, TOKENS);
        assert_ok(fkv_session_read_slots(s, &all, NULL, before, &err));
        if (h == chosen)
            memcpy(before + first * WIDTH, values, (size_t)(count * WIDTH) * sizeof *values);
        assert_ok(fkv_session_write_slots(s, &at, NULL, values, &err));
        assert_ok(fkv_session_read_slots(s, &all, NULL, found, &err));
        if (h != chosen || !strcmp(f->model->ops->name, "cpu"))
            assert_arrays_close(found, before, TOKENS * WIDTH, 0, 1e-6);
    }
    fkv_session_close(s);
}

TEST(divergence_from_kept_logits_is_that_from_a_session_beside) {
    struct fixture *f = *state;
    struct fkv_session *a = open_full(f, false), *b = open_full(f, false);
    struct fkv_kept_logits *kept;
    double nll[100], kl[100], expected_nll[100], expected[100];
    double kept_nll[100], written[100];
    int32_t kept_top1[100];
    float states[100 * 256];
    const struct fkv_row_scores scores = {expected_nll, NULL}, unused = {NULL, NULL},
                                own = {nll, NULL}, of_kept = {kept_nll, kept_top1};
    assert_true(f->model->config.dim <= 256);
    assert_ok(fkv_kept_logits_open(a, 120, &kept, &err));
    feed(f, a, 0, 120, NULL);
    feed(f, b, 0, 120, NULL);
    assert_ok(fkv_session_keep_logits(a, 7, 100, kept, 11, &err));
    assert_ok(
        fkv_session_compare_kept(a, 7, 100, f->tokens + 8, kept, 11, &own, &of_kept, kl, &err));
    for (int i = 0; i < 100; i++) {
        assert_close(kl[i], 0, 1e-12, 0);
        assert_close(kept_nll[i], nll[i], 0, 0);
    }
    fkv_session_reset(a, 0);
    feed(f, a, 40, 120, NULL);
    assert_ok(fkv_session_compare_kept(a, 7, 100, f->tokens + 8, kept, 11, &own, NULL, kl, &err));
    assert_ok(fkv_session_compare(a, b, 7, 100, f->tokens + 8, &scores, &unused, expected, &err));
    for (int i = 0; i < 100; i++) {
        assert_close(kl[i], expected[i], 1e-9, 1e-6);
        assert_close(nll[i], expected_nll[i], 1e-9, 1e-9);
    }
    assert_true(kl[50] > 1e-3);
    /* States that were read from the other session are as good as kept ones. */
    assert_ok(fkv_session_final_states(b, 7, 100, states, &err));
    assert_ok(fkv_kept_logits_write(kept, 3, 100, states, &err));
    assert_ok(
        fkv_session_compare_kept(a, 7, 100, f->tokens + 8, kept, 3, &own, NULL, written, &err));
    for (int i = 0; i < 100; i++) assert_close(written[i], expected[i], 0, 0);
    assert_refused(fkv_kept_logits_write(kept, 21, 100, states, &err), "within the 120");
    assert_refused(
        fkv_session_compare_kept(a, 0, 100, f->tokens + 1, kept, 21, &own, NULL, kl, &err),
        "within the 120 that are kept");
    assert_refused(
        fkv_session_compare_kept(b, 0, 100, f->tokens + 1, kept, 0, &own, NULL, kl, &err),
        "another session");
    fkv_kept_logits_free(kept);
    fkv_session_close(a), fkv_session_close(b);
}

/* With --mass-bias: blocks, decoding, snapshots and resets go on to mean the same. */
TEST(mass_biases_do_not_depend_on_blocks_and_come_back_with_a_snapshot) {
    struct fixture *f = *state;
    struct fkv_policy_options p = {.name = "freqkv",
                                   .window = 48,
                                   .sinks = 4,
                                   .gamma = "0.37",
                                   .own = {{.name = "mass-bias", .value = 1}}};
    const struct fkv_session_options options = {.block = TOKENS, .max_tokens = TOKENS};
    struct fkv_session *s;
    struct fkv_snapshot *snapshot;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    feed(f, s, 0, TOKENS, f->logits[0]);
    fkv_session_reset(s, 0);
    for (int t = 0; t < TOKENS; t++) feed(f, s, t, 1, f->logits[1] + (size_t)t * VOCAB);
    assert_arrays_close(f->logits[1], f->logits[0], TOKENS * VOCAB, 0, 2e-5);
    fkv_session_reset(s, 0);
    feed(f, s, 0, 130, NULL);
    assert_ok(fkv_session_snapshot(s, &snapshot, &err));
    feed(f, s, 130, TOKENS - 130, f->logits[0]);
    assert_ok(fkv_session_restore(s, snapshot, &err));
    feed(f, s, 130, TOKENS - 130, f->logits[1]);
    assert_memory_equal(f->logits[1], f->logits[0], sizeof(float) * (TOKENS - 130) * VOCAB);
    fkv_snapshot_free(snapshot);
    fkv_session_close(s);
    p.own[0].value = 0;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    feed(f, s, 0, 130, NULL);
    feed(f, s, 130, TOKENS - 130, f->logits[0]);
    double differs = 0;
    for (int i = 0; i < (TOKENS - 130) * VOCAB; i++)
        differs = fmax(differs, fabs(f->logits[0][i] - f->logits[1][i]));
    assert_true(differs > 0.05);
    fkv_session_close(s);
}

TEST(what_cannot_be_operated_on_is_refused) {
    struct fixture *f = *state;
    const struct fkv_session_options options = {.block = 64, .max_tokens = 64};
    struct fkv_policy_options p = {
        .name = "local", .window = 32, .sinks = 4, .own = {{.name = "mass-bias", .value = 1}}};
    struct fkv_session *s;
    float x[TOKENS * WIDTH];
    assert_refused(fkv_session_open(f->model, &p, &options, &s, &err),
                   "--mass-bias: policy local does not take it");
    p.own[0].name = NULL;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    struct fkv_slots at = slots_of(0, 0, 0);
    assert_refused(fkv_session_read_slots(s, &at, x, NULL, &err), "expected policy full");
    fkv_session_close(s);
    s = open_full(f, false);
    feed(f, s, 0, 20, NULL);
    at = slots_of(0, 10, 11);
    assert_refused(fkv_session_read_slots(s, &at, x, NULL, &err), "within the 20 in use");
    at.count = 5;
    assert_refused(fkv_session_set_bias(s, &at, 1, &err), "without biases");
    assert_refused(fkv_session_cut(s, &at, 0, &err), "from 0 on");
    at.layer = LAYERS;
    assert_refused(fkv_session_write_slots(s, &at, x, NULL, &err), "no head with layer 6");
    fkv_session_close(s);
}

TEST_GROUP(set_up, tear_down)
