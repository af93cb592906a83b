/* Every operation of the backend under test against the reference, on fresh random shapes. Compression and spectra have tests of their own. */
#include "tests/unit/kernels/backend_support.h"

enum { ROUNDS = 24 };

static void backends_are_found_by_name(void **state) {
    (void)state;
    const struct fkv_backend_ops *ops = NULL;
    assert_ok(fkv_backend_find("auto", &ops, &err), err);
    assert_ok(fkv_backend_find("cpu", &ops, &err), err);
    assert_ptr_equal(ops, &fkv_cpu_backend);
    assert_ok(fkv_backend_find("reference", &ops, &err), err);
    assert_ptr_equal(ops, &fkv_reference_backend);
    assert_refused(fkv_backend_find("tpu", &ops, &err), err, "expected auto, cpu, cuda or reference, found \"tpu\"");
    assert_int_equal(tested.ops->abi, FKV_BACKEND_ABI);
}

static void memory_keeps_what_was_written(void **state) {
    (void)state;
    size_t count = (size_t)test_between(100, 5000), cut = (size_t)test_between(1, 99);
    float *x = random_numbers(count, 0, 1), *found;
    struct fkv_buffer *a = upload(tested, x, 4 * count), *b, *adopted;
    assert_ok(tested.ops->buffer_create(tested.b, 4 * count, &b, &err), err);
    assert_ok(tested.ops->copy(tested.b, b, 0, a, 4 * cut, 4 * (count - cut), &err), err);
    assert_ok(tested.ops->copy(tested.b, b, 4 * (count - cut), a, 0, 4 * cut, &err), err);
    found = download(tested, b, count);
    assert_memory_equal(found, x + cut, 4 * (count - cut));
    assert_memory_equal(found + count - cut, x, 4 * cut);
    assert_ok(tested.ops->write(tested.b, a, 4 * cut, found, 4 * (count - cut), &err), err);
    assert_ok(tested.ops->read(tested.b, a, 4 * cut, x, 4 * (count - cut), &err), err);
    assert_memory_equal(found, x, 4 * (count - cut));
    free(found);
    assert_ok(tested.ops->buffer_adopt(tested.b, x, 4 * count, &adopted, &err), err);
    found = download(tested, adopted, count);
    assert_memory_equal(found, x, 4 * count);
    assert_non_null(tested.ops->address(b));
    struct fkv_device_info info;
    assert_ok(tested.ops->info(tested.b, &info, &err), err);
    assert_true(info.name[0] && info.memory_total > 0);
    if (info.space == FKV_HOST) assert_int_equal((uintptr_t)tested.ops->address(b) % 64, 0);
    assert_ok(tested.ops->synchronize(tested.b, &err), err);
    tested.ops->buffer_release(tested.b, a);
    tested.ops->buffer_release(tested.b, b);
    tested.ops->buffer_release(tested.b, adopted);
    tested.ops->buffer_release(tested.b, NULL);
    tested.ops->map_release(tested.b, NULL);
    tested.ops->close(NULL);
    free(found), free(x);
}

static void embedding_copies_rows_exactly(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int vocab = test_between(1, 300), dim = test_between(1, 130), rows = random_rows();
        struct weight table = random_weight(random_dtype(), vocab, dim, 0, 1);
        struct fkv_attention_shape shape = random_shape();
        shape.dim = dim;
        reserve_both(shape, rows, 1, vocab, 1);
        int32_t *tokens = malloc(sizeof *tokens * (size_t)rows);
        for (int i = 0; i < rows; i++) tokens[i] = test_between(0, vocab - 1);
        struct both x = random_both((size_t)(rows * dim), 0, 1);
        assert_ok(tested.ops->embed(tested.b, &table.tested, tokens, rows, x.tested, &err), err);
        assert_ok(reference.ops->embed(reference.b, &table.reference, tokens, rows, x.reference, &err), err);
        assert_both_close(x, 0, 0);
        release(x);
        release_weight(&table);
        free(tokens);
    }
}

static struct fkv_qkv_weights qkv_of(const struct weight w[9], bool for_reference, float eps) {
    struct fkv_weight v[9];
    for (int i = 0; i < 9; i++) v[i] = for_reference ? w[i].reference : w[i].tested;
    return (struct fkv_qkv_weights){v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], eps};
}

static void norm_and_projections_with_biases_and_head_norms(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        if (s.heads * s.head_dim > 600) s.dim = test_between(1, 40);
        int rows = random_rows(), q_rows = s.heads * s.head_dim, k_rows = s.kv_heads * s.head_dim;
        bool biased = test_between(0, 1), normed = test_between(0, 1);
        enum fkv_dtype t = random_dtype();
        float eps = 1e-5f;
        struct weight w[9] = {random_weight(t, 1, s.dim, 1, 0.2), random_weight(t, q_rows, s.dim, 0, 0.1),
                              random_weight(t, k_rows, s.dim, 0, 0.1), random_weight(t, k_rows, s.dim, 0, 0.1)};
        if (biased) {
            w[4] = random_weight(t, 1, q_rows, 0, 0.5);
            w[5] = random_weight(t, 1, k_rows, 0, 0.5);
            w[6] = random_weight(t, 1, k_rows, 0, 0.5);
        }
        if (normed) {
            w[7] = random_weight(random_dtype(), 1, s.head_dim, 1, 0.2);
            w[8] = random_weight(random_dtype(), 1, s.head_dim, 1, 0.2);
        }
        reserve_both(s, rows, 1, 1, 1);
        struct fkv_qkv_weights ours = qkv_of(w, false, eps), theirs = qkv_of(w, true, eps);
        struct both x = random_both((size_t)(rows * s.dim), 0.1, 3), q = random_both((size_t)(rows * q_rows), 0, 1);
        struct both k = random_both((size_t)(rows * k_rows), 0, 1), v = random_both((size_t)(rows * k_rows), 0, 1);
        assert_ok(tested.ops->norm_qkv(tested.b, &s, &ours, x.tested, rows, q.tested, k.tested, v.tested, &err), err);
        assert_ok(reference.ops->norm_qkv(reference.b, &s, &theirs, x.reference, rows, q.reference, k.reference,
                                          v.reference, &err),
                  err);
        assert_both_close(q, 1e-6, 1e-5);
        assert_both_close(k, 1e-6, 1e-5);
        assert_both_close(v, 1e-6, 1e-5);
        assert_both_close(x, 0, 0);
        release(x), release(q), release(k), release(v);
        for (int i = 0; i < 9; i++)
            if (w[i].memory) release_weight(&w[i]);
    }
}

/* Whole positions beyond any table as well as halves: a run compressed to slot centres starts between two. */
static double random_position(void) {
    switch (test_between(0, 3)) {
    case 0: return 0;
    case 1: return test_between(0, 5000);
    case 2: return test_between(0, 2000000);
    default: return test_between(0, 100000) / 2.0;
    }
}

static void appending_rotates_keys_and_touches_nothing_else(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        int rows = random_rows(), capacity = rows + test_between(0, 20);
        struct cache cache = random_cache(&s, random_dtype(), capacity, 0);
        reserve_both(s, rows, 1, 1, capacity);
        size_t d = (size_t)s.head_dim, count = (size_t)rows * (size_t)s.kv_heads * d;
        struct both k = random_both(count, 0.3, 1), v = random_both(count, 0.3, 1);
        float *before[2] = {cache_contents(tested, &cache.tested, cache.tested.key, cache.count),
                            cache_contents(tested, &cache.tested, cache.tested.value, cache.count)};
        struct fkv_append_item items[3];
        for (int h = 0; h < s.kv_heads; h++) {
            int first = test_between(0, rows - 1), some = test_between(1, rows - first);
            items[h] = (struct fkv_append_item){h, first, some, test_between(0, capacity - some), random_position()};
        }
        assert_ok(tested.ops->append(tested.b, &s, k.tested, v.tested, &cache.tested, items, s.kv_heads, &err), err);
        assert_ok(
            reference.ops->append(reference.b, &s, k.reference, v.reference, &cache.reference, items, s.kv_heads, &err),
            err);
        for (int state_of = 0; state_of < 2; state_of++) {
            float *found =
                cache_contents(tested, &cache.tested, state_of ? cache.tested.value : cache.tested.key, cache.count);
            float *exact = cache_contents(reference, &cache.reference,
                                          state_of ? cache.reference.value : cache.reference.key, cache.count);
            for (int h = 0; h < s.kv_heads; h++) {
                size_t from = ((size_t)h * (size_t)capacity + (size_t)items[h].slot) * d,
                       many = (size_t)items[h].rows * d;
                assert_stored(found + from, exact + from, many, cache.tested.dtype, 3e-7);
                memcpy(found + from, before[state_of] + from, 4 * many);
            }
            assert_memory_equal(found, before[state_of], 4 * cache.count);
            free(found), free(exact), free(before[state_of]);
        }
        release(k), release(v);
        release_cache(&cache);
    }
}

static void rotation_holds_at_large_positions_and_in_place(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        int rows = random_rows(), heads = test_between(0, 1) ? s.heads : s.kv_heads;
        double position = random_position();
        reserve_both(s, rows, 1, 1, 1);
        struct both x = random_both((size_t)rows * (size_t)heads * (size_t)s.head_dim, 0, 1),
                    y = random_both(x.count, 0, 1);
        assert_ok(tested.ops->rotate(tested.b, &s, x.tested, rows, heads, position, y.tested, &err), err);
        assert_ok(reference.ops->rotate(reference.b, &s, x.reference, rows, heads, position, y.reference, &err), err);
        assert_both_close(y, 0, 3e-7);
        assert_ok(tested.ops->rotate(tested.b, &s, x.tested, rows, heads, position, x.tested, &err), err);
        float *beside = download(tested, y.tested, y.count), *in_place = download(tested, x.tested, x.count);
        assert_memory_equal(in_place, beside, 4 * x.count);
        free(beside), free(in_place);
        release(x), release(y);
    }
}

/* Up to four runs of slots, the last causal or unlimited, so that every row sees something; earlier ones may be cut by either limit, wholly for some rows. */
static int random_spans(int capacity, int rows, struct fkv_span *spans) {
    int count = 0, slot = test_between(0, 2), last = capacity - rows;
    while (count < 3 && slot + 1 < last && test_between(0, 2)) {
        struct fkv_span *s = &spans[count++];
        *s = (struct fkv_span){.first = slot,
                               .end = test_between(slot + 1, last),
                               .from = FKV_NO_LIMIT_BELOW,
                               .until = FKV_NO_LIMIT_ABOVE};
        s->position = random_position();
        s->fixed = test_between(0, 1);
        if (test_between(0, 1)) s->from = test_between(s->first - rows, s->end + 3);
        if (test_between(0, 1)) s->until = test_between(s->first - rows, s->end + 3);
        slot = s->end + test_between(0, 2);
    }
    slot = slot < last ? slot : last;
    spans[count] = (struct fkv_span){.first = slot,
                                     .end = capacity,
                                     .from = FKV_NO_LIMIT_BELOW,
                                     .position = random_position(),
                                     .fixed = test_between(0, 1)};
    spans[count].until = test_between(0, 3) ? last + 1 : FKV_NO_LIMIT_ABOVE;
    if (test_between(0, 1)) spans[count].from = last - test_between(0, 5);
    return count + 1;
}

static void attention_over_spans_with_limits_and_positions(void **state) {
    (void)state;
    for (int round = 0; round < 2 * ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        if (test_between(0, 3) == 0) s.scale *= 20; /* one slot takes it all */
        int rows = random_rows(), all = rows + test_between(0, 3), capacity = rows + test_between(0, 150),
            group = s.heads / s.kv_heads;
        struct cache cache = random_cache(&s, random_dtype(), capacity, 0.2);
        reserve_both(s, all, 1, 1, capacity);
        struct both q = random_both((size_t)all * (size_t)s.heads * (size_t)s.head_dim, 0.2, 1),
                    out = random_both(q.count, 0, 1);
        float *blank = download(tested, out.tested, out.count);
        assert_ok(reference.ops->write(reference.b, out.reference, 0, blank, 4 * out.count, &err), err);
        struct fkv_attend_item items[24];
        struct fkv_span spans[24 * 4];
        int count = 0, used = 0;
        for (int h = 0; h < s.kv_heads; h++) { /* a KV head's query heads in one item, or each on its own */
            int together = test_between(0, 1) ? group : 1;
            for (int head = h * group; head < (h + 1) * group; head += together) {
                int some = test_between(1, rows);
                items[count] = (struct fkv_attend_item){h, head, together, test_between(0, all - some), some, used, 0};
                items[count].spans = random_spans(capacity, some, spans + used);
                used += items[count++].spans;
            }
        }
        assert_ok(tested.ops->attend(tested.b, &s, q.tested, &cache.tested, spans, items, count, out.tested, &err),
                  err);
        assert_ok(reference.ops->attend(reference.b, &s, q.reference, &cache.reference, spans, items, count,
                                        out.reference, &err),
                  err);
        assert_both_close(out, 1e-6, s.scale * sqrt(s.head_dim) > 2 ? 2e-4 : 1e-5);
        free(blank);
        release(q), release(out);
        release_cache(&cache);
    }
}

static void projections_add_to_the_residual(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        int rows = random_rows(), in = test_between(1, 400);
        s.dim = test_between(1, 150);
        struct weight w = random_weight(random_dtype(), s.dim, in, 0, 0.1);
        reserve_both(s, rows, in, 1, 1);
        struct both x = random_both((size_t)(rows * s.dim), 0, 1), y = random_both((size_t)(rows * in), 0, 1);
        assert_ok(tested.ops->project_residual(tested.b, &w.tested, y.tested, rows, x.tested, &err), err);
        assert_ok(reference.ops->project_residual(reference.b, &w.reference, y.reference, rows, x.reference, &err),
                  err);
        assert_both_close(x, 1e-6, 1e-5);
        release(x), release(y);
        release_weight(&w);
    }
}

static void gate_and_up_make_a_swiglu(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        int rows = random_rows(), hidden = test_between(1, 300);
        enum fkv_dtype t = random_dtype();
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      gate = random_weight(t, hidden, s.dim, 0, 0.5);
        struct weight up = random_weight(t, hidden, s.dim, 0, 0.5);
        reserve_both(s, rows, hidden, 1, 1);
        struct both x = random_both((size_t)(rows * s.dim), 0, 1), out = random_both((size_t)(rows * hidden), 0, 1);
        assert_ok(tested.ops->norm_gate_up(tested.b, &norm.tested, 1e-6f, &gate.tested, &up.tested, x.tested, rows,
                                           out.tested, &err),
                  err);
        assert_ok(reference.ops->norm_gate_up(reference.b, &norm.reference, 1e-6f, &gate.reference, &up.reference,
                                              x.reference, rows, out.reference, &err),
                  err);
        assert_both_close(out, 1e-6, 1e-5);
        release(x), release(out);
        release_weight(&norm), release_weight(&gate), release_weight(&up);
    }
}

static void logits_of_some_rows(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = random_shape();
        int rows = random_rows(), row = test_between(0, 5), vocab = test_between(1, 500);
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      w = random_weight(random_dtype(), vocab, s.dim, 0, 0.5);
        reserve_both(s, row + rows, 1, vocab, 1);
        struct both x = random_both((size_t)((row + rows) * s.dim), 0, 1),
                    logits = random_both((size_t)(rows * vocab), 0, 1);
        assert_ok(
            tested.ops->norm_logits(tested.b, &norm.tested, 1e-5f, &w.tested, x.tested, row, rows, logits.tested, &err),
            err);
        assert_ok(reference.ops->norm_logits(reference.b, &norm.reference, 1e-5f, &w.reference, x.reference, row, rows,
                                             logits.reference, &err),
                  err);
        assert_both_close(logits, 1e-6, 1e-5);
        release(x), release(logits);
        release_weight(&norm), release_weight(&w);
    }
}

static void assert_same_number(double found, double expected, double absolute, double relative) {
    if (isnan(expected) || isinf(expected)) {
        if (!(isnan(expected) ? isnan(found) : found == expected)) fail_msg("found %g, expected %g", found, expected);
        return;
    }
    assert_close(found, expected, absolute, relative);
}

static void scores_are_nats_and_the_first_largest_wins(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int rows = random_rows(), vocab = test_between(1, 3000);
        struct fkv_attention_shape s = random_shape();
        reserve_both(s, rows, 1, vocab, 1);
        float *x = random_numbers((size_t)(rows * vocab), 0, pow(10, test_between(-1, 2)));
        int32_t *targets = malloc(sizeof *targets * (size_t)rows), *top = malloc(sizeof *top * (size_t)rows),
                *best = malloc(sizeof *best * (size_t)rows);
        double *nll = malloc(sizeof *nll * (size_t)rows), *expected = malloc(sizeof *expected * (size_t)rows);
        for (int r = 0; r < rows; r++) {
            float *row = x + r * vocab;
            targets[r] = test_between(0, vocab - 1);
            int kind = test_between(0, 5);
            if (kind == 0) row[test_between(0, vocab - 1)] = NAN;
            if (kind == 1)
                for (int i = 0; i < vocab; i++) row[i] = -INFINITY;
            if (kind == 2) row[test_between(0, vocab - 1)] = -INFINITY;
            if (kind == 3) row[test_between(0, vocab - 1)] = row[test_between(0, vocab - 1)] = 1e4f; /* a tie */
        }
        struct both logits = upload_both(x, (size_t)(rows * vocab));
        assert_ok(tested.ops->score(tested.b, logits.tested, targets, rows, vocab, nll, top, &err), err);
        assert_ok(reference.ops->score(reference.b, logits.reference, targets, rows, vocab, expected, best, &err), err);
        for (int r = 0; r < rows; r++) {
            assert_same_number(nll[r], expected[r], 1e-6, 1e-7);
            if (!isnan(expected[r])) assert_int_equal(top[r], best[r]);
        }
        assert_ok(tested.ops->score(tested.b, logits.tested, targets, rows, vocab, nll, NULL, &err), err);
        release(logits);
        free(x), free(targets), free(top), free(best), free(nll), free(expected);
    }
}

static void divergence_is_in_float64_and_zero_for_equals(void **state) {
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        int rows = random_rows(), vocab = test_between(1, 3000);
        struct fkv_attention_shape s = random_shape();
        reserve_both(s, rows, 1, vocab, 1);
        double *kl = malloc(sizeof *kl * (size_t)rows), *expected = malloc(sizeof *expected * (size_t)rows);
        float *x = random_numbers((size_t)(rows * vocab), 0, 3), *y = numbers((size_t)(rows * vocab));
        double apart = pow(10, test_between(-4, 0));
        for (int i = 0; i < rows * vocab; i++) y[i] = x[i] + (float)(apart * test_normal());
        if (test_between(0, 1)) x[test_between(0, rows * vocab - 1)] = -INFINITY;
        struct both p = upload_both(x, (size_t)(rows * vocab)), q = upload_both(y, (size_t)(rows * vocab));
        assert_ok(tested.ops->divergence(tested.b, p.tested, q.tested, rows, vocab, kl, &err), err);
        assert_ok(reference.ops->divergence(reference.b, p.reference, q.reference, rows, vocab, expected, &err), err);
        for (int r = 0; r < rows; r++) assert_same_number(kl[r], expected[r], 1e-13, 1e-9);
        assert_ok(tested.ops->divergence(tested.b, q.tested, q.tested, rows, vocab, kl, &err), err);
        for (int r = 0; r < rows; r++) assert_close(kl[r], 0, 1e-13, 0);
        release(p), release(q);
        free(x), free(y), free(kl), free(expected);
    }
}

int main(void) {
    test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backends_are_found_by_name),
        cmocka_unit_test(memory_keeps_what_was_written),
        cmocka_unit_test(embedding_copies_rows_exactly),
        cmocka_unit_test(norm_and_projections_with_biases_and_head_norms),
        cmocka_unit_test(appending_rotates_keys_and_touches_nothing_else),
        cmocka_unit_test(rotation_holds_at_large_positions_and_in_place),
        cmocka_unit_test(attention_over_spans_with_limits_and_positions),
        cmocka_unit_test(projections_add_to_the_residual),
        cmocka_unit_test(gate_and_up_make_a_swiglu),
        cmocka_unit_test(logits_of_some_rows),
        cmocka_unit_test(scores_are_nats_and_the_first_largest_wins),
        cmocka_unit_test(divergence_is_in_float64_and_zero_for_equals),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
