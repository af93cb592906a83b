/* `plot` as a user runs it: which figures come of which file, that they are whole, and what is
 * refused. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "analyze/commands/command.h"
#include "analyze/link/token_classes.h"
#include "analyze/plots/figures.h"
#include "tests/unit/analyze/made_probes.h"

static char out[300];

static int setup(void **state) {
    make_folder(state);
    snprintf(out, sizeof out, "%s/out", folder);
    return 0;
}

static char *named(char path[300], const char *name) {
    snprintf(path, 300, "%s/%s", folder, name);
    return path;
}

static int plot(const char *first, const char *second) {
    char *argv[8] = {(char *)"freqkv-analyze plot",
                     (char *)"--quiet",
                     (char *)"--out",
                     out,
                     (char *)first,
                     (char *)second};
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
        if (stat(path, &s) || s.st_size < (i < 2 ? 2000 : 40))
            fail_msg("%s is missing or empty", path);
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

/* All figures of runs. */
static int draw_runs(const struct fkv_run *runs, int32_t count, struct fkv_plot_target *to,
                     struct fkv_error *err) {
    for (const struct fkv_figure_row *f = fkv_figures; f->files; f++)
        if (f->runs && f->runs(runs, count, to, err)) return FKV_FAILED;
    return FKV_OK;
}

TEST_WITH(every_file_gets_its_figures, setup, remove_folder) {
    char probe[300], run[300];
    const double damage[6] = {0, 0.1, 0.2, 0, -0.1, 0.05};
    struct made_probe p = small_probe(damage);
    struct made_run r = {3, 2, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
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
    assert_figure("runs_position", true);
    assert_figure("half_rounds", true);
    assert_int_equal(files_in_out(), 9 * 2 + 7 + 1 + 2);
    assert_int_equal(plot(probe, run), 0); /* again, over its own */
    assert_int_equal(files_in_out(), 9 * 2 + 7 + 1 + 2);
}

/* L = floor(gamma n) rounds it down; the name of the run's file does not. */
TEST_WITH(a_run_stands_at_the_ratio_that_was_asked_for, setup, remove_folder) {
    char run[300], path[600], text[4096];
    struct made_run r = {1, 1, 4,    36, 4,    10,   500,
                         0, 0, 0.05, 0,  NULL, false}; /* which asked for 10.5 / 32 */
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

TEST_WITH(a_table_is_drawn_by_its_numbers_and_told_apart_by_its_texts, setup, remove_folder) {
    char table[300];
    FILE *f = fopen(named(table, "costs.csv"), "w");
    fputs("policy,tokens,tflops,note\r\nfull,10,1.5,\"a, \"\"b\"\"\"\r\nfull,20,,\"a, "
          "\"\"b\"\"\"\nlocal,10,1,x\nlocal,20,2,x",
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

/* Rows of two policies, one of them not whole, as freqkv-replay needle writes them. */
TEST_WITH(needles_are_drawn_as_maps, setup, remove_folder) {
    char table[300];
    FILE *f = fopen(named(table, "keys.csv"), "w");
    fputs("task,policy,window,length,depth,repeat,exact,logprob_per_token,found\n"
          "needle,full,,512,0,0,1,-0.5,\" 1\"\nneedle,full,,1024,1,0,0,-1.5,\" 2\"\n"
          "needle,local,64,512,0,0,0,-2.5,\" 3\"\n",
          f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 0);
    assert_figure("keys_exact", false);
    assert_figure("keys_logprob", false);
    assert_int_equal(files_in_out(), 4); /* and no lines of its numbers */
    f = fopen(table, "w");
    fputs("task,policy,length,depth,repeat,gain\nrecall,full,512,0.5,0,0.25\n", f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 0);
    assert_figure("keys_recall", false);
    f = fopen(table, "w");
    fputs("task,policy,length,depth,repeat,gain\nrecall,full,512,1.5,0,0.25\n", f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 1);
    assert_true(said("row 1: depth: expected 0 to 1"));
}

/* Two policies at two lengths, as freqkv-replay bench writes them. */
TEST_WITH(times_are_drawn_over_lengths, setup, remove_folder) {
    static const char names[] = "policy,label,window,gamma,length,decode_ms,decode_ms_low,"
                                "decode_ms_high,prefill_s,cache_bytes_peak\n";
    char table[300];
    FILE *f = fopen(named(table, "times.csv"), "w");
    fprintf(f,
            "%sfull,full,,,512,2,1,3,0.5,1000000\nfreqkv,\"freqkv, recent 8\",64,0.5,512,2,2,2,1,"
            "5e5\nfull,full,,,1024,4,3,6,1,2e6\n",
            names);
    fclose(f);
    assert_int_equal(plot(table, NULL), 0);
    assert_figure("times_times", false);
    assert_int_equal(files_in_out(), 2); /* and no lines of its numbers */
    f = fopen(table, "w");
    fprintf(f, "%sfull,full,,,0,2,1,3,0.5,1000000\n", names);
    fclose(f);
    assert_int_equal(plot(table, NULL), 1);
    assert_true(said("row 1: expected a length above 0"));
}

static const char *table_of(const char *name) {
    static char text[16384];
    char path[600];
    snprintf(path, sizeof path, "%s/%s.csv", out, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

TEST_WITH(runs_that_say_their_time_are_drawn_by_it, setup, remove_folder) {
    struct fkv_run runs[2] = {0};
    const struct fkv_provenance provenance = {"1", "00", "plot", "made"};
    struct fkv_plot_target to = {.folder = folder, .stem = "runs", .provenance = &provenance};
    char path[300];
    const struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    made_write_run(&r, named(path, "a.h5"));
    for (int i = 0; i < 2; i++) assert_ok(fkv_run_read(path, &runs[i], &err));
    assert_true(isnan(runs[0].ms_per_token) && isnan(runs[0].compression_share));
    assert_ok(fkv_plot_runs_time(runs, 2, &to, &err));
    assert_int_equal(to.figures, 0);
    runs[0].ms_per_token = 2.5, runs[0].compression_share = 0.125;
    assert_ok(fkv_plot_runs_time(runs, 2, &to, &err));
    assert_int_equal(to.figures, 1);
    char text[4096];
    FILE *f = fopen(named(path, "runs_time.csv"), "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    const char *time = strstr(text, ",0.328125,2.5,");
    if (!time || strstr(time + 1, ",0.328125,2.5,") || !strstr(text, ",0.328125,12.5,"))
        fail_msg("expected the times of one run, found\n%s", text);
    for (int i = 0; i < 2; i++) fkv_run_free(&runs[i]);
}

TEST_WITH(comparisons_are_drawn_against_bytes, setup, remove_folder) {
    char table[300];
    FILE *f = fopen(named(table, "compare.csv"), "w");
    fputs("policy,budget,delta_nll,delta_nll_low,delta_nll_high,kl,kl_se,recall_delta,"
          "recall_delta_se,cache_bytes_peak\n"
          "full,,,,,,,,,4194304\nlocal,64,0.3,0.2,0.4,0.2,0.15,,,1048576\n"
          "local,128,0.1,0,0.2,0.1,0.01,,,2097152\nfreqkv,64,0.4,0.2,0.6,0.3,0.1,,,1048576\n",
          f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 0);
    assert_figure("compare_pareto", true);
    assert_int_equal(files_in_out(), 3); /* and no lines of its numbers */
    const char *text = table_of("compare_pareto");
    assert_non_null(strstr(text, "nll to full attention,Pareto front,4,0,,"));
    assert_non_null(strstr(text, "Pareto front,1,0.3"));
    assert_non_null(strstr(text, "freqkv,1,0.4,0.2,0.6"));
    assert_null(strstr(text, "recall"));
}

/* A run with --recent compresses fewer slots: its ratio is of those, and its points are of another
 * line. */
TEST_WITH(options_of_a_run_tell_it_apart, setup, remove_folder) {
    char plain[300], recent[300];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    made_write_run(&r, named(plain, "a.h5"));
    r.recent = 11, r.cache = "f16"; /* 10.5 / 21 */
    made_write_run(&r, named(recent, "b.h5"));
    assert_int_equal(plot(plain, recent), 0);
    const char *text = table_of("runs_perplexity");
    assert_non_null(strstr(text, "\"freqkv, window 36\",0.328125,"));
    assert_non_null(strstr(text, "\"freqkv, recent 11, window 36, cache f16\",0.5,"));
    assert_non_null(
        strstr(table_of("runs_distance"), "freqkv, recent 11, window 36, cache f16, \u03b3 = 0.5"));
}

/* A policy without a ratio has no place on that axis, but its value is drawn; where it cannot be,
 * that is said. */
TEST_WITH(a_run_without_a_ratio_is_drawn_or_named, setup, remove_folder) {
    char ours[300], rival[300];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    made_write_run(&r, named(ours, "a.h5"));
    r.streaming = true;
    made_write_run(&r, named(rival, "b.h5"));
    assert_int_equal(plot(ours, rival), 0);
    assert_non_null(strstr(table_of("runs_perplexity"), "\"streaming, window 36\",,"));
    assert_null(strstr(table_of("runs_distance"), "streaming"));
    struct fkv_run runs[2];
    const struct fkv_provenance provenance = {"1", "0", "test", ""};
    struct fkv_plot_target at = {out, "runs", &provenance, json_array(), 0};
    assert_ok(fkv_run_read(ours, &runs[0], &err));
    assert_ok(fkv_run_read(rival, &runs[1], &err));
    assert_ok(draw_runs(runs, 2, &at, &err));
    assert_int_equal(json_array_size(at.left_out), 1);
    json_t *row = json_array_get(at.left_out, 0);
    assert_string_equal(json_string_value(json_object_get(row, "figure")), "runs_distance");
    assert_string_equal(json_string_value(json_object_get(row, "file")), rival);
    json_decref(at.left_out);
    at.left_out = json_array();
    assert_ok(draw_runs(runs + 1, 1, &at, &err)); /* alone there is no axis */
    assert_int_equal(json_array_size(at.left_out), 4);
    json_decref(at.left_out);
    fkv_run_free(&runs[0]), fkv_run_free(&runs[1]);
}

/* Two ratio tables of one mean are two series. */
TEST_WITH(ratios_per_head_tell_runs_apart, setup, remove_folder) {
    int32_t tables[3][4] = {{8, 8, 8, 8}, {4, 4, 12, 12}, {12, 12, 4, 4}};
    struct fkv_run runs[3];
    char label[3][FKV_RUN_LABEL];
    for (int i = 0; i < 3; i++)
        runs[i] = (struct fkv_run){.policy_label = "freqkv",
                                   .window = 20,
                                   .compressible = 16,
                                   .layers = 2,
                                   .kv_heads = 2,
                                   .retained = tables[i]};
    for (int i = 0; i < 3; i++) fkv_run_label(runs, 3, i, label[i]);
    assert_string_equal(label[0], "freqkv, window 20");
    assert_non_null(strstr(label[1], "freqkv, window 20, ratios per head "));
    assert_non_null(strstr(label[2], "freqkv, window 20, ratios per head "));
    assert_string_not_equal(label[1], label[2]);
    fkv_run_label(runs, 2, 1, label[1]); /* alone of its kind it needs no name */
    assert_string_equal(label[1], "freqkv, window 20, ratios per head");
}

TEST_WITH(a_plot_that_fails_leaves_no_folder, setup, remove_folder) {
    char table[300];
    FILE *f = fopen(named(table, "costs.csv"), "w");
    fputs("policy,tokens\nfull,10\n", f);
    fclose(f);
    assert_int_equal(plot(table, NULL), 1);
    assert_int_equal(files_in_out(), -1);
    assert_int_equal(mkdir(out, 0700),
                     0); /* a folder that was there stays, also when it is empty */
    assert_int_equal(plot(table, NULL), 1);
    assert_int_equal(files_in_out(), 0);
}

TEST_WITH(points_of_one_curve_differ_in_their_ratio_only, setup, remove_folder) {
    char path[300];
    struct fkv_run runs[2];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, "f32", false};
    made_write_run(&r, named(path, "a.h5"));
    assert_ok(fkv_run_read(path, &runs[0], &err));
    static const char *const expected[] = {
        NULL, "options \"recent=0\" and \"recent=4\"", "\"cache f32\" and \"cache f16\"",
        "found policy \"freqkv\" and \"streaming\"", "\"window 36\" and \"window 40\""};
    for (int i = 0; i < 5; i++) {
        struct made_run other = r;
        other.retained = 5;
        if (i == 1) other.recent = 4;
        if (i == 2) other.cache = "f16";
        if (i == 3) other.streaming = true;
        if (i == 4) other.window = 40;
        made_write_run(&other, named(path, (const char *[]){"0", "1", "2", "3", "4"}[i]));
        assert_ok(fkv_run_read(path, &runs[1], &err));
        if (expected[i])
            assert_refused(fkv_runs_compare(&runs[0], &runs[1], &err), expected[i]);
        else
            assert_ok(fkv_runs_compare(&runs[0], &runs[1], &err));
        if (!i) { /* a rounded cache stands in the label alone */
            strcat(runs[1].policy_label, ", q4 cache");
            assert_refused(fkv_runs_compare(&runs[0], &runs[1], &err), ", q4 cache\"");
        }
        fkv_run_free(&runs[1]);
    }
    fkv_run_free(&runs[0]);
}

TEST_WITH(a_file_of_somebody_else_is_never_replaced, setup, remove_folder) {
    char run[300], mine[600], text[16] = "";
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
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

TEST_WITH(files_of_one_name_take_their_folders_too, setup, remove_folder) {
    char run[300], other[300], path[300];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    made_write_run(&r, named(run, "half.h5"));
    mkdir(named(path, "b"), 0700);
    r.retained = 20;
    made_write_run(&r, named(other, "b/half.h5"));
    assert_int_equal(plot(run, other), 0);
    assert_int_equal(access(named(path, "out/b_half_rounds.csv"), R_OK), 0);
    assert_int_equal(access(named(path, "out/half_rounds.csv"), R_OK), -1);
}

TEST_WITH(what_cannot_be_drawn_is_refused, setup, remove_folder) {
    char run[300], other[300], folder[300];
    struct made_run r = {1, 1, 4, 36, 4, 10, 500, 0, 0, 0.05, 0, NULL, false};
    made_write_run(&r, named(run, "half.h5"));
    assert_int_equal(plot("/nonexistent.h5", NULL), 1);
    assert_true(said("/nonexistent.h5"));
    assert_int_equal(plot(run, run), 1);
    assert_true(said("half\" twice"));
    mkdir(named(folder, "b"), 0700);
    r.model = 2;
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
    assert_true(said("window, sinks and compressible: expected numbers from 0 on, the last at most "
                     "the first, found 36, -1"));
    r.sinks = 4, r.layers = 1 << 20, r.heads = 2;
    struct fkv_h5_writer *w;
    assert_ok(fkv_h5_create(named(run, "many.h5"), &w, &err));
    made_put_run(w, &r);
    assert_ok(fkv_h5_commit(w, &err));
    assert_int_equal(plot(run, NULL), 1);
    assert_true(said("expected 1 to 1048576 heads, found 1048576 layers of 2"));
}

/* By the formula, from the numbers that were put in. */
TEST_WITH(damage_is_the_mean_difference_and_its_units_are_blocks, setup, remove_folder) {
    char path[300];
    const double damage[6] = {0, 0.1, 0.2, 0, -0.1, 0.05};
    struct made_probe m = small_probe(damage);
    struct fkv_probe p;
    struct fkv_damage d;
    m.noise = 0;
    made_write_probe(&m, named(path, "probe.h5"));
    assert_ok(fkv_probe_read(path, &p, &err));
    assert_ok(fkv_damage_make(&p, &d, &err));
    assert_int_equal(d.units.count, 3 * 2); /* 300 tokens are a block of 256 and a rest */
    assert_int_equal(d.units.kind, FKV_SE_BLOCKS);
    for (int i = 0; i < 6; i++) {
        assert_close(d.row[3 + i].mean[FKV_DAMAGE_NLL].estimate, damage[i], 1e-6, 0);
        assert_close(d.row[3 + i].mean[FKV_DAMAGE_KL].estimate, fmax(0, damage[i]), 1e-6, 0);
    }
    double room[12], se;
    int64_t tokens;
    assert_close(fkv_damage_of_class(&d, 4, 1, &se, &tokens, room).estimate, 0.1, 1e-6, 0);
    assert_int_equal(tokens, 3 * 75);
    fkv_damage_free(&d);
    for (int w = 1; w < 3; w++)
        p.windows[w].document = w; /* three texts: documents, and blocks within them */
    assert_ok(fkv_damage_make(&p, &d, &err));
    assert_int_equal(d.units.kind, FKV_SE_DOCUMENTS_AND_BLOCKS);
    assert_int_equal(d.units.count, 3 * 2);
    fkv_damage_free(&d);
    p.windows[1].nll[3 * m.score + 7] = NAN;
    assert_refused(fkv_damage_make(&p, &d, &err),
                   "change 3 (\"filter 0:0.25, value\"): expected finite numbers for delta_nll");
    fkv_probe_free(&p);
}

/* KL is tested against that of the repeated run: without one there is no p, and what does no more
 * than it has no small one. */
TEST_WITH(a_change_that_is_no_change_has_no_small_p, setup, remove_folder) {
    char path[300];
    const double damage[6] = {0, 0.1, 0.2, 0, 0, 0.05};
    struct made_probe m = small_probe(damage);
    struct fkv_probe p;
    struct fkv_damage d;
    m.noise = 0.01;
    made_write_probe(&m, named(path, "probe.h5"));
    assert_ok(fkv_probe_read(path, &p, &err));
    for (int w = 0; w < 3; w++)
        for (int i = 0; i < m.score; i++)
            p.windows[w].repeat_kl[i] = (float)(0.01 * fmax(0, test_normal()));
    assert_ok(fkv_damage_make(&p, &d, &err));
    assert_true(d.row[0].p[FKV_DAMAGE_KL] > 0.9); /* the empty change: KL 0, below the floor */
    assert_true(d.row[4].p[FKV_DAMAGE_KL] < 1e-4 && d.row[4].q[FKV_DAMAGE_KL] < 1e-3);
    assert_true(d.row[3].p[FKV_DAMAGE_KL] > 1e-7 &&
                d.row[6].p[FKV_DAMAGE_KL] > 1e-7); /* noise alone */
    fkv_damage_free(&d);
    p.windows[2].repeat_kl[0] = NAN;
    assert_ok(fkv_damage_make(&p, &d, &err));
    for (int i = 0; i < 9; i++)
        assert_true(isnan(d.row[i].p[FKV_DAMAGE_KL]) && isnan(d.row[i].q[FKV_DAMAGE_KL]));
    assert_true(isfinite(d.row[4].mean[FKV_DAMAGE_KL].low) && isfinite(d.row[4].p[FKV_DAMAGE_NLL]));
    fkv_damage_free(&d);
    fkv_probe_free(&p);
}
