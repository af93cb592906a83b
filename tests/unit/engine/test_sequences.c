/* Several sequences side by side on the embedded model: each as if it were alone, whatever the others do; and how the work is issued (one call for all that is
 * due, decode steps of one shape), which a table of operations that looks on before it passes them to the processor can tell. */
#include "tests/unit/support.h"

#include <malloc.h>

#include "engine/session.h"

enum { TOKENS = 300, VOCAB = 2048, SEQUENCES = 3, LAYERS = 6, KV_HEADS = 2, BLOCK = 96 };

static struct fkv_error err;

/* ---- a processor with an onlooker ---- */

enum { MOST_ISSUED = 256 };

static struct {
    const struct fkv_backend_ops *processor;
    struct fkv_backend_ops ops; /* the processor's with some overlaid */
    struct fkv_device_info device;
    int compresses, gathers, heads_acting, steps_created;
    bool in_step, alike;                /* alike: the steps of one session follow each other */
    int32_t issued[MOST_ISSUED], count; /* of the step under way: an operation's number and its counts */
    int32_t last[MOST_ISSUED], last_count;
} seen;

static void note(int32_t operation, int32_t a, int32_t b) {
    const int32_t values[] = {operation, a, b};
    for (int i = 0; seen.in_step && i < 3; i++) {
        assert_in_range(seen.count, 0, MOST_ISSUED - 1);
        seen.issued[seen.count++] = values[i];
    }
}

static int info(struct fkv_backend *b, struct fkv_device_info *out, struct fkv_error *e) {
    if (seen.device.space == FKV_HOST) return seen.processor->info(b, out, e);
    *out = seen.device;
    return FKV_OK;
}

static int step_create(struct fkv_backend *b, struct fkv_step **out, struct fkv_error *e) {
    seen.steps_created++;
    seen.last_count = 0;
    return seen.processor->step_create(b, out, e);
}

static int step_begin(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *e) {
    assert_false(seen.in_step);
    seen.in_step = true;
    seen.count = 0;
    return seen.processor->step_begin(b, step, e);
}

static int step_end(struct fkv_backend *b, struct fkv_step *step, struct fkv_error *e) {
    assert_true(seen.in_step);
    seen.in_step = false;
    if (seen.alike && seen.last_count) {
        assert_int_equal(seen.count, seen.last_count);
        assert_memory_equal(seen.issued, seen.last, sizeof *seen.last * (size_t)seen.count);
    }
    memcpy(seen.last, seen.issued, sizeof seen.last);
    seen.last_count = seen.count;
    return seen.processor->step_end(b, step, e);
}

static int embed(struct fkv_backend *b, const struct fkv_weight *table, const int32_t *tokens, int32_t rows,
                 struct fkv_buffer *x, struct fkv_error *e) {
    note(1, rows, 0);
    return seen.processor->embed(b, table, tokens, rows, x, e);
}

static int append(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *k,
                  const struct fkv_buffer *v, const struct fkv_cache *cache, const struct fkv_append_item *items,
                  int32_t count, struct fkv_error *e) {
    note(2, count, (int32_t)cache->offset);
    return seen.processor->append(b, shape, k, v, cache, items, count, e);
}

static int attend(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_buffer *q,
                  const struct fkv_cache *cache, const struct fkv_span *spans, const struct fkv_attend_item *items,
                  int32_t count, struct fkv_buffer *out, struct fkv_error *e) {
    int32_t all = 0;
    for (int32_t i = 0; i < count; i++) all += items[i].spans;
    note(3, count, all);
    return seen.processor->attend(b, shape, q, cache, spans, items, count, out, e);
}

static int project_residual(struct fkv_backend *b, const struct fkv_weight *w, const struct fkv_buffer *in,
                            int32_t rows, struct fkv_buffer *x, struct fkv_error *e) {
    note(4, rows, w->cols);
    return seen.processor->project_residual(b, w, in, rows, x, e);
}

static int compress(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_map *map,
                    const struct fkv_cache *cache, const struct fkv_compress_item *items, int32_t count,
                    struct fkv_energy *energy, struct fkv_error *e) {
    assert_false(seen.in_step);
    assert_null(energy);
    seen.compresses++;
    seen.heads_acting += count;
    return seen.processor->compress(b, shape, map, cache, items, count, energy, e);
}

static int gather(struct fkv_backend *b, const struct fkv_attention_shape *shape, const struct fkv_cache *cache,
                  const struct fkv_gather_item *items, int32_t count, struct fkv_energy *energy, struct fkv_error *e) {
    assert_false(seen.in_step);
    assert_null(energy);
    seen.gathers++;
    seen.heads_acting += count;
    return seen.processor->gather(b, shape, cache, items, count, energy, e);
}

/* ---- sessions ---- */

struct fixture {
    struct fkv_backend *backend;
    struct fkv_model *model;
    int32_t tokens[SEQUENCES][TOKENS];
    float *one, *other; /* [BLOCK, VOCAB] */
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    const char *name = getenv("FKV_TEST_BACKEND");
    assert_ok(fkv_backend_find(name ? name : "cpu", &seen.processor, &err), err);
    seen.ops = *seen.processor;
    seen.ops.info = info;
    seen.ops.step_create = step_create;
    seen.ops.step_begin = step_begin;
    seen.ops.step_end = step_end;
    seen.ops.embed = embed;
    seen.ops.append = append;
    seen.ops.attend = attend;
    seen.ops.project_residual = project_residual;
    seen.ops.compress = compress;
    seen.ops.gather = gather;
    assert_ok(seen.ops.open(&(struct fkv_backend_options){0}, &f->backend, &err), err);
    assert_ok(fkv_model_open("data/litbank-1m", &seen.ops, f->backend, false, &f->model, &err), err);
    test_seed();
    for (int i = 0; i < SEQUENCES * TOKENS; i++) f->tokens[i / TOKENS][i % TOKENS] = test_between(0, VOCAB - 1);
    f->one = malloc(sizeof(float) * BLOCK * VOCAB);
    f->other = malloc(sizeof(float) * BLOCK * VOCAB);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    fkv_model_close(f->model);
    seen.ops.close(f->backend);
    free(f->one), free(f->other);
    free(f);
    return 0;
}

static const char *const policies[] = {"full", "freqkv", "local", "streaming"};

static struct fkv_session *open_session(struct fixture *f, const char *policy, int32_t window, int32_t sequences) {
    struct fkv_policy_options p = {.name = policy, .window = window, .sinks = 4, .rescale = true, .gamma = "0.4"};
    struct fkv_session_options options = {
        .block = BLOCK / SEQUENCES * sequences, .sequences = sequences, .max_tokens = TOKENS};
    struct fkv_session *s;
    assert_ok(fkv_session_open(f->model, &p, &options, &s, &err), err);
    return s;
}

/* Feeds each sequence in `counts` [SEQUENCES] (0: it sits out) its next tokens, in a random order. Returns the number of feeds. */
static int32_t feed_some(struct fixture *f, struct fkv_session *s, const int32_t *counts,
                         struct fkv_feed feeds[SEQUENCES]) {
    int32_t feed_count = 0, first = test_between(0, SEQUENCES - 1);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        int32_t q = (first + i) % SEQUENCES;
        if (counts[q]) feeds[feed_count++] = (struct fkv_feed){q, f->tokens[q] + fkv_session_tokens(s, q), counts[q]};
    }
    assert_ok(fkv_session_feed_batch(s, feeds, feed_count, &err), err);
    return feed_count;
}

/* Decode steps half of the time, else blocks of any size; at least one sequence, none beyond its tokens. False when there is none left. */
static bool draw_counts(const struct fkv_session *s, int32_t counts[SEQUENCES]) {
    bool decode = test_between(0, 1);
    int32_t drawn = 0, left = 0;
    for (int32_t q = 0; q < SEQUENCES; q++) {
        int32_t rest = TOKENS - (int32_t)fkv_session_tokens(s, q), most = decode ? 1 : BLOCK / SEQUENCES;
        counts[q] = test_between(0, 3) ? test_between(1, most) : 0;
        if (counts[q] > rest) counts[q] = rest;
        drawn += counts[q];
        left += rest;
    }
    return left && (drawn || draw_counts(s, counts));
}

/* ---- what a sequence sees ---- */

static void compare_rows(struct fixture *f, struct fkv_session *together, int32_t row, struct fkv_session *alone,
                         int32_t rows) {
    double a[3][BLOCK], b[3][BLOCK];
    assert_ok(fkv_session_logits(together, row, rows, f->one, &err), err);
    assert_ok(fkv_session_logits(alone, 0, rows, f->other, &err), err);
    assert_arrays_close(f->one, f->other, (size_t)rows * VOCAB, 0, 2e-5);
    fkv_session_row_state(together, row, rows, a[0], a[1], a[2]);
    fkv_session_row_state(alone, 0, rows, b[0], b[1], b[2]);
    for (int i = 0; i < 3 * rows; i++) assert_close(a[i / rows][i % rows], b[i / rows][i % rows], 1e-12, 0);
}

static void sequences_side_by_side_equal_each_alone(void **state) {
    struct fixture *f = *state;
    for (int p = 0; p < 4; p++) {
        int32_t window = test_between(20, 70), counts[SEQUENCES];
        struct fkv_session *together = open_session(f, policies[p], window, SEQUENCES), *alone[SEQUENCES];
        for (int q = 0; q < SEQUENCES; q++) alone[q] = open_session(f, policies[p], window, 1);
        for (int turn = 0; turn < 60 && draw_counts(together, counts); turn++) {
            struct fkv_feed feeds[SEQUENCES];
            int32_t feed_count = feed_some(f, together, counts, feeds);
            for (int32_t i = 0, row = 0; i < feed_count; row += feeds[i++].count) {
                struct fkv_session *own = alone[feeds[i].sequence];
                assert_ok(fkv_session_feed(own, feeds[i].tokens, feeds[i].count, &err), err);
                compare_rows(f, together, row, own, feeds[i].count);
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
            tokens += own.tokens, actions += own.actions, slots += own.slots_sum;
            if (own.cache_bytes_peak > peak) peak = own.cache_bytes_peak;
            fkv_session_close(alone[q]);
        }
        fkv_session_statistics(together, &all);
        assert_int_equal(all.tokens, tokens);
        assert_int_equal(all.actions, actions);
        assert_int_equal(all.cache_bytes_peak, peak);
        assert_close(all.slots_sum, slots, 0, 1e-12);
        fkv_session_close(together);
    }
}

static void heads_are_numbered_by_layer_then_sequence_then_head(void **state) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "freqkv", 40, SEQUENCES);
    const int32_t counts[SEQUENCES] = {7, 0, 61};
    struct fkv_feed feeds[SEQUENCES];
    feed_some(f, s, counts, feeds);
    const struct fkv_head *heads = fkv_session_heads(s);
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

static void a_snapshot_holds_all_sequences(void **state) {
    struct fixture *f = *state;
    for (int p = 0; p < 4; p++) {
        struct fkv_session *s = open_session(f, policies[p], 33, SEQUENCES);
        struct fkv_snapshot *snapshot;
        struct fkv_feed feeds[SEQUENCES];
        const int32_t before[SEQUENCES] = {test_between(1, 32), test_between(1, 32), 32};
        for (int i = 0; i < 3; i++) feed_some(f, s, before, feeds);
        assert_ok(fkv_session_snapshot(s, &snapshot, &err), err);
        const struct fkv_feed after[] = {{1, f->tokens[0], 50}, {2, f->tokens[1], 46}};
        assert_ok(fkv_session_feed_batch(s, after, 2, &err), err);
        assert_ok(fkv_session_logits(s, 0, 96, f->one, &err), err);
        fkv_session_reset(s, 1);
        assert_ok(fkv_session_restore(s, snapshot, &err), err);
        for (int q = 0; q < SEQUENCES; q++) assert_int_equal(fkv_session_tokens(s, q), 3 * before[q]);
        assert_ok(fkv_session_feed_batch(s, after, 2, &err), err);
        assert_ok(fkv_session_logits(s, 0, 96, f->other, &err), err);
        assert_memory_equal(f->one, f->other, sizeof(float) * 96 * VOCAB);
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
    assert_ptr_equal(event->data, (const char *)seen.ops.address(event->states) + event->offset);
    float **states = &t->states[event->site][event->layer][event->sequence];
    assert_null(*states); /* one event per (site, layer, sequence) */
    *states = malloc(values * sizeof **states);
    t->events++;
    return seen.processor->read(t->backend, event->states, event->offset, *states, values * sizeof **states, e);
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

static void taps_see_each_sequence_at_its_own_tokens(void **state) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "freqkv", 40, SEQUENCES);
    const int32_t first[SEQUENCES] = {40, 11, 40}, second[SEQUENCES] = {9, 20, 3};
    struct fkv_feed feeds[SEQUENCES];
    struct tapped together = {.backend = f->backend, .before = {40, 11, 40}};
    feed_some(f, s, first, feeds);
    for (int site = 0; site < SITES; site++) fkv_session_tap(s, (enum fkv_site)site, keep_states, &together);
    fkv_session_tap(s, FKV_SITE_ACTION, count_actions, &together);
    feed_some(f, s, second, feeds);
    assert_int_equal(together.events, SITES * LAYERS * SEQUENCES);
    assert_int_equal(together.actions, 2 * LAYERS * KV_HEADS); /* sequences 0 and 2 were full */
    fkv_session_close(s);
    for (int q = 0; q < SEQUENCES; q++) {
        struct tapped alone = {.backend = f->backend, .before = {first[q]}};
        s = open_session(f, "freqkv", 40, SEQUENCES);
        assert_ok(fkv_session_feed(s, f->tokens[q], first[q], &err), err);
        for (int site = 0; site < SITES; site++) fkv_session_tap(s, (enum fkv_site)site, keep_states, &alone);
        assert_ok(fkv_session_feed(s, f->tokens[q] + first[q], second[q], &err), err);
        for (int site = 0; site < SITES; site++)
            for (int l = 0; l < LAYERS; l++) {
                int heads = site == FKV_SITE_QUERY ? f->model->config.heads : KV_HEADS;
                size_t values = (size_t)(second[q] * heads * f->model->config.head_dim);
                assert_arrays_close(together.states[site][l][q], alone.states[site][l][0], values, 0, 2e-5);
            }
        free_states(&alone);
        fkv_session_close(s);
    }
    free_states(&together);
}

/* ---- how work is issued ---- */

static void what_is_due_before_a_feed_is_one_call_for_all_layers_and_sequences(void **state) {
    struct fixture *f = *state;
    for (int p = 1; p < 4; p++) {
        struct fkv_session *s = open_session(f, policies[p], 24, SEQUENCES);
        const int32_t fill[SEQUENCES] = {24, 24, 24}, one[SEQUENCES] = {1, 1, 1};
        struct fkv_feed feeds[SEQUENCES];
        feed_some(f, s, fill, feeds);
        for (int i = 0; p == 3 && i < BLOCK / SEQUENCES; i++) feed_some(f, s, one, feeds); /* streaming has room left */
        seen.compresses = seen.gathers = seen.heads_acting = 0;
        feed_some(f, s, one, feeds);
        assert_int_equal(seen.compresses, p == 1);
        assert_int_equal(seen.gathers, p != 1);
        assert_int_equal(seen.heads_acting, LAYERS * SEQUENCES * KV_HEADS);
        fkv_session_close(s);
    }
}

static void decode_steps_have_one_shape_and_allocate_nothing(void **state) {
    struct fixture *f = *state;
    for (int p = 0; p < 4; p++) {
        struct fkv_session *s = open_session(f, policies[p], 40, SEQUENCES);
        const int32_t ragged[SEQUENCES] = {38, 3, 20}, one[SEQUENCES] = {1, 1, 1}, two[SEQUENCES] = {1, 0, 1};
        struct fkv_feed feeds[SEQUENCES];
        feed_some(f, s, ragged, feeds);
        seen.steps_created = 0;
        seen.alike = true;
        feed_some(f, s, one, feeds);
        struct mallinfo2 before = mallinfo2();
        for (int t = 0; t < 100; t++) feed_some(f, s, one, feeds);
        struct mallinfo2 after = mallinfo2();
        assert_int_equal(after.uordblks, before.uordblks);
        assert_int_equal(after.hblks, before.hblks);
        assert_int_equal(seen.steps_created, 1);
        assert_true(seen.last_count > 0);
        for (int t = 0; t < 20; t++) feed_some(f, s, two, feeds);
        assert_int_equal(seen.steps_created, 2); /* another number of feeds */
        seen.alike = false;
        fkv_session_close(s);
    }
}

static int ignore(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    (void)event, (void)e;
    ++*(int *)context;
    return FKV_OK;
}

static void a_tap_on_states_keeps_a_pass_from_being_a_step(void **state) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "full", 0, 1);
    int events = 0;
    seen.steps_created = 0;
    fkv_session_tap(s, FKV_SITE_VALUE, ignore, &events);
    assert_ok(fkv_session_feed(s, f->tokens[0], 1, &err), err);
    assert_int_equal(events, LAYERS);
    assert_int_equal(seen.steps_created, 0);
    fkv_session_tap(s, FKV_SITE_VALUE, NULL, NULL);
    assert_ok(fkv_session_feed(s, f->tokens[0], 1, &err), err);
    assert_int_equal(events, LAYERS);
    assert_int_equal(seen.steps_created, 1);
    fkv_session_close(s);
}

/* ---- refusals ---- */

static void a_session_too_large_for_its_device_is_refused_with_what_would_help(void **state) {
    struct fixture *f = *state;
    struct fkv_policy_options full = {.name = "full", .sinks = 4, .rescale = true},
                              windowed = {.name = "freqkv", .window = 256, .sinks = 4, .rescale = true};
    struct fkv_session_options options = {.sequences = 8, .max_tokens = 1024};
    struct fkv_session *s;
    int64_t cache, scratch;
    assert_ok(fkv_session_bytes(&f->model->config, &full, &options, &cache, &scratch, &err), err);
    assert_int_equal(cache, (int64_t)LAYERS * 8 * KV_HEADS * 1024 * 2 * 4 * f->model->config.head_dim);
    seen.device = (struct fkv_device_info){.name = "Tiny", .memory_total = 64 << 20, .space = FKV_DEVICE};
    seen.device.memory_free = cache + scratch - 1;
    assert_refused(fkv_session_open(f->model, &full, &options, &s, &err), err,
                   "MiB free: fewer tokens, a smaller --batch or --cache-dtype bf16 may fit");
    if (!strstr(err.message, "the cache needs 24.0 MiB and scratch ") || !strstr(err.message, ", Tiny has "))
        fail_msg("message \"%s\"", err.message);
    assert_null(s);
    seen.device.memory_free = 1 << 20;
    options = (struct fkv_session_options){.max_tokens = 1024, .cache_dtype = FKV_BF16};
    assert_refused(fkv_session_open(f->model, &windowed, &options, &s, &err), err,
                   "Tiny has 1.0 MiB of 64.0 MiB free: a smaller --window may fit");
    seen.device = (struct fkv_device_info){0};
}

static void misuse_is_refused_by_sequence_and_token(void **state) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "full", 0, SEQUENCES);
    const int32_t some[] = {1, 2, 3}, bad[] = {4, VOCAB};
    assert_refused(fkv_session_feed_batch(s, NULL, 0, &err), err, "1 to 3 sequences, found 0");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{3, some, 3}}, 1, &err), err, "below 3, found 3");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{-1, some, 3}}, 1, &err), err, "below 3, found -1");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{2, some, 1}, {0, some, 1}, {2, some, 1}}, 3, &err),
                   err, "sequence 2: expected once, found twice");
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 0}}, 2, &err), err,
                   "sequence 1: expected 1 or more tokens, found 0");
    assert_refused(
        fkv_session_feed_batch(s, (struct fkv_feed[]){{0, f->tokens[0], 60}, {1, f->tokens[1], 37}}, 2, &err), err,
        "1 to 96 tokens, found 97");
    assert_ok(fkv_session_feed_batch(s, (struct fkv_feed[]){{1, some, 3}}, 1, &err), err);
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 3}, {1, bad, 2}}, 2, &err), err,
                   "sequence 1, token 4: expected an id below 2048, found 2048");
    assert_int_equal(fkv_session_tokens(s, 0), 0); /* nothing was fed */
    for (int at = 3; at < TOKENS; at += 27)
        assert_ok(fkv_session_feed_batch(s, (struct fkv_feed[]){{1, f->tokens[1] + at, 27}}, 1, &err), err);
    assert_refused(fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 1}}, 2, &err), err,
                   "sequence 1, layer 0, KV head 0: the cache of 300 slots is full at token 300");
    assert_int_equal(fkv_session_tokens(s, 0), 0);
    fkv_session_reset(s, 1);
    assert_ok(fkv_session_feed_batch(s, (struct fkv_feed[]){{0, some, 1}, {1, some, 1}}, 2, &err), err);
    fkv_session_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_side_by_side_equal_each_alone),
        cmocka_unit_test(heads_are_numbered_by_layer_then_sequence_then_head),
        cmocka_unit_test(a_snapshot_holds_all_sequences),
        cmocka_unit_test(taps_see_each_sequence_at_its_own_tokens),
        cmocka_unit_test(what_is_due_before_a_feed_is_one_call_for_all_layers_and_sequences),
        cmocka_unit_test(decode_steps_have_one_shape_and_allocate_nothing),
        cmocka_unit_test(a_tap_on_states_keeps_a_pass_from_being_a_step),
        cmocka_unit_test(a_session_too_large_for_its_device_is_refused_with_what_would_help),
        cmocka_unit_test(misuse_is_refused_by_sequence_and_token),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
