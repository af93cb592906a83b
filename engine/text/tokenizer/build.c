/* The parts of struct fkv_tokenizer, added one by one. A file format's reader calls these; what
 * they make does not depend on the format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/tokenizer/parts.h"

int fkv_tok_keep(struct fkv_tokenizer *t, struct fkv_tok_text text, struct fkv_tok_text *kept,
                 struct fkv_error *err) {
    char **grown = fkv_grow(t->kept, &t->kept_capacity, t->kept_count + 1, sizeof *grown);
    if (grown) t->kept = grown;
    char *copy = grown ? malloc(text.bytes + 1) : NULL;
    if (!copy) return fkv_fail(err, "out of memory for a tokenizer");
    if (text.bytes) memcpy(copy, text.at, text.bytes);
    copy[text.bytes] = 0;
    t->kept[t->kept_count++] = copy;
    *kept = (struct fkv_tok_text){copy, text.bytes};
    return FKV_OK;
}

/* ---- steps ---- */

static int check_steps(int count, const char *where, struct fkv_error *err) {
    return count < FKV_TOK_MAX_STEPS
               ? FKV_OK
               : fkv_fail(err, "%s: more than %d steps", where, FKV_TOK_MAX_STEPS);
}

struct fkv_tok_normalizer *fkv_tok_add_normalizer(struct fkv_tokenizer *t,
                                                  fkv_tok_normalize_step *apply, const char *where,
                                                  struct fkv_error *err) {
    if (check_steps(t->normalizer_count, where, err)) return NULL;
    struct fkv_tok_normalizer *n = &t->normalizers[t->normalizer_count++];
    n->apply = apply;
    return n;
}

struct fkv_tok_splitter *fkv_tok_add_splitter(struct fkv_tokenizer *t, fkv_tok_split_step *apply,
                                              const char *where, struct fkv_error *err) {
    if (check_steps(t->splitter_count, where, err)) return NULL;
    struct fkv_tok_splitter *s = &t->splitters[t->splitter_count++];
    s->apply = apply;
    return s;
}

struct fkv_tok_decoder *fkv_tok_add_decoder(struct fkv_tokenizer *t, const char *where,
                                            struct fkv_error *err) {
    return check_steps(t->decoder_count, where, err) ? NULL : &t->decoders[t->decoder_count++];
}

int fkv_tok_add_split(struct fkv_tokenizer *t, const char *regex, enum fkv_tok_behavior behavior,
                      bool invert, const char *where, struct fkv_error *err) {
    struct fkv_tok_splitter *s = fkv_tok_add_splitter(t, fkv_tok_split, where, err);
    if (!s) return FKV_FAILED;
    s->behavior = behavior;
    s->invert = invert;
    return fkv_tok_compile(regex, where, &s->pattern, err);
}

int fkv_tok_add_byte_level(struct fkv_tokenizer *t, bool space_before, bool split,
                           const char *where, struct fkv_error *err) {
    if (space_before && !fkv_tok_add_splitter(t, fkv_tok_space_before, where, err))
        return FKV_FAILED;
    if (split && fkv_tok_add_split(t, FKV_TOK_GPT2, FKV_TOK_ISOLATED, false, where, err))
        return FKV_FAILED;
    return fkv_tok_add_splitter(t, fkv_tok_bytes_as_characters, where, err) ? FKV_OK : FKV_FAILED;
}

/* ---- the model ---- */

static bool ends_with_mark(struct fkv_tok_text s) {
    const struct fkv_tok_text mark = fkv_tok_mark;
    return s.bytes >= mark.bytes && !memcmp(s.at + s.bytes - mark.bytes, mark.at, mark.bytes);
}

/* Whether no character can be unknown. */
static bool spells_every_byte(const struct fkv_tokenizer *t) {
    int last = t->splitter_count - 1;
    bool all = last >= 0 && t->splitters[last].apply == fkv_tok_bytes_as_characters;
    for (int b = 0; b < 256; b++) all = all && t->first[fkv_tok_byte_char((uint8_t)b)] >= 0;
    return all;
}

int fkv_tok_start_merges(struct fkv_tokenizer *t, const char *unknown, size_t merges,
                         const char *where, struct fkv_error *err) {
    for (int b = 0; b < 256; b++) {
        char text[8];
        t->fallback[b] =
            fkv_tok_find(&t->strings, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", b));
    }
    for (uint32_t c = 0; c < FKV_TOK_FIRST; c++) {
        char one[2] = {(char)c}, two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
        t->first[c] = fkv_tok_find(&t->strings, c < 0x80 ? one : two, c < 0x80 ? 1 : 2);
    }
    t->unknown = unknown ? fkv_tok_find(&t->strings, unknown, strlen(unknown)) : -1;
    if (unknown && t->unknown < 0 && !spells_every_byte(t))
        return fkv_fail(err, "%s.unk_token: \"%s\" is not in the vocabulary", where, unknown);
    /* Cutting must not part what could meet later: neither an unknown token spelt like a space, nor
     * spaces with a vanished character between. */
    t->words_start_at_spaces =
        !t->ignore_merges && t->unknown >= 0 &&
        fkv_tok_find(&t->strings, fkv_tok_mark.at, fkv_tok_mark.bytes) >= 0 &&
        !ends_with_mark(fkv_tok_string(&t->strings, t->unknown));
    return fkv_tok_merges_init(&t->merges, merges, err);
}

int fkv_tok_add_merge(struct fkv_tokenizer *t, struct fkv_tok_text left, struct fkv_tok_text right,
                      int32_t rank, struct fkv_error *err) {
    struct fkv_bytes both = {0};
    if (fkv_bytes_append(&both, left.at, left.bytes, err) ||
        fkv_bytes_append(&both, right.at, right.bytes, err)) {
        free(both.at);
        return FKV_FAILED;
    }
    int32_t a = fkv_tok_find(&t->strings, left.at, left.bytes),
            b = fkv_tok_find(&t->strings, right.at, right.bytes),
            id = fkv_tok_find(&t->strings, both.at, both.count);
    int status = FKV_OK;
    const struct fkv_tok_text whole = {both.at, both.count};
    const struct fkv_tok_text missing = a < 0 ? left : b < 0 ? right : whole;
    if (a < 0 || b < 0 || id < 0)
        status =
            fkv_fail(err, "\"%.*s\" is not in the vocabulary", fkv_tok_shown(missing), missing.at);
    else
        fkv_tok_merges_set(&t->merges, a, b, rank, id);
    if (fkv_tok_starts_with(right, fkv_tok_mark) && !ends_with_mark(left))
        t->words_start_at_spaces = false;
    free(both.at);
    return status;
}

/* ---- added tokens ---- */

int fkv_tok_start_added(struct fkv_tokenizer *t, size_t count, struct fkv_error *err) {
    t->plain.tokens = calloc(count + 1, sizeof *t->plain.tokens);
    t->normalized.tokens = calloc(count + 1, sizeof *t->normalized.tokens);
    t->kind = calloc((size_t)t->strings.ids, 1);
    return t->plain.tokens && t->normalized.tokens && t->kind
               ? FKV_OK
               : fkv_fail(err, "out of memory for %zu added tokens", count);
}

/* The text that a normalized token is found by: its own, normalized like any other. */
static int normalize_content(struct fkv_tokenizer *t, struct fkv_tok_added *token,
                             const char *where, struct fkv_error *err) {
    struct fkv_bytes buffer[2] = {0};
    struct fkv_tok_matcher matcher = {0};
    struct fkv_tok_normalizing w = {.matcher = &matcher, .err = err};
    int status = fkv_tok_matcher_open(&matcher, err);
    if (!status) status = fkv_tok_normalize(t, &w, &token->content, buffer);
    if (!status && !token->content.bytes)
        status = fkv_fail(err, "%s.content: normalizes to nothing", where);
    if (!status) status = fkv_tok_keep(t, token->content, &token->content, err);
    fkv_tok_matcher_close(&matcher);
    free(buffer[0].at);
    free(buffer[1].at);
    return status;
}

/* A token of the model's vocabulary has its id there. One that the file gives another id would be
 * read differently by us and by Hugging Face tokenizers, and is refused. */
int fkv_tok_add_added(struct fkv_tokenizer *t, struct fkv_tok_added token, const char *where,
                      struct fkv_error *err) {
    int32_t known = fkv_tok_find(&t->strings, token.content.at, token.content.bytes);
    if (known >= 0 && known != token.id)
        return fkv_fail(err,
                        "%s (\"%.80s\"): expected id %d, which the vocabulary gives it, found %d",
                        where, token.content.at, (int)known, (int)token.id);
    if (t->kind[token.id] & FKV_TOK_ADDED || (known < 0 && t->strings.length[token.id] >= 0))
        return fkv_fail(err, "%s (\"%.80s\"): another token has id %d too", where, token.content.at,
                        (int)token.id);
    t->kind[token.id] = (uint8_t)(FKV_TOK_ADDED | (token.special ? FKV_TOK_SPECIAL : 0) |
                                  (token.normalized ? FKV_TOK_NORMALIZED : 0));
    if (known < 0 && fkv_tok_strings_set(&t->strings, token.id, token.content, err))
        return FKV_FAILED;
    if (token.normalized && normalize_content(t, &token, where, err)) return FKV_FAILED;
    struct fkv_tok_added_set *set = token.normalized ? &t->normalized : &t->plain;
    set->tokens[set->count++] = token;
    return FKV_OK;
}

void fkv_tok_end_added(struct fkv_tokenizer *t) {
    fkv_tok_added_sort(&t->plain);
    fkv_tok_added_sort(&t->normalized);
    while (t->strings.ids && t->strings.length[t->strings.ids - 1] < 0) t->strings.ids--;
}
