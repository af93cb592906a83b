/* The options that the tools share: what they turn into, and the cache's dtype that follows from
 * model and machine. */
#include "engine/command_line.h"
#include "tests/unit/support.h"

static struct fkv_engine_options options;

static void parse(int count, char **arguments) {
    fkv_engine_options_default(&options);
    assert_int_equal(argp_parse(&fkv_engine_argp, count, arguments, 0, NULL, &options), 0);
}

TEST(machine_options_have_defaults) {
    parse(5, (char *[]){"tool", "--model", "m", "--text", "t.txt", NULL});
    assert_string_equal(options.backend, "auto");
    assert_int_equal(options.device, FKV_ANY_DEVICE);
    assert_int_equal(options.threads, 0);
    assert_int_equal(options.batch, 1);
    assert_int_equal(options.compute, FKV_COMPUTE_NATIVE);
    assert_false(options.cache_dtype_given);
}

TEST(paths_may_follow_one_another) {
    char *arguments[] = {"tool",  "--text", "a.txt", "b.txt", "--model", "m", "--token-ids=c.npy",
                         "d.npy", "--text", "e.txt", NULL};
    fkv_engine_options_default(&options);
    assert_int_equal(argp_parse(&fkv_engine_argp, 10, arguments, ARGP_IN_ORDER, NULL, &options), 0);
    assert_int_equal(options.text_count, 3);
    assert_string_equal(options.texts[1], "b.txt");
    assert_string_equal(options.texts[2], "e.txt");
    assert_int_equal(options.token_ids_count, 2);
    assert_string_equal(options.token_ids[1], "d.npy");
}

TEST(machine_options_are_taken) {
    parse(13, (char *[]){"tool", "--model=m", "--text=t.txt", "--device", "3", "--batch", "16",
                         "--compute", "bf16", "--cache-dtype", "f16", "--threads", "2", NULL});
    assert_int_equal(options.device, 3);
    assert_int_equal(options.batch, 16);
    assert_int_equal(options.compute, FKV_COMPUTE_BF16);
    assert_true(options.cache_dtype_given);
    assert_int_equal(options.cache_dtype, FKV_F16);
    parse(5, (char *[]){"tool", "--model=m", "--text=t.txt", "--compute", "f32", NULL});
    assert_int_equal(options.compute, FKV_COMPUTE_F32);
}

TEST(the_cache_is_of_the_weights_sixteen_bit_dtype_only_on_a_device_that_computes_in_it) {
    static const struct {
        enum fkv_space space;
        enum fkv_compute compute;
        enum fkv_dtype weights, expected;
    } cases[] = {
        {FKV_HOST, FKV_COMPUTE_NATIVE, FKV_BF16, FKV_F32},
        {FKV_HOST, FKV_COMPUTE_F32, FKV_F16, FKV_F32},
        {FKV_DEVICE, FKV_COMPUTE_NATIVE, FKV_BF16, FKV_BF16},
        {FKV_DEVICE, FKV_COMPUTE_NATIVE, FKV_F16, FKV_F16},
        {FKV_DEVICE, FKV_COMPUTE_NATIVE, FKV_F32, FKV_F32},
        {FKV_DEVICE, FKV_COMPUTE_F32, FKV_BF16, FKV_F32},
        {FKV_DEVICE, FKV_COMPUTE_BF16, FKV_BF16, FKV_BF16},
        {FKV_DEVICE, FKV_COMPUTE_BF16, FKV_F16, FKV_F32},
        {FKV_DEVICE, FKV_COMPUTE_BF16, FKV_F32, FKV_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fkv_layer_weights layer = {.qkv.wq.format =
                                              (enum fkv_weight_format)cases[i].weights};
        struct fkv_model model = {.layers = &layer};
        struct fkv_engine engine = {.model = &model, .device.space = cases[i].space};
        fkv_engine_options_default(&options);
        options.compute = cases[i].compute;
        assert_int_equal(fkv_engine_cache_dtype(&options, &engine), cases[i].expected);
        options.cache_dtype_given = true;
        options.cache_dtype = FKV_F16;
        assert_int_equal(fkv_engine_cache_dtype(&options, &engine), FKV_F16);
    }
}
