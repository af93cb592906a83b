/* config.json: every family's defaults, and a refusal by name for whatever we do not compute. */
#include "tests/unit/engine/config_text.h"

/* ---- what is read ---- */

/* Numbers of two configs must not be mixed although the weights are the same. */
TEST(a_hash_tells_what_the_config_says) {
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

TEST(fields_arrive_as_written) {
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

TEST(what_a_config_leaves_out_is_what_transformers_assumes) {
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

TEST(of_several_end_tokens_the_first_counts) {
    struct fkv_config c = parsed("{\"eos_token_id\": [7, 8, 7, 100, 9]}");
    assert_int_equal(c.eos, 7);
    assert_int_equal(c.end_count, 3); /* once each, in the vocabulary */
    assert_int_equal(c.ends[1], 8);
    assert_int_equal(c.ends[2], 9);
    assert_int_equal(parsed("{\"eos_token_id\": 7}").end_count, 1);
    assert_int_equal(parsed("{\"eos_token_id\": []}").eos, -1);
    assert_int_equal(parsed("{\"eos_token_id\": null}").eos, -1);
}

TEST(a_token_outside_the_vocabulary_counts_as_none) {
    struct fkv_config c = parsed("{\"eos_token_id\": 100, \"bos_token_id\": -1}");
    assert_int_equal(c.eos, -1);
    assert_int_equal(c.bos, -1);
}

TEST(explicit_head_dim_needs_no_multiple) {
    assert_int_equal(parsed("{\"head_dim\": 20, \"hidden_size\": 66}").head_dim, 20);
    refused("{\"hidden_size\": 66}",
            "field \"hidden_size\": expected a multiple of num_attention_heads 8");
}

/* Configs as they lie on the hub, shortened to the fields that could matter. */
TEST(configs_of_published_models_load) {
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
        struct fkv_config c;
        assert_ok(parse_config(models[i].text, strlen(models[i].text), "config.json", 0, &c, &err));
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

/* ---- refusals ---- */

TEST(an_unknown_architecture_is_refused_by_name) {
    refused("{\"model_type\": \"mamba\"}", "field \"model_type\": expected llama, mistral, qwen2, "
                                           "qwen3, smollm3, phi3, gemma2, gemma3_text, olmo2 or "
                                           "granite, found mamba");
    refused("{\"model_type\": \"absent\"}", "gemma3_text, olmo2 or granite, found nothing");
    refused("{\"model_type\": 7}", "field \"model_type\"");
}

TEST(zero_negative_and_absurd_sizes_are_refused) {
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

TEST(a_missing_size_is_named) {
    static const char *const fields[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
                                         "num_attention_heads", "vocab_size"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char changes[64], expected[64];
        snprintf(changes, sizeof changes, "{\"%s\": \"absent\"}", fields[i]);
        snprintf(expected, sizeof expected, "field \"%s\"", fields[i]);
        refused(changes, expected);
    }
}

TEST(heads_that_do_not_divide_are_refused) {
    refused("{\"num_key_value_heads\": 3}",
            "field \"num_key_value_heads\": expected a divisor of num_attention_heads 8, found 3");
    refused("{\"num_key_value_heads\": 16}", "field \"num_key_value_heads\"");
}

TEST(odd_or_too_wide_heads_are_refused) {
    refused("{\"head_dim\": 7}", "field \"head_dim\": expected an even number up to 512, found 7");
    refused("{\"hidden_size\": 8192}",
            "field \"head_dim\": expected an even number up to 512, found 1024");
}

TEST(what_we_do_not_compute_is_refused_by_name) {
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

TEST(null_is_refused_where_transformers_refuses_it) {
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

TEST(text_that_is_no_config_is_refused) {
    static const struct {
        const char *text, *expected;
    } cases[] = {{"", "not valid JSON"},
                 {"[]", "expected a JSON object"},
                 {"{\"model_type\": \"llama\"", "not valid JSON"},
                 {"{\"hidden_size\": 8, \"hidden_size\": 8}", "duplicate object key"},
                 {"{\"hidden_size\": NaN}", "not valid JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fkv_config c;
        assert_refused(
            parse_config(cases[i].text, strlen(cases[i].text), "config.json", 0, &c, &err),
            cases[i].expected);
    }
}

TEST(a_folder_without_config_is_named) {
    struct fkv_config c;
    assert_refused(fkv_config_load("/nonexistent/model", 0, &c, &err),
                   "/nonexistent/model/config.json");
}

TEST(a_context_that_the_user_gives_replaces_the_configs) {
    const char *text =
        "{\"model_type\": \"mistral\", \"hidden_size\": 64, \"intermediate_size\": 9, "
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 8, \"vocab_size\": 9, "
        "\"max_position_embeddings\": 32768, \"sliding_window\": 4096, "
        "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
        "\"low_freq_factor\": 1, \"high_freq_factor\": 4}}";
    struct fkv_config c, whole;
    assert_ok(parse_config(text, strlen(text), "c", 4096, &c, &err));
    assert_int_equal(c.trained_context, 4096);
    assert_ok(parse_config(text, strlen(text), "c", 1024, &whole, &err));
    assert_memory_equal(c.rotations[0].inv_freq, whole.rotations[0].inv_freq,
                        sizeof c.rotations[0].inv_freq); /* by the config's */
    assert_string_not_equal(c.sha256, whole.sha256);
}

TEST(a_scaling_that_the_user_gives_replaces_the_configs) {
    static const struct {
        const char *typed;
        int32_t context;
        bool by_length;
    } cases[] = {{"linear:2.5", 1280, false}, {"yarn:4", 2048, false}, {"dynamic:4", 512, true}};
    static const char *const others[] = {
        "{}", "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}}"};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const struct fkv_config own = parsed(others[i % 2]);
        struct fkv_config c = own;
        struct fkv_rope_scaling scaling;
        assert_ok(fkv_rope_scaling_parse(cases[i / 2].typed, "-", &scaling, &err));
        assert_ok(fkv_config_rescale(&c, &scaling, &err));
        assert_int_equal(c.trained_context, cases[i / 2].context);
        assert_int_equal(c.rotations[0].by_length, cases[i / 2].by_length);
        assert_int_equal(c.rotations[0].original, 512);
        assert_int_equal(strstr(c.rotations[0].scaling, "\"replaces\":\"linear\"") != NULL, i % 2);
        assert_string_not_equal(c.sha256, own.sha256);
    }
    struct fkv_config c = parsed("{}");
    const struct fkv_rope_scaling far = {fkv_rope_kind_find("yarn"), 1e6};
    c.trained_context = 1 << 20;
    assert_refused(fkv_config_rescale(&c, &far, &err),
                   "expected a context of at most 1073741824, found 1048576 tokens times 1e+06");
}
