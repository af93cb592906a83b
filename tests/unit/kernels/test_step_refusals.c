/* Steps that go wrong: an operation that fails within one, a repetition that is not the same
 * sequence, scratch that moves between rounds. Afterwards the backend works as before. */
#include "tests/unit/kernels/backend_support.h"

enum { VOCAB = 50, DIM = 37, MOST = 8, ROUNDS = 4 };

struct machine {
    struct weight table;
    struct both x;
    struct fkv_step *step;
};

static struct machine open_machine(void) {
    struct machine m = {.table = random_weight(FKV_F32, VOCAB, DIM, 0, 1),
                        .x = random_both(MOST * DIM, 0, 1)};
    assert_ok(tested.ops->step_create(tested.b, &m.step, &err));
    return m;
}

static void close_machine(struct machine *m) {
    tested.ops->step_release(tested.b, m->step);
    release_weight(&m->table);
    release(m->x);
}

static void embed_random(struct machine *m, int rows) {
    int32_t tokens[MOST];
    for (int i = 0; i < rows; i++) tokens[i] = test_between(0, VOCAB - 1);
    assert_ok(tested.ops->embed(tested.b, &m->table.tested, 1, tokens, rows, m->x.tested, &err));
    assert_ok(reference.ops->embed(reference.b, &m->table.reference, 1, tokens, rows,
                                   m->x.reference, &err));
}

static void good_round(struct machine *m, int rows) {
    assert_ok(tested.ops->step_begin(tested.b, m->step, &err));
    embed_random(m, rows);
    assert_ok(tested.ops->step_end(tested.b, m->step, &err));
    assert_both_close(m->x, 0, 0);
}

/* Round `bad` of several fails in its second operation, and is then given up. */
TEST(a_failed_operation_leaves_stream_and_step_usable) {
    for (int bad = 0; bad < ROUNDS; bad++) {
        struct machine m = open_machine();
        for (int round = 0; round < ROUNDS; round++) {
            if (round == bad) {
                int32_t unknown = VOCAB;
                assert_ok(tested.ops->step_begin(tested.b, m.step, &err));
                embed_random(&m, MOST);
                assert_int_equal(
                    tested.ops->embed(tested.b, &m.table.tested, 1, &unknown, 1, m.x.tested, &err),
                    FKV_FAILED);
                assert_non_null(strstr(err.message, "found 50"));
                assert_ok(tested.ops->synchronize(tested.b, &err));
                embed_random(&m, MOST); /* outside any step */
                assert_both_close(m.x, 0, 0);
            }
            good_round(&m, MOST);
        }
        close_machine(&m);
    }
}

TEST(a_step_may_be_released_between_begin_and_end) {
    for (int rounds = 0; rounds < ROUNDS; rounds++) {
        struct machine m = open_machine();
        for (int round = 0; round < rounds; round++) good_round(&m, MOST);
        assert_ok(tested.ops->step_begin(tested.b, m.step, &err));
        tested.ops->step_release(tested.b, m.step);
        m.step = NULL;
        embed_random(&m, MOST);
        assert_both_close(m.x, 0, 0);
        close_machine(&m);
    }
}

TEST(another_sequence_in_a_recorded_step_is_refused) {
    struct fkv_device_info info;
    assert_ok(tested.ops->info(tested.b, &info, &err));
    if (info.space == FKV_HOST) skip(); /* runs operations as they come */
    for (int before = 1; before < ROUNDS; before++) {
        struct machine m = open_machine();
        for (int round = 0; round < before; round++) good_round(&m, MOST);
        assert_ok(tested.ops->step_begin(tested.b, m.step, &err));
        embed_random(&m, 2); /* stages less than was recorded */
        assert_int_equal(tested.ops->step_end(tested.b, m.step, &err), FKV_FAILED);
        assert_non_null(strstr(err.message, "not the same sequence"));
        good_round(&m, MOST);
        assert_ok(tested.ops->step_begin(tested.b, m.step, &err));
        assert_int_equal(tested.ops->read(tested.b, m.x.tested, 0, &info, 4, &err),
                         FKV_FAILED); /* waits */
        assert_non_null(strstr(err.message, "step"));
        good_round(&m, MOST);
        close_machine(&m);
    }
}

/* A layer's norm and product, which use scratch, while `reserve` grows it between rounds, and is
 * refused what no GPU has. */
TEST(a_recorded_step_survives_a_larger_reserve) {
    struct machine m = open_machine();
    struct weight norm = random_weight(FKV_F32, 1, DIM, 1, 0.2),
                  head = random_weight(FKV_F32, VOCAB, DIM, 0, 0.2);
    struct both logits = random_both(MOST * VOCAB, 0, 1);
    const struct fkv_logits_weights
        ours = {.norm = norm.tested, .w = head.tested, .eps = 1e-5f, .multiplier = 1},
        exact = {.norm = norm.reference, .w = head.reference, .eps = 1e-5f, .multiplier = 1};
    for (int round = 0; round < 2 * ROUNDS; round++) {
        if (round == 0 || round == ROUNDS)
            reserve_both((struct fkv_limits){
                .rows = round ? 4000 : MOST,
                .hidden = round ? 4000 : DIM,
                .vocab = VOCAB,
                .slots = 64,
                .items = 16,
                .attention = {.dim = DIM, .heads = 1, .kv_heads = 1, .head_dim = 8}});
        if (round > ROUNDS && tested_space == FKV_DEVICE) {
            struct fkv_limits immense = {
                .rows = 1 << 29, .dim = 1 << 20, .hidden = 1 << 20, .vocab = 1 << 20};
            assert_refused(tested.ops->reserve(tested.b, &immense, &err),
                           "out of GPU memory: scratch wants ");
        }
        assert_ok(tested.ops->step_begin(tested.b, m.step, &err));
        embed_random(&m, MOST);
        assert_ok(
            tested.ops->norm_logits(tested.b, &ours, m.x.tested, 0, MOST, logits.tested, &err));
        assert_ok(tested.ops->step_end(tested.b, m.step, &err));
        assert_ok(reference.ops->norm_logits(reference.b, &exact, m.x.reference, 0, MOST,
                                             logits.reference, &err));
        double u = unit_of(FKV_F32);
        assert_both_close(logits, 1e-4 + 16 * u, 1e-4 + 16 * u);
    }
    release_weight(&norm), release_weight(&head), release(logits);
    close_machine(&m);
}

TEST_GROUP(open_both, close_both)
