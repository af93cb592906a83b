/* A whole model at work, each figure beside its rival in the same run:
 *   decode   weight bytes per second while tokens are decoded one by one, against reading the same mapped weights with all threads
 *   prefill  flop/s (2 x MACs of the linear layers) of blocks of 512 tokens, against one plain sgemm of 512 rows on the MLP's shape
 *
 *     python tests/bench/make_checkpoint.py /tmp/checkpoint && bench_session /tmp/checkpoint
 *
 * Weights should be larger than the processor's caches, or reading them is no bandwidth. */
#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/command_line.h"
#include "engine/session.h"
#include "kernels/base/progress.h"

enum { BLOCK = 512, DECODED = 24, ROUNDS = 3 };

static struct fkv_error err;

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != FKV_OK) {                                                                                        \
            fprintf(stderr, "%s: %s\n", #call, err.message);                                                           \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Bytes per second of the best of some rounds over all shards. */
static double read_bandwidth(const struct fkv_model *model) {
    double best = 0;
    volatile uint64_t sink = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double started = fkv_seconds(), bytes_read = 0;
        for (int i = 0; i < fkv_safetensors_count(model->files); i++) {
            size_t bytes;
            const uint64_t *words = fkv_safetensors_mapping(model->files, i, &bytes);
            uint64_t sum = 0;
#pragma omp parallel for simd schedule(static) reduction(+ : sum) num_threads(omp_get_num_procs())
            for (size_t w = 0; w < bytes / 8; w++) sum += words[w];
            sink += sum;
            bytes_read += (double)bytes;
        }
        double rate = bytes_read / (fkv_seconds() - started);
        if (rate > best) best = rate;
    }
    return best;
}

/* flop/s of x [BLOCK, dim] times w (hidden, dim), the best of some rounds; 0 when out of memory. */
static double sgemm_rate(const struct fkv_config *c) {
    size_t inputs = (size_t)c->dim, outputs = (size_t)c->hidden;
    float *x = calloc(BLOCK * inputs, sizeof *x), *w = calloc(outputs * inputs, sizeof *w);
    float *y = calloc(BLOCK * outputs, sizeof *y);
    double best = 0;
    for (int round = 0; x && w && y && round < ROUNDS + 1; round++) {
        double started = fkv_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BLOCK, c->hidden, c->dim, 1, x, c->dim, w, c->dim, 0, y,
                    c->hidden);
        double rate = 2.0 * BLOCK * (double)inputs * (double)outputs / (fkv_seconds() - started);
        if (rate > best) best = rate;
    }
    free(x), free(w), free(y);
    return best;
}

/* Weights that a token passes through: all but the embedding table, of which it reads one row, and the head, which prefill leaves out. */
static double layer_weights(const struct fkv_config *c) {
    double heads = (double)c->heads * c->head_dim, kv = (double)c->kv_heads * c->head_dim;
    return (double)c->layers * c->dim * (2 * heads + 2 * kv + 3.0 * c->hidden);
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
    MUST(fkv_engine_open(&options, &engine, &err));
    const struct fkv_config *c = &engine.model->config;
    const struct fkv_policy_options policy = {.name = "full", .sinks = -1, .rescale = true};
    struct fkv_session_options session_options = {.block = BLOCK, .max_tokens = BLOCK + DECODED};
    MUST(fkv_session_open(engine.model, &policy, &session_options, &session, &err));
    int32_t tokens[BLOCK];
    float *logits = malloc((size_t)c->vocab * sizeof *logits);
    double prefill = 1e30, decode = 1e30;
    for (int i = 0; i < BLOCK; i++) tokens[i] = (int32_t)((i * 2654435761u) % (uint32_t)c->vocab);
    for (int round = 0; round < ROUNDS && logits; round++) {
        fkv_session_reset(session);
        double started = fkv_seconds();
        MUST(fkv_session_feed(session, tokens, BLOCK, &err));
        double fed = fkv_seconds();
        for (int i = 0; i < DECODED; i++) {
            MUST(fkv_session_feed(session, &tokens[i], 1, &err));
            MUST(fkv_session_logits(session, 0, 1, logits, &err));
        }
        double decoded = (fkv_seconds() - fed) / DECODED;
        if (fed - started < prefill) prefill = fed - started;
        if (decoded < decode) decode = decoded;
    }
    /* a tied table is read whole as the head; an untied one adds a row a token, which is nothing */
    double head = c->tied ? 0
                          : (double)engine.model->embedding.rows * c->dim *
                                (double)fkv_dtype_bytes(engine.model->embedding.dtype);
    double rate = ((double)engine.model->weight_bytes - head) / decode, bandwidth = read_bandwidth(engine.model);
    double flops = 2 * BLOCK * layer_weights(c) / prefill, sgemm = sgemm_rate(c);
    printf("weights %.1f MB, %d threads\n", (double)engine.model->weight_bytes / 1e6, omp_get_num_procs());
    printf("decode   %6.2f tokens/s  %6.2f GB/s   read bandwidth %6.2f GB/s   ratio %.2f\n", 1 / decode, rate / 1e9,
           bandwidth / 1e9, rate / bandwidth);
    printf("prefill  %6.1f tokens/s  %6.1f Gflop/s  sgemm %6.1f Gflop/s         ratio %.2f\n", BLOCK / prefill,
           flops / 1e9, sgemm / 1e9, flops / sgemm);
    free(logits);
    fkv_session_close(session);
    fkv_engine_close(&engine);
    return 0;
}
