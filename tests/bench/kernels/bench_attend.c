/* Attention alone, on the shapes of SmolLM2-135M's and of a quarter of Llama-3-8B's heads, from
 * f32, f16 and bf16 caches: prefill  GFLOP/s (4 x head_dim x heads for every query and slot that it
 * sees) of a text fed in blocks of 512 tokens, against plain sgemm of 512 x 4096 x 4096 decode GB/s
 * of keys and values read by one query row, layer after layer as a model does, against reading the
 * same caches with all threads Each figure and its rival are timed in turn; medians are printed.
 *
 *     OMP_NUM_THREADS=1 bench_attend [prefill|decode [TOKENS]]     all of both, or one of them, or
 * one number of tokens of it */
#include <cblas.h>
#include <math.h>

#include "tests/bench/kernels/bench.h"

enum { BLOCK = 512, ROUNDS = 3, DECODE_ROUNDS = 9, SIDE = 4096, MOST_LAYERS = 30 };
static const size_t MOST_BYTES = (size_t)400 << 20; /* of the caches of all layers */

static double inv_freq[64];
static const struct shape {
    const char *name;
    struct fkv_attention_shape attention;
} shapes[] = {
    {"9/3 x 64", {576, 9, 3, 64, 0.125f, inv_freq, 64, 1, 0}},
    {"8/2 x 128", {1024, 8, 2, 128, 0.08838835f, inv_freq, 128, 1, 0}},
};

/* Keys and values of `layers` layers, and a block of queries. */
struct subject {
    const struct fkv_attention_shape *shape;
    struct fkv_cache cache; /* of layer 0 */
    size_t layer_bytes;     /* of the keys (or values) of a layer */
    int layers;
    struct fkv_buffer *q, *out;
};

static struct subject prepare(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                              const struct fkv_attention_shape *shape, enum fkv_dtype t,
                              int32_t slots, int most_layers) {
    struct subject s = {.shape = shape};
    size_t count = (size_t)shape->kv_heads * (size_t)slots * (size_t)shape->head_dim,
           width = (size_t)shape->heads * (size_t)shape->head_dim;
    s.layer_bytes = count * fkv_dtype_bytes(t);
    s.layers = (int)(MOST_BYTES / (2 * s.layer_bytes));
    s.layers = s.layers < 1 ? 1 : s.layers > most_layers ? most_layers : s.layers;
    s.cache = (struct fkv_cache){.dtype = t, .capacity = slots};
    s.cache.key = bench_buffer(ops, b, t, (size_t)s.layers * count, 1);
    s.cache.value = bench_buffer(ops, b, t, (size_t)s.layers * count, 2);
    s.q = bench_buffer(ops, b, FKV_F32, BLOCK * width, 3);
    s.out = bench_buffer(ops, b, FKV_F32, BLOCK * width, 4);
    struct fkv_limits limits = {.rows = BLOCK,
                                .dim = shape->dim,
                                .hidden = 1,
                                .vocab = 1,
                                .slots = slots,
                                .items = shape->kv_heads,
                                .attention = *shape};
    MUST(ops->reserve(b, &limits, &bench_error));
    return s;
}

static void release(const struct fkv_backend_ops *ops, struct fkv_backend *b, struct subject *s) {
    ops->buffer_release(b, s->cache.key);
    ops->buffer_release(b, s->cache.value);
    ops->buffer_release(b, s->q);
    ops->buffer_release(b, s->out);
}

/* `rows` rows that follow `before` slots, causally, in one layer. */
static void attend(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                   const struct subject *s, int layer, int32_t before, int32_t rows) {
    struct fkv_cache cache = s->cache;
    struct fkv_attend_item items[8];
    struct fkv_span span = {
        .end = before + rows, .from = FKV_NO_LIMIT_BELOW, .until = before + 1, .position = before};
    const int32_t group = s->shape->heads / s->shape->kv_heads;
    cache.offset = (size_t)layer * s->layer_bytes;
    for (int32_t h = 0; h < s->shape->kv_heads; h++)
        items[h] = (struct fkv_attend_item){
            .cache_head = h, .head = h * group, .heads = group, .rows = rows, .spans = 1};
    MUST(ops->attend(b, s->shape, s->q, &cache, &span, items, s->shape->kv_heads, s->out,
                     &bench_error));
}

static void prefill(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                    const struct shape *shape, enum fkv_dtype t, int32_t tokens) {
    struct subject s = prepare(ops, b, &shape->attention, t, tokens, 1);
    static float x[BLOCK * SIDE], w[SIDE * SIDE], y[BLOCK * SIDE];
    double ours[ROUNDS], rival[ROUNDS];
    for (size_t i = 0; i < SIDE * SIDE; i++) w[i] = (float)(i % 7), x[i % (BLOCK * SIDE)] = 1;
    for (int round = -1; round < ROUNDS; round++) { /* round -1 warms up */
        double start = fkv_seconds();
        for (int32_t at = 0; at < tokens; at += BLOCK)
            if (round >= 0 || at == 0) attend(ops, b, &s, 0, at, BLOCK);
        double between = fkv_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BLOCK, SIDE, SIDE, 1, x, SIDE, w, SIDE,
                    0, y, SIDE);
        double end = fkv_seconds();
        if (round >= 0) ours[round] = between - start, rival[round] = end - between;
    }
    double flops = 2.0 * s.shape->head_dim * s.shape->heads * tokens * (tokens + 1.0);
    double a = flops / bench_median(ours, ROUNDS),
           c = 2.0 * BLOCK * SIDE * SIDE / bench_median(rival, ROUNDS);
    printf("prefill  %-10s %6d  %-4s  %8.1f %8.1f   %5.2f\n", shape->name, tokens,
           fkv_dtype_name(t), a * 1e-9, c * 1e-9, a / c);
    fflush(stdout);
    release(ops, b, &s);
}

static void decode(const struct fkv_backend_ops *ops, struct fkv_backend *b,
                   const struct shape *shape, enum fkv_dtype t, int32_t tokens) {
    struct subject s = prepare(ops, b, &shape->attention, t, tokens, MOST_LAYERS);
    double ours[DECODE_ROUNDS], rival[DECODE_ROUNDS],
        bytes = 2.0 * (double)s.layer_bytes * s.layers;
    static volatile uint64_t sink;
    for (int round = -1; round < DECODE_ROUNDS; round++) {
        double start = fkv_seconds();
        for (int layer = 0; layer < s.layers; layer++) attend(ops, b, &s, layer, tokens - 1, 1);
        double between = fkv_seconds();
        for (int i = 0; i < 2; i++)
            sink = sink + bench_read(ops->address(i ? s.cache.value : s.cache.key),
                                     (size_t)s.layers * s.layer_bytes / 8);
        double end = fkv_seconds();
        if (round >= 0) ours[round] = between - start, rival[round] = end - between;
    }
    double a = bench_median(ours, DECODE_ROUNDS), c = bench_median(rival, DECODE_ROUNDS);
    printf("decode   %-10s %6d  %-4s  %8.1f %8.1f   %5.2f   %8.1f us a layer\n", shape->name,
           tokens, fkv_dtype_name(t), bytes / a * 1e-9, bytes / c * 1e-9, c / a,
           a / s.layers * 1e6);
    fflush(stdout);
    release(ops, b, &s);
}

/* The rows of the table for a backend that computes in `compute`; none where it cannot. */
static void measure(enum fkv_compute compute, const char *what, long only) {
    const struct fkv_backend_ops *ops = &fkv_cpu_backend;
    const int32_t texts[] = {512, 2048, 4096, 8192}, caches[] = {33, 4096, 16384};
    struct fkv_backend *b;
    struct fkv_device_info info;
    if (ops->open(&(struct fkv_backend_options){.compute = compute}, &b, &bench_error)) {
        printf("%s\n", bench_error.message);
        return;
    }
    MUST(ops->info(b, &info, &bench_error));
    printf("%s, computing in %s\n%-8s %-10s %6s  %-4s  %8s %8s   %5s\n", info.name,
           compute == FKV_COMPUTE_BF16 ? "bf16" : "f32", "", "heads", "tokens", "", "ours", "limit",
           "ratio");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int t = FKV_F32; t <= FKV_BF16; t++) {
            for (int n = 0; n < 4; n++)
                if (*what != 'd' && (!only || only == texts[n]))
                    prefill(ops, b, &shapes[i], (enum fkv_dtype)t, texts[n]);
            for (int n = 0; n < 3; n++)
                if (*what != 'p' && (!only || only == caches[n]))
                    decode(ops, b, &shapes[i], (enum fkv_dtype)t, caches[n]);
        }
    ops->close(b);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const long only = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    for (int i = 0; i < 64; i++) inv_freq[i] = pow(10000, -i / 64.0);
    measure(FKV_COMPUTE_F32, what, only);
    measure(FKV_COMPUTE_BF16, what, only);
    return 0;
}
