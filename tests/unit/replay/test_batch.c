/* Passes and prompts side by side change nothing: whatever the batch, every protocol and policy
 * gives what it gives alone. */
#include "tests/unit/replay/runs.h"

#include "replay/generate/generate.h"

/* Up to `count` documents of random lengths, together about `total` tokens; the first is no short
 * one, others may have two. */
static struct fkv_corpus uneven_corpus(int count, int total) {
    int64_t at = 0;
    for (int d = 0; d < count; d++) {
        int size = (d ? 2 : 60) + test_between(0, 2 * total / count);
        if (at + size > MOST_TOKENS) {
            count = d;
            break;
        }
        documents[d] = (struct fkv_corpus_document){
            .name = "random", .text_sha256 = "00", .offset = at, .count = size};
        at += size;
    }
    for (int64_t i = 0; i < at; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    return (struct fkv_corpus){
        .tokens = tokens, .token_count = at, .documents = documents, .document_count = count};
}

static void assert_sums_close(const struct fkv_sums *found, const struct fkv_sums *expected) {
    assert_int_equal(found->count, expected->count);
    assert_close(found->nll, expected->nll, 1e-5, 1e-5);
    assert_close(found->baseline_nll, expected->baseline_nll, 1e-5, 1e-5);
    assert_close(found->kl, expected->kl, 1e-5 * (double)expected->count, 1e-5);
}

static void assert_columns_close(const float *found, const float *expected, int64_t count,
                                 double relative) {
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(isnan(found[i]), isnan(expected[i]));
        if (!isnan(found[i])) assert_close(found[i], expected[i], 2e-5, relative);
    }
}

static void assert_compressions_close(const struct fkv_recorded *found,
                                      const struct fkv_recorded *expected) {
    assert_int_equal(found->action_count, expected->action_count);
    for (int64_t i = 0; i < found->action_count; i++) {
        const struct fkv_recorded_action *a = &found->actions[i], *b = &expected->actions[i];
        assert_true(a->pass == b->pass && a->token == b->token && a->layer == b->layer &&
                    a->kv_head == b->kv_head);
        assert_int_equal(a->round, b->round);
        assert_close(a->energy.key_before, b->energy.key_before, 0, 1e-4);
        assert_close(a->energy.key_kept, b->energy.key_kept, 0, 1e-4);
        assert_close(a->energy.value_before, b->energy.value_before, 0, 1e-4);
        assert_close(a->energy.value_kept, b->energy.value_kept, 0, 1e-4);
    }
}

/* Where two logits are as near to each other as rounding, a batch may turn them round, and with
 * them the agreement of one token: about one in 100,000, and never four of some hundred. All others
 * agree, and the sums are of what is there. */
static void assert_agreement(const struct one_run *found, const struct one_run *expected) {
    const struct fkv_recorded *a = &found->recorded, *b = &expected->recorded;
    int64_t agree[2] = {0}, turned = 0;
    for (int64_t i = 0; i < a->count; i++) {
        assert_int_equal(isnan(a->agree[i]), isnan(b->agree[i]));
        if (isnan(a->agree[i])) continue;
        agree[0] += a->agree[i] == 1, agree[1] += b->agree[i] == 1;
        turned += a->agree[i] != b->agree[i];
    }
    assert_close((double)agree[0], found->result.total.agree, 0, 0);
    assert_close((double)agree[1], expected->result.total.agree, 0, 0);
    if (turned > 3)
        fail_msg("policy and baseline agree elsewhere at %lld tokens", (long long)turned);
}

static void assert_runs_close(const struct one_run *found, const struct one_run *expected,
                              int64_t document_count) {
    const struct fkv_recorded *a = &found->recorded, *b = &expected->recorded;
    assert_sums_close(&found->result.total, &expected->result.total);
    for (int64_t d = 0; d < document_count; d++)
        assert_sums_close(&found->result.documents[d], &expected->result.documents[d]);
    if (isnan(expected->result.errors.nll_se)) {
        assert_true(isnan(found->result.errors.nll_se) && isnan(found->result.errors.delta_nll_se));
    } else {
        assert_close(found->result.errors.nll_se, expected->result.errors.nll_se, 1e-5, 1e-5);
        assert_close(found->result.errors.delta_nll_se, expected->result.errors.delta_nll_se, 1e-5,
                     1e-5);
    }
    assert_true(found->result.compressions == expected->result.compressions);
    assert_int_equal(found->result.statistics.tokens, expected->result.statistics.tokens);
    assert_int_equal(found->result.statistics.compressions,
                     expected->result.statistics.compressions);
    assert_int_equal(found->result.statistics.evictions, expected->result.statistics.evictions);
    assert_int_equal(found->result.statistics.cache_bytes_peak,
                     expected->result.statistics.cache_bytes_peak);
    assert_close(found->result.statistics.slots_sum, expected->result.statistics.slots_sum, 0,
                 1e-9);
    assert_int_equal(a->count, b->count);
    assert_columns_close(a->nll, b->nll, a->count, 1e-5);
    assert_columns_close(a->baseline_nll, b->baseline_nll, a->count, 1e-5);
    assert_columns_close(a->kl, b->kl, a->count, 1e-5);
    assert_columns_close(a->round, b->round, a->count, 1e-6);
    assert_columns_close(a->slots_used, b->slots_used, a->count, 1e-6);
    assert_columns_close(a->since, b->since, a->count, 1e-6);
    assert_compressions_close(a, b);
    assert_agreement(found, expected);
}

static const char *const policies[] = {"full",  "freqkv",    "linear",
                                       "local", "streaming", "lm-infinite"};
enum { POLICIES = sizeof policies / sizeof *policies };

/* All policies, or of many tests every third one. */
static int first_policy(void) { return small_sizes() ? test_between(0, 2) : 0; }
static int next_policy(int p) { return p + (small_sizes() ? 3 : 1); }

static struct fkv_policy_options random_policy(const char *name) {
    return (struct fkv_policy_options){
        .name = name, .window = test_between(20, 70), .sinks = test_between(0, 4)};
}

/* Two and five lanes, which random documents rarely fill evenly, and more lanes than there are
 * passes. */
static void assert_any_batch_agrees(const char *protocol, const struct fkv_corpus *corpus,
                                    int64_t tokens_option) {
    for (int p = first_policy(); p < POLICIES; p = next_policy(p)) {
        const int32_t batches[] = {2, 5, 1000};
        struct fkv_policy_options policy = random_policy(policies[p]);
        struct one_run alone, together;
        print_message("%s, %s, window %d, %lld documents\n", protocol, policy.name, policy.window,
                      (long long)corpus->document_count);
        run_lanes(&alone, corpus, protocol, tokens_option, policy, 1);
        for (int b = 0; b < (p == 1 ? 3 : 2); b++) {
            run_lanes(&together, corpus, protocol, tokens_option, policy, batches[b]);
            assert_runs_close(&together, &alone, corpus->document_count);
            done(&together);
        }
        done(&alone);
    }
}

TEST(whole_documents_side_by_side_are_what_they_are_alone) {
    struct fkv_corpus corpus = uneven_corpus(test_between(2, MOST_DOCUMENTS), 160);
    assert_any_batch_agrees("whole", &corpus, 0);
}

TEST(windows_side_by_side_are_what_they_are_alone) {
    char protocol[32];
    struct fkv_corpus corpus = uneven_corpus(3, 160);
    int window = (int)(corpus.token_count / test_between(3, 4)); /* at least 15 */
    snprintf(protocol, sizeof protocol, "stride:%d", test_between(window / 2, window));
    assert_any_batch_agrees(protocol, &corpus, window);
}

/* Windows that touch and do not overlap have bootstrap blocks that begin in one pass and end in
 * another. */
TEST(blocks_of_tokens_do_not_depend_on_the_batch) {
    struct fkv_corpus corpus = random_corpus(280);
    assert_any_batch_agrees("stride:40", &corpus, 40);
}

TEST(chunks_side_by_side_are_what_they_are_alone) {
    char protocol[32];
    struct fkv_corpus corpus = random_corpus(test_between(150, 200));
    snprintf(protocol, sizeof protocol, "chunks:%d", test_between(20, 70));
    assert_any_batch_agrees(protocol, &corpus, 0);
}

TEST(rolling_windows_side_by_side_are_what_they_are_alone) {
    struct fkv_corpus corpus = uneven_corpus(test_between(2, MOST_DOCUMENTS), 160);
    assert_any_batch_agrees("rolling", &corpus, 0);
}

TEST(blocks_side_by_side_are_what_they_are_alone) {
    char protocol[32];
    struct fkv_corpus corpus = uneven_corpus(test_between(2, 5), 80);
    snprintf(protocol, sizeof protocol, "blocks:%d", test_between(1, 60));
    assert_any_batch_agrees(protocol, &corpus, 0);
}

/* A host's block and a device's: passes longer than the first, policies that act many times within
 * the second. */
TEST(the_block_changes_no_number_beyond_rounding) {
    test_seed();
    enum { LONG = 1200, SHORT = 100 };
    static int32_t many[LONG + SHORT];
    for (int i = 0; i < LONG + SHORT; i++)
        many[i] = test_between(3, engine.model->config.vocab - 1);
    for (int d = 0; d < 2; d++)
        documents[d] = (struct fkv_corpus_document){
            .name = "random", .text_sha256 = "00", .offset = d * LONG, .count = d ? SHORT : LONG};
    const struct fkv_corpus corpus = {many, LONG + SHORT, documents, 2, NULL};
    for (int p = first_policy(); p < POLICIES; p = next_policy(p)) {
        struct fkv_policy_options policy = random_policy(policies[p]);
        const int32_t lanes = test_between(1, 2);
        struct one_run host, device;
        print_message("%s, window %d, %d lanes\n", policy.name, policy.window, lanes);
        run_blocks(&host, &corpus, "whole", 0, policy, lanes, 512);
        run_blocks(&device, &corpus, "whole", 0, policy, lanes, 4096);
        assert_int_equal(fkv_session_block(device.session),
                         lanes * LONG); /* one feed; a host's are three */
        assert_runs_close(&device, &host, corpus.document_count);
        done(&device);
        done(&host);
    }
}

/* ---- generation ---- */

enum { PROMPTS = 7, GENERATED = 16 };

static void generate(struct fkv_generation generations[PROMPTS], struct fkv_policy_options policy,
                     int32_t lanes, const struct fkv_generation_options *how) {
    struct fkv_session *session;
    struct fkv_generation_times times = {0};
    struct fkv_generation_options options = *how;
    options.lanes = lanes;
    options.block = test_between(lanes, 64);
    struct fkv_session_options open = {
        .block = options.block, .sequences = lanes, .max_tokens = 100 + GENERATED};
    assert_ok(fkv_session_open(engine.model, &policy, &open, &session, &err));
    assert_ok(fkv_generate(session, generations, PROMPTS, &options, &times, &err));
    fkv_session_close(session);
}

/* What came at `at` of a continuation: the end's id where it ended there. */
static int32_t id_at(const struct fkv_generation *g, int64_t at) {
    return at < g->count ? g->ids[at] : engine.model->config.eos;
}

/* Logits [vocab] of the next token after the prompt and `at` more are fed at once; the caller
 * frees. */
static float *logits_after(const struct fkv_generation *g, int64_t at,
                           struct fkv_policy_options policy) {
    struct fkv_session *session;
    struct fkv_session_options open = {.block = 200, .max_tokens = 100 + GENERATED};
    int32_t fed[100 + GENERATED], count = (int32_t)(g->prompt_count + at);
    float *logits = malloc((size_t)engine.model->config.vocab * sizeof *logits);
    memcpy(fed, g->prompt, (size_t)g->prompt_count * sizeof *fed);
    memcpy(fed + g->prompt_count, g->ids, (size_t)at * sizeof *fed);
    assert_ok(fkv_session_open(engine.model, &policy, &open, &session, &err));
    assert_ok(fkv_session_feed(session, fed, count, &err));
    assert_ok(fkv_session_logits(session, count - 1, 1, logits, &err));
    fkv_session_close(session);
    return logits;
}

/* Another batch rounds otherwise: every logit may be off by so much. */
static const double logit_rounding = 1e-3;

/* Greedy takes `id` when no logit is larger but for rounding. Else the draw u must lie within the
 * share of id in the distribution, [F(id - 1), F(id)): logits that are off by e change the odds F /
 * (1 - F) by a factor of exp(2 e / t) at most, at temperature t, and so F by e / 2t. */
static void assert_fits(const float *logits, const struct fkv_generation_options *how, int64_t at,
                        int32_t id) {
    const int32_t vocab = engine.model->config.vocab;
    struct fkv_random random = {how->seed};
    double top = -INFINITY, below = 0, sum = 0, u = 0, t = how->temperature,
           slack = 1.01 * logit_rounding / (2 * t);
    for (int32_t i = 0; i < vocab; i++) top = fmax(top, logits[i]);
    if (t == 0) {
        if (!(logits[id] >= top - 2 * logit_rounding))
            fail_msg("token %lld: took %d, whose logit is %g below the largest", (long long)at, id,
                     top - logits[id]);
        return;
    }
    for (int64_t i = 0; i <= at; i++) u = fkv_random_uniform(&random);
    for (int32_t i = 0; i < vocab; i++) sum += exp((logits[i] - top) / t);
    for (int32_t i = 0; i < id; i++) below += exp((logits[i] - top) / t) / sum;
    double end = below + exp((logits[id] - top) / t) / sum;
    if (!(u >= below - slack && u <= end + slack))
        fail_msg("token %lld: drew %d, which has %.9g to %.9g, with %.9g", (long long)at, id, below,
                 end, u);
}

/* The same ids, or from where they first differ on two that both fit what was drawn: what follows
 * differs by right. */
static void assert_same_continuation(const struct fkv_generation *a, const struct fkv_generation *b,
                                     struct fkv_policy_options policy,
                                     const struct fkv_generation_options *how) {
    int64_t at = 0;
    while (at < a->count && at < b->count && a->ids[at] == b->ids[at]) at++;
    if (at == a->count && at == b->count) {
        assert_int_equal(a->ended, b->ended);
        return;
    }
    float *logits = logits_after(a, at, policy);
    assert_fits(logits, how, at, id_at(a, at));
    assert_fits(logits, how, at, id_at(b, at));
    free(logits);
}

TEST(continuations_do_not_depend_on_the_batch) {
    struct fkv_generation alone[PROMPTS] = {0}, together[PROMPTS] = {0};
    for (int p = 0; p < PROMPTS; p++)
        alone[p] =
            (struct fkv_generation){.prompt = tokens + p, .prompt_count = test_between(1, 100)};
    for (int i = 0; i < 200; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    for (int turn = 0; turn < POLICIES; turn++) {
        const int32_t batches[] = {2, 3, PROMPTS, 20};
        struct fkv_policy_options policy = random_policy(policies[turn]);
        const struct fkv_generation_options how = {.tokens = GENERATED,
                                                   .temperature = test_between(0, 1) ? 0.9 : 0,
                                                   .seed = test_random()};
        int32_t lanes = batches[test_between(0, 3)];
        for (int p = 0; p < PROMPTS; p++) together[p] = alone[p];
        generate(alone, policy, 1, &how);
        generate(together, policy, lanes, &how);
        for (int p = 0; p < PROMPTS; p++) {
            print_message("%s, temperature %g, %d lanes, prompt %d\n", policy.name, how.temperature,
                          lanes, p);
            assert_same_continuation(&alone[p], &together[p], policy, &how);
            struct fkv_generation prompt = {.prompt = alone[p].prompt,
                                            .prompt_count = alone[p].prompt_count};
            fkv_generation_free(&alone[p]);
            fkv_generation_free(&together[p]);
            alone[p] = prompt;
        }
    }
}

TEST_GROUP(open_engine, close_engine)
