/* What the analyzer's tests share: captures made of given states, the O(n^2) DCT in double, and one
 * measurement. */
#ifndef FKV_TESTS_MADE_CAPTURES_H
#define FKV_TESTS_MADE_CAPTURES_H

#include "analyze/measure/segments.h"
#include "analyze/measure/spectrum.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "tests/unit/support.h"

/* Value of one element of a recording. */
typedef double (*made_value)(int recording, enum fkv_state state, int layer, int64_t t, int head,
                             int channel);

/* A number in (0, 1) for each element: independent noise without storing it. */
static uint64_t made_seed;

static inline double made_uniform(int recording, int state, int layer, int64_t t, int head,
                                  int channel, int which) {
    uint64_t z =
        made_seed +
        (uint64_t)(((((recording * 5 + state) * 7 + layer) * 11 + head) * 300 + channel) * 2 +
                   which) *
            0x9e3779b97f4a7c15u +
        (uint64_t)t * 0xd1b54a32d192ed03u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

static inline double made_white(int recording, enum fkv_state state, int layer, int64_t t, int head,
                                int channel) {
    return sqrt(-2 * log(made_uniform(recording, state, layer, t, head, channel, 0))) *
           cos(6.283185307179586 * made_uniform(recording, state, layer, t, head, channel, 1));
}

/* Slow drift and a mean, with a little noise. */
static inline double made_drift(int recording, enum fkv_state state, int layer, int64_t t, int head,
                                int channel) {
    return 3 + 0.02 * (double)t * (channel % 3 - 1) +
           0.1 * made_white(recording, state, layer, t, head, channel);
}

struct made {
    int layers, heads, query_group, head_dim, recordings;
    int64_t tokens[32], offset[32];
    int document[32]; /* recordings with the same number are of one text */
    enum fkv_dtype dtype;
    uint32_t states;
    int trained_context;
    made_value value;
    const double *thetas;    /* [layers] of the rotation, 0: none; NULL: 10000, and one vector */
    const double *factors;   /* with thetas: [layers] on the turned channels */
    int turned;              /* with thetas: channels that turn */
    double softcap;          /* of scores; 0: none */
    const int *windows;      /* [layers], 0: none; NULL: none at all */
    const float *projection; /* W_O [layers, query heads, MADE_ROWS, head_dim], a few rows of each
                                head's columns; NULL: not in the capture */
};

enum { MADE_ROWS = 3 };

/* One recording of keys in float32. */
static inline struct made made_keys(int layers, int heads, int head_dim, int64_t tokens,
                                    made_value value) {
    return (struct made){.layers = layers,
                         .heads = heads,
                         .query_group = 1,
                         .head_dim = head_dim,
                         .recordings = 1,
                         .tokens = {tokens},
                         .dtype = FKV_F32,
                         .states = 1 << FKV_STATE_KEY,
                         .value = value};
}

static inline int made_heads(const struct made *m, int state) {
    return state == FKV_STATE_QUERY ? m->heads * m->query_group : m->heads;
}

/* A rotation per layer. */
static inline void made_rotations(const struct made *m, struct fkv_capture_info *info) {
    const int half = m->head_dim / 2;
    free(info->inv_freq);
    info->rotation_per_layer = true;
    info->rotary_dim = m->turned;
    info->inv_freq = calloc((size_t)(m->layers * half), sizeof(double));
    info->attention_factor = calloc((size_t)m->layers, sizeof(double));
    for (int layer = 0; layer < m->layers; layer++) {
        info->attention_factor[layer] = m->factors[layer];
        for (int i = 0; m->thetas[layer] > 0 && i < m->turned / 2; i++)
            info->inv_freq[layer * half + i] = pow(m->thetas[layer], -2.0 * i / m->turned);
    }
}

static inline void made_info(const struct made *m, struct fkv_capture_info *info) {
    *info = (struct fkv_capture_info){.n_layers = m->layers,
                                      .n_heads = m->heads * m->query_group,
                                      .n_kv_heads = m->heads,
                                      .head_dim = m->head_dim,
                                      .layer_count = m->layers,
                                      .head_count = m->heads,
                                      .rope_theta = 10000,
                                      .attention_scale = 0.5,
                                      .trained_context = m->trained_context,
                                      .dtype = m->dtype,
                                      .states = m->states};
    info->model_name = strdup("made");
    info->rope_scaling = strdup("null");
    info->backend = strdup("cpu");
    info->options = strdup("{}");
    info->layer_index = calloc((size_t)m->layers, sizeof(int32_t));
    info->head_index = calloc((size_t)m->heads, sizeof(int32_t));
    info->inv_freq = calloc((size_t)(m->head_dim / 2 + 1), sizeof(double));
    for (int i = 0; i < m->head_dim / 2; i++)
        info->inv_freq[i] = pow(10000, -2.0 * i / m->head_dim);
    if (m->thetas) made_rotations(m, info);
    info->attention_softcap = m->softcap;
    if (m->windows) info->layer_window = calloc((size_t)m->layers, sizeof(int32_t));
    for (int i = 0; m->windows && i < m->layers; i++) info->layer_window[i] = m->windows[i];
    for (int i = 0; i < m->layers; i++) info->layer_index[i] = i;
    for (int i = 0; i < m->heads; i++) info->head_index[i] = i;
}

static inline void made_write_recording(const struct made *m, struct fkv_capture_writer *w, int r) {
    struct fkv_recording recording = {.n_tokens = m->tokens[r], .offset = m->offset[r]};
    snprintf(recording.name, sizeof recording.name, "text %d", m->document[r]);
    memset(recording.text_sha256, 'a' + m->document[r] % 6, 64);
    int32_t *tokens = calloc((size_t)m->tokens[r], sizeof *tokens);
    assert_ok(fkv_capture_begin(w, r, &recording, tokens, &err));
    for (int state = 0; state < FKV_STATES; state++) {
        if (!(m->states >> state & 1)) continue;
        int heads = made_heads(m, state);
        float *x = malloc((size_t)m->tokens[r] * (size_t)(heads * m->head_dim) * sizeof *x), *to;
        void *stored = malloc((size_t)m->tokens[r] * (size_t)(heads * m->head_dim) *
                              fkv_dtype_bytes(m->dtype));
        for (int layer = 0; layer < m->layers; layer++) {
            to = x;
            for (int64_t t = 0; t < m->tokens[r]; t++)
                for (int h = 0; h < heads; h++)
                    for (int c = 0; c < m->head_dim; c++)
                        *to++ = (float)m->value(r, (enum fkv_state)state, layer, t, h, c);
            fkv_from_f32(x, m->dtype, (size_t)(to - x), stored);
            assert_ok(fkv_capture_write_rows(w, (enum fkv_state)state, layer, 0,
                                             (int32_t)m->tokens[r], stored, &err));
        }
        free(x);
        free(stored);
    }
    assert_ok(fkv_capture_commit(w, &err));
    free(tokens);
}

static inline void made_write_projection(const struct made *m, struct fkv_capture_writer *w) {
    const size_t heads = (size_t)(m->layers * m->heads * m->query_group), d = (size_t)m->head_dim;
    float *gram = calloc(heads * d * d, sizeof *gram);
    for (size_t i = 0; i < heads * MADE_ROWS; i++)
        for (size_t a = 0; a < d; a++)
            for (size_t b = 0; b < d; b++)
                gram[(i / MADE_ROWS * d + a) * d + b] +=
                    m->projection[i * d + a] * m->projection[i * d + b];
    assert_ok(fkv_capture_write_output_gram(w, gram, &err));
    free(gram);
}

static inline void made_write(const struct made *m, const char *folder) {
    struct fkv_capture_info info;
    struct fkv_capture_writer *w;
    made_info(m, &info);
    assert_ok(fkv_capture_create(folder, &info, false, &w, &err));
    if (m->projection) made_write_projection(m, w);
    for (int r = 0; r < m->recordings; r++) made_write_recording(m, w, r);
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
    fkv_capture_info_free(&info);
}

/* Spectrum of one state of the capture at `path`. */
static inline int made_measure(const char *path, enum fkv_state state, int length, int skip,
                               bool null, struct fkv_spectrum *out, struct fkv_error *err) {
    struct fkv_capture *capture = NULL;
    struct fkv_segment_plan plan = {0};
    struct fkv_workers workers = {0};
    *out = (struct fkv_spectrum){0};
    int status = fkv_capture_open(path, &capture, err);
    if (!status) status = fkv_spectrum_plan(capture, length, skip, &plan, err);
    if (!status) status = fkv_workers_open(&workers, "cpu", 0, test_between(1, 3), NULL, err);
    if (!status) {
        struct fkv_measurement m = {
            .capture = capture, .plan = &plan, .workers = &workers, .null = null};
        status = fkv_spectrum_measure(&m, state, out, err);
    }
    fkv_workers_close(&workers);
    fkv_segment_plan_free(&plan);
    fkv_capture_close(capture);
    return status;
}

/* Orthonormal DCT-II coefficient t of x [n] */
static inline double dct_coefficient(const double *x, int n, int t) {
    double sum = 0;
    for (int j = 0; j < n; j++) sum += x[j] * cos(acos(-1) * t * (j + 0.5) / n);
    return sum * sqrt((t ? 2.0 : 1.0) / n);
}

#endif
