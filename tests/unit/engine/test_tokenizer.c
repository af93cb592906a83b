/* The tokenizer against Hugging Face's results (tests/golden/tokenizer, made by
 * tests/golden/make_tokenizer_vectors.py), against a search by brute force, and against files it
 * must refuse. */
#include "kernels/base/atomic_file.h"
#include "tests/unit/engine/tokenizer_files.h"

static const char *const families[] = {"llama2", "mistral", "llama3", "qwen2", "gpt2"};
enum { FAMILIES = 5 };

TEST(encodes_and_decodes_as_hugging_face_does) {
    json_t *texts = golden("texts", ".json");
    for (int f = 0; f < FAMILIES; f++) {
        struct fkv_tokenizer *t = open_family(families[f]);
        json_t *vectors = golden(families[f], ".vectors.json");
        assert_int_equal(json_array_size(vectors), json_array_size(texts));
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const char *text = json_string_value(json_array_get(texts, i));
            const json_t *expected = json_object_get(json_array_get(vectors, i), "ids");
            size_t count, bytes;
            int32_t *ids = encode(t, text, strlen(text), true, &count);
            if (!same_ids(ids, count, expected))
                fail_msg("%s, text %zu (%s): %zu ids, expected %zu, or others", families[f], i,
                         text, count, json_array_size(expected));
            char *decoded;
            assert_ok(fkv_tokenizer_decode(t, ids, count, &decoded, &bytes, &err));
            assert_string_equal(
                decoded, json_string_value(json_object_get(json_array_get(vectors, i), "decoded")));
            free(decoded);
            free(ids);
        }
        json_decref(vectors);
        fkv_tokenizer_close(t);
    }
    json_decref(texts);
}

/* llama.cpp's cases for GPT-2: texts parted by a line, ids parted by spaces. */
TEST(encodes_gpt2_as_llama_cpp_does) {
    char path[3][512];
    test_shared(path[0], "models/gpt2-tokenizer");
    test_shared(path[1], "vectors/gpt-2.inp");
    test_shared(path[2], "vectors/gpt-2.out");
    struct fkv_tokenizer *t;
    char *texts, *ids, *save;
    size_t bytes;
    assert_ok(fkv_tokenizer_open(path[0], &t, &err));
    assert_ok(fkv_read_file(path[1], 1 << 20, &texts, &bytes, &err));
    assert_ok(fkv_read_file(path[2], 1 << 20, &ids, &bytes, &err));
    static const char separator[] = "\n__ggml_vocab_test__\n";
    int cases = 0;
    char *line = ids;
    for (char *text = texts, *next; text; text = next, cases++) {
        next = strstr(text, separator);
        size_t length = next ? (size_t)(next - text) : strlen(text), count;
        if (next) next += strlen(separator);
        char *line_end = line + strcspn(line, "\n");
        char *end_of_line = *line_end ? line_end + 1 : line_end;
        *line_end = 0;
        int32_t *found = encode(t, text, length, true, &count);
        size_t k = 0;
        for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save), k++)
            if (k >= count || found[k] != atoi(word))
                fail_msg("case %d, token %zu: expected %s", cases, k, word);
        assert_int_equal(k, count);
        free(found);
        line = end_of_line;
    }
    assert_true(cases > 40);
    free(texts);
    free(ids);
    fkv_tokenizer_close(t);
}

static size_t put_character(char *out, uint32_t c) {
    if (c < 0x80) return out[0] = (char)c, 1;
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | c >> 6 * more);
    for (int i = 1; i <= more; i++) out[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3f));
    return (size_t)more + 1;
}

/* Characters below `limit`; none that tokenizers take away: U+2581 is written for a space, '<'
 * would begin added tokens. */
static size_t random_text(char *out, int characters, uint32_t limit) {
    size_t bytes = 0;
    for (int i = 0; i < characters; i++) {
        uint32_t c =
            test_between(0, 2) ? (uint32_t)test_between(0, 127) : (uint32_t)(test_random() % limit);
        if ((c >= 0xd800 && c < 0xe000) || c == 0x2581 || c == '<' || c == 'w') c = 'e';
        bytes += put_character(out + bytes, c);
    }
    return bytes;
}

TEST(decoding_gives_back_what_was_encoded) {
    char text[4 * 64];
    for (int f = 0; f < FAMILIES; f++) {
        struct fkv_tokenizer *t = open_family(families[f]);
        for (int round = 0; round < 500; round++) {
            text[0] = 'x'; /* gpt2's prefix space is decoded as part of the text */
            size_t bytes = 1 + random_text(text + 1, test_between(0, 60),
                                           strcmp(families[f], "qwen2") ? 0x110000 : 0x300);
            size_t count, decoded_bytes, skip = strcmp(families[f], "gpt2") ? 0 : 1;
            int32_t *ids = encode(t, text, bytes, true, &count);
            char *decoded;
            assert_ok(fkv_tokenizer_decode(t, ids, count, &decoded, &decoded_bytes, &err));
            assert_int_equal(decoded_bytes, bytes + skip);
            assert_memory_equal(decoded + skip, text, bytes);
            free(decoded);
            free(ids);
        }
        fkv_tokenizer_close(t);
    }
}

TEST(no_text_is_no_tokens_and_back) {
    for (int f = 0; f < FAMILIES; f++) {
        struct fkv_tokenizer *t = open_family(families[f]);
        size_t count, bytes;
        int32_t *ids = encode(t, "", 0, false, &count);
        assert_int_equal(count, 0);
        char *text;
        assert_ok(fkv_tokenizer_decode(t, ids, 0, &text, &bytes, &err));
        assert_int_equal(bytes, 0);
        assert_string_equal(text, "");
        free(text);
        free(ids);
        fkv_tokenizer_close(t);
    }
}

static void set(json_t *object, const char *key, json_t *value) {
    assert_int_equal(json_object_set_new(object, key, value), 0);
}

enum { LETTERS = 3, MAX_TOKENS = 64 };

/* A model over a, b, c and U+2581 whose merges join two random tokens each, in random order of
 * length. */
static json_t *random_model(char tokens[MAX_TOKENS][64], int pairs[][3], int *merge_count) {
    json_t *vocab = json_object(), *merges = json_array(), *model = json_object();
    int count = 0;
    static const char *const letters[] = {"a", "b", "c", "\xe2\x96\x81"};
    for (; count <= LETTERS; count++) {
        strcpy(tokens[count], letters[count]);
        set(vocab, letters[count], json_integer(count));
    }
    *merge_count = 0;
    for (int i = 0; i < 40; i++) {
        int a = test_between(0, count - 1), b = test_between(0, count - 1);
        char both[128], line[132];
        snprintf(both, sizeof both, "%s%s", tokens[a], tokens[b]);
        if (strlen(both) > 18) continue;
        for (int k = 0; k < *merge_count; k++)
            if (pairs[k][0] == a && pairs[k][1] == b) both[0] = 0;
        if (!both[0]) continue;
        int id = 0;
        while (id < count && strcmp(tokens[id], both)) id++;
        if (id == count) {
            memcpy(tokens[count], both, strlen(both) + 1);
            set(vocab, both, json_integer(count++));
        }
        snprintf(line, sizeof line, "%s %s", tokens[a], tokens[b]);
        json_array_append_new(merges, json_string(line));
        pairs[*merge_count][0] = a, pairs[*merge_count][1] = b, pairs[*merge_count][2] = id;
        ++*merge_count;
    }
    set(vocab, "?", json_integer(count));
    set(model, "type", json_string("BPE"));
    set(model, "unk_token", json_string("?"));
    set(model, "vocab", vocab);
    set(model, "merges", merges);
    return model;
}

/* The definition: join the leftmost pair of lowest rank, until there is none. */
static size_t merge_naively(int *ids, size_t n, int pairs[][3], int merge_count) {
    for (int rank = 0; rank < merge_count; rank++)
        for (size_t i = 0; i + 1 < n; i++)
            if (ids[i] == pairs[rank][0] && ids[i + 1] == pairs[rank][1]) {
                ids[i] = pairs[rank][2];
                memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof *ids);
                n--;
                rank = -1;
                break;
            }
    return n;
}

TEST(merging_equals_the_naive_search) {
    for (int round = 0; round < 60; round++) {
        static char tokens[MAX_TOKENS][64];
        int pairs[64][3], merge_count, expected[80];
        json_t *document = json_object();
        set(document, "model", random_model(tokens, pairs, &merge_count));
        struct fkv_tokenizer *t = parse(document);
        for (int text_round = 0; text_round < 20; text_round++) {
            char text[4 * 80] = "";
            size_t n = (size_t)test_between(1, 80), count;
            for (size_t i = 0; i < n; i++)
                strcat(text, tokens[expected[i] = test_between(0, LETTERS)]);
            n = merge_naively(expected, n, pairs, merge_count);
            int32_t *ids = encode(t, text, strlen(text), true, &count);
            assert_int_equal(count, n);
            for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], expected[i]);
            free(ids);
        }
        fkv_tokenizer_close(t);
        json_decref(document);
    }
}

/* One merge that crosses into a space forbids cutting texts at spaces; on texts without its
 * character nothing else may change. */
TEST(cutting_at_spaces_changes_no_id) {
    json_t *document = golden("mistral", ".json"), *model = json_object_get(document, "model");
    struct fkv_tokenizer *cut = parse(document);
    json_t *vocab = json_object_get(model, "vocab");
    json_int_t next = (json_int_t)json_object_size(vocab);
    set(vocab, "\xee\x84\xa3", json_integer(next));
    set(vocab, "\xee\x84\xa3\xe2\x96\x81", json_integer(next + 1));
    json_array_append_new(json_object_get(model, "merges"),
                          json_string("\xee\x84\xa3 \xe2\x96\x81"));
    struct fkv_tokenizer *whole = parse(document);
    json_t *texts = golden("texts", ".json");
    for (int round = 0; round < 300; round++) {
        char text[8192] = "";
        for (int i = 0; i < 8; i++) {
            size_t pick = (size_t)test_between(0, (int)json_array_size(texts) - 1);
            strcat(text, json_string_value(json_array_get(texts, pick)));
        }
        size_t a, b;
        int32_t *x = encode(cut, text, strlen(text), true, &a),
                *y = encode(whole, text, strlen(text), true, &b);
        assert_int_equal(a, b);
        assert_memory_equal(x, y, a * sizeof *x);
        free(x);
        free(y);
    }
    json_decref(texts);
    json_decref(document);
    fkv_tokenizer_close(cut);
    fkv_tokenizer_close(whole);
}

TEST(special_tokens_are_added_only_when_asked_for) {
    struct fkv_tokenizer *t = open_family("llama3"), *plain = open_family("gpt2");
    size_t with, without;
    int32_t *a = encode(t, "hello", 5, true, &with), *b = encode(t, "hello", 5, false, &without);
    assert_true(fkv_tokenizer_bos(t) >= 0);
    assert_int_equal(fkv_tokenizer_bos(plain), -1);
    assert_int_equal(with, without + 1);
    assert_int_equal(a[0], fkv_tokenizer_bos(t));
    assert_memory_equal(a + 1, b, without * sizeof *b);
    assert_int_equal(fkv_tokenizer_vocabulary(t), fkv_tokenizer_bos(t) + 3);
    assert_int_equal(strlen(fkv_tokenizer_sha256(t)), 64);
    free(a);
    free(b);
    fkv_tokenizer_close(t);
    fkv_tokenizer_close(plain);
    fkv_tokenizer_close(NULL);
}

TEST(invalid_utf8_is_refused_with_its_place) {
    struct fkv_tokenizer *t = open_family("mistral");
    static const char *const bad[] = {"\x80",
                                      "\xc0\xaf",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80",
                                      "\xe2\x96",
                                      "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int before = test_between(0, 40);
        char text[64], expected[64];
        memset(text, 'a', sizeof text);
        memcpy(text + before, bad[i], strlen(bad[i]));
        snprintf(expected, sizeof expected, "byte %d", before);
        int32_t *ids;
        size_t count;
        assert_refused(fkv_tokenizer_encode(t, text, (size_t)before + strlen(bad[i]), true, &ids,
                                            &count, &err),
                       expected);
    }
    fkv_tokenizer_close(t);
}

TEST(ids_outside_the_vocabulary_are_refused) {
    struct fkv_tokenizer *t = open_family("mistral");
    int32_t wrong[] = {-1, fkv_tokenizer_vocabulary(t), INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        int32_t ids[] = {5, wrong[i]};
        char *text;
        size_t bytes;
        assert_refused(fkv_tokenizer_decode(t, ids, 2, &text, &bytes, &err), "token 1");
    }
    fkv_tokenizer_close(t);
}

/* family, where ("a/b/c"; a number indexes a list), new value ("" deletes), what the message must
 * say */
static const char *const malformed[][4] = {
    {"mistral", "model", "", "model"},
    {"mistral", "model/type", "\"Unigram\"", "found Unigram"},
    {"mistral", "model/vocab", "[]", "model.vocab"},
    {"mistral", "model/vocab", "{}", "model.vocab"},
    {"mistral", "model/vocab/<s>", "-1", "model.vocab[\"<s>\"]"},
    {"mistral", "model/vocab/<s>", "1.5", "model.vocab[\"<s>\"]"},
    {"mistral", "model/vocab/<s>", "99999999999", "model.vocab[\"<s>\"]"},
    {"mistral", "model/vocab/<s>", "7", "another token has id 7"},
    {"mistral", "model/merges", "{}", "model.merges"},
    {"mistral", "model/merges/3", "7", "model.merges[3]"},
    {"mistral", "model/merges/3", "\"abc\"", "model.merges[3]"},
    {"mistral", "model/merges/3", "\"a b c\"", "model.merges[3]"},
    {"mistral", "model/merges/3", "[\"a\"]", "model.merges[3]"},
    {"mistral", "model/merges/3", "[\"\", \"a\"]", "model.merges[3]"},
    {"mistral", "model/merges/3", "\"a nonesuch\"", "\"nonesuch\" is not in the vocabulary"},
    {"mistral", "model/unk_token", "\"<none>\"", "unk_token"},
    {"mistral", "model/dropout", "0.1", "dropout"},
    {"mistral", "model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
    {"mistral", "model/byte_fallback", "3", "byte_fallback"},
    {"mistral", "normalizer", "{\"type\": \"Precompiled\"}", "found Precompiled"},
    {"mistral", "normalizer", "{\"type\": \"Strip\", \"strip_left\": true}", "strip_right"},
    {"mistral", "normalizer",
     "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a(\"}, \"content\": \"\"}",
     "normalizer.pattern: PCRE2 does not take the pattern"},
    {"mistral", "normalizer",
     "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}",
     "normalizer.pattern"},
    {"mistral", "normalizer",
     "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Nmt\"}]}",
     "normalizers[1].type"},
    {"mistral", "normalizer", "7", "normalizer"},
    {"mistral", "pre_tokenizer/type", "\"BertPreTokenizer\"", "found BertPreTokenizer"},
    {"mistral", "pre_tokenizer/prepend_scheme", "\"last\"", "found last"},
    {"mistral", "pre_tokenizer/replacement", "\"ab\"", "replacement"},
    {"mistral", "post_processor/type", "\"BertProcessing\"", "found BertProcessing"},
    {"mistral", "post_processor/single", "[]", "the text does not occur"},
    {"mistral", "post_processor/single/0", "{\"SpecialToken\": {\"id\": \"<x>\"}}", "<x>"},
    {"mistral", "post_processor/special_tokens/<s>/ids", "[123456]", "not in the vocabulary"},
    {"mistral", "decoder/decoders/1/type", "\"WordPiece\"", "found WordPiece"},
    {"mistral", "decoder/decoders/3/start", "-1", "start"},
    {"mistral", "added_tokens", "{}", "added_tokens"},
    {"mistral", "added_tokens/1/id", "77", "added_tokens[1]"},
    {"mistral", "added_tokens/1/content", "\"\"", "added_tokens[1]"},
    {"mistral", "added_tokens/1/content", "\"<unk>\"", "added_tokens[1]"},
    {"mistral", "added_tokens/1/lstrip", "", "lstrip"},
    {"llama2", "normalizer",
     "{\"type\": \"Replace\", \"pattern\": {\"String\": \"<norm>\"}, \"content\": \"\"}",
     "normalizes to nothing"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[\\\\p{L}&&a]\"", "intersection"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[a[^b]]\"",
     "such a set within a set"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[\\\\W_]\"", "within a set"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\QaE\"", "\\QaE"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"a{2}?\"", "fixed count"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(?im:.)\"", "(?m)"},
    {"llama3", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(*UTF)a\"", "(*"},
    {"llama3", "pre_tokenizer/pretokenizers/0/behavior", "\"Kept\"", "found Kept"},
    {"llama3", "pre_tokenizer/pretokenizers/0/invert", "3", "invert"},
};

static void change(json_t *root, const char *where, const char *value) {
    char path[128], *save;
    snprintf(path, sizeof path, "%s", where);
    json_t *node = NULL, *inner = root;
    const char *key = NULL;
    for (char *word = strtok_r(path, "/", &save); word; word = strtok_r(NULL, "/", &save)) {
        node = inner;
        key = word;
        inner = json_is_array(node) ? json_array_get(node, (size_t)atoi(key))
                                    : json_object_get(node, key);
    }
    json_t *new_value = *value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    if (json_is_array(node))
        assert_int_equal(new_value ? json_array_set_new(node, (size_t)atoi(key), new_value)
                                   : json_array_remove(node, (size_t)atoi(key)),
                         0);
    else
        assert_int_equal(
            new_value ? json_object_set_new(node, key, new_value) : json_object_del(node, key), 0);
}

TEST(what_it_does_not_understand_is_refused_by_name) {
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        json_t *document = golden(malformed[i][0], ".json");
        change(document, malformed[i][1], malformed[i][2]);
        char *text = json_dumps(document, JSON_COMPACT);
        struct fkv_tokenizer *t = NULL;
        if (fkv_tokenizer_parse(text, strlen(text), "test.json", &t, &err) == FKV_OK)
            fail_msg("%s = %s was accepted", malformed[i][1], malformed[i][2]);
        if (!strstr(err.message, malformed[i][3]) || strncmp(err.message, "test.json", 9))
            fail_msg("%s = %s: message \"%s\" lacks \"%s\"", malformed[i][1], malformed[i][2],
                     err.message, malformed[i][3]);
        assert_null(t);
        free(text);
        json_decref(document);
    }
}

TEST(a_missing_file_is_named) {
    struct fkv_tokenizer *t;
    assert_refused(fkv_tokenizer_open("/nonexistent", &t, &err), "/nonexistent/tokenizer.json");
}
