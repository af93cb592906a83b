/* The engine against Hugging Face transformers: tiny random checkpoints of every kind we load
 * (tests/golden, made by make_golden.py there), on the backend under test ($FKV_TEST_BACKEND,
 * default cpu) and on the reference, in blocks of several sizes. Logits and every tapped state
 * agree to 1e-4 absolute. Both sides compute in float32, where logits of up to 12 carry rounding of
 * about 1e-5. */
#include "engine/checkpoint/safetensors.h"
#include "engine/session/session.h"
#include "engine/session/taps.h"
#include "tests/unit/support.h"

enum { MAX_TOKENS = 64, MAX_LAYERS = 4 };

static const char *const state_names[] = {[FKV_SITE_KEY] = "key",
                                          [FKV_SITE_VALUE] = "value",
                                          [FKV_SITE_QUERY] = "query",
                                          [FKV_SITE_KEY_ROTATED] = "key_rotated"};
enum { STATES = sizeof state_names / sizeof state_names[0] };

/* What the taps saw: [site][layer] -> [tokens, heads * head_dim] */
struct recording {
    const struct fkv_model *model;
    float *states[STATES][MAX_LAYERS];
    int64_t seen[STATES][MAX_LAYERS]; /* tokens */
};

static int record(void *context, const struct fkv_tap_event *event, struct fkv_error *err) {
    struct recording *r = context;
    size_t row = (size_t)event->heads * (size_t)event->head_dim;
    int64_t *seen = &r->seen[event->site][event->layer];
    if (event->token != *seen)
        return fkv_fail(err, "token %lld after %lld", (long long)event->token, (long long)*seen);
    float **states = &r->states[event->site][event->layer];
    if (!*states) *states = malloc(MAX_TOKENS * row * sizeof **states);
    *seen += event->rows;
    return r->model->ops->read(r->model->backend, event->states, event->offset,
                               *states + (size_t)event->token * row,
                               (size_t)event->rows * row * sizeof(float), err);
}

static const struct fkv_tensor *expected_tensor(const struct fkv_safetensors *expected,
                                                const char *name) {
    const struct fkv_tensor *t = fkv_tensor_find(&expected->tensors, name);
    if (!t) fail_msg("expected/model.safetensors has no %s", name);
    return t;
}

static void compare(const char *model, const char *backend, int block, const char *what,
                    const float *found, const struct fkv_tensor *expected) {
    size_t n = expected->bytes / sizeof(float);
    const float *want = expected->data;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)found[i] - want[i]) < 1e-4))
            fail_msg("%s on %s in blocks of %d: %s: element %zu of %zu: found %.9g, expected %.9g",
                     model, backend, block, what, i, n, found[i], want[i]);
}

static void feed_all(struct fkv_session *s, const int32_t *tokens, int count, int block, int vocab,
                     float *logits) {
    for (int at = 0; at < count; at += block) {
        int rows = count - at < block ? count - at : block;
        assert_ok(fkv_session_feed(s, tokens + at, rows, &err));
        assert_ok(fkv_session_logits(s, 0, rows, logits + (size_t)at * (size_t)vocab, &err));
    }
}

static void check_run(const struct fkv_model *model, const char *name, const char *backend,
                      const struct fkv_safetensors *expected, int block) {
    struct fkv_session *session;
    struct recording seen = {.model = model};
    const struct fkv_tensor *tokens = expected_tensor(expected, "tokens"),
                            *logits = expected_tensor(expected, "logits");
    int count = (int)tokens->shape[0], vocab = model->config.vocab;
    assert_in_range(count, 1, MAX_TOKENS);
    assert_in_range(model->config.layers, 1, MAX_LAYERS);
    struct fkv_policy_options policy = {.name = "full", .sinks = -1};
    struct fkv_session_options options = {
        .block = block, .max_tokens = count, .cache_dtype = FKV_F32};
    if (!strcmp(backend, "cuda") && model->config.rotations[0].channels < model->config.head_dim) {
        assert_refused(fkv_session_open(model, &policy, &options, &session, &err),
                       "channels of a head to turn, or none");
        return;
    }
    assert_ok(fkv_session_open(model, &policy, &options, &session, &err));
    for (int site = 0; site < STATES; site++)
        fkv_session_tap(session, (enum fkv_site)site, record, &seen);

    float *found = malloc((size_t)count * (size_t)vocab * sizeof *found);
    feed_all(session, tokens->data, count, block, vocab, found);
    compare(name, backend, block, "logits", found, logits);
    for (int site = 0; site < STATES; site++)
        for (int layer = 0; layer < model->config.layers; layer++) {
            char what[32];
            snprintf(what, sizeof what, "%s.%d", state_names[site], layer);
            assert_int_equal(seen.seen[site][layer], count);
            compare(name, backend, block, what, seen.states[site][layer],
                    expected_tensor(expected, what));
            free(seen.states[site][layer]);
        }
    free(found);
    fkv_session_close(session);
}

/* `adapter`: the folder of one, or NULL; then its results are what is compared with. */
static void check_model(const char *name, const char *adapter, const char *backend,
                        bool one_by_one) {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *processor;
    struct fkv_model *model;
    struct fkv_safetensors *expected;
    char folder[128], results[160];
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    snprintf(results, sizeof results, "%s/expected", adapter ? adapter : folder);
    assert_ok(fkv_backend_find(backend, &ops, NULL, &err));
    assert_ok(ops->open(&(struct fkv_backend_options){.threads = 2, .compute = FKV_COMPUTE_F32},
                        &processor, &err));
    assert_ok(fkv_model_open(folder, ops, processor,
                             &(struct fkv_model_options){.check_values = true, .adapter = adapter},
                             &model, &err));
    assert_ok(fkv_safetensors_open(results, &expected, &err));
    static const int blocks[] = {1, 7, MAX_TOKENS};
    for (size_t i = !one_by_one; i < sizeof blocks / sizeof blocks[0]; i++)
        check_run(model, name, backend, expected, blocks[i]);
    fkv_safetensors_close(expected);
    fkv_model_close(model);
    ops->close(processor);
}

static void equals_transformers(void **state) {
    const char *backend = getenv("FKV_TEST_BACKEND");
    check_model(*state, NULL, backend ? backend : "cpu", true);
    check_model(*state, NULL, "reference", true);
}

/* The adapter's folder in tests/golden/adapters, and the name of its base there. */
static void equals_peft(void **state) {
    const char *backend = getenv("FKV_TEST_BACKEND"), *const *names = *state;
    char adapter[128];
    snprintf(adapter, sizeof adapter, "tests/golden/adapters/%s", names[0]);
    check_model(names[1], adapter, backend ? backend : "cpu", true);
    check_model(names[1], adapter, "reference", true);
}

/* On the stand-in for CUDA, which takes seconds for a token by itself, in blocks of 7 and 64: both
 * ways of its products. What differs between one token and seven the models above show. */
static void family_equals_transformers(void **state) {
    const char *backend = getenv("FKV_TEST_BACKEND");
    const bool slow = getenv("FKV_TEST_SMALL") != NULL;
    check_model(*state, NULL, backend ? backend : "cpu", !slow);
    check_model(*state, NULL, "reference", !slow);
}

#define MODEL(name, folder) TEST_OF(name, equals_transformers, folder)
#define ADAPTER(name, folder, base)                                                                \
    static const char *const name##_folders[] = {folder, base};                                    \
    TEST_OF(name, equals_peft, name##_folders)
#define FAMILY(name, folder) TEST_OF(name, family_equals_transformers, folder)

MODEL(llama_multi_head_untied_equals_transformers, "llama-mha")
MODEL(llama_grouped_query_tied_equals_transformers, "llama-gqa-tied")
MODEL(llama3_rope_equals_transformers, "llama3-rope")
MODEL(linear_rope_equals_transformers, "linear-rope")
MODEL(yarn_equals_transformers, "yarn-rope")
MODEL(dynamic_rope_within_the_context_equals_transformers, "dynamic-rope-within")
MODEL(dynamic_rope_beyond_it_equals_transformers, "dynamic-rope-beyond")
MODEL(longrope_within_its_original_context_equals_transformers, "longrope-within")
MODEL(longrope_beyond_it_equals_transformers, "longrope-beyond")
MODEL(mistral_equals_transformers, "mistral")
MODEL(qwen2_equals_transformers, "qwen2")
MODEL(qwen3_equals_transformers, "qwen3")
MODEL(heads_wider_than_the_model_equal_transformers, "wide-heads")
MODEL(f16_checkpoint_equals_transformers_in_float32, "llama-f16")
MODEL(bf16_checkpoint_equals_transformers_in_float32, "llama-bf16")
MODEL(sharded_checkpoint_equals_transformers, "sharded")
ADAPTER(ranks_and_alphas_by_pattern_equal_peft, "patterns", "llama-mha")
ADAPTER(embedding_of_a_tied_base_equals_peft, "tied-embedding", "llama-gqa-tied")
ADAPTER(whole_modules_equal_peft, "saved-modules", "llama-gqa-tied")
ADAPTER(biases_equal_peft, "biases", "qwen2")
FAMILY(mistral_that_slides_equals_transformers, "mistral-sliding")
FAMILY(qwen3_with_layers_that_slide_equals_transformers, "qwen3-sliding")
FAMILY(smollm3_with_listed_rotations_equals_transformers, "smollm3")
FAMILY(smollm3_by_interval_that_slides_equals_transformers, "smollm3-interval")
FAMILY(phi3_equals_transformers, "phi3")
FAMILY(phi3_with_partial_rotation_equals_transformers, "phi3-partial")
FAMILY(granite_equals_transformers, "granite")
FAMILY(olmo2_equals_transformers, "olmo2")
FAMILY(gemma2_equals_transformers, "gemma2")
FAMILY(gemma3_within_a_multimodal_checkpoint_equals_transformers, "gemma3")
