/* Probes on the embedded model over random tokens: what must hold whatever the model says. The
 * numbers themselves are checked against a second implementation by tests/e2e/check_probe.py. */
#include "tests/unit/engine/embedded_model.h"

#include "engine/session/session_internal.h"
#include "engine/session/surgery.h"
#include "kernels/dct.h"
#include "replay/probe/edit.h"
#include "replay/probe/probe.h"
#include "replay/probe/changes.h"

enum {
    PREFIX = 50,
    SCORE = 24,
    SINKS = 4,
    N = PREFIX - SINKS,
    LENGTH = PREFIX + SCORE + 1,
    WINDOWS = 2
};
enum {
    LAYERS = 6,
    KV_HEADS = 2,
    HEADS = LAYERS * KV_HEADS,
    WIDTH = 32,
    VOCAB = 2048,
    STATE = PREFIX * WIDTH
};

struct fixture {
    struct fkv_model *model;
    struct fkv_session *session;
    int32_t tokens[WINDOWS * LENGTH];
    struct fkv_corpus_document document;
    struct fkv_corpus corpus;
    struct fkv_probe_start starts[WINDOWS];
};

static char document_name[] = "random";

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    const struct fkv_policy_options full = {.name = "full", .sinks = -1};
    const struct fkv_session_options options = {.max_tokens = PREFIX + SCORE, .biases = true};
    f->model = open_embedded_model(tested_backend());
    assert_ok(fkv_session_open(f->model, &full, &options, &f->session, &err));
    for (int i = 0; i < WINDOWS * LENGTH; i++) f->tokens[i] = test_between(0, VOCAB - 1);
    f->document = (struct fkv_corpus_document){.name = document_name, .count = WINDOWS * LENGTH};
    f->corpus = (struct fkv_corpus){f->tokens, WINDOWS * LENGTH, &f->document, 1, NULL};
    for (int w = 0; w < WINDOWS; w++) f->starts[w] = (struct fkv_probe_start){0, w * LENGTH};
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    fkv_session_close(f->session);
    close_embedded_model(f->model);
    free(f);
    return 0;
}

/* ---- lists ---- */

struct request {
    enum fkv_probe_option option;
    const char *text;
};

static struct fkv_probe probe_of(const struct request *list, int count, const char *states,
                                 bool per_head) {
    static struct fkv_probe_requests requests;
    struct fkv_probe p = {.model_name = "m",
                          .states = "both",
                          .backend = "cpu",
                          .cache_dtype = "f32",
                          .model_sha256 = "0",
                          .layers = LAYERS,
                          .kv_heads = KV_HEADS,
                          .head_dim = WIDTH,
                          .trained_context = 1024,
                          .prefix = PREFIX,
                          .score = SCORE,
                          .sinks = SINKS,
                          .seed = 3};
    requests = (struct fkv_probe_requests){.per_head = per_head};
    assert_ok(fkv_probe_parse_states(&requests, states, &err));
    for (int i = 0; i < count; i++)
        assert_ok(fkv_probe_request(&requests, list[i].option, list[i].text, &err));
    assert_ok(
        fkv_probe_list_changes(&requests, LAYERS, KV_HEADS, N, &p.changes, &p.change_count, &err));
    return p;
}

static struct fkv_prober prober_of(const struct fixture *f, const char *parts) {
    return (struct fkv_prober){.corpus = &f->corpus,
                               .starts = f->starts,
                               .window_count = WINDOWS,
                               .bos = -1,
                               .session = f->session,
                               .parts = parts,
                               .quiet = true};
}

static const struct request many[] = {
    {FKV_PROBE_OPTION_FILTER, "0:1"},        {FKV_PROBE_OPTION_FILTER, "0:0.4"},
    {FKV_PROBE_OPTION_NOISE, "0.2:0.9:0.3"}, {FKV_PROBE_OPTION_FREQKV, "0.5,1"},
    {FKV_PROBE_OPTION_LOCAL, "0.5"},         {FKV_PROBE_OPTION_BANDS, "3"},
    {FKV_PROBE_OPTION_DECOMPOSE, "0.37"}};
enum { MANY = sizeof many / sizeof *many };

static int find(const struct fkv_probe *p, const char *label) {
    for (int i = 0; i < p->change_count; i++)
        if (!strcmp(p->changes[i].label, label)) return i;
    fail_msg("no change \"%s\"", label);
    return -1;
}

/* ---- running ---- */

TEST(an_empty_change_changes_nothing_and_a_filter_that_keeps_all_only_rounds) {
    struct fixture *f = *state;
    struct fkv_probe p = probe_of(many, MANY, "key,value,both", false);
    struct fkv_prober prober = prober_of(f, NULL);
    assert_ok(fkv_probe_run(&prober, &p, &err));
    assert_true(p.noise_floor_nll < 1e-5);
    for (int w = 0; w < WINDOWS; w++) {
        const struct fkv_probe_window *window = &p.windows[w];
        const char *const harmless[] = {"filter 0:1, key", "filter 0:1, value", "filter 0:1, both",
                                        "freqkv 1", "decompose 0.37: nothing"};
        assert_memory_equal(window->nll, window->untouched_nll, SCORE * sizeof(float));
        for (int i = 0; i < SCORE; i++) assert_close(window->kl[i], 0, 0, 0);
        for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
            assert_arrays_close(window->nll + find(&p, harmless[i]) * SCORE, window->untouched_nll,
                                SCORE, 2e-5, 0);
        double moved = 0;
        for (int i = 0; i < SCORE; i++)
            moved +=
                fabs(window->nll[find(&p, "local 0.5") * SCORE + i] - window->untouched_nll[i]) /
                SCORE;
        assert_true(moved > 1e-3);
    }
    fkv_probe_free(&p);
}

/* A host's block and a device's, of windows longer than the first: prefix and scored tokens in two
 * feeds or one. */
TEST(the_block_changes_no_number_beyond_rounding) {
    struct fixture *f = *state;
    enum { LONG_PREFIX = 700, LONG_SCORE = 300, ALL = LONG_PREFIX + LONG_SCORE };
    const struct fkv_policy_options full = {.name = "full", .sinks = -1};
    static const struct request list[] = {{FKV_PROBE_OPTION_FILTER, "0:0.4"},
                                          {FKV_PROBE_OPTION_FREQKV, "0.5"},
                                          {FKV_PROBE_OPTION_LOCAL, "0.5"}};
    int32_t tokens[ALL + 1];
    struct fkv_corpus_document document = {.name = document_name, .count = ALL + 1};
    const struct fkv_corpus corpus = {tokens, ALL + 1, &document, 1, NULL};
    for (int i = 0; i <= ALL; i++) tokens[i] = test_between(0, VOCAB - 1);
    struct fkv_probe p[2];
    for (int i = 0; i < 2; i++) {
        const struct fkv_session_options options = {
            .block = i ? 4096 : 512, .max_tokens = ALL, .biases = true};
        struct fkv_prober prober = prober_of(f, NULL);
        prober.corpus = &corpus;
        prober.window_count = 1;
        p[i] = probe_of(list, 3, "both", false);
        p[i].prefix = LONG_PREFIX, p[i].score = LONG_SCORE;
        assert_ok(fkv_session_open(f->model, &full, &options, &prober.session, &err));
        assert_int_equal(fkv_session_block(prober.session), i ? ALL : 512);
        assert_ok(fkv_probe_run(&prober, &p[i], &err));
        fkv_session_close(prober.session);
    }
    const struct fkv_probe_window *a = p[0].windows, *b = p[1].windows;
    const int32_t count = p[0].change_count;
    assert_arrays_close(b->untouched_nll, a->untouched_nll, LONG_SCORE, 3e-5, 0);
    assert_arrays_close(b->nll, a->nll, (size_t)count * LONG_SCORE, 3e-5, 0);
    assert_arrays_close(b->kl, a->kl, (size_t)count * LONG_SCORE, 3e-5, 0);
    for (int i = 0; i < 2 * count; i++)
        assert_close(b->lost_energy[i], a->lost_energy[i], 1e-6, 1e-5);
    fkv_probe_free(&p[0]);
    fkv_probe_free(&p[1]);
}

TEST(the_order_of_changes_does_not_matter) {
    struct fixture *f = *state;
    struct fkv_probe a = probe_of(many, MANY, "key,value,both", false);
    struct fkv_probe b = probe_of(many, MANY, "key,value,both", false);
    struct fkv_prober prober = prober_of(f, NULL);
    assert_ok(fkv_probe_run(&prober, &a, &err));
    for (int i = b.change_count - 1; i > 0; i--) {
        int j = test_between(0, i);
        struct fkv_probe_change swap = b.changes[i];
        b.changes[i] = b.changes[j], b.changes[j] = swap;
    }
    assert_ok(fkv_probe_run(&prober, &b, &err));
    for (int w = 0; w < WINDOWS; w++)
        for (int i = 0; i < b.change_count; i++) {
            int j = find(&a, b.changes[i].label);
            assert_memory_equal(b.windows[w].nll + i * SCORE, a.windows[w].nll + j * SCORE,
                                SCORE * sizeof(float));
            assert_memory_equal(b.windows[w].lost_energy + 2 * i, a.windows[w].lost_energy + 2 * j,
                                2 * sizeof(double));
        }
    fkv_probe_free(&a), fkv_probe_free(&b);
}

TEST(all_parts_together_are_freqkv_and_truncation_alone_is_a_filter) {
    struct fixture *f = *state;
    const struct request list[] = {{FKV_PROBE_OPTION_FREQKV, "0.5"}, /* 0.5 n is whole */
                                   {FKV_PROBE_OPTION_FILTER, "0:0.5"},
                                   {FKV_PROBE_OPTION_DECOMPOSE, "0.5"}};
    struct fkv_probe p = probe_of(list, 3, "both", false);
    struct fkv_prober prober = prober_of(f, NULL);
    assert_ok(fkv_probe_run(&prober, &p, &err));
    const char *const pairs[][2] = {{"freqkv 0.5", "decompose 0.5: truncation + squeezed + fewer"},
                                    {"filter 0:0.5, both", "decompose 0.5: truncation"}};
    for (int i = 0; i < 2; i++)
        assert_memory_equal(p.windows[1].nll + find(&p, pairs[i][0]) * SCORE,
                            p.windows[1].nll + find(&p, pairs[i][1]) * SCORE,
                            SCORE * sizeof(float));
    fkv_probe_free(&p);
}

/* A window as long as the prefix compresses right after it. */
TEST(the_freqkv_and_local_changes_are_what_the_policies_do) {
    struct fixture *f = *state;
    static const char *const names[] = {"freqkv", "local"};
    double nll[SCORE];
    for (int i = 0; i < 2; i++) {
        char gamma[16];
        snprintf(gamma, sizeof gamma, "0.%d", test_between(15, 35));
        const struct request one = {i ? FKV_PROBE_OPTION_LOCAL : FKV_PROBE_OPTION_FREQKV, gamma};
        struct fkv_probe p = probe_of(&one, 1, "both", false);
        struct fkv_prober prober = prober_of(f, NULL);
        assert_ok(fkv_probe_run(&prober, &p, &err));
        const struct fkv_policy_options policy = {
            .name = names[i], .window = PREFIX, .sinks = SINKS, .gamma = gamma};
        const struct fkv_session_options options = {.max_tokens = PREFIX + SCORE};
        struct fkv_session *s;
        assert_ok(fkv_session_open(f->model, &policy, &options, &s, &err));
        assert_ok(fkv_session_feed(s, f->tokens, PREFIX, &err));
        assert_ok(fkv_session_feed(s, f->tokens + PREFIX, SCORE, &err));
        assert_int_equal(s->heads[0].rounds, 1);
        assert_ok(fkv_session_score(s, 0, SCORE, f->tokens + PREFIX + 1, nll, NULL, &err));
        for (int t = 0; t < SCORE; t++) assert_close(p.windows[0].nll[SCORE + t], nll[t], 2e-5, 0);
        fkv_session_close(s);
        fkv_probe_free(&p);
    }
}

TEST_IN_FOLDER(an_interrupted_run_goes_on_and_other_options_are_refused) {
    struct fixture *f = *state;
    char parts[300], path[340];
    snprintf(parts, sizeof parts, "%s/p.parts", folder);
    struct fkv_probe whole = probe_of(many, MANY, "both", false);
    struct fkv_probe first = probe_of(many, MANY, "both", false);
    struct fkv_probe rest = probe_of(many, MANY, "both", false);
    struct fkv_prober prober = prober_of(f, NULL);
    assert_ok(fkv_probe_run(&prober, &whole, &err));
    prober.parts = parts;
    prober.window_count = 1;
    assert_ok(fkv_probe_run(&prober, &first, &err));
    prober.window_count = WINDOWS;
    assert_ok(fkv_probe_run(&prober, &rest, &err));
    snprintf(path, sizeof path, "%s/000001.h5", parts);
    assert_int_equal(access(path, R_OK), 0);
    for (int w = 0; w < WINDOWS; w++) {
        assert_memory_equal(rest.windows[w].nll, whole.windows[w].nll,
                            (size_t)whole.change_count * SCORE * sizeof(float));
        assert_memory_equal(rest.windows[w].tokens, whole.windows[w].tokens,
                            LENGTH * sizeof(int32_t));
    }
    assert_true(rest.noise_floor_nll == whole.noise_floor_nll);
    struct fkv_probe other = probe_of(many, MANY, "both", false);
    other.seed = 4;
    assert_refused(fkv_probe_run(&prober, &other, &err), "seed: expected 4, found 3");
    fkv_probe_free(&other);
    other = probe_of(many, MANY, "both", false);
    other.change_count--;
    assert_refused(fkv_probe_run(&prober, &other, &err), "changes, found");
    fkv_probe_free(&other), fkv_probe_free(&whole), fkv_probe_free(&first), fkv_probe_free(&rest);
}

/* ---- states ---- */

/* Un-rotated states of all heads: [HEADS, PREFIX, WIDTH] */
static void read_all(struct fixture *f, float *keys, float *values) {
    for (int h = 0; h < HEADS; h++) {
        struct fkv_slots at = {h / KV_HEADS, 0, h % KV_HEADS, 0, PREFIX, 0, 1};
        assert_ok(
            fkv_session_read_slots(f->session, &at, keys + h * STATE, values + h * STATE, &err));
    }
}

/* Filters and noise on one head: only the states asked for, only beyond the sinks, only in the
 * bands, with the energy asked for. */
TEST(changes_touch_what_they_name_and_nothing_else) {
    struct fixture *f = *state;
    static float before[2][HEADS * STATE], after[2][HEADS * STATE], difference[N * WIDTH],
        coefficients[N * WIDTH];
    const struct request requests[] = {{FKV_PROBE_OPTION_NOISE, "0.25:0.5:0.3"},
                                       {FKV_PROBE_OPTION_FILTER, "0:0.6"}};
    struct fkv_probe p = probe_of(requests, 2, "key,value", true);
    struct fkv_editor *editor;
    struct fkv_dct *dct;
    assert_ok(fkv_dct_create(N, &dct, &err));
    assert_ok(fkv_editor_open(f->model, PREFIX, SINKS, 11, &editor, &err));
    float *scratch = malloc(fkv_dct_scratch(dct) * sizeof *scratch);
    fkv_session_reset(f->session, 0);
    assert_ok(fkv_session_feed(f->session, f->tokens, PREFIX, &err));
    struct fkv_snapshot *snapshot;
    assert_ok(fkv_session_snapshot(f->session, &snapshot, &err));
    read_all(f, before[0], before[1]);
    for (int i = 1; i < p.change_count; i += test_between(1, 5)) {
        double lost[2];
        const struct fkv_probe_change *change = &p.changes[i];
        assert_ok(fkv_session_restore(f->session, snapshot, &err));
        assert_ok(fkv_editor_apply(editor, f->session, change, 5, lost, &err));
        read_all(f, after[0], after[1]);
        for (int h = 0; h < HEADS; h++)
            for (int s = 0; s < 2; s++) {
                const float *x = before[s] + h * STATE, *y = after[s] + h * STATE;
                bool touched =
                    (change->states >> s & 1) &&
                    (change->layer < 0 || h == change->layer * KV_HEADS + change->kv_head);
                assert_memory_equal(x, y, SINKS * WIDTH * sizeof *x);
                if (!touched) {
                    assert_memory_equal(x, y, STATE * sizeof *x);
                    continue;
                }
                double inside = 0, outside = 0, energy = 0;
                for (int j = 0; j < N * WIDTH; j++)
                    difference[j] = y[SINKS * WIDTH + j] - x[SINKS * WIDTH + j];
                fkv_dct_forward(dct, difference, WIDTH, WIDTH, coefficients, WIDTH, scratch);
                for (int j = 0; j < N * WIDTH; j++) {
                    bool in = fkv_probe_change_has(change, j / WIDTH, N) ==
                              (change->kind == FKV_PROBE_NOISE);
                    *(in ? &inside : &outside) += (double)coefficients[j] * coefficients[j];
                }
                fkv_dct_forward(dct, x + SINKS * WIDTH, WIDTH, WIDTH, coefficients, WIDTH, scratch);
                for (int j = WIDTH; j < N * WIDTH; j++)
                    energy += (double)coefficients[j] * coefficients[j];
                assert_true(outside < 1e-9 * energy);
                if (change->kind == FKV_PROBE_NOISE) assert_close(inside, 0.3 * energy, 0, 1e-5);
                if (change->layer >= 0) assert_close(inside, lost[s] * energy, 0, 1e-4);
            }
    }
    fkv_snapshot_free(snapshot);
    fkv_editor_close(editor);
    fkv_dct_destroy(dct);
    free(scratch);
    fkv_probe_free(&p);
}

/* ---- windows ---- */

TEST(windows_follow_one_another_and_short_texts_are_named) {
    struct fkv_corpus_document documents[] = {{.name = "short", .count = 99},
                                              {.name = "long", .offset = 99, .count = 350}};
    struct fkv_corpus corpus = {NULL, 449, documents, 2, NULL};
    struct fkv_probe_start *starts;
    int64_t count;
    assert_ok(fkv_probe_find_windows(&corpus, 60, 39, 9, &starts, &count, &err));
    assert_int_equal(count, 3);
    assert_int_equal(starts[2].document, 1);
    assert_int_equal(starts[2].offset, 200);
    free(starts);
    assert_refused(fkv_probe_find_windows(&corpus, 300, 50, 1, &starts, &count, &err),
                   "the longest, long, has 350");
}

TEST_GROUP(set_up, tear_down)
