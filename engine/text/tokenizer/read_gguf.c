/* The tokenizer in a GGUF file's metadata, `tokenizer.ggml.*`. Two of its models are read:
 *
 *   gpt2    BPE over GPT-2's stand-ins for bytes, with a list of merges; `pre` names the
 *           pre-tokenizer (pre_tokenizers.c)
 *   llama   sentencepiece's BPE: pieces with scores (pieces.c)
 *
 * Both list their tokens with types. Control tokens and those of the user are found in a text as
 * they are written; control, unknown and unused tokens are left out of a decoded text. What is not
 * said is as in llama.cpp: BOS is put before a text by `llama` and by some pre-tokenizers, and
 * `llama` puts a space before it. Refused by name: other models (bert, t5, rwkv, ...), other
 * pre-tokenizers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/checkpoint/gguf.h"
#include "engine/text/tokenizer/parts.h"

#define KEY "tokenizer.ggml."

static struct fkv_tok_text text_of(struct fkv_gguf_string s) {
    return (struct fkv_tok_text){s.text, s.bytes};
}

static bool equals(struct fkv_tok_text s, const char *text) {
    return s.bytes == strlen(text) && !memcmp(s.at, text, s.bytes);
}

/* ---- tokens, types, scores ---- */

/* An array with one item for each token. */
static int get_column(const struct fkv_gguf *g, const char *key, bool required,
                      enum fkv_gguf_type type, int32_t tokens, struct fkv_gguf_array *out,
                      struct fkv_error *err) {
    if (fkv_gguf_get_array(g, key, required, type, out, err)) return FKV_FAILED;
    if (fkv_gguf_has(g, key) && out->count != (size_t)tokens)
        return fkv_fail(err, "%s: key %s: expected %d items, as many as " KEY "tokens, found %zu",
                        fkv_gguf_path(g), key, (int)tokens, out->count);
    return FKV_OK;
}

static int fill_pieces(const struct fkv_gguf *g, struct fkv_gguf_array tokens,
                       const struct fkv_gguf_array *types, const struct fkv_gguf_array *scores,
                       struct fkv_tok_pieces *p, struct fkv_error *err) {
    for (int32_t i = 0; i < p->count; i++) {
        struct fkv_tok_piece *piece = &p->at[i];
        const double type = types->count ? fkv_gguf_item(types, (size_t)i) : FKV_TOK_NORMAL;
        if (!(type >= FKV_TOK_NORMAL && type <= FKV_TOK_BYTE))
            return fkv_fail(err, "%s: key " KEY "token_type: expected 1 to 6, found %g at [%d]",
                            fkv_gguf_path(g), type, (int)i);
        *piece = (struct fkv_tok_piece){
            .text = text_of(fkv_gguf_next_string(&tokens)),
            .score = scores->count ? (float)fkv_gguf_item(scores, (size_t)i) : 0,
            .type = (uint8_t)type,
        };
        if (isnan(piece->score))
            return fkv_fail(err, "%s: key " KEY "scores: expected numbers, found none at [%d]",
                            fkv_gguf_path(g), (int)i);
        if (!piece->text.bytes) piece->type = FKV_TOK_UNUSED; /* no text is spelt by it */
        if (piece->type == FKV_TOK_BYTE) p->byte_fallback = true;
    }
    return FKV_OK;
}

/* The pieces are the caller's to free. `scored`: scores and types must be there. */
static int read_pieces(const struct fkv_gguf *g, bool scored, struct fkv_tok_pieces *p,
                       struct fkv_error *err) {
    struct fkv_gguf_array tokens, types = {0}, scores = {0};
    if (fkv_gguf_get_array(g, KEY "tokens", true, FKV_GGUF_STRING, &tokens, err)) return FKV_FAILED;
    if (!tokens.count || tokens.count > FKV_TOK_MAX_IDS)
        return fkv_fail(err, "%s: key " KEY "tokens: expected 1 to %d tokens, found %zu",
                        fkv_gguf_path(g), FKV_TOK_MAX_IDS, tokens.count);
    p->count = (int32_t)tokens.count;
    if (get_column(g, KEY "token_type", scored, FKV_GGUF_INT32, p->count, &types, err) ||
        (scored && get_column(g, KEY "scores", true, FKV_GGUF_FLOAT32, p->count, &scores, err)))
        return FKV_FAILED;
    p->at = calloc(tokens.count, sizeof *p->at);
    if (!p->at) return fkv_fail(err, "%s: out of memory", fkv_gguf_path(g));
    return fill_pieces(g, tokens, &types, &scores, p, err);
}

/* ---- BOS and EOS ---- */

/* The id that stands at an end of a text, where one does; `add` says whether by default. */
static int read_end(const struct fkv_gguf *g, const char *add_key, const char *id_key, bool add,
                    int32_t tokens, int32_t *id, struct fkv_error *err) {
    int64_t value = -1;
    *id = -1;
    if (fkv_gguf_get_bool(g, add_key, false, &add, err)) return FKV_FAILED;
    if (!add) return FKV_OK;
    if (fkv_gguf_get_int(g, id_key, true, 0, tokens - 1, &value, err)) return FKV_FAILED;
    *id = (int32_t)value;
    return FKV_OK;
}

static int read_ends(const struct fkv_gguf *g, bool bos, struct fkv_tok_pieces *p,
                     struct fkv_error *err) {
    if (read_end(g, KEY "add_bos_token", KEY "bos_token_id", bos, p->count, &p->bos, err))
        return FKV_FAILED;
    return read_end(g, KEY "add_eos_token", KEY "eos_token_id", false, p->count, &p->eos, err);
}

/* ---- gpt2 ---- */

static int add_steps(struct fkv_tokenizer *t, const struct fkv_gguf *g,
                     const struct fkv_tok_pre *pre, struct fkv_error *err) {
    char where[400];
    bool space_before = false;
    fkv_print_short(where, sizeof where, "%s: key " KEY "pre", fkv_gguf_path(g));
    if (fkv_gguf_get_bool(g, KEY "add_space_prefix", false, &space_before, err)) return FKV_FAILED;
    if (pre->nfc) { /* the first step */
        struct fkv_tok_normalizer *n = fkv_tok_add_normalizer(t, fkv_tok_normal_form, where, err);
        if (!n) return FKV_FAILED;
        n->form = UTF8PROC_COMPOSE;
    }
    if (space_before && !fkv_tok_add_splitter(t, fkv_tok_space_before, where, err))
        return FKV_FAILED;
    for (int i = 0; pre->split[i]; i++) {
        if (i && i == pre->bytes_after && fkv_tok_add_byte_level(t, false, false, where, err))
            return FKV_FAILED;
        if (fkv_tok_add_split(t, pre->split[i], FKV_TOK_ISOLATED, false, where, err))
            return FKV_FAILED;
    }
    if (!pre->bytes_after && fkv_tok_add_byte_level(t, false, false, where, err)) return FKV_FAILED;
    struct fkv_tok_decoder *d = fkv_tok_add_decoder(t, where, err);
    if (!d) return FKV_FAILED;
    d->kind = FKV_TOK_DECODE_BYTE_LEVEL;
    return FKV_OK;
}

static int add_merges(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_error *err) {
    struct fkv_gguf_array merges;
    if (fkv_gguf_get_array(g, KEY "merges", true, FKV_GGUF_STRING, &merges, err)) return FKV_FAILED;
    if (merges.count > INT32_MAX / 2)
        return fkv_fail(err, "%s: key " KEY "merges: found too many: %zu", fkv_gguf_path(g),
                        merges.count);
    if (fkv_tok_start_merges(t, NULL, merges.count, fkv_gguf_path(g), err)) return FKV_FAILED;
    for (int32_t rank = 0; merges.count; rank++) {
        const struct fkv_tok_text pair = text_of(fkv_gguf_next_string(&merges));
        /* behind the first character, which may be a space itself */
        const char *space = pair.bytes > 1 ? memchr(pair.at + 1, ' ', pair.bytes - 1) : NULL;
        const size_t left = space ? (size_t)(space - pair.at) : 0;
        int status = space ? fkv_tok_add_merge(
                                 t, (struct fkv_tok_text){pair.at, left},
                                 (struct fkv_tok_text){space + 1, pair.bytes - left - 1}, rank, err)
                           : fkv_fail(err, "expected \"left right\", found \"%.*s\"",
                                      fkv_tok_shown(pair), pair.at);
        if (status)
            return fkv_error_prefix(err, "%s: key " KEY "merges[%d]", fkv_gguf_path(g), (int)rank);
    }
    return FKV_OK;
}

/* The key `tokens`, for messages about one of them. */
static const char *name_tokens(const struct fkv_gguf *g, char where[400]) {
    fkv_print_short(where, 400, "%s: key " KEY "tokens", fkv_gguf_path(g));
    return where;
}

static int read_gpt2(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_tok_pieces *p,
                     struct fkv_error *err) {
    struct fkv_gguf_string name = {"default", 7};
    char where[400];
    name_tokens(g, where);
    if (fkv_gguf_get_string(g, KEY "pre", false, &name, err)) return FKV_FAILED;
    const struct fkv_tok_pre *pre = fkv_tok_find_pre(text_of(name));
    if (!pre)
        return fkv_fail(err,
                        "%s: key " KEY "pre: expected a pre-tokenizer that is known (gpt-2, "
                        "llama-bpe, qwen2, ...), found %.*s",
                        fkv_gguf_path(g), fkv_tok_shown(text_of(name)), name.text);
    if (!fkv_gguf_has(g, KEY "pre"))
        fkv_print_short(t->note, sizeof t->note,
                        "the file does not name its pre-tokenizer (" KEY "pre): llama.cpp's "
                        "default is used, which may not be the model's");
    t->ignore_merges = pre->ignore_merges;
    if (read_pieces(g, false, p, err) || read_ends(g, pre->bos, p, err) ||
        add_steps(t, g, pre, err) || fkv_tok_set_strings(t, p, where, err) || add_merges(t, g, err))
        return FKV_FAILED;
    return fkv_tok_set_added(t, p, where, err);
}

/* ---- llama ---- */

static int read_llama(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_tok_pieces *p,
                      struct fkv_error *err) {
    int64_t unknown = -1;
    char where[400];
    p->space_before = true;
    if (read_pieces(g, true, p, err) || read_ends(g, true, p, err) ||
        fkv_gguf_get_bool(g, KEY "add_space_prefix", false, &p->space_before, err) ||
        fkv_gguf_get_bool(g, KEY "remove_extra_whitespaces", false, &p->squeeze_spaces, err) ||
        fkv_gguf_get_int(g, KEY "unknown_token_id", false, 0, p->count - 1, &unknown, err))
        return FKV_FAILED;
    if (unknown >= 0) p->at[unknown].type = FKV_TOK_UNKNOWN;
    return fkv_tok_build_pieces(t, p, name_tokens(g, where), err);
}

static const struct {
    const char *model;
    int (*read)(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_tok_pieces *p,
                struct fkv_error *err);
} rows[] = {{"gpt2", read_gpt2}, {"llama", read_llama}};
enum { ROWS = sizeof rows / sizeof *rows };

int fkv_tok_read_gguf(struct fkv_tokenizer *t, const struct fkv_gguf *g, struct fkv_error *err) {
    struct fkv_gguf_string model;
    struct fkv_tok_pieces pieces = {.user_as_written = true};
    if (fkv_gguf_get_string(g, KEY "model", true, &model, err)) return FKV_FAILED;
    int i = 0;
    while (i < ROWS && !equals(text_of(model), rows[i].model)) i++;
    if (i == ROWS)
        return fkv_fail(err, "%s: key " KEY "model: expected gpt2 or llama, found %.*s",
                        fkv_gguf_path(g), fkv_tok_shown(text_of(model)), model.text);
    const int status = rows[i].read(t, g, &pieces, err) || fkv_gguf_sha256(g, KEY, t->sha256, err)
                           ? FKV_FAILED
                           : FKV_OK;
    free(pieces.at);
    return status;
}
