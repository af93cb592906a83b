/* Captures, probes and runs with known answers, joined: what energy predicts is found, what it does
 * not is not, and files that do not belong together are refused. */
#include <sys/stat.h>

#include "analyze/link/predictors.h"
#include "analyze/link/residual.h"
#include "analyze/measure/error.h"
#include "capture/store/capture_reader.h"
#include "tests/unit/analyze/command_output.h"
#include "tests/unit/analyze/made_probes.h"

enum { LAYERS = 6, HEADS = 4, DIM = 4, N = 32, SINKS = 4 };

static char out[300], probe[300];

static int setup(void **state) {
    made_folder(state);
    snprintf(out, sizeof out, "%s/out", folder);
    snprintf(probe, sizeof probe, "%s/probe.h5", folder);
    return 0;
}

/* How much of a head is of high frequency: every head another share, in no order of layers. */
static double loudness(int layer, int head) {
    return pow(1.35, (layer * HEADS + head) * 7 % (LAYERS * HEADS)) / 20;
}

/* A drift, which low coefficients hold, and an alternation as loud as the head has it. */
static double graded(int recording, enum fkv_state state, int layer, int64_t t, int head,
                     int channel) {
    double drift = 10 * cos(acos(-1) * ((double)(t - SINKS) + 0.5) / N * (1 + channel % 2));
    if (state == FKV_STATE_QUERY) return made_white(recording, state, layer, t, head, channel);
    return 2 + drift + loudness(layer, head) * (t % 2 ? 1 : -1) * (1 + 0.1 * channel);
}

static struct made graded_capture(int segments, uint32_t states) {
    return (struct made){.layers = LAYERS,
                         .heads = HEADS,
                         .query_group = 2,
                         .head_dim = DIM,
                         .recordings = 1,
                         .tokens = {SINKS + segments * N},
                         .dtype = FKV_F32,
                         .states = states,
                         .trained_context = 1024,
                         .value = graded};
}

static struct made_probe graded_probe(const double *damage) {
    return (struct made_probe){.layers = LAYERS,
                               .heads = HEADS,
                               .head_dim = DIM,
                               .prefix = N + SINKS,
                               .score = 24,
                               .sinks = SINKS,
                               .windows = 6,
                               .states = 1,
                               .low = 0,
                               .high = 0.5,
                               .noise = 1e-6,
                               .damage = damage};
}

/* Runs link; its stdout and stderr land in files of `folder`. */
static int run_link(const char *option, const char *file, const char *more) {
    char *argv[16] = {(char *)"freqkv-analyze link", (char *)"--capture", path, (char *)option,
                      (char *)file};
    int argc = 5;
    if (more) argv[argc++] = (char *)more;
    argv[argc++] = (char *)"--out", argv[argc++] = out, argv[argc++] = (char *)"--json",
    argv[argc++] = (char *)"--quiet";
    return run_command(fkv_command_link, argc, argv);
}

/* Estimate, low or high of `measure` of a predictor over all layers. */
static double link_of(const json_t *object, const char *damage, const char *predictor,
                      const char *measure, size_t which) {
    size_t i, k;
    json_t *group, *link;
    json_array_foreach(json_object_get(object, "heads"), i, group) {
        if (strcmp(json_string_value(json_object_get(group, "damage")), damage) ||
            strcmp(json_string_value(json_object_get(group, "depth")), "all"))
            continue;
        json_array_foreach(json_object_get(group, "links"), k, link) {
            if (strcmp(json_string_value(json_object_get(link, "predictor")), predictor)) continue;
            const json_t *number = json_array_get(json_object_get(link, measure), which);
            return json_is_number(number) ? json_number_value(number) : NAN;
        }
    }
    fail_msg("no link of %s with %s", predictor, damage);
    return NAN;
}

TEST_WITH(damage_that_follows_lost_energy_has_rank_correlation_one, setup, remove_folder) {
    double damage[LAYERS * HEADS];
    for (int i = 0; i < LAYERS * HEADS; i++)
        damage[i] = 0.01 * sqrt(loudness(i / HEADS, i % HEADS));
    struct made m = graded_capture(30, 3);
    struct made_probe p = graded_probe(damage);
    made_write(&m, path);
    made_write_probe(&p, probe);
    assert_int_equal(run_link("--probes", probe, NULL), 0);
    json_t *object = object_of_stdout();
    static const char *const follows[] = {"energy", "energy_no_dc", "absolute"};
    for (int i = 0; i < 3; i++) {
        assert_close(link_of(object, "delta_nll", follows[i], "spearman", 0), 1, 1e-9, 0);
        assert_close(link_of(object, "delta_nll", follows[i], "spearman", 1), 1, 1e-9, 0);
        assert_close(link_of(object, "kl", follows[i], "spearman_units", 0), 1, 1e-9, 0);
        assert_close(link_of(object, "kl", follows[i], "partial", 0), 1, 1e-9, 0);
    }
    static const char *const lacking[] = {"visible", "attention",
                                          "attention_projected"}; /* no queries, no projection */
    for (int i = 0; i < 3; i++)
        assert_true(isnan(link_of(object, "kl", lacking[i], "spearman", 0)));
    json_decref(object);
}

TEST_WITH(damage_that_has_nothing_to_do_with_energy_covers_zero, setup, remove_folder) {
    double damage[LAYERS * HEADS];
    uint64_t saved = test_state;
    test_state = 11;
    for (int i = 0; i < LAYERS * HEADS; i++) damage[i] = 0.01 * test_uniform();
    test_state = saved;
    struct made m = graded_capture(20, 3);
    struct made_probe p = graded_probe(damage);
    made_write(&m, path);
    made_write_probe(&p, probe);
    assert_int_equal(run_link("--probes", probe, NULL), 0);
    json_t *object = object_of_stdout();
    double low = link_of(object, "delta_nll", "energy_no_dc", "spearman", 1);
    double high = link_of(object, "delta_nll", "energy_no_dc", "spearman", 2);
    if (!(low < 0 && 0 < high)) fail_msg("interval [%g, %g]", low, high);
    json_decref(object);
}

TEST_WITH(more_retained_energy_with_less_loss_is_correlation_minus_one, setup, remove_folder) {
    char runs[4][300];
    struct made m = graded_capture(20, 3);
    made_write(&m, path);
    for (int i = 0; i < 4; i++) {
        struct made_run r = {LAYERS, HEADS, DIM,           N + SINKS, SINKS, 4 + 7 * i, 400,
                             0,      0,     0.1 / (1 + i), 0,         NULL,  false};
        snprintf(runs[i], sizeof runs[i], "%s/run%d.h5", folder, i);
        made_write_run(&r, runs[i]);
    }
    assert_int_equal(run_link("--runs", runs[0], runs[1]), 0);
    char *argv[] = {
        (char *)"x", (char *)"--capture", path, (char *)"--runs", runs[3], runs[0], runs[2],
        runs[1],     (char *)"--out",     out,  (char *)"--quiet"};
    assert_int_equal(fkv_command_link(11, argv), 0); /* in any order */
    char table[320];
    snprintf(table, sizeof table, "%s/link_predictors.csv", out);
    FILE *f = fopen(table, "r");
    assert_non_null(f);
    char line[512];
    int rows = 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "sweep,", 6)) {
            double rho;
            assert_int_equal(sscanf(line, "sweep,both,%*[^,],all,%*[^,],4,%*d,%lf", &rho), 1);
            assert_close(rho, -1, 1e-9, 0);
            rows++;
        }
    fclose(f);
    assert_int_equal(rows, 8);
}

/* Of the capture at `path`, cut into segments of N tokens. */
static struct fkv_predictor_spectra measure_predictors(void) {
    struct fkv_capture *c;
    struct fkv_segment_plan plan;
    struct fkv_workers workers;
    struct fkv_predictor_spectra s;
    assert_ok(fkv_capture_open(path, &c, &err));
    assert_ok(fkv_spectrum_plan(c, N, SINKS, &plan, &err));
    assert_ok(fkv_workers_open(&workers, "cpu", 0, 2, NULL, &err));
    struct fkv_measurement measurement = {.capture = c, .plan = &plan, .workers = &workers};
    assert_ok(fkv_predictor_spectra_measure(&measurement, true, &s, &err));
    fkv_workers_close(&workers);
    fkv_segment_plan_free(&plan);
    fkv_capture_close(c);
    return s;
}

/* lost [N, DIM]: what the coefficients from `kept` on make of the states of a head of the first
 * segment */
static void lost_states(enum fkv_state state, int head, int kept, double lost[N][DIM], double *all,
                        double *dropped) {
    memset(lost, 0, sizeof(double[N][DIM]));
    *all = *dropped = 0;
    for (int ch = 0; ch < DIM; ch++) {
        double x[N];
        for (int j = 0; j < N; j++) x[j] = (float)graded(0, state, 0, SINKS + j, head, ch);
        for (int t = 0; t < N; t++) {
            double y = dct_coefficient(x, N, t);
            *all += y * y;
            if (t < kept) continue;
            *dropped += y * y;
            for (int j = 0; j < N; j++)
                lost[j][ch] += sqrt(2.0 / N) * y * cos(acos(-1) * t * (j + 0.5) / N);
        }
    }
}

/* y' Sigma y from sums of their definitions, without a transform. */
TEST_WITH(visible_energy_is_the_variance_of_scores_that_is_lost, setup, remove_folder) {
    struct made m = graded_capture(1, 11);
    m.layers = 1;
    made_write(&m, path);
    struct fkv_predictor_spectra s = measure_predictors();
    assert_null(s.attention[0]); /* no token follows the segment */
    assert_null(s.visible[1]);
    assert_non_null(strstr(s.gap[FKV_NO_PROJECTION], "output_gram"));
    assert_true(isnan(
        fkv_predictor_value(&s, FKV_PREDICTOR_VISIBLE, 0, 0, 2, (struct fkv_kept){0, 9, false})));
    int kept = 9;
    for (int h = 0; h < HEADS; h++) {
        double lost[N][DIM], mean = 0, all, dropped;
        lost_states(FKV_STATE_KEY, h, kept, lost, &all, &dropped);
        for (int g = 0; g < 2; g++) /* every query against every lost key */
            for (int q = 0; q < N; q++)
                for (int j = 0; j < N; j++) {
                    double score = 0;
                    for (int ch = 0; ch < DIM; ch++)
                        score += (float)graded(0, FKV_STATE_QUERY, 0, SINKS + q, 2 * h + g, ch) *
                                 lost[j][ch];
                    mean += 0.25 * score * score / (2.0 * N * N); /* attention scale 0.5 */
                }
        struct fkv_kept low = {0, kept, false}, high = {0, kept, true};
        assert_close(fkv_predictor_value(&s, FKV_PREDICTOR_VISIBLE, 0, h, 1, low), mean, 0, 1e-4);
        assert_close(fkv_predictor_value(&s, FKV_PREDICTOR_ENERGY, 0, h, 1, low), dropped / all, 0,
                     1e-4);
        assert_close(fkv_predictor_value(&s, FKV_PREDICTOR_ENERGY, 0, h, 1, high),
                     1 - dropped / all, 0, 1e-4);
        assert_close(fkv_predictor_value(&s, FKV_PREDICTOR_ABSOLUTE, 0, h, 1, low),
                     dropped / (N * DIM), 0, 1e-4);
        assert_true(isnan(fkv_predictor_value(&s, FKV_PREDICTOR_VISIBLE, 0, h, 3, low)));
    }
    fkv_predictor_spectra_free(&s);
}

/* ||W e||^2 of every lost state through the columns of W_O of each query head that reads it. */
TEST_WITH(visible_energy_of_values_is_what_the_projection_lets_through, setup, remove_folder) {
    enum { GROUP = 2, KEPT = 5 };
    float projection[HEADS * GROUP][MADE_ROWS][DIM];
    struct made m = graded_capture(1, 3);
    m.layers = 1;
    test_fill(projection[0][0], sizeof projection / sizeof(float), 0, 1);
    m.projection = projection[0][0];
    made_write(&m, path);
    struct fkv_predictor_spectra s = measure_predictors();
    assert_null(s.visible[0]);
    assert_true(s.gap[FKV_NO_PROJECTION][0] == 0 && s.gap[FKV_NO_QUERIES][0]);
    for (int h = 0; h < HEADS; h++) {
        double lost[N][DIM], mean = 0, all, dropped;
        lost_states(FKV_STATE_VALUE, h, KEPT, lost, &all, &dropped);
        for (int g = 0; g < GROUP; g++)
            for (int j = 0; j < N; j++)
                for (int r = 0; r < MADE_ROWS; r++) {
                    double row = 0;
                    for (int ch = 0; ch < DIM; ch++)
                        row += projection[GROUP * h + g][r][ch] * lost[j][ch];
                    mean += row * row / (GROUP * N);
                }
        const struct fkv_kept low = {0, KEPT, false};
        assert_close(fkv_predictor_value(&s, FKV_PREDICTOR_VISIBLE, 0, h, 2, low), mean, 0, 1e-4);
    }
    fkv_predictor_spectra_free(&s);
}

/* The mean over all tokens of a segment is the lost share of its energy without DC. */
TEST_WITH(residuals_of_all_tokens_are_the_lost_energy, setup, remove_folder) {
    struct made m = graded_capture(1, 3);
    made_write(&m, path);
    struct fkv_capture *c;
    struct fkv_segment_plan plan;
    struct fkv_workers workers;
    struct fkv_residuals r;
    struct fkv_spectrum s;
    assert_ok(fkv_capture_open(path, &c, &err));
    assert_ok(fkv_spectrum_plan(c, N, SINKS, &plan, &err));
    assert_ok(fkv_workers_open(&workers, "cpu", 0, 2, NULL, &err));
    struct fkv_measurement measurement = {.capture = c, .plan = &plan, .workers = &workers};
    assert_ok(fkv_residuals_measure(&measurement, FKV_STATE_VALUE, 10, &r, &err));
    assert_ok(fkv_spectrum_measure(&measurement, FKV_STATE_VALUE, &s, &err));
    double lost = 0;
    for (int i = 0; i < LAYERS * HEADS; i++)
        lost += (1 - fkv_retained_energy(s.power + i * N, N, 10, true)) / (LAYERS * HEADS);
    assert_close(r.residual[1][0].estimate, lost, 0, 1e-5);
    assert_true(r.by_ids && r.tokens[0] == N && r.tokens[1] == 0);
    fkv_spectrum_free(&s);
    fkv_workers_close(&workers);
    fkv_segment_plan_free(&plan);
    fkv_capture_close(c);
}

TEST_WITH(classes_by_ids_are_those_of_the_rules, setup, remove_folder) {
    const int32_t tokens[] = {5, 6, 5, 6, 7, 5, 6};
    const uint8_t expected[] = {64, 64, 0, 32, 64 | 16, 0, 32};
    uint8_t classes[7];
    assert_ok(fkv_classes_by_ids(tokens, 7, classes, &err));
    assert_memory_equal(classes, expected, sizeof expected);
    assert_ok(fkv_classes_by_ids(tokens, 0, classes, &err));
}

TEST_WITH(files_that_do_not_belong_together_are_refused_by_name, setup, remove_folder) {
    double damage[LAYERS * HEADS] = {0};
    char other[300];
    struct made m = graded_capture(2, 3);
    struct made_probe p = graded_probe(damage);
    made_write(&m, path);
    p.text = 3;
    made_write_probe(&p, probe);
    assert_int_equal(run_link("--probes", probe, NULL), 1);
    assert_non_null(strstr(text_of(2), "expected the same texts, found \"text 3\""));
    assert_non_null(strstr(text_of(2), path));
    assert_non_null(strstr(text_of(2), "probe.h5"));
    snprintf(other, sizeof other, "%s/other.h5", folder);
    p.text = 0, p.head_dim = 8;
    made_write_probe(&p, other);
    assert_int_equal(run_link("--probes", other, NULL), 1);
    assert_non_null(strstr(text_of(2), "KV heads of 4 and 8 channels"));
    struct made_run r = {LAYERS, HEADS, DIM, 40, SINKS, 4, 400, 0, 0, 0.1, 0, NULL, false};
    char runs[2][300];
    for (int i = 0; i < 2; i++, r.window += 8) {
        snprintf(runs[i], sizeof runs[i], "%s/run%d.h5", folder, i);
        made_write_run(&r, runs[i]);
    }
    assert_int_equal(run_link("--runs", runs[0], runs[1]), 1);
    assert_non_null(strstr(text_of(2), "found \"window 40\" and \"window 48\""));
    assert_int_equal(run_link("--runs", probe, NULL), 1);
    assert_non_null(strstr(text_of(2), "attribute format: expected \"freqkv-run\""));
    struct stat nothing;
    assert_int_not_equal(stat(out, &nothing), 0);
}

TEST_WITH(link_has_a_group_in_results_that_others_carry_over, setup, remove_folder) {
    double damage[LAYERS * HEADS] = {0}, predictor[LAYERS * HEADS * FKV_PREDICTORS];
    char results[320], foreign[320];
    struct made m = graded_capture(3, 3);
    struct made_probe p = graded_probe(damage);
    made_write(&m, path);
    made_write_probe(&p, probe);
    mkdir(out, 0700);
    snprintf(foreign, sizeof foreign, "%s/link_heads.csv", out);
    fclose(fopen(foreign, "w"));
    assert_int_equal(run_link("--probes", probe, NULL), 1);
    assert_non_null(strstr(text_of(2), "link_heads.csv: exists"));
    unlink(foreign);
    assert_int_equal(run_link("--probes", probe, NULL), 0);
    char *argv[] = {(char *)"x",        path,         (char *)"--out",   out,
                    (char *)"--length", (char *)"20", (char *)"--quiet", (char *)"--json"};
    assert_int_equal(fkv_command_error(8, argv), 0); /* cut in another way */
    assert_int_equal(run_link("--probes", probe, NULL), 0);
    struct fkv_h5_reader *r;
    double length;
    bool found;
    int32_t own[2];
    snprintf(results, sizeof results, "%s/results.h5", out);
    assert_ok(fkv_h5_open(results, &r, &err));
    assert_ok(fkv_h5_get_double(r, "/", "segment_length", &length, &found, &err));
    assert_true(found && length == 20);
    assert_ok(fkv_h5_get(r, "/link/segment_length", FKV_H5_I32, 2, own, &err));
    assert_true(own[0] == 0 && own[1] == N);
    assert_ok(fkv_h5_get(r, "/link/head_predictor", FKV_H5_F64, LAYERS * HEADS * FKV_PREDICTORS,
                         predictor, &err));
    assert_true(predictor[FKV_PREDICTOR_ENERGY_NO_DC] > 0 &&
                predictor[FKV_PREDICTOR_ENERGY_NO_DC] < 1);
    fkv_h5_close(r);
}
