/* Kinds of tokens; see token_class.h.
 *
 * A token's text is what it adds after another one: decoded twice in a row and once, it is the
 * difference, which keeps the space in front that decoders take from the start of a text.
 * Characters are told apart by their Unicode category. Bytes that are a part of a character only
 * (byte-level BPE, byte fallback) count as a letter: most are. Marks and joiners belong to the
 * letters they stand by.
 *
 * A pair of ids is looked up in a table with open addressing that is filled as the document goes
 * by; ids are counted in one like it, as they may be far larger than documents are long. */
#include "engine/text/token_class.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { RARE_ONE_IN = 10000 };

/* ---- by text ---- */

enum looks {
    UNKNOWN = 0,
    KNOWN = 1,
    LETTER = 2,
    DIGIT = 4,
    VISIBLE = 8,
    SPACE_FIRST = 16,
    WORD_LAST = 32,
    TEXT = 64
};

struct fkv_token_classifier {
    const struct fkv_tokenizer *tokenizer;
    int32_t vocabulary;
    uint8_t looks[]; /* [vocabulary] enum looks */
};

int fkv_token_classifier_open(const struct fkv_tokenizer *tokenizer,
                              struct fkv_token_classifier **out, struct fkv_error *err) {
    const int32_t vocabulary = fkv_tokenizer_vocabulary(tokenizer);
    struct fkv_token_classifier *c = calloc(1, sizeof *c + (size_t)vocabulary);
    *out = c;
    if (!c) return fkv_fail(err, "out of memory");
    c->tokenizer = tokenizer;
    c->vocabulary = vocabulary;
    return FKV_OK;
}

void fkv_token_classifier_close(struct fkv_token_classifier *c) { free(c); }

static enum looks look_of(utf8proc_int32_t character) {
    const utf8proc_category_t k = utf8proc_category(character);
    if (k == UTF8PROC_CATEGORY_CF) return LETTER;
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ME) return LETTER;
    if (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) return DIGIT;
    if (k >= UTF8PROC_CATEGORY_ZS && k <= UTF8PROC_CATEGORY_CC) return UNKNOWN; /* not seen */
    return VISIBLE;
}

static uint8_t look_at(const char *text, size_t bytes) {
    uint8_t looks = KNOWN;
    for (size_t at = 0; at < bytes;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                 (utf8proc_ssize_t)(bytes - at), &character);
        enum looks look = step > 0 ? look_of(character) : LETTER;
        if (at == 0) looks |= TEXT | (look == UNKNOWN ? SPACE_FIRST : 0);
        at += step > 0 ? (size_t)step : 1;
        looks = (uint8_t)((looks & ~WORD_LAST) | look |
                          (look == LETTER || look == DIGIT ? WORD_LAST : 0));
    }
    return looks;
}

static int look_up(struct fkv_token_classifier *c, int32_t id, uint8_t *looks,
                   struct fkv_error *err) {
    if (id < 0 || id >= c->vocabulary) { /* models have more rows than their tokenizer has tokens */
        *looks = KNOWN;
        return FKV_OK;
    }
    if (c->looks[id] == UNKNOWN) {
        const int32_t twice[2] = {id, id};
        char *one, *two = NULL;
        size_t one_bytes, two_bytes = 0;
        if (fkv_tokenizer_decode(c->tokenizer, twice, 1, &one, &one_bytes, err)) return FKV_FAILED;
        int status = fkv_tokenizer_decode(c->tokenizer, twice, 2, &two, &two_bytes, err);
        if (status == FKV_OK && two_bytes >= one_bytes)
            c->looks[id] = look_at(two + one_bytes, two_bytes - one_bytes);
        free(one);
        free(two);
        if (status) return status;
        c->looks[id] |= KNOWN;
    }
    *looks = c->looks[id];
    return FKV_OK;
}

int fkv_token_class_text(struct fkv_token_classifier *c, const int32_t *tokens, size_t n,
                         uint8_t *classes, struct fkv_error *err) {
    bool within_word = false;
    for (size_t i = 0; i < n; i++) {
        uint8_t looks;
        if (look_up(c, tokens[i], &looks, err)) return FKV_FAILED;
        const bool goes_on = within_word && !(looks & SPACE_FIRST);
        classes[i] = looks & LETTER    ? goes_on ? FKV_TOKEN_CONTINUATION : FKV_TOKEN_WORD_START
                     : looks & DIGIT   ? FKV_TOKEN_DIGIT
                     : looks & VISIBLE ? FKV_TOKEN_PUNCTUATION
                                       : 0;
        within_word = looks & WORD_LAST;
    }
    return FKV_OK;
}

/* ---- by ids ---- */

struct counted {
    uint64_t key; /* one more than an id or a pair of ids; 0: empty */
    size_t count;
};

/* The entry of `key`, made where there is none; table [mask + 1] is never full. */
static struct counted *find(struct counted *table, size_t mask, uint64_t key) {
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & mask;
    while (table[at].key && table[at].key != key) at = (at + 1) & mask;
    table[at].key = key;
    return &table[at];
}

static uint64_t id_key(const int32_t *token) { return (uint64_t)(uint32_t)*token + 1; }
static uint64_t pair_key(const int32_t *token) {
    return ((uint64_t)(uint32_t)token[-1] << 32 | (uint32_t)*token) + 1;
}

int fkv_token_class_context(const int32_t *tokens, size_t n, uint8_t *classes,
                            struct fkv_error *err) {
    size_t mask = 15;
    while (mask < 2 * n) mask = 2 * mask + 1;
    struct counted *table = calloc(mask + 1, sizeof *table);
    if (!table) return fkv_fail(err, "out of memory for the classes of %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        classes[i] &=
            FKV_TOKEN_DIGIT | FKV_TOKEN_PUNCTUATION | FKV_TOKEN_WORD_START | FKV_TOKEN_CONTINUATION;
        if (find(table, mask, id_key(&tokens[i]))->count++ == 0) classes[i] |= FKV_TOKEN_FIRST;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t count = find(table, mask, id_key(&tokens[i]))->count;
        if (count == 1 || count * RARE_ONE_IN < n) classes[i] |= FKV_TOKEN_RARE;
    }
    memset(table, 0, (mask + 1) * sizeof *table);
    for (size_t i = 1; i < n; i++)
        if (find(table, mask, pair_key(&tokens[i]))->count++) classes[i] |= FKV_TOKEN_COPIED;
    free(table);
    return FKV_OK;
}
