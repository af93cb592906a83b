/* A decode step, recorded once and replayed: every time with other tokens, slots, positions and
 * spans, and with other operations in between. What it computes must be what the reference computes
 * from the same calls one by one. */
#include "tests/unit/kernels/backend_support.h"

enum {
    SEQUENCES = 3,
    KV_HEADS = 2,
    GROUP = 4,
    VOCAB = 61,
    CAPACITY = 90,
    TIMES = 4,
    SPANS = 2,
    HEADS = SEQUENCES * KV_HEADS
};

/* One layer of a model, and the rows of a step. */
struct machine {
    struct fkv_attention_shape shape;
    int hidden;
    struct weight table, norm, wq, wk, wv, wo, gate, up, down, out;
    struct cache cache;
    struct both x, q, k, v, mixed, gated, kept, logits;
};

/* What differs from one issue of a step to the next. */
struct issue {
    int sequences;
    int32_t tokens[SEQUENCES];
    struct fkv_append_item append[HEADS];
    struct fkv_attend_item attend[HEADS];
    struct fkv_span spans[HEADS * SPANS];
};

static struct machine random_machine(int round, enum fkv_dtype t) {
    struct machine m = {.shape = shape_of(round), .hidden = random_width(100)};
    struct fkv_attention_shape *s = &m.shape;
    s->kv_heads = KV_HEADS, s->heads = KV_HEADS * GROUP;
    int d = s->dim = random_width(100), q = s->heads * s->head_dim, k = s->kv_heads * s->head_dim;
    m.table = random_weight(t, VOCAB, d, 0, 1), m.norm = random_weight(t, 1, d, 1, 0.2);
    m.wq = random_weight(t, q, d, 0, 1 / sqrt(d)), m.wk = random_weight(t, k, d, 0, 1 / sqrt(d));
    m.wv = random_weight(t, k, d, 0, 1 / sqrt(d)), m.wo = random_weight(t, d, q, 0, 1 / sqrt(q));
    m.gate = random_weight(t, m.hidden, d, 0, 1 / sqrt(d)),
    m.up = random_weight(t, m.hidden, d, 0, 1 / sqrt(d));
    m.down = random_weight(t, d, m.hidden, 0, 1 / sqrt(m.hidden)),
    m.out = random_weight(t, VOCAB, d, 0, 1 / sqrt(d));
    m.cache = random_cache(s, HEADS, t, CAPACITY, 0);
    m.x = random_both((size_t)(SEQUENCES * d), 0, 1),
    m.kept = random_both((size_t)(SEQUENCES * (d + 3)), 0, 1);
    m.q = random_both((size_t)(SEQUENCES * q), 0, 1),
    m.mixed = random_both((size_t)(SEQUENCES * q), 0, 1);
    m.k = random_both((size_t)(SEQUENCES * k), 0, 1),
    m.v = random_both((size_t)(SEQUENCES * k), 0, 1);
    m.gated = random_both((size_t)(SEQUENCES * m.hidden), 0, 1),
    m.logits = random_both(SEQUENCES * VOCAB, 0, 1);
    reserve_both((struct fkv_limits){.rows = SEQUENCES,
                                     .hidden = m.hidden,
                                     .vocab = VOCAB,
                                     .slots = CAPACITY,
                                     .items = HEADS * SPANS,
                                     .attention = *s});
    return m;
}

static void release_machine(struct machine *m) {
    struct weight *weights[] = {&m->table, &m->norm, &m->wq, &m->wk,   &m->wv,
                                &m->wo,    &m->gate, &m->up, &m->down, &m->out};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) release_weight(weights[i]);
    release_cache(&m->cache);
    release(m->x), release(m->q), release(m->k), release(m->v), release(m->mixed),
        release(m->gated);
    release(m->kept), release(m->logits);
}

/* The `time`-th issue: every sequence appends at a slot of its own and sees sinks, none at times,
 * and a window up to itself. */
static void next_issue(int time, struct issue *s) {
    for (int i = 0; i < s->sequences; i++) {
        int slot = 20 + 7 * i + time * test_between(1, 5),
            sinks = time % 2 ? test_between(1, 4) : 0;
        double position = random_position();
        s->tokens[i] = test_between(0, VOCAB - 1);
        for (int h = 0; h < KV_HEADS; h++) {
            int n = i * KV_HEADS + h;
            s->append[n] = (struct fkv_append_item){n, h, i, 1, slot, position};
            s->attend[n] = (struct fkv_attend_item){n, h * GROUP, GROUP, i, 1, n * SPANS, SPANS};
            s->spans[n * SPANS] = (struct fkv_span){
                0, sinks, FKV_NO_LIMIT_BELOW, FKV_NO_LIMIT_ABOVE, position / 2, time % 3 == 0};
            s->spans[n * SPANS + 1] = (struct fkv_span){
                test_between(sinks, slot), slot + 1, FKV_NO_LIMIT_BELOW, slot + 1, position, false};
        }
    }
}

#define OF(x) (*(exact ? &(x).reference : &(x).tested))

static void issue(struct machine *m, bool exact, const struct issue *s) {
    struct side side = exact ? reference : tested;
    const struct fkv_backend_ops *ops = side.ops;
    struct fkv_backend *b = side.b;
    int rows = s->sequences, items = rows * KV_HEADS;
    size_t dim = (size_t)m->shape.dim;
    struct fkv_qkv_weights w = {
        .norm = OF(m->norm), .wq = OF(m->wq), .wk = OF(m->wk), .wv = OF(m->wv), .eps = 1e-5f};
    const struct fkv_residual_weights output = {.w = OF(m->wo), .multiplier = 1},
                                      down = {.w = OF(m->down), .multiplier = 1};
    const struct fkv_gate_up_weights mlp = {
        .norm = OF(m->norm), .gate = OF(m->gate), .up = OF(m->up), .eps = 1e-5f};
    const struct fkv_logits_weights head = {
        .norm = OF(m->norm), .w = OF(m->out), .eps = 1e-5f, .multiplier = 1};
    assert_ok(ops->embed(b, &OF(m->table), 1, s->tokens, rows, OF(m->x), &err));
    assert_ok(ops->norm_qkv(b, &m->shape, &w, OF(m->x), rows, OF(m->q), OF(m->k), OF(m->v), &err));
    assert_ok(ops->append(b, &m->shape, OF(m->k), OF(m->v), &OF(m->cache), s->append, items, &err));
    assert_ok(ops->attend(b, &m->shape, OF(m->q), &OF(m->cache), s->spans, s->attend, items,
                          OF(m->mixed), &err));
    assert_ok(ops->project_residual(b, &output, OF(m->mixed), rows, OF(m->x), &err));
    assert_ok(
        ops->copy_rows(b, OF(m->kept), 4, dim + 2, OF(m->x), 0, dim, rows, (int32_t)dim, &err));
    assert_ok(ops->norm_gate_up(b, &mlp, OF(m->x), rows, OF(m->gated), &err));
    assert_ok(ops->project_residual(b, &down, OF(m->gated), rows, OF(m->x), &err));
    assert_ok(ops->norm_logits(b, &head, OF(m->x), 0, rows, OF(m->logits), &err));
}

/* Between steps: a slot is dropped from every head and the slots above it move down. */
static void drop_a_slot(struct machine *m, bool exact) {
    struct side side = exact ? reference : tested;
    int32_t from[9] = {0, 1, 3, 4, 5, 6, 7, 8, 9};
    struct fkv_gather_item items[HEADS];
    for (int i = 0; i < HEADS; i++) items[i] = (struct fkv_gather_item){i, 0, 9, from, -1};
    assert_ok(side.ops->gather(side.b, &m->shape, &OF(m->cache), items, HEADS, NULL, &err));
}

/* Through some seven products the errors of 16 bits add up to a few u; a token, slot or span of
 * another time changes everything. */
static void assert_level(struct both x, double u) {
    float *found = download(tested, x.tested, x.count),
          *expected = download(reference, x.reference, x.count);
    subtract(found, expected, x.count);
    double error = root_mean_square(found, x.count), level = root_mean_square(expected, x.count);
    if (!(error <= (16 * u + 2e-5) * level))
        fail_msg("root mean square error %.4g of %.4g, allowed %.3g of it", error, level,
                 16 * u + 2e-5);
    free(found), free(expected);
}

/* What a stored key or value is off, or a product with it. */
static double unit_of_cache(enum fkv_dtype t) {
    double stored = t == FKV_F32 ? 0 : t == FKV_F16 ? 0x1p-11 : 0x1p-8;
    return stored > unit_of(t) ? stored : unit_of(t);
}

TEST(a_replayed_step_does_what_its_operations_say) {
    for (int round = 0; round < 6; round++) {
        enum fkv_dtype t = (enum fkv_dtype)(round % 3);
        struct machine m = random_machine(round, t);
        struct issue kinds[2] = {
            {.sequences = 1},
            {.sequences = SEQUENCES}}; /* two steps that share all their buffers */
        struct fkv_step *steps[2];
        for (int i = 0; i < 2; i++) assert_ok(tested.ops->step_create(tested.b, &steps[i], &err));
        for (int time = 0; time < TIMES; time++)
            for (int i = 0; i < 2; i++) {
                next_issue(time, &kinds[i]);
                assert_ok(tested.ops->step_begin(tested.b, steps[i], &err));
                issue(&m, false, &kinds[i]);
                assert_ok(tested.ops->step_end(tested.b, steps[i], &err));
                issue(&m, true, &kinds[i]);
                assert_level(m.x, unit_of_cache(t)), assert_level(m.kept, unit_of_cache(t));
                assert_level(m.logits, unit_of_cache(t));
                if (time % 2) drop_a_slot(&m, false), drop_a_slot(&m, true);
            }
        for (int values = 0; values < 2; values++) {
            float *found = cache_contents(tested, &m.cache.tested, values, m.cache.count);
            float *exact = cache_contents(reference, &m.cache.reference, values, m.cache.count);
            double level = root_mean_square(exact, m.cache.count);
            subtract(found, exact, m.cache.count);
            double error = root_mean_square(found, m.cache.count);
            if (!(error <= (4 * unit_of_cache(t) + 2e-5) * level))
                fail_msg("cache is %.4g of %.4g off", error, level);
            free(found), free(exact);
        }
        for (int i = 0; i < 2; i++) tested.ops->step_release(tested.b, steps[i]);
        release_machine(&m);
    }
}

TEST_GROUP(open_both, close_both)
