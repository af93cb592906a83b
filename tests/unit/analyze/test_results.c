/* results.h5, the CSV files and the folder they live in. */
#include <unistd.h>

#include "analyze/measure/error.h"
#include "analyze/tables/results.h"
#include "analyze/tables/tables.h"
#include "capture/store/h5.h"
#include "tests/unit/support.h"

static char path[300];

static int setup(void **state) {
    make_folder(state);
    snprintf(path, sizeof path, "%s/results.h5", folder);
    return 0;
}

enum { LAYERS = 2, HEADS = 2, N = 100 };

static double *numbers(struct fkv_memory *m, size_t count) {
    double *x = fkv_memory_take(m, count, sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = exp(test_normal());
    return x;
}

static struct fkv_spectrum random_spectrum(enum fkv_state state) {
    struct fkv_spectrum s = {.state = state,
                             .layers = LAYERS,
                             .heads = HEADS,
                             .n = N,
                             .skip_sinks = 4,
                             .documents = 3,
                             .segments = 7,
                             .tokens_left_out = 11,
                             .se_kind = "bootstrap",
                             .null_kind = "permute"};
    s.layer_index = fkv_memory_take(&s.memory, LAYERS, sizeof(int32_t));
    s.head_index = fkv_memory_take(&s.memory, HEADS, sizeof(int32_t));
    s.layer_index[1] = 5;
    s.head_index[1] = 3;
    s.power = numbers(&s.memory, LAYERS * HEADS * N);
    s.power_se = numbers(&s.memory, LAYERS * HEADS * N);
    s.null = numbers(&s.memory, LAYERS * HEADS * N);
    s.normalised = numbers(&s.memory, LAYERS * N);
    s.rounding_floor = numbers(&s.memory, LAYERS * HEADS);
    s.bands = 2;
    s.band_edge = fkv_memory_take(&s.memory, 3, sizeof(int32_t));
    s.band_edge[0] = 1, s.band_edge[1] = 10, s.band_edge[2] = N;
    s.band_se = numbers(&s.memory, LAYERS * HEADS * 2);
    return s;
}

static const struct fkv_provenance provenance = {"0.0", "abc123", "freqkv-analyze spectrum 'a b'",
                                                 "made"};

static int save(const struct fkv_spectrum *s, const struct fkv_error_curves *e, const char *sha,
                struct fkv_error *err) {
    struct fkv_provenance p = provenance;
    p.capture_sha256 = sha;
    const struct fkv_results_intent intent = {folder, e ? "error" : "spectrum", sha, s->n,
                                              s->skip_sinks};
    const struct fkv_findings findings = {.provenance = &p, .states = 1, .spectra = s, .curves = e};
    return fkv_results_check(&intent, err) || fkv_results_write(folder, &findings, err) ? FKV_FAILED
                                                                                        : FKV_OK;
}

static void check_dataset(const char *name, size_t count, const double *expected) {
    struct fkv_h5_reader *r;
    double *found = malloc(count * sizeof *found);
    assert_ok(fkv_h5_open(path, &r, &err));
    assert_ok(fkv_h5_get(r, name, FKV_H5_F64, (int64_t)count, found, &err));
    for (size_t i = 0; i < count; i++) assert_close(found[i], expected[i], 0, 0);
    fkv_h5_close(r);
    free(found);
}

TEST_WITH(both_commands_live_in_one_file_in_any_order_and_again, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY), newer = random_spectrum(FKV_STATE_KEY);
    struct fkv_error_curves e;
    const double gamma[] = {0.25, 0.5, 1};
    assert_ok(fkv_error_curves_make(&s, gamma, 3, &e, &err));
    for (int order = 0; order < 2; order++) {
        if (order) unlink(path);
        assert_ok(save(&s, order ? &e : NULL, "abc123", &err));
        assert_ok(save(&s, order ? NULL : &e, "abc123", &err));
        assert_ok(save(&newer, NULL, "abc123", &err));
        check_dataset("/spectrum/key/power", LAYERS * HEADS * N, newer.power);
        check_dataset("/spectrum/key/power_null", LAYERS * HEADS * N, newer.null);
        check_dataset("/spectrum/key/power_normalised", LAYERS * N, newer.normalised);
        check_dataset("/error/key/gamma", 3, gamma);
        check_dataset("/error/key/retained_energy_no_dc", LAYERS * HEADS * 3,
                      fkv_error_curve(&e, FKV_RETAINED_ENERGY, true));
        check_dataset("/error/key/cosine", LAYERS * HEADS * 3,
                      fkv_error_curve(&e, FKV_COSINE, false));
        struct fkv_h5_reader *r;
        char text[128];
        bool found;
        double number;
        assert_ok(fkv_h5_open(path, &r, &err));
        assert_ok(fkv_h5_get_string(r, "/error", "command", text, sizeof text, &found, &err));
        assert_string_equal(text, provenance.command);
        assert_ok(fkv_h5_get_string(r, "/spectrum", "null", text, sizeof text, &found, &err));
        assert_string_equal(text, "permute");
        assert_ok(fkv_h5_get_double(r, "/", "tokens_left_out", &number, &found, &err));
        assert_close(number, 11, 0, 0);
        fkv_h5_close(r);
    }
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
    fkv_spectrum_free(&newer);
}

static void put_file(const char *name, const char *text) {
    test_write_text(test_path(folder, name), text);
}

static struct fkv_ratio_table random_table(void) {
    struct fkv_ratio_table t = {.layers = LAYERS,
                                .heads = HEADS,
                                .n = N,
                                .losses = FKV_LOSSES,
                                .choice = {.by_budget = true}};
    t.layer_index = fkv_memory_take(&t.memory, LAYERS, sizeof(int32_t));
    t.head_index = fkv_memory_take(&t.memory, HEADS, sizeof(int32_t));
    for (int i = 0; i < FKV_LOSSES; i++)
        t.loss[i] = numbers(&t.memory, LAYERS * HEADS * (FKV_RATIO_STEPS + 1));
    t.gamma = numbers(&t.memory, LAYERS * HEADS);
    t.retained = fkv_memory_take(&t.memory, LAYERS * HEADS, sizeof(int32_t));
    return t;
}

/* Ratios, too, outlast the other commands, and their file names are theirs alone. */
TEST_WITH(ratios_live_beside_the_others, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY);
    struct fkv_ratio_table t = random_table();
    const struct fkv_results_intent intent = {folder, "gamma", "abc123", N, 4};
    struct fkv_provenance p = provenance;
    p.capture_sha256 = "abc123";
    const struct fkv_findings findings = {
        .provenance = &p, .states = 1, .spectra = &s, .ratios = &t};
    put_file("gamma.json", "mine");
    assert_refused(fkv_results_check(&intent, &err), "gamma.json: exists");
    char full[400];
    snprintf(full, sizeof full, "%s/gamma.json", folder);
    unlink(full);
    assert_ok(fkv_results_check(&intent, &err));
    assert_ok(fkv_results_write(folder, &findings, &err));
    assert_ok(save(&s, NULL, "abc123", &err));
    check_dataset("/gamma/gamma", LAYERS * HEADS, t.gamma);
    check_dataset("/gamma/loss_value", LAYERS * HEADS * (FKV_RATIO_STEPS + 1),
                  t.loss[FKV_LOSS_VALUE]);
    check_dataset("/gamma/loss_objective_projected", LAYERS * HEADS * (FKV_RATIO_STEPS + 1),
                  t.loss[FKV_LOSS_PROJECTED]);
    check_dataset("/spectrum/key/power", LAYERS * HEADS * N, s.power);
    put_file("gamma.json", "ours by now");
    assert_ok(fkv_results_check(&intent, &err));
    fkv_ratio_table_free(&t);
    fkv_spectrum_free(&s);
}

TEST_WITH(findings_of_another_capture_or_cut_are_not_mixed, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY);
    struct fkv_error_curves e;
    const double gamma[] = {0.5};
    assert_ok(fkv_error_curves_make(&s, gamma, 1, &e, &err));
    assert_ok(save(&s, NULL, "abc123", &err));
    assert_refused(save(&s, &e, "def456", &err), "of capture abc123, this is capture def456");
    s.n = 50;
    assert_refused(save(&s, &e, "abc123", &err),
                   "segments of 100 tokens after 4 sinks, this run has 50");
    s.n = N;
    s.skip_sinks = 0;
    assert_refused(save(&s, &e, "abc123", &err), "after 4 sinks, this run has 100 after 0");
    assert_ok(save(&s, NULL, "abc123", &err)); /* its own it may replace */
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
}

/* What no command writes, under a name of ours: NaN has no integer. */
TEST_WITH(a_cut_that_is_no_number_is_refused, setup, remove_folder) {
    static const int32_t lengths[2] = {N, 0};
    static const struct fkv_segment_plan cut = {.n = N};
    const struct fkv_results_intent intent = {folder, "error", "abc123", N, 4};
    const struct fkv_results_dataset dataset = {"segment_length", FKV_H5_I32, 1, {2}, lengths};
    struct fkv_provenance p = provenance;
    struct fkv_h5_writer *w;
    p.capture_sha256 = "abc123";
    const struct fkv_findings link = {
        .provenance = &p, .cut = &cut, .datasets = 1, .dataset = &dataset};
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "freqkv-results", &err));
    assert_ok(fkv_h5_put_string(w, "/", "capture_sha256", "abc123", &err));
    assert_ok(fkv_h5_put_string(w, "/spectrum", "version", "0", &err));
    assert_ok(fkv_h5_put_double(w, "/", "segment_length", NAN, &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_results_check(&intent, &err),
                   "segment_length of /: expected an integer, found nan");
    assert_refused(fkv_results_write(folder, &link, &err),
                   "segment_length: expected an integer, found nan");
}

TEST_WITH(foreign_files_are_never_replaced, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY);
    put_file("notes.txt", "mine"); /* beside, not in the way */
    put_file("spectrum_of_light.txt", "mine");
    put_file("spectrum_key.png", "mine");
    assert_refused(save(&s, NULL, "abc123", &err), "spectrum_key.png: exists");
    assert_int_equal(access(path, F_OK), -1);
    char png[300];
    snprintf(png, sizeof png, "%s/spectrum_key.png", folder);
    unlink(png);
    put_file("results.h5", "mine");
    assert_refused(save(&s, NULL, "abc123", &err),
                   "results.h5: exists, and freqkv-analyze did not make it");
    unlink(path);
    struct fkv_h5_writer *w;
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_string(w, "/", "format", "something else", &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(save(&s, NULL, "abc123", &err), "freqkv-analyze did not make it");
    fkv_spectrum_free(&s);
}

TEST_WITH(a_leftover_of_a_killed_run_is_no_obstacle, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_VALUE);
    put_file(".results.h5.new", "half");
    assert_ok(save(&s, NULL, "abc123", &err));
    check_dataset("/spectrum/value/power_se", LAYERS * HEADS * N, s.power_se);
    char fresh[300];
    snprintf(fresh, sizeof fresh, "%s/.results.h5.new", folder);
    assert_int_equal(access(fresh, F_OK), -1);
    fkv_spectrum_free(&s);
}

TEST_WITH(csv_rows_hold_the_numbers_of_the_bands, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY);
    char csv[300], line[512];
    snprintf(csv, sizeof csv, "%s/spectrum.csv", folder);
    s.power_se[0] = NAN;
    assert_ok(fkv_spectrum_csv(folder, &s, 1, &err));
    FILE *f = fopen(csv, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f)); /* header */
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "key,0,0,0,1,0,"));
    assert_non_null(strstr(line, ",,")); /* no standard error: empty, not nan */
    double total = 0, share = 0, share_no_dc = 0;
    int rows = 1;
    for (int t = 0; t < N; t++) total += s.power[t];
    while (fgets(line, sizeof line, f)) {
        char name[16];
        int layer, head, low, high;
        double cycles, power, se, null, excess, energy, energy_no_dc;
        rows++;
        int fields =
            sscanf(line, "%15[^,],%d,%d,%d,%d,%lf,%lf,%lf,%lf,%lf,%lf,%lf", name, &layer, &head,
                   &low, &high, &cycles, &power, &se, &null, &excess, &energy, &energy_no_dc);
        if (layer != 0 || head != 0) continue;
        assert_int_equal(fields, 12);
        double sum = 0, null_sum = 0;
        for (int t = low; t < high; t++) sum += s.power[t], null_sum += s.null[t];
        assert_close(power, sum / (high - low), 0, 1e-8);
        assert_close(excess, sum / null_sum, 0, 1e-8);
        assert_close(energy, sum / total, 0, 1e-8);
        assert_close(cycles, (low + high - 1) / 2.0 / (2.0 * N), 0, 1e-8);
        share += energy, share_no_dc += energy_no_dc;
    }
    fclose(f);
    assert_int_equal(rows, LAYERS * HEADS * 3);
    assert_close(share, 1 - s.power[0] / total, 0, 1e-8);
    assert_close(share_no_dc, 1, 0, 1e-8);
    fkv_spectrum_free(&s);
}

/* A row of the table is all it takes to be in results.h5, and in the CSV that its kind goes to. */
TEST_WITH(every_measure_is_in_results_and_csv_by_its_name, setup, remove_folder) {
    struct fkv_spectrum s = random_spectrum(FKV_STATE_KEY);
    struct fkv_error_curves e;
    const double gamma[] = {0.25, 0.5};
    char csv[300], header[1024], cell[80];
    assert_ok(fkv_error_curves_make(&s, gamma, 2, &e, &err));
    assert_ok(save(&s, &e, "abc123", &err));
    assert_ok(fkv_error_csv(folder, &e, 1, &err));
    snprintf(csv, sizeof csv, "%s/error.csv", folder);
    FILE *f = fopen(csv, "r");
    assert_non_null(f);
    assert_non_null(fgets(header, sizeof header, f));
    fclose(f);
    header[strcspn(header, "\n")] = ',';
    for (int i = 0; i < 2 * fkv_measure_count; i++) {
        const struct fkv_measure *m = &fkv_measures[i / 2];
        const char *name = m->name[i % 2];
        if (!name) continue;
        snprintf(cell, sizeof cell, ",%s,", name);
        assert_int_equal(strstr(header, cell) != NULL, m->value != NULL);
        snprintf(cell, sizeof cell, "/error/key/%s", name);
        if (m->value) check_dataset(cell, LAYERS * HEADS * 2, e.curve[i]);
    }
    fkv_error_curves_free(&e);
    fkv_spectrum_free(&s);
}
