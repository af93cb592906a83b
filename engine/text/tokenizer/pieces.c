/* A tokenizer of pieces with types. With scores, as sentencepiece's BPE has them, there is no list
 * of merges: two neighbours join where their text is a piece, the piece of the highest score first.
 */
#include <stdlib.h>

#include "engine/text/tokenizer/parts.h"

enum { MAX_PIECE = 4096 }; /* bytes: every cut of a piece is tried */

int fkv_tok_set_strings(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                        struct fkv_error *err) {
    if (fkv_tok_strings_init(&t->strings, p->count, (size_t)p->count, err)) return FKV_FAILED;
    for (int32_t i = 0; i < p->count; i++) {
        const struct fkv_tok_piece *piece = &p->at[i];
        size_t bad;
        if (piece->type < FKV_TOK_NORMAL || piece->type > FKV_TOK_BYTE)
            return fkv_fail(err,
                            "%s: piece %d: expected a type of normal, unknown, control, user "
                            "defined, unused or byte, found %d",
                            where, (int)i, (int)piece->type);
        if (piece->text.bytes > MAX_PIECE)
            return fkv_fail(err, "%s: piece %d: expected at most %d bytes, found %zu", where,
                            (int)i, MAX_PIECE, piece->text.bytes);
        if (fkv_tok_strings_set(&t->strings, i, piece->text, err)) return FKV_FAILED;
        if (piece->type == FKV_TOK_UNUSED) continue; /* has an id, but no text is spelt by it */
        if (!piece->text.bytes || !fkv_utf8_valid(piece->text.at, piece->text.bytes, &bad))
            return fkv_fail(err, "%s: piece %d: expected a text in UTF-8", where, (int)i);
        if (fkv_tok_find(&t->strings, piece->text.at, piece->text.bytes) >= 0)
            return fkv_fail(err, "%s: piece %d (\"%.*s\"): another piece is the same", where,
                            (int)i, fkv_tok_shown(piece->text), piece->text.at);
        fkv_tok_strings_index(&t->strings, i);
    }
    return FKV_OK;
}

struct scored {
    float score;
    int32_t id;
};

static int best_first(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Every way to cut a normal piece into two pieces is a merge. Pieces of one score have one rank.
 * sentencepiece would merge to an unused piece, too, and cut it again: that is refused. */
static int add_merges(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, struct scored *order,
                      const char *where, struct fkv_error *err) {
    int32_t count = 0, rank = 0;
    for (int32_t i = 0; i < p->count; i++)
        if (p->at[i].type == FKV_TOK_NORMAL || p->at[i].type == FKV_TOK_UNUSED)
            order[count++] = (struct scored){p->at[i].score, i};
    if (count) qsort(order, (size_t)count, sizeof *order, best_first);
    for (int32_t k = 0; k < count; k++) {
        if (k && order[k].score != order[k - 1].score) rank++;
        const struct fkv_tok_text text = p->at[order[k].id].text;
        if (!text.bytes) continue; /* nothing to cut, and perhaps no address */
        for (size_t cut = fkv_utf8_bytes(text.at[0]); cut < text.bytes;
             cut += fkv_utf8_bytes(text.at[cut])) {
            struct fkv_tok_text left = {text.at, cut}, right = {text.at + cut, text.bytes - cut};
            if (fkv_tok_find(&t->strings, left.at, left.bytes) < 0 ||
                fkv_tok_find(&t->strings, right.at, right.bytes) < 0)
                continue;
            if (p->at[order[k].id].type == FKV_TOK_UNUSED)
                return fkv_fail(err,
                                "%s: piece %d: expected an unused piece that no two others make, "
                                "found \"%.*s\"",
                                where, (int)order[k].id, fkv_tok_shown(text), text.at);
            if (fkv_tok_add_merge(t, left, right, rank, err)) return FKV_FAILED;
        }
    }
    return FKV_OK;
}

static int set_merges(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                      struct fkv_error *err) {
    struct fkv_tok_text unknown = {0};
    size_t cuts = 0;
    for (int32_t i = 0; i < p->count; i++) {
        cuts += p->at[i].text.bytes;
        if (p->at[i].type == FKV_TOK_UNKNOWN && fkv_tok_keep(t, p->at[i].text, &unknown, err))
            return FKV_FAILED;
    }
    if (fkv_tok_start_merges(t, unknown.at, cuts, where, err)) return FKV_FAILED;
    struct scored *order = malloc((size_t)p->count * sizeof *order);
    int status =
        order ? add_merges(t, p, order, where, err) : fkv_fail(err, "%s: out of memory", where);
    free(order);
    return status;
}

/* Unknown and control pieces are found in a text as it is. Those of the user are found there, too,
 * or in the normalized text, as what they are spelt. */
int fkv_tok_set_added(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                      struct fkv_error *err) {
    if (fkv_tok_start_added(t, (size_t)p->count, err)) return FKV_FAILED;
    for (int32_t i = 0; i < p->count; i++) {
        const uint8_t type = p->at[i].type;
        const bool user = type == FKV_TOK_USER_DEFINED;
        struct fkv_tok_added token = {.id = i, .special = !user};
        if (type == FKV_TOK_UNUSED) t->kind[i] = FKV_TOK_SPECIAL;
        if (!user && type != FKV_TOK_UNKNOWN && type != FKV_TOK_CONTROL) continue;
        if (fkv_tok_keep(t, p->at[i].text, &token.content, err)) return FKV_FAILED;
        if (user && !p->user_as_written)
            t->normalized.tokens[t->normalized.count++] = token;
        else if (fkv_tok_add_added(t, token, where, err))
            return FKV_FAILED;
    }
    fkv_tok_end_added(t);
    if (p->bos >= p->count || p->eos >= p->count)
        return fkv_fail(err, "%s: bos_id %d or eos_id %d is no piece", where, (int)p->bos,
                        (int)p->eos);
    if (p->bos >= 0) t->before[t->before_count++] = p->bos;
    if (p->eos >= 0) t->after[t->after_count++] = p->eos;
    return FKV_OK;
}

static const struct fkv_tok_text blank = {" ", 1};

static int add_replace(struct fkv_tokenizer *t, const char *regex, struct fkv_tok_text to,
                       const char *where, struct fkv_error *err) {
    struct fkv_tok_normalizer *n = fkv_tok_add_normalizer(t, fkv_tok_replace_matches, where, err);
    if (!n) return FKV_FAILED;
    n->to = to;
    return fkv_tok_compile(regex, where, &n->pattern, err);
}

static int set_normalizers(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p,
                           const char *where, struct fkv_error *err) {
    const struct fkv_tok_text nothing = {"", 0};
    if (p->squeeze_spaces && (add_replace(t, "\\A +|[ \\x{2581}]+\\z", nothing, where, err) ||
                              add_replace(t, " {2,}", blank, where, err)))
        return FKV_FAILED;
    if (p->space_before) {
        struct fkv_tok_normalizer *n = fkv_tok_add_normalizer(t, fkv_tok_prepend, where, err);
        if (!n) return FKV_FAILED;
        n->to = fkv_tok_mark;
    }
    return add_replace(t, " ", fkv_tok_mark, where, err);
}

static int set_decoders(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                        struct fkv_error *err) {
    const struct fkv_tok_decoder steps[] = {
        {.kind = FKV_TOK_DECODE_REPLACE, .from = fkv_tok_mark, .to = blank},
        {.kind = FKV_TOK_DECODE_BYTE_FALLBACK},
        {.kind = FKV_TOK_DECODE_FUSE},
        {.kind = FKV_TOK_DECODE_STRIP, .from = blank, .start = p->space_before},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct fkv_tok_decoder *d = fkv_tok_add_decoder(t, where, err);
        if (!d) return FKV_FAILED;
        *d = steps[i];
    }
    return FKV_OK;
}

int fkv_tok_build_pieces(struct fkv_tokenizer *t, const struct fkv_tok_pieces *p, const char *where,
                         struct fkv_error *err) {
    if (p->count < 1 || p->count > FKV_TOK_MAX_IDS)
        return fkv_fail(err, "%s: expected pieces, %d at most, found %d", where, FKV_TOK_MAX_IDS,
                        (int)p->count);
    t->byte_fallback = p->byte_fallback;
    t->fuse_unknown = true;
    if (set_normalizers(t, p, where, err) || fkv_tok_set_strings(t, p, where, err) ||
        set_merges(t, p, where, err) || fkv_tok_set_added(t, p, where, err))
        return FKV_FAILED;
    return set_decoders(t, p, where, err);
}
