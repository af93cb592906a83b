/* Captures: what is written comes back, files appear whole or not at all, the same data gives the
 * same bytes. */
#include <unistd.h>

#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "tests/unit/store/captured_nll.h"
#include "tests/unit/store/captures.h"

/* What the dtype makes of x. */
static float rounded(float x, enum fkv_dtype dtype) {
    uint32_t bits = 0;
    float y;
    fkv_from_f32(&x, dtype, 1, &bits);
    fkv_to_f32(&bits, dtype, 1, &y);
    return y;
}

static void expect_states(struct fkv_capture *c, int32_t index, const struct sample *s) {
    const int32_t d = s->info.head_dim;
    for (int state = 0; state < FKV_STATES; state++) {
        if (!((s->info.states >> state) & 1)) continue;
        const int32_t all = sample_heads(&s->info, state);
        assert_int_equal(fkv_capture_heads(c, state), all);
        for (int32_t layer = 0; layer < s->info.layer_count; layer++) {
            int32_t head = test_between(0, all - 1), heads = test_between(1, all - head);
            int64_t t = test_between(0, (int)s->recording.n_tokens - 1);
            int64_t rows = test_between(1, (int)(s->recording.n_tokens - t));
            float *x = malloc((size_t)heads * (size_t)rows * (size_t)d * sizeof *x);
            assert_ok(
                fkv_capture_read_state(c, index, state, layer, head, heads, t, rows, x, &err));
            for (int32_t h = 0; h < heads; h++)
                for (int64_t r = 0; r < rows; r++)
                    for (int32_t i = 0; i < d; i++) {
                        float found =
                            x[((size_t)h * (size_t)rows + (size_t)r) * (size_t)d + (size_t)i];
                        float wrote = sample_rows(s, state, layer, t + r)[(head + h) * d + i];
                        assert_close(found, rounded(wrote, s->info.dtype), 0, 0);
                    }
            free(x);
        }
    }
}

static void expect_info(const struct fkv_capture_info *found,
                        const struct fkv_capture_info *expected) {
    assert_ok(fkv_capture_info_compare(expected, found, "here", &err));
    assert_string_equal(found->backend, expected->backend);
    assert_string_equal(found->compute, expected->compute);
    assert_true(found->adds_bos == expected->adds_bos);
    assert_close(found->attention_scale, expected->attention_scale, 0, 0);
    for (int i = 0; i < expected->head_dim / 2; i++)
        assert_close(found->inv_freq[i], expected->inv_freq[i], 0, 0);
}

static void round_trip(enum fkv_dtype dtype, uint32_t states, int64_t n_tokens, int32_t block) {
    struct sample s;
    char base[256], folder[300], path[400];
    test_make_folder(base);
    snprintf(folder, sizeof folder, "%s/a/b/capture", base);
    sample_make(&s, dtype, states, n_tokens, '1');
    sample_save(&s, folder, block);
    const char *const ways[] = {"", "/capture.h5", "/documents/000000.h5"};
    for (int i = 0; i < 3; i++) {
        struct fkv_capture *c;
        snprintf(path, sizeof path, "%s%s", folder, ways[i]);
        assert_ok(fkv_capture_open(path, &c, &err));
        expect_info(fkv_capture_info(c), &s.info);
        assert_int_equal(fkv_capture_count(c), 1);
        const struct fkv_recording *r = fkv_capture_recording(c, 0);
        assert_string_equal(r->name, s.recording.name);
        assert_string_equal(r->text_sha256, s.recording.text_sha256);
        assert_int_equal(r->n_tokens, n_tokens);
        assert_int_equal(r->offset, s.recording.offset);
        int32_t *tokens = malloc((size_t)n_tokens * sizeof *tokens);
        float *nll = malloc((size_t)n_tokens * sizeof *nll);
        bool found;
        assert_ok(fkv_capture_read_tokens(c, 0, tokens, &found, &err));
        assert_true(found);
        assert_memory_equal(tokens, s.tokens, (size_t)n_tokens * sizeof *tokens);
        assert_true(captured_nll(c, 0, nll));
        assert_memory_equal(nll, s.nll, (size_t)n_tokens * sizeof *nll);
        uint8_t *classes = malloc((size_t)n_tokens);
        assert_ok(fkv_capture_read_token_class(c, 0, classes, &found, &err));
        assert_true(found);
        assert_memory_equal(classes, s.classes, (size_t)n_tokens);
        free(classes);
        expect_states(c, 0, &s);
        free(tokens);
        free(nll);
        fkv_capture_close(c);
    }
    sample_free(&s);
    test_remove_folder(base);
}

TEST(every_dtype_and_state_comes_back) {
    for (enum fkv_dtype dtype = FKV_F32; dtype <= FKV_BF16; dtype++) {
        round_trip(dtype, 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE, test_between(2, 1500), 512);
        round_trip(dtype, 15, test_between(2, 700), test_between(1, 300));
        round_trip(dtype, 1u << FKV_STATE_QUERY, 2, 1);
    }
}

TEST_IN_FOLDER(a_rotation_per_layer_comes_back) {
    struct sample s = {0};
    struct fkv_capture *c;
    sample_info(&s.info, FKV_F16, 1);
    const int32_t half = s.info.head_dim / 2, layers = s.info.layer_count;
    free(s.info.inv_freq);
    s.info.inv_freq = calloc((size_t)(layers * half), sizeof(double));
    s.info.attention_factor = calloc((size_t)layers, sizeof(double));
    s.info.rotation_per_layer = true;
    s.info.rotary_dim = 2 * test_between(1, half);
    s.info.rope_positions = 9000;
    for (int i = 0; i < layers * half; i++) s.info.inv_freq[i] = i / 7.0;
    for (int i = 0; i < layers; i++) s.info.attention_factor[i] = 1 + i / 3.0;
    sample_fill(&s, 30, '1');
    sample_save(&s, folder, 30);
    assert_ok(fkv_capture_open(folder, &c, &err));
    const struct fkv_capture_info *found = fkv_capture_info(c);
    assert_ok(fkv_capture_info_compare(&s.info, found, "here", &err));
    assert_int_equal(found->rope_positions, 9000);
    for (int32_t layer = 0; layer < layers; layer++) {
        const struct fkv_capture_rotation r = fkv_capture_rotation(found, layer);
        assert_int_equal(r.rotary_dim, s.info.rotary_dim);
        assert_close(r.attention_factor, 1 + layer / 3.0, 0, 0);
        assert_memory_equal(r.inv_freq, s.info.inv_freq + layer * half,
                            (size_t)half * sizeof(double));
    }
    fkv_capture_close(c);
    /* Another rotation of one layer is another capture. */
    s.info.inv_freq[layers * half - 1] += 0.125;
    struct fkv_capture_writer *w;
    assert_refused(fkv_capture_create(folder, &s.info, true, &w, &err), "inv_freq of layer");
    sample_free(&s);
}

TEST_IN_FOLDER(windows_and_a_cap_come_back) {
    struct sample s = {0};
    struct fkv_capture *c;
    struct fkv_capture_writer *w;
    sample_info(&s.info, FKV_F16, 1);
    const int32_t layers = s.info.layer_count;
    s.info.attention_softcap = 50;
    s.info.layer_window = calloc((size_t)layers, sizeof(int32_t));
    for (int i = 0; i < layers; i++) s.info.layer_window[i] = i % 2 ? 0 : 512 + i;
    sample_fill(&s, 30, '1');
    sample_save(&s, folder, 30);
    assert_ok(fkv_capture_open(folder, &c, &err));
    const struct fkv_capture_info *found = fkv_capture_info(c);
    assert_ok(fkv_capture_info_compare(&s.info, found, "here", &err));
    assert_close(found->attention_softcap, 50, 0, 0);
    for (int32_t layer = 0; layer < layers; layer++)
        assert_int_equal(fkv_capture_window(found, layer), layer % 2 ? 0 : 512 + layer);
    fkv_capture_close(c);
    s.info.attention_softcap = 0;
    assert_refused(fkv_capture_create(folder, &s.info, true, &w, &err), "attention_softcap");
    s.info.attention_softcap = 50;
    s.info.layer_window[layers - 1] += 1;
    assert_refused(fkv_capture_create(folder, &s.info, true, &w, &err), "layer_window of layer");
    sample_free(&s);
}

TEST_IN_FOLDER(large_heads_span_several_chunks) {
    struct sample s = {0};
    sample_info(&s.info, FKV_F16, 1);
    free(s.info.inv_freq);
    s.info.inv_freq = calloc(64, sizeof(double));
    s.info.head_dim = 128;
    sample_fill(&s, 1701, '1');
    sample_save(&s, folder, 300);
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(folder, &c, &err));
    expect_states(c, 0, &s);
    fkv_capture_close(c);
    sample_free(&s);
}

TEST_IN_FOLDER(blocks_in_any_order_give_the_same_states) {
    struct sample s;
    struct fkv_capture_writer *w;
    sample_make(&s, FKV_F32, 1, 1000, '1');
    assert_ok(fkv_capture_create(folder, &s.info, false, &w, &err));
    assert_ok(fkv_capture_begin(w, 0, &s.recording, s.tokens, &err));
    const int32_t order[] = {7, 2, 9, 0, 1, 5, 3, 8, 6, 4};
    for (int32_t layer = s.info.layer_count - 1; layer >= 0; layer--)
        for (int i = 0; i < 10; i++)
            assert_ok(sample_write_rows(&s, w, FKV_STATE_KEY, layer, order[i] * 100, 100, &err));
    assert_ok(fkv_capture_commit(w, &err));
    fkv_capture_abandon(w);
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(folder, &c, &err));
    expect_states(c, 0, &s);
    bool found;
    assert_false(captured_nll(c, 0, s.nll));
    assert_ok(fkv_capture_read_token_class(c, 0, s.classes, &found, &err));
    assert_false(found);
    fkv_capture_close(c);
    sample_free(&s);
}

TEST_IN_FOLDER(the_same_data_gives_the_same_bytes) {
    struct sample s;
    char a[300], b[300];
    snprintf(a, sizeof a, "%s/a", folder);
    snprintf(b, sizeof b, "%s/b", folder);
    sample_make(&s, test_between(0, 2), 15, test_between(2, 1500), '1');
    sample_save(&s, a, 512);
    sleep(1);                      /* another second on the clock */
    void *holes = malloc(1 << 22); /* other contents in freed memory */
    memset(holes, 0xa5, 1 << 22);
    free(holes);
    sample_save(&s, b, test_between(1, 511));
    strcat(a, "/documents/000000.h5");
    strcat(b, "/documents/000000.h5");
    assert_true(same_files(a, b));
    sample_free(&s);
}

TEST(an_abandoned_recording_leaves_nothing) {
    struct sample s;
    struct fkv_capture_writer *w;
    char base[256], folder[300];
    test_make_folder(base);
    snprintf(folder, sizeof folder, "%s/capture", base);
    sample_make(&s, FKV_F16, 3, 100, '1');
    assert_ok(fkv_capture_create(folder, &s.info, false, &w, &err));
    assert_ok(fkv_capture_begin(w, 0, &s.recording, s.tokens, &err));
    assert_ok(sample_write_rows(&s, w, FKV_STATE_KEY, 0, 0, 50, &err));
    fkv_capture_abandon(w);
    fkv_capture_abandon(NULL);
    assert_int_equal(access(folder, F_OK), -1);
    sample_free(&s);
    test_remove_folder(base);
}

TEST_IN_FOLDER(a_recording_without_all_its_rows_is_not_committed) {
    struct sample s;
    struct fkv_capture_writer *w;
    sample_make(&s, FKV_F16, 1, 100, '1');
    assert_ok(fkv_capture_create(folder, &s.info, false, &w, &err));
    assert_ok(fkv_capture_begin(w, 0, &s.recording, s.tokens, &err));
    assert_ok(sample_write_rows(&s, w, FKV_STATE_KEY, 0, 0, 50, &err));
    assert_refused(fkv_capture_commit(w, &err), "key of layer 0: expected 100 tokens, found 50");
    assert_false(fkv_capture_has(w, 0));
    assert_refused(fkv_capture_commit(w, &err), "no recording has begun");
    assert_ok(sample_write(&s, w, 0, 64, &err));
    assert_true(fkv_capture_has(w, 0));
    fkv_capture_abandon(w);
    sample_free(&s);
}

TEST(a_killed_run_resumes_to_the_same_bytes) {
    struct sample s, second;
    struct fkv_capture_writer *w;
    char base[256], folder[300], whole[300], command[700], path[400], other[400];
    test_make_folder(base);
    snprintf(folder, sizeof folder, "%s/killed", base);
    snprintf(whole, sizeof whole, "%s/whole", base);
    sample_make(&s, FKV_BF16, 3, 300, '1');
    second = s;
    sample_fill(&second, 200, '2');
    assert_ok(fkv_capture_create(whole, &s.info, false, &w, &err));
    assert_ok(sample_write(&s, w, 0, 512, &err));
    assert_ok(sample_write(&second, w, 1, 512, &err));
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);

    assert_ok(fkv_capture_create(folder, &s.info, false, &w, &err));
    assert_ok(sample_write(&s, w, 0, 512, &err));
    fkv_capture_abandon(w);
    snprintf(command, sizeof command,
             "echo half > '%s/documents/.000001.h5.tmp'; echo half > '%s/.capture.h5.tmp'", folder,
             folder);
    assert_int_equal(system(command), 0);
    assert_refused(fkv_capture_create(folder, &s.info, false, &w, &err), "--resume");
    assert_ok(fkv_capture_create(folder, &s.info, true, &w, &err));
    assert_true(fkv_capture_has(w, 0));
    assert_false(fkv_capture_has(w, 1));
    assert_ok(fkv_capture_check(w, 0, &s.recording, &err));
    assert_refused(fkv_capture_check(w, 0, &second.recording, &err), "another text");
    assert_ok(sample_write(&second, w, 1, 512, &err));
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/documents/%06d.h5", folder, i);
        snprintf(other, sizeof other, "%s/documents/%06d.h5", whole, i);
        assert_true(same_files(path, other));
    }
    snprintf(path, sizeof path, "%s/documents/.000001.h5.tmp", folder);
    assert_int_equal(access(path, F_OK), -1);
    sample_free_states(&second);
    sample_free(&s);
    test_remove_folder(base);
}

static void random_sums(struct fkv_spectra_sums *sums, const struct fkv_capture_info *info,
                        int state, int32_t n) {
    assert_ok(fkv_spectra_sums_allocate(sums, info->layer_count, sample_heads(info, state), n,
                                        info->head_dim, &err));
    sums->segments = test_between(0, 9);
    sums->skip_sinks = 4;
    size_t rows = (size_t)sums->layers * (size_t)sums->heads;
    for (size_t i = 0; i < rows * (size_t)n; i++) {
        sums->power_sum[i] = test_uniform();
        sums->power_sum_of_squares[i] = test_uniform();
        sums->normalised_sum[i] = test_uniform();
    }
    for (size_t i = 0; i < rows * (size_t)info->head_dim; i++)
        sums->channel_mean_sum[i] = test_normal();
    for (size_t i = 0; i < rows; i++) sums->energy_sum[i] = test_uniform();
}

/* For then a second run, in another second, would make other bytes. An object header of HDF5 is
 * "OHDR", its version 2, and flags, of which 0x20 says that times follow. */
static void assert_no_times(const char *folder) {
    static char bytes[1 << 20];
    char path[512];
    int headers = 0;
    snprintf(path, sizeof path, "%s/documents/000000.h5", folder);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const char *end = bytes + fread(bytes, 1, sizeof bytes, f), *at = bytes;
    fclose(f);
    for (; (at = memmem(at, (size_t)(end - at - 1), "OHDR\2", 5)); at += 5, headers++)
        if (at[5] & 0x20)
            fail_msg("object header %d at byte %td says when it was made", headers, at - bytes);
    assert_true(headers > 10);
}

TEST_IN_FOLDER(sums_come_back) {
    struct sample s;
    struct fkv_capture_writer *w;
    sample_make(&s, FKV_F32, 1u << FKV_STATE_KEY | 1u << FKV_STATE_QUERY, 700, '1');
    s.info.spectra_only = true;
    assert_ok(fkv_capture_create(folder, &s.info, false, &w, &err));
    assert_ok(fkv_capture_begin(w, 0, &s.recording, s.tokens, &err));
    struct fkv_spectra_sums wrote[FKV_STATES] = {0}, found;
    random_sums(&wrote[FKV_STATE_KEY], &s.info, FKV_STATE_KEY, 233);
    random_sums(&wrote[FKV_STATE_QUERY], &s.info, FKV_STATE_QUERY, 233);
    assert_ok(fkv_capture_write_sums(w, FKV_STATE_KEY, &wrote[FKV_STATE_KEY], &err));
    assert_refused(fkv_capture_write_sums(w, FKV_STATE_VALUE, &wrote[FKV_STATE_KEY], &err),
                   "value");
    assert_ok(fkv_capture_write_sums(w, FKV_STATE_QUERY, &wrote[FKV_STATE_QUERY], &err));
    assert_ok(fkv_capture_commit(w, &err));
    fkv_capture_abandon(w);
    assert_no_times(folder);

    struct fkv_capture *c;
    assert_ok(fkv_capture_open(folder, &c, &err));
    assert_true(fkv_capture_info(c)->spectra_only);
    for (int i = 0; i < FKV_STATES; i += FKV_STATE_QUERY) {
        size_t rows = (size_t)wrote[i].layers * (size_t)wrote[i].heads;
        assert_ok(fkv_capture_read_sums(c, 0, i, &found, &err));
        assert_int_equal(found.segments, wrote[i].segments);
        assert_int_equal(found.skip_sinks, 4);
        assert_int_equal(found.n, 233);
        assert_memory_equal(found.power_sum, wrote[i].power_sum, rows * 233 * sizeof(double));
        assert_memory_equal(found.power_sum_of_squares, wrote[i].power_sum_of_squares,
                            rows * 233 * sizeof(double));
        assert_memory_equal(found.normalised_sum, wrote[i].normalised_sum,
                            rows * 233 * sizeof(double));
        assert_memory_equal(found.channel_mean_sum, wrote[i].channel_mean_sum,
                            rows * (size_t)s.info.head_dim * sizeof(double));
        assert_memory_equal(found.energy_sum, wrote[i].energy_sum, rows * sizeof(double));
        fkv_spectra_sums_free(&found);
        fkv_spectra_sums_free(&found);
        fkv_spectra_sums_free(&wrote[i]);
    }
    float x;
    assert_refused(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, 1, 0, 1, &x, &err),
                   "only sums");
    assert_refused(fkv_capture_read_sums(c, 0, FKV_STATE_VALUE, &found, &err), "spectra/value");
    fkv_capture_close(c);
    sample_free(&s);
}

static void identity(const char *path, char out[65]) {
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(path, &c, &err));
    snprintf(out, 65, "%s", fkv_capture_sha256(c));
    fkv_capture_close(c);
}

TEST_IN_FOLDER(captures_of_one_text_differ_in_identity_when_their_contents_do) {
    struct sample s;
    char path[4][300], sha[4][65];
    for (int i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "%s/%d", folder, i);
    sample_make(&s, FKV_F16, 3, 60, '1');
    sample_save(&s, path[0], 512);
    sample_save(&s, path[1], 512);
    s.info.dtype = FKV_F32;
    sample_save(&s, path[2], 512);
    s.info.n_layers = 7;
    s.info.layer_index[s.info.layer_count - 1] = 6; /* as many layers, another one */
    sample_save(&s, path[3], 512);
    for (int i = 0; i < 4; i++) identity(path[i], sha[i]);
    assert_string_equal(sha[0], sha[1]);
    assert_string_not_equal(sha[0], sha[2]);
    assert_string_not_equal(sha[2], sha[3]);
    sample_free(&s);
}

TEST_IN_FOLDER(merging_copies_recordings_in_order) {
    struct sample s, second;
    char path[3][300];
    for (int i = 0; i < 3; i++) snprintf(path[i], sizeof path[i], "%s/%d", folder, i);
    sample_make(&s, FKV_F16, 3, 150, '7');
    second = s;
    sample_fill(&second, 90, '3');
    sample_save(&s, path[0], 512);
    sample_save(&second, path[1], 512);
    const char *const parts[] = {path[0], path[1]}, *const twice[] = {path[0], path[0]};
    assert_refused(fkv_capture_merge(twice, 2, path[2], &err), "the same text and offset");
    assert_int_equal(access(path[2], F_OK), -1);
    assert_ok(fkv_capture_merge(parts, 2, path[2], &err));
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(path[2], &c, &err));
    assert_int_equal(fkv_capture_count(c), 2);
    expect_states(c, 0, &s);
    expect_states(c, 1, &second);
    fkv_capture_close(c);
    sample_free_states(&second);
    sample_free(&s);
}

TEST_IN_FOLDER(bytes_on_disk_are_foreseen) {
    struct sample s;
    char path[300];
    sample_make(&s, test_between(0, 2), 15, test_between(500, 3000), '1');
    sample_save(&s, folder, 512);
    snprintf(path, sizeof path, "%s/documents/000000.h5", folder);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    double found = (double)ftell(f),
           foreseen = (double)fkv_capture_bytes(&s.info, s.recording.n_tokens, 0);
    fclose(f);
    if (found > foreseen || found < 0.9 * foreseen - 16384)
        fail_msg("%.0f bytes, foreseen %.0f", found, foreseen);
    sample_free(&s);
}
