/* Captures of sums (--spectra-only) against the stored states they stand for. */
#include "analyze/measure/spectrum.h"
#include "capture/store/capture_writer.h"
#include "tests/unit/analyze/made_folder.h"

/* Sums over the segments of each recording of `m`, written as freqkv-capture --spectra-only does.
 */
static void write_sums(const struct made *m, const char *folder, int length, int skip) {
    struct fkv_capture_info info;
    struct fkv_capture_writer *w;
    const struct fkv_backend_ops *ops;
    struct fkv_backend *backend;
    assert_ok(fkv_backend_find("cpu", &ops, NULL, &err));
    assert_ok(ops->open(&(struct fkv_backend_options){.threads = 1}, &backend, &err));
    made_info(m, &info);
    info.spectra_only = true;
    assert_ok(fkv_capture_create(folder, &info, false, &w, &err));
    float *x = malloc((size_t)(length * m->head_dim) * sizeof *x);
    double *power = malloc((size_t)length * sizeof *power),
           *scaled = malloc((size_t)length * sizeof *scaled);
    for (int r = 0; r < m->recordings; r++) {
        struct fkv_recording recording = {.n_tokens = m->tokens[r], .offset = m->offset[r]};
        snprintf(recording.name, sizeof recording.name, "text %d", m->document[r]);
        memset(recording.text_sha256, 'a' + m->document[r] % 6, 64);
        struct fkv_spectra_sums sums;
        assert_ok(fkv_spectra_sums_allocate(&sums, m->layers, m->heads, length, m->head_dim, &err));
        sums.skip_sinks = skip;
        sums.segments = (m->tokens[r] - skip) / length;
        for (int row = 0; row < m->layers * m->heads; row++)
            for (int64_t segment = 0; segment < sums.segments; segment++) {
                for (int i = 0; i < length * m->head_dim; i++)
                    x[i] = (float)m->value(r, FKV_STATE_KEY, row / m->heads,
                                           skip + segment * length + i / m->head_dim,
                                           row % m->heads, i % m->head_dim);
                struct fkv_buffer *buffer;
                assert_ok(ops->buffer_adopt(backend, x, (size_t)(length * m->head_dim) * 4, &buffer,
                                            &err));
                assert_ok(ops->power(backend, buffer, 0, (size_t)m->head_dim, length, 1,
                                     m->head_dim, power, scaled, &err));
                ops->buffer_release(backend, buffer);
                for (int t = 0; t < length; t++) {
                    sums.power_sum[row * length + t] += power[t];
                    sums.power_sum_of_squares[row * length + t] += power[t] * power[t];
                    sums.normalised_sum[row * length + t] += scaled[t];
                }
            }
        int32_t *tokens = calloc((size_t)m->tokens[r], sizeof *tokens);
        assert_ok(fkv_capture_begin(w, r, &recording, tokens, &err));
        assert_ok(fkv_capture_write_sums(w, FKV_STATE_KEY, &sums, &err));
        assert_ok(fkv_capture_commit(w, &err));
        free(tokens);
        fkv_spectra_sums_free(&sums);
    }
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
    fkv_capture_info_free(&info);
    ops->close(backend);
    free(x), free(power), free(scaled);
}

TEST_WITH(sums_give_the_spectrum_of_the_stored_states, made_folder, remove_folder) {
    struct fkv_spectrum stored, summed;
    char sums[300];
    struct made m = {.layers = 2,
                     .heads = 2,
                     .query_group = 1,
                     .head_dim = 6,
                     .recordings = 3,
                     .tokens = {100, 70, 41},
                     .document = {0, 0, 1},
                     .offset = {0, 100, 0},
                     .states = 1,
                     .value = made_drift};
    snprintf(sums, sizeof sums, "%s/sums", folder);
    made_write(&m, path);
    write_sums(&m, sums, 32, 4);
    assert_ok(made_measure(path, FKV_STATE_KEY, 32, 4, true, &stored, &err));
    assert_ok(made_measure(sums, FKV_STATE_KEY, 0, -1, true, &summed, &err));
    assert_int_equal(summed.n, 32);
    assert_int_equal(summed.segments, stored.segments);
    assert_int_equal(summed.tokens_left_out, stored.tokens_left_out);
    assert_string_equal(summed.null_kind, "expected");
    assert_string_equal(summed.se_kind, "segments");
    double energy[2] = {0};
    for (int i = 0; i < 4 * 32; i++) {
        assert_close(summed.power[i], stored.power[i], 1e-9, 1e-5);
        energy[0] += stored.null[i], energy[1] += summed.null[i];
    }
    assert_close(energy[1], energy[0], 0, 1e-5);
    /* The closed form is what 1,000 resamples tend to, each to 2.2%. */
    assert_int_equal(summed.se_unit, FKV_SE_DOCUMENTS_AND_BLOCKS);
    assert_int_equal(stored.se_unit, FKV_SE_DOCUMENTS_AND_BLOCKS);
    double ratio = 0;
    for (int i = 0; i < 4 * 32; i++) {
        assert_close(stored.power_se[i], summed.power_se[i], 0, 0.15);
        ratio += stored.power_se[i] / summed.power_se[i] / (4 * 32);
    }
    assert_close(ratio, 1, 0.05, 0);
    for (int i = 0; i < 2 * 32; i++)
        assert_close(summed.normalised[i], stored.normalised[i], 1e-9, 1e-5);
    fkv_spectrum_free(&stored);
    fkv_spectrum_free(&summed);
    assert_refused(made_measure(sums, FKV_STATE_KEY, 30, -1, false, &summed, &err),
                   "segments of 32 tokens");
    assert_refused(made_measure(sums, FKV_STATE_KEY, 32, 3, false, &summed, &err), "4 sinks");
}

/* Many draws of one segment's permutation tend to the null that sums use. */
TEST_WITH(the_expected_null_is_the_mean_of_permutation_nulls, made_folder, remove_folder) {
    struct fkv_spectrum stored, summed;
    char sums[300];
    struct made m = made_keys(1, 1, 12, 16 * 250, made_drift);
    snprintf(sums, sizeof sums, "%s/sums", folder);
    made_write(&m, path);
    write_sums(&m, sums, 16, 0);
    assert_ok(made_measure(path, FKV_STATE_KEY, 16, 0, true, &stored, &err));
    assert_ok(made_measure(sums, FKV_STATE_KEY, 0, -1, true, &summed, &err));
    for (int t = 0; t < 16; t++) assert_close(stored.null[t], summed.null[t], 0, t ? 0.12 : 1e-6);
    fkv_spectrum_free(&stored);
    fkv_spectrum_free(&summed);
}
