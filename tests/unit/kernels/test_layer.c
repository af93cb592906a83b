/* The steps of a layer but attention, against the reference: row by row through every size at which
 * a product may change its ways, for every dtype of weights. */
#include "tests/unit/kernels/backend_support.h"

enum { ROUNDS = 3 * ROW_COUNTS };

/* Every number of rows with every dtype. */
static enum fkv_dtype dtype_of(int round) {
    return (enum fkv_dtype)((round / ROW_COUNTS + first_round) % 3);
}

/* Angles are rounded to float32 once (2^-23 of a turn's side at most), their cosine and sine in the
 * last bit or two, and so are two products and a sum. */
static const double turned = 1e-6;

/* ---- operations on both sides ---- */

static struct fkv_weight side_of(const struct weight *w, bool exact) {
    return w ? exact ? w->reference : w->tested : (struct fkv_weight){0};
}

static void add_projection(const struct weight *w, const struct weight *norm, float multiplier,
                           struct both in, int rows, struct both x) {
    struct fkv_residual_weights ours = {side_of(w, false), side_of(norm, false), 1e-5f, multiplier},
                                exact = {side_of(w, true), side_of(norm, true), 1e-5f, multiplier};
    assert_ok(tested.ops->project_residual(tested.b, &ours, in.tested, rows, x.tested, &err));
    assert_ok(reference.ops->project_residual(reference.b, &exact, in.reference, rows, x.reference,
                                              &err));
}

static void gate_up(const struct weight *norm, const struct weight *gate, const struct weight *up,
                    enum fkv_activation activation, struct both x, int rows, struct both out) {
    struct fkv_gate_up_weights ours = {side_of(norm, false), side_of(gate, false),
                                       side_of(up, false), 1e-6f, activation},
                               exact = {side_of(norm, true), side_of(gate, true), side_of(up, true),
                                        1e-6f, activation};
    assert_ok(tested.ops->norm_gate_up(tested.b, &ours, x.tested, rows, out.tested, &err));
    assert_ok(
        reference.ops->norm_gate_up(reference.b, &exact, x.reference, rows, out.reference, &err));
}

static void make_logits(const struct weight *norm, const struct weight *w, float multiplier,
                        float softcap, struct both x, int row, int rows, struct both logits) {
    struct fkv_logits_weights ours = {side_of(norm, false), side_of(w, false), 1e-5f, multiplier,
                                      softcap},
                              exact = {side_of(norm, true), side_of(w, true), 1e-5f, multiplier,
                                       softcap};
    assert_ok(tested.ops->norm_logits(tested.b, &ours, x.tested, row, rows, logits.tested, &err));
    assert_ok(reference.ops->norm_logits(reference.b, &exact, x.reference, row, rows,
                                         logits.reference, &err));
}

TEST(embedding_copies_rows_exactly) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        s.dim = random_width(300);
        int vocab = test_between(1, 300), rows = rows_of(round);
        const float multiplier = round % 2 ? 1 : 5.5f;
        struct weight table = random_weight(random_dtype(), vocab, s.dim, 0, 1);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        int32_t *tokens = malloc(sizeof *tokens * (size_t)rows);
        for (int i = 0; i < rows; i++) tokens[i] = test_between(0, vocab - 1);
        struct both x = random_both((size_t)(rows * s.dim), 0, 1);
        assert_ok(
            tested.ops->embed(tested.b, &table.tested, multiplier, tokens, rows, x.tested, &err));
        assert_ok(reference.ops->embed(reference.b, &table.reference, multiplier, tokens, rows,
                                       x.reference, &err));
        assert_both_close(x, 0, 0);
        tokens[test_between(0, rows - 1)] = test_between(0, 1) ? vocab : -1;
        assert_refused(
            tested.ops->embed(tested.b, &table.tested, multiplier, tokens, rows, x.tested, &err),
            "expected an id");
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

/* Normalised rows have the deviation 1.02 (that of the norm's weights); products of dim of them
 * with weights of deviation 0.1 have `size`, heads that are normalised again 1.02. Not heads of few
 * channels: all of them are now and then almost nothing, and the norm magnifies what was rounded
 * with them. */
TEST(norm_and_projections_with_biases_and_head_norms) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round);
        if (rows > 40) s.heads /= s.kv_heads, s.kv_heads = 1;
        int q_rows = s.heads * s.head_dim, k_rows = s.kv_heads * s.head_dim;
        s.dim = random_width(affordable((double)rows * (q_rows + 2 * k_rows), 300));
        bool biased = test_between(0, 1), normed = s.head_dim >= 16 && test_between(0, 1);
        enum fkv_dtype t = dtype_of(round);
        double size = 1.02 * 0.1 * sqrt(s.dim);
        float eps = 1e-5f;
        struct weight w[9] = {
            random_weight(t, 1, s.dim, 1, 0.2), random_weight(t, q_rows, s.dim, 0, 0.1),
            random_weight(t, k_rows, s.dim, 0, 0.1), random_weight(t, k_rows, s.dim, 0, 0.1)};
        if (biased) {
            w[4] = random_weight(t, 1, q_rows, 0, 0.5);
            w[5] = random_weight(t, 1, k_rows, 0, 0.5);
            w[6] = random_weight(t, 1, k_rows, 0, 0.5);
        }
        const bool whole = normed && test_between(0, 2) == 0;
        if (normed) {
            w[7] = random_weight(random_dtype(), 1, whole ? q_rows : s.head_dim, 1, 0.2);
            w[8] = random_weight(random_dtype(), 1, whole ? k_rows : s.head_dim, 1, 0.2);
        }
        reserve_both((struct fkv_limits){.rows = rows, .attention = s});
        struct fkv_qkv_weights ours = qkv_of(w, false, eps), theirs = qkv_of(w, true, eps);
        struct both x = random_both((size_t)(rows * s.dim), 0.1, 3),
                    q = random_both((size_t)(rows * q_rows), 0, 1);
        struct both k = random_both((size_t)(rows * k_rows), 0, 1),
                    v = random_both((size_t)(rows * k_rows), 0, 1);
        assert_ok(tested.ops->norm_qkv(tested.b, &s, &ours, x.tested, rows, q.tested, k.tested,
                                       v.tested, &err));
        assert_ok(reference.ops->norm_qkv(reference.b, &s, &theirs, x.reference, rows, q.reference,
                                          k.reference, v.reference, &err));
        assert_product_close(q, t, normed ? 1.02 : size);
        assert_product_close(k, t, normed ? 1.02 : size);
        assert_product_close(v, t, size);
        assert_both_close(x, 0, 0);
        release(x), release(q), release(k), release(v);
        for (int i = 0; i < 9; i++)
            if (w[i].memory) release_weight(&w[i]);
    }
}

/* Cache heads of several sequences in one call, each with rows of its own out of k and v. */
TEST(appending_rotates_keys_and_touches_nothing_else) {
    enum { SEQUENCES = 4, MOST = 3 * SEQUENCES };
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), capacity = rows + test_between(0, 20),
            sequences = test_between(1, SEQUENCES), heads = sequences * s.kv_heads, slot[MOST],
            some[MOST];
        struct cache cache = random_cache(&s, heads, dtype_of(round), capacity, 0);
        reserve_both(
            (struct fkv_limits){.rows = rows, .slots = capacity, .items = heads, .attention = s});
        size_t d = (size_t)s.head_dim, count = (size_t)rows * (size_t)s.kv_heads * d;
        struct both k = random_both(count, 0.3, 1), v = random_both(count, 0.3, 1);
        float *keys = cache_contents(tested, &cache.tested, false, cache.count),
              *values = cache_contents(tested, &cache.tested, true, cache.count);
        struct fkv_append_item items[MOST];
        for (int i = 0; i < heads; i++) {
            int first = test_between(0, rows - 1);
            some[i] = test_between(1, rows - first);
            slot[i] = test_between(0, capacity - some[i]);
            items[i] = (struct fkv_append_item){i,       i % s.kv_heads, first,
                                                some[i], slot[i],        random_position()};
        }
        assert_ok(tested.ops->append(tested.b, &s, k.tested, v.tested, &cache.tested, items, heads,
                                     &err));
        assert_ok(reference.ops->append(reference.b, &s, k.reference, v.reference, &cache.reference,
                                        items, heads, &err));
        assert_cache(&cache, d, false, keys, slot, some, some, turned);
        assert_cache(&cache, d, true, values, slot, some, some, 0);
        release(k), release(v);
        release_cache(&cache);
        free(keys), free(values);
    }
}

TEST(rotation_holds_at_large_positions_in_place_and_from_a_row_on) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int row = test_between(0, 1) ? test_between(1, 20) : 0, rows = rows_of(round),
            all = row + rows + 2, heads = test_between(0, 1) ? s.heads : s.kv_heads;
        double position = random_position();
        reserve_both((struct fkv_limits){.rows = all, .attention = s});
        struct both x = random_both((size_t)all * (size_t)heads * (size_t)s.head_dim, 0, 1);
        float *blank = random_numbers(x.count, 0, 1);
        struct both y = upload_both(blank, x.count);
        assert_ok(
            tested.ops->rotate(tested.b, &s, x.tested, row, rows, heads, position, y.tested, &err));
        assert_ok(reference.ops->rotate(reference.b, &s, x.reference, row, rows, heads, position,
                                        y.reference, &err));
        assert_both_close(y, 0, turned);
        size_t width = (size_t)heads * (size_t)s.head_dim, first = (size_t)row * width,
               many = (size_t)rows * width;
        float *beside = download(tested, y.tested, y.count),
              *before = download(tested, x.tested, x.count);
        assert_memory_equal(beside, blank, 4 * first);
        assert_memory_equal(beside + first + many, blank + first + many, 4 * 2 * width);
        assert_ok(
            tested.ops->rotate(tested.b, &s, x.tested, row, rows, heads, position, x.tested, &err));
        float *in_place = download(tested, x.tested, x.count);
        memcpy(before + first, beside + first, 4 * many);
        assert_memory_equal(in_place, before, 4 * x.count);
        free(blank), free(beside), free(before), free(in_place);
        release(x), release(y);
    }
}

/* A projection of [rows, in] to the residual [rows, dim], both random. */
static void check_projection(struct fkv_attention_shape s, int rows, int in, enum fkv_dtype t) {
    struct weight w = random_weight(t, s.dim, in, 0, 0.1);
    reserve_both((struct fkv_limits){.rows = rows, .hidden = in, .attention = s});
    struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                y = random_both((size_t)(rows * in), 0, 1);
    add_projection(&w, NULL, 1, y, rows, x);
    assert_product_close(x, t, 0.1 * sqrt(in));
    release(x), release(y);
    release_weight(&w);
}

TEST(projections_add_to_the_residual) {
    for (int round = 0; round < 2 * ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round);
        s.dim = random_width(300);
        int in = random_width(affordable((double)rows * s.dim, 700));
        check_projection(s, rows, in, dtype_of(round));
    }
}

/* More rows than a product takes at once, and weights in one panel, in some, in many. */
TEST(many_rows_of_narrow_matrices) {
    static const int many[] = {511, 512, 513, 768, 1024, 1290};
    for (int round = 0; round < 12; round++) {
        struct fkv_attention_shape s = shape_of(round);
        const int rows = many[round % 6], in = test_between(1, 40);
        s.dim = test_between(0, 1) ? test_between(1, 70) : test_between(200, 700);
        check_projection(s, rows, in, random_dtype());
    }
}

/* One to nine rows of widths as models have them: whole rounds of a matrix-vector product, and
 * columns enough for several warps to share an output. */
TEST(few_rows_of_wide_matrices) {
    static const int widths[] = {1024, 2048, 4096, 1032, 3000};
    for (int rows = 1; rows <= 9; rows++) {
        struct fkv_attention_shape s = shape_of(rows);
        enum fkv_dtype t = (enum fkv_dtype)((rows + first_round) % 3);
        int dim = s.dim = widths[(rows + first_round) % 5], outputs = test_between(1, 50);
        struct weight norm = random_weight(t, 1, dim, 1, 0.2),
                      w = random_weight(t, outputs, dim, 0, 0.1),
                      up = random_weight(t, outputs, dim, 0, 0.1);
        double size = 1.02 * 0.1 * sqrt(dim);
        reserve_both(
            (struct fkv_limits){.rows = rows, .hidden = outputs, .vocab = outputs, .attention = s});
        struct both x = random_both((size_t)(rows * dim), 0, 1),
                    y = random_both((size_t)(rows * outputs), 0, 1);
        add_projection(&w, NULL, 1, x, rows, y);
        assert_product_close(y, t, 0.1 * sqrt(dim));
        make_logits(&norm, &w, 1, 0, x, 0, rows, y);
        assert_product_close(y, t, size);
        gate_up(&norm, &w, &up, FKV_SILU, x, rows, y);
        assert_product_close(y, t, 2 * size * size);
        release(x), release(y);
        release_weight(&norm), release_weight(&w), release_weight(&up);
    }
}

/* With g and u of deviation s = 1.02 * 0.5 sqrt(dim), silu(g) u errs by |silu'(g) u| e_g +
 * |silu(g)| e_u, both about s times as much as g and u themselves. */
TEST(gate_and_up_make_a_swiglu) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), hidden = random_width(300);
        s.dim = random_width(affordable(2.0 * rows * hidden, 300));
        enum fkv_dtype t = dtype_of(round);
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      gate = random_weight(t, hidden, s.dim, 0, 0.5);
        struct weight up = random_weight(t, hidden, s.dim, 0, 0.5);
        double size = 1.02 * 0.5 * sqrt(s.dim);
        reserve_both((struct fkv_limits){.rows = rows, .hidden = hidden, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    out = random_both((size_t)(rows * hidden), 0, 1);
        gate_up(&norm, &gate, &up, FKV_SILU, x, rows, out);
        assert_product_close(out, t, 2 * size * (size > 1 ? size : 1));
        release(x), release(out);
        release_weight(&norm), release_weight(&gate), release_weight(&up);
    }
}

/* ---- beyond 65504, where float16 ends: weights in it may make numbers that it cannot hold ---- */

TEST(gate_and_up_pass_the_range_of_f16) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), hidden = random_width(60);
        s.dim = random_width(affordable(2.0 * rows * hidden, 300));
        /* The product passes the range in every second round, gate and up by themselves in the
         * others. */
        double deviation = round & 1 ? 300 / sqrt(s.dim) : 10000,
               size = 1.02 * deviation * sqrt(s.dim);
        struct weight norm = random_weight(FKV_F16, 1, s.dim, 1, 0.2),
                      gate = random_weight(FKV_F16, hidden, s.dim, 0, deviation),
                      up = random_weight(FKV_F16, hidden, s.dim, 0, deviation);
        reserve_both((struct fkv_limits){.rows = rows, .hidden = hidden, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    out = random_both((size_t)(rows * hidden), 0, 1);
        gate_up(&norm, &gate, &up, FKV_SILU, x, rows, out);
        assert_product_close(out, FKV_F16, 2 * size * size);
        release(x), release(out);
        release_weight(&norm), release_weight(&gate), release_weight(&up);
    }
}

/* Every third row has a channel that float16 cannot hold, up to 1e9; the rows beside it keep the
 * digits they have alone. */
TEST(projections_take_rows_beyond_the_range_of_f16) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round);
        s.dim = random_width(200);
        int in = random_width(affordable((double)rows * s.dim, 300));
        struct weight w = random_weight(FKV_F16, s.dim, in, 0, 0.1);
        reserve_both((struct fkv_limits){.rows = rows, .hidden = in, .attention = s});
        float *inputs = random_numbers((size_t)(rows * in), 0, 1);
        for (int r = round % 3; r < rows; r += 3)
            inputs[r * in + test_between(0, in - 1)] =
                (float)pow(10, 4.9 + 0.1 * test_between(0, 41));
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    y = upload_both(inputs, (size_t)(rows * in));
        add_projection(&w, NULL, 1, y, rows, x);
        float *found = download(tested, x.tested, x.count),
              *expected = download(reference, x.reference, x.count);
        double u = fmax(unit_of(FKV_F16), 1e-6);
        for (int r = 0; r < rows; r++) {
            double size = 0.1 * sqrt(in) * root_mean_square(inputs + r * in, (size_t)in);
            assert_arrays_close(found + r * s.dim, expected + r * s.dim, (size_t)s.dim,
                                8 * u * size, 4 * u);
        }
        release(x), release(y);
        release_weight(&w);
        free(inputs), free(found), free(expected);
    }
}

/* Normed rows of the deviation 30000: some pass the range, some do not. */
TEST(norms_pass_the_range_of_f16) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), outputs = random_width(60);
        s.dim = random_width(affordable((double)rows * outputs, 300));
        struct weight norm = random_weight(FKV_F16, 1, s.dim, 30000, 3000),
                      w = random_weight(FKV_F16, outputs, s.dim, 0, 0.1);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = outputs, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    y = random_both((size_t)(rows * outputs), 0, 1);
        make_logits(&norm, &w, 1, 0, x, 0, rows, y);
        assert_product_close(y, FKV_F16, 1.01 * 30000 * 0.1 * sqrt(s.dim));
        release(x), release(y);
        release_weight(&norm), release_weight(&w);
    }
}

TEST(logits_of_some_rows) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), row = test_between(0, 5), vocab = random_width(700);
        s.dim = random_width(affordable((double)rows * vocab, 300));
        enum fkv_dtype t = dtype_of(round);
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      w = random_weight(t, vocab, s.dim, 0, 0.5);
        reserve_both((struct fkv_limits){.rows = row + rows, .vocab = vocab, .attention = s});
        struct both x = random_both((size_t)((row + rows) * s.dim), 0, 1),
                    logits = random_both((size_t)(rows * vocab), 0, 1);
        make_logits(&norm, &w, 1, 0, x, row, rows, logits);
        assert_product_close(logits, t, 1.02 * 0.5 * sqrt(s.dim));
        release(x), release(logits);
        release_weight(&norm), release_weight(&w);
    }
}

/* Families that normalise what attention and MLP add, or scale it. A row of a few channels may be
 * almost nothing, and the norm magnifies what was rounded with it: see above. */
TEST(projections_are_normalised_and_scaled_before_they_are_added) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round);
        s.dim = 16 + random_width(280);
        int in = random_width(affordable((double)rows * s.dim, 700));
        enum fkv_dtype t = dtype_of(round);
        const bool normed = round % 3 != 0;
        const float multiplier = round % 2 ? 1 : 0.22f;
        struct weight w = random_weight(t, s.dim, in, 0, 0.1),
                      norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2);
        reserve_both((struct fkv_limits){.rows = rows, .hidden = in, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    y = random_both((size_t)(rows * in), 1, 1);
        add_projection(&w, normed ? &norm : NULL, multiplier, y, rows, x);
        assert_product_close(x, t, multiplier * (normed ? 1.5 : 0.15 * sqrt(in)));
        release(x), release(y);
        release_weight(&w), release_weight(&norm);
    }
}

TEST(inputs_without_a_norm_are_taken_as_they_are) {
    for (int round = 0; round < ROW_COUNTS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), hidden = random_width(200);
        s.dim = random_width(affordable(2.0 * rows * hidden, 300));
        enum fkv_dtype t = dtype_of(round);
        struct weight gate = random_weight(t, hidden, s.dim, 0, 0.5),
                      up = random_weight(t, hidden, s.dim, 0, 0.5);
        double size = 0.5 * sqrt(s.dim);
        reserve_both(
            (struct fkv_limits){.rows = rows, .hidden = hidden, .vocab = hidden, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    out = random_both((size_t)(rows * hidden), 0, 1);
        gate_up(NULL, &gate, &up, FKV_SILU, x, rows, out);
        assert_product_close(out, t, 2 * size * size);
        make_logits(NULL, &up, 1, 0, x, 0, rows, out);
        assert_product_close(out, t, size);
        release(x), release(out);
        release_weight(&gate), release_weight(&up);
    }
}

/* As for silu; the derivative of GELU is 1.13 at most. */
TEST(gate_and_up_make_a_geglu) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), hidden = random_width(300);
        s.dim = random_width(affordable(2.0 * rows * hidden, 300));
        enum fkv_dtype t = dtype_of(round);
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      gate = random_weight(t, hidden, s.dim, 0, 0.5),
                      up = random_weight(t, hidden, s.dim, 0, 0.5);
        double size = 1.02 * 0.5 * sqrt(s.dim);
        reserve_both((struct fkv_limits){.rows = rows, .hidden = hidden, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    out = random_both((size_t)(rows * hidden), 0, 1);
        gate_up(&norm, &gate, &up, FKV_GELU_TANH, x, rows, out);
        assert_product_close(out, t, 2.2 * size * size);
        release(x), release(out);
        release_weight(&norm), release_weight(&gate), release_weight(&up);
    }
}

/* The cap's derivative is 1 at most. */
TEST(logits_are_scaled_and_capped) {
    for (int round = 0; round < ROUNDS; round++) {
        struct fkv_attention_shape s = shape_of(round);
        int rows = rows_of(round), vocab = random_width(700);
        s.dim = random_width(affordable((double)rows * vocab, 300));
        enum fkv_dtype t = dtype_of(round);
        const float multiplier = round % 3 ? 1 : 1 / 1.7f, softcap = round % 2 ? 0 : 7;
        struct weight norm = random_weight(random_dtype(), 1, s.dim, 1, 0.2),
                      w = random_weight(t, vocab, s.dim, 0, 0.5);
        reserve_both((struct fkv_limits){.rows = rows, .vocab = vocab, .attention = s});
        struct both x = random_both((size_t)(rows * s.dim), 0, 1),
                    logits = random_both((size_t)(rows * vocab), 0, 1);
        make_logits(&norm, &w, multiplier, softcap, x, 0, rows, logits);
        assert_product_close(logits, t, 1.02 * 0.5 * sqrt(s.dim));
        release(x), release(logits);
        release_weight(&norm), release_weight(&w);
    }
}

TEST_GROUP(open_both, close_both)
