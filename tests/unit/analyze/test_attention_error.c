/* The attention-output error, against attention written out in double. */
#include "analyze/measure/attention_error.h"

#include "capture/store/capture_reader.h"
#include "tests/unit/analyze/made_folder.h"

enum { K = FKV_RATIO_STEPS };

/* error [layers, heads, K + 1] of the capture at `path`; projected, likewise, or NULL */
static int measure(int length, int skip, double **error, double **projected,
                   struct fkv_error *err) {
    struct fkv_capture *capture = NULL;
    struct fkv_segment_plan plan = {0};
    struct fkv_workers workers = {0};
    int status = fkv_capture_open(path, &capture, err);
    if (!status) status = fkv_spectrum_plan(capture, length, skip, &plan, err);
    if (!status) status = fkv_attention_error_check(capture, &plan, err);
    if (!status) status = fkv_workers_open(&workers, "cpu", 0, test_between(1, 3), NULL, err);
    if (!status) {
        const struct fkv_capture_info *info = fkv_capture_info(capture);
        struct fkv_measurement m = {.capture = capture, .plan = &plan, .workers = &workers};
        const size_t bytes =
            (size_t)(info->layer_count * info->head_count * (K + 1)) * sizeof **error;
        *error = malloc(bytes);
        if (projected) *projected = malloc(bytes);
        status = fkv_attention_error_measure(&m, *error, projected ? *projected : NULL, err);
    }
    fkv_workers_close(&workers);
    fkv_segment_plan_free(&plan);
    fkv_capture_close(capture);
    return status;
}

/* x [d] rotated to position p as the layer does it: channel i turns with i + turned/2 */
static void rotate(const struct made *m, int layer, const double *x, double p, double *out) {
    const int turned = m->thetas ? m->turned : m->head_dim;
    const double theta = m->thetas ? m->thetas[layer] : 10000,
                 factor = m->thetas ? m->factors[layer] : 1;
    for (int i = 0; i < m->head_dim; i++) out[i] = x[i] * (i < turned ? factor : 1);
    for (int i = 0; theta > 0 && i < turned / 2; i++) {
        double angle = p * pow(theta, -2.0 * i / turned), c = cos(angle), s = sin(angle);
        out[i] = factor * (x[i] * c - x[i + turned / 2] * s);
        out[i + turned / 2] = factor * (x[i + turned / 2] * c + x[i] * s);
    }
}

/* o [d] of query q at `position` over key and value [position + 1, d] */
static void attend(const struct made *m, int layer, const double *q, const double *key,
                   const double *value, int position, double *o) {
    const int d = m->head_dim;
    double turned[16], k[16], *weight = malloc((size_t)(position + 1) * sizeof *weight),
                              largest = -INFINITY, sum = 0;
    const int window = m->windows ? m->windows[layer] : 0,
              first = window && position >= window ? position + 1 - window : 0;
    rotate(m, layer, q, position, turned);
    for (int t = first; t <= position; t++) {
        rotate(m, layer, key + t * d, t, k);
        weight[t] = 0;
        for (int c = 0; c < d; c++)
            weight[t] += 0.5 * turned[c] * k[c]; /* made captures have this scale */
        if (m->softcap > 0) weight[t] = m->softcap * tanh(weight[t] / m->softcap);
        largest = fmax(largest, weight[t]);
    }
    for (int t = first; t <= position; t++) sum += weight[t] = exp(weight[t] - largest);
    for (int c = 0; c < d; c++) {
        o[c] = 0;
        for (int t = first; t <= position; t++) o[c] += weight[t] / sum * value[t * d + c];
    }
    free(weight);
}

/* A column of the segment at `first` keeps its `retained` lowest coefficients, in place. */
static void low_pass(double *x, int first, int n, int d, int retained) {
    double *column = malloc((size_t)n * sizeof *column);
    for (int c = 0; c < d; c++) {
        for (int j = 0; j < n; j++) column[j] = x[(first + j) * d + c], x[(first + j) * d + c] = 0;
        for (int t = 0; t < retained; t++) {
            double y = dct_coefficient(column, n, t);
            for (int j = 0; j < n; j++)
                x[(first + j) * d + c] +=
                    y * sqrt((t ? 2.0 : 1.0) / n) * cos(acos(-1) * t * (j + 0.5) / n);
        }
    }
    free(column);
}

/* Squares of o' - o and of o over the queries after one segment of one query head, and of both
 * times its columns of W_O. */
static void squares(const struct made *m, int recording, int layer, int head, int query_head,
                    int first, int n, int retained, double out[4]) {
    const float *projection =
        m->projection + (layer * m->heads * m->query_group + query_head) * MADE_ROWS * m->head_dim;
    int tokens = (int)m->tokens[recording], d = m->head_dim,
        end = first + 2 * n < tokens ? first + 2 * n : tokens;
    double *x[4], q[16], o[2][16];
    for (int i = 0; i < 4; i++) {
        x[i] = malloc((size_t)(tokens * d) * sizeof *x[i]);
        for (int t = 0; t < tokens; t++)
            for (int c = 0; c < d; c++)
                x[i][t * d + c] = (float)m->value(
                    recording, i % 2 ? FKV_STATE_VALUE : FKV_STATE_KEY, layer, t, head, c);
        if (i >= 2) low_pass(x[i], first, n, d, retained);
    }
    for (int t = first + n; t < end; t++) {
        for (int c = 0; c < d; c++)
            q[c] = (float)m->value(recording, FKV_STATE_QUERY, layer, t, query_head, c);
        attend(m, layer, q, x[0], x[1], t, o[0]);
        attend(m, layer, q, x[2], x[3], t, o[1]);
        for (int c = 0; c < d; c++)
            o[1][c] -= o[0][c], out[0] += o[1][c] * o[1][c], out[1] += o[0][c] * o[0][c];
        for (int r = 0; r < MADE_ROWS; r++) {
            double row[2] = {0};
            for (int c = 0; c < d; c++)
                row[0] += projection[r * d + c] * o[1][c],
                    row[1] += projection[r * d + c] * o[0][c];
            out[2] += row[0] * row[0], out[3] += row[1] * row[1];
        }
    }
    for (int i = 0; i < 4; i++) free(x[i]);
}

/* Two documents, one of two recordings; the last segments have fewer queries, or none. Within a
 * document queries weigh equally, then documents. */
static void compare_scored(const double *thetas, const double *factors, int turned, double softcap,
                           const int *windows) {
    enum { N = 20, SKIP = 3 };
    struct made m = {.layers = 2,
                     .heads = 2,
                     .query_group = 2,
                     .head_dim = 4,
                     .recordings = 3,
                     .tokens = {SKIP + 2 * N + 7, SKIP + N + 9, SKIP + 2 * N},
                     .document = {0, 1, 1},
                     .offset = {0, 0, 100},
                     .dtype = FKV_F32,
                     .states = 1 | 2 | 8,
                     .trained_context = 64,
                     .value = made_white,
                     .thetas = thetas,
                     .factors = factors,
                     .turned = turned,
                     .softcap = softcap,
                     .windows = windows};
    double *error, *projected;
    float projection[2 * 4 * MADE_ROWS * 4];
    test_fill(projection, sizeof projection / sizeof *projection, 0, 1);
    m.projection = projection;
    made_write(&m, path);
    assert_ok(measure(N, SKIP, &error, &projected, &err));
    const struct {
        int recording, segment;
        double queries; /* of its document */
    } pieces[] = {{0, 0, N + 7}, {0, 1, N + 7}, {1, 0, 9 + N}, {2, 0, 9 + N}};
    for (int layer = 0; layer < m.layers; layer++)
        for (int head = 0; head < m.heads; head++)
            for (int k = 1; k <= K; k += 9) {
                int retained = k * N / K;
                const int at = (layer * m.heads + head) * (K + 1) + k;
                if (!retained) {
                    assert_true(isnan(error[at]) && isnan(projected[at]));
                    continue;
                }
                double mean = 0, mean_projected = 0;
                for (int g = 0; g < 2; g++) {
                    double sums[4] = {0};
                    for (int i = 0; i < 4; i++) {
                        double of_piece[4] = {0};
                        squares(&m, pieces[i].recording, layer, head, 2 * head + g,
                                SKIP + pieces[i].segment * N, N, retained, of_piece);
                        for (int j = 0; j < 4; j++) sums[j] += of_piece[j] / pieces[i].queries;
                    }
                    mean += sqrt(sums[0] / sums[1]) / 2;
                    mean_projected += sqrt(sums[2] / sums[3]) / 2;
                }
                assert_close(error[at], mean, 2e-6, 2e-5);
                assert_close(projected[at], mean_projected, 4e-6, 4e-5);
            }
    free(error);
    free(projected);
}

static void compare_written_out(const double *thetas, const double *factors, int turned) {
    compare_scored(thetas, factors, turned, 0, NULL);
}

/* Values whose first channel never changes: whatever attention does, that is what it puts out. */
static double constant_first_channel(int recording, enum fkv_state state, int layer, int64_t t,
                                     int head, int channel) {
    if (state == FKV_STATE_VALUE && channel == 0) return 3;
    return made_white(recording, state, layer, t, head, channel);
}

TEST_WITH(errors_equal_attention_written_out, made_folder, remove_folder) {
    compare_written_out(NULL, NULL, 0);
}

TEST_WITH(each_layer_turns_by_its_own_rotation, made_folder, remove_folder) {
    compare_written_out((const double[]){3, 500}, (const double[]){1, 1.25}, 4);
}

TEST_WITH(a_layer_may_turn_in_part_or_not_at_all, made_folder, remove_folder) {
    compare_written_out((const double[]){0, 10}, (const double[]){1, 1.5}, 2);
}

TEST_WITH(scores_are_capped, made_folder, remove_folder) {
    compare_scored(NULL, NULL, 0, 0.75, NULL);
}

/* Some queries see a part of the segment, some none of it. */
TEST_WITH(a_query_sees_its_layers_window, made_folder, remove_folder) {
    compare_scored(NULL, NULL, 0, 0, (const int[]){9, 0});
}

TEST_WITH(a_window_and_a_cap_go_together, made_folder, remove_folder) {
    compare_scored(NULL, NULL, 0, 1.5, (const int[]){1000, 27});
}

TEST_WITH(the_projected_error_is_of_what_the_projection_reads, made_folder, remove_folder) {
    const float first[MADE_ROWS][2] = {{2, 0}, {-1, 0}}, both[MADE_ROWS][2] = {{0, -2}, {2, 0}};
    struct made m = made_keys(1, 1, 2, 30, constant_first_channel);
    m.states = 1 | 2 | 8, m.trained_context = 30;
    for (int i = 0; i < 2; i++) {
        double *error, *projected;
        char command[400];
        m.projection = i ? both[0] : first[0];
        made_write(&m, path);
        assert_ok(measure(20, 0, &error, &projected, &err));
        for (int k = 4; k < K; k++) { /* lengths times 2, or nothing of what changes */
            /* Half of the coefficients are lost or more: of a few, all may be small. */
            if (k <= K / 2) assert_true(error[k] > 1e-3);
            assert_close(projected[k], i ? error[k] : 0, 1e-5, 1e-5);
        }
        free(error), free(projected);
        snprintf(command, sizeof command, "rm -r '%s'", path);
        assert_int_equal(system(command), 0);
    }
}

TEST_WITH(what_is_missing_is_named, made_folder, remove_folder) {
    struct made m = made_keys(1, 1, 4, 44, made_white);
    m.states = 3, m.trained_context = 44;
    double *error = NULL;
    made_write(&m, path);
    assert_refused(measure(20, 4, &error, NULL, &err), "freqkv-capture --states key,value,query");
    char command[400];
    snprintf(command, sizeof command, "rm -r '%s'", path);
    assert_int_equal(system(command), 0);
    m.states = 1 | 2 | 8;
    made_write(&m, path);
    assert_refused(measure(40, 4, &error, NULL, &err),
                   "needs tokens after a segment of 40; the longest recording has 40 after the "
                   "sinks: --length 20");
    assert_ok(measure(20, 4, &error, NULL, &err));
    free(error);
}
