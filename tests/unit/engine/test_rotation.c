/* Layers that turn differently in one session: what another layer turns by never changes a layer,
 * and a layer turns by its own frequencies wherever its keys are touched. */
#include "engine/session/session.h"
#include "engine/session/session_internal.h"
#include "tests/unit/support.h"

enum { TOKENS = 40, LAYERS = 2 };

struct subject {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    struct fkv_model *model;
};

static struct subject open_model(void) {
    struct subject s;
    assert_ok(fkv_backend_find("cpu", &s.ops, NULL, &err));
    assert_ok(s.ops->open(&(struct fkv_backend_options){.threads = 2}, &s.backend, &err));
    assert_ok(fkv_model_open("tests/golden/llama-mha", s.ops, s.backend,
                             &(struct fkv_model_options){0}, &s.model, &err));
    assert_int_equal(s.model->config.layers, LAYERS);
    return s;
}

static void close_model(struct subject *s) {
    fkv_model_close(s->model);
    s->ops->close(s->backend);
}

static bool reversed; /* the order of the rotations in the config */

/* The model with a rotation of its own per layer: theta, or 0 for none. */
static void turn_layers(struct fkv_model *m, const double thetas[LAYERS]) {
    struct fkv_config *c = &m->config;
    c->rotation_count = LAYERS;
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        const int32_t index = reversed ? LAYERS - 1 - layer : layer;
        struct fkv_rope *rope = &c->rotations[index];
        *rope = c->rotations[0];
        c->layer[layer].rotation = thetas[layer] > 0 ? index : FKV_NO_ROTATION;
        for (int i = 0; i < rope->channels / 2; i++)
            rope->inv_freq[i] = pow(thetas[layer] > 0 ? thetas[layer] : 1, -i / 4.0);
    }
}

/* The keys that a layer's heads hold after TOKENS tokens: [slots of all heads, head_dim] -> keys.
 */
static size_t run(const struct subject *s, const char *policy, const double thetas[LAYERS],
                  int32_t block, int32_t layer, float *keys) {
    struct fkv_session *session;
    const struct fkv_policy_options p = {.name = policy,
                                         .sinks = 2,
                                         .window = 16,
                                         .gamma = strcmp(policy, "streaming") ? "0.5" : NULL};
    const struct fkv_session_options o = {
        .block = block, .max_tokens = TOKENS, .cache_dtype = FKV_F32};
    turn_layers(s->model, thetas);
    assert_ok(fkv_session_open(s->model, &p, &o, &session, &err));
    for (int32_t t = 0; t < TOKENS; t += block) {
        int32_t tokens[TOKENS];
        const int32_t rows = TOKENS - t < block ? TOKENS - t : block;
        for (int32_t i = 0; i < rows; i++) tokens[i] = (7 * (t + i) + 3) % 96;
        assert_ok(fkv_session_feed(session, tokens, rows, &err));
    }
    size_t used = 0;
    const size_t slot = session_slot_bytes(session), d = slot / sizeof(float);
    for (int32_t h = 0; h < session->setup.kv_heads; h++) {
        const struct fkv_head *head = session_head(session, layer, 0, h);
        const size_t first = (size_t)(head - session->heads) * (size_t)session->setup.capacity;
        assert_ok(s->ops->read(s->backend, session->key, first * slot, keys + used,
                               (size_t)head->slots * slot, &err));
        used += (size_t)head->slots * d;
    }
    fkv_session_close(session);
    return used;
}

enum { MOST = 4 * 32 * 64 };

/* Whole blocks act layer by layer; single tokens act on all layers at once. */
TEST(another_layers_rotation_never_changes_a_layer) {
    static const char *const policies[] = {"freqkv", "linear", "local", "streaming", "lm-infinite"};
    static const double own[] = {100, 0};
    static float x[MOST], y[MOST];
    struct subject s = open_model();
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++)
        for (int which = 0; which < 2; which++)
            for (int32_t block = 1; block <= TOKENS; block += TOKENS - 1) {
                const double alike[LAYERS] = {own[which], own[which]},
                             differ[LAYERS] = {own[which], 3};
                const size_t n = run(&s, policies[i], alike, block, 0, x),
                             m = run(&s, policies[i], differ, block, 0, y);
                assert_int_equal(n, m);
                for (size_t k = 0; k < n; k++) assert_close(y[k], x[k], 1e-6, 1e-6);
            }
    close_model(&s);
}

TEST(the_order_of_rotations_changes_nothing) {
    static const char *const policies[] = {"freqkv", "linear", "local", "streaming", "lm-infinite"};
    static const double differ[LAYERS] = {1000, 3}, partly[LAYERS] = {0, 50};
    static float x[MOST], y[MOST];
    struct subject s = open_model();
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++)
        for (int32_t layer = 0; layer < LAYERS; layer++)
            for (int which = 0; which < 2; which++) {
                const double *thetas = which ? partly : differ;
                const int32_t block = test_between(1, TOKENS);
                const size_t n = run(&s, policies[i], thetas, block, layer, x);
                reversed = true;
                assert_int_equal(run(&s, policies[i], thetas, block, layer, y), n);
                reversed = false;
                assert_memory_equal(x, y, n * sizeof *x);
            }
    close_model(&s);
}

TEST(decoding_equals_prefill_where_layers_turn_differently) {
    static const char *const policies[] = {"freqkv", "linear", "local", "streaming", "lm-infinite"};
    static const double differ[LAYERS] = {1000, 3}, partly[LAYERS] = {0, 50};
    static float x[MOST], y[MOST];
    struct subject s = open_model();
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++)
        for (int32_t layer = 0; layer < LAYERS; layer++)
            for (int which = 0; which < 2; which++) {
                const double *thetas = which ? partly : differ;
                const size_t n = run(&s, policies[i], thetas, 1, layer, x),
                             m = run(&s, policies[i], thetas, TOKENS, layer, y);
                assert_int_equal(n, m);
                for (size_t k = 0; k < n; k++) assert_close(y[k], x[k], 2e-5, 2e-5);
            }
    close_model(&s);
}

TEST(a_session_chooses_by_what_it_can_reach) {
    struct fkv_session *session;
    struct subject s = open_model();
    struct fkv_rope *rope = &s.model->config.rotations[0];
    strcpy(rope->kind, "dynamic");
    rope->by_length = true;
    rope->original = 20;
    rope->factor = 2;
    const struct {
        const char *policy;
        int64_t max_tokens, positions, reached;
    } cases[] = {{"full", 40, 0, 40},      {"full", 20, 0, 20},  {"freqkv", 40, 0, 16},
                 {"streaming", 40, 0, 16}, {"full", 12, 33, 33}, {"freqkv", 12, 0, 12}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool window = strcmp(cases[i].policy, "full") != 0;
        const struct fkv_policy_options p = {.name = cases[i].policy,
                                             .sinks = window ? 2 : -1,
                                             .window = window ? 16 : 0,
                                             .gamma = NULL};
        const struct fkv_session_options o = {.max_tokens = cases[i].max_tokens,
                                              .positions = cases[i].positions,
                                              .cache_dtype = FKV_F32};
        double wanted[FKV_MAX_HEAD_DIM / 2];
        assert_ok(fkv_session_open(s.model, &p, &o, &session, &err));
        assert_int_equal(fkv_session_rotation_positions(session), cases[i].reached);
        fkv_rope_frequencies(rope, cases[i].reached, wanted);
        assert_memory_equal(session_attention(session, 0)->inv_freq, wanted,
                            (size_t)rope->channels / 2 * sizeof *wanted);
        fkv_session_close(session);
    }
    close_model(&s);
}
