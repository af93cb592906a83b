/* Between the feed and the disk: what is handed over arrives whole and in order however small the
 * ring is, and errors travel back without taking along what was whole before. */
#include "capture/pipeline.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "kernels/base/host.h"
#include "tests/unit/store/captures.h"

enum { LANES = 3, TOKENS = 333, MOST_ROWS = 40 };

static struct fkv_model model;
static struct sample samples[LANES]; /* of one info */
static struct fkv_capture_writer *writer;

static int make(void **state) {
    make_folder(state);
    assert_ok(fkv_backend_find("cpu", &model.ops, NULL, &err));
    assert_ok(model.ops->open(&(struct fkv_backend_options){.threads = 1}, &model.backend, &err));
    sample_info(&samples[0].info, (enum fkv_dtype)test_between(0, 2), 15);
    for (int i = 0; i < LANES; i++) {
        samples[i].info = samples[0].info;
        sample_fill(&samples[i], TOKENS, (char)('1' + i));
    }
    assert_ok(fkv_capture_create(folder, &samples[0].info, false, &writer, &err));
    return 0;
}

static int clean(void **state) {
    assert_int_equal(fkv_host_lent(), 0);
    fkv_capture_abandon(writer);
    for (int i = 1; i < LANES; i++) sample_free_states(&samples[i]);
    sample_free(&samples[0]);
    model.ops->close(model.backend);
    return remove_folder(state);
}

static size_t largest_rows(void) {
    const struct fkv_capture_info *info = &samples[0].info;
    return (size_t)MOST_ROWS * (size_t)sample_heads(info, FKV_STATE_QUERY) *
           (size_t)info->head_dim * fkv_dtype_bytes(info->dtype);
}

static struct fkv_pipeline *start(size_t ring) {
    struct fkv_pipeline *p;
    assert_ok(fkv_pipeline_open(writer, &samples[0].info, &model, LANES, ring, &p, &err));
    return p;
}

/* One event; the buffer is gone when it returns. */
static int hand_over(struct fkv_pipeline *p, int lane, int state, int layer, int64_t t, int rows) {
    const struct sample *s = &samples[lane];
    const size_t width = (size_t)sample_heads(&s->info, state) * (size_t)s->info.head_dim;
    struct fkv_buffer *states;
    assert_ok(model.ops->buffer_adopt(model.backend, sample_rows(s, state, layer, t),
                                      (size_t)rows * width * sizeof(float), &states, &err));
    const struct fkv_pipeline_rows r = {.state = (enum fkv_state)state,
                                        .layer = layer,
                                        .rows = rows,
                                        .width = (int32_t)width,
                                        .t = t,
                                        .states = states,
                                        .stride = width};
    int status = fkv_pipeline_rows(p, lane, &r, &err);
    model.ops->buffer_release(model.backend, states);
    return status;
}

/* All tokens of the recordings in all lanes, in turns, in blocks of random sizes. */
static int feed_all(struct fkv_pipeline *p, int64_t first) {
    for (int i = 0; i < LANES; i++)
        if (fkv_pipeline_begin(p, i, first + i, &samples[i].recording, samples[i].tokens, NULL,
                               &err))
            return FKV_FAILED;
    int64_t fed[LANES] = {0};
    for (int done = 0; done < LANES;)
        for (int i = 0; i < LANES; i++) {
            int64_t left = TOKENS - fed[i];
            if (!left) continue;
            int rows = test_between(1, MOST_ROWS);
            if (rows > left) rows = (int)left;
            for (int layer = 0; layer < samples[0].info.layer_count; layer++)
                for (int state = 0; state < FKV_STATES; state++)
                    if (hand_over(p, i, state, layer, fed[i], rows)) return FKV_FAILED;
            fed[i] += rows;
            if (fed[i] < TOKENS) continue;
            if (fkv_pipeline_end(p, i, TOKENS, samples[i].nll, &err)) return FKV_FAILED;
            done++;
        }
    return FKV_OK;
}

TEST_WITH(what_is_handed_over_arrives, make, clean) {
    int64_t whole;
    struct fkv_pipeline *p = start(largest_rows() * (size_t)test_between(1, 5) + 64);
    assert_ok(feed_all(p, 0));
    assert_ok(feed_all(p, LANES));
    assert_ok(fkv_pipeline_check(p, 1, &samples[1].recording, &err));
    assert_ok(fkv_pipeline_close(p, &whole, &err));
    assert_int_equal(whole, 2 * LANES);
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(folder, &c, &err));
    const struct fkv_capture_info *info = &samples[0].info;
    const size_t d = (size_t)info->head_dim;
    for (int i = 0; i < 2 * LANES; i++)
        for (int k = 0; k < FKV_STATES; k++) {
            const int heads = sample_heads(info, k), layer = test_between(0, info->layer_count - 1);
            float *x = malloc((size_t)heads * TOKENS * d * sizeof *x), expected;
            assert_ok(fkv_capture_read_state(c, i, (enum fkv_state)k, layer, 0, heads, 0, TOKENS, x,
                                             &err));
            for (size_t h = 0; h < (size_t)heads; h++)
                for (size_t t = 0; t < TOKENS; t++)
                    for (size_t at = 0; at < d; at++) {
                        uint32_t bits = 0;
                        fkv_from_f32(sample_rows(&samples[i % LANES], k, layer, (int64_t)t) +
                                         h * d + at,
                                     info->dtype, 1, &bits);
                        fkv_to_f32(&bits, info->dtype, 1, &expected);
                        assert_close(x[(h * TOKENS + t) * d + at], expected, 0, 0);
                    }
            free(x);
        }
    fkv_capture_close(c);
}

TEST_WITH(an_error_of_the_writer_reaches_the_feed, make, clean) {
    int64_t whole;
    struct fkv_pipeline *p = start(2 * largest_rows() + 64);
    assert_ok(feed_all(p, 0));
    ((float *)sample_rows(&samples[1], FKV_STATE_VALUE, 0, TOKENS / 2))[0] = NAN;
    char words[64];
    snprintf(words, sizeof words, "a text 2.txt: value of layer 0, head %d, token %d",
             samples[0].info.head_index[0], TOKENS / 2);
    /* The feed is told when it comes by again, at the latest with the next recordings. */
    int status = feed_all(p, LANES);
    for (int i = 0; status == FKV_OK && i < 3; i++) status = feed_all(p, 2 * LANES);
    assert_int_equal(status, FKV_FAILED);
    assert_non_null(strstr(err.message, words));
    assert_refused(fkv_pipeline_check(p, 0, &samples[0].recording, &err), words);
    assert_refused(fkv_pipeline_close(p, &whole, &err), words);
    assert_true(whole >= LANES);
    for (int i = 0; i < LANES; i++) assert_true(fkv_capture_has(writer, i));
    assert_false(fkv_capture_has(writer, LANES + 1));
    char command[400];
    snprintf(command, sizeof command, "test -z \"$(find '%s' -name '.*.tmp*')\"", folder);
    fkv_capture_abandon(writer);
    writer = NULL;
    assert_int_equal(system(command), 0);
}

TEST_WITH(recordings_that_are_not_ended_leave_nothing, make, clean) {
    int64_t whole;
    fkv_pipeline_close(NULL, NULL, NULL);
    struct fkv_pipeline *p = start(largest_rows() + 64);
    assert_ok(feed_all(p, 0));
    for (int i = 0; i < LANES; i++) {
        assert_ok(fkv_pipeline_begin(p, i, LANES + i, &samples[i].recording, samples[i].tokens,
                                     NULL, &err));
        assert_ok(hand_over(p, i, FKV_STATE_KEY, 0, 0, MOST_ROWS));
    }
    assert_ok(fkv_pipeline_close(p, &whole, &err));
    assert_int_equal(whole, LANES);
    assert_true(fkv_capture_has(writer, LANES - 1));
    assert_false(fkv_capture_has(writer, LANES));
}
