/* Statistics of probes: p where there is nothing to find, and what intervals rest on. The numbers
 * themselves are checked against a second implementation by tests/e2e/check_probe.py. */
#include "capture/store/probe_damage.h"
#include "tests/unit/support.h"

enum { WINDOWS = 6, SCORE = 400, PREFIX = 30 };

/* `documents` texts of WINDOWS windows in all. Rounding makes every repeated run's KL and
 * nll differ; change 0 is empty, change 1 does no more than the repeated run does, change 2 costs
 * `damage` and as much in KL. */
static struct fkv_probe made_probe(int documents, double damage) {
    struct fkv_probe p = {.layers = 1,
                          .kv_heads = 3,
                          .head_dim = 4,
                          .prefix = PREFIX,
                          .score = SCORE,
                          .change_count = 3};
    p.changes = calloc(3, sizeof *p.changes);
    for (int c = 0; c < 3; c++) {
        p.changes[c] = fkv_probe_change_of(FKV_PROBE_FILTER);
        p.changes[c].layer = 0, p.changes[c].kv_head = c, p.changes[c].states = FKV_PROBE_KEY;
    }
    p.windows = calloc(WINDOWS, sizeof *p.windows);
    p.window_count = WINDOWS;
    for (int w = 0; w < WINDOWS; w++) {
        struct fkv_probe_window *window = &p.windows[w];
        assert_ok(fkv_probe_window_create(&p, window, &err));
        window->document = w * documents / WINDOWS;
        for (int i = 0; i < SCORE; i++) {
            window->untouched_nll[i] = window->nll[i] = (float)(3 + test_normal());
            window->repeat_kl[i] = (float)(1e-9 * (0.5 + test_uniform()));
            window->kl[i] = 0;
            window->nll[SCORE + i] = window->untouched_nll[i] + (float)(1e-6 * test_normal());
            window->kl[SCORE + i] = (float)(1e-9 * (0.5 + test_uniform()));
            window->nll[2 * SCORE + i] =
                window->untouched_nll[i] + (float)(damage * (1 + test_normal()));
            window->kl[2 * SCORE + i] = (float)(damage * (0.5 + test_uniform()));
        }
    }
    return p;
}

TEST(a_change_that_is_no_change_has_no_small_p) {
    for (int documents = 1; documents <= WINDOWS; documents += WINDOWS - 1) {
        int small = 0, trials = 60;
        for (int t = 0; t < trials; t++) {
            struct fkv_damage damage;
            struct fkv_probe p = made_probe(documents, 0.01);
            assert_ok(fkv_damage_make(&p, &damage, &err));
            assert_true(damage.row[0].p[FKV_DAMAGE_KL] >
                        0.9); /* an empty change does less than rounding does */
            assert_true(isnan(damage.row[0].p[FKV_DAMAGE_NLL]));
            small += damage.row[1].p[FKV_DAMAGE_KL] < 0.05;
            assert_true(damage.row[2].p[FKV_DAMAGE_KL] < 1e-4 &&
                        damage.row[2].q[FKV_DAMAGE_KL] < 1e-3);
            fkv_damage_free(&damage);
            fkv_probe_free(&p);
        }
        assert_frequency(small, trials, 0.05);
    }
}

TEST(kl_is_not_tested_where_the_repeated_run_is_missing) {
    struct fkv_damage damage;
    struct fkv_probe p = made_probe(3, 0.01);
    p.windows[2].repeat_kl[7] = NAN;
    assert_ok(fkv_damage_make(&p, &damage, &err));
    for (int c = 0; c < 3; c++)
        assert_true(isnan(damage.row[c].p[FKV_DAMAGE_KL]) && isnan(damage.row[c].q[FKV_DAMAGE_KL]));
    assert_true(damage.row[2].p[FKV_DAMAGE_NLL] < 0.05 &&
                isfinite(damage.row[2].mean[FKV_DAMAGE_KL].low));
    fkv_damage_free(&damage);
    fkv_probe_free(&p);
}

TEST(the_unit_of_a_probe_is_what_its_documents_allow) {
    const struct {
        int documents;
        enum fkv_se_unit unit;
    } cases[] = {{1, FKV_SE_BLOCKS}, {3, FKV_SE_DOCUMENTS_AND_BLOCKS}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_damage damage;
        struct fkv_probe p = made_probe(cases[i].documents, 0.01);
        assert_ok(fkv_damage_make(&p, &damage, &err));
        assert_int_equal(damage.units.kind, cases[i].unit);
        assert_int_equal(damage.units.documents, cases[i].documents);
        assert_int_equal(damage.units.count,
                         2 * WINDOWS); /* 400 tokens are a block of 256 and a rest */
        fkv_damage_free(&damage);
        fkv_probe_free(&p);
    }
}

/* Two families of one label: each is corrected by itself, whatever it is called. */
TEST(families_are_corrected_apart) {
    struct fkv_probe p = made_probe(3, 0.01);
    struct fkv_damage damage;
    p.changes[2].family = 1;
    assert_ok(fkv_damage_make(&p, &damage, &err));
    assert_close(damage.row[2].q[FKV_DAMAGE_NLL], damage.row[2].p[FKV_DAMAGE_NLL], 0, 0);
    fkv_damage_free(&damage);
    fkv_damage_free(&damage);
    fkv_probe_free(&p);
}

TEST(numbers_that_are_not_finite_are_refused_by_name) {
    struct fkv_probe p = made_probe(3, 0.01);
    struct fkv_damage damage;
    snprintf(p.changes[1].label, FKV_PROBE_LABEL, "a filter");
    p.windows[3].kl[SCORE + 5] = NAN;
    assert_refused(fkv_damage_make(&p, &damage, &err),
                   "change 1 (\"a filter\"): expected finite numbers for kl");
    fkv_probe_free(&p);
}
