/* Recordings are what the engine did: pieces with an empty cache each, the layers and heads asked
 * for, the nll of every token, spectra that equal those of the stored states; and a run that stops
 * leaves only whole ones. */
#include <sys/mount.h>
#include <unistd.h>

#include "capture/recorder.h"
#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "tests/unit/capture/small_model.h"
#include "tests/unit/store/captured_nll.h"

static char model[300], texts[3][300];
static struct fkv_engine engine;
static struct fkv_engine_options engine_options;

static int make(void **state) {
    make_folder(state);
    snprintf(model, sizeof model, "%s/model", folder);
    write_small_model(model, FKV_F32, 0.5);
    fkv_engine_options_default(&engine_options);
    engine_options.model = model;
    engine_options.backend = "cpu";
    engine_options.threads = 1;
    engine_options.quiet = true;
    const int counts[3] = {1401, 900, 30}; /* 700 + 700 + 1 left out; 700 + 200; 30 */
    for (int i = 0; i < 3; i++) {
        snprintf(texts[i], sizeof texts[i], "%s/text%d.bin", folder, i);
        write_ids(texts[i], counts[i]);
        engine_options.token_ids[i] = texts[i];
    }
    engine_options.token_ids_count = 3;
    assert_ok(fkv_engine_open(&engine_options, &engine, &err));
    return 0;
}

static int clean(void **state) {
    fkv_engine_close(&engine);
    return remove_folder(state);
}

static struct fkv_recorder_options defaults(const char *out) {
    return (struct fkv_recorder_options){
        .out = out, .states = 15, .dtype = FKV_F32, .skip_sinks = 4, .shards = 1};
}

static int run(const struct fkv_recorder_options *o, struct fkv_recorder_summary *summary,
               struct fkv_error *err) {
    struct fkv_recorder *r;
    struct fkv_recorder_needs needs;
    if (fkv_recorder_open(&engine, &engine_options, o, &r, err)) return FKV_FAILED;
    int status = fkv_recorder_survey(r, &needs, err) || fkv_recorder_check(r, &needs, err) ||
                         fkv_recorder_run(r, &needs, summary, err)
                     ? FKV_FAILED
                     : FKV_OK;
    fkv_recorder_close(r);
    return status;
}

static struct fkv_capture *record_and_open(const struct fkv_recorder_options *o,
                                           struct fkv_recorder_summary *summary) {
    struct fkv_capture *c;
    assert_ok(run(o, summary, &err));
    assert_ok(fkv_capture_open(o->out, &c, &err));
    return c;
}

/* [heads, n_tokens, head_dim] of one layer; the caller frees */
static float *layer_of(struct fkv_capture *c, int index, enum fkv_state state, int layer) {
    const int heads = fkv_capture_heads(c, state);
    const int64_t n = fkv_capture_recording(c, index)->n_tokens;
    float *x = malloc((size_t)heads * (size_t)n * SMALL_HEAD_DIM * sizeof *x);
    assert_ok(fkv_capture_read_state(c, index, state, layer, 0, heads, 0, n, x, &err));
    return x;
}

static bool same_file(const char *a, const char *b, int number) {
    char command[2000];
    snprintf(command, sizeof command, "cmp -s '%s/documents/%06d.h5' '%s/documents/%06d.h5'", a,
             number, b, number);
    return system(command) == 0;
}

TEST_WITH(a_long_text_becomes_recordings_with_offsets, make, clean) {
    struct fkv_recorder_summary s;
    const struct fkv_recorder_options o = defaults(in_folder("c"));
    struct fkv_capture *c = record_and_open(&o, &s);
    const int64_t expected[5][2] = {{700, 0}, {700, 700}, {700, 0}, {200, 700}, {30, 0}};
    assert_int_equal(fkv_capture_count(c), 5);
    assert_int_equal(s.documents, 3);
    assert_int_equal(s.tokens, 2330);
    assert_int_equal(s.tokens_left_out, 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(fkv_capture_recording(c, i)->n_tokens, expected[i][0]);
        assert_int_equal(fkv_capture_recording(c, i)->offset, expected[i][1]);
        assert_false(fkv_capture_recording(c, i)->beyond_trained_context);
    }
    fkv_capture_close(c);
}

/* The second piece of a text is what a text of that piece alone gives. */
TEST_WITH(every_recording_starts_with_an_empty_cache, make, clean) {
    char command[2000];
    struct fkv_recorder_summary s;
    struct fkv_recorder_options o = defaults(in_folder("whole"));
    struct fkv_capture *whole = record_and_open(&o, &s);
    snprintf(command, sizeof command, "tail -c +1401 '%s' | head -c 1400 > '%s'", texts[0],
             in_folder("piece.bin"));
    assert_int_equal(system(command), 0);
    engine_options.token_ids[0] = in_folder("piece.bin");
    engine_options.token_ids_count = 1;
    o.out = in_folder("piece");
    struct fkv_capture *piece = record_and_open(&o, &s);
    engine_options.token_ids[0] = texts[0];
    engine_options.token_ids_count = 3;
    assert_int_equal(fkv_capture_count(piece), 1);
    for (int i = 0; i < FKV_STATES; i++) {
        float *a = layer_of(whole, 1, i, 2), *b = layer_of(piece, 0, i, 2);
        assert_memory_equal(a, b,
                            (size_t)fkv_capture_heads(piece, i) * 700 * SMALL_HEAD_DIM * sizeof *a);
        free(a);
        free(b);
    }
    fkv_capture_close(whole);
    fkv_capture_close(piece);
}

/* A host's block and a device's: recordings of three feeds or one, on disk and as sums. */
TEST_WITH(the_block_changes_no_number_beyond_rounding, make, clean) {
    enum { TOKENS = 1401, LENGTH = 200 };
    struct fkv_recorder_summary s;
    struct fkv_capture *c[2], *sums[2];
    float nll[2][TOKENS];
    for (int i = 0; i < 2; i++) {
        struct fkv_recorder_options o = defaults(in_folder(i ? "device" : "host"));
        o.block = i ? 4096 : 512;
        o.max_tokens = TOKENS;
        c[i] = record_and_open(&o, &s);
        o.out = in_folder(i ? "device_sums" : "host_sums");
        o.spectra_only = true, o.length = LENGTH;
        sums[i] = record_and_open(&o, &s);
        assert_true(captured_nll(c[i], 0, nll[i]));
    }
    assert_arrays_close(nll[1] + 1, nll[0] + 1, TOKENS - 1, 1e-4, 0);
    for (int i = 0; i < FKV_STATES; i++) {
        struct fkv_spectra_sums a, b;
        for (int layer = 0; layer < SMALL_LAYERS; layer++) {
            float *host = layer_of(c[0], 0, i, layer), *device = layer_of(c[1], 0, i, layer);
            assert_arrays_close(device, host,
                                (size_t)fkv_capture_heads(c[0], i) * TOKENS * SMALL_HEAD_DIM, 0,
                                1e-5);
            free(host);
            free(device);
        }
        assert_ok(fkv_capture_read_sums(sums[0], 0, i, &a, &err));
        assert_ok(fkv_capture_read_sums(sums[1], 0, i, &b, &err));
        assert_int_equal(a.segments, (TOKENS - 4) / LENGTH);
        assert_int_equal(b.segments, a.segments);
        for (int32_t h = 0; h < SMALL_LAYERS * a.heads; h++) {
            assert_close(b.energy_sum[h], a.energy_sum[h], 0, 1e-5);
            for (int t = 0; t < LENGTH; t++)
                assert_close(b.power_sum[h * LENGTH + t], a.power_sum[h * LENGTH + t],
                             1e-7 * a.energy_sum[h], 1e-3);
        }
        fkv_spectra_sums_free(&a);
        fkv_spectra_sums_free(&b);
    }
    for (int i = 0; i < 2; i++) {
        fkv_capture_close(c[i]);
        fkv_capture_close(sums[i]);
    }
}

TEST_WITH(chosen_layers_and_heads_are_slices_of_all, make, clean) {
    struct fkv_recorder_summary s;
    const int layers[] = {0, 2}, heads[] = {1};
    struct fkv_recorder_options o = defaults(in_folder("all"));
    struct fkv_capture *all = record_and_open(&o, &s);
    o.out = in_folder("some");
    o.layers = layers, o.layer_count = 2, o.heads = heads, o.head_count = 1;
    struct fkv_capture *some = record_and_open(&o, &s);
    for (int i = 0; i < FKV_STATES; i++) {
        const int group = i == FKV_STATE_QUERY ? SMALL_HEADS / SMALL_KV_HEADS : 1;
        assert_int_equal(fkv_capture_heads(some, i), group);
        float *a = layer_of(all, 3, i, 2), *b = layer_of(some, 3, i, 1);
        assert_memory_equal(a + (size_t)group * 200 * SMALL_HEAD_DIM, b,
                            (size_t)group * 200 * SMALL_HEAD_DIM * sizeof *a);
        free(a);
        free(b);
    }
    fkv_capture_close(all);
    fkv_capture_close(some);
}

TEST_WITH(nll_is_that_of_feeding_token_by_token, make, clean) {
    struct fkv_recorder_summary s;
    const struct fkv_recorder_options o = defaults(in_folder("c"));
    struct fkv_capture *c = record_and_open(&o, &s);
    struct fkv_session *session;
    const struct fkv_session_options options = {.block = 1, .max_tokens = 700};
    assert_ok(fkv_session_open(engine.model, &fkv_full_attention, &options, &session, &err));
    int32_t tokens[700];
    float nll[700];
    double sum = 0;
    bool found;
    assert_ok(fkv_capture_read_tokens(c, 0, tokens, &found, &err));
    assert_true(captured_nll(c, 0, nll));
    assert_true(isnan(nll[0]));
    for (int t = 0; t + 1 < 700; t++) {
        double expected;
        assert_ok(fkv_session_feed(session, &tokens[t], 1, &err));
        assert_ok(fkv_session_score(session, 0, 1, &tokens[t + 1], &expected, NULL, &err));
        assert_close(nll[t + 1], expected, 1e-4, 1e-4);
        sum += expected;
    }
    printf("mean nll %.4f\n", sum / 699);
    fkv_session_close(session);
    fkv_capture_close(c);
}

/* power of one head's segment x [n, head_dim], by the sum that defines the transform */
static void add_power(const float *x, int n, double *power) {
    for (int t = 0; t < n; t++)
        for (int i = 0; i < SMALL_HEAD_DIM; i++) {
            double y = 0;
            for (int j = 0; j < n; j++)
                y += (double)x[j * SMALL_HEAD_DIM + i] * cos(M_PI * t * (j + 0.5) / n);
            power[t] += y * y * (t ? 2.0 : 1.0) / n / SMALL_HEAD_DIM;
        }
}

TEST_WITH(spectra_only_equals_the_spectra_of_stored_states, make, clean) {
    enum { N = 211, SKIP = 3, SEGMENTS = (700 - SKIP) / N };
    struct fkv_recorder_summary s;
    struct fkv_recorder_options o = defaults(in_folder("states"));
    struct fkv_capture *stored = record_and_open(&o, &s);
    o.out = in_folder("sums");
    o.spectra_only = true;
    o.length = N, o.skip_sinks = SKIP;
    struct fkv_capture *sums = record_and_open(&o, &s);
    assert_int_equal(s.segments, 3 * SEGMENTS);
    assert_int_equal(s.segment_tokens_left_out,
                     3 * (700 - SKIP - SEGMENTS * N) + (200 - SKIP) + (30 - SKIP));
    for (int i = 0; i < FKV_STATES; i++) {
        struct fkv_spectra_sums found;
        assert_ok(fkv_capture_read_sums(sums, 1, i, &found, &err));
        assert_int_equal(found.segments, SEGMENTS);
        assert_int_equal(found.skip_sinks, SKIP);
        const int layer = test_between(0, SMALL_LAYERS - 1),
                  head = test_between(0, found.heads - 1);
        float *x = layer_of(stored, 1, i, layer);
        double power[N] = {0}, energy = 0, mean[SMALL_HEAD_DIM] = {0};
        for (int k = 0; k < SEGMENTS; k++) {
            const float *segment = x + ((size_t)head * 700 + SKIP + (size_t)k * N) * SMALL_HEAD_DIM;
            add_power(segment, N, power);
            for (int j = 0; j < N * SMALL_HEAD_DIM; j++) {
                energy += (double)segment[j] * segment[j];
                mean[j % SMALL_HEAD_DIM] += segment[j] / (double)N;
            }
        }
        const size_t row = (size_t)(layer * found.heads + head);
        double largest = 0;
        for (int t = 0; t < N; t++) largest = fmax(largest, power[t]);
        for (int t = 0; t < N; t++)
            assert_close(found.power_sum[row * N + (size_t)t], power[t], 1e-12 * largest, 1e-5);
        assert_close(found.energy_sum[row], energy, 0, 1e-9);
        for (int c = 0; c < SMALL_HEAD_DIM; c++)
            assert_close(found.channel_mean_sum[row * SMALL_HEAD_DIM + (size_t)c], mean[c], 1e-9,
                         1e-9);
        free(x);
        fkv_spectra_sums_free(&found);
    }
    struct fkv_spectra_sums none;
    assert_ok(fkv_capture_read_sums(sums, 4, FKV_STATE_KEY, &none, &err));
    assert_int_equal(none.segments, 0);
    fkv_spectra_sums_free(&none);
    fkv_capture_close(stored);
    fkv_capture_close(sums);
}

TEST_WITH(resuming_completes_to_the_same_bytes, make, clean) {
    struct fkv_recorder_summary s;
    char whole[400], part[400], command[2000];
    strcpy(whole, in_folder("whole"));
    strcpy(part, in_folder("part"));
    struct fkv_recorder_options o = defaults(whole);
    assert_ok(run(&o, &s, &err));
    snprintf(command, sizeof command,
             "cp -r '%s' '%s' && cd '%s' && rm capture.h5 documents/000003.h5 documents/000004.h5",
             whole, part, part);
    assert_int_equal(system(command), 0);
    o.out = part;
    assert_refused(run(&o, &s, &err), "--resume");
    o.resume = true;
    assert_ok(run(&o, &s, &err));
    assert_int_equal(s.recordings_there, 3);
    assert_int_equal(s.recordings, 2);
    for (int i = 0; i < 5; i++) assert_true(same_file(whole, part, i));
    o.dtype = FKV_F16;
    assert_refused(run(&o, &s, &err), "dtype: expected \"f16\", found \"f32\"");
    o.dtype = FKV_F32;
    o.max_tokens = 300;
    assert_refused(run(&o, &s, &err), "options: expected");
    o.max_tokens = 0;
    engine_options.token_ids_count = 2;
    assert_refused(run(&o, &s, &err), "expected 4 recordings of these texts, found more");
    engine_options.token_ids_count = 3;
    engine_options.token_ids[0] = texts[1];
    assert_refused(run(&o, &s, &err), "made from another text");
    engine_options.token_ids[0] = texts[0];
}

TEST_WITH(a_stopped_run_leaves_whole_recordings, make, clean) {
    struct fkv_recorder_summary s;
    volatile sig_atomic_t stop = 1;
    struct fkv_recorder_options o = defaults(in_folder("c"));
    o.stop = &stop;
    assert_refused(run(&o, &s, &err), "interrupted");
    assert_int_equal(access(in_folder("c"), F_OK), -1);
    o.stop = NULL;
    char command[2000];
    assert_ok(run(&o, &s, &err));
    snprintf(command, sizeof command, "rm '%s/documents/000004.h5'", in_folder("c"));
    assert_int_equal(system(command), 0);
    o.stop = &stop;
    o.resume = true;
    assert_refused(run(&o, &s, &err), "interrupted");
    snprintf(command, sizeof command, "test -z \"$(find '%s' -name '.*.tmp*')\"", in_folder("c"));
    assert_int_equal(system(command), 0);
}

TEST_WITH(shards_merge_to_all_recordings, make, clean) {
    struct fkv_recorder_summary s;
    char folder[3][400];
    int64_t tokens = 0;
    for (int i = 0; i < 2; i++) {
        strcpy(folder[i], in_folder(i ? "one" : "zero"));
        struct fkv_recorder_options o = defaults(folder[i]);
        o.shard = i, o.shards = 2;
        assert_ok(run(&o, &s, &err));
        tokens += s.tokens;
    }
    assert_int_equal(tokens, 2330);
    strcpy(folder[2], in_folder("merged"));
    const char *const parts[] = {folder[0], folder[1]};
    assert_ok(fkv_capture_merge(parts, 2, folder[2], &err));
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(folder[2], &c, &err));
    assert_int_equal(fkv_capture_count(c), 5);
    fkv_capture_close(c);
    struct fkv_recorder_options o = defaults(in_folder("four"));
    o.shard = 3, o.shards = 4;
    assert_refused(run(&o, &s, &err), "--shard 3/4: expected documents, found none");
}

TEST_WITH(beyond_the_trained_context_is_marked, make, clean) {
    struct fkv_recorder_summary s;
    struct fkv_recorder_options o = defaults(in_folder("c"));
    o.max_tokens = 1000;
    struct fkv_capture *c = record_and_open(&o, &s);
    assert_int_equal(fkv_capture_count(c), 4); /* 1000 + 401, 900, 30 */
    assert_int_equal(s.beyond_trained_context, 2);
    assert_true(fkv_capture_recording(c, 0)->beyond_trained_context);
    assert_false(fkv_capture_recording(c, 1)->beyond_trained_context);
    fkv_capture_close(c);
}

TEST_WITH(what_cannot_be_is_refused_before_the_run, make, clean) {
    struct fkv_recorder_summary s;
    struct fkv_recorder_options o = defaults(in_folder("c"));
    o.spectra_only = true;
    o.length = 697;
    assert_refused(run(&o, &s, &err), "no segment: --length 697 after the first 4 tokens");
    o.max_tokens = 2000;
    o.length = 1400;
    assert_refused(run(&o, &s, &err), "the longest recording, \"text0.bin\", has 1401 tokens");
    o = defaults(in_folder("small"));
    assert_int_equal(mkdir(o.out, 0777), 0);
    if (mount("tmpfs", o.out, "tmpfs", 0, "size=64k")) {
        printf("skipped in part: cannot mount a small tmpfs\n");
        return;
    }
    int status = run(&o, &s, &err);
    umount(o.out);
    assert_int_equal(status, FKV_FAILED);
    assert_non_null(strstr(err.message, "free: fewer --layers"));
}

TEST_WITH(states_float16_cannot_hold_stop_the_run, make, clean) {
    struct fkv_recorder_summary s;
    struct fkv_engine large;
    char folder[400];
    strcpy(folder, in_folder("large-model"));
    write_small_model(folder, FKV_F32, 100);
    engine_options.model = folder;
    assert_ok(fkv_engine_open(&engine_options, &large, &err));
    struct fkv_engine usual = engine;
    engine = large;
    struct fkv_recorder_options o = defaults(in_folder("c"));
    o.dtype = FKV_F16;
    assert_refused(run(&o, &s, &err), "is beyond float16's 65504: use --dtype f32 or bf16");
    assert_int_equal(access(o.out, F_OK), -1);
    o.dtype = FKV_BF16;
    assert_ok(run(&o, &s, &err));
    engine = usual;
    engine_options.model = model;
    fkv_engine_close(&large);
}
