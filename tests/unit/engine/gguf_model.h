/* A model of every architecture in two forms with the same weights: a Hugging Face folder and a
 * GGUF file. */
#ifndef FKV_TESTS_GGUF_MODEL_H
#define FKV_TESTS_GGUF_MODEL_H

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
    struct fkv_tensor x, y;
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

#endif
