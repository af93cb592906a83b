/* What is said about an experiment: null for what does not exist, and when a baseline is no
 * reference. */
#include "tests/unit/support.h"

#include "replay/perplexity/experiment.h"

static struct fkv_model model;
static struct fkv_policy policy;
static struct fkv_policy_setup setup;
static struct fkv_corpus_document documents[2];
static struct fkv_corpus corpus;
static struct fkv_pass passes[1];
static struct fkv_plan plan;
static struct fkv_sums sums[2];
static struct fkv_perplexity result;
static double slots_end[] = {7, 5.5}, slots_kept[] = {4, NAN};
static struct fkv_experiment experiment;

static int set_up(void **state) {
    (void)state;
    model = (struct fkv_model){.config = {.trained_context = 512}};
    static const struct fkv_policy_option own[] = {{.name = "recent", .kind = FKV_OPTION_INTEGER},
                                                   {.name = "mass-bias", .kind = FKV_OPTION_FLAG},
                                                   {.name = "operator", .kind = FKV_OPTION_TEXT},
                                                   {0}};
    policy = (struct fkv_policy){
        .name = "freqkv", .options = own, .takes_window = true, .takes_ratio = true};
    setup = (struct fkv_policy_setup){.policy = &policy,
                                      .layers = 1,
                                      .kv_heads = 2,
                                      .window = 256,
                                      .sinks = 4,
                                      .own = {16, 0},
                                      .own_texts = {NULL, NULL, "haar"},
                                      .label = "freqkv, recent 16",
                                      .gamma = 0.5};
    documents[0] = (struct fkv_corpus_document){.name = "a.txt", .count = 11};
    documents[1] = (struct fkv_corpus_document){.name = "b.txt", .offset = 11, .count = 5};
    corpus = (struct fkv_corpus){.token_count = 16, .documents = documents, .document_count = 2};
    passes[0] = (struct fkv_pass){.rows = 11, .until = 10};
    plan = (struct fkv_plan){
        .name = "whole", .passes = passes, .count = 1, .longest = 512, .scored = 300};
    sums[0] = (struct fkv_sums){.count = 10, .nll = 20, .baseline_nll = 15, .kl = 1, .agree = 8};
    sums[1] = (struct fkv_sums){0}; /* nothing of b.txt was scored */
    result = (struct fkv_perplexity){.total = sums[0],
                                     .documents = sums,
                                     .errors.nll_se = 0.25,
                                     .errors.delta_nll_se = 0.125,
                                     .errors.kl_se = 0.5,
                                     .compressions = 3,
                                     .evictions = 2};
    result.slots_end = slots_end, result.slots_kept = slots_kept;
    result.cache_bytes_allocated = 8192;
    result.statistics =
        (struct fkv_session_statistics){.tokens = 16, .slots_sum = 80, .cache_bytes_peak = 4096};
    result.seconds = 2;
    result.seconds_compressing = 0.5;
    experiment = (struct fkv_experiment){.model = &model,
                                         .setup = &setup,
                                         .corpus = &corpus,
                                         .plan = &plan,
                                         .result = &result,
                                         .baseline = true};
    return 0;
}

static void assert_number(const json_t *object, const char *key, double expected) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("%s is no number", key);
    assert_close(json_number_value(value), expected, 0, 1e-14);
}

static void assert_json_null(const json_t *object, const char *key) {
    if (!json_is_null(json_object_get(object, key))) fail_msg("%s is not null", key);
}

TEST_WITH(the_object_has_the_documented_keys, set_up, NULL) {
    json_t *o = fkv_experiment_json(&experiment);
    const json_t *baseline = json_object_get(o, "baseline"),
                 *rows = json_object_get(o, "per_document");
    assert_string_equal(json_string_value(json_object_get(o, "policy")), "freqkv");
    assert_string_equal(json_string_value(json_object_get(o, "protocol")), "whole");
    assert_number(o, "window", 256);
    assert_number(o, "sinks", 4);
    assert_number(o, "gamma", 0.5);
    assert_true(json_is_false(json_object_get(o, "mass_bias")));
    assert_number(o, "recent", 16);
    assert_string_equal(json_string_value(json_object_get(o, "operator")), "haar");
    assert_number(o, "documents", 2);
    assert_number(o, "tokens", 16);
    assert_number(o, "tokens_scored", 10);
    assert_number(o, "mean_nll", 2);
    assert_number(o, "perplexity", exp(2));
    assert_number(o, "perplexity_se", exp(2) * 0.25);
    assert_number(o, "compressions", 3);
    assert_number(o, "evictions", 2);
    assert_number(o, "cache_bytes_peak", 4096);
    assert_number(o, "cache_slots_mean", 5);
    assert_number(o, "prefill_tokens_per_s", 8);
    assert_number(o, "compression_share", 0.25);
    assert_string_equal(json_string_value(json_object_get(o, "se_unit")), "blocks of one document");
    assert_true(json_is_false(json_object_get(o, "sees_queries")));
    assert_number(o, "cache_bytes_allocated", 8192);
    const json_t *end = json_array_get(json_object_get(o, "slots_end"), 0),
                 *kept = json_array_get(json_object_get(o, "slots_kept"), 0);
    assert_close(json_number_value(json_array_get(end, 1)), 5.5, 0, 0);
    assert_close(json_number_value(json_array_get(kept, 0)), 4, 0, 0);
    assert_true(json_is_null(json_array_get(kept, 1)));
    assert_int_equal(json_object_size(o), 27);
    assert_true(json_is_true(json_object_get(baseline, "valid")));
    assert_string_equal(json_string_value(json_object_get(baseline, "policy")), "full");
    assert_number(baseline, "mean_nll", 1.5);
    assert_number(baseline, "perplexity", exp(1.5));
    assert_number(baseline, "delta_nll", 0.5);
    assert_number(baseline, "delta_nll_se", 0.125);
    assert_number(baseline, "kl", 0.1);
    assert_number(baseline, "top1_agreement", 0.8);
    assert_number(baseline, "kl_se", 0.5);
    assert_json_null(baseline, "missing");
    assert_int_equal(json_object_size(baseline), 10);
    assert_int_equal(json_array_size(rows), 2);
    assert_number(json_array_get(rows, 0), "mean_nll", 2);
    json_decref(o);
}

TEST_WITH(numbers_that_do_not_exist_are_null, set_up, NULL) {
    policy.takes_window = policy.takes_ratio = false;
    setup.gamma = NAN;
    result.errors.nll_se = result.errors.delta_nll_se = NAN;
    result.seconds = 0;
    plan.scored = 10;
    json_t *o = fkv_experiment_json(&experiment);
    const char *keys[] = {"window",           "sinks",   "gamma",
                          "perplexity_se",    "se_unit", "prefill_tokens_per_s",
                          "compression_share"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) assert_json_null(o, keys[i]);
    assert_json_null(json_object_get(o, "baseline"), "delta_nll_se");
    assert_json_null(json_array_get(json_object_get(o, "per_document"), 1), "mean_nll");
    assert_json_null(json_array_get(json_object_get(o, "per_document"), 1), "perplexity");
    json_decref(o);
    assert_true(isnan(fkv_mean(0, 0)));
    experiment.baseline = false;
    o = fkv_experiment_json(&experiment);
    assert_ptr_equal(json_object_get(o, "baseline"), NULL);
    json_decref(o);
}

TEST_WITH(a_perplexity_beyond_doubles_is_null_and_its_nll_is_not, set_up, NULL) {
    result.total.nll = 10 * 800.0;
    json_t *o = fkv_experiment_json(&experiment);
    assert_number(o, "mean_nll", 800);
    assert_json_null(o, "perplexity");
    json_decref(o);
}

TEST_WITH(a_baseline_past_the_trained_context_is_no_reference, set_up, NULL) {
    assert_ptr_equal(fkv_experiment_invalid(&experiment), NULL);
    plan.longest = 513;
    assert_string_equal(fkv_experiment_invalid(&experiment), "past the trained context");
    plan.longest = 512;
    setup.window = 512;
    assert_string_equal(fkv_experiment_invalid(&experiment),
                        "window not below the trained context");
    policy.takes_window = false;
    assert_ptr_equal(fkv_experiment_invalid(&experiment), NULL);
}
