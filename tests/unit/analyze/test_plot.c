/* `plot` as a user runs it: which figures come of which file, that they are whole, and what is refused. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "analyze/command.h"
#include "analyze/damage.h"
#include "tests/unit/analyze/made_probes.h"

static char base[256], out[300];

static int setup(void **state) {
    (void)state;
    snprintf(out, sizeof out, "%s/out", test_make_folder(base));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_remove_folder(base);
    return 0;
}

static char *named(char path[300], const char *name) {
    snprintf(path, 300, "%s/%s", base, name);
    return path;
}

static int plot(const char *first, const char *second) {
    char *argv[8] = {
        (char *)"freqkv-analyze plot", (char *)"--quiet", (char *)"--out", out, (char *)first, (char *)second};
    char to[300];
    int saved = dup(2), stream = open(named(to, "stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(stream, 2), close(stream);
    int status = fkv_command_plot(second ? 6 : 5, argv);
    fflush(NULL);
    dup2(saved, 2), close(saved);
    return status;
}

static bool said(const char *words) {
    static char text[4096];
    char from[300];
    FILE *f = fopen(named(from, "stderr"), "r");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    if (!strstr(text, words)) printf("stderr: %s", text);
    return strstr(text, words);
}

/* NAME.png, NAME.svg and NAME.csv (unless it is a map). */
static void assert_figure(const char *name, bool table) {
    static const char *const endings[] = {"png", "svg", "csv"};
    for (int i = 0; i < 2 + table; i++) {
        char path[600];
        struct stat s;
        snprintf(path, sizeof path, "%s/%s.%s", out, name, endings[i]);
        if (stat(path, &s) || s.st_size < (i < 2 ? 2000 : 40)) fail_msg("%s is missing or empty", path);
    }
}

static int files_in_out(void) {
    int count = 0;
    DIR *d = opendir(out);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

static struct made_probe small_probe(const double *damage) {
    return (struct made_probe){.layers = 3,
                               .heads = 2,
                               .head_dim = 4,
                               .prefix = 20,
                               .score = 300,
                               .sinks = 4,
                               .windows = 3,
                               .states = 2,
                               .low = 0,
                               .high = 0.25,
                               .noise = 0.001,
                               .damage = damage};
}

static void every_file_gets_its_figures(void **state) {
    (void)state;
    char probe[300], run[300];
    const double damage[6] = {0, 0.1, 0.2, 0, -0.1, 0.05};
    struct made_probe p = small_probe(damage);
    struct made_run r = {3, 2, 4, 36, 4, 10, 500, 0, 0, 0.05};
    made_write_probe(&p, named(probe, "changes.h5"));
    made_write_run(&r, named(run, "half.h5"));
    assert_int_equal(plot(probe, run), 0);
    assert_figure("changes_filters", true);
    assert_figure("changes_policies", true);
    assert_figure("changes_classes", true);
    assert_figure("changes_heads_delta_nll", false);
    assert_figure("changes_heads_kl", false);
    assert_figure("runs_perplexity", true);
    assert_figure("runs_distance", true);
    assert_figure("half_rounds", true);
    assert_int_equal(files_in_out(), 8 * 2 + 6 + 1 + 2);
    assert_int_equal(plot(probe, run), 0); /* again, over its own */
    assert_int_equal(files_in_out(), 8 * 2 + 6 + 1 + 2);
}

/* L = floor(gamma n) rounds it down; the name of the run's file does not. */
static void a_run_stands_at_the_ratio_that_was_asked_for(void **state) {
    (void)state;
    char run[300], path[600], text[4096];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05}; /* which asked for 10.5 / 32 */
    made_write_run(&r, named(run, "a.h5"));
    assert_int_equal(plot(run, NULL), 0);
    snprintf(path, sizeof path, "%s/runs_perplexity.csv", out);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    if (!strstr(text, ",0.328125,") || strstr(text, "0.3125"))
        fail_msg("expected the place 0.328125 alone, found\n%s", text);
}

static void a_table_is_drawn_by_its_numbers_and_told_apart_by_its_texts(void **state) {
    (void)state;
    char table[300];
    FILE *f = fopen(named(table, "costs.csv"), "w");
    fputs(
        "policy,tokens,tflops,note\r\nfull,10,1.5,\"a, \"\"b\"\"\"\r\nfull,20,,\"a, \"\"b\"\"\"\nlocal,10,1,x\nlocal,20,2,x",
        f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 0);
    assert_figure("costs", false);
    assert_int_equal(files_in_out(), 2);
    f = fopen(table, "w");
    fputs("policy,tokens,tflops\nfull,10\n", f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 1);
    assert_true(said("row 1: expected 3 cells, found 2"));
    f = fopen(table, "w");
    fputs("policy,tokens\nfull,10\n", f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 1);
    assert_true(said("expected two columns of numbers or more"));
}

static void a_file_of_somebody_else_is_never_replaced(void **state) {
    (void)state;
    char run[300], mine[600], text[16] = "";
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05};
    made_write_run(&r, named(run, "half.h5"));
    mkdir(out, 0700);
    snprintf(mine, sizeof mine, "%s/runs_perplexity.csv", out);
    FILE *f = fopen(mine, "w");
    fputs("mine", f);
    fclose(f);
    assert_int_equal(plot(run, NULL), 1);
    assert_true(said("runs_perplexity.csv: exists, and freqkv-analyze did not make it"));
    f = fopen(mine, "r");
    assert_int_equal(fread(text, 1, 15, f), 4);
    fclose(f);
    assert_string_equal(text, "mine");
}

static void what_cannot_be_drawn_is_refused(void **state) {
    (void)state;
    char run[300], other[300], folder[300];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05};
    made_write_run(&r, named(run, "half.h5"));
    assert_int_equal(plot("/nonexistent.h5", NULL), 1);
    assert_true(said("/nonexistent.h5"));
    mkdir(named(folder, "b"), 0700);
    r.model = 2;
    made_write_run(&r, named(other, "b/half.h5"));
    assert_int_equal(plot(run, other), 1);
    assert_true(said("found \"half\" twice"));
    made_write_run(&r, named(other, "b/whole.h5"));
    assert_int_equal(plot(run, other), 1);
    assert_true(said("expected runs of one model, found 111111111111 and 333333333333"));
    r.retained = 0;
    made_write_run(&r, named(run, "nothing.h5"));
    assert_int_equal(plot(run, NULL), 1);
    assert_true(said("/retained: layer 0, KV head 0: expected 1 slot or more, found 0"));
    r.retained = 10, r.sinks = -1;
    made_write_run(&r, named(run, "below.h5"));
    assert_int_equal(plot(run, NULL), 1);
    assert_true(said("window and sinks: expected numbers from 0 on, found 36 and -1"));
    r.sinks = 4, r.layers = 1 << 20, r.heads = 2;
    struct fkv_h5_writer *w;
    struct fkv_error err;
    assert_ok(fkv_h5_create(named(run, "many.h5"), &w, &err), err);
    made_put_run(w, &r);
    assert_ok(fkv_h5_commit(w, &err), err);
    assert_int_equal(plot(run, NULL), 1);
    assert_true(said("expected 1 to 1048576 heads, found 1048576 layers of 2"));
}

/* By the formula, from the numbers that were put in. */
static void damage_is_the_mean_difference_and_its_units_are_blocks(void **state) {
    (void)state;
    char path[300];
    const double damage[6] = {0, 0.1, 0.2, 0, -0.1, 0.05};
    struct made_probe m = small_probe(damage);
    struct fkv_error err;
    struct fkv_probe p;
    struct fkv_damage d;
    m.noise = 0;
    made_write_probe(&m, named(path, "probe.h5"));
    assert_ok(fkv_probe_read(path, &p, &err), err);
    assert_ok(fkv_damage_make(&p, &d, &err), err);
    assert_int_equal(d.units.count, 3 * 2); /* 300 tokens are a block of 256 and a rest */
    assert_false(d.units.documents);
    for (int i = 0; i < 6; i++) {
        assert_close(d.row[3 + i].mean[FKV_DAMAGE_NLL].estimate, damage[i], 1e-6, 0);
        assert_close(d.row[3 + i].mean[FKV_DAMAGE_KL].estimate, fmax(0, damage[i]), 1e-6, 0);
    }
    double room[12], se;
    int64_t tokens;
    assert_close(fkv_damage_of_class(&d, 4, 1, &se, &tokens, room).estimate, 0.1, 1e-6, 0);
    assert_int_equal(tokens, 3 * 75);
    fkv_damage_free(&d);
    p.windows[1].nll[3 * m.score + 7] = NAN;
    assert_refused(fkv_damage_make(&p, &d, &err), err,
                   "change 3 (\"filter 0:0.25, value\"): expected finite numbers for delta_nll");
    fkv_probe_free(&p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_file_gets_its_figures),
        TEST(a_run_stands_at_the_ratio_that_was_asked_for),
        TEST(a_table_is_drawn_by_its_numbers_and_told_apart_by_its_texts),
        TEST(a_file_of_somebody_else_is_never_replaced),
        TEST(what_cannot_be_drawn_is_refused),
        TEST(damage_is_the_mean_difference_and_its_units_are_blocks),
    };
    return test_run(tests, NULL, NULL);
}
