/* The runner and the run file on the embedded model (data/litbank-1m) over random tokens: what must hold whatever the model says. The numbers themselves
 * are checked against a second implementation by tests/e2e/check_protocols.py. */
#include "tests/unit/support.h"

#include "capture/store/h5.h"
#include "replay/experiment.h"

enum { MOST_TOKENS = 700 };

static struct fkv_engine engine;
static int32_t tokens[MOST_TOKENS];
static struct fkv_corpus_document documents[3];

static int open_engine(void **state) {
    (void)state;
    static struct fkv_engine_options options;
    struct fkv_error err = {0};
    fkv_engine_options_default(&options);
    options.model = "data/litbank-1m";
    options.backend = "cpu";
    if (fkv_engine_open(&options, &engine, &err)) printf("%s\n", err.message);
    return engine.model ? 0 : -1;
}

static int close_engine(void **state) {
    (void)state;
    fkv_engine_close(&engine);
    return 0;
}

/* Three documents of random tokens, together `total`. */
static struct fkv_corpus random_corpus(int64_t total) {
    int64_t cut[] = {0, total / 2, total * 3 / 4, total};
    for (int64_t i = 0; i < total; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    for (int d = 0; d < 3; d++)
        documents[d] = (struct fkv_corpus_document){
            .name = "random", .text_sha256 = "00", .offset = cut[d], .count = cut[d + 1] - cut[d]};
    return (struct fkv_corpus){.tokens = tokens, .token_count = total, .documents = documents, .document_count = 3};
}

struct one_run {
    struct fkv_plan plan;
    struct fkv_session *session, *baseline;
    struct fkv_recorded recorded;
    struct fkv_perplexity result;
};

static void run(struct one_run *r, const struct fkv_corpus *corpus, const char *protocol, int64_t tokens_option,
                struct fkv_policy_options policy) {
    struct fkv_error err = {0};
    const struct fkv_config *config = &engine.model->config;
    const struct fkv_policy_options full = {.name = "full", .sinks = -1, .rescale = true};
    struct fkv_protocol_setting setting = {.tokens = tokens_option,
                                           .trained_context = config->trained_context,
                                           .tokenizer_bos = config->bos,
                                           .bos = config->bos,
                                           .eos = config->eos};
    *r = (struct one_run){0};
    assert_ok(fkv_protocol_parse(protocol, &r->plan, &err), err);
    assert_ok(fkv_protocol_plan(corpus, &setting, &r->plan, &err), err);
    struct fkv_session_options options = {.max_tokens = r->plan.longest, .measure_energy = true};
    assert_ok(fkv_session_open(engine.model, &policy, &options, &r->session, &err), err);
    assert_ok(fkv_session_open(engine.model, &full, &options, &r->baseline, &err), err);
    assert_ok(fkv_recorded_open(corpus, &r->plan, true, &r->recorded, &err), err);
    assert_ok(fkv_perplexity_run(corpus, &r->plan, r->session, r->baseline, &r->recorded, true, &r->result, &err), err);
}

static void done(struct one_run *r) {
    fkv_perplexity_free(&r->result);
    fkv_recorded_free(&r->recorded);
    fkv_recorded_free(&r->recorded); /* twice is harmless */
    fkv_session_close(r->baseline);
    fkv_session_close(r->session);
    fkv_plan_free(&r->plan);
}

static void a_window_that_never_fills_costs_nothing(void **state) {
    (void)state;
    test_seed();
    struct fkv_corpus corpus = random_corpus(300);
    struct one_run r;
    run(&r, &corpus, "whole", 0, (struct fkv_policy_options){.name = "freqkv", .window = 150, .sinks = -1});
    assert_int_equal(r.result.total.count, 300 - 3);
    assert_int_equal(r.result.total.agree, 300 - 3);
    assert_close(r.result.total.nll, r.result.total.baseline_nll, 0, 1e-12);
    assert_close(r.result.total.kl, 0, 1e-9, 0);
    assert_true(r.result.compressions == 0);
    assert_int_equal(r.recorded.compression_count, 0);
    done(&r);
}

static void compressions_are_as_many_as_the_formula_says_and_keep_no_more_than_there_was(void **state) {
    (void)state;
    test_seed();
    struct fkv_corpus corpus = random_corpus(test_between(400, MOST_TOKENS));
    int window = test_between(20, 120), sinks = test_between(0, 6);
    struct one_run r;
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){
            .name = "freqkv", .window = window, .sinks = sinks, .rescale = true, .gamma = "0.6"});
    const struct fkv_policy_setup *setup = fkv_session_setup(r.session);
    int chunk = setup->compressible - setup->retained[0], expected = 0;
    for (int d = 0; d < 3; d++)
        if (documents[d].count > window) expected += (int)(documents[d].count - window + chunk - 1) / chunk;
    assert_close(r.result.compressions * 3, expected, 1e-9, 0);
    assert_int_equal(r.recorded.compression_count, expected * setup->layers * setup->kv_heads);
    for (int64_t i = 0; i < r.recorded.compression_count; i++) {
        const struct fkv_compression *c = &r.recorded.compressions[i];
        assert_int_equal((c->token - window) % chunk, 0); /* the token that found the cache full */
        assert_true(c->energy.key_kept >= 0 && c->energy.key_kept <= c->energy.key_before * (1 + 1e-5));
        assert_true(c->energy.value_kept >= 0 && c->energy.value_kept <= c->energy.value_before * (1 + 1e-5));
    }
    done(&r);
}

static void round_and_since_follow_the_schedule(void **state) {
    (void)state;
    test_seed();
    struct fkv_corpus corpus = random_corpus(400);
    struct one_run r;
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){.name = "freqkv", .window = 64, .sinks = 4, .rescale = true, .gamma = "0.5"});
    for (int64_t t = 1; t < documents[0].count; t++) { /* L = 30: first compression by token 64, then every 30 */
        int64_t query = t - 1, round = query < 64 ? 0 : 1 + (query - 64) / 30;
        int64_t since = round ? (query - 64) % 30 + 1 : query + 1;
        assert_close(r.recorded.round[t], (double)round, 1e-4, 0);
        assert_close(r.recorded.since[t], (double)since, 1e-4, 0);
        assert_close(r.recorded.slots_used[t], (double)(round ? 34 + since : since), 1e-4, 0);
    }
    assert_true(isnan(r.recorded.nll[0]));
    done(&r);
}

/* "blocks" lets a policy act early; one that acts only when it is full is not moved by it. */
static void blocks_change_nothing_for_a_policy_that_acts_when_full(void **state) {
    (void)state;
    test_seed();
    struct fkv_corpus corpus = random_corpus(400);
    struct fkv_policy_options policy = {.name = "freqkv", .window = 50, .sinks = 4, .rescale = true};
    char blocks[32];
    snprintf(blocks, sizeof blocks, "blocks:%d", test_between(1, 90));
    struct one_run whole, block;
    run(&whole, &corpus, "whole", 0, policy);
    run(&block, &corpus, blocks, 0, policy);
    assert_close(block.result.total.nll, whole.result.total.nll, 0, 1e-5);
    assert_true(block.result.compressions == whole.result.compressions);
    done(&whole);
    done(&block);
}

static double column_sum(const char *path, const char *dataset, int64_t elements, int64_t *finite) {
    struct fkv_error err = {0};
    struct fkv_h5_reader *reader;
    int rank;
    int64_t dims[8], all = 1;
    bool found;
    static float values[8 * MOST_TOKENS];
    assert_ok(fkv_h5_open(path, &reader, &err), err);
    assert_ok(fkv_h5_shape(reader, dataset, &rank, dims, &found, &err), err);
    assert_true(found);
    for (int i = 0; i < rank; i++) all *= dims[i];
    assert_int_equal(all, elements);
    assert_ok(fkv_h5_get(reader, dataset, FKV_H5_F32, elements, values, &err), err);
    fkv_h5_close(reader);
    double sum = 0;
    for (int64_t i = 0; i < elements; i++)
        if (isfinite(values[i])) sum += values[i], ++*finite;
    return sum;
}

static void write_run(const char *path, const struct one_run *r, const struct fkv_corpus *corpus) {
    struct fkv_error err = {0};
    const struct fkv_experiment experiment = {.model = engine.model,
                                              .setup = fkv_session_setup(r->session),
                                              .corpus = corpus,
                                              .plan = &r->plan,
                                              .result = &r->result,
                                              .recorded = &r->recorded,
                                              .baseline = true,
                                              .backend = "cpu",
                                              .command = "test"};
    assert_ok(fkv_run_file_write(path, &experiment, &err), err);
    assert_refused(fkv_run_file_write(path, &experiment, &err), err, path);
}

static void the_run_file_holds_every_scored_token_once_per_window(void **state) {
    (void)state;
    test_seed();
    char folder[256], path[300], name[64];
    test_make_folder(folder);
    struct fkv_corpus corpus = random_corpus(400);
    struct fkv_policy_options policy = {.name = "local", .window = 40, .sinks = 4, .rescale = true};
    const char *protocols[] = {"whole", "rolling", "chunks:32", "stride:33"};
    for (int p = 0; p < 4; p++) {
        struct one_run r;
        int64_t scored = 0, other = 0;
        double nll = 0, kl = 0;
        run(&r, &corpus, protocols[p], p == 3 ? 90 : 0, policy);
        snprintf(path, sizeof path, "%s/%d.h5", folder, p);
        write_run(path, &r, &corpus);
        if (p == 3) {
            nll = column_sum(path, "/windows/nll", r.plan.count * 90, &scored);
            kl = column_sum(path, "/windows/kl", r.plan.count * 90, &other);
        }
        for (int d = 0; d < 3 && p < 3; d++) {
            snprintf(name, sizeof name, "/documents/%06d/nll", d);
            nll += column_sum(path, name, documents[d].count, &scored);
            snprintf(name, sizeof name, "/documents/%06d/kl", d);
            kl += column_sum(path, name, documents[d].count, &other);
        }
        assert_int_equal(scored, r.result.total.count);
        assert_int_equal(other, r.result.total.count);
        assert_close(nll, r.result.total.nll, 0, 1e-6);
        assert_close(kl, r.result.total.kl, 1e-6, 1e-6);
        done(&r);
    }
    test_remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_that_never_fills_costs_nothing),
        cmocka_unit_test(compressions_are_as_many_as_the_formula_says_and_keep_no_more_than_there_was),
        cmocka_unit_test(round_and_since_follow_the_schedule),
        cmocka_unit_test(blocks_change_nothing_for_a_policy_that_acts_when_full),
        cmocka_unit_test(the_run_file_holds_every_scored_token_once_per_window),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
