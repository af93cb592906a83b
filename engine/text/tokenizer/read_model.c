/* The object "model" of tokenizer.json: a BPE vocabulary and its merges. Whatever would change the
 * result and is not done here is refused: other models, dropout, subword prefixes and suffixes, a
 * byte-level vocabulary that cannot spell every byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/json.h"

static int refuse_affix(const json_t *model, const char *where, const char *field,
                        struct fkv_error *err) {
    const char *text = "";
    if (fkv_json_get_string(model, where, field, false, &text, err)) return FKV_FAILED;
    return *text ? fkv_fail(err, "%s.%s: expected nothing, found \"%s\"", where, field, text)
                 : FKV_OK;
}

static int read_options(struct fkv_tokenizer *t, const json_t *model, const char *where,
                        struct fkv_error *err) {
    const char *type = "BPE"; /* files of 2019 do not say */
    double dropout = 0;
    if (fkv_json_get_string(model, where, "type", false, &type, err)) return FKV_FAILED;
    if (strcmp(type, "BPE")) return fkv_fail(err, "%s.type: expected BPE, found %s", where, type);
    if (fkv_json_get_double(model, where, "dropout", false, 0, 1, &dropout, err)) return FKV_FAILED;
    if (dropout > 0) return fkv_fail(err, "%s.dropout: expected null, found %g", where, dropout);
    return refuse_affix(model, where, "continuing_subword_prefix", err) ||
                   refuse_affix(model, where, "end_of_word_suffix", err) ||
                   fkv_json_get_bool(model, where, "byte_fallback", false, &t->byte_fallback,
                                     err) ||
                   fkv_json_get_bool(model, where, "fuse_unk", false, &t->fuse_unknown, err) ||
                   fkv_json_get_bool(model, where, "ignore_merges", false, &t->ignore_merges, err)
               ? FKV_FAILED
               : FKV_OK;
}

static int read_vocabulary(struct fkv_tokenizer *t, json_t *vocab, size_t added, const char *where,
                           struct fkv_error *err) {
    if (!json_is_object(vocab) || !json_object_size(vocab))
        return fkv_fail(err, "%s.vocab: expected an object of tokens and ids", where);
    size_t ids = json_object_size(vocab);
    const char *token;
    json_t *value;
    json_object_foreach(vocab, token, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= FKV_TOK_MAX_IDS)
            return fkv_fail(err, "%s.vocab[\"%.80s\"]: expected an id in [0, %d)", where, token,
                            FKV_TOK_MAX_IDS);
        if ((size_t)id >= ids) ids = (size_t)id + 1;
    }
    if (ids + added > FKV_TOK_MAX_IDS)
        return fkv_fail(err, "%s.vocab: more than %d tokens", where, FKV_TOK_MAX_IDS);
    if (fkv_tok_strings_init(&t->strings, (int32_t)(ids + added), json_object_size(vocab), err))
        return FKV_FAILED;
    json_object_foreach(vocab, token, value) {
        int32_t id = (int32_t)json_integer_value(value);
        if (t->strings.length[id] >= 0)
            return fkv_fail(err, "%s.vocab[\"%.80s\"]: another token has id %d too", where, token,
                            (int)id);
        if (fkv_tok_strings_set(&t->strings, id, (struct fkv_tok_text){token, strlen(token)}, err))
            return FKV_FAILED;
        fkv_tok_strings_index(&t->strings, id);
    }
    return FKV_OK;
}

/* Ids of the single characters and bytes that words start from. */
static int read_symbols(struct fkv_tokenizer *t, const char *where, struct fkv_error *err) {
    for (int b = 0; b < 256; b++) {
        char text[8];
        t->fallback[b] =
            fkv_tok_find(&t->strings, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", b));
        uint32_t c =
            t->splitting == FKV_TOK_BYTE_LEVEL ? fkv_tok_byte_char((uint8_t)b) : (uint32_t)b;
        char one[2] = {(char)c}, two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
        t->first[b] = fkv_tok_find(&t->strings, c < 0x80 ? one : two, c < 0x80 ? 1 : 2);
        if (t->splitting == FKV_TOK_BYTE_LEVEL && t->first[b] < 0)
            return fkv_fail(err, "%s.vocab: no token for byte 0x%02X, which byte-level text needs",
                            where, b);
    }
    return FKV_OK;
}

static int read_unknown(struct fkv_tokenizer *t, const json_t *model, const char *where,
                        struct fkv_error *err) {
    const char *unknown = NULL;
    if (fkv_json_get_string(model, where, "unk_token", false, &unknown, err)) return FKV_FAILED;
    t->unknown = unknown ? fkv_tok_find(&t->strings, unknown, strlen(unknown)) : -1;
    if (unknown && t->unknown < 0 && t->splitting != FKV_TOK_BYTE_LEVEL)
        return fkv_fail(err, "%s.unk_token: \"%s\" is not in the vocabulary", where, unknown);
    return FKV_OK;
}

/* "a b" or ["a", "b"] */
static bool split_merge(const json_t *merge, struct fkv_tok_text *left,
                        struct fkv_tok_text *right) {
    const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
    if (json_array_size(merge) == 2 && json_is_string(a) && json_is_string(b)) {
        *left = (struct fkv_tok_text){json_string_value(a), json_string_length(a)};
        *right = (struct fkv_tok_text){json_string_value(b), json_string_length(b)};
    } else {
        const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
        if (!space || strchr(space + 1, ' ')) return false;
        *left = (struct fkv_tok_text){text, (size_t)(space - text)};
        *right = (struct fkv_tok_text){space + 1, strlen(space + 1)};
    }
    return left->bytes && right->bytes;
}

static bool ends_with_space(struct fkv_tok_text s) {
    return s.bytes >= 3 && !memcmp(s.at + s.bytes - 3, "\xe2\x96\x81", 3);
}

static bool starts_with_space(struct fkv_tok_text s) {
    return s.bytes >= 3 && !memcmp(s.at, "\xe2\x96\x81", 3);
}

static int read_merges(struct fkv_tokenizer *t, const json_t *merges, const char *where,
                       struct fkv_error *err) {
    if (!json_is_array(merges) || json_array_size(merges) > INT32_MAX / 2)
        return fkv_fail(err, "%s.merges: expected a list of pairs", where);
    if (fkv_tok_merges_init(&t->merges, json_array_size(merges), err)) return FKV_FAILED;
    struct fkv_tok_bytes both = {0};
    int status = FKV_OK;
    for (size_t i = 0; i < json_array_size(merges) && !status; i++) {
        struct fkv_tok_text left, right;
        if (!split_merge(json_array_get(merges, i), &left, &right)) {
            status = fkv_fail(
                err, "%s.merges[%zu]: expected \"left right\" or [\"left\", \"right\"]", where, i);
            break;
        }
        both.count = 0;
        status = fkv_tok_append(&both, left.at, left.bytes, err);
        if (!status) status = fkv_tok_append(&both, right.at, right.bytes, err);
        if (status) break;
        int32_t a = fkv_tok_find(&t->strings, left.at, left.bytes),
                b = fkv_tok_find(&t->strings, right.at, right.bytes);
        int32_t id = fkv_tok_find(&t->strings, both.at, both.count);
        if (a < 0 || b < 0 || id < 0)
            status = fkv_fail(err, "%s.merges[%zu]: \"%.80s\" is not in the vocabulary", where, i,
                              a < 0   ? left.at
                              : b < 0 ? right.at
                                      : (fkv_tok_append(&both, "", 1, NULL), both.at));
        else
            fkv_tok_merges_set(&t->merges, a, b, (int32_t)i, id);
        if (starts_with_space(right) && !ends_with_space(left)) t->words_start_at_spaces = false;
    }
    free(both.at);
    return status;
}

int fkv_tok_read_model(struct fkv_tokenizer *t, const json_t *model, size_t added,
                       const char *where, struct fkv_error *err) {
    if (read_options(t, model, where, err) ||
        read_vocabulary(t, json_object_get(model, "vocab"), added, where, err) ||
        read_symbols(t, where, err) || read_unknown(t, model, where, err))
        return FKV_FAILED;
    /* Cutting must not part what could meet later: neither an unknown token spelt like a space, nor
     * spaces with a vanished character between. */
    t->words_start_at_spaces = !t->ignore_merges && t->unknown >= 0 &&
                               fkv_tok_find(&t->strings, "\xe2\x96\x81", 3) >= 0 &&
                               !ends_with_space(fkv_tok_string(&t->strings, t->unknown));
    return read_merges(t, json_object_get(model, "merges"), where, err);
}
