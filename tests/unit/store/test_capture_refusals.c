/* What the store refuses, with which words; and that nothing is left behind. */
#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "capture/store/h5.h"
#include "tests/unit/store/captures.h"

/* HDF5 1.10 itself loses memory when a file is damaged. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static struct sample s;

static int make(void **state) {
    make_folder(state);
    sample_make(&s, FKV_F16, 1, 100, '1');
    return 0;
}

static int clean(void **state) {
    sample_free(&s);
    return remove_folder(state);
}

/* Writes the sample with one value changed and expects the refusal. */
static void refuse_value(float value, enum fkv_dtype dtype, const char *words) {
    struct fkv_capture_writer *w;
    char expected[200];
    s.info.dtype = dtype;
    int layer = test_between(0, s.info.layer_count - 1),
        head = test_between(0, s.info.head_count - 1);
    int token = test_between(0, 99), channel = test_between(0, s.info.head_dim - 1);
    float *at = (float *)sample_rows(&s, 0, layer, token) + head * s.info.head_dim + channel;
    float was = *at;
    *at = value;
    snprintf(expected, sizeof expected, "key of layer %d, head %d, token %d%s",
             s.info.layer_index[layer], s.info.head_index[head], token, words);
    assert_ok(fkv_capture_create(in_folder("c"), &s.info, false, &w, &err));
    assert_refused(sample_write(&s, w, 0, test_between(1, 100), &err), expected);
    fkv_capture_abandon(w);
    assert_int_equal(access(in_folder("c"), F_OK), -1);
    *at = was;
}

TEST_WITH(values_the_dtype_cannot_hold_are_named, make, clean) {
    refuse_value(
        65520, FKV_F16,
        ": a number (or an infinity) that is beyond float16's 65504: use --dtype f32 or bf16");
    refuse_value(-1e6f, FKV_F16, ": a number (or an infinity) that is beyond float16");
    refuse_value(3.4e38f, FKV_BF16,
                 ": a number (or an infinity) that is beyond bfloat16's range: use --dtype f32");
    refuse_value(NAN, FKV_F32, ": expected a finite number, found nan");
    refuse_value(-INFINITY, FKV_F32, ": expected a finite number, found -inf");
    refuse_value(NAN, FKV_F16, ": expected a finite number, found nan");
}

TEST_WITH(the_largest_values_that_fit_are_stored_finite, make, clean) {
    struct fkv_capture *c;
    float x[2];
    s.states[0][0] = 65519.996f;
    sample_save(&s, in_folder("c"), 100);
    assert_ok(fkv_capture_open(in_folder("c"), &c, &err));
    assert_int_equal(s.info.head_dim % 2, 0);
    float *rows = malloc((size_t)s.info.head_dim * sizeof *rows);
    assert_ok(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, 1, 0, 1, rows, &err));
    memcpy(x, rows, sizeof x);
    free(rows);
    assert_close(x[0], 65504, 0, 0);
    fkv_capture_close(c);
}

TEST_WITH(another_model_is_refused_on_resume_and_merge, make, clean) {
    struct fkv_capture_writer *w;
    sample_save(&s, in_folder("a"), 512);
    s.info.model_sha256[3] = 'b';
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, true, &w, &err),
                   "model_sha256: expected \"aaab");
    sample_save(&s, in_folder("b"), 512);
    const char *const parts[] = {in_folder("a"), in_folder("b")};
    assert_refused(fkv_capture_merge(parts, 2, in_folder("m"), &err), "model_sha256");
    assert_int_equal(access(in_folder("m"), F_OK), -1);
    s.info.model_sha256[3] = 'a';
    s.info.config_sha256[3] = 'b'; /* the same weights, read with another eps or base of rotation */
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, true, &w, &err),
                   "config_sha256: expected \"777b");
    s.info.config_sha256[3] = '7';
    s.info.options[2] = 'S';
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, true, &w, &err),
                   "options: expected");
    s.info.options[2] = 's';
    strcpy(s.info.backend,
           "gpu"); /* numbers of two processors, or of two kinds of products, are not mixed */
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, true, &w, &err),
                   "backend: expected \"gpu\", found \"cpu\"");
    strcpy(s.info.backend, "cpu"), strcpy(s.info.compute, "f16");
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, true, &w, &err),
                   "compute: expected \"f16\", found \"f32\"");
    sample_save(&s, in_folder("c"), 512);
    const char *const computed[] = {in_folder("a"), in_folder("c")};
    assert_refused(fkv_capture_merge(computed, 2, in_folder("m"), &err),
                   "compute: expected \"f32\", found \"f16\"");
    char command[1000];
    snprintf(command, sizeof command, "cp '%s/documents/000000.h5' '%s/documents/000001.h5'",
             in_folder("b"), in_folder("a"));
    assert_int_equal(system(command), 0);
    struct fkv_capture *c;
    assert_refused(fkv_capture_open(in_folder("a"), &c, &err),
                   "000001.h5: made with another model");
}

TEST_WITH(output_that_exists_or_cannot_be_written_is_refused, make, clean) {
    struct fkv_capture_writer *w, *second;
    sample_save(&s, in_folder("a"), 512);
    assert_refused(fkv_capture_create(in_folder("a"), &s.info, false, &w, &err),
                   "exists and is not empty");
    assert_int_equal(mkdir(in_folder("d"), 0777), 0);
    test_write_text(in_folder("d/thesis.tex"), "");
    assert_refused(fkv_capture_create(in_folder("d"), &s.info, false, &w, &err),
                   "choose another folder");
    assert_refused(fkv_capture_create(in_folder("d"), &s.info, true, &w, &err),
                   "thesis.tex, which is no part");
    assert_refused(fkv_capture_create(in_folder("d/thesis.tex/c"), &s.info, false, &w, &err),
                   "thesis.tex");
    assert_refused(fkv_capture_create("/proc/nowhere", &s.info, false, &w, &err), "/proc/nowhere");
    assert_ok(fkv_capture_create(in_folder("e"), &s.info, false, &w, &err));
    assert_refused(fkv_capture_create(in_folder("e"), &s.info, true, &second, &err),
                   "another run is writing here");
    assert_ok(sample_write(&s, w, 0, 512, &err));
    assert_refused(fkv_capture_begin(w, 0, &s.recording, s.tokens, &err),
                   "000000.h5: exists already");
    fkv_capture_abandon(w);
}

TEST_WITH(a_full_disk_is_an_error_and_leaves_nothing, make, clean) {
    struct fkv_capture_writer *w;
    assert_int_equal(mkdir(in_folder("small"), 0777), 0);
    if (mount("tmpfs", in_folder("small"), "tmpfs", 0, "size=256k")) {
        printf("skipped: cannot mount a small tmpfs (%s)\n", strerror(errno));
        skip();
    }
    struct sample large = s;
    const int64_t n = 1 << 16; /* more than 256 KiB, of tokens and nll alone */
    sample_fill(&large, n, '2');
    int status = fkv_capture_create(in_folder("small/c"), &s.info, false, &w, &err);
    int first = status ? status : sample_write(&s, w, 0, 512, &err);
    int second = first ? first : sample_write(&large, w, 1, 512, &err);
    bool has[2] = {!status && fkv_capture_has(w, 0), !status && fkv_capture_has(w, 1)};
    if (!status) fkv_capture_abandon(w);
    char message[sizeof err.message];
    strcpy(message, err.message);
    struct fkv_h5_writer *h5;
    const int64_t numbers = 2 * n; /* at least two channels */
    int created = fkv_h5_create(in_folder("small/run.h5"), &h5, &err);
    int put =
        created ? created : fkv_h5_put(h5, "x", FKV_H5_F32, 1, &numbers, large.states[0], &err);
    int committed = put ? put : fkv_h5_commit(h5, &err);
    bool left = access(in_folder("small/run.h5"), F_OK) == 0;
    char listing[700];
    snprintf(listing, sizeof listing, "test -z \"$(find '%s' -name '.*')\"", in_folder("small"));
    int hidden = system(listing);
    sample_free_states(&large);
    umount(in_folder("small"));
    assert_int_equal(first, FKV_OK);
    assert_int_equal(second, FKV_FAILED);
    assert_non_null(strstr(message, "No space left on device"));
    assert_true(has[0] && !has[1]);
    assert_int_equal(created, FKV_OK);
    assert_int_equal(committed, FKV_FAILED);
    assert_non_null(strstr(err.message, "No space left on device"));
    assert_false(left);
    assert_int_equal(hidden, 0);
}

static void flip(const char *path, long at, int mask) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(byte ^ mask, f);
    fclose(f);
}

TEST_WITH(truncated_and_foreign_files_are_refused, make, clean) {
    struct fkv_capture *c;
    sample_save(&s, in_folder("a"), 512);
    char path[400];
    strcpy(path, in_folder("a/documents/000000.h5"));
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(truncate(path, (off_t)(test_uniform() * (double)found.st_size)), 0);
        assert_refused(fkv_capture_open(in_folder("a"), &c, &err),
                       "000000.h5: cannot open as HDF5");
    }
    assert_refused(fkv_capture_open(in_folder("none"), &c, &err), "No such file");
    assert_refused(fkv_capture_open("/proc/self/maps", &c, &err), "cannot open as HDF5");
    assert_refused(fkv_capture_open(folder, &c, &err), "expected recordings");
}

/* Every byte of a file is covered by a checksum, is checked by us, or means nothing to the states:
 * a flipped bit is an error or changes none. */
TEST_WITH(a_flipped_bit_never_changes_a_state, make, clean) {
    sample_save(&s, in_folder("a"), 512);
    char path[400];
    strcpy(path, in_folder("a/documents/000000.h5"));
    const size_t d = (size_t)s.info.head_dim, n = (size_t)s.info.head_count * 100 * d;
    float *expected = malloc(n * sizeof *expected), *x = malloc(n * sizeof *x);
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(in_folder("a"), &c, &err));
    assert_ok(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, s.info.head_count, 0, 100, expected,
                                     &err));
    fkv_capture_close(c);
    int refused = 0;
    for (int i = 0; i < 300; i++) { /* every second one near the start, where the structures are */
        long at =
            (long)(test_uniform() * (double)(i % 2 && found.st_size > 8192 ? 8192 : found.st_size));
        int mask = 1 << test_between(0, 7);
        flip(path, at, mask);
        if (fkv_capture_open(in_folder("a"), &c, &err) == FKV_OK) {
            if (fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, s.info.head_count, 0, 100, x,
                                       &err) == FKV_OK)
                assert_memory_equal(x, expected, n * sizeof *x);
            else
                refused++;
            fkv_capture_close(c);
        } else {
            refused++;
        }
        flip(path, at, mask);
    }
    printf("%d of 300 flipped bits refused\n", refused);
    assert_true(refused > 0);
    free(expected);
    free(x);
}

/* A user's own file: attributes and a key of any rank and dims, in float64. */
static void own_file(const char *path, const char *key, int layers, int heads, int head_dim,
                     int rank, const int64_t *dims, const double *data) {
    struct fkv_h5_writer *w;
    remove(path);
    assert_ok(fkv_h5_create(path, &w, &err));
    if (layers) assert_ok(fkv_h5_put_int(w, "/", "n_layers", layers, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_kv_heads", heads, &err));
    assert_ok(fkv_h5_put_int(w, "/", "head_dim", head_dim, &err));
    assert_ok(fkv_h5_put(w, key, FKV_H5_F64, rank, dims, data, &err));
    assert_ok(fkv_h5_commit(w, &err));
}

TEST_WITH(a_users_own_file_needs_little, make, clean) {
    struct fkv_capture *c;
    const char *const places[] = {"/document/key", "/documents/first/key", "/key"};
    const int64_t dims[4] = {2, 3, 50, 8};
    double data[2 * 3 * 50 * 8];
    for (size_t i = 0; i < sizeof data / sizeof *data; i++) data[i] = test_normal();
    for (int i = 0; i < 3; i++) {
        const char *path = in_folder("own.h5");
        own_file(path, places[i], 2, 3, 8, 4, dims, data);
        assert_ok(fkv_capture_open(path, &c, &err));
        assert_int_equal(fkv_capture_count(c), 1);
        assert_int_equal(fkv_capture_recording(c, 0)->n_tokens, 50);
        assert_int_equal(fkv_capture_info(c)->states, 1);
        assert_int_equal(fkv_capture_info(c)->trained_context, 0);
        float x[2 * 10 * 8];
        assert_ok(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 1, 1, 2, 30, 10, x, &err));
        for (int h = 0; h < 2; h++)
            for (int r = 0; r < 10 * 8; r++)
                assert_close(x[h * 80 + r], (float)data[((3 + 1 + h) * 50 + 30) * 8 + r], 0, 0);
        int32_t tokens[50];
        bool found;
        assert_ok(fkv_capture_read_tokens(c, 0, tokens, &found, &err));
        assert_false(found);
        fkv_capture_close(c);
    }
}

TEST_WITH(shapes_that_disagree_are_refused, make, clean) {
    struct fkv_capture *c;
    const int64_t dims[5] = {2, 3, 50, 8, 1}, empty[4] = {2, 3, 0, 8};
    double data[2 * 3 * 50 * 8] = {0};
    char path[400];
    strcpy(path, in_folder("own.h5"));
    own_file(path, "/document/key", 0, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err),
                   "own.h5: attribute n_layers: expected a number");
    own_file(path, "/document/key", 4, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "key: expected 4 layers");
    own_file(path, "/document/key", 2, 2, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "key: expected 2 heads");
    own_file(path, "/document/key", 2, 3, 16, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err),
                   "key: expected 16 channels (head_dim), found 8");
    own_file(path, "/document/key", 2, 3, 8, 5, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "key: expected 4 axes");
    own_file(path, "/document/key", 2, 3, 8, 4, empty, data);
    assert_refused(fkv_capture_open(path, &c, &err), "key: expected 1 to");
    own_file(path, "/document/states", 2, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "expected key, value");
    own_file(path, "/document", 2, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "document: cannot open the group");
    own_file(path, "/document/key/deeper/key", 2, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "key: expected a dataset");
    own_file(path, "/document/key", -5, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_open(path, &c, &err), "attribute n_layers: expected 1 to");
    const char *const parts[] = {path};
    own_file(path, "/document/key", 2, 3, 8, 4, dims, data);
    assert_refused(fkv_capture_merge(parts, 1, in_folder("m"), &err),
                   "expected a folder made by freqkv-capture");
}

TEST_WITH(a_rotation_that_is_not_finite_is_refused, make, clean) {
    struct fkv_h5_writer *w;
    struct fkv_capture *c;
    const int64_t dims[4] = {1, 1, 3, 2};
    const double data[6] = {0};
    const char *path = in_folder("turning.h5");
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_layers", 1, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_kv_heads", 1, &err));
    assert_ok(fkv_h5_put_int(w, "/", "head_dim", 2, &err));
    assert_ok(fkv_h5_put_double(w, "/", "rope_theta", NAN, &err));
    assert_ok(fkv_h5_put(w, "/document/key", FKV_H5_F64, 4, dims, data, &err));
    assert_ok(fkv_h5_commit(w, &err));
    assert_refused(fkv_capture_open(path, &c, &err),
                   "rope_theta and attention_scale: expected finite numbers");
}

/* A user's own file of two layers with one attribute more. */
static void save_scored(const char *path, const char *name, double value, bool whole) {
    struct fkv_h5_writer *w;
    unlink(path);
    const int64_t dims[4] = {2, 1, 3, 2};
    const double data[12] = {0};
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_layers", 2, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_kv_heads", 1, &err));
    assert_ok(fkv_h5_put_int(w, "/", "head_dim", 2, &err));
    assert_ok(whole ? fkv_h5_put_int(w, "/", name, (int64_t)value, &err)
                    : fkv_h5_put_double(w, "/", name, value, &err));
    assert_ok(fkv_h5_put(w, "/document/key", FKV_H5_F64, 4, dims, data, &err));
    assert_ok(fkv_h5_commit(w, &err));
}

TEST_WITH(windows_and_caps_must_be_possible, make, clean) {
    struct fkv_capture *c;
    const char *path = in_folder("scored.h5");
    save_scored(path, "attention_softcap", -1, false);
    assert_refused(fkv_capture_open(path, &c, &err),
                   "attribute attention_softcap: expected a number from 0, found -1");
    save_scored(path, "attention_softcap", INFINITY, false);
    assert_refused(fkv_capture_open(path, &c, &err), "attribute attention_softcap");
    save_scored(path, "layer_window", -4, true);
    assert_refused(fkv_capture_open(path, &c, &err),
                   "attribute layer_window: expected numbers from 0 to 2147483647, found -4");
    save_scored(path, "layer_window", 4, true); /* of all layers */
    assert_ok(fkv_capture_open(path, &c, &err));
    assert_int_equal(fkv_capture_window(fkv_capture_info(c), 1), 4);
    fkv_capture_close(c);
}

/* A capture whose options are `options`. */
static void save_with_options(const char *name, const char *options) {
    free(s.info.options);
    s.info.options = strdup(options);
    sample_save(&s, in_folder(name), 100);
}

TEST_WITH(what_is_listed_and_not_there_is_refused, make, clean) {
    static const struct {
        const char *options, *words;
    } cases[] = {
        {"{\"states\":[\"key\",\"query\"]}",
         "attribute options: lists the state query, found no dataset of it"},
        {"{\"states\":[\"value\"]}",
         "attribute options: lists no state key, found a dataset of it"},
        {"{\"spectra_only\":true}", "attribute options: lists sums of spectra, found states"},
    };
    struct fkv_capture *c;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[2] = {(char)('a' + i), 0};
        save_with_options(name, cases[i].options);
        assert_refused(fkv_capture_open(in_folder(name), &c, &err), cases[i].words);
        assert_non_null(strstr(err.message, "documents/000000.h5"));
    }
    save_with_options("d", "{\"states\":[\"key\"],\"spectra_only\":false}");
    assert_ok(fkv_capture_open(in_folder("d"), &c, &err));
    fkv_capture_close(c);
}

TEST_WITH(links_of_another_capture_are_refused, make, clean) {
    struct fkv_capture *c;
    char from[400], to[400];
    sample_save(&s, in_folder("a"), 100);
    s.info.model_sha256[0] = 'b';
    sample_save(&s, in_folder("b"), 100);
    snprintf(from, sizeof from, "%s", in_folder("b/capture.h5"));
    snprintf(to, sizeof to, "%s", in_folder("a/capture.h5"));
    assert_int_equal(rename(from, to), 0);
    assert_refused(fkv_capture_open(in_folder("a"), &c, &err), "model_sha256: expected \"b");
    assert_int_equal(unlink(to), 0);
    assert_ok(fkv_capture_open(in_folder("a"), &c, &err));
    fkv_capture_close(c);
}

TEST_WITH(reads_outside_a_recording_are_refused, make, clean) {
    struct fkv_capture *c;
    float x[4096];
    sample_save(&s, in_folder("a"), 512);
    assert_ok(fkv_capture_open(in_folder("a"), &c, &err));
    const int32_t heads = s.info.head_count;
    assert_refused(
        fkv_capture_read_state(c, 0, FKV_STATE_KEY, s.info.layer_count, 0, 1, 0, 1, x, &err),
        "outside");
    assert_refused(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, heads, 1, 0, 1, x, &err),
                   "outside");
    assert_refused(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, heads + 1, 0, 1, x, &err),
                   "outside");
    assert_refused(fkv_capture_read_state(c, 0, FKV_STATE_KEY, 0, 0, 1, 100, 1, x, &err),
                   "outside");
    assert_refused(fkv_capture_read_state(c, 0, FKV_STATE_VALUE, 0, 0, 1, 0, 1, x, &err),
                   "expected value");
    assert_refused(fkv_capture_read_state(c, 1, FKV_STATE_KEY, 0, 0, 1, 0, 1, x, &err),
                   "recording below 1");
    fkv_capture_close(c);
    fkv_capture_close(NULL);
}
