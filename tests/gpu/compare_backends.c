/* One backend against another through the whole engine: logits, keys, values and perplexity of the
 * same tokens, and the properties of the method on the second.
 *
 *   compare_backends [--model DIR] [--text FILE] [--tokens N] [--compute native|f32|bf16]
 *   [--cache-dtype f32|f16|bf16] [--slack F] EXPECTED TESTED
 *
 * EXPECTED (cpu, as a rule) computes in float32. Without --text the tokens are random and their
 * seed is printed (FKV_TEST_SEED repeats it).
 *
 * Limits. In float32 throughout, logits, keys and values differ by less than 1e-4 in absolute
 * terms, perplexity by less than 1e-4 of it, and two ways through the tested backend by less than
 * 1e-4: both sides round after 24 bits, and logits of up to 20 carry errors of about 1e-5. With
 * 16-bit products or a 16-bit cache, every product rounds its activations to 8 bits (u = 2^-9;
 * weights of a bf16 checkpoint are exact) and accumulates in float32. Roundings are independent, so
 * a product's result is off by about u/sqrt(3) of its size whatever its length, and k roundings in
 * a row by sqrt(k) of that. A layer has eight: norm into QKV, query, key, probabilities, value,
 * attention's result, norm into gate and up, their product. The limit on the relative root mean
 * square of logits, keys and values is e = u sqrt(8 layers + 2), the worst case per rounding in
 * place of the mean one, times --slack: with random weights scores are large, and softmax turns an
 * error relative to a score into one that is larger by the score itself. (On an emulated device the
 * embedded model stays at a quarter of e, the models of tests/golden reach twice e.) f16 is held to
 * the same limit, though it is eight times finer. The same number in nats bounds the mean nll's
 * difference: errors of the logits average out to first order. */
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/session/session.h"
#include "engine/session/taps.h"
#include "engine/text/tokenizer.h"

enum { BLOCK = 128, SIDE_BY_SIDE = 3, SITES = 2, LEAST_TOKENS = 40 };
enum { PREFILL = 14, SELECTED = 9 /* slots */ }; /* of policies that select */
static const enum fkv_site sites[SITES] = {FKV_SITE_KEY, FKV_SITE_VALUE};

struct options {
    const char *model, *text, *names[2];
    int32_t tokens;
    double slack;
    enum fkv_compute compute;
    enum fkv_dtype cache_dtype;
};

struct side {
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    struct fkv_model *model;
    enum fkv_dtype cache_dtype;
};

/* What one pass over the tokens gave. */
struct pass {
    float *logits;        /* [count, vocab] */
    float *states[SITES]; /* [layers, count, kv_heads * head_dim] */
    double nll;           /* mean over all but the last token, which has no target */
    int32_t count;
};

struct recording {
    const struct side *side;
    struct pass *pass;
    void *fetched; /* [BLOCK, kv_heads * head_dim], the backend's host memory */
};

static struct fkv_error err;
static int failures;
static char table[] = "/tmp/compare_backends_XXXXXX"; /* of policies, for `mixed` */

static void must(int status) {
    if (status == FKV_OK) return;
    fprintf(stderr, "compare_backends: %s\n", err.message);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) must(fkv_fail(&err, "%zu bytes are not to be had", bytes));
    return p;
}

/* ---- passes ---- */
static size_t state_width(const struct side *side) {
    return (size_t)side->model->config.kv_heads * (size_t)side->model->config.head_dim;
}

static int keep_states(void *context, const struct fkv_tap_event *event, struct fkv_error *e) {
    struct recording *r = context;
    const struct fkv_backend_ops *ops = r->side->ops;
    size_t width = state_width(r->side);
    uint64_t ticket;
    if (ops->fetch(r->side->backend, event->states, event->offset, width, event->rows,
                   (int32_t)width, FKV_F32, r->fetched, &ticket, e) ||
        ops->fetch_wait(r->side->backend, ticket, e))
        return FKV_FAILED;
    float *states = r->pass->states[event->site == FKV_SITE_VALUE];
    size_t row = (size_t)event->layer * (size_t)r->pass->count + (size_t)event->token;
    memcpy(states + row * width, r->fetched, (size_t)event->rows * width * sizeof *states);
    return FKV_OK;
}

/* Every layer and KV head in turn under one of three policies, with a ratio of its own. */
static void write_table(const struct fkv_config *c) {
    static const char *const names[] = {"freqkv", "streaming", "local"};
    const int file = mkstemp(table);
    FILE *f = file < 0 ? NULL : fdopen(file, "w");
    if (!f) must(fkv_fail(&err, "%s: cannot be written", table));
    for (int field = 0; field < 2; field++) {
        fprintf(f, "%s[", field ? "], \"gamma\": " : "{\"policy\": ");
        for (int32_t h = 0; h < c->layers * c->kv_heads; h++) {
            fputs(h % c->kv_heads ? ", " : h ? "], [" : "[", f);
            if (field)
                fprintf(f, "%g", 0.25 + 0.125 * (h % 5));
            else
                fprintf(f, "\"%s\"", names[h % 3]);
        }
        fputs("]", f);
    }
    fputs("]}\n", f);
    fclose(f);
}

/* A policy that selects keeps `window` slots at the end of blocks of PREFILL tokens. */
static struct fkv_session *open_session(const struct side *side, const char *policy, int32_t window,
                                        int32_t sequences, int64_t max_tokens) {
    struct fkv_session *s;
    const struct fkv_policy *row = fkv_policy_find(policy, &err);
    struct fkv_policy_options p = {
        .name = policy, .budget = window, .sinks = 4, .prefill_block = PREFILL};
    if (row->takes_table)
        p.own[0] = (struct fkv_own_value){.name = row->options[FKV_TABLE].name, .text = table};
    for (const struct fkv_policy_option *o = row->options; o && o->name; o++)
        if (!strcmp(o->name, "observe"))
            p.own[0] = (struct fkv_own_value){.name = o->name, .value = 4};
    const struct fkv_session_options o = {.block = BLOCK * sequences,
                                          .sequences = sequences,
                                          .max_tokens = max_tokens,
                                          .cache_dtype = side->cache_dtype};
    must(fkv_session_open(side->model, &p, &o, &s, &err));
    for (int32_t i = 0; i < sequences; i++) fkv_session_set_prefill(s, i, PREFILL, max_tokens);
    return s;
}

static void feed_blocks(struct fkv_session *s, const int32_t *tokens, int32_t count, int32_t block,
                        float *logits, double *nll) {
    size_t vocab = (size_t)fkv_session_model(s)->config.vocab;
    for (int32_t at = 0; at < count; at += block) {
        int32_t rows = count - at < block ? count - at : block;
        must(fkv_session_feed(s, tokens + at, rows, &err));
        must(fkv_session_logits(s, 0, rows, logits + (size_t)at * vocab, &err));
        int32_t scored = at + rows < count ? rows : rows - 1;
        double each[BLOCK];
        if (!nll || !scored) continue;
        must(fkv_session_score(s, 0, scored, tokens + at + 1, each, NULL, &err));
        for (int32_t i = 0; i < scored; i++) *nll += each[i] / (count - 1);
    }
}

/* Logits [count, vocab] of one timeline. */
static float *logits_of(const struct side *side, const char *policy, int32_t window,
                        const int32_t *tokens, int32_t count, int32_t block) {
    float *logits = allocate((size_t)count * (size_t)side->model->config.vocab * sizeof *logits);
    struct fkv_session *s = open_session(side, policy, window, 1, count);
    feed_blocks(s, tokens, count, block, logits, NULL);
    fkv_session_close(s);
    return logits;
}

static struct pass run_pass(const struct side *side, const char *policy, int32_t window,
                            const int32_t *tokens, int32_t count) {
    size_t states =
        (size_t)side->model->config.layers * (size_t)count * state_width(side) * sizeof(float);
    struct pass pass = {
        .logits = allocate((size_t)count * (size_t)side->model->config.vocab * sizeof(float)),
        .states = {allocate(states), allocate(states)},
        .count = count};
    struct recording r = {.side = side, .pass = &pass};
    struct fkv_session *s = open_session(side, policy, window, 1, count);
    must(side->ops->host_create(side->backend, BLOCK * state_width(side) * sizeof(float),
                                &r.fetched, &err));
    for (int i = 0; i < SITES; i++) fkv_session_tap(s, sites[i], keep_states, &r);
    feed_blocks(s, tokens, count, BLOCK, pass.logits, &pass.nll);
    fkv_session_close(s);
    side->ops->host_release(side->backend, r.fetched);
    return pass;
}

static void pass_free(struct pass *p) { free(p->logits), free(p->states[0]), free(p->states[1]); }

/* ---- comparisons ---- */
struct tolerance {
    bool exact; /* float32 throughout: `limit` bounds the largest difference, not the relative root
                   mean square */
    double limit; /* see above */
};

static void report(const char *what, const char *policy, double found, double limit) {
    bool good = found <= limit; /* NaN is not */
    failures += !good;
    printf("  %-46s %-9s %10.2e  limit %.1e  %s\n", what, policy, found, limit,
           good ? "ok" : "FAILED");
}

static void compare(const char *what, const char *policy, const float *found, const float *expected,
                    size_t n, struct tolerance t) {
    double largest = 0, distance = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)found[i] - expected[i]);
        if (!(d <= largest)) largest = d;
        distance += d * d, size += (double)expected[i] * expected[i];
    }
    report(what, policy, t.exact ? largest : sqrt(distance / size), t.limit);
}

static void compare_sides(const struct side sides[2], const char *policy, int32_t window,
                          const int32_t *tokens, int32_t count, struct tolerance t) {
    struct pass expected = run_pass(&sides[0], policy, window, tokens, count);
    struct pass found = run_pass(&sides[1], policy, window, tokens, count);
    const struct fkv_config *c = &sides[0].model->config;
    size_t states = (size_t)c->layers * (size_t)count * state_width(&sides[0]);
    compare("logits equal the other backend's", policy, found.logits, expected.logits,
            (size_t)count * (size_t)c->vocab, t);
    compare("keys equal the other backend's", policy, found.states[0], expected.states[0], states,
            t);
    compare("values equal the other backend's", policy, found.states[1], expected.states[1], states,
            t);
    printf("  perplexity %.6g, expected %.6g\n", exp(found.nll), exp(expected.nll));
    report("perplexity equals the other backend's", policy, fabs(expm1(found.nll - expected.nll)),
           t.limit);
    pass_free(&expected), pass_free(&found);
}

static void check_blocks(const struct side *side, const char *policy, int32_t window,
                         const int32_t *tokens, int32_t count, struct tolerance t) {
    size_t n = (size_t)count * (size_t)side->model->config.vocab;
    float *prefill = logits_of(side, policy, window, tokens, count, BLOCK);
    float *odd = logits_of(side, policy, window, tokens, count, 37);
    float *decoded = logits_of(side, policy, window, tokens, count, 1);
    compare("blocks of another size change nothing", policy, odd, prefill, n, t);
    compare("decoding equals prefill", policy, decoded, prefill, n, t);
    free(prefill), free(odd), free(decoded);
}

static void check_window(const struct side *side, const int32_t *tokens, int32_t count,
                         struct tolerance t) {
    float *full = logits_of(side, "full", 0, tokens, count, BLOCK);
    float *freqkv = logits_of(side, "freqkv", count, tokens, count, BLOCK);
    compare("up to the window it is full attention", "freqkv", freqkv, full,
            (size_t)count * (size_t)side->model->config.vocab, t);
    free(full), free(freqkv);
}

/* Texts of different lengths: the longest is prefilled while the shorter ones are already decoded,
 * then all are decoded. */
static void check_batch(const struct side *side, const char *policy, int32_t window,
                        const int32_t *tokens, int32_t count, struct tolerance t) {
    size_t vocab = (size_t)side->model->config.vocab;
    int32_t first[SIDE_BY_SIDE], length[SIDE_BY_SIDE], fed[SIDE_BY_SIDE] = {0};
    float *together[SIDE_BY_SIDE];
    for (int32_t i = 0; i < SIDE_BY_SIDE; i++) {
        first[i] = i * count / 7, length[i] = count - first[i];
        together[i] = allocate((size_t)length[i] * vocab * sizeof **together);
    }
    struct fkv_session *s = open_session(side, policy, window, SIDE_BY_SIDE, count);
    for (bool more = true; more;) {
        struct fkv_feed feeds[SIDE_BY_SIDE];
        int32_t n = 0, rows = 0;
        for (int32_t i = 0; i < SIDE_BY_SIDE; i++) {
            int32_t left = length[i] - fed[i],
                    most = fed[i] < length[i] / 2 ? 41 - 20 * (i % 2) : 1;
            if (left > 0)
                feeds[n++] =
                    (struct fkv_feed){i, tokens + first[i] + fed[i], left < most ? left : most};
        }
        more = n > 0;
        if (!more) break;
        must(fkv_session_feed_batch(s, feeds, n, &err));
        for (int32_t k = 0; k < n; rows += feeds[k++].count) {
            int32_t i = feeds[k].sequence;
            must(fkv_session_logits(s, rows, feeds[k].count, together[i] + (size_t)fed[i] * vocab,
                                    &err));
            fed[i] += feeds[k].count;
        }
    }
    fkv_session_close(s);
    for (int32_t i = 0; i < SIDE_BY_SIDE; i++) {
        char what[64];
        float *alone = logits_of(side, policy, window, tokens + first[i], length[i], BLOCK);
        snprintf(what, sizeof what, "document %d of %d side by side equals alone", i + 1,
                 SIDE_BY_SIDE);
        compare(what, policy, together[i], alone, (size_t)length[i] * vocab, t);
        free(alone), free(together[i]);
    }
}

static void check_snapshot(const struct side *side, const char *policy, int32_t window,
                           const int32_t *tokens, int32_t count, struct tolerance t) {
    int32_t at = count / 2, rest = count - at;
    size_t n = (size_t)rest * (size_t)side->model->config.vocab;
    float *first = allocate(n * sizeof *first), *again = allocate(n * sizeof *again);
    struct fkv_snapshot *snapshot;
    struct fkv_session *s = open_session(side, policy, window, 1, count);
    feed_blocks(s, tokens, at, 37, first, NULL); /* overwritten below */
    must(fkv_session_snapshot(s, &snapshot, &err));
    feed_blocks(s, tokens + at, rest, 37, first, NULL);
    must(fkv_session_restore(s, snapshot, &err));
    feed_blocks(s, tokens + at, rest, 37, again, NULL);
    compare("a restored session goes on as before", policy, again, first, n, t);
    fkv_snapshot_free(snapshot);
    fkv_session_close(s);
    free(first), free(again);
}

/* ---- input ---- */
static void random_tokens(int32_t *tokens, int32_t count, int32_t vocab) {
    const char *seed = getenv("FKV_TEST_SEED");
    uint64_t state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    printf("FKV_TEST_SEED=%llu\n", (unsigned long long)state);
    for (int32_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((state >> 33) % (uint64_t)vocab);
    }
}

static void text_tokens(const struct options *o, int32_t *tokens) {
    enum { ENOUGH = 1 << 20 };
    struct fkv_tokenizer *tokenizer;
    char *text = allocate(ENOUGH);
    int32_t *ids;
    size_t count, bytes;
    FILE *f = fopen(o->text, "rb");
    if (!f) must(fkv_fail(&err, "%s: cannot be read", o->text));
    bytes = fread(text, 1, ENOUGH, f);
    fclose(f);
    must(fkv_tokenizer_open(o->model, &tokenizer, &err));
    must(fkv_tokenizer_encode(tokenizer, text, bytes, true, &ids, &count, &err));
    if (count < (size_t)o->tokens)
        must(fkv_fail(&err, "%s: expected %d tokens, found %zu", o->text, o->tokens, count));
    memcpy(tokens, ids, (size_t)o->tokens * sizeof *tokens);
    fkv_tokenizer_close(tokenizer);
    free(ids), free(text);
}

static struct side open_side(const struct options *o, int which) {
    struct side side = {.cache_dtype = which ? o->cache_dtype : FKV_F32};
    struct fkv_device_info info;
    const struct fkv_backend_options options = {.compute = which ? o->compute : FKV_COMPUTE_NATIVE};
    must(fkv_backend_find(o->names[which], &side.ops, NULL, &err));
    must(side.ops->open(&options, &side.backend, &err));
    must(side.ops->info(side.backend, &info, &err));
    must(fkv_model_open(o->model, side.ops, side.backend,
                        &(struct fkv_model_options){.check_values = true}, &side.model, &err));
    printf("%s: %s on %s\n", which ? "tested" : "expected", side.ops->name, info.name);
    return side;
}

static error_t parse(int key, char *value, struct argp_state *state) {
    static const char *const computes[] = {"native", "f32", "bf16"}, *const dtypes[] = {
                                                                         "f32", "f16", "bf16"};
    static const enum fkv_dtype dtype_of[] = {FKV_F32, FKV_F16, FKV_BF16};
    struct options *o = state->input;
    int i = 0;
    switch (key) {
    case 'm': o->model = value; return 0;
    case 't': o->text = value; return 0;
    case 'n': o->tokens = atoi(value); return 0;
    case 's': o->slack = atof(value); return 0;
    case 'c':
        while (i < 3 && strcmp(value, computes[i])) i++;
        if (i == 3)
            argp_error(state, "--compute: expected native, f32 or bf16, found \"%s\"", value);
        o->compute = (enum fkv_compute)i;
        return 0;
    case 'd':
        while (i < 3 && strcmp(value, dtypes[i])) i++;
        if (i == 3)
            argp_error(state, "--cache-dtype: expected f32, f16 or bf16, found \"%s\"", value);
        o->cache_dtype = dtype_of[i];
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) argp_usage(state);
        o->names[state->arg_num] = value;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num != 2) argp_usage(state);
        if (o->tokens < LEAST_TOKENS)
            argp_error(state, "--tokens: expected %d or more, found %d", LEAST_TOKENS, o->tokens);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv) {
    static const struct argp_option known[] = {
        {"model", 'm', "DIR", 0, "checkpoint (data/litbank-1m)", 0},
        {"text", 't', "FILE", 0, "tokens from this text (random)", 0},
        {"tokens", 'n', "N", 0, "how many (300)", 0},
        {"compute", 'c', "TYPE", 0, "what TESTED's products compute in (f32)", 0},
        {"cache-dtype", 'd', "TYPE", 0, "TESTED's cache (f32)", 0},
        {"slack", 's', "FACTOR", 0, "on the limits of 16-bit arithmetic (1)", 0},
        {0}};
    static const struct argp argp = {known, parse, "EXPECTED TESTED", NULL, NULL, NULL, NULL};
    struct options o = {.model = "data/litbank-1m",
                        .tokens = 300,
                        .slack = 1,
                        .compute = FKV_COMPUTE_F32,
                        .cache_dtype = FKV_F32};
    argp_parse(&argp, argc, argv, 0, NULL, &o);

    struct side sides[2] = {open_side(&o, 0), open_side(&o, 1)};
    const struct fkv_config *c = &sides[1].model->config;
    int32_t *tokens = allocate((size_t)o.tokens * sizeof *tokens), window = o.tokens / 5 + 1;
    if (o.text)
        text_tokens(&o, tokens);
    else
        random_tokens(tokens, o.tokens, c->vocab);
    struct tolerance t = {o.compute == FKV_COMPUTE_F32 && o.cache_dtype == FKV_F32, 1e-4};
    if (!t.exact) t.limit = o.slack * 0x1p-9 * sqrt(8 * c->layers + 2);
    printf("%s, %d tokens, window %d; %s\n", sides[1].model->name, o.tokens, window,
           t.exact ? "largest differences" : "relative root mean squares");

    write_table(c);
    static const char *const policies[] = {"full", "freqkv", "streaming", "lm-infinite", "mixed"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        compare_sides(sides, policies[i], i ? window : 0, tokens, o.tokens, t);
        check_blocks(&sides[1], policies[i], i ? window : 0, tokens, o.tokens, t);
        check_batch(&sides[1], policies[i], i ? window : 0, tokens, o.tokens, t);
        check_snapshot(&sides[1], policies[i], i ? window : 0, tokens, o.tokens, t);
    }
    /* In 16 bits scores differ enough for another choice of slots. All tokens are different: keys
     * of one token have one length in the first layer. */
    int32_t different[LEAST_TOKENS];
    for (int32_t i = 0; i < LEAST_TOKENS; i++)
        different[i] = (int32_t)((tokens[0] + (int64_t)i * 7919) % c->vocab);
    for (int i = 0; fkv_policies[i] && t.exact; i++) {
        if (!fkv_policies[i]->select) continue;
        compare_sides(sides, fkv_policies[i]->name, SELECTED, different, LEAST_TOKENS, t);
        check_blocks(&sides[1], fkv_policies[i]->name, SELECTED, different, LEAST_TOKENS, t);
    }
    check_window(&sides[1], tokens, o.tokens, t);
    free(tokens);
    remove(table);
    for (int i = 0; i < 2; i++) {
        fkv_model_close(sides[i].model);
        sides[i].ops->close(sides[i].backend);
    }
    printf("%s\n", failures ? "FAILED" : "all within their limits");
    return failures > 0;
}
