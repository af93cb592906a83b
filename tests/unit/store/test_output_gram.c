/* output_gram.h5: what is written comes back wherever the capture is opened from, it appears whole
 * or not at all, and what cannot be is refused by name. */
#include <unistd.h>

#include "capture/store/capture_merge.h"
#include "capture/store/capture_reader.h"
#include "capture/store/capture_writer.h"
#include "capture/store/h5.h"
#include "tests/unit/store/captures.h"

static struct sample s;
static float *gram; /* of s */
static size_t layer_size, gram_size;

static int make(void **state) {
    make_folder(state);
    sample_make(&s, FKV_F16, 1u << FKV_STATE_KEY | 1u << FKV_STATE_VALUE, 60, '1');
    layer_size = (size_t)sample_heads(&s.info, FKV_STATE_QUERY) * (size_t)s.info.head_dim *
                 (size_t)s.info.head_dim;
    gram_size = layer_size * (size_t)s.info.layer_count;
    gram = malloc(gram_size * sizeof *gram);
    for (size_t i = 0; i < gram_size; i++)
        gram[i] = (float)test_uniform(); /* not below 0, as on a diagonal */
    return 0;
}

static int clean(void **state) {
    free(gram);
    sample_free(&s);
    return remove_folder(state);
}

static bool is_there(const char *name) { return access(in_folder(name), F_OK) == 0; }

/* One recording, with gram or without. */
static void save(const char *name, bool with_gram) {
    struct fkv_capture_writer *w;
    assert_ok(fkv_capture_create(in_folder(name), &s.info, false, &w, &err));
    assert_false(fkv_capture_has_output_gram(w));
    if (with_gram) assert_ok(fkv_capture_write_output_gram(w, gram, &err));
    assert_true(fkv_capture_has_output_gram(w) == with_gram);
    assert_ok(sample_write(&s, w, 0, 512, &err));
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
}

static void expect_gram(struct fkv_capture *c) {
    float *found = malloc(layer_size * sizeof *found);
    assert_non_null(fkv_capture_output_gram(c));
    for (int32_t layer = s.info.layer_count - 1; layer >= 0; layer--) {
        assert_ok(fkv_capture_read_output_gram(c, layer, found, &err));
        assert_memory_equal(found, gram + (size_t)layer * layer_size, layer_size * sizeof *found);
    }
    assert_refused(fkv_capture_read_output_gram(c, s.info.layer_count, found, &err),
                   "expected a layer below");
    free(found);
}

TEST_WITH(it_comes_back_from_folder_and_face, make, clean) {
    struct fkv_capture *c;
    float none;
    save("with", true);
    assert_int_equal(fkv_capture_output_gram_bytes(&s.info), gram_size * sizeof *gram);
    for (int face = 0; face < 2; face++) {
        assert_ok(fkv_capture_open(in_folder(face ? "with/capture.h5" : "with"), &c, &err));
        expect_gram(c);
        fkv_capture_close(c);
    }
    struct fkv_h5_reader *r;
    int rank;
    int64_t dims[8];
    bool found;
    assert_ok(fkv_h5_open(in_folder("with/capture.h5"), &r, &err)); /* one tree, as h5py sees it */
    assert_ok(fkv_h5_shape(r, "/output_gram", &rank, dims, &found, &err));
    assert_true(found && rank == 4 && dims[0] == s.info.layer_count && dims[3] == s.info.head_dim);
    fkv_h5_close(r);
    save("without", false);
    assert_ok(fkv_capture_open(in_folder("without"), &c, &err));
    assert_null(fkv_capture_output_gram(c));
    assert_refused(fkv_capture_read_output_gram(c, 0, &none, &err),
                   "expected output_gram, found none");
    fkv_capture_close(c);
}

TEST_WITH(sums_and_captures_without_values_have_no_use_for_it, make, clean) {
    s.info.states = 1u << FKV_STATE_KEY | 1u << FKV_STATE_QUERY;
    assert_int_equal(fkv_capture_output_gram_bytes(&s.info), 0);
    s.info.states = 3, s.info.spectra_only = true;
    assert_int_equal(fkv_capture_output_gram_bytes(&s.info), 0);
}

TEST_WITH(it_appears_whole_or_not_at_all, make, clean) {
    struct fkv_capture_writer *w;
    save("c", false);
    FILE *torn = fopen(in_folder("c/.output_gram.h5.tmp"), "w"); /* of a killed run */
    assert_non_null(torn);
    fclose(torn);
    assert_ok(fkv_capture_create(in_folder("c"), &s.info, true, &w, &err));
    assert_false(is_there("c/.output_gram.h5.tmp"));
    assert_false(fkv_capture_has_output_gram(w));
    const float kept = gram[gram_size - 1];
    gram[gram_size - 1] = NAN;
    char place[96];
    snprintf(place, sizeof place, "expected finite numbers, found nan at [%d, %d]",
             s.info.head_dim - 1, s.info.head_dim - 1);
    assert_refused(fkv_capture_write_output_gram(w, gram, &err), place);
    gram[gram_size - 1] = -kept;
    assert_refused(fkv_capture_write_output_gram(w, gram, &err),
                   "expected no square of a length below 0");
    gram[gram_size - 1] = kept;
    assert_false(is_there("c/output_gram.h5") || is_there("c/.output_gram.h5.tmp"));
    assert_ok(fkv_capture_write_output_gram(w, gram, &err));
    assert_ok(fkv_capture_finish(w, &err));
    fkv_capture_abandon(w);
    struct fkv_capture *c;
    assert_ok(fkv_capture_open(in_folder("c"), &c, &err));
    expect_gram(c);
    fkv_capture_close(c);
    assert_ok(fkv_capture_create(in_folder("empty"), &s.info, false, &w, &err));
    assert_ok(fkv_capture_write_output_gram(w, gram, &err));
    fkv_capture_abandon(w); /* without a recording */
    assert_false(is_there("empty"));
}

TEST_WITH(anothers_is_refused_on_resume_and_in_a_folder, make, clean) {
    struct fkv_capture_writer *w;
    struct fkv_capture *c;
    char command[1000];
    save("mine", true);
    s.info.model_sha256[5] = 'f';
    save("theirs", true);
    s.info.model_sha256[5] = 'a';
    snprintf(command, sizeof command, "cp '%s/theirs/output_gram.h5' '%s/mine'", folder, folder);
    assert_int_equal(system(command), 0);
    const char *const words =
        "output_gram.h5: made with another model, tokenizer, processor or options: model_sha256";
    assert_refused(fkv_capture_open(in_folder("mine"), &c, &err), words);
    assert_refused(fkv_capture_create(in_folder("mine"), &s.info, true, &w, &err), words);
    snprintf(command, sizeof command, "rm '%s/mine/documents/000000.h5'", folder);
    assert_int_equal(system(command), 0);
    assert_refused(fkv_capture_create(in_folder("mine"), &s.info, true, &w, &err), words);
}

TEST_WITH(merging_carries_it_over_and_refuses_another, make, clean) {
    struct fkv_capture *c;
    save("without", false);
    struct sample first = s;
    sample_fill(&s, 30, '2');
    save("with", true);
    const char *const parts[] = {in_folder("without"), in_folder("with")};
    assert_ok(fkv_capture_merge(parts, 2, in_folder("merged"), &err));
    assert_true(same_files(in_folder("with/output_gram.h5"), in_folder("merged/output_gram.h5")));
    assert_ok(fkv_capture_open(in_folder("merged"), &c, &err));
    expect_gram(c);
    fkv_capture_close(c);
    sample_free_states(&s);
    sample_fill(&s, 30, '3');
    gram[0] *= 1 + 1e-6f; /* another machine's rounding */
    save("rounded", true);
    const char *const rounded[] = {in_folder("with"), in_folder("rounded")};
    assert_ok(fkv_capture_merge(rounded, 2, in_folder("both"), &err));
    sample_free_states(&s);
    sample_fill(&s, 30, '4');
    gram[gram_size - 1] += 0.01f;
    save("other", true);
    const char *const differ[] = {in_folder("with"), in_folder("other")};
    assert_refused(fkv_capture_merge(differ, 2, in_folder("no"), &err),
                   "found one that differs by");
    assert_false(is_there("no"));
    sample_free_states(&first);
}

/* ---- a user's own file ---- */

enum {
    LAYERS = 2,
    HEADS = 2,
    GROUP = 3,
    DIM = 4,
    TOKENS = 5,
    ALL = LAYERS * HEADS * GROUP * DIM * DIM
};

static int open_own(enum fkv_h5_type type, int rank, const int64_t *dims, const void *data,
                    struct fkv_capture **c) {
    struct fkv_h5_writer *w;
    const int64_t states[4] = {LAYERS, HEADS, TOKENS, DIM};
    float value[LAYERS * HEADS * TOKENS * DIM];
    char path[400];
    strcpy(path, in_folder("own.h5"));
    remove(path);
    test_fill(value, sizeof value / sizeof *value, 0, 1);
    assert_ok(fkv_h5_create(path, &w, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_layers", LAYERS, &err));
    assert_ok(fkv_h5_put_int(w, "/", "n_kv_heads", HEADS, &err));
    assert_ok(fkv_h5_put_int(w, "/", "head_dim", DIM, &err));
    assert_ok(fkv_h5_put(w, "/documents/0/value", FKV_H5_F32, 4, states, value, &err));
    assert_ok(fkv_h5_put(w, "/output_gram", type, rank, dims, data, &err));
    assert_ok(fkv_h5_commit(w, &err));
    return fkv_capture_open(path, c, &err);
}

TEST_WITH(a_users_own_file_may_hold_it, make, clean) {
    struct fkv_capture *c;
    const int64_t dims[4] = {LAYERS, HEADS * GROUP, DIM, DIM};
    double data[ALL];
    float found[ALL / LAYERS], value[DIM];
    for (int i = 0; i < ALL; i++) data[i] = i;
    assert_ok(open_own(FKV_H5_F64, 4, dims, data, &c));
    assert_int_equal(fkv_capture_info(c)->n_heads, HEADS * GROUP); /* nothing else says so */
    assert_ok(fkv_capture_read_state(c, 0, FKV_STATE_VALUE, 0, 0, 1, 0, 1, value, &err));
    assert_ok(fkv_capture_read_output_gram(c, 1, found, &err));
    assert_ok(
        fkv_capture_read_state(c, 0, FKV_STATE_VALUE, 1, 1, 1, 2, 1, value, &err)); /* still open */
    for (int i = 0; i < ALL / LAYERS; i++) assert_close(found[i], data[ALL / LAYERS + i], 0, 0);
    fkv_capture_close(c);
    for (int bad = 0; bad < 3; bad++) {
        const double odd[] = {NAN, -1, 1e300};
        data[ALL / LAYERS + DIM * DIM + DIM + 1] = odd[bad]; /* layer 1, head 1, [1, 1] */
        assert_ok(open_own(FKV_H5_F64, 4, dims, data, &c));
        assert_ok(fkv_capture_read_output_gram(c, 0, found, &err));
        assert_refused(fkv_capture_read_output_gram(c, 1, found, &err),
                       "output_gram of layer 1, head 1: expected");
        assert_non_null(strstr(err.message, "at [1, 1]"));
        fkv_capture_close(c);
    }
}

TEST_WITH(shapes_and_types_that_cannot_be_are_refused, make, clean) {
    struct fkv_capture *c;
    const int64_t good[4] = {LAYERS, HEADS * GROUP, DIM, DIM},
                  flat[3] = {LAYERS * HEADS * GROUP, DIM, DIM};
    const int64_t layers[4] = {1, HEADS * GROUP, DIM, DIM}, heads[4] = {LAYERS, 5, DIM, DIM};
    const int64_t wide[4] = {LAYERS, HEADS, DIM, DIM * 2}, none[4] = {LAYERS, 0, DIM, DIM};
    double data[ALL] = {0};
    assert_refused(open_own(FKV_H5_I32, 4, good, data, &c),
                   "own.h5: output_gram: expected float32 or float64, found another type");
    assert_refused(open_own(FKV_H5_F32, 3, flat, data, &c),
                   "expected 4 axes [layers, heads, head_dim");
    assert_refused(open_own(FKV_H5_F32, 4, layers, data, &c), "output_gram: expected 2 layers");
    assert_refused(open_own(FKV_H5_F32, 4, heads, data, &c),
                   "output_gram: expected a multiple of 2 query heads, found 5");
    assert_refused(open_own(FKV_H5_F32, 4, wide, data, &c), "output_gram: expected 4 channels");
    assert_refused(open_own(FKV_H5_F32, 4, none, data, &c), "query heads, found 0");
}
