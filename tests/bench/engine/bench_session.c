/* What a session does per second, and what the machine could: prefill alone and scored, and decode
 * steps after `AFTER` tokens with every dtype of the cache, on all threads and on one. Beside
 * decoding stands the time that the same threads take to read the same bytes of weights and cache
 * once. Everything in turns; the least of all rounds, because a machine that does something else
 * too only makes a step longer.
 *
 *   bench_session MODEL [f32|bf16 [ROUNDS [THREADS]]] */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "engine/command_line.h"
#include "engine/session/session_internal.h"
#include "tests/bench/kernels/bench.h"

enum { PROMPT = 512, SLOTS = 4096, STEPS = 8, AFTER_COUNT = 2 };
static const int32_t AFTER[AFTER_COUNT] = {32, SLOTS};

/* A stretch of memory. */
struct stretch {
    const char *data;
    size_t bytes;
};

static size_t add_weight(const struct fkv_model *m, const struct fkv_weight *w,
                         struct stretch *to) {
    to->data = (const char *)m->ops->address(w->data) + w->offset;
    to->bytes = fkv_weight_bytes(w->format, (size_t)w->rows * (size_t)w->cols);
    return 1;
}

/* All that a decode step reads: the matrices, and the first `slots` slots of every head. */
static size_t list_stretches(const struct fkv_session *s, int32_t slots, struct stretch *to) {
    const struct fkv_model *m = s->model;
    size_t n = add_weight(m, &m->logits.w, to);
    for (int32_t l = 0; l < m->config.layers; l++) {
        const struct fkv_layer_weights *w = &m->layers[l];
        const struct fkv_weight *all[] = {&w->qkv.wq,   &w->qkv.wk, &w->qkv.wv, &w->output.w,
                                          &w->mlp.gate, &w->mlp.up, &w->down.w};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) n += add_weight(m, all[i], to + n);
    }
    const size_t slot = session_slot_bytes(s), head = slot * (size_t)s->setup.capacity;
    for (int32_t h = 0; h < session_head_count(s); h++)
        for (int i = 0; i < 2; i++)
            to[n++] = (struct stretch){(const char *)s->ops->address(i ? s->value : s->key) +
                                           (size_t)h * head,
                                       slot * (size_t)slots};
    return n;
}

static uint64_t read_all(const struct stretch *stretches, size_t n, int threads) {
    uint64_t sum = 0;
#pragma omp parallel reduction(+ : sum) num_threads(threads)
    for (size_t s = 0; s < n; s++)
        sum += bench_read_share((const void *)stretches[s].data, stretches[s].bytes / 8);
    return sum;
}

/* Random numbers in every slot. */
static void fill_cache(struct fkv_session *s) {
    enum { PIECE = 4096 };
    float piece[PIECE];
    char packed[PIECE * sizeof(float)];
    uint64_t seed = 1;
    const size_t each = fkv_dtype_bytes(s->options.cache_dtype);
    for (size_t at = 0; at < s->cache_bytes; at += PIECE * each) {
        const size_t left = (s->cache_bytes - at) / each, n = left < PIECE ? left : PIECE;
        for (size_t i = 0; i < n; i++) piece[i] = bench_random(&seed);
        fkv_from_f32(piece, s->options.cache_dtype, n, packed);
        MUST(s->ops->write(s->backend, s->key, at, packed, n * each, &bench_error));
        MUST(s->ops->write(s->backend, s->value, at, packed, n * each, &bench_error));
    }
}

static void set_heads(struct fkv_session *s, int32_t tokens) {
    for (int32_t i = 0; i < session_head_count(s); i++)
        s->heads[i].tokens = s->heads[i].slots = tokens;
}

static double least(double a, double b) { return a < b ? a : b; }

/* Seconds of a decode step after so many tokens, with its logits. */
static double decode(struct fkv_session *s, int32_t after, float *logits) {
    set_heads(s, after - STEPS / 2);
    double seconds = INFINITY;
    for (int32_t i = 0; i < STEPS; i++) {
        const int32_t token = 100 + i;
        const double start = fkv_seconds();
        MUST(fkv_session_feed(s, &token, 1, &bench_error));
        MUST(fkv_session_logits(s, 0, 1, logits, &bench_error));
        seconds = least(seconds, fkv_seconds() - start);
    }
    return seconds;
}

static double prefill(struct fkv_session *s, bool score) {
    int32_t tokens[PROMPT];
    double nll[PROMPT];
    for (int32_t i = 0; i < PROMPT; i++) tokens[i] = i % s->model->config.vocab;
    set_heads(s, 0);
    const double start = fkv_seconds();
    MUST(fkv_session_feed(s, tokens, PROMPT, &bench_error));
    if (score) MUST(fkv_session_score(s, 0, PROMPT, tokens, nll, NULL, &bench_error));
    return fkv_seconds() - start;
}

static struct fkv_session *open_session(const struct fkv_model *m, enum fkv_dtype dtype) {
    const struct fkv_session_options o = {
        .block = PROMPT, .max_tokens = SLOTS + STEPS, .cache_dtype = dtype};
    struct fkv_session *s;
    MUST(fkv_session_open(m, &fkv_full_attention, &o, &s, &bench_error));
    fill_cache(s);
    return s;
}

static void bench_prefill(const struct fkv_model *m, int rounds) {
    double seconds[2] = {INFINITY, INFINITY};
    struct fkv_session *s = open_session(m, FKV_F32);
    prefill(s, true);
    for (int r = 0; r < rounds; r++)
        for (int score = 0; score < 2; score++)
            seconds[score] = least(seconds[score], prefill(s, score));
    for (int score = 0; score < 2; score++)
        printf("prefill of %d%s: %.0f tokens/s\n", PROMPT, score ? ", scored" : "",
               PROMPT / seconds[score]);
    fkv_session_close(s);
}

static void bench_decode(const struct fkv_model *m, int rounds, int threads) {
    double ours[3][AFTER_COUNT], reading[3][AFTER_COUNT];
    size_t bytes[3][AFTER_COUNT] = {0};
    float *logits = malloc(sizeof *logits * (size_t)m->config.vocab);
    const size_t most = 1 + (size_t)m->config.layers * (7 + 2 * (size_t)m->config.kv_heads);
    struct stretch *stretches = malloc(most * sizeof *stretches);
    if (!logits || !stretches) exit(1);
    volatile uint64_t sink;
    for (int t = FKV_F32; t <= FKV_BF16; t++) {
        struct fkv_session *s = open_session(m, (enum fkv_dtype)t);
        decode(s, SLOTS, logits);
        for (int a = 0; a < AFTER_COUNT; a++) ours[t][a] = reading[t][a] = INFINITY;
        for (int r = 0; r < rounds; r++)
            for (int a = 0; a < AFTER_COUNT; a++) {
                ours[t][a] = least(ours[t][a], decode(s, AFTER[a], logits));
                const size_t n = list_stretches(s, AFTER[a], stretches);
                bytes[t][a] = 0;
                for (size_t i = 0; i < n; i++) bytes[t][a] += stretches[i].bytes;
                for (int i = 0; i < STEPS; i++) {
                    const double start = fkv_seconds();
                    sink = read_all(stretches, n, threads);
                    reading[t][a] = least(reading[t][a], fkv_seconds() - start);
                }
            }
        fkv_session_close(s);
    }
    (void)sink;
    printf("%-6s %6s %9s %9s %9s %6s\n", "cache", "after", "tokens/s", "ours GB/s", "read GB/s",
           "ratio");
    for (int a = 0; a < AFTER_COUNT; a++)
        for (int t = FKV_F32; t <= FKV_BF16; t++) {
            const double mine = ours[t][a], read = reading[t][a];
            printf("%-6s %6d %9.1f %9.1f %9.1f %6.2f\n", fkv_dtype_name((enum fkv_dtype)t),
                   AFTER[a], 1 / mine, (double)bytes[t][a] / mine * 1e-9,
                   (double)bytes[t][a] / read * 1e-9, read / mine);
        }
    free(logits);
    free(stretches);
}

static void bench(struct fkv_engine_options *o, int threads, int rounds) {
    struct fkv_engine engine;
    struct fkv_device_info info;
    o->threads = threads;
    MUST(fkv_engine_open(o, &engine, &bench_error));
    MUST(engine.ops->info(engine.backend, &info, &bench_error));
    printf("%s, %s\n", engine.model->name, info.name);
    bench_prefill(engine.model, rounds < 5 ? rounds : 5);
    bench_decode(engine.model, rounds, info.threads);
    fkv_engine_close(&engine);
}

int main(int argc, char **argv) {
    struct fkv_engine_options o;
    fkv_engine_options_default(&o);
    o.decodes = true;
    const int rounds = argc > 3 ? atoi(argv[3]) : 9, threads = argc > 4 ? atoi(argv[4]) : 0;
    if (argc < 2 || rounds < 1) {
        fprintf(stderr, "usage: bench_session MODEL [f32|bf16 [ROUNDS [THREADS]]]\n");
        return 2;
    }
    o.model = argv[1], o.backend = "cpu", o.quiet = true;
    o.compute = argc > 2 && !strcmp(argv[2], "bf16") ? FKV_COMPUTE_BF16 : FKV_COMPUTE_F32;
    bench(&o, threads, rounds);
    if (!threads) bench(&o, 1, rounds);
    return 0;
}
