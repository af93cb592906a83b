/* Binding: every tensor by name, dtype, shape and values, on a backend that only counts what it is
 * given; of matrices rounded while loading also that no prediction changes. */
#include <sys/stat.h>

#include "engine/checkpoint/safetensors.h"
#include "engine/session/session.h"
#include "tests/unit/engine/tiny_checkpoint.h"

/* ---- what is bound ---- */

static void assert_is(const struct fkv_weight *w, const char *name, int rows, int cols) {
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    const struct fkv_tensor *t = fkv_tensor_find(&files->tensors, name);
    assert_non_null(t);
    assert_non_null(w->data);
    assert_int_equal(w->data->bytes, t->bytes); /* a buffer of its own */
    assert_memory_equal(w->data->host, t->data, t->bytes);
    fkv_safetensors_close(files);
    assert_int_equal(w->offset, 0);
    assert_int_equal(w->rows, rows);
    assert_int_equal(w->cols, cols);
}

TEST_IN_FOLDER(every_tensor_lies_where_its_layer_looks) {
    write_checkpoint("qwen2", false, true, NULL);
    struct fkv_model *m = opened();
    const struct fkv_layer_weights *w = &m->layers[1];
    assert_is(&m->embedding, "model.embed_tokens.weight", VOCAB, DIM);
    assert_is(&w->qkv.norm, "model.layers.1.input_layernorm.weight", 1, DIM);
    assert_is(&w->qkv.wq, "model.layers.1.self_attn.q_proj.weight", HEADS * HEAD_DIM, DIM);
    assert_is(&w->qkv.wk, "model.layers.1.self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, DIM);
    assert_is(&w->qkv.wv, "model.layers.1.self_attn.v_proj.weight", KV_HEADS * HEAD_DIM, DIM);
    assert_is(&w->qkv.bq, "model.layers.1.self_attn.q_proj.bias", 1, HEADS * HEAD_DIM);
    assert_is(&w->qkv.bk, "model.layers.1.self_attn.k_proj.bias", 1, KV_HEADS * HEAD_DIM);
    assert_is(&w->qkv.bv, "model.layers.1.self_attn.v_proj.bias", 1, KV_HEADS * HEAD_DIM);
    assert_null(w->qkv.q_norm.data);
    assert_null(w->qkv.k_norm.data);
    assert_is(&w->output.w, "model.layers.1.self_attn.o_proj.weight", DIM, HEADS * HEAD_DIM);
    assert_is(&w->mlp.norm, "model.layers.1.post_attention_layernorm.weight", 1, DIM);
    assert_is(&w->mlp.gate, "model.layers.1.mlp.gate_proj.weight", HIDDEN, DIM);
    assert_is(&w->mlp.up, "model.layers.1.mlp.up_proj.weight", HIDDEN, DIM);
    assert_is(&w->down.w, "model.layers.1.mlp.down_proj.weight", DIM, HIDDEN);
    assert_is(&m->logits.norm, "model.norm.weight", 1, DIM);
    assert_is(&m->logits.w, "lm_head.weight", VOCAB, DIM);
    assert_close(w->qkv.eps, m->config.rms_eps, 0, 0);
    assert_ptr_equal(m->attention.inv_freq, m->config.rotations[0].inv_freq);
    fkv_model_close(m);
    assert_int_equal(buffers_held, 0);
}

TEST_IN_FOLDER(query_and_key_norms_are_bound_where_the_family_has_them) {
    write_checkpoint("qwen3", true, false, NULL);
    struct fkv_model *m = opened();
    assert_is(&m->layers[0].qkv.q_norm, "model.layers.0.self_attn.q_norm.weight", 1, HEAD_DIM);
    assert_is(&m->layers[0].qkv.k_norm, "model.layers.0.self_attn.k_norm.weight", 1, HEAD_DIM);
    assert_null(m->layers[0].qkv.bq.data);
    fkv_model_close(m);
}

TEST_IN_FOLDER(a_tied_head_is_the_embedding_and_counted_once) {
    write_checkpoint("llama", true, false, NULL);
    struct fkv_model *m = opened();
    assert_true(m->config.tied);
    assert_memory_equal(&m->logits.w, &m->embedding, sizeof m->logits.w);
    assert_int_equal(buffers_held, 2 + 9 * LAYERS);
    int64_t layer =
        2 * DIM + 2 * HEADS * HEAD_DIM * DIM + 2 * KV_HEADS * HEAD_DIM * DIM + 3 * HIDDEN * DIM;
    assert_int_equal(m->weight_bytes, 4 * (VOCAB * DIM + DIM + LAYERS * layer));
    fkv_model_close(m);
}

TEST_IN_FOLDER(a_tied_checkpoint_that_brings_a_head_has_it_used) {
    write_checkpoint("llama", true, true, NULL);
    struct fkv_model *m = opened();
    assert_false(m->config.tied);
    assert_is(&m->logits.w, "lm_head.weight", VOCAB, DIM);
    fkv_model_close(m);
}

TEST_IN_FOLDER(the_name_is_the_last_part_of_the_path) {
    write_checkpoint("llama", true, false, NULL);
    struct fkv_model *m;
    char path[600], hub[512], target[600];
    snprintf(path, sizeof path, "%s///", folder);
    assert_ok(fkv_model_open(path, &ops, NULL, &(struct fkv_model_options){0}, &m, &err));
    assert_string_equal(m->name, strrchr(folder, '/') + 1);
    fkv_model_close(m);
    snprintf(path, sizeof path, "%s/.", folder);
    assert_ok(fkv_model_open(path, &ops, NULL, &(struct fkv_model_options){0}, &m, &err));
    assert_string_equal(m->name, strrchr(folder, '/') + 1);
    fkv_model_close(m);

    snprintf(hub, sizeof hub, "%s/models--some-org--Tiny--1B", folder);
    assert_int_equal(mkdir(hub, 0700), 0);
    snprintf(path, sizeof path, "%s/snapshots", hub);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/snapshots/0123abcd", hub);
    snprintf(target, sizeof target, "%s", folder);
    assert_int_equal(symlink(target, path), 0);
    assert_ok(fkv_model_open(path, &ops, NULL, &(struct fkv_model_options){0}, &m, &err));
    assert_string_equal(m->name, "Tiny--1B");
    fkv_model_close(m);
}

TEST_IN_FOLDER(tensors_of_another_family_are_refused) {
    write_checkpoint("qwen2", true, false, NULL);
    write_config("llama", true, VOCAB);
    open_refused(false,
                 "model.safetensors: tensor model.layers.0.self_attn.k_proj.bias: expected none of "
                 "this name in a llama of 2 layers, found one (a bias: is model_type right?)");
    write_checkpoint("qwen3", true, false, NULL);
    write_config("llama", true, VOCAB);
    open_refused(false, "self_attn.k_norm.weight: expected none of this name");
}

/* A tiny llama with one tensor more, of which the first axis has 1. */
static void write_with(const char *name, const char *shape, size_t bytes) {
    struct weights_file more = {0};
    write_checkpoint("llama", true, false, NULL);
    assert_int_equal(rename(test_path(folder, "model.safetensors"),
                            test_path(folder, "model-00001-of-00002.safetensors")),
                     0);
    weights_add(&more, name, "F32", shape, NULL, bytes);
    weights_write(&more, folder, "model-00002-of-00002.safetensors");
}

TEST_IN_FOLDER(tensors_that_change_nothing_are_ignored) {
    static const char *const names[] = {"model.layers.0.self_attn.rotary_emb.inv_freq",
                                        "rotary_emb.inv_freq", "model.rotary_emb.cos_cached",
                                        "model.layers.1.self_attn.masked_bias",
                                        "model.embeddings.position_ids"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_with(names[i], "[3]", 12);
        fkv_model_close(opened());
    }
    write_with("model.layers.0.self_attn.bias", "[1,1,2,2]", 16);
    fkv_model_close(opened());
    write_with("model.layers.0.self_attn.bias", "[4]", 16); /* no mask */
    open_refused(false, "(a bias: is model_type right?)");
}

TEST_IN_FOLDER(other_heads_are_left_out_with_a_note) {
    write_with("score.weight", "[1,8]", 32);
    struct fkv_model *m = opened();
    assert_non_null(strstr(fkv_checkpoint_note(m->checkpoint),
                           "tensor score.weight is left out (a head of rewards or classes)"));
    fkv_model_close(m);
}

TEST_IN_FOLDER(tensors_that_may_count_are_refused_with_what_they_may_mean) {
    static const struct {
        const char *name, *words;
    } cases[] = {
        {"model.layers.2.input_layernorm.weight", "(a layer more than the config says)"},
        {"model.layers.1.mlp.experts.0.down_proj.weight", "(a mixture of experts"},
        {"model.layers.1.mlp.gate.weight", "(a mixture of experts"},
        {"model.layers.1.self_attn.q_proj.lora_A.weight", "(a LoRA adapter that is not merged"},
        {"model.layers.1.self_attn.qkv_proj.weight", "(is model_type right?)"},
        {"model.layers.1.mlp2.gate_proj.weight", "(a second MLP"},
        {"model.layers.1.post_feedforward_layernorm.weight", "(a norm more"},
        {"model.layers.1.self_attn.q_proj.weight_scale", "(quantised weights"},
        {"vision_tower.patch.weight", "(a part for images, which this family does not have)"},
        {"_orig_mod.model.norm.weight", "(all names should have this prefix"},
        {"lm_head.bias", "(a bias"},
        {"what", "tensor what: expected none of this name"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_with(cases[i].name, "[3]", 12);
        open_refused(false, cases[i].words);
    }
}

TEST_IN_FOLDER(prefixes_of_torchs_wrappers_are_known) {
    static const char *const prefixes[] = {"module.model.", "_orig_mod.model.",
                                           "_orig_mod.module.model.", "module.", "_orig_mod."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        prefix = prefixes[i];
        write_checkpoint("llama", true, false, NULL);
        struct fkv_model *m = opened();
        char name[64];
        snprintf(name, sizeof name, "%slayers.1.mlp.down_proj.weight", prefix);
        assert_is(&m->layers[1].down.w, name, DIM, HIDDEN);
        fkv_model_close(m);
    }
    prefix = "model.";
}

TEST_IN_FOLDER(shards_without_an_index_are_read) {
    write_with("score.weight", "[1,8]", 32);
    fkv_model_close(opened());
    write_with("model.norm.weight", "[8]", 32);
    open_refused(false, "tensor model.norm.weight: expected it in one shard, found it in");
    write_with("score.weight", "[1,8]", 32);
    assert_int_equal(remove(test_path(folder, "model-00001-of-00002.safetensors")), 0);
    open_refused(false, "expected shards 1 to 2, found no number 1");
    write_with("score.weight", "[1,8]", 32);
    assert_int_equal(remove(test_path(folder, "model-00002-of-00002.safetensors")), 0);
    open_refused(false, "expected shards 1 to 2, found no number 2");
    write_with("score.weight", "[1,8]", 32);
    assert_int_equal(rename(test_path(folder, "model-00002-of-00002.safetensors"),
                            test_path(folder, "model-00002-of-00003.safetensors")),
                     0);
    open_refused(false, "expected shards of one model");
}

TEST_IN_FOLDER(names_without_the_models_prefix_are_known) {
    prefix = "";
    write_checkpoint("llama", true, false, NULL);
    prefix = "model.";
    struct fkv_model *m = opened();
    assert_is(&m->embedding, "embed_tokens.weight", VOCAB, DIM);
    assert_is(&m->layers[1].down.w, "layers.1.mlp.down_proj.weight", DIM, HIDDEN);
    assert_is(&m->logits.norm, "norm.weight", 1, DIM);
    fkv_model_close(m);
}

TEST_IN_FOLDER(a_misaligned_tensor_is_copied) {
    skipped = 3;
    write_checkpoint("llama", true, false, NULL);
    skipped = 0;
    struct fkv_model *m = opened();
    assert_int_equal((uintptr_t)m->embedding.data->host % 4, 0);
    assert_is(&m->embedding, "model.embed_tokens.weight", VOCAB, DIM);
    assert_is(&m->layers[0].output.w, "model.layers.0.self_attn.o_proj.weight", DIM,
              HEADS * HEAD_DIM);
    fkv_model_close(m);
    assert_int_equal(buffers_held, 0);
}

static void assert_rows(const struct fkv_weight *w, const struct fkv_tensor *all, int first,
                        int rows) {
    assert_int_equal(w->rows, rows);
    assert_int_equal(w->data->bytes, rows * DIM * 4);
    assert_memory_equal(w->data->host, (const float *)all->data + first * DIM, w->data->bytes);
}

TEST_IN_FOLDER(roles_that_share_a_matrix_are_its_rows) {
    enum { Q = HEADS * HEAD_DIM, KV = KV_HEADS * HEAD_DIM };
    struct weights_file w = {0};
    write_config("llama", true, VOCAB);
    add(&w, NULL, "model.embed_tokens.weight", VOCAB, DIM);
    add(&w, NULL, "model.norm.weight", 0, DIM);
    for (int layer = 0; layer < LAYERS; layer++) {
        const struct {
            const char *name;
            int rows, cols;
        } tensors[] = {{"input_layernorm.weight", 0, DIM},
                       {"self_attn.qkv_proj.weight", Q + 2 * KV, DIM},
                       {"self_attn.o_proj.weight", DIM, Q},
                       {"post_attention_layernorm.weight", 0, DIM},
                       {"mlp.gate_up_proj.weight", 2 * HIDDEN, DIM},
                       {"mlp.down_proj.weight", DIM, HIDDEN}};
        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
            char name[96];
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, tensors[i].name);
            add(&w, NULL, name, tensors[i].rows, tensors[i].cols);
        }
    }
    weights_write(&w, folder, "model.safetensors");
    struct fkv_model *m = opened();
    struct fkv_safetensors *files;
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    const struct fkv_tensor *qkv = fkv_tensor_find(&files->tensors,
                                                   "model.layers.1.self_attn.qkv_proj.weight"),
                            *mlp = fkv_tensor_find(&files->tensors,
                                                   "model.layers.1.mlp.gate_up_proj.weight");
    assert_rows(&m->layers[1].qkv.wq, qkv, 0, Q);
    assert_rows(&m->layers[1].qkv.wk, qkv, Q, KV);
    assert_rows(&m->layers[1].qkv.wv, qkv, Q + KV, KV);
    assert_rows(&m->layers[1].mlp.gate, mlp, 0, HIDDEN);
    assert_rows(&m->layers[1].mlp.up, mlp, HIDDEN, HIDDEN);
    fkv_safetensors_close(files);
    fkv_model_close(m);
}

TEST_IN_FOLDER(ends_of_both_configs_count) {
    write_checkpoint("llama", true, false, NULL);
    test_write_text(test_path(folder, "generation_config.json"),
                    "{\"eos_token_id\": [4, 3, 4, 99]}");
    struct fkv_model *m = opened();
    assert_int_equal(m->config.end_count, 2);
    assert_int_equal(m->config.ends[0], 4);
    assert_int_equal(m->config.ends[1], 3);
    fkv_model_close(m);
    test_write_text(test_path(folder, "generation_config.json"), "{\"eos_token_id\": \"</s>\"}");
    open_refused(true, "generation_config.json: field \"eos_token_id\": expected a token id");
}

/* ---- refusals ---- */

TEST_IN_FOLDER(a_missing_tensor_is_named) {
    write_checkpoint("llama", true, false,
                     &(struct change){.tensor = "model.layers.1.mlp.up_proj.weight"});
    open_refused(true, "tensor model.layers.1.mlp.up_proj.weight: expected in the safetensors "
                       "files, found nothing");
    write_checkpoint("qwen2", true, false,
                     &(struct change){.tensor = "model.layers.0.self_attn.k_proj.bias"});
    open_refused(true, "tensor model.layers.0.self_attn.k_proj.bias");
}

TEST_IN_FOLDER(an_untied_checkpoint_needs_its_head) {
    write_checkpoint("llama", false, false, NULL);
    open_refused(true, "tensor lm_head.weight: expected in the safetensors files");
}

TEST_IN_FOLDER(a_wrong_shape_is_refused) {
    struct change change = {.tensor = "model.layers.0.mlp.down_proj.weight", .shape = "[12,8]"};
    write_checkpoint("llama", true, false, &change);
    open_refused(
        true, "tensor model.layers.0.mlp.down_proj.weight: shape: expected [8, 12], found [12, 8]");
    change.shape = "[96]";
    write_checkpoint("llama", true, false, &change);
    open_refused(true, "shape: expected [8, 12], found [96]");
    change.shape = "[2,2,2,3,2,2]";
    write_checkpoint("llama", true, false, &change);
    open_refused(true, "shape: expected [8, 12], found [2, 2, 2, 3, ...]");
    change = (struct change){.tensor = "model.norm.weight", .shape = "[1,8]"};
    write_checkpoint("llama", true, false, &change);
    open_refused(true, "tensor model.norm.weight: shape: expected [8], found [1, 8]");
}

TEST_IN_FOLDER(a_config_of_another_model_is_refused) {
    write_checkpoint("llama", true, false, NULL);
    test_write_text(test_path(folder, "config.json"),
                    "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 12, "
                    "\"num_hidden_layers\": 2, "
                    "\"num_attention_heads\": 4, \"vocab_size\": 10}");
    open_refused(true, "tensor model.embed_tokens.weight: shape: expected [10, 16], found [10, 8]");
}

TEST_IN_FOLDER(a_wrong_dtype_is_refused) {
    write_checkpoint(
        "llama", true, false,
        &(struct change){.tensor = "model.layers.0.self_attn.q_proj.weight", .format = "F8_E4M3"});
    open_refused(true, "tensor model.layers.0.self_attn.q_proj.weight: dtype: expected F32, F16 or "
                       "BF16, found F8_E4M3");
}

TEST_IN_FOLDER(a_weight_that_is_not_finite_is_named_with_its_place) {
    struct change change = {"model.layers.1.self_attn.o_proj.weight",
                            .element = 2 * HEADS * HEAD_DIM + 5, .value = NAN};
    write_checkpoint("llama", true, false, &change);
    open_refused(true, "tensor model.layers.1.self_attn.o_proj.weight: expected finite values, "
                       "found NaN at [2, 5]");
    struct fkv_model *m;
    assert_ok(fkv_model_open(folder, &ops, NULL, &(struct fkv_model_options){0}, &m,
                             &err)); /* only looked for when asked */
    fkv_model_close(m);
    change = (struct change){"model.norm.weight", .element = 7, .value = -INFINITY};
    write_checkpoint("llama", true, false, &change);
    open_refused(true, "tensor model.norm.weight: expected finite values, found infinity at [7]");
}

/* A head of many chunks with a few bad values at random places, in every dtype: the first is
 * reported, whichever thread meets it. */
TEST_IN_FOLDER(of_several_bad_values_the_first_is_reported) {
    static const struct {
        const char *format;
        size_t size;
        uint32_t nan;
    } formats[] = {{"F32", 4, 0x7fc00001u}, {"F16", 2, 0x7e01u}, {"BF16", 2, 0xffc1u}};
    enum { ROWS = 50000, COLS = DIM };
    for (size_t f = 0; f < 3; f++) {
        unsigned char *values = calloc(ROWS * COLS, formats[f].size);
        assert_non_null(values);
        int first = ROWS * COLS;
        for (int i = 0; i < 4; i++) {
            int at = test_between(0, ROWS * COLS - 1);
            if (at < first) first = at;
            memcpy(values + (size_t)at * formats[f].size, &formats[f].nan,
                   formats[f].size); /* little-endian */
        }
        write_checkpoint("llama", true, false,
                         &(struct change){.tensor = "model.embed_tokens.weight",
                                          .shape = "[50000,8]",
                                          .format = formats[f].format,
                                          .data = values,
                                          .bytes = ROWS * COLS * formats[f].size});
        free(values);
        write_config("llama", true, ROWS);
        char expected[96];
        snprintf(expected, sizeof expected, "found NaN at [%d, %d]", first / COLS, first % COLS);
        open_refused(true, expected);
    }
}

TEST_IN_FOLDER(a_backend_without_room_fails_the_load) {
    write_checkpoint("llama", true, false, NULL);
    adopting_fails = true;
    open_refused(true, "model.safetensors: tensor model.embed_tokens.weight: no room");
    adopting_fails = false;
    fkv_model_close(NULL);
}

TEST_IN_FOLDER(a_model_too_large_for_its_device_is_refused_before_anything_is_read) {
    struct change change = {"model.norm.weight", .element = 0, .value = NAN};
    write_checkpoint("llama", true, false, &change); /* reading the values would find the NaN */
    struct fkv_model *m;
    int64_t layer =
        2 * DIM + 2 * HEADS * HEAD_DIM * DIM + 2 * KV_HEADS * HEAD_DIM * DIM + 3 * HIDDEN * DIM;
    int64_t bytes = 4 * (VOCAB * DIM + DIM + LAYERS * layer);
    buffers_made = 0;
    device =
        (struct fkv_device_info){.name = "Tiny GPU", .memory_total = 4096, .space = FKV_DEVICE};
    device.memory_free = bytes - 1;
    assert_refused(fkv_model_open(folder, &ops, NULL,
                                  &(struct fkv_model_options){.check_values = true}, &m, &err),
                   ": weights need ");
    if (!strstr(err.message, ", Tiny GPU has ") || !strstr(err.message, " of 4.0 KiB free"))
        fail_msg("message \"%s\"", err.message);
    assert_int_equal(buffers_made, 0);
    device.memory_free = bytes;
    assert_ok(fkv_model_open(folder, &ops, NULL, &(struct fkv_model_options){0}, &m, &err));
    fkv_model_close(m);
    device = (struct fkv_device_info){0};
    assert_int_equal(buffers_held, 0);
}

/* ---- the copy that a host holds ---- */

/* One buffer of memory of its own. */
static int create(struct fkv_backend *b, size_t bytes, struct fkv_buffer **out,
                  struct fkv_error *e) {
    static char memory[1 << 14];
    assert_true(bytes <= sizeof memory);
    return adopt(b, memory, bytes, out, e);
}

static int write_bytes(struct fkv_backend *b, struct fkv_buffer *to, size_t offset,
                       const void *from, size_t bytes, struct fkv_error *e) {
    (void)b, (void)e;
    memcpy((char *)(uintptr_t)to->host + offset, from, bytes);
    return FKV_OK;
}

static const struct fkv_backend_ops with_memory = {.info = info,
                                                   .buffer_adopt = adopt,
                                                   .buffer_create = create,
                                                   .buffer_release = release,
                                                   .write = write_bytes};

/* A matrix of the copy: the tensor of that name, as it is stored or rounded. */
static void assert_held(const struct fkv_model *m, const struct fkv_weight *w, const char *name,
                        bool rounded) {
    struct fkv_safetensors *files;
    uint16_t expected[2 * HEADS * HEAD_DIM * HIDDEN];
    const size_t n = (size_t)(w->rows * w->cols);
    assert_ok(fkv_safetensors_open(folder, &files, &err));
    const struct fkv_tensor *t = fkv_tensor_find(&files->tensors, name);
    assert_int_equal(t->bytes, 4 * n);
    fkv_from_f32(t->data, FKV_BF16, n, expected);
    assert_ptr_equal(w->data, m->held.buffer);
    assert_int_equal(w->offset % 64, 0);
    assert_int_equal(w->format, rounded ? FKV_WEIGHT_BF16 : FKV_WEIGHT_F32);
    assert_memory_equal((const char *)w->data->host + w->offset, rounded ? expected : t->data,
                        rounded ? 2 * n : 4 * n);
    fkv_safetensors_close(files);
}

static void assert_layer_held(const struct fkv_model *m, int layer, bool rounded) {
    const struct fkv_layer_weights *w = &m->layers[layer];
    const struct {
        const struct fkv_weight *w;
        const char *name;
    } matrices[] = {{&w->qkv.wq, "self_attn.q_proj"}, {&w->qkv.wk, "self_attn.k_proj"},
                    {&w->qkv.wv, "self_attn.v_proj"}, {&w->output.w, "self_attn.o_proj"},
                    {&w->mlp.gate, "mlp.gate_proj"},  {&w->mlp.up, "mlp.up_proj"},
                    {&w->down.w, "mlp.down_proj"}};
    char name[96];
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, matrices[i].name);
        assert_held(m, matrices[i].w, name, rounded);
    }
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", layer);
    assert_held(m, &w->qkv.norm, name, false);
}

TEST_IN_FOLDER(a_host_with_memory_copies_the_weights_rounded_where_asked_for) {
    const int64_t matrices = LAYERS * (2 * HEADS * HEAD_DIM * DIM + 2 * KV_HEADS * HEAD_DIM * DIM +
                                       3 * HIDDEN * DIM),
                  others = 4 * (VOCAB * DIM + (2 * LAYERS + 1) * DIM);
    device.memory_free = 1 << 20;
    for (int i = 0; i < 4; i++) {
        const bool tied = i % 2, rounded = i / 2;
        struct fkv_model *m;
        write_checkpoint("llama", tied, !tied, NULL);
        assert_ok(fkv_model_open(folder, &with_memory, NULL,
                                 &(struct fkv_model_options){.held = true, .rounded = rounded}, &m,
                                 &err));
        for (int l = 0; l < LAYERS; l++) assert_layer_held(m, l, rounded);
        assert_held(m, &m->embedding, "model.embed_tokens.weight", false);
        assert_held(m, &m->logits.w, tied ? "model.embed_tokens.weight" : "lm_head.weight",
                    rounded);
        const int64_t head = tied && !rounded ? 0 : VOCAB * DIM;
        assert_int_equal(m->rounds, rounded);
        assert_int_equal(m->weight_bytes, (rounded ? 2 : 4) * (matrices + head) + others);
        assert_int_equal(buffers_held, 1);
        fkv_model_close(m);
        assert_int_equal(buffers_held, 0);
    }
    device = (struct fkv_device_info){0};
}

TEST_IN_FOLDER(a_host_without_memory_reads_the_weights_where_they_are_mapped) {
    struct fkv_model *m;
    write_checkpoint("llama", true, false, NULL);
    device.memory_free = 8192; /* the copy would take more than half of it */
    assert_ok(fkv_model_open(folder, &with_memory, NULL,
                             &(struct fkv_model_options){.rounded = true}, &m, &err));
    assert_null(m->held.buffer);
    assert_true(m->rounds);
    assert_is(&m->logits.w, "model.embed_tokens.weight", VOCAB, DIM);
    assert_int_equal(m->weight_bytes, 4 * (VOCAB * DIM + DIM) +
                                          4 * LAYERS *
                                              (2 * DIM + 2 * HEADS * HEAD_DIM * DIM +
                                               2 * KV_HEADS * HEAD_DIM * DIM + 3 * HIDDEN * DIM));
    fkv_model_close(m);
    device = (struct fkv_device_info){0};
    assert_int_equal(buffers_held, 0);
}

static void predict(const struct fkv_backend_ops *cpu, struct fkv_backend *backend, bool rounds,
                    float *logits) {
    const int32_t tokens[] = {1, 7, 3, 9, 2};
    const struct fkv_session_options options = {.max_tokens = 8, .block = 4};
    struct fkv_model *m;
    struct fkv_session *s;
    assert_ok(fkv_model_open(folder, cpu, backend, &(struct fkv_model_options){.rounded = rounds},
                             &m, &err));
    assert_ok(fkv_session_open(m, &fkv_full_attention, &options, &s, &err));
    assert_ok(fkv_session_feed(s, tokens, 4, &err));
    assert_ok(fkv_session_feed(s, tokens + 4, 1, &err));
    assert_ok(fkv_session_logits(s, 0, 1, logits, &err));
    fkv_session_close(s);
    fkv_model_close(m);
}

TEST_IN_FOLDER(rounding_beforehand_changes_no_digit) {
    const struct fkv_backend_ops *cpu;
    struct fkv_backend *backend;
    float before[VOCAB], at_once[VOCAB];
    assert_ok(fkv_backend_find("cpu", &cpu, NULL, &err));
    if (cpu->open(&(struct fkv_backend_options){.compute = FKV_COMPUTE_BF16, .threads = 2},
                  &backend, &err)) {
        printf("skipped: %s\n", err.message);
        return;
    }
    write_checkpoint("llama", true, false, NULL);
    predict(cpu, backend, true, before);
    predict(cpu, backend, false, at_once);
    assert_memory_equal(before, at_once, sizeof before);
    cpu->close(backend);
}
