/* How a session issues its work: one call for all that is due, decode steps of one shape, nothing
 * on a device that is too small. A table of operations that looks on before it passes them to the
 * processor can tell. */
#include <malloc.h>

#include "engine/session/taps.h"
#include "tests/unit/engine/sequences.h"

enum { MOST_ISSUED = 256 };

static struct {
    const struct fkv_backend_ops *processor;
    struct fkv_backend_ops ops; /* the processor's with some overlaid */
    struct fkv_device_info device;
    int attends_left; /* before one fails; 0: none does */
    int compresses, gathers, heads_acting, steps_created;
    bool in_step, alike; /* alike: the steps of one session follow each other */
    int32_t issued[MOST_ISSUED],
        count; /* of the step under way: an operation's number and its counts */
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

static int embed(struct fkv_backend *b, const struct fkv_weight *table, float multiplier,
                 const int32_t *tokens, int32_t rows, struct fkv_buffer *x, struct fkv_error *e) {
    note(1, rows, 0);
    return seen.processor->embed(b, table, multiplier, tokens, rows, x, e);
}

static int append(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                  const struct fkv_buffer *k, const struct fkv_buffer *v,
                  const struct fkv_cache *cache, const struct fkv_append_item *items, int32_t count,
                  struct fkv_error *e) {
    note(2, count, (int32_t)cache->offset);
    return seen.processor->append(b, shape, k, v, cache, items, count, e);
}

static int attend(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                  const struct fkv_buffer *q, const struct fkv_cache *cache,
                  const struct fkv_span *spans, const struct fkv_attend_item *items, int32_t count,
                  struct fkv_buffer *out, struct fkv_error *e) {
    if (seen.attends_left && !--seen.attends_left) return fkv_fail(e, "attention failed");
    int32_t all = 0;
    for (int32_t i = 0; i < count; i++) all += items[i].spans;
    note(3, count, all);
    return seen.processor->attend(b, shape, q, cache, spans, items, count, out, e);
}

static int project_residual(struct fkv_backend *b, const struct fkv_residual_weights *w,
                            const struct fkv_buffer *in, int32_t rows, struct fkv_buffer *x,
                            struct fkv_error *e) {
    note(4, rows, w->w.cols);
    return seen.processor->project_residual(b, w, in, rows, x, e);
}

static int compress(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                    const struct fkv_map *map, const struct fkv_cache *cache,
                    const struct fkv_compress_item *items, int32_t count, struct fkv_energy *energy,
                    struct fkv_error *e) {
    assert_false(seen.in_step);
    assert_null(energy);
    seen.compresses++;
    seen.heads_acting += count;
    return seen.processor->compress(b, shape, map, cache, items, count, energy, e);
}

static int gather(struct fkv_backend *b, const struct fkv_attention_shape *shape,
                  const struct fkv_cache *cache, const struct fkv_gather_item *items, int32_t count,
                  struct fkv_energy *energy, struct fkv_error *e) {
    assert_false(seen.in_step);
    assert_null(energy);
    seen.gathers++;
    seen.heads_acting += count;
    return seen.processor->gather(b, shape, cache, items, count, energy, e);
}

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    seen.processor = tested_backend();
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
    open_fixture(f, &seen.ops);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    close_fixture(*state);
    return 0;
}

TEST(what_is_due_before_a_feed_is_one_call_for_all_layers_and_sequences) {
    struct fixture *f = *state;
    for (int p = 1; p < rounds(POLICIES, 3); p++) {
        struct fkv_session *s = open_session(f, policies[p], 24, SEQUENCES);
        const int32_t fill[SEQUENCES] = {24, 24, 24}, one[SEQUENCES] = {1, 1, 1};
        struct fkv_feed feeds[SEQUENCES];
        feed_some(f, s, fill, feeds);
        const int32_t left = fkv_session_setup(s)->capacity - 24; /* some have storage for more */
        for (int i = 0; i < left; i++) feed_some(f, s, one, feeds);
        seen.compresses = seen.gathers = seen.heads_acting = 0;
        feed_some(f, s, one, feeds);
        assert_int_equal(seen.compresses, p == 1);
        assert_int_equal(seen.gathers, p != 1);
        assert_int_equal(seen.heads_acting, LAYERS * SEQUENCES * KV_HEADS);
        fkv_session_close(s);
    }
}

TEST(decode_steps_have_one_shape_and_allocate_nothing) {
    struct fixture *f = *state;
    for (int p = 0; p < POLICIES; p++) {
        struct fkv_session *s = open_session(f, policies[p], 40, SEQUENCES);
        const int32_t ragged[SEQUENCES] = {38, 3, 20}, one[SEQUENCES] = {1, 1, 1},
                      two[SEQUENCES] = {1, 0, 1};
        struct fkv_feed feeds[SEQUENCES];
        feed_some(f, s, ragged, feeds);
        seen.steps_created = 0;
        seen.alike = true;
        feed_some(f, s, one, feeds);
        struct mallinfo2 before = mallinfo2();
        for (int t = 0; t < rounds(100, 3); t++) feed_some(f, s, one, feeds);
        struct mallinfo2 after = mallinfo2();
        if (!strcmp(seen.processor->name, "cpu")) { /* the reference and drivers do as they like */
            assert_int_equal(after.uordblks, before.uordblks);
            assert_int_equal(after.hblks, before.hblks);
        }
        assert_int_equal(seen.steps_created, 1);
        assert_true(seen.last_count > 0);
        for (int t = 0; t < rounds(20, 3); t++) feed_some(f, s, two, feeds);
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

TEST(a_tap_on_states_keeps_a_pass_from_being_a_step) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "full", 0, 1);
    int events = 0;
    seen.steps_created = 0;
    fkv_session_tap(s, FKV_SITE_VALUE, ignore, &events);
    assert_ok(fkv_session_feed(s, f->tokens[0], 1, &err));
    assert_int_equal(events, LAYERS);
    assert_int_equal(seen.steps_created, 0);
    fkv_session_tap(s, FKV_SITE_VALUE, NULL, NULL);
    assert_ok(fkv_session_feed(s, f->tokens[0], 1, &err));
    assert_int_equal(events, LAYERS);
    assert_int_equal(seen.steps_created, 1);
    fkv_session_close(s);
}

TEST(a_step_that_fails_is_ended_and_made_afresh) {
    struct fixture *f = *state;
    struct fkv_session *s = open_session(f, "freqkv", 40, SEQUENCES);
    const int32_t one[SEQUENCES] = {1, 1, 1};
    struct fkv_feed feeds[SEQUENCES];
    feed_some(f, s, one, feeds);
    seen.steps_created = 0;
    seen.attends_left = 3;
    assert_refused(fkv_session_feed_batch(s, feeds, SEQUENCES, &err), "attention failed");
    assert_false(seen.in_step);
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    feed_some(f, s, one, feeds);
    assert_int_equal(seen.steps_created, 1);
    fkv_session_close(s);
}

TEST(a_session_too_large_for_its_device_is_refused_with_what_would_help) {
    struct fixture *f = *state;
    struct fkv_policy_options full = {.name = "full", .sinks = 4},
                              windowed = {.name = "freqkv", .window = 256, .sinks = 4};
    struct fkv_session_options options = {.sequences = 8, .max_tokens = 1024};
    struct fkv_session *s;
    struct fkv_session_needs needs = {0};
    assert_ok(fkv_session_add_needs(f->model, &full, &options, &needs, &err));
    assert_true(needs.own.shared > 0);
    assert_int_equal(needs.cache,
                     (int64_t)LAYERS * 8 * KV_HEADS * 1024 * 2 * 4 * f->model->config.head_dim);
    seen.device =
        (struct fkv_device_info){.name = "Tiny", .memory_total = 64 << 20, .space = FKV_DEVICE};
    seen.device.memory_free = fkv_session_needs_bytes(&needs) - 1;
    assert_refused(fkv_session_open(f->model, &full, &options, &s, &err),
                   "MiB free: fewer tokens, a smaller --batch or --cache-dtype bf16 may fit");
    if (!strstr(err.message, "the cache needs 24.0 MiB and scratch ") ||
        !strstr(err.message, ", Tiny has "))
        fail_msg("message \"%s\"", err.message);
    assert_null(s);
    seen.device.memory_free++;
    assert_ok(fkv_session_open(f->model, &full, &options, &s, &err));
    fkv_session_close(s);
    seen.device.memory_free = 1 << 20;
    options = (struct fkv_session_options){.max_tokens = 1024, .cache_dtype = FKV_BF16};
    assert_refused(fkv_session_open(f->model, &windowed, &options, &s, &err),
                   "Tiny has 1.0 MiB of 64.0 MiB free: a smaller --window may fit");
    seen.device = (struct fkv_device_info){0};
}

TEST_GROUP(set_up, tear_down)
