/* Opening a tokenizer and encoding with it. The steps: see parts.h; decoding: see decode.c. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/text/tokenizer/parts.h"
#include "kernels/base/atomic_file.h"
#include "kernels/base/json.h"

enum { MAX_FILE = 256 << 20 };

int fkv_tokenizer_open(const char *directory, struct fkv_tokenizer **out, struct fkv_error *err) {
    char *path, *data;
    size_t bytes;
    if (asprintf(&path, "%s/tokenizer.json", directory) < 0)
        return fkv_fail(err, "%s: out of memory", directory);
    int status = fkv_read_file(path, MAX_FILE, &data, &bytes, err);
    if (!status) {
        status = fkv_tokenizer_parse(data, bytes, path, out, err);
        free(data);
    }
    free(path);
    return status;
}

int fkv_tokenizer_parse(const char *json, size_t bytes, const char *where,
                        struct fkv_tokenizer **out, struct fkv_error *err) {
    *out = NULL;
    json_t *document = fkv_json_parse(json, bytes, where, err);
    if (!document) return FKV_FAILED;
    struct fkv_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        json_decref(document);
        return fkv_fail(err, "%s: out of memory", where);
    }
    if (fkv_tok_read(t, document, where, err) || fkv_sha256_memory(json, bytes, t->sha256, err)) {
        fkv_tokenizer_close(t);
        return FKV_FAILED;
    }
    *out = t;
    return FKV_OK;
}

void fkv_tokenizer_close(struct fkv_tokenizer *t) {
    if (!t) return;
    for (int i = 0; i < t->normalized.count; i++) free((char *)t->normalized.tokens[i].content.at);
    free(t->normalized.tokens);
    free(t->plain.tokens);
    free(t->kind);
    free(t->merges.slots);
    fkv_tok_strings_free(&t->strings);
    pcre2_code_free(t->pattern);
    json_decref(t->document);
    free(t);
}

/* A section without plain added tokens: normalized, cut at normalized added tokens, the rest
 * tokenized. */
static int encode_section(struct fkv_tok_encoding *w, struct fkv_tok_text text, bool at_start) {
    const struct fkv_tokenizer *t = w->t;
    if (fkv_tok_normalize(t->normalizers, t->normalizer_count, &text, w->normal, w->err))
        return FKV_FAILED;
    struct fkv_tok_cut cut;
    fkv_tok_cut_start(&cut, &t->normalized, text);
    struct fkv_tok_text section;
    for (int32_t id; fkv_tok_cut_next(&cut, &section, &id);)
        if (id >= 0 ? fkv_tok_push(&w->out, id, w->err)
                    : fkv_tok_section(w, section, at_start && section.at == text.at))
            return FKV_FAILED;
    return FKV_OK;
}

static int encode_text(struct fkv_tok_encoding *w, struct fkv_tok_text text, bool special) {
    const struct fkv_tokenizer *t = w->t;
    for (int i = 0; special && i < t->before_count; i++)
        if (fkv_tok_push(&w->out, t->before[i], w->err)) return FKV_FAILED;
    struct fkv_tok_cut cut;
    fkv_tok_cut_start(&cut, &t->plain, text);
    struct fkv_tok_text section;
    for (int32_t id; fkv_tok_cut_next(&cut, &section, &id);)
        if (id >= 0 ? fkv_tok_push(&w->out, id, w->err)
                    : encode_section(w, section, section.at == text.at))
            return FKV_FAILED;
    for (int i = 0; special && i < t->after_count; i++)
        if (fkv_tok_push(&w->out, t->after[i], w->err)) return FKV_FAILED;
    return FKV_OK;
}

int fkv_tokenizer_encode(const struct fkv_tokenizer *t, const char *text, size_t bytes,
                         bool special, int32_t **ids, size_t *count, struct fkv_error *err) {
    size_t bad;
    *ids = NULL;
    *count = 0;
    if (!fkv_tok_utf8_valid(text, bytes, &bad))
        return fkv_fail(err, "invalid UTF-8 at byte %zu", bad);
    struct fkv_tok_encoding w = {.t = t, .err = err};
    w.cache = calloc(FKV_TOK_CACHE_SLOTS, sizeof *w.cache);
    w.match = pcre2_match_data_create(1, NULL);
    w.out.at = fkv_tok_grow(NULL, &w.out.capacity, bytes / 4 + 16, sizeof *w.out.at);
    int status = w.cache && w.match && w.out.at
                     ? encode_text(&w, (struct fkv_tok_text){text, bytes}, special)
                     : fkv_fail(err, "out of memory for a text of %zu bytes", bytes);
    if (!status) {
        *ids = w.out.at;
        *count = w.out.count;
        w.out.at = NULL;
    }
    free(w.out.at);
    for (int i = 0; i < 2; i++) free(w.normal[i].at);
    free(w.spaced.at);
    free(w.mapped.at);
    free(w.symbols);
    free(w.heap);
    free(w.cache);
    pcre2_match_data_free(w.match);
    return status;
}

bool fkv_tokenizer_adds_bos(const struct fkv_tokenizer *t) { return t->before_count > 0; }

int32_t fkv_tokenizer_bos(const struct fkv_tokenizer *t) {
    return t->before_count ? t->before[0] : -1;
}

int32_t fkv_tokenizer_vocabulary(const struct fkv_tokenizer *t) { return t->strings.ids; }

const char *fkv_tokenizer_sha256(const struct fkv_tokenizer *t) { return t->sha256; }
