/* Models in GGUF: the same weights and config as in a Hugging Face folder, with the rows of queries
 * and keys put back, and refusals by name of what is not computed. */
#include "engine/checkpoint/checkpoint.h"
#include "tests/unit/engine/gguf_file.h"
#include "tests/unit/engine/weights_file.h"

enum { DIM = 32, HIDDEN = 64, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 8, VOCAB = 10, LAYERS = 2 };

static struct gguf_file file;
static struct weights_file weights;

/* What a file has that this one has not, or the other way round. */
struct change {
    const char *left_out;             /* a tensor or a key */
    void (*add)(struct gguf_file *f); /* keys and tensors at the end */
    bool tied;
    const char *fields; /* of the folder's config, after a comma; NULL: none */
};

/* x (heads * HEAD_DIM, cols): channels i and i + HEAD_DIM/2 of a head to rows 2i and 2i + 1. */
static void pair_heads(const float *x, int rows, int cols, float *paired) {
    for (int r = 0; r < rows; r++) {
        const int in = r % HEAD_DIM, half = HEAD_DIM / 2,
                  to = r - in + (in < half ? 2 * in : 2 * (in - half) + 1);
        memcpy(paired + to * cols, x + r * cols, sizeof(float) * (size_t)cols);
    }
}

/* What the two forms of a family have otherwise than LLaMA's. */
struct form {
    const char *architecture, *model_type;
    bool paired;
    bool less_one; /* norms in the folder */
    bool fused;    /* projections, in both forms */
    bool qkv_bias;
    int qk_norm; /* 0: none, 1: of heads, 2: of the whole */
    bool no_input_norms, output_norms;
    const char *mlp_norm; /* in the folder */
};

static const struct form forms[] = {
    {"llama", "llama", true, false, false, false, 0, false, false, "post_attention_layernorm"},
    {"qwen2", "qwen2", false, false, false, true, 0, false, false, "post_attention_layernorm"},
    {"qwen3", "qwen3", false, false, false, false, 1, false, false, "post_attention_layernorm"},
    {"smollm3", "smollm3", true, false, false, false, 0, false, false, "post_attention_layernorm"},
    {"phi3", "phi3", false, false, true, false, 0, false, false, "post_attention_layernorm"},
    {"gemma2", "gemma2", false, true, false, false, 0, false, true, "pre_feedforward_layernorm"},
    {"gemma3", "gemma3_text", false, true, false, false, 1, false, true,
     "pre_feedforward_layernorm"},
    {"olmo2", "olmo2", false, false, false, false, 2, true, true, ""},
    {"granite", "granite", true, false, false, false, 0, false, false, "post_attention_layernorm"},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

static const struct form *form_of(const char *architecture) {
    for (int i = 0; i < FORMS; i++)
        if (!strcmp(forms[i].architecture, architecture)) return &forms[i];
    fail_msg("no form %s", architecture);
    return NULL;
}

/* Random values into both files, by their names there. `less`: what the folder's are smaller by. */
static void add_less(const struct change *change, const char *theirs, const char *ours, int rows,
                     int cols, bool paired, float less) {
    float x[2 * HIDDEN * DIM], swapped[2 * HIDDEN * DIM];
    const size_t n = (size_t)(rows ? rows : 1) * (size_t)cols;
    char shape[32];
    assert_in_range(n, 1, 2 * HIDDEN * DIM);
    test_fill(x, n, 0, 1);
    for (size_t i = 0; less != 0 && i < n; i++) x[i] = (float)(int)(64 * x[i]) / 64 - less;
    snprintf(shape, sizeof shape, rows ? "[%d,%d]" : "[%d]", rows ? rows : cols, cols);
    weights_add(&weights, theirs, "F32", shape, x, n * 4);
    for (size_t i = 0; i < n; i++) x[i] += less;
    if (change->left_out && !strcmp(change->left_out, ours)) return;
    if (paired) pair_heads(x, rows ? rows : cols, rows ? cols : 1, swapped);
    gguf_tensor(&file, ours, rows, cols, 0, paired ? swapped : x, n * 4);
}

static void add(const struct change *change, const char *theirs, const char *ours, int rows,
                int cols, bool paired) {
    add_less(change, theirs, ours, rows, cols, paired, 0);
}

static void add_layer(const struct change *change, const struct form *f, int layer) {
    const int q = HEADS * HEAD_DIM, kv = KV_HEADS * HEAD_DIM;
    const bool single = !f->fused, normed = f->qk_norm != 0;
    const float less = f->less_one;
    const int q_norm = f->qk_norm == 2 ? q : HEAD_DIM, k_norm = f->qk_norm == 2 ? kv : HEAD_DIM;
    char mlp_norm[64];
    snprintf(mlp_norm, sizeof mlp_norm, "%s.weight", f->mlp_norm);
    const struct {
        bool present;
        const char *theirs, *ours;
        int rows, cols;
        bool paired;
        float less;
    } tensors[] = {
        {!f->no_input_norms, "input_layernorm.weight", "attn_norm.weight", 0, DIM, false, less},
        {f->fused, "self_attn.qkv_proj.weight", "attn_qkv.weight", q + 2 * kv, DIM, false, 0},
        {single, "self_attn.q_proj.weight", "attn_q.weight", q, DIM, f->paired, 0},
        {single, "self_attn.k_proj.weight", "attn_k.weight", kv, DIM, f->paired, 0},
        {single, "self_attn.v_proj.weight", "attn_v.weight", kv, DIM, false, 0},
        {f->qkv_bias, "self_attn.q_proj.bias", "attn_q.bias", 0, q, false, 0},
        {f->qkv_bias, "self_attn.k_proj.bias", "attn_k.bias", 0, kv, false, 0},
        {f->qkv_bias, "self_attn.v_proj.bias", "attn_v.bias", 0, kv, false, 0},
        {normed, "self_attn.q_norm.weight", "attn_q_norm.weight", 0, q_norm, false, less},
        {normed, "self_attn.k_norm.weight", "attn_k_norm.weight", 0, k_norm, false, less},
        {true, "self_attn.o_proj.weight", "attn_output.weight", DIM, q, false, 0},
        {f->output_norms, "post_attention_layernorm.weight", "post_attention_norm.weight", 0, DIM,
         false, less},
        {!f->no_input_norms, mlp_norm, "ffn_norm.weight", 0, DIM, false, less},
        {f->fused, "mlp.gate_up_proj.weight", "ffn_up.weight", 2 * HIDDEN, DIM, false, 0},
        {single, "mlp.gate_proj.weight", "ffn_gate.weight", HIDDEN, DIM, false, 0},
        {single, "mlp.up_proj.weight", "ffn_up.weight", HIDDEN, DIM, false, 0},
        {true, "mlp.down_proj.weight", "ffn_down.weight", DIM, HIDDEN, false, 0},
        {f->output_norms, "post_feedforward_layernorm.weight", "post_ffw_norm.weight", 0, DIM,
         false, less}};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char theirs[96], ours[96];
        if (!tensors[i].present) continue;
        snprintf(theirs, sizeof theirs, "model.layers.%d.%s", layer, tensors[i].theirs);
        snprintf(ours, sizeof ours, "blk.%d.%s", layer, tensors[i].ours);
        add_less(change, theirs, ours, tensors[i].rows, tensors[i].cols, tensors[i].paired,
                 tensors[i].less);
    }
}

static void add_keys(const struct change *change, const char *type) {
    const struct {
        const char *rest;
        uint32_t value;
    } keys[] = {{"block_count", LAYERS},
                {"embedding_length", DIM},
                {"feed_forward_length", HIDDEN},
                {"context_length", 512},
                {"attention.head_count", HEADS},
                {"attention.head_count_kv", KV_HEADS},
                {"attention.key_length", HEAD_DIM},
                {"rope.dimension_count", HEAD_DIM}};
    char key[96];
    gguf_key_string(&file, "general.architecture", type);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", type, keys[i].rest);
        if (!change->left_out || strcmp(change->left_out, key))
            gguf_key_u32(&file, key, keys[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", type);
    gguf_key_f32(&file, key, 0.0009765625f);
    snprintf(key, sizeof key, "%s.rope.freq_base", type);
    if (!change->left_out || strcmp(change->left_out, key)) gguf_key_f32(&file, key, 500000);
    gguf_key_u32(&file, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_u32(&file, "tokenizer.ggml.eos_token_id", 2);
}

/* FOLDER/m.gguf, and the same as a folder. */
static void write_both(const char *type, const struct change *change) {
    const struct form *form = form_of(type);
    char config[900];
    size_t bytes;
    weights = (struct weights_file){0};
    gguf_begin(&file);
    add_keys(change, type);
    add(change, "model.embed_tokens.weight", "token_embd.weight", VOCAB, DIM, false);
    for (int layer = 0; layer < LAYERS; layer++) add_layer(change, form, layer);
    add_less(change, "model.norm.weight", "output_norm.weight", 0, DIM, false, form->less_one);
    if (!change->tied) add(change, "lm_head.weight", "output.weight", VOCAB, DIM, false);
    if (change->add) change->add(&file);
    unsigned char *memory = gguf_assemble(&file, &bytes);
    test_write_file(test_path(folder, "m.gguf"), memory, bytes);
    free(memory);
    weights_write(&weights, folder, "model.safetensors");
    snprintf(config, sizeof config,
             "{\"model_type\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d, "
             "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
             "\"head_dim\": %d, \"vocab_size\": %d, \"max_position_embeddings\": 512, "
             "\"rms_norm_eps\": 0.0009765625, \"rope_theta\": 500000, \"bos_token_id\": 1, "
             "\"eos_token_id\": 2, \"tie_word_embeddings\": %s%s}",
             form->model_type, DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB,
             change->tied ? "true" : "false", change->fields ? change->fields : "");
    test_write_text(test_path(folder, "config.json"), config);
}

static struct fkv_checkpoint *opened(const char *name) {
    char path[300];
    struct fkv_checkpoint *c;
    snprintf(path, sizeof path, "%s%s", folder, name);
    assert_ok(fkv_checkpoint_open(path, 0, &c, &err));
    return c;
}

static void assert_same_tensor(const struct fkv_checkpoint *a, const struct fkv_checkpoint *b,
                               enum fkv_role role, int layer) {
    struct fkv_role_tensor x, y;
    void *x_copy, *y_copy;
    assert_ok(fkv_checkpoint_find(a, role, layer, &x, &err));
    assert_ok(fkv_checkpoint_find(b, role, layer, &y, &err));
    assert_int_equal(x.dims, y.dims);
    assert_int_equal(x.shape[0], y.shape[0]);
    assert_int_equal(x.shape[1], y.shape[1]);
    assert_ok(fkv_role_tensor_arrange(&x, HEAD_DIM, &x_copy, &err));
    assert_ok(fkv_role_tensor_arrange(&y, HEAD_DIM, &y_copy, &err));
    assert_memory_equal(x.data, y.data,
                        4 * (size_t)x.shape[0] * (x.dims == 2 ? (size_t)x.shape[1] : 1));
    free(x_copy), free(y_copy);
}

static void add_phi3(struct gguf_file *f) { gguf_key_u32(f, "phi3.attention.sliding_window", 100); }
static void add_gemma2(struct gguf_file *f) {
    gguf_key_u32(f, "gemma2.attention.sliding_window", 33);
    gguf_key_f32(f, "gemma2.attn_logit_softcapping", 50);
    gguf_key_f32(f, "gemma2.final_logit_softcapping", 20);
}
static void add_gemma3(struct gguf_file *f) {
    gguf_key_u32(f, "gemma3.attention.sliding_window", 33);
}
static void add_granite(struct gguf_file *f) {
    gguf_key_f32(f, "granite.attention.scale", 0.5f);
    gguf_key_f32(f, "granite.embedding_scale", 12);
    gguf_key_f32(f, "granite.residual_scale", 0.25f);
    gguf_key_f32(f, "granite.logit_scale", 8);
}
static void add_no_multipliers(struct gguf_file *f) {
    gguf_key_f32(f, "granite.attention.scale", 0);
    gguf_key_f32(f, "granite.embedding_scale", 0);
    gguf_key_f32(f, "granite.residual_scale", 0);
    gguf_key_f32(f, "granite.logit_scale", 0);
}
static void add_gemma2_period(struct gguf_file *f) {
    gguf_key_u32(f, "gemma2.attention.sliding_window", 33);
    gguf_key_u32(f, "gemma2.attention.sliding_window_pattern", 0);
}
static void add_gemma2_list(struct gguf_file *f) {
    const unsigned char array[] = {7, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1}; /* false, true */
    gguf_key_u32(f, "gemma2.attention.sliding_window", 33);
    gguf_key(f, "gemma2.attention.sliding_window_pattern", 9, array, sizeof array);
}
static void add_gemma3_period(struct gguf_file *f) {
    gguf_key_u32(f, "gemma3.attention.sliding_window", 33);
    gguf_key_u32(f, "gemma3.attention.sliding_window_pattern", 2);
}

/* What the two forms of a family's config add, and tell of the same. */
static struct change change_of(const struct form *form, bool tied) {
    static const struct {
        const char *architecture, *fields;
        void (*add)(struct gguf_file *f);
    } own[] = {
        {"phi3", ", \"sliding_window\": 100", add_phi3},
        {"gemma2",
         ", \"sliding_window\": 33, \"final_logit_softcapping\": 20, "
         "\"query_pre_attn_scalar\": 8",
         add_gemma2},
        {"gemma3", ", \"sliding_window\": 33, \"query_pre_attn_scalar\": 8", add_gemma3},
        {"granite",
         ", \"attention_multiplier\": 0.5, \"embedding_multiplier\": 12, "
         "\"residual_multiplier\": 0.25, \"logits_scaling\": 8",
         add_granite},
    };
    struct change change = {.tied = tied};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (!strcmp(own[i].architecture, form->architecture))
            change.fields = own[i].fields, change.add = own[i].add;
    return change;
}

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
    struct fkv_role_tensor t;
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
