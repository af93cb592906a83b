/* tokenizer.model against sentencepiece's results (tests/golden/sentencepiece, made by
 * tests/golden/make_sentencepiece_vectors.py), files that must be refused, and what
 * tokenizer_config.json says beside a tokenizer. */
#include "kernels/base/atomic_file.h"
#include "tests/unit/engine/tokenizer_files.h"

static const char *const models[] = {"llama", "squeezed", "user"};
enum { MODELS = 3, MAX_FILE = 1 << 20 };

static char *load(const char *name, size_t *bytes) {
    char path[256], *data;
    snprintf(path, sizeof path, "tests/golden/sentencepiece/%s.model", name);
    assert_ok(fkv_read_file(path, MAX_FILE, &data, bytes, &err));
    return data;
}

static struct fkv_tokenizer *open_model(const char *name) {
    size_t bytes;
    char *data = load(name, &bytes);
    struct fkv_tokenizer *t;
    assert_ok(fkv_tokenizer_parse_sentencepiece(data, bytes, name, &t, &err));
    free(data);
    return t;
}

TEST(encodes_and_decodes_as_sentencepiece_does) {
    json_t *all = fkv_json_load("tests/golden/sentencepiece/vectors.json", MAX_FILE, &err), *row;
    assert_non_null(all);
    for (int m = 0; m < MODELS; m++) {
        struct fkv_tokenizer *t = open_model(models[m]);
        size_t i, count, bytes;
        json_array_foreach(json_object_get(all, models[m]), i, row) {
            const char *text = json_string_value(json_array_get(json_object_get(all, "texts"), i));
            const char *expected = json_string_value(json_object_get(row, "decoded"));
            char *decoded;
            int32_t *ids = encode(t, text, strlen(text), false, &count);
            if (!same_ids(ids, count, json_object_get(row, "ids")))
                fail_msg("%s, text %zu (%s): other ids", models[m], i, text);
            assert_ok(fkv_tokenizer_decode(t, ids, count, &decoded, &bytes, &err));
            /* sentencepiece writes its unknown piece as U+2047, here it is left out. */
            if (!strstr(expected, "\xe2\x81\x87")) assert_string_equal(decoded, expected);
            free(decoded);
            free(ids);
        }
        assert_int_equal(i, 80);
        fkv_tokenizer_close(t);
    }
    json_decref(all);
}

TEST(both_files_of_one_tokenizer_give_the_same_ids) {
    struct fkv_tokenizer *json, *model;
    char *text, *data;
    size_t bytes, a, b;
    assert_ok(fkv_tokenizer_open("data/litbank-1m", &json, &err));
    assert_ok(fkv_read_file("data/litbank-1m/tokenizer.model", MAX_FILE, &data, &bytes, &err));
    assert_ok(fkv_tokenizer_parse_sentencepiece(data, bytes, "tokenizer.model", &model, &err));
    free(data);
    assert_ok(fkv_read_file("data/the_tide_mill.txt", MAX_FILE, &text, &bytes, &err));
    int32_t *x = encode(json, text, bytes, true, &a), *y = encode(model, text, bytes, true, &b);
    assert_int_equal(a, b);
    assert_memory_equal(x, y, a * sizeof *x);
    free(x);
    free(y);
    free(text);
    fkv_tokenizer_close(json);
    fkv_tokenizer_close(model);
}

TEST(bos_comes_first_and_control_pieces_are_found) {
    struct fkv_tokenizer *t = open_model("llama");
    size_t count;
    int32_t *ids = encode(t, "<s></s>", 7, true, &count);
    assert_int_equal(count, 3);
    assert_true(ids[0] == 1 && ids[1] == 1 && ids[2] == 2);
    assert_int_equal(fkv_tokenizer_bos(t), 1);
    assert_string_equal(fkv_tokenizer_note(t), "");
    free(ids);
    fkv_tokenizer_close(t);
}

/* Fields put behind a whole model, and what the message must say. */
static const struct {
    const char *fields;
    size_t bytes;
    const char *words;
} refused[] = {
    {"\x12\x02\x18\x01", 4, "model_type: expected BPE, found unigram"},
    {"\x12\x02\x18\x09", 4, "model_type: expected BPE, found ?"},
    {"\x12\x03\xc0\x01\x01", 5, "treat_whitespace_as_suffix"},
    {"\x12\x04\xc8\x02\xff\x7f", 6, "bos_id 16383"},
    {"\x1a\x07\x0a\x02nf\x12\x01x", 9, "normalizer_spec.name: expected identity, found nf"},
    {"\x1a\x02\x28\x00", 4, "escape_whitespaces"},
    {"\x0a\x03\x0a\x01t", 5, "another piece is the same"},
    {"\x0a\x05\x0a\x01\x02\x18\x07", 7, "expected a type of"},
    {"\x0a\x06\x0a\x02th\x18\x05", 8, "expected an unused piece that no two others make"},
    {"\x0a\x03\x0a\x01\xff", 5, "UTF-8"},
    {"\x0a\x00", 2, "UTF-8"},
    {"\x0a\x07\x0a\x00\x15\x00\x00\xc0\x7f", 9, "not a piece"},
    {"\x0a\x7f", 2, "cut short"},
    {"\x0b", 1, "cut short"},
};

TEST(what_it_does_not_understand_is_refused_by_name) {
    size_t bytes;
    char *data = load("llama", &bytes);
    data = realloc(data, bytes + 16);
    assert_non_null(data);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct fkv_tokenizer *t;
        memcpy(data + bytes, refused[i].fields, refused[i].bytes);
        assert_refused(
            fkv_tokenizer_parse_sentencepiece(data, bytes + refused[i].bytes, "x.model", &t, &err),
            refused[i].words);
        assert_null(t);
    }
    free(data);
}

TEST(a_model_cut_short_is_refused_or_whole) {
    size_t bytes;
    char *data = load("user", &bytes);
    for (size_t n = 0; n < bytes; n += 3) {
        struct fkv_tokenizer *t;
        char *part = malloc(n + 1); /* of its own size, so that a read beyond it shows */
        assert_non_null(part);
        memcpy(part, data, n);
        fkv_tokenizer_parse_sentencepiece(part, n, "x.model", &t, &err);
        fkv_tokenizer_close(t);
        free(part);
    }
    free(data);
}

/* FOLDER/NAME with these bytes. */
static void put(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

static struct fkv_tokenizer *open_with(const char *folder, const char *settings) {
    struct fkv_tokenizer *t;
    put(folder, "tokenizer_config.json", settings, strlen(settings));
    assert_ok(fkv_tokenizer_open(folder, &t, &err));
    return t;
}

TEST_IN_FOLDER(tokenizer_config_says_whether_bos_and_eos_are_added) {
    static const struct {
        const char *settings;
        bool bos, eos;
    } cases[] = {
        {"{}", true, false},
        {"not JSON", true, false},
        {"{\"add_bos_token\": false}", false, false},
        {"{\"add_bos_token\": true, \"add_eos_token\": true}", true, true},
    };
    size_t bytes, count;
    char *data = load("llama", &bytes);
    put(folder, "tokenizer.model", data, bytes);
    assert_true(fkv_tokenizer_exists(folder));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fkv_tokenizer *t = open_with(folder, cases[i].settings);
        int32_t *ids = encode(t, "ab", 2, true, &count);
        assert_int_equal(ids[0] == 1, cases[i].bos);
        assert_int_equal(ids[count - 1] == 2, cases[i].eos);
        free(ids);
        fkv_tokenizer_close(t);
    }
    free(data);
}

TEST_IN_FOLDER(a_disagreement_about_bos_is_noted) {
    static const struct {
        const char *family, *settings, *words; /* words NULL: no note */
    } cases[] = {
        {"gpt2", "{\"add_bos_token\": true, \"bos_token\": \"<x>\"}", "<x>"},
        {"gpt2", "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"bos_token\": \"<x>\"}", "no BOS"},
        {"gpt2", "{\"add_bos_token\": false, \"bos_token\": \"<x>\"}", NULL},
        {"gpt2", "{\"bos_token\": \"<x>\"}", NULL},
        {"llama3", "{\"add_bos_token\": false}", "<|begin_of_text|>"},
        {"llama3", "{\"bos_token\": {\"content\": \"<x>\"}}", "<x>"},
        {"llama3", "{\"bos_token\": \"<|begin_of_text|>\"}", NULL},
        {"llama3", "{\"bos_token\": null}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *document = golden(cases[i].family, ".json");
        char *text = json_dumps(document, JSON_COMPACT);
        put(folder, "tokenizer.json", text, strlen(text));
        struct fkv_tokenizer *t = open_with(folder, cases[i].settings);
        if (!cases[i].words)
            assert_string_equal(fkv_tokenizer_note(t), "");
        else if (!strstr(fkv_tokenizer_note(t), cases[i].words))
            fail_msg("%s: note \"%s\"", cases[i].settings, fkv_tokenizer_note(t));
        fkv_tokenizer_close(t);
        free(text);
        json_decref(document);
    }
}
