/* config.json: both spellings of the rotation, and what each layer turns by and sees. */
#include "engine/checkpoint/safetensors.h"
#include "tests/unit/engine/config_text.h"

/* ---- the rotation ---- */

TEST(frequencies_fall_geometrically) {
    double theta = 1000 * (1 + 1000 * test_uniform());
    char changes[96];
    snprintf(changes, sizeof changes, "{\"rope_theta\": %.17g, \"head_dim\": 64}", theta);
    struct fkv_config c = parsed(changes);
    assert_close(c.rotations[0].theta, theta, 0, 0);
    for (int i = 0; i < 32; i++)
        assert_close(c.rotations[0].inv_freq[i], pow(theta, -i / 32.0), 0, 1e-14);
}

TEST(linear_scaling_divides_every_frequency) {
    struct fkv_config plain = parsed("{\"head_dim\": 32}");
    struct fkv_config scaled =
        parsed("{\"head_dim\": 32, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}}");
    for (int i = 0; i < 16; i++)
        assert_close(scaled.rotations[0].inv_freq[i], plain.rotations[0].inv_freq[i] / 4, 0, 1e-15);
    assert_string_equal(scaled.rotations[0].scaling, "{\"type\":\"linear\",\"factor\":4}");
    assert_true(plain.rotations[0].factor == 1 && scaled.rotations[0].factor == 4);
}

TEST(both_spellings_of_the_rotation_agree) {
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
TEST(llama3_scaling_touches_only_long_wavelengths) {
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

TEST(frequencies_equal_those_of_transformers) {
    static const char *const models[] = {"llama-mha", "llama3-rope", "linear-rope", "mistral",
                                         "qwen2",     "qwen3",       "wide-heads"};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char folder[128], path[160];
        snprintf(folder, sizeof folder, "tests/golden/%s", models[i]);
        snprintf(path, sizeof path, "%s/expected", folder);
        struct fkv_config c;
        assert_ok(fkv_config_load(folder, 0, &c, &err));
        assert_int_equal(strlen(c.sha256), 64);
        struct fkv_safetensors *golden;
        assert_ok(fkv_safetensors_open(path, &golden, &err));
        const struct fkv_tensor *t = fkv_tensor_find(&golden->tensors, "inv_freq");
        assert_non_null(t);
        assert_int_equal(t->shape[0], c.head_dim / 2);
        for (int k = 0; k < c.head_dim / 2; k++)
            assert_close(c.rotations[0].inv_freq[k], ((const float *)t->data)[k], 0, 1e-6);
        fkv_safetensors_close(golden);
    }
}

TEST(other_rotations_are_refused_by_name) {
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

TEST(a_rotation_with_missing_or_senseless_numbers_is_refused) {
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

TEST(windows_are_those_that_transformers_gives_the_layers) {
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

TEST(layer_types_that_we_do_not_know_are_refused) {
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

TEST(layers_of_smollm3_turn_as_listed_or_by_interval) {
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

TEST(a_part_of_a_head_turns_in_phi3) {
    const struct fkv_config c =
        parsed("{\"model_type\": \"phi3\", \"head_dim\": 16, \"partial_rotary_factor\": 0.75}");
    assert_int_equal(c.rotations[0].channels, 12);
    for (int i = 0; i < 6; i++)
        assert_close(c.rotations[0].inv_freq[i], pow(10000, -i / 6.0), 0, 1e-14);
    refused("{\"model_type\": \"phi3\", \"partial_rotary_factor\": 0.1}",
            "field \"partial_rotary_factor\"");
}

TEST(multipliers_and_caps_arrive) {
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
TEST(gemma3_has_a_rotation_for_each_kind_of_layers) {
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
    assert_ok(parse_config(nested, strlen(nested), "config.json", 0, &c, &err));
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.vocab, 262208);
    assert_int_equal(c.end_count, 2);
    assert_true(c.tied && c.layer[5].window == 0 && c.layer[4].window == 1024);
}
