/* Models in GGUF: the same weights and config as in a Hugging Face folder, with the rows of queries
 * and keys put back, and refusals by name of what is not computed. */
#include "tests/unit/engine/gguf_model.h"

/* By its fields: the bytes between them are anything. */
static void assert_same_rotation(const struct fkv_rope *a, const struct fkv_rope *b) {
    assert_int_equal(a->channels, b->channels);
    assert_string_equal(a->kind, b->kind);
    assert_string_equal(a->scaling, b->scaling);
    assert_true(a->theta == b->theta && a->factor == b->factor);
    assert_true(a->attention_factor == b->attention_factor);
    assert_int_equal(a->original, b->original);
    assert_int_equal(a->by_length, b->by_length);
    assert_memory_equal(a->inv_freq, b->inv_freq, sizeof a->inv_freq);
    assert_memory_equal(a->beyond, b->beyond, sizeof a->beyond);
}

TEST_IN_FOLDER(a_gguf_file_holds_what_its_folder_holds) {
    for (int i = 0; i < 2 * FORMS; i++) {
        const struct change change = change_of(&forms[i / 2], i % 2);
        write_both(forms[i / 2].architecture, &change);
        struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
        const struct fkv_config *c = fkv_checkpoint_config(a), *d = fkv_checkpoint_config(b);
        assert_string_equal(c->sha256, d->sha256);
        assert_int_equal(c->rotation_count, d->rotation_count);
        for (int r = 0; r < c->rotation_count; r++)
            assert_same_rotation(&c->rotations[r], &d->rotations[r]);
        assert_memory_equal(c->layer, d->layer, sizeof c->layer);
        assert_int_equal(d->end_count, 1);
        for (int role = 0; role < FKV_ROLES; role++)
            for (int layer = 0; layer < (role < FKV_ATTENTION_NORM ? 1 : LAYERS); layer++)
                if (fkv_role_present(c, (enum fkv_role)role))
                    assert_same_tensor(a, b, (enum fkv_role)role, layer);
        fkv_checkpoint_close(a);
        fkv_checkpoint_close(b);
    }
}

static void add_half_rotation(struct gguf_file *f) {
    gguf_key_u32(f, "phi3.rope.dimension_count", HEAD_DIM / 2);
}

TEST_IN_FOLDER(a_part_of_a_head_turns_where_the_file_says_so) {
    write_both("phi3", &(struct change){.left_out = "phi3.rope.dimension_count",
                                        .add = add_half_rotation,
                                        .fields = ", \"partial_rotary_factor\": 0.5"});
    struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
    assert_int_equal(fkv_checkpoint_config(b)->rotations[0].channels, HEAD_DIM / 2);
    assert_string_equal(fkv_checkpoint_config(a)->sha256, fkv_checkpoint_config(b)->sha256);
    fkv_checkpoint_close(a);
    fkv_checkpoint_close(b);
}

/* Keys that the file leaves out or sets to 0 are what llama.cpp takes them for, which is not always
 * what transformers does; the pattern of sliding layers is read. */
TEST_IN_FOLDER(what_a_file_leaves_out_is_what_llama_cpp_assumes) {
    static const struct {
        const char *architecture;
        struct change change;
        double theta; /* of the first rotation */
        int windows[LAYERS];
    } cases[] = {
        {"gemma3", {.add = NULL}, 5e5, {0, 0}},
        {"gemma3", {.add = add_gemma3, .left_out = "gemma3.rope.freq_base"}, 1e4, {33, 33}},
        {"gemma3", {.add = add_gemma3_period}, 5e5, {33, 0}},
        {"gemma2", {.add = add_gemma2}, 5e5, {33, 0}},
        {"gemma2", {.add = add_gemma2_period}, 5e5, {33, 33}},
        {"gemma2", {.add = add_gemma2_list}, 5e5, {0, 33}},
        {"smollm3", {.left_out = "smollm3.rope.freq_base"}, 1e4, {0, 0}},
        {"granite", {.add = add_no_multipliers}, 5e5, {0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_both(cases[i].architecture, &cases[i].change);
        struct fkv_checkpoint *c = opened("/m.gguf");
        const struct fkv_config *config = fkv_checkpoint_config(c);
        assert_close(config->rotations[0].theta, cases[i].theta, 0, 0);
        for (int l = 0; l < LAYERS; l++)
            assert_int_equal(config->layer[l].window, cases[i].windows[l]);
        if (!strcmp(cases[i].architecture, "granite")) {
            assert_close(config->attention_scale, 1 / sqrt(HEAD_DIM), 0, 1e-7);
            assert_close(config->embedding_multiplier, 1, 0, 0);
            assert_close(config->residual_multiplier, 1, 0, 0);
            assert_close(config->logits_multiplier, 1, 0, 0);
        }
        fkv_checkpoint_close(c);
    }
}

static void add_divisors(struct gguf_file *f) {
    gguf_tensor(f, "rope_freqs.weight", 0, HEAD_DIM / 2, 0, (float[]){1, 2, 4, 8}, 16);
}

TEST_IN_FOLDER(divisors_of_frequencies_are_applied) {
    write_both("llama", &(struct change){.add = add_divisors});
    struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
    const struct fkv_config *c = fkv_checkpoint_config(a), *d = fkv_checkpoint_config(b);
    for (int i = 0; i < HEAD_DIM / 2; i++)
        assert_close(d->rotations[0].inv_freq[i], c->rotations[0].inv_freq[i] / (1 << i), 0, 1e-15);
    assert_string_not_equal(c->sha256, d->sha256);
    fkv_checkpoint_close(a);
    fkv_checkpoint_close(b);
}

static void add_linear(struct gguf_file *f) {
    gguf_key_string(f, "llama.rope.scaling.type", "linear");
    gguf_key_f32(f, "llama.rope.scaling.factor", 4);
    gguf_key_u32(f, "tokenizer.ggml.eot_token_id", 7);
}

static void add_factor_alone(struct gguf_file *f) {
    gguf_key_f32(f, "llama.rope.scaling.factor", 4);
}
static void add_no_factor(struct gguf_file *f) { gguf_key_f32(f, "llama.rope.scaling.factor", 0); }

TEST_IN_FOLDER(a_factor_without_a_type_is_linear) {
    void (*const adds[])(struct gguf_file *) = {add_factor_alone, add_no_factor};
    for (int i = 0; i < 2; i++) {
        write_both("llama", &(struct change){.add = adds[i]});
        struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
        const struct fkv_rope *plain = &fkv_checkpoint_config(a)->rotations[0],
                              *rope = &fkv_checkpoint_config(b)->rotations[0];
        assert_close(rope->inv_freq[1], plain->inv_freq[1] / (i ? 1 : 4), 0, 1e-15);
        fkv_checkpoint_close(a);
        fkv_checkpoint_close(b);
    }
}

TEST_IN_FOLDER(scaling_and_chat_ends_are_read) {
    write_both("llama", &(struct change){.add = add_linear});
    struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
    const struct fkv_config *c = fkv_checkpoint_config(a), *d = fkv_checkpoint_config(b);
    assert_close(d->rotations[0].inv_freq[1], c->rotations[0].inv_freq[1] / 4, 0, 1e-15);
    assert_int_equal(d->end_count, 2);
    assert_int_equal(d->ends[1], 7);
    fkv_checkpoint_close(a);
    fkv_checkpoint_close(b);
}

static void add_yarn_scaling(struct gguf_file *f) {
    gguf_key_string(f, "llama.rope.scaling.type", "yarn");
    gguf_key_f32(f, "llama.rope.scaling.factor", 4);
    gguf_key_f32(f, "llama.rope.scaling.attn_factor", 0.5f);
    gguf_key_f32(f, "llama.rope.scaling.yarn_beta_fast", 16);
    gguf_key_u32(f, "llama.rope.scaling.original_context_length", 128);
}

static void add_long_factors(struct gguf_file *f) {
    gguf_key_f32(f, "llama.rope.scaling.attn_factor", 1.25f);
    gguf_key_u32(f, "llama.rope.scaling.original_context_length", 128);
    gguf_tensor(f, "rope_factors_long.weight", 0, HEAD_DIM / 2, 0, (float[]){2, 4, 8, 16}, 16);
    gguf_tensor(f, "rope_factors_short.weight", 0, HEAD_DIM / 2, 0, (float[]){1, 2, 3, 4}, 16);
}

TEST_IN_FOLDER(yarn_is_that_of_a_folder_with_the_same_numbers) {
    struct fkv_rope rope;
    write_both("llama", &(struct change){.add = add_yarn_scaling});
    struct fkv_checkpoint *b = opened("/m.gguf");
    const struct fkv_rope *found = &fkv_checkpoint_config(b)->rotations[0];
    json_t *config = json_pack("{s:f, s:{s:s, s:f, s:f, s:i}}", "rope_theta", 5e5, "rope_scaling",
                               "type", "yarn", "factor", 4.0, "beta_fast", 16.0,
                               "original_max_position_embeddings", 128);
    const struct fkv_rope_defaults defaults = {.head_dim = HEAD_DIM, .trained_context = 512};
    assert_ok(fkv_rope_read(config, "config", &defaults, &rope, &err));
    json_decref(config);
    assert_memory_equal(found->inv_freq, rope.inv_freq, HEAD_DIM / 2 * sizeof(double));
    assert_close(found->attention_factor, rope.attention_factor / 2, 0, 1e-14);
    fkv_checkpoint_close(b);
}

TEST_IN_FOLDER(long_and_short_factors_are_tensors) {
    write_both("llama", &(struct change){.add = add_long_factors});
    struct fkv_checkpoint *a = opened(""), *b = opened("/m.gguf");
    const struct fkv_rope *plain = &fkv_checkpoint_config(a)->rotations[0],
                          *rope = &fkv_checkpoint_config(b)->rotations[0];
    double found[HEAD_DIM / 2];
    assert_close(rope->attention_factor, 1.25, 0, 1e-14);
    for (int i = 0; i < HEAD_DIM / 2; i++) {
        fkv_rope_frequencies(rope, 128, found);
        assert_close(found[i], plain->inv_freq[i] / (i + 1), 0, 1e-15);
        fkv_rope_frequencies(rope, 129, found);
        assert_close(found[i], plain->inv_freq[i] / (2 << i), 0, 1e-15);
    }
    fkv_checkpoint_close(a);
    fkv_checkpoint_close(b);
}

/* ---- refusals ---- */

static void add_mixed_yarn(struct gguf_file *f) {
    add_yarn_scaling(f);
    gguf_key_f32(f, "llama.rope.scaling.yarn_ext_factor", 0.5f);
}
static void add_linear_attention(struct gguf_file *f) {
    add_linear(f);
    gguf_key_f32(f, "llama.rope.scaling.attn_factor", 2);
}
static void add_long_without_short(struct gguf_file *f) {
    gguf_tensor(f, "rope_factors_long.weight", 0, HEAD_DIM / 2, 0, (float[]){2, 4, 8, 16}, 16);
}

static void add_bias(struct gguf_file *f) {
    gguf_tensor(f, "blk.1.attn_output.bias", 0, DIM, 0, (float[DIM]){0}, 4 * DIM);
}
static void add_third_layer(struct gguf_file *f) {
    gguf_tensor(f, "blk.2.attn_norm.weight", 0, DIM, 0, (float[DIM]){0}, 4 * DIM);
}
static void add_experts(struct gguf_file *f) { gguf_key_u32(f, "llama.expert_count", 8); }
static void add_both_ways(struct gguf_file *f) { gguf_key(f, "llama.attention.causal", 7, "", 1); }
static void add_short_pattern(struct gguf_file *f) {
    const unsigned char array[] = {7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    gguf_key(f, "llama.attention.sliding_window_pattern", 9, array, sizeof array);
}
static void add_part(struct gguf_file *f) { gguf_key_u32(f, "split.count", 3); }
static void add_window(struct gguf_file *f) {
    gguf_key_u32(f, "llama.attention.sliding_window", 128);
}
static void add_yarn(struct gguf_file *f) {
    gguf_key_string(f, "llama.rope.scaling.type", "yarny");
    gguf_key_f32(f, "llama.rope.scaling.factor", 4);
}
static void add_wide_values(struct gguf_file *f) {
    gguf_key_u32(f, "llama.attention.value_length", 16);
}
static void add_wrong_divisors(struct gguf_file *f) {
    gguf_tensor(f, "rope_freqs.weight", 0, 4, 0, (float[]){1, 2, 0, 8}, 16);
}
/* 256 values in a format that we cannot compute with, in place of what was left out. */
static void add_unknown_format(struct gguf_file *f) {
    gguf_info(f, "output_norm.weight", 1, (uint64_t[]){256}, 16, (f->data.used + 31) / 32 * 32);
    f->data.used = (f->data.used + 31) / 32 * 32 + 66;
}

/* A tensor is missed when it is looked for. */
static int open_and_find(const char *path, struct fkv_error *err) {
    struct fkv_checkpoint *c;
    struct fkv_tensor t;
    if (fkv_checkpoint_open(path, 0, &c, err)) return FKV_FAILED;
    const int status = fkv_checkpoint_find(c, FKV_DOWN, 0, &t, err) ||
                       fkv_checkpoint_find(c, FKV_FINAL_NORM, 0, &t, err);
    fkv_checkpoint_close(c);
    return status ? FKV_FAILED : FKV_OK;
}

TEST_IN_FOLDER(what_is_not_computed_is_refused_by_name) {
    static const struct {
        struct change change;
        const char *text;
    } cases[] = {
        {{.add = add_bias}, "tensor blk.1.attn_output.bias: expected none of this name in a llama"},
        {{.add = add_third_layer}, "tensor blk.2.attn_norm.weight: expected none of this name"},
        {{.add = add_experts}, "key llama.expert_count: expected 0, found 8"},
        {{.add = add_both_ways}, "key llama.attention.causal: expected true, found false"},
        {{.add = add_short_pattern},
         "key llama.attention.sliding_window_pattern: expected a bool for each of 2 layers, found "
         "1"},
        {{.add = add_part}, "key split.count: expected 1, found 3"},
        {{.add = add_window}, "key llama.attention.sliding_window: expected at least the context"},
        {{.add = add_yarn}, "field \"rope_type\": expected default, linear"},
        {{.add = add_mixed_yarn},
         "key llama.rope.scaling.yarn_ext_factor: expected 1 beside the scaling yarn, found 0.5"},
        {{.add = add_linear_attention},
         "key llama.rope.scaling.attn_factor: expected 1 beside the scaling linear, found 2"},
        {{.add = add_long_without_short},
         "tensor rope_factors_short.weight: expected at most 256 values of F32, found 0 of none"},
        {{.add = add_wide_values}, "key llama.attention.value_length: expected 8, found 16"},
        {{.add = add_wrong_divisors}, "tensor rope_freqs.weight: expected values above 0, found 0"},
        {{.left_out = "token_embd.weight"}, "tensor token_embd.weight: expected in the file"},
        {{.left_out = "llama.block_count"}, "key llama.block_count: expected it, found nothing"},
        {{.left_out = "blk.0.ffn_down.weight"},
         "tensor blk.0.ffn_down.weight: expected in the file, found nothing"},
        {{.left_out = "output_norm.weight", .add = add_unknown_format},
         "tensor output_norm.weight: dtype: expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 "
         "or Q2_K to Q6_K, found IQ2_XXS"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[300];
        write_both("llama", &cases[i].change);
        snprintf(path, sizeof path, "%s/m.gguf", folder);
        assert_refused(open_and_find(path, &err), cases[i].text);
        if (strncmp(err.message, path, strlen(path)))
            fail_msg("message \"%s\" names no file", err.message);
    }
}

TEST_IN_FOLDER(another_architecture_is_named) {
    struct fkv_checkpoint *c;
    char path[300];
    size_t bytes;
    gguf_begin(&file);
    gguf_key_string(&file, "general.architecture", "mamba");
    unsigned char *memory = gguf_assemble(&file, &bytes);
    test_write_file(test_path(folder, "m.gguf"), memory, bytes);
    free(memory);
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    assert_refused(fkv_checkpoint_open(path, 0, &c, &err),
                   "key general.architecture: expected llama, qwen2, qwen3, smollm3, phi3, gemma2, "
                   "gemma3, olmo2 "
                   "or granite, found mamba");
    test_write_text(test_path(folder, "notes.txt"), "hello");
    snprintf(path, sizeof path, "%s/notes.txt", folder);
    assert_refused(fkv_checkpoint_open(path, 0, &c, &err),
                   "expected a model's folder or a GGUF file, found a file");
    snprintf(path, sizeof path, "%s/nowhere", folder);
    assert_refused(fkv_checkpoint_open(path, 0, &c, &err), "no such folder");
    fkv_checkpoint_close(NULL);
}
