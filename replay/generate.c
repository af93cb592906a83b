/* Greedy and temperature sampling over full distributions; no top-k or top-p: what is studied here is the cache. */
#include "replay/generate.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/progress.h"

enum { BLOCK = 512 };

int32_t fkv_sample(const float *logits, int32_t vocab, double temperature, struct fkv_random *random) {
    int32_t top = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (isnan(logits[i])) return -1;
        if (logits[i] > logits[top]) top = i;
    }
    if (!isfinite(logits[top])) return -1;
    if (temperature == 0) return top;
    double sum = 0, passed = 0;
    for (int32_t i = 0; i < vocab; i++) sum += exp(((double)logits[i] - logits[top]) / temperature);
    double u = fkv_random_uniform(random) * sum;
    int32_t last = top; /* rounding may leave u beyond the end: then the last id that has any mass */
    for (int32_t i = 0; i < vocab; i++) {
        double mass = exp(((double)logits[i] - logits[top]) / temperature);
        passed += mass;
        if (mass > 0) last = i;
        if (passed > u) return i;
    }
    return last;
}

void fkv_generation_free(struct fkv_generation *g) {
    free(g->ids);
    *g = (struct fkv_generation){0};
}

static int append(struct fkv_generation *g, int32_t id, struct fkv_error *err) {
    if (g->count == g->room) {
        int64_t room = g->room ? 2 * g->room : 256;
        int32_t *larger = realloc(g->ids, (size_t)room * sizeof *larger);
        if (!larger) return fkv_fail(err, "out of memory for %lld generated tokens", (long long)room);
        g->ids = larger;
        g->room = room;
    }
    g->ids[g->count++] = id;
    return FKV_OK;
}

static int prefill(struct fkv_session *s, const int32_t *prompt, int64_t count, int32_t *last_rows,
                   struct fkv_error *err) {
    for (int64_t fed = 0; fed < count; fed += *last_rows) {
        *last_rows = count - fed < BLOCK ? (int32_t)(count - fed) : BLOCK;
        if (fkv_session_feed(s, prompt + fed, *last_rows, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

/* Samples from the last row, until the count is reached or EOS comes. */
static int decode(struct fkv_session *s, int32_t row, int64_t tokens, double temperature, struct fkv_random *random,
                  float *logits, fkv_generation_watcher *watch, void *context, struct fkv_generation *g,
                  struct fkv_error *err) {
    const struct fkv_config *config = &fkv_session_model(s)->config;
    for (; g->count < tokens; row = 0) {
        if (fkv_session_logits(s, row, 1, logits, err)) return FKV_FAILED;
        int32_t id = fkv_sample(logits, config->vocab, temperature, random);
        if (id < 0) return fkv_fail(err, "token %lld: logits are not finite", (long long)fkv_session_tokens(s, 0));
        if ((g->ended = id == config->eos)) return FKV_OK;
        if (append(g, id, err) || (watch && watch(context, g, err))) return FKV_FAILED;
        if (g->count < tokens && fkv_session_feed(s, &id, 1, err)) return FKV_FAILED;
    }
    return FKV_OK;
}

int fkv_generate(struct fkv_session *s, const int32_t *prompt, int64_t count, int64_t tokens, double temperature,
                 uint64_t seed, fkv_generation_watcher *watch, void *context, struct fkv_generation *g,
                 struct fkv_error *err) {
    struct fkv_random random = {seed};
    *g = (struct fkv_generation){0};
    float *logits = malloc((size_t)fkv_session_model(s)->config.vocab * sizeof *logits);
    if (!logits) return fkv_fail(err, "out of memory for logits");
    fkv_session_reset(s, 0);
    double started = fkv_seconds();
    int32_t last_rows = 0;
    int status = prefill(s, prompt, count, &last_rows, err);
    g->prefill_seconds = fkv_seconds() - started;
    if (!status) status = decode(s, last_rows - 1, tokens, temperature, &random, logits, watch, context, g, err);
    g->decode_seconds = fkv_seconds() - started - g->prefill_seconds;
    free(logits);
    if (status) fkv_generation_free(g);
    return status;
}
