/* Equal memory: the slots that a schedule is said to show queries are those that a session counts,
 * and the window that is chosen for a mean is the nearest. */
#include "tests/unit/replay/runs.h"

#include "replay/compare/memory.h"

static const char *const policies[] = {"full",      "freqkv", "linear",      "local",
                                       "streaming", "snapkv", "pyramidkv",   "h2o",
                                       "keydiff",   "knorm",  "lm-infinite", "longheads"};
enum { POLICIES = sizeof policies / sizeof *policies };

TEST(slots_are_those_that_a_session_counts) {
    for (int i = 0; i < POLICIES; i++) {
        struct one_run r;
        char protocol[32], gamma[32];
        const int block = test_between(34, 60);
        const struct fkv_corpus corpus = random_corpus(test_between(300, 400));
        snprintf(protocol, sizeof protocol, "blocks:%d", block);
        snprintf(gamma, sizeof gamma, "0.%d", test_between(20, 80));
        struct fkv_policy_options policy = {
            .name = policies[i], .sinks = -1, .gamma = gamma, .prefill_block = block};
        fkv_memory_set(&policy, test_between(40, 80));
        if (fkv_policy_find(policy.name, NULL)->window_unit) {
            policy.own[0] = (struct fkv_own_value){.name = "chunk", .value = test_between(2, 12)};
            fkv_memory_set(&policy, (int32_t)policy.own[0].value * test_between(3, 8));
        }
        run_blocks(&r, &corpus, protocol, 0, policy, 1, test_between(10, 200));
        double mean;
        assert_ok(fkv_memory_mean(&policy, &engine.model->config, &r.plan, &mean, &err));
        const struct fkv_session_statistics *s = &r.result.statistics;
        assert_close(mean, s->slots_sum / (double)s->tokens, 1e-9, 1e-9);
        done(&r);
    }
}

TEST(the_window_for_a_mean_is_the_nearest) {
    const struct fkv_corpus corpus = random_corpus(600);
    const struct fkv_config *config = &engine.model->config;
    const struct fkv_protocol_setting setting = {.trained_context = config->trained_context,
                                                 .tokenizer_bos = -1};
    struct fkv_plan plan = {0};
    assert_ok(fkv_protocol_parse("blocks:40", &plan, &err));
    assert_ok(fkv_protocol_plan(&corpus, &setting, &plan, &err));
    for (int i = 1; i < POLICIES; i++) {
        if (fkv_policy_find(policies[i], NULL)->window_unit) continue; /* see below */
        struct fkv_policy_options policy = {.name = policies[i], .sinks = -1, .prefill_block = 40};
        const double wanted = test_between(60, 90);
        int32_t slots;
        double found, other;
        assert_ok(fkv_memory_for_mean(&policy, config, &plan, wanted, &slots, &err));
        fkv_memory_set(&policy, slots);
        assert_true(fkv_memory_given(&policy));
        assert_ok(fkv_memory_mean(&policy, config, &plan, &found, &err));
        for (int32_t near = slots - 3; near <= slots + 3; near++) {
            fkv_memory_set(&policy, near);
            assert_ok(fkv_memory_mean(&policy, config, &plan, &other, &err));
            if (fabs(other - wanted) < fabs(found - wanted) - 0.5)
                fail_msg("%s: %d slots give %g, %d give %g, wanted %g", policies[i], slots, found,
                         near, other, wanted);
        }
    }
    struct fkv_policy_options policy = {.name = "local", .sinks = -1};
    int32_t slots;
    assert_refused(fkv_memory_for_mean(&policy, config, &plan, 5000, &slots, &err),
                   "a mean that the texts reach");
    assert_false(fkv_memory_chosen(fkv_policy_find("full", NULL)));
    fkv_plan_free(&plan);
}

TEST(the_window_of_chunks_is_whole_chunks) {
    const struct fkv_corpus corpus = random_corpus(300);
    const struct fkv_config *config = &engine.model->config;
    const struct fkv_protocol_setting setting = {.trained_context = config->trained_context,
                                                 .tokenizer_bos = -1};
    const int32_t chunk = test_between(2, 6);
    struct fkv_policy_options policy = {.name = "longheads", .own = {{.name = "chunk"}}};
    struct fkv_plan plan = {0};
    int32_t slots;
    double found, other;
    policy.own[0].value = chunk;
    assert_ok(fkv_protocol_parse("whole", &plan, &err));
    assert_ok(fkv_protocol_plan(&corpus, &setting, &plan, &err));
    const double wanted = test_between(30, 45);
    assert_ok(fkv_memory_for_mean(&policy, config, &plan, wanted, &slots, &err));
    assert_int_equal(slots % chunk, 0);
    fkv_memory_set(&policy, slots);
    assert_ok(fkv_memory_mean(&policy, config, &plan, &found, &err));
    for (int32_t near = slots - chunk; near <= slots + chunk; near += 2 * chunk) {
        fkv_memory_set(&policy, near);
        assert_ok(fkv_memory_mean(&policy, config, &plan, &other, &err));
        assert_true(fabs(found - wanted) <= fabs(other - wanted));
    }
    policy.own[0].value = 256; /* three of them are more than the text */
    policy.own[1].name = NULL;
    assert_refused(fkv_memory_for_mean(&policy, config, &plan, wanted, &slots, &err),
                   "at least 3 chunks");
    fkv_plan_free(&plan);
}

TEST_GROUP(open_engine, close_engine)
