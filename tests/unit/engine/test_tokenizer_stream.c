/* Decoding id by id against the definition over whole lists (whole_decode.h), for the tokenizers
 * of the tests, the embedded model's, and decoders put together by chance. */
#include "engine/text/tokenizer.h"

#include <malloc.h>

#include "kernels/base/json.h"
#include "tests/unit/engine/whole_decode.h"
#include "tests/unit/support.h"

static const char *const files[] = {
    "tests/golden/tokenizer/llama2.json", "tests/golden/tokenizer/mistral.json",
    "tests/golden/tokenizer/llama3.json", "tests/golden/tokenizer/qwen2.json",
    "tests/golden/tokenizer/gpt2.json",   "data/litbank-1m/tokenizer.json"};
enum { FILES = sizeof files / sizeof *files, MOST = 40 };

/* A file's tokenizer, with another decoder where one is given (consumed). */
static struct fkv_tokenizer *open_file(const char *path, json_t *decoder) {
    struct fkv_tokenizer *t;
    json_t *document = fkv_json_load(path, 1 << 24, &err);
    if (!document) fail_msg("%s", err.message);
    if (decoder) json_object_set_new(document, "decoder", decoder);
    char *text = json_dumps(document, JSON_COMPACT);
    assert_ok(fkv_tokenizer_parse(text, strlen(text), path, &t, &err));
    free(text);
    json_decref(document);
    return t;
}

/* Ids that exist: any, those of single bytes, and those that decoders' patterns are made of, as
 * far as there are such tokens. */
static void random_ids(const struct fkv_tokenizer *t, int32_t *ids, size_t count) {
    static const char *const parts[] = {
        "a", "b", "aa", "ab", "\xe2\x96\x81", "\xe2\x96\x81\x61", "<", "0", "x", "4", "1", ">"};
    for (size_t i = 0; i < count;) {
        const char *part = parts[test_between(0, (int)(sizeof parts / sizeof *parts) - 1)];
        const int32_t choices[] = {test_between(0, fkv_tokenizer_vocabulary(t) - 1),
                                   t->fallback[test_between(0, 255)],
                                   fkv_tok_find(&t->strings, part, strlen(part))};
        int32_t id = choices[test_between(0, 2)];
        if (id >= 0 && fkv_tok_string(&t->strings, id).at) ids[i++] = id;
    }
}

static char *whole(const struct fkv_tokenizer *t, const int32_t *ids, size_t count, size_t *bytes) {
    char *text = NULL;
    assert_ok(whole_decode(t, ids, count, &text, bytes, &err));
    return text;
}

static void assert_whole_equals(const struct fkv_tokenizer *t, const int32_t *ids, size_t count) {
    char *text;
    size_t bytes, expected_bytes;
    char *expected = whole(t, ids, count, &expected_bytes);
    assert_ok(fkv_tokenizer_decode(t, ids, count, &text, &bytes, &err));
    assert_int_equal(bytes, expected_bytes);
    assert_memory_equal(text, expected, bytes + 1);
    free(text);
    free(expected);
}

/* The ids after `split` streamed behind those before it. */
static void assert_split_equals(const struct fkv_tokenizer *t, const int32_t *ids, size_t count,
                                size_t split) {
    struct fkv_tokenizer_stream *s;
    char streamed[1 << 16];
    const char *text;
    size_t at = 0, bytes, before, total;
    char *prompt = whole(t, ids, split, &before), *expected = whole(t, ids, count, &total);
    if (before > total) before = total;
    assert_ok(fkv_tokenizer_stream_open(t, ids, split, &s, &err));
    for (size_t i = split; i <= count; i++) {
        if (i < count)
            assert_ok(fkv_tokenizer_stream_push(s, ids[i], &text, &bytes, &err));
        else
            assert_ok(fkv_tokenizer_stream_finish(s, &text, &bytes, &err));
        assert_true(at + bytes < sizeof streamed);
        if (bytes) memcpy(streamed + at, text, bytes);
        at += bytes;
    }
    if (at != total - before || memcmp(streamed, expected + before, at))
        fail_msg("%zu ids after a prompt of %zu: %zu bytes streamed, expected %zu, or others",
                 count - split, split, at, total - before);
    fkv_tokenizer_stream_close(s);
    free(prompt);
    free(expected);
}

static void assert_every_split_equals(const struct fkv_tokenizer *t) {
    int32_t ids[MOST];
    size_t count = (size_t)test_between(0, MOST);
    random_ids(t, ids, count);
    assert_whole_equals(t, ids, count);
    for (size_t split = 0; split <= count; split++) assert_split_equals(t, ids, count, split);
}

TEST(streamed_bytes_are_the_whole_text_less_the_prompts) {
    for (int f = 0; f < FILES; f++) {
        struct fkv_tokenizer *t = open_file(files[f], NULL);
        for (int round = 0; round < 20; round++) assert_every_split_equals(t);
        fkv_tokenizer_close(t);
    }
}

static const char *one_of(const char *const *list) {
    int count = 0;
    while (list[count]) count++;
    return list[test_between(0, count - 1)];
}

static json_t *random_step(void) {
    static const char *const from[] = {"\xe2\x96\x81", " ",     "a",        "aa", "aba",
                                       "<0x",          "0x41>", "\xc3\xa9", NULL},
                             *const to[] = {"",         " ", "\xe2\x96\x81", "<0x41>", "aab",
                                            "\xc4\xa0", NULL},
                             *const character[] = {" ", "\xe2\x96\x81", "a", "\xc3\xa9", NULL},
                             *const schemes[] = {"always", "never", "first", NULL};
    switch (test_between(0, 5)) {
    case 0:
        return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String",
                         one_of(from), "content", one_of(to));
    case 1: return json_pack("{s:s}", "type", "ByteFallback");
    case 2: return json_pack("{s:s}", "type", "Fuse");
    case 3:
        return json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", one_of(character),
                         "start", test_between(0, 3), "stop", test_between(0, 3));
    case 4: return json_pack("{s:s}", "type", "ByteLevel");
    default:
        return json_pack("{s:s, s:s, s:s}", "type", "Metaspace", "replacement", one_of(character),
                         "prepend_scheme", one_of(schemes));
    }
}

TEST(decoders_put_together_by_chance_stream_alike) {
    for (int round = 0; round < 600; round++) {
        json_t *steps = json_array();
        for (int i = test_between(0, 5); i; i--) json_array_append_new(steps, random_step());
        char *words = json_dumps(steps, JSON_COMPACT);
        struct fkv_tokenizer *t =
            open_file(files[round % 2 ? 2 : 1],
                      json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps));
        for (int i = 0; i < 2; i++) {
            int32_t ids[MOST];
            size_t count = (size_t)test_between(0, MOST), bytes;
            random_ids(t, ids, count);
            char *expected = whole(t, ids, count, &bytes), *text;
            size_t found;
            assert_ok(fkv_tokenizer_decode(t, ids, count, &text, &found, &err));
            if (found != bytes || memcmp(text, expected, bytes))
                fail_msg("%s: \"%s\", expected \"%s\"", words, text, expected);
            free(text);
            free(expected);
        }
        assert_every_split_equals(t);
        free(words);
        fkv_tokenizer_close(t);
    }
}

/* Of real decoders nothing is kept back but a character that is not complete: all is shown as
 * soon as a whole decoding would show it. */
TEST(whole_characters_are_shown_at_once) {
    for (int f = 0; f < FILES; f++) {
        struct fkv_tokenizer *t = open_file(files[f], NULL);
        for (int round = 0; round < 20; round++) {
            struct fkv_tokenizer_stream *s;
            int32_t ids[MOST];
            size_t shown = 0;
            random_ids(t, ids, MOST);
            assert_ok(fkv_tokenizer_stream_open(t, NULL, 0, &s, &err));
            for (size_t i = 0; i < MOST; i++) {
                const char *text;
                size_t bytes, total;
                char *so_far = whole(t, ids, i + 1, &total);
                assert_ok(fkv_tokenizer_stream_push(s, ids[i], &text, &bytes, &err));
                shown += bytes;
                assert_int_equal(shown, fkv_utf8_complete(so_far, total));
                free(so_far);
            }
            fkv_tokenizer_stream_close(s);
        }
        fkv_tokenizer_close(t);
    }
}

/* The text grows and the stream does not: what it keeps is bounded by a token, so an id costs
 * the same however many came before. */
TEST(a_stream_keeps_no_more_however_long_the_text) {
    for (int f = 0; f < FILES; f++) {
        struct fkv_tokenizer *t = open_file(files[f], NULL);
        struct fkv_tokenizer_stream *s;
        const char *text;
        size_t bytes, kept = 0, shown = 0;
        assert_ok(fkv_tokenizer_stream_open(t, NULL, 0, &s, &err));
        for (int turn = 0; turn < 20; turn++) {
            for (int32_t id = 0; id < fkv_tokenizer_vocabulary(t); id++) {
                if (!fkv_tok_string(&t->strings, id).at) continue;
                assert_ok(fkv_tokenizer_stream_push(s, id, &text, &bytes, &err));
                shown += bytes;
            }
            size_t now = mallinfo2().uordblks;
            if (turn > 1) assert_int_equal(now, kept);
            kept = now;
        }
        assert_true(shown > 20u * (size_t)fkv_tokenizer_vocabulary(t));
        fkv_tokenizer_stream_close(s);
        fkv_tokenizer_close(t);
    }
}

TEST(ids_outside_the_vocabulary_are_refused) {
    struct fkv_tokenizer *t = open_file(files[1], NULL);
    const int32_t ids[] = {5, -1};
    struct fkv_tokenizer_stream *s;
    const char *text;
    size_t bytes;
    assert_refused(fkv_tokenizer_stream_open(t, ids, 2, &s, &err),
                   "token 1: id -1 is not in the vocabulary");
    assert_null(s);
    fkv_tokenizer_stream_close(s);
    assert_ok(fkv_tokenizer_stream_open(t, ids, 1, &s, &err));
    assert_refused(fkv_tokenizer_stream_push(s, fkv_tokenizer_vocabulary(t), &text, &bytes, &err),
                   "not in the vocabulary");
    fkv_tokenizer_stream_close(s);
    fkv_tokenizer_close(t);
}
