/* Rotations: every kind against what transformers makes of the same config (tests/golden/rope.json,
 * made by make_rope.py there), their properties, and what is refused. */
#include "engine/checkpoint/rope.h"

#include <math.h>

#include "tests/unit/support.h"

static int read_text(const char *text, const char *layers, int32_t head_dim, int32_t context,
                     struct fkv_rope *rope, struct fkv_error *err) {
    const struct fkv_rope_defaults defaults = {
        .layers = layers, .theta = 10000, .head_dim = head_dim, .trained_context = context};
    json_t *root = fkv_json_parse(text, strlen(text), "config.json", err);
    assert_non_null(root);
    const int status = fkv_rope_read(root, "config.json", &defaults, rope, err);
    json_decref(root);
    return status;
}

static struct fkv_rope read_ok(const char *text, int32_t head_dim, int32_t context) {
    struct fkv_rope rope;
    assert_ok(read_text(text, NULL, head_dim, context, &rope, &err));
    return rope;
}

static void refused(const char *text, const char *words) {
    struct fkv_rope rope;
    assert_refused(read_text(text, NULL, 16, 2048, &rope, &err), words);
}

/* ---- against transformers ---- */

static void compare_case(const json_t *c) {
    struct fkv_rope rope;
    const struct fkv_rope_defaults defaults = {
        .theta = 10000,
        .head_dim = (int32_t)json_integer_value(json_object_get(c, "head_dim")),
        .trained_context = (int32_t)json_integer_value(json_object_get(c, "context"))};
    const json_t *lengths = json_object_get(c, "lengths");
    assert_ok(fkv_rope_read(json_object_get(c, "config"), "config", &defaults, &rope, &err));
    assert_close(rope.attention_factor, json_number_value(json_object_get(c, "attention_factor")),
                 0, 1e-12);
    assert_true(json_array_size(lengths) > 0);
    for (size_t i = 0; i < json_array_size(lengths); i++) {
        const json_t *length = json_array_get(lengths, i),
                     *wanted = json_object_get(length, "inv_freq");
        double found[FKV_MAX_HEAD_DIM / 2];
        fkv_rope_frequencies(&rope, json_integer_value(json_object_get(length, "positions")),
                             found);
        assert_int_equal(json_array_size(wanted), rope.channels / 2);
        for (int k = 0; k < rope.channels / 2; k++)
            assert_close(found[k], json_number_value(json_array_get(wanted, (size_t)k)), 0, 1e-12);
    }
}

TEST(frequencies_equal_those_of_transformers_at_every_length) {
    json_t *cases = fkv_json_load("tests/golden/rope.json", 1 << 20, &err);
    if (!cases) fail_msg("%s", err.message);
    assert_true(json_array_size(cases) >= 16);
    for (size_t i = 0; i < json_array_size(cases); i++) compare_case(json_array_get(cases, i));
    json_decref(cases);
}

/* ---- another scaling ---- */

/* Has the case no more than a kind, a factor, and a context as the command line would give it? */
static bool is_by_factor(const json_t *rope) {
    static const char *const plain[] = {"rope_type", "rope_theta", "factor",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor"};
    const char *field;
    json_t *value;
    const struct fkv_rope_kind *kind =
        fkv_rope_kind_find(json_string_value(json_object_get(rope, "rope_type")));
    json_object_foreach((json_t *)rope, field, value) {
        size_t i = 0;
        while (i < sizeof plain / sizeof *plain && strcmp(field, plain[i])) i++;
        if (i == sizeof plain / sizeof *plain || json_is_null(value)) return false;
    }
    return kind->by_factor;
}

/* Of a rotation that a GGUF file's divisors had scaled before. */
static void rescale_case(const json_t *c) {
    struct fkv_rope found, wanted;
    struct fkv_rope_scaling scaling;
    const json_t *config = json_object_get(c, "config"),
                 *rope = json_object_get(config, "rope_parameters"),
                 *original = json_object_get(rope, "original_max_position_embeddings"),
                 *context = json_object_get(c, "context"),
                 *part = json_object_get(rope, "partial_rotary_factor");
    const struct fkv_rope_defaults defaults = {
        .theta = 10000,
        .head_dim = (int32_t)json_integer_value(json_object_get(c, "head_dim")),
        .trained_context = (int32_t)json_integer_value(context)};
    char typed[64];
    json_t *plain = json_pack("{s:O, s:f}", "rope_theta", json_object_get(rope, "rope_theta"),
                              "partial_rotary_factor", part ? json_number_value(part) : 1.0);
    float divisors[FKV_MAX_HEAD_DIM / 2];
    for (int i = 0; i < FKV_MAX_HEAD_DIM / 2; i++) divisors[i] = 1 + (float)i;
    snprintf(typed, sizeof typed, "%s:%.17g", json_string_value(json_object_get(rope, "rope_type")),
             json_number_value(json_object_get(rope, "factor")));
    assert_ok(fkv_rope_read(config, "config", &defaults, &wanted, &err));
    assert_ok(fkv_rope_read(plain, "config", &defaults, &found, &err));
    json_decref(plain);
    assert_ok(fkv_rope_divide(&found, divisors, &err));
    assert_ok(fkv_rope_scaling_parse(typed, "--rope-scaling", &scaling, &err));
    assert_ok(fkv_rope_rescale(&found, &scaling,
                               (int32_t)json_integer_value(original ? original : context), &err));
    assert_close(found.attention_factor, wanted.attention_factor, 0, 0);
    assert_non_null(strstr(found.scaling, "\"replaces\":\"divisors\""));
    for (int64_t positions = 1; positions < 100000; positions *= 7) {
        double x[FKV_MAX_HEAD_DIM / 2], y[FKV_MAX_HEAD_DIM / 2];
        fkv_rope_frequencies(&found, positions, x);
        fkv_rope_frequencies(&wanted, positions, y);
        assert_memory_equal(x, y, (size_t)wanted.channels / 2 * sizeof *x);
    }
}

TEST(a_scaling_of_the_users_is_what_a_config_with_it_says) {
    int compared = 0;
    json_t *cases = fkv_json_load("tests/golden/rope.json", 1 << 20, &err);
    if (!cases) fail_msg("%s", err.message);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const json_t *rope = json_object_get(json_object_get(c, "config"), "rope_parameters");
        if (is_by_factor(rope)) rescale_case(c), compared++;
    }
    assert_true(compared >= 7);
    json_decref(cases);
}

TEST(a_scaling_that_a_factor_does_not_say_is_refused) {
    static const char *const typed[] = {"",           "yarn",
                                        "yarn:",      "yarn:0.99",
                                        ":2",         "ntk:2",
                                        "default:1",  "llama3:8",
                                        "yarn:x",     "linear:-2",
                                        "linear:nan", "dynamic:inf",
                                        "yarn:2x",    "a_name_of_more_than_sixteen_letters:2"};
    struct fkv_rope_scaling scaling;
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++)
        assert_refused(fkv_rope_scaling_parse(typed[i], "--rope-scaling", &scaling, &err),
                       "--rope-scaling: ");
}

/* ---- properties ---- */

TEST(both_spellings_and_both_names_of_the_kind_are_one) {
    const struct fkv_rope a = read_ok("{\"rope_theta\": 5000, \"rope_scaling\": {\"type\": "
                                      "\"dynamic\", \"factor\": 3}}",
                                      16, 512),
                          b = read_ok("{\"rope_parameters\": {\"rope_type\": \"dynamic\", "
                                      "\"factor\": 3, \"rope_theta\": 5000}}",
                                      16, 512);
    double x[FKV_MAX_HEAD_DIM / 2], y[FKV_MAX_HEAD_DIM / 2];
    fkv_rope_frequencies(&a, 700, x);
    fkv_rope_frequencies(&b, 700, y);
    assert_memory_equal(x, y, 8 * sizeof *x);
    assert_memory_equal(a.inv_freq, b.inv_freq, 8 * sizeof *x);
}

TEST(dynamic_starts_where_the_context_ends_and_slows_with_every_position) {
    const int32_t context = test_between(64, 8192), head_dim = 2 * test_between(2, 64);
    char text[128];
    snprintf(text, sizeof text, "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": %g}}",
             1 + test_between(1, 32) / 4.0);
    const struct fkv_rope rope = read_ok(text, head_dim, context);
    double within[FKV_MAX_HEAD_DIM / 2], at[FKV_MAX_HEAD_DIM / 2], beyond[FKV_MAX_HEAD_DIM / 2];
    fkv_rope_frequencies(&rope, 1, within);
    fkv_rope_frequencies(&rope, context, at);
    assert_memory_equal(within, at, (size_t)head_dim / 2 * sizeof *at);
    for (int32_t positions = context + 1; positions < 16 * context; positions *= 2) {
        fkv_rope_frequencies(&rope, positions, beyond);
        assert_close(beyond[0], 1, 0, 1e-15);
        for (int i = 1; i < head_dim / 2; i++) assert_true(beyond[i] < at[i]);
        memcpy(at, beyond, sizeof at);
    }
}

TEST(yarn_slows_no_pair_by_more_than_the_factor) {
    for (int round = 0; round < 50; round++) {
        const int32_t head_dim = 2 * test_between(1, 128), context = test_between(16, 1 << 17);
        const double factor = 1 + test_between(0, 200) / 4.0;
        char text[256];
        snprintf(text, sizeof text,
                 "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": %.17g, \"beta_fast\": "
                 "%d, \"truncate\": %s, \"original_max_position_embeddings\": %d}}",
                 factor, test_between(2, 64), test_between(0, 1) ? "true" : "false", context);
        const struct fkv_rope rope = read_ok(text, head_dim, context);
        for (int i = 0; i < head_dim / 2; i++) {
            const double plain = pow(10000, -2.0 * i / head_dim);
            assert_true(rope.inv_freq[i] <= plain * (1 + 1e-14) &&
                        rope.inv_freq[i] >= plain / factor * (1 - 1e-14));
        }
        assert_close(rope.attention_factor, factor > 1 ? 0.1 * log(factor) + 1 : 1, 0, 1e-14);
    }
}

TEST(a_part_of_a_head_turns_as_a_smaller_head_would) {
    const int32_t channels = 2 * test_between(1, 32);
    char text[128];
    snprintf(text, sizeof text, "{\"partial_rotary_factor\": %.17g, \"rope_theta\": 700}",
             channels / 64.0);
    const struct fkv_rope part = read_ok(text, 64, 512),
                          whole = read_ok("{\"rope_theta\": 700}", channels, 512);
    assert_int_equal(part.channels, channels);
    assert_memory_equal(part.inv_freq, whole.inv_freq, (size_t)channels / 2 * sizeof(double));
}

TEST(each_kind_of_layer_reads_its_own_rotation) {
    static const char text[] =
        "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, "
        "\"rope_theta\": 1000000}, \"sliding_attention\": {\"rope_type\": \"default\", "
        "\"rope_theta\": 10000}}}";
    struct fkv_rope full, local;
    assert_ok(read_text(text, "full_attention", 16, 512, &full, &err));
    assert_ok(read_text(text, "sliding_attention", 16, 512, &local, &err));
    for (int i = 0; i < 8; i++) {
        assert_close(full.inv_freq[i], pow(1e6, -i / 8.0) / 8, 0, 1e-14);
        assert_close(local.inv_freq[i], pow(1e4, -i / 8.0), 0, 1e-14);
    }
    assert_string_equal(local.scaling, "null");
}

TEST(older_names_of_longrope_are_longrope) {
    static const char *const names[] = {"su", "yarn", "longrope"};
    for (int i = 0; i < 3; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "{\"original_max_position_embeddings\": 100, \"rope_scaling\": {\"type\": \"%s\", "
                 "\"short_factor\": [1, 2], \"long_factor\": [3, 4]}}",
                 names[i]);
        const struct fkv_rope rope = read_ok(text, 4, 400);
        double found[2];
        assert_string_equal(rope.kind, "longrope");
        assert_close(rope.attention_factor, sqrt(1 + log(4) / log(100)), 0, 1e-14);
        fkv_rope_frequencies(&rope, 100, found);
        assert_close(found[1], 0.01 / 2, 0, 1e-14);
        fkv_rope_frequencies(&rope, 101, found);
        assert_close(found[1], 0.01 / 4, 0, 1e-14);
    }
}

TEST(only_what_depends_on_the_length_is_announced) {
    char text[128];
    const struct fkv_rope plain = read_ok("{}", 16, 512),
                          dynamic =
                              read_ok("{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}",
                                      16, 512);
    assert_false(fkv_rope_describe(&plain, 9000, text));
    assert_true(fkv_rope_describe(&dynamic, 512, text));
    assert_string_equal(
        text, "dynamic: frequencies within its original context of 512, for 512 positions");
    assert_true(fkv_rope_describe(&dynamic, 513, text));
    assert_non_null(strstr(text, "beyond"));
}

/* ---- refusals ---- */

TEST(missing_or_senseless_numbers_are_refused) {
    refused("{\"rope_scaling\": {\"type\": \"dynamic\"}}", "rope_scaling: field \"factor\"");
    refused("{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1]}}",
            "field \"long_factor\": expected a list of 8 numbers, found 0");
    refused(
        "{\"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [1, 1, 1, 1, 1, 1, 1, 1], "
        "\"short_factor\": [1, 1, 1, 0, 1, 1, 1, 1]}}",
        "field \"short_factor\": expected numbers above 0, found 0 at [3]");
    refused("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 0.5}}", "field \"factor\"");
    refused("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}}",
            "field \"attention_factor\"");
    refused("{\"partial_rotary_factor\": 1.5}", "found 24 of them");
    refused("{\"partial_rotary_factor\": 0.2}", "expected an even number of channels");
    refused("{\"rope_scaling\": {\"rope_type\": \"mrope\"}}",
            "expected default, linear, dynamic, yarn, llama3 or longrope, found mrope");
    refused("{\"rope_parameters\": {\"full_attention\": {}}}",
            "found one of its own for full_attention");
}
