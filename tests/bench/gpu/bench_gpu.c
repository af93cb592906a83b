/* This project's side of the GPU benchmark: prefill, decode and compression on a real-size
 * checkpoint, one JSON object per line, for bench.py beside it, which sets it beside PyTorch and
 * the machine's limits. Jobs run in the order given, all on one loaded model:
 *
 *   POLICY:T:ROUNDS:DECODED   T tokens prefilled from an empty cache with the last token's logits
 *                             on the host, ROUNDS times after one that warms up; then DECODED
 *                             tokens one by one, each with its logits on the host (the first 8 warm
 *                             up and are not counted)
 *   compress:N:ROUNDS         N - 4 slots become half as many, keys and values, for all layers and
 *                             heads: in one call, and layer by layer
 *
 * Weights and cache are bfloat16 as the checkpoint is; the window of `freqkv` is --window. Times
 * are wall time with the device idle before and after. */
#include <argp.h>
#include <math.h>
#include <string.h>

#include "engine/session/session.h"
#include "tests/bench/kernels/bench.h"

enum { SINKS = 4, WARM_UP = 8, MOST_JOBS = 64, MOST_TIMES = 1 << 16 };

struct options {
    const char *backend, *model, *jobs[MOST_JOBS];
    int job_count, device;
    int32_t block, window;
    enum fkv_dtype cache_dtype;
};

static struct options options = {
    .backend = "cuda", .block = 4096, .window = 4096, .cache_dtype = FKV_BF16};
static struct fkv_model *model;
static double times[MOST_TIMES];

static void emit(const char *row, const char *policy, int64_t tokens, int count,
                 const char *extra) {
    double mean = 0, median;
    for (int i = 0; i < count; i++) mean += times[i] / count;
    median = bench_median(times, count); /* sorts */
    printf("{\"side\": \"ours\", \"model\": \"%s\", \"row\": \"%s\", \"policy\": \"%s\", "
           "\"tokens\": %lld, \"seconds\": %.9g, "
           "\"low\": %.9g, \"high\": %.9g, \"mean\": %.9g, \"count\": %d%s}\n",
           model->name, row, policy, (long long)tokens, median, times[count / 10],
           times[count - 1 - count / 10], mean, count, extra);
    fflush(stdout);
}

/* The same ids on both sides of the benchmark. */
static int32_t token_at(int64_t i) {
    return (int32_t)(((uint64_t)i * 2654435761u >> 7) % (uint64_t)model->config.vocab);
}

static void prefill(struct fkv_session *s, const int32_t *tokens, int64_t count, float *logits) {
    fkv_session_reset(s, FKV_ALL_SEQUENCES);
    for (int64_t at = 0; at < count; at += options.block) {
        int32_t rows = count - at < options.block ? (int32_t)(count - at) : options.block;
        MUST(fkv_session_feed(s, tokens + at, rows, &bench_error));
        if (at + rows == count) MUST(fkv_session_logits(s, rows - 1, 1, logits, &bench_error));
    }
}

static void decode_step(struct fkv_session *s, int64_t at, float *logits) {
    int32_t token = token_at(at);
    MUST(fkv_session_feed(s, &token, 1, &bench_error));
    MUST(fkv_session_logits(s, 0, 1, logits, &bench_error));
}

static void run_policy(const char *policy, int64_t count, int rounds, int decoded) {
    const struct fkv_policy_options p = {
        .name = policy, .window = strcmp(policy, "full") ? options.window : 0, .sinks = SINKS};
    const struct fkv_session_options o = {.block = options.block < count ? options.block
                                                                         : (int32_t)count,
                                          .max_tokens = count + WARM_UP + decoded,
                                          .cache_dtype = options.cache_dtype};
    struct fkv_session *s;
    int32_t vocab = model->config.vocab, best = 0;
    int32_t *tokens = malloc((size_t)count * sizeof *tokens);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    if (!tokens || !logits) exit(1);
    for (int64_t i = 0; i < count; i++) tokens[i] = token_at(i);
    MUST(fkv_session_open(model, &p, &o, &s, &bench_error));
    for (int i = -1; i < rounds; i++) {
        double started = fkv_seconds();
        prefill(s, tokens, count, logits);
        if (i >= 0) times[i] = fkv_seconds() - started;
    }
    for (int32_t v = 0; v < vocab; v++)
        if (logits[v] > logits[best]) best = v;
    char top[96];
    snprintf(top, sizeof top, ", \"top\": %d, \"top_logit\": %.6g", best, logits[best]);
    emit("prefill", policy, count, rounds, top);

    for (int i = -WARM_UP; i < decoded; i++) {
        double started = fkv_seconds();
        decode_step(s, count + WARM_UP + i, logits);
        if (i >= 0) times[i] = fkv_seconds() - started;
    }
    emit("decode", policy, count, decoded, "");
    fkv_session_close(s);
    free(tokens), free(logits);
}

/* `each` heads per call. */
static void compress_in_calls(const struct fkv_map *map, const struct fkv_cache *whole,
                              int32_t heads, int32_t each, int rounds, const char *row) {
    const struct fkv_backend_ops *ops = model->ops;
    struct fkv_compress_item *items = calloc((size_t)each, sizeof *items);
    struct fkv_cache part = *whole;
    if (!items) exit(1);
    for (int32_t h = 0; h < each; h++)
        items[h] = (struct fkv_compress_item){.cache_head = h, .slot = SINKS, .position = SINKS};
    size_t head_bytes = (size_t)whole->capacity * (size_t)model->config.head_dim *
                        fkv_dtype_bytes(options.cache_dtype);
    for (int i = -1; i < rounds; i++) {
        MUST(ops->synchronize(model->backend, &bench_error));
        double started = fkv_seconds();
        for (int32_t h = 0; h < heads; h += each) {
            part.offset = (size_t)h * head_bytes;
            MUST(ops->compress(model->backend, &model->attention, map, &part, items, each, NULL,
                               &bench_error));
        }
        MUST(ops->synchronize(model->backend, &bench_error));
        if (i >= 0) times[i] = fkv_seconds() - started;
    }
    emit(row, "freqkv", whole->capacity, rounds, "");
    free(items);
}

static void run_compress(int32_t window, int rounds) {
    const struct fkv_backend_ops *ops = model->ops;
    const struct fkv_config *c = &model->config;
    int32_t n = window - SINKS, retained = n / 2, heads = c->layers * c->kv_heads;
    size_t elements = (size_t)heads * (size_t)window * (size_t)c->head_dim;
    const struct fkv_limits limits = {.rows = 1,
                                      .dim = c->dim,
                                      .hidden = c->hidden,
                                      .vocab = c->vocab,
                                      .slots = window,
                                      .items = heads,
                                      .attention = model->attention};
    struct fkv_map *map;
    MUST(ops->reserve(model->backend, &limits, &bench_error));
    MUST(ops->map_dct(model->backend, n, retained, sqrt((double)retained / n), &map, &bench_error));
    struct fkv_cache cache = {
        .key = bench_buffer(ops, model->backend, options.cache_dtype, elements, 1),
        .value = bench_buffer(ops, model->backend, options.cache_dtype, elements, 2),
        .dtype = options.cache_dtype,
        .capacity = window};
    compress_in_calls(map, &cache, heads, heads, rounds, "compress");
    compress_in_calls(map, &cache, heads, c->kv_heads, rounds, "compress by layer");
    ops->map_release(model->backend, map);
    ops->buffer_release(model->backend, cache.key);
    ops->buffer_release(model->backend, cache.value);
}

static void run_job(const char *job) {
    char name[32];
    long long count;
    int rounds = 0, decoded = 0;
    int fields = sscanf(job, "%31[a-z]:%lld:%d:%d", name, &count, &rounds, &decoded);
    bool compress = fields > 0 && !strcmp(name, "compress");
    if (fields != (compress ? 3 : 4) || count < 8 || rounds < 1 || rounds > MOST_TIMES ||
        (!compress && (decoded < 1 || decoded > MOST_TIMES))) {
        fprintf(stderr,
                "job: expected POLICY:T:ROUNDS:DECODED or compress:N:ROUNDS, found \"%s\"\n", job);
        exit(2);
    }
    if (compress)
        run_compress((int32_t)count, rounds);
    else
        run_policy(name, count, rounds, decoded);
    printf("{\"row\": \"done\", \"job\": \"%s\"}\n", job);
    fflush(stdout);
}

static error_t parse(int key, char *value, struct argp_state *state) {
    switch (key) {
    case 'b': options.backend = value; return 0;
    case 'd': options.device = atoi(value); return 0;
    case 'r': options.block = atoi(value); return 0;
    case 'w': options.window = atoi(value); return 0;
    case 'f': options.cache_dtype = FKV_F32; return 0;
    case ARGP_KEY_ARG:
        if (!options.model)
            options.model = value;
        else if (options.job_count < MOST_JOBS)
            options.jobs[options.job_count++] = value;
        return 0;
    case ARGP_KEY_END:
        if (!options.job_count || options.block < 1) argp_usage(state);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv) {
    static const struct argp_option known[] = {
        {"backend", 'b', "NAME", 0, "cuda", 0},
        {"device", 'd', "INDEX", 0, "0", 0},
        {"block", 'r', "ROWS", 0, "most tokens per feed (4096)", 0},
        {"window", 'w', "N", 0, "of freqkv (4096)", 0},
        {"f32-cache", 'f', NULL, 0, "float32 in place of bfloat16", 0},
        {0}};
    static const struct argp argp = {known, parse, "MODEL JOB...", NULL, NULL, NULL, NULL};
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    struct fkv_device_info info;
    const struct fkv_backend_options opened = {.device = options.device};
    MUST(fkv_backend_find(options.backend, &ops, NULL, &bench_error));
    MUST(ops->open(&opened, &backend, &bench_error));
    double started = fkv_seconds();
    MUST(fkv_model_open(options.model, ops, backend, &(struct fkv_model_options){0}, &model,
                        &bench_error));
    MUST(ops->synchronize(backend, &bench_error));
    times[0] = fkv_seconds() - started;
    MUST(ops->info(backend, &info, &bench_error));
    char device[256];
    snprintf(device, sizeof device, ", \"device\": \"%s\", \"weight_bytes\": %lld", info.name,
             (long long)model->weight_bytes);
    emit("load", "", 0, 1, device);
    for (int i = 0; i < options.job_count; i++) run_job(options.jobs[i]);
    fkv_model_close(model);
    ops->close(backend);
    return 0;
}
