/* The object "model" of tokenizer.json: a BPE vocabulary and its merges. Whatever would change the
 * result and is not done here is refused: other models, dropout, subword prefixes and suffixes. */
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
    if (refuse_affix(model, where, "continuing_subword_prefix", err) ||
        refuse_affix(model, where, "end_of_word_suffix", err) ||
        fkv_json_get_bool(model, where, "byte_fallback", false, &t->byte_fallback, err) ||
        fkv_json_get_bool(model, where, "fuse_unk", false, &t->fuse_unknown, err))
        return FKV_FAILED;
    return fkv_json_get_bool(model, where, "ignore_merges", false, &t->ignore_merges, err);
}

static int read_vocabulary(struct fkv_tokenizer *t, json_t *vocab, const json_t *added,
                           const char *where, struct fkv_error *err) {
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
    size_t i;
    json_array_foreach(added, i, value) {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        if (id >= (json_int_t)ids && id < FKV_TOK_MAX_IDS) ids = (size_t)id + 1;
    }
    if (fkv_tok_strings_init(&t->strings, (int32_t)ids, json_object_size(vocab), err))
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

static int read_merges(struct fkv_tokenizer *t, const json_t *merges, const char *where,
                       struct fkv_error *err) {
    for (size_t i = 0; i < json_array_size(merges); i++) {
        struct fkv_tok_text left, right;
        int status = split_merge(json_array_get(merges, i), &left, &right)
                         ? fkv_tok_add_merge(t, left, right, (int32_t)i, err)
                         : fkv_fail(err, "expected \"left right\" or [\"left\", \"right\"]");
        if (status) return fkv_error_prefix(err, "%s.merges[%zu]", where, i);
    }
    return FKV_OK;
}

int fkv_tok_read_model(struct fkv_tokenizer *t, const json_t *model, const json_t *added,
                       const char *where, struct fkv_error *err) {
    const json_t *merges = json_object_get(model, "merges");
    const char *unknown = NULL;
    if (read_options(t, model, where, err) ||
        read_vocabulary(t, json_object_get(model, "vocab"), added, where, err) ||
        fkv_json_get_string(model, where, "unk_token", false, &unknown, err))
        return FKV_FAILED;
    if (!json_is_array(merges) || json_array_size(merges) > INT32_MAX / 2)
        return fkv_fail(err, "%s.merges: expected a list of pairs", where);
    if (fkv_tok_start_merges(t, unknown, json_array_size(merges), where, err)) return FKV_FAILED;
    return read_merges(t, merges, where, err);
}
