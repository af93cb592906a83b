/* What findings rest on: the files of sources as commands write them, and the report's table of
 * texts. */
#include "analyze/commands/command.h"
#include "analyze/report/report.h"
#include "analyze/tables/sources.h"
#include "kernels/base/atomic_file.h"
#include "tests/unit/analyze/made_captures.h"
#include "tests/unit/analyze/made_probes.h"

static char capture[300], out[300];

static int setup(void **state) {
    make_folder(state);
    snprintf(capture, sizeof capture, "%s/capture", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    /* a text, another, and the first again */
    struct made m = {.layers = 1,
                     .heads = 1,
                     .query_group = 1,
                     .head_dim = 4,
                     .recordings = 3,
                     .tokens = {40, 40, 40},
                     .offset = {0, 0, 40},
                     .document = {0, 1, 0},
                     .dtype = FKV_F32,
                     .states = 3,
                     .trained_context = 36,
                     .value = made_drift};
    made_write(&m, capture);
    return 0;
}

static int spectrum(void) {
    char *argv[] = {(char *)"freqkv-analyze spectrum", capture, (char *)"--out", out,
                    (char *)"--quiet"};
    return fkv_command_spectrum(5, argv);
}

static char *text_of(const char *name) { /* malloc'd */
    char path[700], *text = NULL;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", out, name);
    assert_ok(fkv_read_file(path, 1 << 24, &text, &bytes, &err));
    return text;
}

static void put(const char *name, const char *text) { test_write_text(test_path(out, name), text); }

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

TEST_WITH(a_capture_names_each_text_once_in_its_order, setup, remove_folder) {
    assert_int_equal(spectrum(), 0);
    char *text = text_of("sources.csv"), rows[200], a[65] = "", b[65] = "";
    memset(a, 'a', 64), memset(b, 'b', 64);
    snprintf(rows, sizeof rows, "\ntext,text 0,%s\ntext,text 1,%s\n", a, b);
    assert_int_equal(strncmp(text, "kind,name,sha256\n", 17), 0);
    if (count(text, rows) != 1 || count(text, "\ntext,") != 2)
        fail_msg("expected%sfound\n%s", rows, text);
    free(text);
    assert_int_equal(spectrum(), 0); /* again, over its own */
    put("sources.csv", "mine");
    assert_int_equal(spectrum(), 1);
    text = text_of("sources.csv");
    assert_string_equal(text, "mine");
    free(text);
}

TEST_WITH(runs_and_probes_name_theirs, setup, remove_folder) {
    char path[2][300];
    const double damage[1] = {0.1};
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    struct made_probe p = {.layers = 1,
                           .heads = 1,
                           .head_dim = 4,
                           .prefix = 20,
                           .score = 30,
                           .sinks = 4,
                           .windows = 3,
                           .states = 1,
                           .high = 0.25,
                           .damage = damage};
    snprintf(path[0], sizeof path[0], "%s/half.h5", folder),
        snprintf(path[1], sizeof path[1], "%s/p.h5", folder);
    made_write_run(&r, path[0]);
    made_write_probe(&p, path[1]);
    char *argv[] = {
        (char *)"freqkv-analyze plot", path[0], path[1], (char *)"--out", out, (char *)"--quiet"};
    assert_int_equal(fkv_command_plot(6, argv), 0);
    static const char *const names[] = {"runs_sources.csv", "p_sources.csv"};
    for (int i = 0; i < 2; i++) {
        char *text = text_of(names[i]);
        if (count(text, "\nmodel,") != 1 || count(text, "\ntext,") < 1)
            fail_msg("%s holds\n%s", names[i], text);
        free(text);
    }
}

/* Texts as one row each, with all that used them; names and hashes of other people's files stay
 * text. */
TEST_WITH(the_report_says_which_texts_were_used_for_what, setup, remove_folder) {
    struct fkv_report_outline o;
    char a[65] = "", runs[400], ratios[400];
    memset(a, 'a', 64);
    assert_int_equal(spectrum(), 0);
    snprintf(
        runs, sizeof runs,
        "kind,name,sha256\nmodel,m,123abc\ntext,text 0,%s\ntext,\"a, <b>\",</td>\ntext,unhashed,\n",
        a);
    put("runs_sources.csv", runs);
    put("p_1_sources.csv", runs);
    put("other_sources.csv", "a,b\n1,2\n");
    snprintf(ratios, sizeof ratios,
             "{\"model_sha256\": \"123abc\", \"text_sha256\": [\"%s\", \"fff\", 3]}", a);
    put("gamma.json", ratios);
    assert_ok(fkv_report_write(out, &o, &err));
    char *text = text_of("report.html");
    const char *const rows[] = {
        "<dd><code>123abc</code></dd>",
        "<th scope='row'>text 0</th><td class='text hash'>%s</td><td class='text'>capture, "
        "probe p_1, runs, ratios</td>",
        "<th scope='row'>a, &lt;b&gt;</th><td class='text hash'>&lt;/td&gt;</td><td "
        "class='text'>probe p_1, runs</td>",
        "<th scope='row'>unhashed</th><td class='text hash'>\u2013</td>",
        "<th scope='row'>\u2013</th><td class='text hash'>fff</td><td class='text'>ratios</td>"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char row[400];
        snprintf(row, sizeof row, rows[i], a);
        if (count(text, row) != 1) fail_msg("%d times in the page: %s", count(text, row), row);
    }
    assert_int_equal(count(text, "Table runs_sources.csv"),
                     0); /* not among the other tables as well */
    assert_int_equal(o.left_out.count, 1);
    assert_non_null(
        strstr(o.left_out.text[0], "other_sources.csv: expected columns kind,name,sha256"));
    free(text);
    fkv_report_outline_free(&o);
}

TEST(only_names_of_sources_are_taken_for_them) {
    assert_true(fkv_sources_named("sources.csv") && fkv_sources_named("a_b_sources.csv"));
    assert_false(fkv_sources_named("resources.csv") || fkv_sources_named("sources.csv.bak") ||
                 fkv_sources_named("sources"));
}
