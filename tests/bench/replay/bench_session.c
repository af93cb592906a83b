/* A whole model at work, each figure beside its rival, in turns in one run; medians of the rounds:
 *   decode   bytes of weights and cache per second while tokens are decoded one by one, against
 *            reading the same mapped weights with all threads
 *   prefill  flop/s (2 x MACs of the linear layers) of a block of 512 tokens, against plain sgemm
 *            of 512 rows on the MLP's shape
 *
 *     python tests/bench/make_checkpoint.py /tmp/checkpoint && bench_session /tmp/checkpoint
 *
 * Weights should be larger than the processor's caches, or reading them is no bandwidth. */
#include <cblas.h>
#include <omp.h>

#include "engine/command_line.h"
#include "engine/session/session.h"
#include "kernels/host_buffer.h"
#include "tests/bench/kernels/bench.h"

enum { BLOCK = 512, DECODED = 12, ROUNDS = 9 };
enum { READ, DECODE, PREFILL, SGEMM, FIGURES };

/* Seconds to read every tensor once, as 64-bit words. */
static double read_weights(const struct fkv_model *model) {
    double started = fkv_seconds();
    static volatile uint64_t sink; /* so that no read is left out */
    for (int32_t i = 0; i < model->buffer_count; i++) {
        const uintptr_t begin = (uintptr_t)model->buffers[i]->data, aligned = (begin + 7) / 8 * 8;
        const uint64_t *words = (const uint64_t *)aligned;
        const size_t bytes = model->buffers[i]->bytes - (aligned - begin);
        uint64_t sum = 0;
#pragma omp parallel for simd schedule(static) reduction(+ : sum)
        for (size_t w = 0; w < bytes / 8; w++) sum += words[w];
        sink += sum;
    }
    return fkv_seconds() - started;
}

/* Seconds of y [BLOCK, hidden] = x [BLOCK, dim] w' (hidden, dim). */
static double sgemm(const struct fkv_config *c, const float *x, const float *w, float *y) {
    double started = fkv_seconds();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BLOCK, c->hidden, c->dim, 1, x, c->dim, w,
                c->dim, 0, y, c->hidden);
    return fkv_seconds() - started;
}

/* Prefill's products leave out the embedding table and the head. */
static double prefill_flops(const struct fkv_config *c) {
    double heads = (double)c->heads * c->head_dim, kv = (double)c->kv_heads * c->head_dim;
    return 2.0 * BLOCK * c->layers * c->dim * (2 * heads + 2 * kv + 3.0 * c->hidden);
}

/* What one decoded token reads: a tied table as the head, of an untied one a row, which is nothing;
 * and the cache in float32. */
static double decode_bytes(const struct fkv_model *m) {
    const struct fkv_config *c = &m->config;
    double table = (double)c->vocab * c->dim * (double)fkv_weight_bytes(m->embedding.format, 1);
    double slot = 2.0 * c->layers * c->kv_heads * c->head_dim * sizeof(float);
    return (double)m->weight_bytes - (c->tied ? 0 : table) + slot * (BLOCK + DECODED / 2.0);
}

static void measure(struct fkv_session *session, const struct fkv_model *model, int round,
                    double seconds[FIGURES][ROUNDS]) {
    const struct fkv_config *c = &model->config;
    static int32_t tokens[BLOCK];
    float *logits = malloc((size_t)c->vocab * sizeof *logits);
    for (int i = 0; i < BLOCK; i++)
        tokens[i] = (int32_t)(((uint32_t)i * 2654435761u) % (uint32_t)c->vocab);
    fkv_session_reset(session, 0);
    double started = fkv_seconds();
    MUST(fkv_session_feed(session, tokens, BLOCK, &bench_error));
    seconds[PREFILL][round] = fkv_seconds() - started;
    started = fkv_seconds();
    for (int i = 0; i < DECODED; i++) {
        MUST(fkv_session_feed(session, &tokens[i], 1, &bench_error));
        MUST(fkv_session_logits(session, 0, 1, logits, &bench_error));
    }
    seconds[DECODE][round] = (fkv_seconds() - started) / DECODED;
    free(logits);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: bench_session MODEL\n");
        return 2;
    }
    static struct fkv_engine_options options;
    struct fkv_engine engine;
    struct fkv_session *session;
    fkv_engine_options_default(&options);
    options.model = argv[1];
    options.backend = "cpu";
    options.token_ids_count = 1; /* a tokenizer is not needed */
    MUST(fkv_engine_open(&options, &engine, &bench_error));
    const struct fkv_model *model = engine.model;
    const struct fkv_config *c = &model->config;
    struct fkv_session_options session_options = {.block = BLOCK, .max_tokens = BLOCK + DECODED};
    MUST(fkv_session_open(model, &fkv_full_attention, &session_options, &session, &bench_error));
    size_t inputs = (size_t)c->dim, outputs = (size_t)c->hidden;
    float *x = calloc(BLOCK * inputs, sizeof *x), *w = calloc(outputs * inputs, sizeof *w);
    float *y = calloc(BLOCK * outputs, sizeof *y);
    double seconds[FIGURES][ROUNDS];
    for (int round = -1; x && w && y && round < ROUNDS; round++) { /* round -1 warms up */
        int at = round < 0 ? 0 : round;
        measure(session, model, at, seconds);
        seconds[READ][at] = read_weights(model);
        seconds[SGEMM][at] = sgemm(c, x, w, y);
    }
    double median[FIGURES];
    for (int f = 0; f < FIGURES; f++) median[f] = bench_median(seconds[f], ROUNDS);
    double decode = decode_bytes(model) / median[DECODE],
           read = (double)model->weight_bytes / median[READ];
    double prefill = prefill_flops(c) / median[PREFILL];
    double plain = 2.0 * BLOCK * (double)inputs * (double)outputs / median[SGEMM];
    printf("weights %.1f MB, %d threads, median of %d rounds\n", (double)model->weight_bytes / 1e6,
           omp_get_max_threads(), ROUNDS);
    printf("decode   %6.2f tokens/s  %6.2f GB/s     read bandwidth %6.2f GB/s   ratio %.2f\n",
           1 / median[DECODE], decode / 1e9, read / 1e9, decode / read);
    printf("prefill  %6.1f tokens/s  %6.1f GFLOP/s  sgemm %6.1f GFLOP/s         ratio %.2f\n",
           BLOCK / median[PREFILL], prefill / 1e9, plain / 1e9, prefill / plain);
    free(x), free(w), free(y);
    fkv_session_close(session);
    fkv_engine_close(&engine);
    return 0;
}
