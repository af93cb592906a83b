/* The Gram matrices that a capture keeps of the output projection, against sums in double over the
 * checkpoint's own bytes. */
#include <unistd.h>

#include "capture/recorder.h"
#include "capture/store/capture_reader.h"
#include "tests/unit/capture/small_model.h"

enum { GROUP = SMALL_HEADS / SMALL_KV_HEADS, D = SMALL_HEAD_DIM };

static char base[256], model[300], ids[300];
static struct fkv_engine engine;
static struct fkv_engine_options engine_options;

static void open_model(enum fkv_dtype dtype) {
    test_make_folder(base);
    snprintf(model, sizeof model, "%s/model", base);
    snprintf(ids, sizeof ids, "%s/ids.bin", base);
    write_small_model(model, dtype, 0.5);
    write_ids(ids, 40);
    fkv_engine_options_default(&engine_options);
    engine_options.model = model, engine_options.backend = "cpu", engine_options.quiet = true;
    engine_options.threads = test_between(1, 3);
    engine_options.token_ids[0] = ids, engine_options.token_ids_count = 1;
    assert_ok(fkv_engine_open(&engine_options, &engine, &err));
}

static void close_model(void) {
    fkv_engine_close(&engine);
    test_remove_folder(base);
}

static void record(struct fkv_recorder_options *o, struct fkv_recorder_needs *needs) {
    struct fkv_recorder *r;
    struct fkv_recorder_summary summary;
    assert_ok(fkv_recorder_open(&engine, &engine_options, o, &r, &err));
    assert_ok(fkv_recorder_survey(r, needs, &err));
    assert_ok(fkv_recorder_run(r, needs, &summary, &err));
    fkv_recorder_close(r);
}

/* Element [a, b] of a head's: columns a and b of its part of W_O. */
static double element(int layer, int head, int a, int b) {
    struct fkv_tensor t;
    assert_ok(fkv_checkpoint_find(engine.model->checkpoint, FKV_OUTPUT, layer, &t, &err));
    double sum = 0;
    for (int64_t row = 0; row < t.shape[0]; row++) {
        float x[2];
        for (int i = 0; i < 2; i++)
            fkv_weight_expand(t.format,
                              (const char *)t.data +
                                  (size_t)(row * SMALL_HEADS * D + head * D + (i ? b : a)) *
                                      fkv_weight_bytes(t.format, 1),
                              1, &x[i]);
        sum += (double)x[0] * x[1];
    }
    return sum;
}

TEST(it_is_that_of_the_weights_in_any_dtype) {
    for (enum fkv_dtype dtype = FKV_F32; dtype <= FKV_BF16; dtype++) {
        struct fkv_recorder_needs needs;
        struct fkv_capture *c;
        char folder[300];
        const int layers[] = {0, 2}, heads[] = {1};
        open_model(dtype);
        snprintf(folder, sizeof folder, "%s/some", base);
        struct fkv_recorder_options o = {.out = folder,
                                         .states = 3,
                                         .dtype = FKV_F16,
                                         .layers = layers,
                                         .layer_count = 2,
                                         .heads = heads,
                                         .head_count = 1,
                                         .shards = 1};
        record(&o, &needs);
        assert_ok(fkv_capture_open(folder, &c, &err));
        for (int layer = 0; layer < 2; layer++) {
            float gram[GROUP][D][D];
            assert_ok(fkv_capture_read_output_gram(c, layer, &gram[0][0][0], &err));
            for (int g = 0; g < GROUP; g++)
                for (int a = 0; a < D; a++)
                    for (int b = 0; b < D; b++)
                        assert_close(gram[g][a][b],
                                     element(layers[layer], heads[0] * GROUP + g, a, b), 1e-5,
                                     1e-6);
        }
        fkv_capture_close(c);
        close_model();
    }
}

TEST(it_is_counted_made_once_and_made_again_where_it_is_missing) {
    struct fkv_recorder_needs needs, left;
    char folder[300], path[400], command[1000];
    open_model(FKV_F32);
    snprintf(folder, sizeof folder, "%s/c", base);
    snprintf(path, sizeof path, "%s/output_gram.h5", folder);
    struct fkv_recorder_options o = {.out = folder, .states = 3, .dtype = FKV_F32, .shards = 1};
    record(&o, &needs);
    const int64_t bytes = SMALL_LAYERS * SMALL_HEADS * D * D * (int64_t)sizeof(float);
    snprintf(command, sizeof command, "cp '%s' '%s/kept'", path, base);
    assert_int_equal(system(command), 0);
    o.resume = true;
    record(&o, &left);
    assert_int_equal(left.disk_bytes, 0);
    assert_int_equal(remove(path), 0);
    record(&o, &left);
    assert_int_equal(left.disk_bytes, bytes);
    assert_true(needs.disk_bytes > bytes);
    snprintf(command, sizeof command, "cmp '%s' '%s/kept'", path, base);
    assert_int_equal(system(command), 0);
    o.resume = false, o.spectra_only = true, o.length = 20;
    snprintf(folder, sizeof folder, "%s/sums", base);
    record(&o, &left);
    snprintf(path, sizeof path, "%s/output_gram.h5", folder);
    assert_int_equal(access(path, F_OK), -1);
    close_model();
}
