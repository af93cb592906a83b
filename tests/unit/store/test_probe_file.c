/* PROBE.h5: what is written comes back to the last bit, and what is no probe is refused by name. */
#include <hdf5.h>

#include "capture/store/h5.h"
#include "capture/store/probe.h"
#include "tests/unit/support.h"

static struct fkv_error err;
static char folder[256], path[300];

static void fill_floats(float *x, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = test_between(0, 9) ? (float)test_normal() : NAN;
}

/* As long as a shell takes it: hundreds of files, or one. */
static char *random_command(void) {
    size_t bytes =
        (size_t)(test_between(0, 1) ? test_between(20, 5000) : test_between(5000, 200000));
    char *command = malloc(bytes + 1);
    assert_non_null(command);
    for (size_t i = 0; i < bytes; i++) command[i] = (char)test_between(' ', '~');
    command[bytes] = 0;
    return command;
}

static struct fkv_probe random_probe(int64_t windows) {
    struct fkv_probe p = {.model_name = "a model",
                          .states = "key,value",
                          .backend = "cpu",
                          .cache_dtype = "bf16",
                          .command = random_command(),
                          .model_sha256 = "0123",
                          .layers = test_between(1, 40),
                          .kv_heads = test_between(1, 8),
                          .head_dim = 64,
                          .trained_context = 2048,
                          .prefix = test_between(2, 60),
                          .score = test_between(1, 60),
                          .sinks = test_between(0, 4),
                          .seed = test_between(0, 1 << 30),
                          .noise_floor_nll = test_uniform(),
                          .noise_floor_kl = NAN,
                          .change_count = test_between(1, 30),
                          .window_count = windows};
    p.changes = calloc((size_t)p.change_count, sizeof *p.changes);
    for (int i = 0; i < p.change_count; i++) {
        p.changes[i] = (struct fkv_probe_change){.kind = test_between(0, FKV_PROBE_KINDS - 1),
                                                 .layer = test_between(-1, p.layers - 1),
                                                 .kv_head = test_between(-1, p.kv_heads - 1),
                                                 .states = test_between(0, 3),
                                                 .complement = test_between(0, 1),
                                                 .low = test_uniform(),
                                                 .high = NAN,
                                                 .epsilon = test_normal(),
                                                 .gamma = test_uniform(),
                                                 .truncation = test_between(-1, 1),
                                                 .squeezed = test_between(-1, 1),
                                                 .fewer = test_between(-1, 1)};
        if (p.changes[i].kind == FKV_PROBE_FILTER || p.changes[i].kind == FKV_PROBE_NOISE)
            p.changes[i].high = 1; /* a band; NaN elsewhere */
        snprintf(p.changes[i].label, FKV_PROBE_LABEL, "change %d \xce\xb3", i);
    }
    p.windows = calloc((size_t)windows, sizeof *p.windows);
    for (int64_t w = 0; w < windows; w++) {
        struct fkv_probe_window *window = &p.windows[w];
        assert_ok(fkv_probe_window_create(&p, window, &err), err);
        size_t tokens = (size_t)(p.prefix + p.score + 1), m = (size_t)p.score,
               all = m * (size_t)p.change_count;
        snprintf(window->name, sizeof window->name, "text %d", (int)w / 2);
        snprintf(window->text_sha256, sizeof window->text_sha256, "%d", (int)w / 2);
        window->document = (int32_t)w / 2;
        window->offset = w % 2 * 1000;
        for (size_t i = 0; i < tokens; i++) window->tokens[i] = test_between(0, 100000);
        if (w % 3 == 0) {
            window->token_class = malloc(tokens);
            for (size_t i = 0; i < tokens; i++) window->token_class[i] = (uint8_t)test_random();
        }
        fill_floats(window->untouched_nll, 3 * m + 2 * all); /* all of them */
        for (int i = 0; i < 2 * p.change_count; i++) window->lost_energy[i] = test_normal();
    }
    return p;
}

static int set_up(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/probe.h5", test_make_folder(folder));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    test_remove_folder(folder);
    return 0;
}

static void a_probe_comes_back_as_it_was(void **state) {
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct fkv_probe p = random_probe(test_between(1, 5)), found;
        assert_ok(fkv_probe_write(path, &p, p.windows, p.window_count, &err), err);
        assert_ok(fkv_probe_read(path, &found, &err), err);
        assert_ok(fkv_probe_check_same(&p, &found, "it", &err), err);
        assert_true(found.noise_floor_nll == p.noise_floor_nll && isnan(found.noise_floor_kl));
        assert_string_equal(found.command, p.command);
        assert_int_equal(found.window_count, p.window_count);
        size_t m = (size_t)p.score, tokens = (size_t)(p.prefix + p.score + 1),
               changes = (size_t)p.change_count;
        for (int64_t w = 0; w < p.window_count; w++) {
            const struct fkv_probe_window *a = &p.windows[w], *b = &found.windows[w];
            assert_string_equal(a->name, b->name);
            assert_string_equal(a->text_sha256, b->text_sha256);
            assert_int_equal(a->document, b->document);
            assert_int_equal(a->offset, b->offset);
            assert_memory_equal(a->tokens, b->tokens, tokens * sizeof *a->tokens);
            assert_memory_equal(a->untouched_nll, b->untouched_nll,
                                (3 + 2 * changes) * m * sizeof(float));
            assert_memory_equal(a->lost_energy, b->lost_energy, 2 * changes * sizeof(double));
            assert_true(!a->token_class == !b->token_class);
            if (a->token_class) assert_memory_equal(a->token_class, b->token_class, tokens);
        }
        assert_refused(fkv_probe_write(path, &p, p.windows, 1, &err), err, "exists already");
        fkv_probe_free(&p), fkv_probe_free(&found);
        unlink(path);
    }
}

static void what_differs_between_two_experiments_is_named(void **state) {
    (void)state;
    struct fkv_probe p = random_probe(1), other = p;
    other.score++;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), err,
                   "part.h5: score: expected");
    other = p, other.model_sha256[0] = 'f';
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), err, "model_sha256");
    other = p, other.change_count--;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), err, "changes, found");
    struct fkv_probe_change *changes = malloc((size_t)p.change_count * sizeof *changes);
    memcpy(changes, p.changes, (size_t)p.change_count * sizeof *changes);
    other = p, other.changes = changes;
    assert_ok(fkv_probe_check_same(&p, &other, "part.h5", &err), err);
    int which = test_between(0, p.change_count - 1);
    changes[which].gamma += 0.25;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), err, changes[which].label);
    free(changes);
    fkv_probe_free(&p);
}

/* Found by tests/fuzz/fuzz_probe.c: what a reader of changes would index or multiply by. */
static void changes_out_of_range_are_refused(void **state) {
    (void)state;
    struct fkv_probe p = random_probe(1), found;
    const struct fkv_probe_change band = {
        .kind = FKV_PROBE_FILTER, .layer = -1, .kv_head = -1, .states = 3, .high = 1};
    struct {
        struct fkv_probe_change change;
        const char *words;
    } cases[] = {{band, "states 4: out of range"},
                 {band, "states -1: out of range"},
                 {band, "expected a band within 0 and 1, found nan to 1"},
                 {band, "expected a band within 0 and 1, found 0.5 to 0.25"},
                 {band, "expected a band within 0 and 1, found 0 to 1e+300"}};
    cases[0].change.states = 4, cases[1].change.states = -1, cases[2].change.low = NAN;
    cases[3].change.low = 0.5, cases[3].change.high = 0.25, cases[4].change.high = 1e300;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.changes[0] = cases[i].change;
        assert_ok(fkv_probe_write(path, &p, p.windows, 1, &err), err);
        assert_refused(fkv_probe_read(path, &found, &err), err, cases[i].words);
        unlink(path);
    }
    fkv_probe_free(&p);
}

/* Sizes at the root that the arrays do not have: refused by shape, before gigabytes are asked for
 * and filled. */
static void sizes_that_the_arrays_do_not_have_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *words;
        int32_t value;
    } cases[] = {{"score", "expected", 1 << 28},
                 {"prefix", "/documents/000000/tokens: expected", 1 << 28},
                 {"n_layers", "expected at most 1048576 heads", 1 << 16}};
    struct fkv_probe p = random_probe(1), found;
    p.kv_heads = 1 << 5;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(fkv_probe_write(path, &p, p.windows, 1, &err), err);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT),
              attribute = H5Aopen(file, cases[i].name, H5P_DEFAULT);
        assert_true(H5Awrite(attribute, H5T_NATIVE_INT32, &cases[i].value) >= 0);
        H5Aclose(attribute), H5Fclose(file);
        assert_refused(fkv_probe_read(path, &found, &err), err, cases[i].words);
        unlink(path);
    }
    fkv_probe_free(&p);
}

static void files_that_are_no_probes_are_refused(void **state) {
    (void)state;
    struct fkv_probe p = random_probe(1), found;
    struct fkv_h5_writer *w;
    const int64_t three = 3;
    const float numbers[3] = {0};
    assert_ok(fkv_h5_create(path, &w, &err), err);
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-run", &err), err);
    assert_ok(fkv_h5_put(w, "/documents/000000/nll", FKV_H5_F32, 1, &three, numbers, &err), err);
    assert_ok(fkv_h5_commit(w, &err), err);
    assert_refused(fkv_probe_read(path, &found, &err), err,
                   "expected the format freqkv-probe, found freqkv-run");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err), err);
    assert_ok(fkv_h5_put(w, "/x", FKV_H5_F32, 1, &three, numbers, &err), err);
    assert_ok(fkv_h5_commit(w, &err), err);
    assert_refused(fkv_probe_read(path, &found, &err), err,
                   "expected an attribute format, found none");
    unlink(path);
    int32_t layer = p.changes[0].layer;
    p.changes[0].layer = p.layers;
    assert_ok(fkv_probe_write(path, &p, p.windows, 1, &err), err);
    assert_refused(fkv_probe_read(path, &found, &err), err, "change 0: kind");
    unlink(path);
    p.changes[0].layer = layer;
    assert_ok(fkv_probe_write(path, &p, NULL, 0, &err), err);
    assert_refused(fkv_probe_read(path, &found, &err), err, "expected documents, found none");
    unlink(path);
    assert_refused(fkv_probe_read(path, &found, &err), err, path);
    fkv_probe_free(&p);
    fkv_probe_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_probe_comes_back_as_it_was),
        cmocka_unit_test(what_differs_between_two_experiments_is_named),
        cmocka_unit_test(changes_out_of_range_are_refused),
        cmocka_unit_test(sizes_that_the_arrays_do_not_have_are_refused),
        cmocka_unit_test(files_that_are_no_probes_are_refused),
    };
    return test_run(tests, set_up, tear_down);
}
