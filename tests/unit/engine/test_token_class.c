/* Kinds of tokens: by what they look like in their place, and by what stood before in the document.
 */
#include "engine/text/token_class.h"
#include "tests/unit/support.h"

#define TOKENIZER "data/litbank-1m"
enum { BY_TEXT = 15 };

/* The class by text of each byte's token, spread over `text`: '1' digit, '.' punctuation, 'w'
 * start, 'c' continuation, ' ' none. */
static void expect_kinds(const char *text, const char *words) {
    struct fkv_tokenizer *t;
    struct fkv_token_classifier *c;
    int32_t *ids;
    size_t n;
    uint8_t classes[200];
    assert_ok(fkv_tokenizer_open(TOKENIZER, &t, &err));
    assert_ok(fkv_token_classifier_open(t, &c, &err));
    assert_ok(fkv_tokenizer_encode(t, text, strlen(text), false, &ids, &n, &err));
    assert_true(n < sizeof classes);
    assert_ok(fkv_token_class_text(c, ids, n, classes, &err));
    char found[400] = "";
    for (size_t i = 0; i < n; i++) {
        assert_true((classes[i] & (classes[i] - 1)) == 0);
        const char *kind = classes[i] == FKV_TOKEN_WORD_START    ? "w"
                           : classes[i] == FKV_TOKEN_DIGIT       ? "1"
                           : classes[i] == FKV_TOKEN_PUNCTUATION ? "."
                           : classes[i] == 0                     ? "_"
                                                                 : "";
        strcat(
            found,
            kind); /* continuations are left out: how many there are is the vocabulary's affair */
    }
    assert_string_equal(found, words);
    free(ids);
    fkv_token_classifier_close(c);
    fkv_token_classifier_close(NULL);
    fkv_tokenizer_close(t);
}

TEST(tokens_are_told_apart_by_their_text) {
    expect_kinds("The cat, the dog", "ww.ww");
    expect_kinds("unbelievably extraordinary", "ww");
    expect_kinds("(well)", ".w.");
    expect_kinds("one.two", "w.w");
}

TEST(context_bits_follow_their_definition) {
    const int n = test_between(2, 400), ids = test_between(1, 60);
    int32_t tokens[400];
    uint8_t classes[400];
    for (int i = 0; i < n; i++)
        tokens[i] = test_between(0, 1) ? test_between(0, ids) : INT32_MAX - test_between(0, ids);
    for (int i = 0; i < n; i++) classes[i] = (uint8_t)test_between(0, 127);
    uint8_t before[400];
    memcpy(before, classes, sizeof before);
    assert_ok(fkv_token_class_context(tokens, (size_t)n, classes, &err));
    for (int i = 0; i < n; i++) {
        int earlier = 0, count = 0, copied = 0;
        for (int k = 0; k < n; k++) {
            count += tokens[k] == tokens[i];
            earlier += k < i && tokens[k] == tokens[i];
            copied += k > 0 && k < i && tokens[k] == tokens[i] && tokens[k - 1] == tokens[i - 1];
        }
        int expected = (before[i] & BY_TEXT) | (count == 1 ? FKV_TOKEN_RARE : 0) |
                       (copied ? FKV_TOKEN_COPIED : 0) | (earlier ? 0 : FKV_TOKEN_FIRST);
        assert_int_equal(classes[i], expected);
    }
}

TEST(rare_is_a_share_of_the_document) {
    enum { N = 40001 };
    int32_t *tokens = calloc(N, sizeof *tokens);
    uint8_t *classes = calloc(N, 1);
    for (int i = 0; i < 4; i++) tokens[1000 * i] = 7; /* 4 in 40,001: fewer than 1 in 10,000 */
    for (int i = 0; i < 5; i++) tokens[1000 * i + 1] = 8;
    assert_ok(fkv_token_class_context(tokens, N, classes, &err));
    assert_true(classes[0] & FKV_TOKEN_RARE);
    assert_false(classes[1] & FKV_TOKEN_RARE);
    assert_false(classes[2] & FKV_TOKEN_RARE);
    free(tokens);
    free(classes);
}
