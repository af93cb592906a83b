/* Plans against windows counted by hand, and the invariants that every protocol owes for any
 * corpus. */
#include "tests/unit/support.h"

#include "replay/perplexity/protocol.h"

enum { MOST_DOCUMENTS = 5, BOS = 1, EOS = 2 };

static struct fkv_corpus_document documents[MOST_DOCUMENTS];
static int32_t stream[4096];

/* A corpus of documents with these lengths; token i of the stream is 100 + i. */
static struct fkv_corpus make_corpus(const int64_t *lengths, int count) {
    struct fkv_corpus corpus = {.tokens = stream, .documents = documents, .document_count = count};
    for (int i = 0; i < count; i++) {
        documents[i] = (struct fkv_corpus_document){
            .name = "document", .offset = corpus.token_count, .count = lengths[i]};
        corpus.token_count += lengths[i];
    }
    for (int i = 0; i < 4096; i++) stream[i] = 100 + i;
    return corpus;
}

static const struct fkv_protocol_setting plain = {
    .trained_context = 8, .tokenizer_bos = BOS, .bos = BOS, .eos = EOS};

static struct fkv_plan make_plan(const struct fkv_corpus *corpus, const char *protocol,
                                 struct fkv_protocol_setting setting) {
    struct fkv_plan plan;
    assert_ok(fkv_protocol_parse(protocol, &plan, &err));
    assert_ok(fkv_protocol_plan(corpus, &setting, &plan, &err));
    return plan;
}

static void assert_pass(const struct fkv_pass *pass, int64_t start, int64_t document, int32_t rows,
                        int32_t from, int32_t until, int32_t first) {
    if (pass->start != start || pass->document != document || pass->rows != rows ||
        pass->from != from || pass->until != until || pass->first != first)
        fail_msg("pass starts %lld document %lld rows %d scored %d to %d first %d, expected %lld "
                 "%lld %d %d to %d %d",
                 (long long)pass->start, (long long)pass->document, pass->rows, pass->from,
                 pass->until, pass->first, (long long)start, (long long)document, rows, from, until,
                 first);
}

TEST(whole_is_one_pass_per_document_that_feeds_every_token) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){5, 9}, 2);
    struct fkv_plan plan = make_plan(&corpus, "whole", plain);
    assert_int_equal(plan.count, 2);
    assert_pass(&plan.passes[0], 0, 0, 5, 0, 4, -1);
    assert_pass(&plan.passes[1], 5, 1, 9, 0, 8, -1);
    assert_int_equal(plan.rows, 14);
    assert_int_equal(plan.scored, 12);
    assert_int_equal(plan.longest, 9);
    assert_int_equal(plan.block, 0);
    assert_string_equal(plan.name, "whole");
    fkv_plan_free(&plan);
}

TEST(stride_cuts_windows_across_documents_while_they_fit) {
    struct fkv_corpus corpus =
        make_corpus((int64_t[]){5, 9}, 2); /* 14 tokens: starts 0, 3, 6; 9 + 6 > 14 */
    struct fkv_protocol_setting setting = plain;
    setting.tokens = 6;
    struct fkv_plan plan = make_plan(&corpus, "stride:3", setting);
    assert_int_equal(plan.count, 3);
    assert_pass(&plan.passes[0], 0, 0, 6, 0, 5, -1);
    assert_pass(&plan.passes[1], 3, 0, 6, 0, 5, -1);
    assert_pass(&plan.passes[2], 6, 1, 6, 0, 5, -1);
    assert_true(fkv_plan_overlaps(&plan));
    fkv_plan_free(&plan);
    setting.tokens = 0; /* the trained context, 8: starts 0, 3, 6 */
    plan = make_plan(&corpus, "stride:3", setting);
    assert_int_equal(plan.count, 3);
    assert_int_equal(plan.longest, 8);
    fkv_plan_free(&plan);
}

TEST(stride_overlaps_only_where_a_target_is_scored_twice) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){40}, 1);
    struct fkv_protocol_setting setting = plain;
    setting.tokens = 6; /* 5 targets per window */
    const struct {
        const char *protocol;
        int64_t score_from;
        bool overlaps;
    } cases[] = {{"stride:4", 0, true},
                 {"stride:5", 0, false},
                 {"stride:6", 0, false},
                 {"stride:4", 2, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setting.score_from = cases[i].score_from;
        struct fkv_plan plan = make_plan(&corpus, cases[i].protocol, setting);
        if (fkv_plan_overlaps(&plan) != cases[i].overlaps)
            fail_msg("%s from %lld: expected overlap %d", cases[i].protocol,
                     (long long)cases[i].score_from, cases[i].overlaps);
        fkv_plan_free(&plan);
    }
}

TEST(chunks_put_bos_over_the_first_token_and_score_the_second_half) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){13, 4, 6}, 3);
    struct fkv_plan plan = make_plan(&corpus, "chunks:5", plain);
    assert_int_equal(plan.count, 3);                  /* two of document 0, none of 1, one of 2 */
    assert_pass(&plan.passes[0], 0, 0, 5, 2, 4, BOS); /* targets 5/2+1 = 3 and 4 */
    assert_pass(&plan.passes[1], 5, 0, 5, 2, 4, BOS);
    assert_pass(&plan.passes[2], 17, 2, 5, 2, 4, BOS);
    fkv_plan_free(&plan);
    struct fkv_protocol_setting without = plain;
    without.tokenizer_bos = -1;
    plan = make_plan(&corpus, "chunks:4", without);
    assert_pass(&plan.passes[0], 0, 0, 4, 2, 3, -1);
    fkv_plan_free(&plan);
}

/* lm-eval, get_rolling_token_windows(range(20), prefix, max_seq_len 8, context_len 1): inputs
 * [prefix, 0..6], [7..14], [11..18] with 8, 8 and 4 targets */
TEST(rolling_windows_are_those_of_lm_eval) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){3, 20}, 2);
    struct fkv_plan plan = make_plan(&corpus, "rolling", plain);
    assert_int_equal(plan.count, 4);
    assert_pass(&plan.passes[0], -1, 0, 3, 0, 3, BOS);
    assert_pass(&plan.passes[1], 3 - 1, 1, 8, 0, 8, BOS);
    assert_pass(&plan.passes[2], 3 + 7, 1, 8, 0, 8, -1);
    assert_pass(&plan.passes[3], 3 + 11, 1, 8, 4, 8, -1);
    assert_int_equal(plan.scored, 23);
    fkv_plan_free(&plan);
    stream[3] = BOS; /* the tokenizer's: the same windows over the 19 tokens after it */
    plan = make_plan(&corpus, "rolling", plain);
    assert_int_equal(plan.count, 4);
    assert_pass(&plan.passes[0], -1, 0, 3, 0, 3, BOS);
    assert_pass(&plan.passes[1], 3, 1, 8, 0, 8, -1);
    assert_pass(&plan.passes[2], 3 + 8, 1, 8, 0, 8, -1);
    assert_pass(&plan.passes[3], 3 + 11, 1, 8, 5, 8, -1);
    assert_int_equal(plan.scored, 22);
    fkv_plan_free(&plan);
    struct fkv_protocol_setting without = plain;
    without.tokenizer_bos = without.bos = -1;
    plan = make_plan(&corpus, "rolling", without);
    assert_int_equal(plan.passes[0].first, EOS);
    fkv_plan_free(&plan);
    without.eos = -1;
    assert_ok(fkv_protocol_parse("rolling", &plan, &err));
    assert_refused(fkv_protocol_plan(&corpus, &without, &plan, &err), "bos_token_id");
    fkv_plan_free(&plan);
}

TEST(blocks_are_whole_with_block_ends) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){5, 9}, 2);
    struct fkv_plan plan = make_plan(&corpus, "blocks:4", plain);
    assert_int_equal(plan.block, 4);
    assert_int_equal(plan.count, 2);
    assert_pass(&plan.passes[1], 5, 1, 9, 0, 8, -1);
    fkv_plan_free(&plan);
}

TEST(score_from_leaves_out_earlier_targets_only) {
    struct fkv_corpus corpus = make_corpus((int64_t[]){10, 4}, 2);
    struct fkv_protocol_setting setting = plain;
    setting.score_from = 6;
    struct fkv_plan plan = make_plan(&corpus, "whole", setting);
    assert_pass(&plan.passes[0], 0, 0, 10, 5, 9, -1); /* row 5 predicts target 6 */
    assert_pass(&plan.passes[1], 10, 1, 4, 3, 3, -1); /* fed, nothing scored */
    assert_int_equal(plan.scored, 4);
    fkv_plan_free(&plan);
    setting.score_from = 1; /* what 0 means too */
    plan = make_plan(&corpus, "whole", setting);
    assert_int_equal(plan.scored, 9 + 3);
    fkv_plan_free(&plan);
}

TEST(every_scored_target_lies_in_the_stream_and_non_overlapping_plans_score_it_once) {
    for (int trial = 0; trial < 300; trial++) {
        int64_t lengths[MOST_DOCUMENTS];
        int count = test_between(1, MOST_DOCUMENTS);
        for (int i = 0; i < count; i++) lengths[i] = test_between(2, 200);
        struct fkv_corpus corpus = make_corpus(lengths, count);
        struct fkv_protocol_setting setting = plain;
        setting.trained_context = test_between(2, 64);
        setting.score_from = test_between(0, 3) ? 0 : test_between(0, 20);
        const char *names[] = {"whole", "rolling", "blocks:7", "chunks:4", "stride:5", "stride:70"};
        struct fkv_plan plan;
        assert_ok(fkv_protocol_parse(names[test_between(0, 5)], &plan, &err));
        if (fkv_protocol_plan(&corpus, &setting, &plan, &err)) {
            fkv_plan_free(&plan);
            continue; /* nothing to score */
        }
        static int scored[4096];
        int64_t rows = 0, targets = 0, most = 0;
        memset(scored, 0, sizeof scored);
        for (int64_t i = 0; i < plan.count; i++) {
            const struct fkv_pass *pass = &plan.passes[i];
            rows += pass->rows;
            assert_true(pass->start >= 0 || (pass->start == -1 && pass->first >= 0));
            assert_true(pass->from <= pass->until && pass->until <= pass->rows);
            for (int32_t r = pass->from; r < pass->until; r++, targets++) {
                int64_t target = pass->start + r + 1;
                assert_true(target >= 0 && target < corpus.token_count);
                if (++scored[target] > most) most = scored[target];
            }
        }
        assert_int_equal(rows, plan.rows);
        assert_int_equal(targets, plan.scored);
        assert_int_equal(most > 1, fkv_plan_overlaps(&plan));
        if (!strcmp(plan.name, "rolling") && setting.score_from < 2)
            assert_int_equal(targets, corpus.token_count);
        fkv_plan_free(&plan);
    }
}

TEST(unknown_protocols_and_parameters_are_refused) {
    struct fkv_plan plan;
    assert_refused(fkv_protocol_parse("half", &plan, &err), "half");
    assert_refused(fkv_protocol_parse("stride", &plan, &err), "stride:s");
    assert_refused(fkv_protocol_parse("stride:", &plan, &err), "--protocol");
    assert_refused(fkv_protocol_parse("stride:0", &plan, &err), "--protocol");
    assert_refused(fkv_protocol_parse("chunks:3", &plan, &err), "--protocol");
    assert_refused(fkv_protocol_parse("whole:3", &plan, &err), "takes no parameter");
    assert_refused(fkv_protocol_parse("strid:3", &plan, &err), "strid:3");
}

TEST(a_corpus_with_nothing_to_score_is_refused) {
    struct fkv_plan plan;
    struct fkv_corpus corpus = make_corpus((int64_t[]){5, 6}, 2);
    assert_ok(fkv_protocol_parse("chunks:7", &plan, &err));
    assert_refused(fkv_protocol_plan(&corpus, &plain, &plan, &err), "6 tokens");
    fkv_plan_free(&plan);
    struct fkv_protocol_setting setting = plain;
    setting.score_from = 100;
    assert_ok(fkv_protocol_parse("whole", &plan, &err));
    assert_refused(fkv_protocol_plan(&corpus, &setting, &plan, &err), "--score-from");
    fkv_plan_free(&plan);
    fkv_plan_free(&plan); /* twice is harmless */
}
