/* Tokenizers in GGUF files: the same ids and texts as the tokenizer.json that they were made from
 * (tests/golden/tokenizer), sentencepiece's rules for pieces, and refusals by key. */
#include "engine/checkpoint/gguf.h"
#include "tests/unit/engine/gguf_file.h"
#include "tests/unit/engine/tokenizer_files.h"

#define KEY "tokenizer.ggml."

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum { UINT32 = 4, INT32 = 5, FLOAT32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

static struct gguf_file file;

/* Begins an array of `count` items, which come next. */
static void array_key(const char *name, uint32_t type, uint64_t count) {
    gguf_key(&file, name, ARRAY, &type, 4);
    gguf_put_u64(&file.keys, count);
}

static void bool_key(const char *name, bool value) { gguf_key(&file, name, BOOL, &value, 1); }

static int of_file(struct fkv_tokenizer **t) {
    struct fkv_gguf *g;
    size_t bytes;
    unsigned char *memory = gguf_assemble(&file, &bytes);
    assert_ok(fkv_gguf_parse(memory, bytes, "m.gguf", &g, &err));
    const int status = fkv_tokenizer_of_gguf(g, t, &err);
    fkv_gguf_close(g);
    free(memory);
    return status;
}

/* ---- BPE of bytes ---- */

/* Strings and types by id, as llama.cpp's converter writes them from a tokenizer.json. */
static size_t put_tokens(const json_t *document) {
    const json_t *vocab = json_object_get(json_object_get(document, "model"), "vocab"),
                 *added = json_object_get(document, "added_tokens");
    const size_t count = json_object_size(vocab) + json_array_size(added);
    const char **text = calloc(count, sizeof *text), *token;
    int32_t *type = calloc(count, sizeof *type);
    json_t *value;
    size_t i, ids = 0;
    assert_true(text && type);
    json_object_foreach((json_t *)vocab, token, value) {
        const size_t id = (size_t)json_integer_value(value);
        assert_true(id < count);
        text[id] = token;
        type[id] = NORMAL;
        if (id >= ids) ids = id + 1;
    }
    json_array_foreach(added, i, value) {
        const size_t id = (size_t)json_integer_value(json_object_get(value, "id"));
        assert_true(id < count);
        text[id] = json_string_value(json_object_get(value, "content"));
        type[id] = json_is_true(json_object_get(value, "special")) ? CONTROL : USER;
        if (id >= ids) ids = id + 1;
    }
    array_key(KEY "tokens", STRING, ids);
    for (i = 0; i < ids; i++) gguf_put_string(&file.keys, text[i]);
    array_key(KEY "token_type", INT32, ids);
    gguf_put(&file.keys, type, ids * sizeof *type);
    free(text);
    free(type);
    return ids;
}

static void put_bpe(const json_t *document, const char *pre) {
    const json_t *merges = json_object_get(json_object_get(document, "model"), "merges"), *merge;
    size_t i;
    gguf_begin(&file);
    gguf_key_string(&file, KEY "model", "gpt2");
    if (pre) gguf_key_string(&file, KEY "pre", pre);
    put_tokens(document);
    array_key(KEY "merges", STRING, json_array_size(merges));
    json_array_foreach((json_t *)merges, i, merge) {
        char pair[256];
        if (json_is_string(merge))
            snprintf(pair, sizeof pair, "%s", json_string_value(merge));
        else
            snprintf(pair, sizeof pair, "%s %s", json_string_value(json_array_get(merge, 0)),
                     json_string_value(json_array_get(merge, 1)));
        gguf_put_string(&file.keys, pair);
    }
}

TEST(a_file_gives_the_ids_of_its_tokenizer_json) {
    static const struct {
        const char *golden, *pre;
    } rows[] = {{"gpt2", "gpt-2"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}};
    json_t *texts = golden("texts", ".json"), *text;
    for (int k = 0; k < 3; k++) {
        json_t *document = golden(rows[k].golden, ".json");
        struct fkv_tokenizer *a = parse(document), *b;
        put_bpe(document, rows[k].pre);
        if (k == 0) bool_key(KEY "add_space_prefix", true);
        const int32_t bos = fkv_tokenizer_bos(a);
        if (bos >= 0) gguf_key_u32(&file, KEY "bos_token_id", (uint32_t)bos);
        assert_ok(of_file(&b));
        assert_int_equal(fkv_tokenizer_bos(b), bos);
        assert_int_equal(fkv_tokenizer_vocabulary(a), fkv_tokenizer_vocabulary(b));
        assert_string_equal(fkv_tokenizer_note(b), "");
        assert_int_equal(strlen(fkv_tokenizer_sha256(b)), 64);
        size_t i, m, n, bytes[2];
        json_array_foreach(texts, i, text) {
            const char *s = json_string_value(text);
            int32_t *x = encode(a, s, json_string_length(text), true, &m),
                    *y = encode(b, s, json_string_length(text), true, &n);
            char *decoded[2];
            if (m != n || memcmp(x, y, m * sizeof *x))
                fail_msg("%s, text %zu (%s): other ids", rows[k].pre, i, s);
            assert_ok(fkv_tokenizer_decode(a, x, m, &decoded[0], &bytes[0], &err));
            assert_ok(fkv_tokenizer_decode(b, y, n, &decoded[1], &bytes[1], &err));
            assert_int_equal(bytes[0], bytes[1]);
            assert_memory_equal(decoded[0], decoded[1], bytes[0]);
            free(decoded[0]), free(decoded[1]);
            free(x), free(y);
        }
        assert_true(i > 50);
        fkv_tokenizer_close(a);
        fkv_tokenizer_close(b);
        json_decref(document);
    }
    json_decref(texts);
}

TEST(a_missing_pre_tokenizer_is_noted) {
    json_t *document = golden("gpt2", ".json");
    struct fkv_tokenizer *t;
    put_bpe(document, NULL);
    assert_ok(of_file(&t));
    assert_non_null(strstr(fkv_tokenizer_note(t), "does not name its pre-tokenizer"));
    fkv_tokenizer_close(t);
    json_decref(document);
}

/* ---- pieces with scores ---- */

static const struct piece {
    const char *text;
    float score;
    int32_t type;
} pieces[] = {
    {"<unk>", 0, UNKNOWN},
    {"<s>", 0, CONTROL},
    {"</s>", 0, CONTROL},
    {"<0xC3>", 0, BYTE},
    {"<0xA9>", 0, BYTE},
    {"\xe2\x96\x81", -9, NORMAL},
    {"a", -8, NORMAL},
    {"b", -7, NORMAL},
    {"ab", -2, NORMAL},
    {"\xe2\x96\x81"
     "a",
     -1, NORMAL},
    {"  ", -1000, USER},
    {"[PAD11]", -1000, UNUSED},
    {"", 0, NORMAL},
};
enum { PIECES = sizeof pieces / sizeof *pieces };

static void put_pieces(void) {
    gguf_begin(&file);
    gguf_key_string(&file, KEY "model", "llama");
    array_key(KEY "tokens", STRING, PIECES);
    for (int i = 0; i < PIECES; i++) gguf_put_string(&file.keys, pieces[i].text);
    array_key(KEY "scores", FLOAT32, PIECES);
    for (int i = 0; i < PIECES; i++) gguf_put(&file.keys, &pieces[i].score, 4);
    array_key(KEY "token_type", INT32, PIECES);
    for (int i = 0; i < PIECES; i++) gguf_put(&file.keys, &pieces[i].type, 4);
    gguf_key_u32(&file, KEY "bos_token_id", 1);
    gguf_key_u32(&file, KEY "eos_token_id", 2);
}

static void assert_ids(const char *text, const int32_t *expected, size_t count,
                       const char *decoded) {
    struct fkv_tokenizer *t;
    size_t found, bytes;
    char *back;
    assert_ok(of_file(&t));
    int32_t *ids = encode(t, text, strlen(text), true, &found);
    assert_int_equal(found, count);
    assert_memory_equal(ids, expected, count * sizeof *ids);
    assert_ok(fkv_tokenizer_decode(t, ids, found, &back, &bytes, &err));
    assert_string_equal(back, decoded);
    free(back);
    free(ids);
    fkv_tokenizer_close(t);
}

TEST(pieces_are_merged_as_in_sentencepiece) {
    put_pieces(); /* BOS, a space in front; the pair of the highest score first */
    assert_ids("ab", (int32_t[]){1, 9, 7}, 3, "ab");
    /* bytes for an unknown character; control tokens are found, and left out of the text */
    assert_ids("\xc3\xa9", (int32_t[]){1, 5, 3, 4}, 4, "\xc3\xa9");
    assert_ids("a</s>b", (int32_t[]){1, 9, 2, 5, 7}, 5, "a b");
    /* a user's piece is found as it is written, an unused one is text */
    assert_ids("a  b", (int32_t[]){1, 9, 10, 5, 7}, 5, "a   b");
    bool_key(KEY "add_space_prefix", false);
    bool_key(KEY "add_eos_token", true);
    assert_ids("ab", (int32_t[]){1, 8, 2}, 3, "ab");
    put_pieces();
    bool_key(KEY "add_bos_token", false);
    assert_ids("ab", (int32_t[]){9, 7}, 2, "ab");
}

/* ---- refusals ---- */

static void refused(const char *words) {
    struct fkv_tokenizer *t;
    assert_refused(of_file(&t), words);
    assert_null(t);
    if (strncmp(err.message, "m.gguf: ", 8)) fail_msg("message \"%s\" names no file", err.message);
}

static void model_only(const char *model) {
    gguf_begin(&file);
    gguf_key_string(&file, KEY "model", model);
}

TEST(what_is_not_known_is_refused_by_key) {
    gguf_begin(&file);
    refused("key tokenizer.ggml.model: expected it, found nothing");
    static const char *const models[] = {"bert", "t5", "rwkv", "plamo2", "gemma4", "no_vocab", ""};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char words[96];
        model_only(models[i]);
        snprintf(words, sizeof words, "key tokenizer.ggml.model: expected gpt2 or llama, found %s",
                 models[i]);
        refused(words);
    }
    model_only("gpt2");
    refused("key tokenizer.ggml.tokens: expected it, found nothing");
    gguf_key_string(&file, KEY "pre", "kimi-k2");
    refused("key tokenizer.ggml.pre: expected a pre-tokenizer that is known");
    model_only("llama");
    gguf_key_u32(&file, KEY "tokens", 3);
    refused("key tokenizer.ggml.tokens: expected an array of string, found uint32");
    model_only("llama");
    array_key(KEY "tokens", STRING, 0);
    refused("key tokenizer.ggml.tokens: expected 1 to 4194304 tokens, found 0");
}

/* A model gpt2 of the tokens a, b and `third`, whose type is `type`. */
static void three_tokens(const char *third, int32_t type) {
    model_only("gpt2");
    gguf_key_string(&file, KEY "pre", "gpt-2");
    array_key(KEY "tokens", STRING, 3);
    gguf_put_string(&file.keys, "a"), gguf_put_string(&file.keys, "b");
    gguf_put_string(&file.keys, third);
    array_key(KEY "token_type", INT32, 3);
    gguf_put(&file.keys, (int32_t[]){NORMAL, NORMAL, type}, 12);
}

static void merge_of(const char *pair) {
    three_tokens("ab", NORMAL);
    array_key(KEY "merges", STRING, 1);
    gguf_put_string(&file.keys, pair);
}

TEST(wrong_vocabularies_are_refused_by_key) {
    three_tokens("a", NORMAL);
    refused("key tokenizer.ggml.tokens: piece 2 (\"a\"): another piece is the same");
    three_tokens("\xff", NORMAL);
    refused("key tokenizer.ggml.tokens: piece 2: expected a text in UTF-8");
    static char endless[4098];
    memset(endless, 'a', sizeof endless - 1);
    three_tokens(endless, NORMAL);
    refused("key tokenizer.ggml.tokens: piece 2: expected at most 4096 bytes, found 4097");
    three_tokens("ab", 7);
    refused("key tokenizer.ggml.token_type: expected 1 to 6, found 7 at [2]");
    three_tokens("ab", -70000);
    refused("key tokenizer.ggml.token_type: expected 1 to 6, found -70000 at [2]");
    three_tokens("ab", NORMAL);
    refused("key tokenizer.ggml.merges: expected it, found nothing");
    static const char *const none[] = {"", "ab", "a", " "};
    for (int i = 0; i < 4; i++) {
        merge_of(none[i]);
        refused("key tokenizer.ggml.merges[0]: expected \"left right\", found");
    }
    merge_of("a c");
    refused("key tokenizer.ggml.merges[0]: \"c\" is not in the vocabulary");
    merge_of("b a");
    refused("key tokenizer.ggml.merges[0]: \"ba\" is not in the vocabulary");
    merge_of("a b");
    bool_key(KEY "add_bos_token", true);
    refused("key tokenizer.ggml.bos_token_id: expected it, found nothing");
    gguf_key_u32(&file, KEY "bos_token_id", 3);
    refused("key tokenizer.ggml.bos_token_id: expected an integer in [0, 2], found 3");
    model_only("llama");
    array_key(KEY "tokens", STRING, 2);
    gguf_put_string(&file.keys, "a"), gguf_put_string(&file.keys, "b");
    refused("key tokenizer.ggml.token_type: expected it, found nothing");
    array_key(KEY "token_type", INT32, 1);
    gguf_put(&file.keys, (int32_t[]){NORMAL}, 4);
    refused("key tokenizer.ggml.token_type: expected 2 items, as many as tokenizer.ggml.tokens, "
            "found 1");
}
