/* Runs of the embedded model (data/litbank-1m) over random tokens, for the tests of this room. */
#ifndef FKV_TESTS_REPLAY_RUNS_H
#define FKV_TESTS_REPLAY_RUNS_H

#include "tests/unit/support.h"

#include "replay/perplexity/experiment.h"

enum { MOST_TOKENS = 700, MOST_DOCUMENTS = 8 };

static struct fkv_engine engine;
static int32_t tokens[MOST_TOKENS];
static struct fkv_corpus_document documents[MOST_DOCUMENTS];

static inline int open_engine(void **state) {
    (void)state;
    static struct fkv_engine_options options;
    fkv_engine_options_default(&options);
    options.model = "data/litbank-1m";
    options.backend = "cpu";
    if (fkv_engine_open(&options, &engine, &err)) printf("%s\n", err.message);
    return engine.model ? 0 : -1;
}

static inline int close_engine(void **state) {
    (void)state;
    fkv_engine_close(&engine);
    return 0;
}

/* Three documents of random tokens, together `total`. */
static inline struct fkv_corpus random_corpus(int64_t total) {
    int64_t cut[] = {0, total / 2, total * 3 / 4, total};
    for (int64_t i = 0; i < total; i++) tokens[i] = test_between(3, engine.model->config.vocab - 1);
    for (int d = 0; d < 3; d++)
        documents[d] = (struct fkv_corpus_document){
            .name = "random", .text_sha256 = "00", .offset = cut[d], .count = cut[d + 1] - cut[d]};
    return (struct fkv_corpus){
        .tokens = tokens, .token_count = total, .documents = documents, .document_count = 3};
}

struct one_run {
    struct fkv_plan plan;
    struct fkv_session *session, *baseline;
    struct fkv_recorded recorded;
    struct fkv_perplexity result;
};

/* `lanes`: passes side by side, fewer when there are not so many; `block`: rows of a pass that are
 * fed at once. */
static inline void run_blocks(struct one_run *r, const struct fkv_corpus *corpus,
                              const char *protocol, int64_t tokens_option,
                              struct fkv_policy_options policy, int32_t lanes, int32_t block) {
    const struct fkv_config *config = &engine.model->config;
    struct fkv_protocol_setting setting = {.tokens = tokens_option,
                                           .trained_context = config->trained_context,
                                           .tokenizer_bos = config->bos,
                                           .bos = config->bos,
                                           .eos = config->eos};
    *r = (struct one_run){0};
    assert_ok(fkv_protocol_parse(protocol, &r->plan, &err));
    assert_ok(fkv_protocol_plan(corpus, &setting, &r->plan, &err));
    lanes = fkv_perplexity_lanes(&r->plan, lanes);
    struct fkv_session_options options = fkv_perplexity_session(&r->plan, lanes);
    options.measure_energy = true;
    options.block = block * lanes;
    assert_ok(fkv_session_open(engine.model, &policy, &options, &r->session, &err));
    assert_ok(fkv_session_open(engine.model, &fkv_full_attention, &options, &r->baseline, &err));
    const struct fkv_recorded_options kept = {.policy = fkv_session_setup(r->session)->policy,
                                              .baseline = true};
    const struct fkv_baseline baseline = {.session = r->baseline};
    assert_ok(fkv_recorded_open(corpus, &r->plan, &kept, &r->recorded, &err));
    assert_ok(fkv_perplexity_run(corpus, &r->plan, r->session, &baseline, lanes, &r->recorded, true,
                                 &r->result, &err));
}

static inline void run_lanes(struct one_run *r, const struct fkv_corpus *corpus,
                             const char *protocol, int64_t tokens_option,
                             struct fkv_policy_options policy, int32_t lanes) {
    run_blocks(r, corpus, protocol, tokens_option, policy, lanes, 512);
}

static inline void run(struct one_run *r, const struct fkv_corpus *corpus, const char *protocol,
                       int64_t tokens_option, struct fkv_policy_options policy) {
    run_lanes(r, corpus, protocol, tokens_option, policy, 1);
}

static inline void done(struct one_run *r) {
    fkv_perplexity_free(&r->result);
    fkv_recorded_free(&r->recorded);
    fkv_recorded_free(&r->recorded); /* twice is harmless */
    fkv_session_close(r->baseline);
    fkv_session_close(r->session);
    fkv_plan_free(&r->plan);
}

/* What a finished run says of itself. */
static inline struct fkv_experiment experiment_of(const struct one_run *r,
                                                  const struct fkv_corpus *corpus) {
    return (struct fkv_experiment){.model = engine.model,
                                   .setup = fkv_session_setup(r->session),
                                   .corpus = corpus,
                                   .plan = &r->plan,
                                   .result = &r->result,
                                   .recorded = &r->recorded,
                                   .baseline = true,
                                   .backend = "cpu",
                                   .command = "test",
                                   .compute = "f32",
                                   .tokenizer_sha256 = "55",
                                   .model_sha256 = "00",
                                   .corpus_sha256 = "11"};
}

#endif
