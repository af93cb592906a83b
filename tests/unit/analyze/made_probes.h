/* What the tests of `link` and `plot` share: probes and run files made of given numbers. */
#ifndef FKV_TESTS_MADE_PROBES_H
#define FKV_TESTS_MADE_PROBES_H

#include "capture/store/h5.h"
#include "capture/store/probe.h"
#include "tests/unit/support.h"

struct made_probe {
    int layers, heads, head_dim, prefix, score, sinks, windows;
    int states;           /* of the changes */
    double low, high;     /* the band that stays */
    int model, text;      /* which; 0 is that of made captures */
    double noise;         /* standard deviation of a token's own difference */
    const double *damage; /* [layers, heads] mean of delta nll and of KL */
};

static inline void made_hash(fkv_sha256_hex out, char digit) {
    memset(out, digit, 64);
    out[64] = 0;
}

static inline struct fkv_probe_change made_change(enum fkv_probe_kind kind, int family, int layer,
                                                  int head, int states, const char *label) {
    struct fkv_probe_change c = fkv_probe_change_of(kind);
    c.family = family, c.layer = layer, c.kv_head = head, c.states = states;
    snprintf(c.label, sizeof c.label, "%s", label);
    return c;
}

/* The empty change, FreqKV whole, the filter on all heads, then on each. */
static inline void made_write_probe(const struct made_probe *m, const char *path) {
    struct fkv_probe p = {.layers = m->layers,
                          .kv_heads = m->heads,
                          .head_dim = m->head_dim,
                          .trained_context = m->prefix + m->score + 1,
                          .prefix = m->prefix,
                          .score = m->score,
                          .sinks = m->sinks,
                          .noise_floor_nll = 1e-7,
                          .change_count = 3 + m->layers * m->heads};
    char label[64];
    snprintf(p.model_name, sizeof p.model_name, "made");
    snprintf(p.states, sizeof p.states, "key,value");
    snprintf(p.backend, sizeof p.backend, "cpu");
    snprintf(p.cache_dtype, sizeof p.cache_dtype, "f32");
    p.command = strdup("made");
    made_hash(p.model_sha256, (char)('1' + m->model));
    snprintf(label, sizeof label, "filter %g:%g, %s", m->low, m->high,
             m->states == 1   ? "key"
             : m->states == 2 ? "value"
                              : "both");
    p.changes = calloc((size_t)p.change_count, sizeof *p.changes);
    p.changes[0] = made_change(FKV_PROBE_NONE, 0, -1, -1, 0, "nothing");
    p.changes[1] = made_change(FKV_PROBE_FREQKV, 1, -1, -1, 3, "freqkv 0.5");
    p.changes[1].option = FKV_PROBE_OPTION_FREQKV;
    p.changes[1].gamma = 0.5,
    p.changes[1].truncation = p.changes[1].squeezed = p.changes[1].fewer = 1;
    for (int i = 2; i < p.change_count; i++) {
        int at = i - 3;
        p.changes[i] = made_change(FKV_PROBE_FILTER, 2, at < 0 ? -1 : at / m->heads,
                                   at < 0 ? -1 : at % m->heads, m->states, label);
        p.changes[i].option = FKV_PROBE_OPTION_FILTER;
        p.changes[i].band_count = 1;
        p.changes[i].bands[0] = (struct fkv_probe_band){m->low, m->high};
    }
    p.windows = calloc((size_t)m->windows, sizeof *p.windows);
    p.window_count = m->windows;
    for (int w = 0; w < m->windows; w++) {
        struct fkv_probe_window *window = &p.windows[w];
        assert_ok(fkv_probe_window_create(&p, window, &err));
        snprintf(window->name, sizeof window->name, "text %d", m->text);
        made_hash(window->text_sha256, (char)('a' + m->text));
        window->document = 0, window->offset = w * m->score;
        window->token_class = calloc((size_t)(m->prefix + m->score + 1), 1);
        for (int i = 0; i < m->prefix + m->score + 1; i++)
            window->tokens[i] = i % 7, window->token_class[i] = (uint8_t)(1 << i % 4);
        for (int i = 0; i < m->score; i++) {
            window->untouched_nll[i] = window->repeat_nll[i] = 2, window->repeat_kl[i] = 0;
            for (int c = 0; c < p.change_count; c++) {
                double damage = c < 3 ? 0.01 * c : m->damage[c - 3];
                window->nll[c * m->score + i] =
                    (float)(2 + damage + (c ? m->noise * test_normal() : 0));
                window->kl[c * m->score + i] =
                    (float)(c ? fmax(0, damage + m->noise * test_normal()) : 0);
            }
        }
    }
    assert_ok(fkv_probe_write(path, &p, p.windows, p.window_count, &err));
    fkv_probe_free(&p);
}

struct made_run {
    int layers, heads, head_dim, window, sinks, retained, tokens, model, text;
    double damage;     /* mean delta nll of scored tokens after the first compression */
    int recent;        /* slots that stay uncompressed: an own option of the policy */
    const char *cache; /* its dtype; NULL: not said */
    bool streaming;    /* a policy that has no ratio and evicts at every token */
};

static inline void made_put_run(struct fkv_h5_writer *w, const struct made_run *m) {
    fkv_sha256_hex sha;
    char label[64], options[64];
    snprintf(label, sizeof label,
             m->streaming ? "streaming"
             : m->recent  ? "freqkv, recent %d"
                          : "freqkv",
             m->recent);
    snprintf(options, sizeof options, "recent=%d", m->recent);
    made_hash(sha, (char)('1' + m->model));
    const char *const texts[][2] = {{"format", "freqkv-run"},
                                    {"model_name", "made"},
                                    {"model_sha256", sha},
                                    {"policy", m->streaming ? "streaming" : "freqkv"},
                                    {"protocol", "whole"},
                                    {"baseline", "full"},
                                    {"policy_label", label},
                                    {"policy_options", options},
                                    {"cache_dtype", m->cache ? m->cache : ""}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_ok(fkv_h5_put_string(w, "/", texts[i][0], texts[i][1], &err));
    const struct {
        const char *name;
        int value;
    } integers[] = {
        {"format_version", 2},       {"n_layers", m->layers},
        {"n_kv_heads", m->heads},    {"head_dim", m->head_dim},
        {"window", m->window},       {"sinks", m->sinks},
        {"low_pass", !m->streaming}, {"compressible", m->window - m->sinks - m->recent}};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        assert_ok(fkv_h5_put_int(w, "/", integers[i].name, integers[i].value, &err));
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"gamma", m->streaming ? NAN : (m->retained + 0.5) / (m->window - m->sinks - m->recent)},
        {"mean_nll", 3 + m->damage},
        {"mean_nll_se", 0.1},
        {"delta_nll", m->damage},
        {"delta_nll_se", 0.01},
        {"kl", m->damage}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_ok(fkv_h5_put_double(w, "/", numbers[i].name, numbers[i].value, &err));
}

/* One document; compressions every 16 tokens from the window on. */
static inline void made_write_run(const struct made_run *m, const char *path) {
    struct fkv_h5_writer *w;
    fkv_sha256_hex sha;
    int64_t tokens = m->tokens, heads = m->layers * m->heads,
            rounds = (m->tokens - m->window) / 16 + 1, rows = m->streaming ? 0 : rounds * heads * 2;
    assert_ok(fkv_h5_create(path, &w, &err));
    made_put_run(w, m);
    made_hash(sha, (char)('a' + m->text));
    int32_t *ids = calloc((size_t)(4 * rows + tokens + heads), sizeof *ids);
    float *columns = calloc(5 * (size_t)tokens, sizeof *columns);
    for (int64_t t = 0; t < tokens; t++) {
        int64_t round = t < m->window ? 0 : 1 + (t - m->window) / 16;
        double delta = round ? m->damage * (double)tokens / (double)(tokens - m->window) : 0;
        columns[t] = t ? (float)(3 + delta) : NAN;
        columns[tokens + t] = (float)round,
                         columns[2 * tokens + t] = round ? (float)(1 + (t - m->window) % 16) : NAN;
        columns[3 * tokens + t] = t ? 3 : NAN, columns[4 * tokens + t] = t ? (float)delta : NAN;
    }
    static const char *const names[] = {"nll", "round", "since_compression", "baseline_nll", "kl"};
    assert_ok(fkv_h5_put(w, "/documents/000000/tokens", FKV_H5_I32, 1, &tokens, ids, &err));
    assert_ok(fkv_h5_put_string(w, "/documents/000000", "name", "text 0", &err));
    assert_ok(fkv_h5_put_string(w, "/documents/000000", "text_sha256", sha, &err));
    for (int i = 0; i < 5; i++) {
        char dataset[64];
        snprintf(dataset, sizeof dataset, "/documents/000000/%s", names[i]);
        assert_ok(fkv_h5_put(w, dataset, FKV_H5_F32, 1, &tokens, columns + i * tokens, &err));
    }
    double *energy = calloc(2 * (size_t)rows, sizeof *energy);
    uint8_t *state = calloc((size_t)rows, 1);
    for (int64_t i = 0; i < rows; i++) {
        int64_t head = i / 2 % heads;
        ids[i] = (int32_t)(head / m->heads), ids[rows + i] = (int32_t)(head % m->heads);
        ids[2 * rows + i] = (int32_t)(1 + i / 2 / heads), state[i] = i % 2;
        energy[i] = 10, energy[rows + i] = 9 - 0.1 * (double)(i / 2 / heads);
    }
    assert_ok(fkv_h5_put(w, "/compressions/layer", FKV_H5_I32, 1, &rows, ids, &err));
    assert_ok(fkv_h5_put(w, "/compressions/head", FKV_H5_I32, 1, &rows, ids + rows, &err));
    assert_ok(fkv_h5_put(w, "/compressions/round", FKV_H5_I32, 1, &rows, ids + 2 * rows, &err));
    assert_ok(fkv_h5_put(w, "/compressions/state", FKV_H5_U8, 1, &rows, state, &err));
    assert_ok(fkv_h5_put(w, "/compressions/energy_before", FKV_H5_F64, 1, &rows, energy, &err));
    assert_ok(
        fkv_h5_put(w, "/compressions/energy_kept", FKV_H5_F64, 1, &rows, energy + rows, &err));
    for (int64_t i = 0; i < heads; i++) ids[i] = m->retained;
    const int64_t dims[2] = {m->layers, m->heads};
    if (!m->streaming) assert_ok(fkv_h5_put(w, "/retained", FKV_H5_I32, 2, dims, ids, &err));
    assert_ok(fkv_h5_commit(w, &err));
    free(ids), free(columns), free(energy), free(state);
}

#endif
