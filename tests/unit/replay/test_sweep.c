/* The grid of a sweep, its file names, and which run file may stand for a point. */
#include "tests/unit/replay/runs.h"

#include "capture/store/h5.h"
#include "replay/perplexity/sweep.h"

TEST(a_range_has_exactly_its_points_and_names_that_sort) {
    const struct {
        const char *text;
        int count;
        const char *first, *last;
    } cases[] = {
        {"gamma=0.1:0.9:0.1", 9, "F/gamma_0.10.h5", "F/gamma_0.90.h5"},
        {"gamma=0.5", 1, "F/gamma_0.50.h5", "F/gamma_0.50.h5"},
        {"gamma=0.05:1:0.05", 20, "F/gamma_0.05.h5", "F/gamma_1.00.h5"},
        {"gamma=0.125:0.875:0.125", 7, "F/gamma_0.125.h5", "F/gamma_0.875.h5"},
        {"gamma=0.2,0.33,0.4567", 3, "F/gamma_0.2000.h5", "F/gamma_0.4567.h5"},
    };
    struct fkv_sweep sweep = {0};
    static struct fkv_point point, before;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        assert_ok(fkv_sweep_parse(cases[c].text, &sweep, &err));
        assert_int_equal(sweep.count, cases[c].count);
        for (int i = 0; i < sweep.count; i++) {
            assert_ok(fkv_sweep_name(&sweep, "F", i, &point, &err));
            assert_true(strtod(point.name, NULL) == sweep.gammas[i]);
            if (i == 0) assert_string_equal(point.path, cases[c].first);
            if (i) assert_true(strcmp(before.path, point.path) < 0);
            before = point;
        }
        assert_string_equal(point.path, cases[c].last);
    }
    fkv_sweep_free(&sweep);
    fkv_sweep_free(&sweep); /* twice is harmless */
}

TEST(grids_that_make_no_sense_are_refused) {
    const char *const cases[][2] = {
        {"window=1:2:1", "gamma=first:last:step"},
        {"gamma", "gamma=first:last:step"},
        {"gamma=0:1:0.5", "(0, 1]"},
        {"gamma=0.5:1.5:0.5", "(0, 1]"},
        {"gamma=0.5,0.25", "ascending"},
        {"gamma=0.5,0.5", "ascending"},
        {"gamma=0.1:0.9:0.3", "whole steps"},
        {"gamma=", "--sweep"},
    };
    struct fkv_sweep sweep = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_refused(fkv_sweep_parse(cases[c][0], &sweep, &err), cases[c][1]);
    fkv_sweep_free(&sweep);
}

/* Floats and NaN alike. */
static void assert_same_results(const double found[FKV_RESULTS],
                                const double expected[FKV_RESULTS]) {
    for (int i = 0; i < FKV_RESULTS; i++)
        if (!(isnan(found[i]) && isnan(expected[i]))) assert_close(found[i], expected[i], 0, 0);
}

TEST_IN_FOLDER(a_run_file_gives_its_numbers_to_the_same_experiment_and_to_no_other) {
    char path[300];
    snprintf(path, sizeof path, "%s/gamma_0.50.h5", folder);
    struct fkv_corpus corpus = random_corpus(300);
    struct fkv_policy_options policy = {.name = "freqkv", .window = 64, .sinks = 4, .gamma = "0.5"};
    struct one_run r;
    double written[FKV_RESULTS], read[FKV_RESULTS];
    run(&r, &corpus, "whole", 0, policy);
    struct fkv_experiment e = experiment_of(&r, &corpus);
    fkv_experiment_results(&e, written);
    assert_true(written[FKV_RESULT_GAMMA] == 0.5);
    assert_ok(fkv_run_file_write(path, &e, &err));
    e.result = NULL; /* what reads it has no results yet */
    e.recorded = NULL;
    e.command = "another command line";
    assert_ok(fkv_run_file_read(path, &e, read, &err));
    assert_same_results(read, written);

    struct fkv_experiment other = e;
    other.model_sha256 = "22";
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "model_sha256: expected \"22\", found \"00\"");
    other = e, other.corpus_sha256 = "33";
    assert_refused(fkv_run_file_read(path, &other, read, &err), "corpus_sha256");
    other = e, other.compute = "bf16";
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "compute: expected \"bf16\", found \"f32\"");
    other = e, other.backend = "cuda";
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "backend: expected \"cuda\", found \"cpu\"");
    other = e, other.tokenizer_sha256 = "44";
    assert_refused(fkv_run_file_read(path, &other, read, &err), "tokenizer_sha256");
    other = e, other.cache_dtype = FKV_F16;
    assert_refused(fkv_run_file_read(path, &other, read, &err), "cache_dtype");
    other = e, other.baseline = false;
    assert_refused(fkv_run_file_read(path, &other, read, &err), "baseline");
    other = e, other.tokens = 17;
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "tokens_limit: expected 17, found 0");
    other = e, other.score_from = 3;
    assert_refused(fkv_run_file_read(path, &other, read, &err), "score_from");
    struct fkv_policy_setup setup = *e.setup;
    other = e, other.setup = &setup;
    setup.window = 65;
    assert_refused(fkv_run_file_read(path, &other, read, &err), "window: expected 65, found 64");
    setup = *e.setup, setup.own_text = "recent=16 rescale=on mass-bias=off";
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "policy_options: expected \"recent=16");
    setup = *e.setup; /* the same mean ratio, shared in another way */
    int32_t *retained = malloc((size_t)setup.layers * (size_t)setup.kv_heads * sizeof *retained);
    memcpy(retained, setup.retained,
           (size_t)setup.layers * (size_t)setup.kv_heads * sizeof *retained);
    retained[0]++, retained[1]--;
    setup.retained = retained;
    assert_refused(fkv_run_file_read(path, &other, read, &err),
                   "/retained: layer 0, KV head 0: expected 31 slots, found 30");
    free(retained);
    struct fkv_model model = *e.model;
    other = e, other.model = &model;
    strcpy(model.config.sha256, "66");
    assert_refused(fkv_run_file_read(path, &other, read, &err), "config_sha256: expected \"66\"");
    other.model = e.model, other.setup = &setup;
    setup = *e.setup, setup.gamma = 0.51;
    assert_refused(fkv_run_file_read(path, &other, read, &err), "gamma: expected 0.51");
    done(&r);
}

TEST_IN_FOLDER(what_is_no_run_file_is_no_point) {
    char path[300];
    double results[FKV_RESULTS];
    struct one_run r;
    struct fkv_corpus corpus = random_corpus(100);
    snprintf(path, sizeof path, "%s/gamma_0.50.h5", folder);
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){.name = "local", .window = 64, .sinks = 4});
    const struct fkv_experiment e = experiment_of(&r, &corpus);
    test_write_text(path, "no HDF5");
    assert_refused(fkv_run_file_read(path, &e, results, &err), path);
    remove(path);
    struct fkv_h5_writer *w;
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-probe", &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_run_file_read(path, &e, results, &err), "format: expected \"freqkv-run\"");
    assert_refused(fkv_check_folder(path, &err), "expected a folder");
    assert_ok(fkv_check_folder(folder, &err));
    done(&r);
}

TEST_GROUP(open_engine, close_engine)
