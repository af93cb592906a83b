/* A random LLaMA small enough to write in a test, as a Hugging Face folder without a tokenizer, and
 * texts for it as token ids. */
#ifndef FKV_TESTS_SMALL_MODEL_H
#define FKV_TESTS_SMALL_MODEL_H

#include <sys/stat.h>

#include "kernels/dtype.h"
#include "tests/unit/support.h"

enum {
    SMALL_LAYERS = 3,
    SMALL_HEADS = 4,
    SMALL_KV_HEADS = 2,
    SMALL_HEAD_DIM = 6,
    SMALL_CONTEXT = 700
};

struct tensor_list {
    char header[8192];
    size_t bytes, data;
};

static inline void list_tensor(struct tensor_list *l, const char *name, enum fkv_dtype dtype,
                               int rows, int cols) {
    static const char *const names[] = {[FKV_F32] = "F32", [FKV_F16] = "F16", [FKV_BF16] = "BF16"};
    size_t bytes = (size_t)rows * (size_t)cols * fkv_dtype_bytes(dtype);
    l->bytes += (size_t)snprintf(l->header + l->bytes, sizeof l->header - l->bytes,
                                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":", l->data ? "," : "{", name,
                                 names[dtype]);
    if (rows > 1)
        l->bytes += (size_t)snprintf(l->header + l->bytes, sizeof l->header - l->bytes, "[%d,%d]",
                                     rows, cols);
    if (rows == 1)
        l->bytes +=
            (size_t)snprintf(l->header + l->bytes, sizeof l->header - l->bytes, "[%d]", cols);
    l->bytes += (size_t)snprintf(l->header + l->bytes, sizeof l->header - l->bytes,
                                 ",\"data_offsets\":[%zu,%zu]}", l->data, l->data + bytes);
    l->data += bytes;
}

/* Weights are normal with deviation `scale`: large ones make states that float16 cannot hold. */
static inline void write_small_model(const char *folder, enum fkv_dtype dtype, double scale) {
    enum {
        DIM = 18,
        HIDDEN = 24,
        VOCAB = 50
    }; /* DIM no multiple of 4: rows of weights are not taken in whole fours */
    assert_int_equal(mkdir(folder, 0777), 0);
    FILE *f = fopen(test_path(folder, "config.json"), "w");
    assert_non_null(f);
    fprintf(
        f,
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
        "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_"
        "value_heads\":%d,"
        "\"head_dim\":%d,\"vocab_size\":%d,\"max_position_embeddings\":%d,\"rms_norm_eps\":1e-5,"
        "\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true}",
        DIM, HIDDEN, SMALL_LAYERS, SMALL_HEADS, SMALL_KV_HEADS, SMALL_HEAD_DIM, VOCAB,
        SMALL_CONTEXT);
    fclose(f);
    const struct {
        const char *name;
        int rows, cols;
    } parts[] = {{"input_layernorm", 1, DIM},
                 {"self_attn.q_proj", SMALL_HEADS * SMALL_HEAD_DIM, DIM},
                 {"self_attn.k_proj", SMALL_KV_HEADS * SMALL_HEAD_DIM, DIM},
                 {"self_attn.v_proj", SMALL_KV_HEADS * SMALL_HEAD_DIM, DIM},
                 {"self_attn.o_proj", DIM, SMALL_HEADS * SMALL_HEAD_DIM},
                 {"post_attention_layernorm", 1, DIM},
                 {"mlp.gate_proj", HIDDEN, DIM},
                 {"mlp.up_proj", HIDDEN, DIM},
                 {"mlp.down_proj", DIM, HIDDEN}};
    struct tensor_list l = {0};
    list_tensor(&l, "model.embed_tokens.weight", dtype, VOCAB, DIM);
    list_tensor(&l, "model.norm.weight", dtype, 1, DIM);
    for (int layer = 0; layer < SMALL_LAYERS; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[96];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, parts[i].name);
            list_tensor(&l, name, dtype, parts[i].rows, parts[i].cols);
        }
    l.header[l.bytes++] = '}';
    while (l.bytes % 8) l.header[l.bytes++] = ' ';
    const size_t count = l.data / fkv_dtype_bytes(dtype);
    float *numbers = malloc(count * sizeof *numbers);
    void *weights = malloc(l.data);
    test_fill(numbers, count, 0, scale);
    fkv_from_f32(numbers, dtype, count, weights);
    free(numbers);
    f = fopen(test_path(folder, "model.safetensors"), "wb");
    assert_non_null(f);
    uint64_t header_bytes = l.bytes;
    fwrite(&header_bytes, 8, 1, f);
    fwrite(l.header, 1, l.bytes, f);
    fwrite(weights, 1, l.data, f);
    fclose(f);
    free(weights);
}

/* `count` random ids as raw uint16. */
static inline void write_ids(const char *path, int count) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < count; i++) {
        uint16_t id = (uint16_t)test_between(0, 49);
        fwrite(&id, 2, 1, f);
    }
    fclose(f);
}

#endif
