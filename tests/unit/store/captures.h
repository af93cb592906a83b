/* What the store's tests share: a random capture, its states, writing it, comparing what is read
 * back. */
#ifndef FKV_TESTS_CAPTURES_H
#define FKV_TESTS_CAPTURES_H

#include "capture/store/capture.h"
#include "capture/store/capture_writer.h"
#include "tests/unit/support.h"

struct sample {
    struct fkv_capture_info info;
    struct fkv_recording recording;
    int32_t *tokens;
    float *nll;
    uint8_t *classes;
    float *states[FKV_STATES]; /* [layers, T, heads, head_dim]: as a model makes them */
};

static inline int32_t sample_heads(const struct fkv_capture_info *info, int state) {
    return state == FKV_STATE_QUERY ? info->head_count * (info->n_heads / info->n_kv_heads)
                                    : info->head_count;
}

/* A made-up model; every second layer and all heads but the first are captured where there are
 * several. */
static inline void sample_info(struct fkv_capture_info *info, enum fkv_dtype dtype,
                               uint32_t states) {
    *info = (struct fkv_capture_info){.n_layers = test_between(1, 5),
                                      .n_kv_heads = test_between(1, 4),
                                      .head_dim = 2 * test_between(1, 20),
                                      .rope_theta = 10000,
                                      .attention_scale = 0.25,
                                      .trained_context = 4096,
                                      .adds_bos = true,
                                      .dtype = dtype,
                                      .states = states};
    info->n_heads = info->n_kv_heads * test_between(1, 3);
    info->model_name = strdup("made-up \xc3\xa9");
    info->rope_scaling = strdup("null");
    info->backend = strdup("cpu");
    info->compute = strdup("f32");
    info->options = strdup("{\"states\":\"key,value\"}");
    memset(info->model_sha256, 'a', 64);
    memset(info->config_sha256, '7', 64);
    memset(info->tokenizer_sha256, '5', 64);
    info->layer_index = calloc(5, sizeof(int32_t));
    info->head_index = calloc(4, sizeof(int32_t));
    for (int i = 0; i < info->n_layers; i += 2) info->layer_index[info->layer_count++] = i;
    for (int i = info->n_kv_heads > 1; i < info->n_kv_heads; i++)
        info->head_index[info->head_count++] = i;
    info->inv_freq = calloc((size_t)info->head_dim / 2, sizeof(double));
    for (int i = 0; i < info->head_dim / 2; i++)
        info->inv_freq[i] = pow(10000, -2.0 * i / info->head_dim);
}

static inline void sample_fill(struct sample *s, int64_t n_tokens, char hash) {
    s->recording =
        (struct fkv_recording){.n_tokens = n_tokens, .offset = test_between(0, 3) * 1000};
    snprintf(s->recording.name, sizeof s->recording.name, "a text %c.txt", hash);
    memset(s->recording.text_sha256, hash, 64);
    s->tokens = malloc((size_t)n_tokens * sizeof(int32_t));
    s->nll = malloc((size_t)n_tokens * sizeof(float));
    s->classes = malloc((size_t)n_tokens);
    for (int64_t i = 0; i < n_tokens; i++) s->tokens[i] = test_between(0, 50000);
    for (int64_t i = 0; i < n_tokens; i++) s->classes[i] = (uint8_t)test_between(0, 127);
    test_fill(s->nll, (size_t)n_tokens, 3, 1);
    s->nll[0] = NAN;
    for (int state = 0; state < FKV_STATES; state++) {
        size_t n = (size_t)s->info.layer_count * (size_t)n_tokens *
                   (size_t)sample_heads(&s->info, state) * (size_t)s->info.head_dim;
        s->states[state] = malloc(n * sizeof(float));
        test_fill(s->states[state], n, 0.3, 2);
    }
}

static inline void sample_make(struct sample *s, enum fkv_dtype dtype, uint32_t states,
                               int64_t n_tokens, char hash) {
    sample_info(&s->info, dtype, states);
    sample_fill(s, n_tokens, hash);
}

static inline void sample_free_states(struct sample *s) {
    free(s->tokens);
    free(s->nll);
    free(s->classes);
    for (int state = 0; state < FKV_STATES; state++) free(s->states[state]);
}

static inline void sample_free(struct sample *s) {
    sample_free_states(s);
    fkv_capture_info_free(&s->info);
}

static inline const float *sample_rows(const struct sample *s, int state, int32_t layer,
                                       int64_t t) {
    return s->states[state] + ((size_t)layer * (size_t)s->recording.n_tokens + (size_t)t) *
                                  (size_t)sample_heads(&s->info, state) * (size_t)s->info.head_dim;
}

/* Rows [t, t+rows) of one layer, in the capture's dtype. */
static inline int sample_write_rows(const struct sample *s, struct fkv_capture_writer *w,
                                    enum fkv_state state, int32_t layer, int64_t t, int32_t rows,
                                    struct fkv_error *err) {
    size_t n = (size_t)rows * (size_t)sample_heads(&s->info, (int)state) * (size_t)s->info.head_dim;
    void *x = malloc(n * fkv_dtype_bytes(s->info.dtype));
    fkv_from_f32(sample_rows(s, (int)state, layer, t), s->info.dtype, n, x);
    int status = fkv_capture_write_rows(w, state, layer, t, rows, x, err);
    free(x);
    return status;
}

/* Blocks of `block` tokens through all layers, as a model feeds them. */
static inline int sample_write(const struct sample *s, struct fkv_capture_writer *w, int64_t index,
                               int32_t block, struct fkv_error *err) {
    if (fkv_capture_begin(w, index, &s->recording, s->tokens, err)) return FKV_FAILED;
    for (int64_t t = 0; t < s->recording.n_tokens; t += block) {
        int32_t rows =
            s->recording.n_tokens - t < block ? (int32_t)(s->recording.n_tokens - t) : block;
        for (int32_t layer = 0; layer < s->info.layer_count; layer++)
            for (int state = 0; state < FKV_STATES; state++)
                if (((s->info.states >> state) & 1) &&
                    sample_write_rows(s, w, state, layer, t, rows, err))
                    return FKV_FAILED;
    }
    if (fkv_capture_write_token_class(w, s->classes, err) || fkv_capture_write_nll(w, s->nll, err))
        return FKV_FAILED;
    return fkv_capture_commit(w, err);
}

/* One capture with one recording at FOLDER. */
static inline void sample_save(const struct sample *s, const char *folder, int32_t block) {
    struct fkv_capture_writer *w;
    assert_ok(fkv_capture_create(folder, &s->info, false, &w, &err));
    assert_ok(sample_write(s, w, 0, block, &err));
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
}

static inline bool same_files(const char *a, const char *b) {
    char command[1200];
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", a, b);
    return system(command) == 0;
}

#endif
