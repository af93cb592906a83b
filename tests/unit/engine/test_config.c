/* config.json: every family's defaults, both spellings of the rotation, and a refusal by name for
 * whatever we do not compute. */
#include <jansson.h>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/safetensors.h"
#include "tests/unit/support.h"

/* A complete llama config with the fields of `changes` on top of it; a field set to "absent" is
 * taken out. The caller frees. */
static char *config_text(const char *changes) {
    json_t *config = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b}", "model_type", "llama", "hidden_size", 64,
        "intermediate_size", 96, "num_hidden_layers", 3, "num_attention_heads", 8, "vocab_size",
        100, "max_position_embeddings", 512, "rms_norm_eps", 1e-5, "tie_word_embeddings", 1);
    json_t *overlay = json_loads(changes, 0, NULL);
    if (!overlay) fail_msg("the test's own JSON is wrong: %s", changes);
    const char *field;
    json_t *value;
    json_object_foreach(overlay, field, value) {
        const char *text = json_string_value(value);
        if (text && !strcmp(text, "absent"))
            json_object_del(config, field);
        else
            json_object_set(config, field, value);
    }
    json_decref(overlay);
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    json_decref(config);
    return text;
}

static struct fkv_config parsed(const char *changes) {
    struct fkv_error err = {0};
    struct fkv_config c;
    char *text = config_text(changes);
    assert_ok(fkv_config_parse(text, strlen(text), "config.json", 0, &c, &err), err);
    free(text);
    return c;
}

static void refused(const char *changes, const char *expected) {
    struct fkv_error err;
    struct fkv_config c;
    char *text = config_text(changes);
    assert_refused(fkv_config_parse(text, strlen(text), "config.json", 0, &c, &err), err, expected);
    if (strncmp(err.message, "config.json: ", 13))
        fail_msg("message \"%s\" does not open with the file", err.message);
    free(text);
}

/* ---- what is read ---- */

/* Numbers of two configs must not be mixed although the weights are the same. */
static void a_hash_tells_what_the_config_says(void **state) {
    (void)state;
    static const char *const others[] = {
        "{\"rms_norm_eps\": 0.1}", "{\"rope_theta\": 50000}", "{\"bos_token_id\": 5}",
        "{\"max_position_embeddings\": 77}",
        "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}}"};
    const struct fkv_config plain = parsed("{}");
    assert_int_equal(strlen(plain.sha256), 64);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_string_not_equal(parsed(others[i]).sha256, plain.sha256);
    assert_string_equal(parsed("{\"transformers_version\": \"5\"}").sha256, plain.sha256);
}

static void fields_arrive_as_written(void **state) {
    (void)state;
    struct fkv_config c =
        parsed("{\"num_key_value_heads\": 2, \"bos_token_id\": 5, \"eos_token_id\": 6}");
    assert_string_equal(c.model_type, "llama");
    assert_int_equal(c.layers, 3);
    assert_int_equal(c.dim, 64);
    assert_int_equal(c.hidden, 96);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.vocab, 100);
    assert_int_equal(c.trained_context, 512);
    assert_int_equal(c.bos, 5);
    assert_int_equal(c.eos, 6);
    assert_true(c.tied && !c.qkv_bias && !c.qk_norm);
    assert_close(c.rms_eps, 1e-5, 0, 1e-6);
    assert_close(c.attention_scale, 1 / sqrt(8), 0, 1e-6);
}

static void what_a_config_leaves_out_is_what_transformers_assumes(void **state) {
    (void)state;
    const char *rest =
        "\"rms_norm_eps\": \"absent\", \"tie_word_embeddings\": \"absent\", "
        "\"max_position_embeddings\": "
        "\"absent\", \"num_attention_heads\": 32, \"hidden_size\": 256, \"sliding_window\": null";
    static const struct {
        const char *model_type;
        int kv_heads, head_dim, context;
        bool qkv_bias, qk_norm;
    } families[] = {{"llama", 32, 8, 2048, false, false},
                    {"mistral", 8, 8, 131072, false, false},
                    {"qwen2", 32, 8, 32768, true, false},
                    {"qwen3", 32, 128, 32768, false, true}};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char changes[512];
        snprintf(changes, sizeof changes, "{\"model_type\": \"%s\", %s}", families[i].model_type,
                 rest);
        struct fkv_config c = parsed(changes);
        assert_int_equal(c.kv_heads, families[i].kv_heads);
        assert_int_equal(c.head_dim, families[i].head_dim);
        assert_int_equal(c.trained_context, families[i].context);
        assert_int_equal(c.qkv_bias, families[i].qkv_bias);
        assert_int_equal(c.qk_norm, families[i].qk_norm);
        assert_false(c.tied);
        assert_close(c.rotations[0].theta, 10000, 0, 0);
        assert_close(c.rms_eps, 1e-6, 0, 1e-6);
        assert_int_equal(c.bos, -1);
        assert_int_equal(c.eos, -1);
        assert_string_equal(c.rotations[0].scaling, "null");
    }
    struct fkv_config c = parsed("{\"model_type\": \"mistral\", \"num_attention_heads\": 4, "
                                 "\"num_key_value_heads\": null, \"sliding_window\": null}");
    assert_int_equal(c.kv_heads, 4);
}

static void of_several_end_tokens_the_first_counts(void **state) {
    (void)state;
    struct fkv_config c = parsed("{\"eos_token_id\": [7, 8, 7, 100, 9]}");
    assert_int_equal(c.eos, 7);
    assert_int_equal(c.end_count, 3); /* once each, in the vocabulary */
    assert_int_equal(c.ends[1], 8);
    assert_int_equal(c.ends[2], 9);
    assert_int_equal(parsed("{\"eos_token_id\": 7}").end_count, 1);
    assert_int_equal(parsed("{\"eos_token_id\": []}").eos, -1);
    assert_int_equal(parsed("{\"eos_token_id\": null}").eos, -1);
}

static void a_token_outside_the_vocabulary_counts_as_none(void **state) {
    (void)state;
    struct fkv_config c = parsed("{\"eos_token_id\": 100, \"bos_token_id\": -1}");
    assert_int_equal(c.eos, -1);
    assert_int_equal(c.bos, -1);
}

static void explicit_head_dim_needs_no_multiple(void **state) {
    (void)state;
    assert_int_equal(parsed("{\"head_dim\": 20, \"hidden_size\": 66}").head_dim, 20);
    refused("{\"hidden_size\": 66}",
            "field \"hidden_size\": expected a multiple of num_attention_heads 8");
}

/* Configs as they lie on the hub, shortened to the fields that could matter. */
static void configs_of_published_models_load(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int kv_heads, head_dim, context, eos;
        bool tied;
        double theta, slowest; /* slowest: the last frequency over what it were without scaling */
    } models[] = {
        {"{\"model_type\": \"llama\", \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"num_hidden_layers\": 32, "
         "\"num_attention_heads\": 32, \"num_key_value_heads\": 32, \"vocab_size\": 32000, "
         "\"rope_scaling\": null, "
         "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", "
         "\"pretraining_tp\": 1, "
         "\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\", \"bos_token_id\": 1, "
         "\"eos_token_id\": 2}",
         32, 128, 4096, 2, false, 1e4, 1},
        {"{\"model_type\": \"llama\", \"hidden_size\": 2048, \"intermediate_size\": 8192, "
         "\"num_hidden_layers\": 16, "
         "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"head_dim\": 64, "
         "\"vocab_size\": 128256, "
         "\"rope_scaling\": {\"factor\": 32.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": "
         "1.0, "
         "\"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}, \"rope_theta\": "
         "500000.0, "
         "\"max_position_embeddings\": 131072, \"attention_bias\": false, \"mlp_bias\": false, "
         "\"tie_word_embeddings\": true, \"eos_token_id\": [128001, 128008, 128009]}",
         8, 64, 131072, 128001, true, 5e5, 1 / 32.0},
        {"{\"model_type\": \"mistral\", \"hidden_size\": 4096, \"intermediate_size\": 14336, "
         "\"num_hidden_layers\": 32, "
         "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 32768, "
         "\"rope_theta\": 1000000.0, "
         "\"max_position_embeddings\": 32768, \"sliding_window\": null, \"eos_token_id\": 2}",
         8, 128, 32768, 2, false, 1e6, 1},
        {"{\"model_type\": \"qwen2\", \"hidden_size\": 896, \"intermediate_size\": 4864, "
         "\"num_hidden_layers\": 24, "
         "\"num_attention_heads\": 14, \"num_key_value_heads\": 2, \"vocab_size\": 151936, "
         "\"rope_theta\": 1000000.0, "
         "\"max_position_embeddings\": 32768, \"max_window_layers\": 24, \"sliding_window\": "
         "32768, "
         "\"use_sliding_window\": false, \"tie_word_embeddings\": true, \"eos_token_id\": 151643}",
         2, 64, 32768, 151643, true, 1e6, 1},
        {"{\"model_type\": \"qwen3\", \"hidden_size\": 1024, \"intermediate_size\": 3072, "
         "\"num_hidden_layers\": 28, "
         "\"num_attention_heads\": 16, \"num_key_value_heads\": 8, \"head_dim\": 128, "
         "\"vocab_size\": 151936, "
         "\"rope_scaling\": null, \"rope_theta\": 1000000, \"max_position_embeddings\": 40960, "
         "\"max_window_layers\": 28, "
         "\"sliding_window\": null, \"use_sliding_window\": false, \"attention_bias\": false, "
         "\"tie_word_embeddings\": true, \"eos_token_id\": 151645}",
         8, 128, 40960, 151645, true, 1e6, 1},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct fkv_error err = {0};
        struct fkv_config c;
        assert_ok(
            fkv_config_parse(models[i].text, strlen(models[i].text), "config.json", 0, &c, &err),
            err);
        assert_int_equal(c.kv_heads, models[i].kv_heads);
        assert_int_equal(c.head_dim, models[i].head_dim);
        assert_int_equal(c.trained_context, models[i].context);
        assert_int_equal(c.eos, models[i].eos);
        assert_int_equal(c.tied, models[i].tied);
        assert_close(c.rotations[0].theta, models[i].theta, 0, 0);
        double unscaled = pow(c.rotations[0].theta, -(c.head_dim - 2.0) / c.head_dim);
        assert_close(c.rotations[0].inv_freq[c.head_dim / 2 - 1], models[i].slowest * unscaled, 0,
                     1e-13);
    }
}

/* ---- the rotation ---- */

static void frequencies_fall_geometrically(void **state) {
    (void)state;
    double theta = 1000 * (1 + 1000 * test_uniform());
    char changes[96];
    snprintf(changes, sizeof changes, "{\"rope_theta\": %.17g, \"head_dim\": 64}", theta);
    struct fkv_config c = parsed(changes);
    assert_close(c.rotations[0].theta, theta, 0, 0);
    for (int i = 0; i < 32; i++)
        assert_close(c.rotations[0].inv_freq[i], pow(theta, -i / 32.0), 0, 1e-14);
}

static void linear_scaling_divides_every_frequency(void **state) {
    (void)state;
    struct fkv_config plain = parsed("{\"head_dim\": 32}");
    struct fkv_config scaled =
        parsed("{\"head_dim\": 32, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}}");
    for (int i = 0; i < 16; i++)
        assert_close(scaled.rotations[0].inv_freq[i], plain.rotations[0].inv_freq[i] / 4, 0, 1e-15);
    assert_string_equal(scaled.rotations[0].scaling, "{\"type\":\"linear\",\"factor\":4}");
    assert_true(plain.rotations[0].factor == 1 && scaled.rotations[0].factor == 4);
}

static void both_spellings_of_the_rotation_agree(void **state) {
    (void)state;
    struct fkv_config classic =
        parsed("{\"head_dim\": 32, \"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": "
               "\"llama3\", \"factor\": 8.0, "
               "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
               "\"original_max_position_embeddings\": 128}}");
    struct fkv_config current = parsed("{\"head_dim\": 32, \"rope_parameters\": {\"rope_theta\": "
                                       "500000.0, \"rope_type\": \"llama3\", \"factor\": "
                                       "8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                                       "\"original_max_position_embeddings\": 128}}");
    assert_close(current.rotations[0].theta, 500000, 0, 0);
    assert_memory_equal(classic.rotations[0].inv_freq, current.rotations[0].inv_freq,
                        sizeof classic.rotations[0].inv_freq);
    struct fkv_config plain = parsed("{\"head_dim\": 32, \"rope_parameters\": {\"rope_theta\": "
                                     "500000.0, \"rope_type\": \"default\"}}");
    assert_string_equal(plain.rotations[0].scaling, "null");
    assert_close(plain.rotations[0].inv_freq[1], pow(500000, -1 / 16.0), 0, 1e-14);
}

/* Random parameters: short wavelengths as they are, long ones divided, between them in order. */
static void llama3_scaling_touches_only_long_wavelengths(void **state) {
    (void)state;
    for (int round = 0; round < 50; round++) {
        double factor = 1 + 31 * test_uniform(), low = 0.5 + test_uniform(),
               high = low + 0.1 + 4 * test_uniform();
        int context = test_between(16, 8192);
        char changes[512];
        snprintf(changes, sizeof changes,
                 "{\"head_dim\": 128, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": "
                 "%.17g, \"low_freq_factor\": "
                 "%.17g, \"high_freq_factor\": %.17g, \"original_max_position_embeddings\": %d}}",
                 factor, low, high, context);
        struct fkv_config plain = parsed("{\"head_dim\": 128}"), c = parsed(changes);
        for (int i = 0; i < 64; i++) {
            double f = plain.rotations[0].inv_freq[i], wavelength = 2 * acos(-1) / f;
            if (wavelength < context / high) assert_close(c.rotations[0].inv_freq[i], f, 0, 1e-14);
            if (wavelength > context / low)
                assert_close(c.rotations[0].inv_freq[i], f / factor, 0, 1e-14);
            assert_in_range(c.rotations[0].inv_freq[i] <= f * (1 + 1e-14) &&
                                c.rotations[0].inv_freq[i] >= f / factor * (1 - 1e-14),
                            1, 1);
            if (i) assert_true(c.rotations[0].inv_freq[i] < c.rotations[0].inv_freq[i - 1]);
        }
    }
}

static void frequencies_equal_those_of_transformers(void **state) {
    (void)state;
    static const char *const models[] = {"llama-mha", "llama3-rope", "linear-rope", "mistral",
                                         "qwen2",     "qwen3",       "wide-heads"};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char folder[128], path[160];
        snprintf(folder, sizeof folder, "tests/golden/%s", models[i]);
        snprintf(path, sizeof path, "%s/expected", folder);
        struct fkv_error err = {0};
        struct fkv_config c;
        assert_ok(fkv_config_load(folder, 0, &c, &err), err);
        assert_int_equal(strlen(c.sha256), 64);
        struct fkv_safetensors *golden;
        assert_ok(fkv_safetensors_open(path, &golden, &err), err);
        const struct fkv_tensor *t = fkv_safetensors_find(golden, "inv_freq");
        assert_non_null(t);
        assert_int_equal(t->shape[0], c.head_dim / 2);
        for (int k = 0; k < c.head_dim / 2; k++)
            assert_close(c.rotations[0].inv_freq[k], ((const float *)t->data)[k], 0, 1e-6);
        fkv_safetensors_close(golden);
    }
}

static void other_rotations_are_refused_by_name(void **state) {
    (void)state;
    refused("{\"rope_scaling\": {\"type\": \"mrope\", \"factor\": 2.0}}",
            "rope_scaling: field \"rope_type\": expected default, linear, dynamic, yarn, llama3 or "
            "longrope, found mrope");
    refused("{\"rope_parameters\": {\"rope_type\": \"proportional\"}}",
            "rope_parameters: field \"rope_type\": expected default, linear, dynamic, yarn, llama3 "
            "or longrope, found proportional");
    refused("{\"partial_rotary_factor\": 0.5}",
            "field \"partial_rotary_factor\": expected 1, found 0.5");
    refused("{\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.25}}",
            "expected 1, found 0.25");
    refused("{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
            "found one of its own for full_attention");
    refused("{\"rope_scaling\": \"linear\"}", "field \"rope_scaling\": expected an object or null");
}

static void a_rotation_with_missing_or_senseless_numbers_is_refused(void **state) {
    (void)state;
    refused("{\"rope_scaling\": {\"type\": \"linear\"}}", "rope_scaling: field \"factor\"");
    refused("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}", "field \"factor\"");
    refused("{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
            "\"high_freq_factor\": 4}}",
            "field \"high_freq_factor\": expected more than low_freq_factor 4, found 4");
    refused("{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1}}",
            "field \"high_freq_factor\"");
    refused("{\"rope_theta\": 0}", "field \"rope_theta\"");
    refused("{\"rope_theta\": \"many\"}", "field \"rope_theta\"");
}

/* ---- refusals ---- */

static void an_unknown_architecture_is_refused_by_name(void **state) {
    (void)state;
    refused("{\"model_type\": \"mamba\"}", "field \"model_type\": expected llama, mistral, qwen2, "
                                           "qwen3, smollm3, phi3, gemma2, gemma3_text, olmo2 or "
                                           "granite, found mamba");
    refused("{\"model_type\": \"absent\"}", "gemma3_text, olmo2 or granite, found nothing");
    refused("{\"model_type\": 7}", "field \"model_type\"");
}

static void zero_negative_and_absurd_sizes_are_refused(void **state) {
    (void)state;
    static const char *const fields[] = {
        "hidden_size",         "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size",        "head_dim",          "max_position_embeddings"};
    static const char *const values[] = {"0", "-1", "2147483648", "1e300", "\"8\"", "2.5"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            char changes[64], expected[96];
            snprintf(changes, sizeof changes, "{\"%s\": %s}", fields[i], values[k]);
            snprintf(expected, sizeof expected, "field \"%s\": expected an integer in [1, ",
                     fields[i]);
            refused(changes, expected);
        }
    refused("{\"num_hidden_layers\": 1025}", "expected an integer in [1, 1024], found 1025");
    refused("{\"num_attention_heads\": 16384, \"head_dim\": 128}", "found 16384 x 128");
}

static void a_missing_size_is_named(void **state) {
    (void)state;
    static const char *const fields[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
                                         "num_attention_heads", "vocab_size"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char changes[64], expected[64];
        snprintf(changes, sizeof changes, "{\"%s\": \"absent\"}", fields[i]);
        snprintf(expected, sizeof expected, "field \"%s\"", fields[i]);
        refused(changes, expected);
    }
}

static void heads_that_do_not_divide_are_refused(void **state) {
    (void)state;
    refused("{\"num_key_value_heads\": 3}",
            "field \"num_key_value_heads\": expected a divisor of num_attention_heads 8, found 3");
    refused("{\"num_key_value_heads\": 16}", "field \"num_key_value_heads\"");
}

static void odd_or_too_wide_heads_are_refused(void **state) {
    (void)state;
    refused("{\"head_dim\": 7}", "field \"head_dim\": expected an even number up to 512, found 7");
    refused("{\"hidden_size\": 8192}",
            "field \"head_dim\": expected an even number up to 512, found 1024");
}

/* ---- layers ---- */

/* Windows of the three layers of `changes`' model. */
static void assert_windows(const char *changes, int first, int second, int third) {
    const struct fkv_config c = parsed(changes);
    const int expected[] = {first, second, third};
    assert_int_equal(c.layers, 3);
    for (int l = 0; l < 3; l++) {
        assert_int_equal(c.layer[l].window, expected[l]);
        assert_int_equal(c.layer[l].rotation, 0);
    }
}

static void windows_are_those_that_transformers_gives_the_layers(void **state) {
    (void)state;
    assert_windows("{\"model_type\": \"mistral\", \"sliding_window\": 256}", 256, 256, 256);
    assert_windows("{\"model_type\": \"mistral\", \"sliding_window\": null}", 0, 0, 0);
    assert_windows("{\"model_type\": \"mistral\"}", 4096, 4096, 4096); /* silent */
    assert_windows("{\"sliding_window\": 16}", 0, 0, 0);               /* llama has none */
    assert_windows("{\"model_type\": \"phi3\"}", 0, 0, 0);
    assert_windows("{\"model_type\": \"phi3\", \"sliding_window\": 7}", 7, 7, 7);
    assert_windows("{\"model_type\": \"gemma2\", \"sliding_window\": 9}", 9, 0, 9);
    static const char one_slides[] =
        "{\"model_type\": \"%s\", \"sliding_window\": 7, \"layer_types\": "
        "[\"full_attention\", \"sliding_attention\", \"full_attention\"]}";
    char changes_of_type[256];
    snprintf(changes_of_type, sizeof changes_of_type, one_slides, "phi3"); /* does not read it */
    assert_windows(changes_of_type, 7, 7, 7);
    snprintf(changes_of_type, sizeof changes_of_type, one_slides, "mistral");
    assert_windows(changes_of_type, 0, 7, 0);
    assert_windows("{\"model_type\": \"smollm3\", \"use_sliding_window\": false, "
                   "\"sliding_window\": 7, \"layer_types\": "
                   "[\"full_attention\", \"sliding_attention\", \"full_attention\"]}",
                   0, 7, 0);
    const char *qwen[] = {"qwen2", "qwen3"};
    for (int i = 0; i < 2; i++) {
        static const struct {
            const char *fields;
            int windows[3];
        } cases[] = {
            {"\"use_sliding_window\": false, \"sliding_window\": 256", {0, 0, 0}},
            {"\"use_sliding_window\": true, \"sliding_window\": 256", {0, 0, 0}},
            {"\"use_sliding_window\": true, \"sliding_window\": 256, \"max_window_layers\": 3",
             {0, 0, 0}},
            {"\"use_sliding_window\": true, \"sliding_window\": 256, \"max_window_layers\": 2",
             {0, 0, 256}},
            {"\"use_sliding_window\": true, \"sliding_window\": 5, \"layer_types\": "
             "[\"full_attention\", \"sliding_attention\", \"full_attention\"]",
             {0, 5, 0}},
            {"\"use_sliding_window\": true, \"sliding_window\": 256, \"layer_types\": "
             "[\"full_attention\", \"full_attention\", \"full_attention\"]",
             {0, 0, 0}},
        };
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            char changes[512];
            snprintf(changes, sizeof changes,
                     "{\"model_type\": \"%s\", \"num_key_value_heads\": 8, %s}", qwen[i],
                     cases[k].fields);
            const int *w = cases[k].windows;
            assert_windows(changes, w[0], w[1], w[2]);
        }
    }
}

static void layer_types_that_we_do_not_know_are_refused(void **state) {
    (void)state;
    const char *qwen = "{\"model_type\": \"qwen3\", \"num_key_value_heads\": 8, "
                       "\"use_sliding_window\": true, \"layer_types\": %s}";
    static const char *const cases[][2] = {
        {"[\"full_attention\"]", "field \"layer_types\": expected 3 entries, found 1"},
        {"\"full_attention\"", "field \"layer_types\": expected 3 entries, found 0"},
        {"[\"full_attention\", \"linear_attention\", \"full_attention\"]",
         "found linear_attention for layer 1"},
        {"[\"full_attention\", 1, \"full_attention\"]", "found no text for layer 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char changes[512];
        snprintf(changes, sizeof changes, qwen, cases[i][0]);
        refused(changes, cases[i][1]);
    }
    refused("{\"model_type\": \"mistral\", \"sliding_window\": 0}", "field \"sliding_window\"");
}

static void layers_of_smollm3_turn_as_listed_or_by_interval(void **state) {
    (void)state;
    const int none = FKV_NO_ROTATION;
    const struct fkv_config listed = parsed(
        "{\"model_type\": \"smollm3\", \"num_key_value_heads\": 8, \"no_rope_layers\": [0, 1, "
        "0]}");
    assert_true(listed.layer[0].rotation == none && listed.layer[1].rotation == 0 &&
                listed.layer[2].rotation == none);
    const struct fkv_config every = parsed("{\"model_type\": \"smollm3\", \"num_key_value_heads\": "
                                           "8, \"no_rope_layer_interval\": 2}");
    assert_true(every.layer[0].rotation == 0 && every.layer[1].rotation == none &&
                every.layer[2].rotation == 0);
    const struct fkv_config slides =
        parsed("{\"model_type\": \"smollm3\", \"num_key_value_heads\": 8, "
               "\"no_rope_layer_interval\": 3, \"use_sliding_window\": true, "
               "\"sliding_window\": 5}");
    assert_true(slides.layer[0].window == 0 && slides.layer[2].window == 5);
    refused("{\"model_type\": \"smollm3\", \"num_key_value_heads\": 8, \"no_rope_layers\": [1]}",
            "field \"no_rope_layers\": expected 3 entries, found 1");
    refused("{\"model_type\": \"smollm3\", \"num_key_value_heads\": 8, \"no_rope_layers\": [1, "
            "2, 1]}",
            "expected 0 or 1 for layer 1");
}

static void a_part_of_a_head_turns_in_phi3(void **state) {
    (void)state;
    const struct fkv_config c =
        parsed("{\"model_type\": \"phi3\", \"head_dim\": 16, \"partial_rotary_factor\": 0.75}");
    assert_int_equal(c.rotations[0].channels, 12);
    for (int i = 0; i < 6; i++)
        assert_close(c.rotations[0].inv_freq[i], pow(10000, -i / 6.0), 0, 1e-14);
    refused("{\"model_type\": \"phi3\", \"partial_rotary_factor\": 0.1}",
            "field \"partial_rotary_factor\"");
}

static void multipliers_and_caps_arrive(void **state) {
    (void)state;
    const struct fkv_config granite =
        parsed("{\"model_type\": \"granite\", \"embedding_multiplier\": 12, "
               "\"residual_multiplier\": 0.22, \"attention_multiplier\": 0.5, "
               "\"logits_scaling\": 8}");
    assert_close(granite.embedding_multiplier, 12, 0, 0);
    assert_close(granite.residual_multiplier, 0.22f, 0, 0);
    assert_close(granite.attention_scale, 0.5, 0, 0);
    assert_close(granite.logits_multiplier, 0.125, 0, 0);
    const struct fkv_config gemma = parsed("{\"model_type\": \"gemma2\", \"head_dim\": 8, "
                                           "\"num_key_value_heads\": 4, "
                                           "\"query_pre_attn_scalar\": 16, "
                                           "\"attn_logit_softcapping\": null}");
    assert_close(gemma.embedding_multiplier, 8, 0, 0);
    assert_close(gemma.attention_scale, 0.25, 0, 0);
    assert_close(gemma.attention_softcap, 0, 0, 0);
    assert_close(gemma.logits_softcap, 30, 0, 0); /* silent */
    assert_true(gemma.input_norms && gemma.output_norms && gemma.norms_less_one);
    assert_int_equal(gemma.activation, FKV_GELU_TANH);
    const struct fkv_config olmo = parsed("{\"model_type\": \"olmo2\"}");
    assert_true(!olmo.input_norms && olmo.output_norms && !olmo.norms_less_one);
    assert_int_equal(olmo.qk_norm, FKV_QK_NORM_WHOLE);
    assert_string_not_equal(granite.sha256, parsed("{\"model_type\": \"granite\"}").sha256);
    refused("{\"model_type\": \"granite\", \"logits_scaling\": 0}", "field \"logits_scaling\"");
    refused("{\"model_type\": \"gemma2\", \"use_bidirectional_attention\": true}",
            "field \"use_bidirectional_attention\"");
    refused("{\"model_type\": \"gemma3_text\", \"attn_logit_softcapping\": 50}",
            "field \"attn_logit_softcapping\"");
}

/* Both spellings, and the one of transformers 5 with an object for each kind of layers. */
static void gemma3_has_a_rotation_for_each_kind_of_layers(void **state) {
    (void)state;
    static const char *const spellings[] = {
        "\"rope_theta\": 5e5, \"rope_local_base_freq\": 2e4, "
        "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}",
        "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, "
        "\"rope_theta\": 5e5}, \"sliding_attention\": {\"rope_type\": \"default\", "
        "\"rope_theta\": 2e4}}"};
    struct fkv_config c;
    for (int i = 0; i < 2; i++) {
        char changes[512];
        snprintf(changes, sizeof changes,
                 "{\"model_type\": \"gemma3_text\", \"head_dim\": 8, "
                 "\"sliding_window_pattern\": 3, \"sliding_window\": 5, %s}",
                 spellings[i]);
        c = parsed(changes);
        assert_int_equal(c.rotation_count, 2);
        assert_close(c.rotations[0].inv_freq[1], pow(5e5, -0.25) / 8, 0, 1e-14);
        assert_close(c.rotations[1].inv_freq[1], pow(2e4, -0.25), 0, 1e-14);
        assert_true(c.layer[0].rotation == 1 && c.layer[1].rotation == 1);
        assert_true(c.layer[2].rotation == 0 && c.layer[2].window == 0 && c.layer[1].window == 5);
    }
    /* rope_scaling goes on top of the one of full layers; no other mixture has a meaning. */
    c = parsed("{\"model_type\": \"gemma3_text\", \"head_dim\": 8, \"rope_parameters\": "
               "{\"full_attention\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"}}, "
               "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}}");
    assert_close(c.rotations[0].inv_freq[1], pow(5e5, -0.25) / 8, 0, 1e-14);
    refused("{\"model_type\": \"gemma3_text\", \"head_dim\": 8, \"rope_parameters\": "
            "{\"rope_type\": \"linear\", \"factor\": 8}}",
            "field \"rope_parameters\": expected an object for full_attention, found none");
    refused("{\"model_type\": \"gemma3_text\", \"head_dim\": 8, \"rope_scaling\": "
            "{\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8}}}",
            "field \"rope_scaling\": expected one rotation");
    const char *nested = "{\"model_type\": \"gemma3\", \"eos_token_id\": [1, 106], "
                         "\"vision_config\": {}, \"text_config\": {\"model_type\": "
                         "\"gemma3_text\", \"hidden_size\": 2560, \"intermediate_size\": 10240, "
                         "\"num_hidden_layers\": 34, \"sliding_window\": 1024}}";
    struct fkv_error err;
    assert_ok(fkv_config_parse(nested, strlen(nested), "config.json", 0, &c, &err), err);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.vocab, 262208);
    assert_int_equal(c.end_count, 2);
    assert_true(c.tied && c.layer[5].window == 0 && c.layer[4].window == 1024);
}

static void what_we_do_not_compute_is_refused_by_name(void **state) {
    (void)state;
    refused("{\"hidden_act\": \"gelu\"}",
            "field \"hidden_act\": expected silu or gelu_pytorch_tanh, found gelu");
    refused("{\"attention_bias\": true}", "field \"attention_bias\"");
    refused("{\"model_type\": \"qwen3\", \"attention_bias\": true}", "field \"attention_bias\"");
    refused("{\"mlp_bias\": true}", "field \"mlp_bias\"");
    refused("{\"quantization_config\": {\"quant_method\": \"gptq\"}}",
            "field \"quantization_config\"");
    refused("{\"tie_word_embeddings\": \"yes\"}", "field \"tie_word_embeddings\"");
    refused("{\"rms_norm_eps\": -1}", "field \"rms_norm_eps\"");
    refused("{\"eos_token_id\": \"</s>\"}", "field \"eos_token_id\"");
}

static void null_is_refused_where_transformers_refuses_it(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"llama", "rms_norm_eps"},         {"llama", "tie_word_embeddings"},
        {"llama", "rope_theta"},           {"llama", "hidden_act"},
        {"granite", "logits_scaling"},     {"granite", "attention_multiplier"},
        {"gemma2", "sliding_window"},      {"gemma2", "hidden_activation"},
        {"gemma3_text", "sliding_window"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char changes[128], expected[96];
        snprintf(changes, sizeof changes, "{\"model_type\": \"%s\", \"head_dim\": 8, \"%s\": null}",
                 cases[i][0], cases[i][1]);
        snprintf(expected, sizeof expected, "field \"%s\": expected a value, found null",
                 cases[i][1]);
        refused(changes, expected);
    }
    parsed("{\"rope_theta\": null, \"rope_parameters\": {\"rope_theta\": 77}}");
    parsed("{\"hidden_act\": \"swish\"}");
}

static void text_that_is_no_config_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {{"", "not valid JSON"},
                 {"[]", "expected a JSON object"},
                 {"{\"model_type\": \"llama\"", "not valid JSON"},
                 {"{\"hidden_size\": 8, \"hidden_size\": 8}", "duplicate object key"},
                 {"{\"hidden_size\": NaN}", "not valid JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fkv_error err;
        struct fkv_config c;
        assert_refused(
            fkv_config_parse(cases[i].text, strlen(cases[i].text), "config.json", 0, &c, &err), err,
            cases[i].expected);
    }
}

static void a_folder_without_config_is_named(void **state) {
    (void)state;
    struct fkv_error err;
    struct fkv_config c;
    assert_refused(fkv_config_load("/nonexistent/model", 0, &c, &err), err,
                   "/nonexistent/model/config.json");
}

static void a_context_that_the_user_gives_replaces_the_configs(void **state) {
    (void)state;
    const char *text =
        "{\"model_type\": \"mistral\", \"hidden_size\": 64, \"intermediate_size\": 9, "
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 8, \"vocab_size\": 9, "
        "\"max_position_embeddings\": 32768, \"sliding_window\": 4096, "
        "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
        "\"low_freq_factor\": 1, \"high_freq_factor\": 4}}";
    struct fkv_error err;
    struct fkv_config c, whole;
    assert_ok(fkv_config_parse(text, strlen(text), "c", 4096, &c, &err), err);
    assert_int_equal(c.trained_context, 4096);
    assert_ok(fkv_config_parse(text, strlen(text), "c", 1024, &whole, &err), err);
    assert_memory_equal(c.rotations[0].inv_freq, whole.rotations[0].inv_freq,
                        sizeof c.rotations[0].inv_freq); /* by the config's */
    assert_string_not_equal(c.sha256, whole.sha256);
}

static void a_scaling_that_the_user_gives_replaces_the_configs(void **state) {
    (void)state;
    static const struct {
        const char *typed;
        int32_t context;
        bool by_length;
    } cases[] = {{"linear:2.5", 1280, false}, {"yarn:4", 2048, false}, {"dynamic:4", 512, true}};
    static const char *const others[] = {
        "{}", "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}}"};
    struct fkv_error err = {0};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const struct fkv_config own = parsed(others[i % 2]);
        struct fkv_config c = own;
        struct fkv_rope_scaling scaling;
        assert_ok(fkv_rope_scaling_parse(cases[i / 2].typed, "-", &scaling, &err), err);
        assert_ok(fkv_config_rescale(&c, &scaling, &err), err);
        assert_int_equal(c.trained_context, cases[i / 2].context);
        assert_int_equal(c.rotations[0].by_length, cases[i / 2].by_length);
        assert_int_equal(c.rotations[0].original, 512);
        assert_int_equal(strstr(c.rotations[0].scaling, "\"replaces\":\"linear\"") != NULL, i % 2);
        assert_string_not_equal(c.sha256, own.sha256);
    }
    struct fkv_config c = parsed("{}");
    const struct fkv_rope_scaling far = {fkv_rope_kind_find("yarn"), 1e6};
    c.trained_context = 1 << 20;
    assert_refused(fkv_config_rescale(&c, &far, &err), err,
                   "expected a context of at most 1073741824, found 1048576 tokens times 1e+06");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hash_tells_what_the_config_says),
        cmocka_unit_test(fields_arrive_as_written),
        cmocka_unit_test(what_a_config_leaves_out_is_what_transformers_assumes),
        cmocka_unit_test(of_several_end_tokens_the_first_counts),
        cmocka_unit_test(a_token_outside_the_vocabulary_counts_as_none),
        cmocka_unit_test(explicit_head_dim_needs_no_multiple),
        cmocka_unit_test(configs_of_published_models_load),
        cmocka_unit_test(frequencies_fall_geometrically),
        cmocka_unit_test(linear_scaling_divides_every_frequency),
        cmocka_unit_test(both_spellings_of_the_rotation_agree),
        cmocka_unit_test(llama3_scaling_touches_only_long_wavelengths),
        cmocka_unit_test(frequencies_equal_those_of_transformers),
        cmocka_unit_test(other_rotations_are_refused_by_name),
        cmocka_unit_test(a_rotation_with_missing_or_senseless_numbers_is_refused),
        cmocka_unit_test(an_unknown_architecture_is_refused_by_name),
        cmocka_unit_test(zero_negative_and_absurd_sizes_are_refused),
        cmocka_unit_test(a_missing_size_is_named),
        cmocka_unit_test(heads_that_do_not_divide_are_refused),
        cmocka_unit_test(odd_or_too_wide_heads_are_refused),
        cmocka_unit_test(windows_are_those_that_transformers_gives_the_layers),
        cmocka_unit_test(layer_types_that_we_do_not_know_are_refused),
        cmocka_unit_test(layers_of_smollm3_turn_as_listed_or_by_interval),
        cmocka_unit_test(a_part_of_a_head_turns_in_phi3),
        cmocka_unit_test(multipliers_and_caps_arrive),
        cmocka_unit_test(gemma3_has_a_rotation_for_each_kind_of_layers),
        cmocka_unit_test(what_we_do_not_compute_is_refused_by_name),
        cmocka_unit_test(null_is_refused_where_transformers_refuses_it),
        cmocka_unit_test(text_that_is_no_config_is_refused),
        cmocka_unit_test(a_folder_without_config_is_named),
        cmocka_unit_test(a_context_that_the_user_gives_replaces_the_configs),
        cmocka_unit_test(a_scaling_that_the_user_gives_replaces_the_configs),
    };
    return test_run(tests, NULL, NULL);
}
