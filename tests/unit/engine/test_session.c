/* The properties of the method (each a test by name) on the embedded model, with windows small
 * enough to compress many times. */
#include "tests/unit/engine/embedded_model.h"

#include <malloc.h>

#include "engine/session/session_internal.h"
#include "engine/session/taps.h"
#include "kernels/base/ratio.h"

enum { TOKENS = 300, VOCAB = 2048 };

struct fixture {
    struct fkv_model *model;
    int32_t tokens[TOKENS];
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

static struct fkv_policy_options policy(const char *name, int32_t window, const char *gamma) {
    return (struct fkv_policy_options){.name = name, .window = window, .sinks = 4, .gamma = gamma};
}

static struct fkv_session *open_session(struct fixture *f, struct fkv_policy_options p) {
    struct fkv_session_options options = {.block = 128, .max_tokens = TOKENS};
    struct fkv_session *s;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    return s;
}

/* Feeds tokens in blocks of `block`; logits [count, VOCAB] of all of them. */
static void feed(struct fkv_session *s, const int32_t *tokens, int32_t count, int32_t block,
                 float *logits) {
    for (int32_t at = 0; at < count; at += block) {
        int32_t rows = count - at < block ? count - at : block;
        assert_ok(fkv_session_feed(s, tokens + at, rows, &err));
        assert_ok(fkv_session_logits(s, 0, rows, logits + (size_t)at * VOCAB, &err));
    }
}

/* Logits [TOKENS, VOCAB] of a fresh session; the caller frees. */
static float *run(struct fixture *f, struct fkv_policy_options p, const int32_t *tokens,
                  int32_t block) {
    float *logits = malloc(sizeof(float) * TOKENS * VOCAB);
    struct fkv_session *s = open_session(f, p);
    feed(s, tokens, TOKENS, block, logits);
    fkv_session_close(s);
    return logits;
}

static const char *const windowed[] = {"freqkv", "linear", "local", "streaming", "lm-infinite"};
enum { WINDOWED = sizeof windowed / sizeof *windowed };

/* All policies, or of many tests every second one. */
static int first_policy(void) { return small_sizes() ? test_between(0, 1) : 0; }
static int policy_step(void) { return small_sizes() ? 2 : 1; }

TEST(up_to_the_window_every_policy_equals_full_attention_exactly) {
    struct fixture *f = *state;
    float *full = run(f, policy("full", 0, NULL), f->tokens, 100);
    for (int i = first_policy(); i < WINDOWED; i += policy_step()) {
        float *other = run(f, policy(windowed[i], TOKENS, "0.5"), f->tokens, 100);
        assert_memory_equal(full, other, sizeof(float) * TOKENS * VOCAB);
        free(other);
    }
    free(full);
}

TEST(past_the_window_every_policy_differs_from_full_attention) {
    struct fixture *f = *state;
    float *full = run(f, policy("full", 0, NULL), f->tokens, 100);
    for (int i = first_policy(); i < WINDOWED; i += policy_step()) {
        float *other = run(f, policy(windowed[i], 64, "0.5"), f->tokens, 100);
        assert_memory_equal(full, other, sizeof(float) * 50 * VOCAB);
        double worst = 0;
        for (size_t j = 100 * VOCAB; j < (size_t)TOKENS * VOCAB; j++)
            worst = fmax(worst, fabs(full[j] - other[j]));
        assert_true(worst > 0.1);
        free(other);
    }
    free(full);
}

TEST(decoding_equals_prefill_and_the_block_size_changes_nothing) {
    struct fixture *f = *state;
    for (int i = first_policy(); i < WINDOWED; i += policy_step())
        for (int window = 33; window <= 80; window += 47) {
            struct fkv_policy_options p = policy(windowed[i], window, "0.4");
            float *prefill = run(f, p, f->tokens, 128), *decode = run(f, p, f->tokens, 1);
            float *odd = run(f, p, f->tokens, test_between(2, 61));
            assert_arrays_close(decode, prefill, (size_t)TOKENS * VOCAB, 0, 2e-5);
            assert_arrays_close(odd, prefill, (size_t)TOKENS * VOCAB, 0, 2e-5);
            free(prefill), free(decode), free(odd);
        }
}

TEST(the_future_never_changes_the_past) {
    struct fixture *f = *state;
    int32_t other[TOKENS], change = test_between(70, 250);
    memcpy(other, f->tokens, sizeof other);
    for (int i = change; i < TOKENS; i++) other[i] = test_between(0, VOCAB - 1);
    for (int i = first_policy(); i < WINDOWED; i += policy_step()) {
        struct fkv_policy_options p = policy(windowed[i], 64, "0.5");
        float *a = run(f, p, f->tokens, 128), *b = run(f, p, other, 128);
        assert_arrays_close(b, a, (size_t)change * VOCAB, 0, 1e-6);
        free(a), free(b);
    }
}

TEST(the_number_of_compressions_follows_the_formula) {
    struct fixture *f = *state;
    static const char *const gammas[] = {"0.25", "0.5", "0.75"};
    float *logits = malloc(sizeof(float) * TOKENS * VOCAB);
    for (int i = 0; i < 3; i++) {
        int32_t window = test_between(20, 120), n = window - 4;
        int32_t chunk = n - fkv_retained(atof(gammas[i]), n);
        struct fkv_session *s = open_session(f, policy("freqkv", window, gammas[i]));
        feed(s, f->tokens, TOKENS, 100, logits);
        const struct fkv_head *heads = s->heads;
        for (int h = 0; h < 12; h++) {
            assert_int_equal(heads[h].rounds, (TOKENS - window + chunk - 1) / chunk);
            assert_int_equal(heads[h].tokens, TOKENS);
            assert_true(heads[h].slots <= window);
        }
        struct fkv_session_statistics stats;
        fkv_session_statistics(s, &stats);
        assert_int_equal(stats.cache_bytes_peak, (int64_t)window * 6 * 2 * 2 * 32 * 4);
        fkv_session_close(s);
    }
    free(logits);
}

TEST(a_restored_session_goes_on_as_if_nothing_had_happened) {
    struct fixture *f = *state;
    float *first = malloc(sizeof(float) * TOKENS * VOCAB),
          *again = malloc(sizeof(float) * TOKENS * VOCAB);
    static const char *const selecting[] = {"snapkv", "h2o", "knorm"};
    for (int i = first_policy(); i < WINDOWED + 3; i += policy_step()) {
        int32_t at = test_between(1, 200), rest = TOKENS - at;
        struct fkv_policy_options p = policy(windowed[i % WINDOWED], 48, "0.5");
        if (i >= WINDOWED)
            p = (struct fkv_policy_options){
                .name = selecting[i - WINDOWED], .sinks = -1, .budget = 40, .prefill_block = 50};
        struct fkv_session *s = open_session(f, p);
        struct fkv_snapshot *snapshot;
        fkv_session_set_prefill(s, 0, 50, TOKENS);
        feed(s, f->tokens, at, 50, first);
        assert_ok(fkv_session_snapshot(s, &snapshot, &err));
        feed(s, f->tokens + at, rest, 50, first);
        assert_ok(fkv_session_restore(s, snapshot, &err));
        assert_int_equal(fkv_session_tokens(s, 0), at);
        feed(s, f->tokens + at, rest, 50, again);
        assert_memory_equal(first, again, sizeof(float) * (size_t)rest * VOCAB);
        fkv_snapshot_free(snapshot);
        fkv_session_close(s);
    }
    free(first), free(again);
}

TEST(reset_starts_from_an_empty_cache) {
    struct fixture *f = *state;
    float *first = malloc(sizeof(float) * TOKENS * VOCAB),
          *again = malloc(sizeof(float) * TOKENS * VOCAB);
    struct fkv_session *s = open_session(f, policy("freqkv", 48, "0.5"));
    feed(s, f->tokens, TOKENS, 100, first);
    fkv_session_reset(s, 0);
    feed(s, f->tokens, TOKENS, 100, again);
    assert_memory_equal(first, again, sizeof(float) * TOKENS * VOCAB);
    fkv_session_close(s);
    free(first), free(again);
}

TEST_IN_FOLDER(heads_with_ratios_of_their_own_keep_their_own_schedule) {
    struct fixture *f = *state;
    char path[300], gamma[310];
    snprintf(path, sizeof path, "%s/gamma.json", folder);
    FILE *file = fopen(path, "w");
    fprintf(file, "{\"format_version\":1,\"n_layers\":6,\"n_kv_heads\":2,\"window\":68,\"sinks\":4,"
                  "\"gamma\":[");
    for (int l = 0; l < 6; l++) fprintf(file, "%s[0.25,%g]", l ? "," : "", l == 3 ? 0.75 : 0.5);
    fprintf(file, "]}");
    fclose(file);
    snprintf(gamma, sizeof gamma, "@%s", path);
    struct fkv_policy_options p = policy("freqkv", 0, gamma);
    p.sinks = -1;
    struct fkv_session *s = open_session(f, p);
    const struct fkv_policy_setup *setup = fkv_session_setup(s);
    assert_int_equal(setup->window, 68);
    assert_int_equal(setup->retained[0], 16);
    assert_int_equal(setup->retained[7], 48);
    float *blocks = malloc(sizeof(float) * TOKENS * VOCAB);
    feed(s, f->tokens, TOKENS, 100, blocks);
    const struct fkv_head *heads = s->heads;
    assert_int_equal(heads[0].rounds, (TOKENS - 68 + 47) / 48);
    assert_int_equal(heads[1].rounds, (TOKENS - 68 + 31) / 32);
    assert_int_equal(heads[7].rounds, (TOKENS - 68 + 15) / 16);
    fkv_session_close(s);
    float *decode = run(f, p, f->tokens, 1);
    assert_arrays_close(decode, blocks, (size_t)TOKENS * VOCAB, 0, 2e-5);
    free(blocks), free(decode);
}

TEST(recent_slots_stay_uncompressed_and_rescaling_can_be_switched_off) {
    struct fixture *f = *state;
    struct fkv_policy_options plain = policy("freqkv", 64, "0.5"), recent = plain, flat = plain;
    recent.own[0] = (struct fkv_own_value){.name = "recent", .value = 16};
    flat.own[0] = (struct fkv_own_value){.name = "rescale", .value = 0};
    float *a = run(f, plain, f->tokens, 100), *b = run(f, recent, f->tokens, 100),
          *c = run(f, flat, f->tokens, 100);
    float *decode = run(f, recent, f->tokens, 1);
    assert_arrays_close(decode, b, (size_t)TOKENS * VOCAB, 0, 2e-5);
    assert_memory_equal(a, c, sizeof(float) * 64 * VOCAB);
    double recent_differs = 0, flat_differs = 0;
    for (size_t i = 64 * VOCAB; i < (size_t)TOKENS * VOCAB; i++) {
        recent_differs = fmax(recent_differs, fabs(a[i] - b[i]));
        flat_differs = fmax(flat_differs, fabs(a[i] - c[i]));
    }
    assert_true(recent_differs > 0.05 && flat_differs > 0.05);
    free(a), free(b), free(c), free(decode);
}

TEST(a_decode_step_allocates_nothing) {
    struct fixture *f = *state;
    for (int i = first_policy(); i < WINDOWED; i += policy_step()) {
        struct fkv_session *s = open_session(f, policy(windowed[i], 48, "0.5"));
        float *logits = malloc(sizeof(float) * VOCAB);
        assert_ok(fkv_session_feed(s, f->tokens, 100, &err));
        assert_ok(fkv_session_feed(s, f->tokens + 100, 1, &err));
        struct mallinfo2 before = mallinfo2();
        for (int t = 101; t < 200; t++) {
            assert_ok(fkv_session_feed(s, f->tokens + t, 1, &err));
            assert_ok(fkv_session_logits(s, 0, 1, logits, &err));
        }
        struct mallinfo2 after = mallinfo2();
        if (!strcmp(f->model->ops->name, "cpu")) { /* the reference and drivers do as they like */
            assert_int_equal(after.uordblks, before.uordblks);
            assert_int_equal(after.hblks, before.hblks);
        }
        free(logits);
        fkv_session_close(s);
    }
}

TEST(a_sixteen_bit_cache_stays_close_to_float32) {
    struct fixture *f = *state;
    struct fkv_policy_options p = policy("freqkv", 64, "0.5");
    float *exact = run(f, p, f->tokens, 100), *logits = malloc(sizeof(float) * TOKENS * VOCAB);
    for (int d = FKV_F16; d <= FKV_BF16; d++) {
        struct fkv_session_options options = {
            .block = 128, .max_tokens = TOKENS, .cache_dtype = (enum fkv_dtype)d};
        struct fkv_session *s;
        assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
        feed(s, f->tokens, TOKENS, 100, logits);
        assert_arrays_close(logits, exact, (size_t)TOKENS * VOCAB, 0, d == FKV_F16 ? 0.02 : 0.15);
        fkv_session_close(s);
    }
    free(exact), free(logits);
}

struct counted {
    int events[FKV_SITES];
    int64_t rows[FKV_SITES];
    double kept, before;
};

static int count_event(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    (void)e;
    struct counted *c = context;
    c->events[event->site]++;
    c->rows[event->site] += event->rows;
    if (event->site == FKV_SITE_ACTION) {
        c->before += event->energy->key_before + event->energy->value_before;
        c->kept += event->energy->key_kept + event->energy->value_kept;
    }
    return FKV_OK;
}

TEST(taps_see_every_token_of_every_layer_once_and_every_compression) {
    struct fixture *f = *state;
    struct fkv_policy_options p = policy("freqkv", 64, "0.5");
    struct fkv_session_options options = {
        .block = 128, .max_tokens = TOKENS, .measure_energy = true};
    struct fkv_session *s;
    struct counted c = {0};
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err));
    for (int site = 0; site < FKV_SITES; site++)
        fkv_session_tap(s, (enum fkv_site)site, count_event, &c);
    float *logits = malloc(sizeof(float) * TOKENS * VOCAB);
    feed(s, f->tokens, TOKENS, 70, logits);
    for (int site = 0; site < FKV_SITE_ACTION; site++) assert_int_equal(c.rows[site], 6 * TOKENS);
    assert_int_equal(c.events[FKV_SITE_ACTION], 12 * ((TOKENS - 64 + 29) / 30));
    assert_true(c.kept > 0 && c.kept < c.before);
    free(logits);
    fkv_session_close(s);
}

TEST(score_is_the_log_softmax_and_kl_to_itself_is_zero) {
    struct fixture *f = *state;
    struct fkv_session *a = open_session(f, policy("full", 0, NULL)),
                       *b = open_session(f, policy("local", 40, "0.5"));
    float *logits = malloc(sizeof(float) * 128 * VOCAB);
    double nll[128], kl[128], other[128];
    int32_t top1[128];
    const struct fkv_row_scores scores = {nll, top1}, others = {other, NULL};
    assert_ok(fkv_session_feed(a, f->tokens, 128, &err));
    assert_ok(fkv_session_feed(b, f->tokens, 128, &err));
    assert_ok(fkv_session_logits(a, 3, 100, logits,
                                 &err)); /* the very rows: other products round otherwise */
    assert_ok(fkv_session_compare(a, a, 3, 100, f->tokens + 4, &scores, &others, kl, &err));
    for (int i = 0; i < 100; i++) {
        const float *row = logits + (size_t)i * VOCAB;
        double sum = 0;
        int best = 0;
        for (int v = 0; v < VOCAB; v++) sum += exp(row[v]), best = row[v] > row[best] ? v : best;
        assert_close(nll[i], log(sum) - row[f->tokens[4 + i]], 1e-9, 1e-9);
        assert_int_equal(top1[i], best);
        assert_close(kl[i], 0, 1e-12, 0);
        assert_true(nll[i] == other[i]);
    }
    assert_ok(fkv_session_score(a, 3, 100, f->tokens + 4, other, NULL, &err));
    for (int i = 0; i < 100; i++) assert_close(other[i], nll[i], 1e-12, 1e-12);
    assert_ok(fkv_session_compare(b, a, 0, 127, f->tokens + 1, &scores, &others, kl, &err));
    assert_close(kl[30], 0, 1e-9, 0);
    assert_true(kl[120] > 1e-4);
    free(logits);
    fkv_session_close(a), fkv_session_close(b);
}

TEST(row_state_tells_slots_rounds_and_age) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, policy("freqkv", 64, "0.5"));
    struct fkv_row_state row[128];
    assert_ok(fkv_session_feed(s, f->tokens, 128, &err));
    fkv_session_row_state(s, 0, 128, row);
    assert_close(row[0].slots, 1, 1e-9, 0);
    assert_close(row[63].slots, 64, 1e-9, 0);
    assert_close(row[63].compressions, 0, 1e-9, 0);
    assert_close(row[64].slots, 35, 1e-9, 0); /* 4 sinks, 30 retained, its own */
    assert_close(row[64].compressions, 1, 1e-9, 0);
    assert_close(row[64].since_compression, 1, 1e-9, 0);
    assert_close(row[93].since_compression, 30, 1e-9, 0);
    assert_close(row[94].compressions, 2, 1e-9, 0);
    assert_close(row[94].evictions, 0, 0, 0);
    assert_close(row[94].since_eviction, 95, 1e-9, 0);
    fkv_session_close(s);
}

TEST(misuse_is_refused) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, policy("full", 0, NULL));
    int32_t bad = VOCAB;
    float logits[VOCAB];
    assert_refused(fkv_session_feed(s, &bad, 1, &err), "expected an id below 2048, found 2048");
    assert_refused(fkv_session_feed(s, f->tokens, 129, &err), "1 to 128 tokens, found 129");
    assert_refused(fkv_session_logits(s, 0, 1, logits, &err), "rows within the 0 of the last feed");
    for (int at = 0; at < TOKENS; at += 100) assert_ok(fkv_session_feed(s, f->tokens, 100, &err));
    assert_refused(fkv_session_feed(s, f->tokens, 1, &err), "the cache of 300 slots is full");
    fkv_session_close(s);
    fkv_session_close(NULL);
    fkv_snapshot_free(NULL);
}

TEST_GROUP(set_up, tear_down)
