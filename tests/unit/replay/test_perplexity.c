/* The runner and the run file on the embedded model (data/litbank-1m) over random tokens: what must
 * hold whatever the model says. The numbers themselves are checked against a second implementation
 * by tests/e2e/check_protocols.py. */
#include "tests/unit/replay/runs.h"

#include "capture/store/h5.h"

TEST(a_window_that_never_fills_costs_nothing) {
    struct fkv_corpus corpus = random_corpus(300);
    struct one_run r;
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){.name = "freqkv", .window = 150, .sinks = -1});
    assert_int_equal(r.result.total.count, 300 - 3);
    assert_int_equal(r.result.total.agree, 300 - 3);
    assert_close(r.result.total.nll, r.result.total.baseline_nll, 0, 1e-12);
    assert_close(r.result.total.kl, 0, 1e-9, 0);
    assert_true(r.result.compressions == 0);
    assert_int_equal(r.recorded.action_count, 0);
    done(&r);
}

TEST(compressions_are_as_many_as_the_formula_says_and_keep_no_more_than_there_was) {
    struct fkv_corpus corpus = random_corpus(test_between(400, MOST_TOKENS));
    int window = test_between(20, 120), sinks = test_between(0, 6);
    struct one_run r;
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){
            .name = "freqkv", .window = window, .sinks = sinks, .gamma = "0.6"});
    const struct fkv_policy_setup *setup = fkv_session_setup(r.session);
    int chunk = setup->compressible - setup->retained[0], expected = 0;
    for (int d = 0; d < 3; d++)
        if (documents[d].count > window)
            expected += (int)(documents[d].count - window + chunk - 1) / chunk;
    assert_close(r.result.compressions * 3, expected, 1e-9, 0);
    assert_int_equal(r.recorded.action_count, expected * setup->layers * setup->kv_heads);
    for (int64_t i = 0; i < r.recorded.action_count; i++) {
        const struct fkv_recorded_action *c = &r.recorded.actions[i];
        assert_int_equal((c->token - window) % chunk, 0); /* the token that found the cache full */
        assert_true(c->energy.key_kept >= 0 &&
                    c->energy.key_kept <= c->energy.key_before * (1 + 1e-5));
        assert_true(c->energy.value_kept >= 0 &&
                    c->energy.value_kept <= c->energy.value_before * (1 + 1e-5));
    }
    done(&r);
}

TEST(round_and_since_follow_the_schedule) {
    struct fkv_corpus corpus = random_corpus(400);
    struct one_run r;
    run(&r, &corpus, "whole", 0,
        (struct fkv_policy_options){.name = "freqkv", .window = 64, .sinks = 4, .gamma = "0.5"});
    for (int64_t t = 1; t < documents[0].count;
         t++) { /* L = 30: first compression by token 64, then every 30 */
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
TEST(blocks_change_nothing_for_a_policy_that_acts_when_full) {
    struct fkv_corpus corpus = random_corpus(400);
    struct fkv_policy_options policy = {.name = "freqkv", .window = 50, .sinks = 4};
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

/* Many passes share a document's blocks of 256 scored tokens: the intervals must be those of the
 * tokens in their order. */
TEST(intervals_come_from_blocks_of_scored_tokens_in_their_order) {
    struct fkv_corpus corpus = random_corpus(MOST_TOKENS);
    corpus.document_count = 1;
    documents[0].count = MOST_TOKENS;
    struct one_run r;
    struct fkv_policy_options policy = {.name = "freqkv", .window = 12, .sinks = 2};
    double nll[3] = {0}, delta[3] = {0}, counts[3] = {0}, se;
    const int64_t blocks = 2;
    int64_t scored = 0;
    struct fkv_units units;
    run_lanes(&r, &corpus, "chunks:20", 0, policy,
              test_between(1, 4)); /* 35 chunks score 9 tokens each */
    for (int64_t t = 0; t < MOST_TOKENS; t++) {
        if (isnan(r.recorded.nll[t])) continue;
        int64_t block = scored++ / FKV_BOOTSTRAP_BLOCK;
        nll[block] += r.recorded.nll[t],
            delta[block] += (double)r.recorded.nll[t] - r.recorded.baseline_nll[t];
        counts[block] += 1;
    }
    assert_int_equal(scored, 35 * 9);
    /* What is recorded is float32: an nll of some 6 nats is rounded by up to 2.4e-7. */
    assert_ok(fkv_units_make(&blocks, 1, false, &units, &err));
    fkv_ratio_interval(&units, nll, counts, &se);
    assert_close(r.result.errors.nll_se, se, 1e-7, 1e-4);
    fkv_ratio_interval(&units, delta, counts, &se);
    assert_close(r.result.errors.delta_nll_se, se, 1e-7, 1e-3);
    assert_int_equal(fkv_perplexity_se_unit(&corpus, &r.plan), FKV_SE_BLOCKS);
    fkv_units_free(&units);
    done(&r);
}

/* What is said of the error is what was done: two documents that differ have an error of the
 * order of their difference. */
TEST(the_error_of_a_few_documents_sees_how_they_differ) {
    test_seed();
    struct fkv_corpus corpus = random_corpus(MOST_TOKENS);
    struct one_run r;
    struct fkv_policy_options policy = {.name = "freqkv", .window = 40, .sinks = 4};
    for (int64_t t = documents[1].offset; t < corpus.token_count; t++)
        tokens[t] = tokens[documents[1].offset];
    corpus.document_count = 2; /* one of random tokens, one of a single token over and over */
    corpus.token_count = documents[2].offset;
    run(&r, &corpus, "whole", 0, policy);
    const struct fkv_sums *sums = r.result.documents;
    double difference = fkv_mean(sums[0].nll, sums[0].count) - fkv_mean(sums[1].nll, sums[1].count);
    assert_int_equal(fkv_perplexity_se_unit(&corpus, &r.plan), FKV_SE_DOCUMENTS_AND_BLOCKS);
    assert_int_equal(fkv_perplexity_documents(&corpus, &r.plan), 2);
    assert_true(r.result.errors.nll_se > fabs(difference) / 4);
    done(&r);
    run(&r, &corpus, "stride:20", 60, policy); /* overlapping windows: documents only */
    assert_int_equal(fkv_perplexity_se_unit(&corpus, &r.plan), FKV_SE_DOCUMENTS);
    assert_true(isfinite(r.result.errors.nll_se));
    done(&r);
    corpus.document_count = 1, corpus.token_count = documents[1].offset;
    run(&r, &corpus, "stride:20", 60, policy);
    assert_int_equal(fkv_perplexity_se_unit(&corpus, &r.plan), FKV_SE_NONE);
    assert_true(isnan(r.result.errors.nll_se) && isnan(r.result.errors.delta_nll_se));
    done(&r);
}

static double column_sum(const char *path, const char *dataset, int64_t elements, int64_t *finite) {
    struct fkv_h5_reader *reader;
    int rank;
    int64_t dims[8], all = 1;
    bool found;
    static float values[8 * MOST_TOKENS];
    assert_ok(fkv_h5_open(path, &reader, &err));
    assert_ok(fkv_h5_shape(reader, dataset, &rank, dims, &found, &err));
    assert_true(found);
    for (int i = 0; i < rank; i++) all *= dims[i];
    assert_int_equal(all, elements);
    assert_ok(fkv_h5_get(reader, dataset, FKV_H5_F32, elements, values, &err));
    fkv_h5_close(reader);
    double sum = 0;
    for (int64_t i = 0; i < elements; i++)
        if (isfinite(values[i])) sum += values[i], ++*finite;
    return sum;
}

static void write_run(const char *path, const struct one_run *r, const struct fkv_corpus *corpus) {
    const struct fkv_experiment experiment = experiment_of(r, corpus);
    assert_ok(fkv_run_file_write(path, &experiment, &err));
    assert_refused(fkv_run_file_write(path, &experiment, &err), path);
}

static int64_t rows_of(const char *path, const char *dataset) {
    struct fkv_h5_reader *r;
    int rank;
    int64_t dims[8] = {0};
    bool found;
    assert_ok(fkv_h5_open(path, &r, &err));
    assert_ok(fkv_h5_shape(r, dataset, &rank, dims, &found, &err));
    fkv_h5_close(r);
    return found ? dims[0] : -1;
}

/* Of local on its schedule (N = 64, S = 4, L = 30: at token 64, then every 30) and of streaming at
 * every token. */
TEST_IN_FOLDER(evictions_are_counted_as_such_and_are_no_compressions) {
    test_seed();
    char path[300];
    struct fkv_corpus corpus = random_corpus(400);
    static const char *const names[] = {"local", "streaming", "freqkv"};
    for (int p = 0; p < 3; p++) {
        struct one_run r;
        run(&r, &corpus, "whole", 0,
            (struct fkv_policy_options){.name = names[p], .window = 64, .sinks = 4});
        double expected = 0, acted = 0;
        for (int d = 0; d < 3; d++) {
            int beyond = (int)documents[d].count - 64;
            acted += beyond > 0 ? (beyond + 29) / 30 : 0;
            expected += p == 1   ? (beyond > 0 ? beyond : 0)
                        : p == 0 ? (beyond > 0 ? (beyond + 29) / 30 : 0)
                                 : 0;
        }
        assert_close(r.result.evictions * 3, expected, 1e-9, 0);
        assert_close(r.result.compressions * 3, p == 2 ? acted : 0, 1e-9, 0);
        for (int64_t t = 1; t < documents[0].count && p < 2; t++) {
            int64_t fed = t, beyond = fed > 64 ? fed - 64 : 0,
                    round = beyond ? 1 + (beyond - 1) / 30 : 0;
            assert_close(r.recorded.round[t], 0, 0, 0);
            assert_close(r.recorded.since[t], (double)fed, 0, 0);
            assert_close(r.recorded.evictions[t], (double)(p ? beyond : round), 1e-4, 0);
            double since = !beyond ? (double)fed : p ? 1 : (double)((beyond - 1) % 30 + 1);
            assert_close(r.recorded.since_eviction[t], since, 1e-4, 0);
        }
        if (p == 2) assert_null(r.recorded.evictions);
        snprintf(path, sizeof path, "%s/%s.h5", folder, names[p]);
        write_run(path, &r, &corpus);
        int64_t rows = 2 * (int64_t)acted * 6 * 2; /* states, layers, KV heads */
        assert_int_equal(rows_of(path, "/compressions/layer"), p == 2 ? rows : 0);
        assert_int_equal(rows_of(path, "/evictions/layer"), p == 0 ? rows : -1);
        done(&r);
    }
}

TEST_IN_FOLDER(the_run_file_holds_every_scored_token_once_per_window) {
    char path[300], name[64];
    struct fkv_corpus corpus = random_corpus(400);
    struct fkv_policy_options policy = {.name = "local", .window = 40, .sinks = 4};
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
}

TEST_GROUP(open_engine, close_engine)
