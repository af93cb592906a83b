/* PROBE.h5: what is written comes back to the last bit, and what is no probe is refused by name. */
#include <hdf5.h>

#include "capture/store/h5.h"
#include "capture/store/probe.h"
#include "tests/unit/support.h"

static char path[300];

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

/* Of the family of `before` one in four times, else of the next one. */
static struct fkv_probe_change random_change(const struct fkv_probe *p,
                                             const struct fkv_probe_change *before, int number) {
    struct fkv_probe_change c = fkv_probe_change_of(test_between(0, FKV_PROBE_KINDS - 1));
    const bool bands = c.kind == FKV_PROBE_FILTER || c.kind == FKV_PROBE_NOISE;
    if (before && !test_between(0, 3)) {
        c = *before;
    } else {
        c.option = test_between(0, FKV_PROBE_OPTIONS - 1);
        c.family = before ? before->family + 1 : 0;
        c.states = test_between(0, 3);
        c.complement = test_between(0, 1);
        c.band_count = bands ? test_between(1, FKV_PROBE_BANDS) : 0;
        for (int i = 0; i < c.band_count; i++)
            c.bands[i] = (struct fkv_probe_band){0.5 * test_uniform(), 0.5 + 0.5 * test_uniform()};
        if (c.kind == FKV_PROBE_NOISE) c.epsilon = test_uniform();
        if (c.kind == FKV_PROBE_FREQKV || c.kind == FKV_PROBE_LOCAL ||
            c.option == FKV_PROBE_OPTION_DECOMPOSE)
            c.gamma = test_uniform();
        const int least = c.kind == FKV_PROBE_FREQKV ? 0 : -1;
        c.truncation = test_between(least, 1);
        c.squeezed = test_between(least, 1);
        c.fewer = test_between(least, 1);
    }
    c.layer = test_between(-1, p->layers - 1);
    c.kv_head = c.layer < 0 ? -1 : test_between(-1, p->kv_heads - 1);
    snprintf(c.label, FKV_PROBE_LABEL, "change %d \xce\xb3", number);
    return c;
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
    for (int i = 0; i < p.change_count; i++)
        p.changes[i] = random_change(&p, i ? &p.changes[i - 1] : NULL, i);
    p.windows = calloc((size_t)windows, sizeof *p.windows);
    for (int64_t w = 0; w < windows; w++) {
        struct fkv_probe_window *window = &p.windows[w];
        assert_ok(fkv_probe_window_create(&p, window, &err));
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
    make_folder(state);
    snprintf(path, sizeof path, "%s/probe.h5", folder);
    return 0;
}

TEST(a_probe_comes_back_as_it_was) {
    for (int round = 0; round < 10; round++) {
        struct fkv_probe p = random_probe(test_between(1, 5)), found;
        assert_ok(fkv_probe_write(path, &p, p.windows, p.window_count, &err));
        assert_ok(fkv_probe_read(path, &found, &err));
        assert_ok(fkv_probe_check_same(&p, &found, "it", &err));
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
        assert_refused(fkv_probe_write(path, &p, p.windows, 1, &err), "exists already");
        fkv_probe_free(&p), fkv_probe_free(&found);
        unlink(path);
    }
}

TEST(what_differs_between_two_experiments_is_named) {
    struct fkv_probe p = random_probe(1), other = p;
    other.score++;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), "part.h5: score: expected");
    other = p, other.model_sha256[0] = 'f';
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), "model_sha256");
    other = p, other.change_count--;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), "changes, found");
    struct fkv_probe_change *changes = malloc((size_t)p.change_count * sizeof *changes);
    memcpy(changes, p.changes, (size_t)p.change_count * sizeof *changes);
    other = p, other.changes = changes;
    assert_ok(fkv_probe_check_same(&p, &other, "part.h5", &err));
    snprintf(changes[0].label, FKV_PROBE_LABEL, "the same in other words");
    assert_ok(fkv_probe_check_same(&p, &other, "part.h5", &err));
    int which = test_between(0, p.change_count - 1);
    changes[which].gamma = 2;
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), changes[which].label);
    changes[which] = p.changes[which];
    changes[which].bands[FKV_PROBE_BANDS - 1].high = 0.75 * test_uniform();
    assert_refused(fkv_probe_check_same(&p, &other, "part.h5", &err), "with another bands");
    free(changes);
    fkv_probe_free(&p);
}

/* Found by tests/fuzz/fuzz_probe.c: what a reader of changes would index or multiply by. Change 1
 * of two, so that there is a family before it. */
TEST(changes_out_of_range_are_refused) {
    enum { CASES = 19 };
    struct fkv_probe p = random_probe(1), found;
    struct fkv_probe_change band = fkv_probe_change_of(FKV_PROBE_FILTER);
    band.option = FKV_PROBE_OPTION_FILTER, band.states = FKV_PROBE_BOTH;
    band.band_count = 1, band.bands[0] = (struct fkv_probe_band){0, 1};
    struct fkv_probe_change changes[2] = {band, band}, c[CASES];
    const char *const words[CASES] = {
        "/changes/kind: change 1: expected 0 to 4, found 5",
        "/changes/option: change 1: expected 0 to 7, found -1",
        "/changes/family: change 1: expected 0 to 1, found 2",
        "/changes/family: change 1: expected 0 to 1, found -1",
        "/changes/layer: change 1: expected -1 to",
        "/changes/layer: change 1: expected 0 to", /* of a head */
        "/changes/kv_head: change 1: expected -1 to",
        "/changes/states: change 1: expected 0 to 3, found 4",
        "/changes/states: change 1: expected 0 to 3, found -1",
        "/changes/complement: change 1: expected 0 to 1, found 2",
        "/changes/band_count: change 1: expected 1 to 16, found 0",
        "/changes/band_count: change 1: expected 1 to 16, found 17",
        "/changes/bands: change 1, band 0: expected a band within 0 and 1, found nan to 1",
        "/changes/bands: change 1, band 0: expected a band within 0 and 1, found 0.5 to 0.25",
        "/changes/bands: change 1, band 1: expected a band within 0 and 1, found 0 to 1e+300",
        "/changes/bands: change 1, band 3: expected NaN beyond its 1 bands, found 0 to 1",
        "/changes/epsilon: change 1: expected 0 to 1e+06, found nan",
        "/changes/gamma: change 1: expected 0 to 1, found 1.5",
        "/changes/complement: change 1: expected that of change 0, as both are of family 0",
    };
    for (int i = 0; i < CASES; i++) c[i] = band, c[i].family = i < CASES - 1;
    c[0].kind = FKV_PROBE_KINDS, c[1].option = -1, c[2].family = 2, c[3].family = -1;
    c[4].layer = p.layers, c[5].kv_head = 0, c[6].layer = 0, c[6].kv_head = p.kv_heads;
    c[7].states = 4, c[8].states = -1, c[9].complement = 2;
    c[10].band_count = 0, c[11].band_count = FKV_PROBE_BANDS + 1, c[12].bands[0].low = NAN;
    c[13].bands[0] = (struct fkv_probe_band){0.5, 0.25};
    c[14].band_count = 2, c[14].bands[1] = (struct fkv_probe_band){0, 1e300};
    c[15].bands[3] = (struct fkv_probe_band){0, 1};
    c[16].kind = FKV_PROBE_NOISE;
    c[17].kind = FKV_PROBE_LOCAL, c[17].band_count = 0, c[17].gamma = 1.5;
    c[17].bands[0] = (struct fkv_probe_band){NAN, NAN};
    c[18].complement = 1;
    struct fkv_probe two = p;
    two.changes = changes, two.change_count = 2;
    two.windows = NULL;
    struct fkv_probe_window window;
    assert_ok(fkv_probe_window_create(&two, &window, &err));
    for (int i = 0; i < CASES; i++) {
        changes[1] = c[i];
        assert_ok(fkv_probe_write(path, &two, &window, 1, &err));
        assert_refused(fkv_probe_read(path, &found, &err), words[i]);
        unlink(path);
    }
    fkv_probe_window_free(&window);
    fkv_probe_free(&p);
}

/* Sizes at the root that the arrays do not have: refused by shape, before gigabytes are asked for
 * and filled. */
TEST(sizes_that_the_arrays_do_not_have_are_refused) {
    static const struct {
        const char *name, *words;
        int32_t value;
    } cases[] = {{"score", "expected", 1 << 28},
                 {"prefix", "/documents/000000/tokens: expected", 1 << 28},
                 {"n_layers", "expected at most 1048576 heads", 1 << 16}};
    struct fkv_probe p = random_probe(1), found;
    p.kv_heads = 1 << 5;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(fkv_probe_write(path, &p, p.windows, 1, &err));
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT),
              attribute = H5Aopen(file, cases[i].name, H5P_DEFAULT);
        assert_true(H5Awrite(attribute, H5T_NATIVE_INT32, &cases[i].value) >= 0);
        H5Aclose(attribute), H5Fclose(file);
        assert_refused(fkv_probe_read(path, &found, &err), cases[i].words);
        unlink(path);
    }
    fkv_probe_free(&p);
}

TEST(files_of_the_first_version_are_refused_with_what_to_do) {
    struct fkv_probe found;
    struct fkv_h5_writer *w;
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-probe", &err));
    assert_ok(fkv_h5_put_int(w, "/", "format_version", 1, &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_probe_read(path, &found, &err),
                   "was written before changes carried their bands as numbers (format_version 1, "
                   "now 2): remove it and run the probe again");
    unlink(path);
}

TEST(files_that_are_no_probes_are_refused) {
    struct fkv_probe p = random_probe(1), found;
    struct fkv_h5_writer *w;
    const int64_t three = 3;
    const float numbers[3] = {0};
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-run", &err));
    assert_ok(fkv_h5_put(w, "/documents/000000/nll", FKV_H5_F32, 1, &three, numbers, &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_probe_read(path, &found, &err),
                   "expected the format freqkv-probe, found freqkv-run");
    unlink(path);
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put(w, "/x", FKV_H5_F32, 1, &three, numbers, &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_probe_read(path, &found, &err), "expected an attribute format, found none");
    unlink(path);
    int32_t layer = p.changes[0].layer;
    p.changes[0].layer = p.layers;
    assert_ok(fkv_probe_write(path, &p, p.windows, 1, &err));
    assert_refused(fkv_probe_read(path, &found, &err), "/changes/layer: change 0");
    unlink(path);
    p.changes[0].layer = layer;
    assert_ok(fkv_probe_write(path, &p, NULL, 0, &err));
    assert_refused(fkv_probe_read(path, &found, &err), "expected documents, found none");
    unlink(path);
    assert_refused(fkv_probe_read(path, &found, &err), path);
    fkv_probe_free(&p);
    fkv_probe_free(&p);
}

TEST_GROUP(set_up, remove_folder)
